"""The main module of the program, and how a child process imports it.

A child imports the file of its parent's main module, or the module of that name, as
``multiprocessing`` does. There is nothing to import after ``python -c``, at a prompt, in a notebook
or when the program comes from standard input, and what is called ``__main__`` (``python -m
package``, ``python folder``) is not imported. What is defined there goes to a child only by value.

A main module loses its ``__file__`` when it has ended, but the interpreter may still wait for its
pools. So the file is remembered, for children that are started then. Under a debugger a main module
may lack most attributes.

If the main module makes a pool of processes whenever it is imported, so also in each child (which
``if __name__ == "__main__":`` prevents), the child ends at once, with an exit code that its parent
knows. The parent then reports the mistake, once, and does not try again.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
import threading
import weakref
from collections.abc import Iterator
from multiprocessing import process, spawn, util
from types import ModuleType
from typing import Any

from ion_actors.backends.protocol import Hopeless

__all__ = [
    "UNGUARDED",
    "after_fork",
    "check_bootstrapped",
    "check_main",
    "hide_main",
    "leave_if_unguarded",
    "main_can_be_imported",
    "preparation",
    "remember_main",
    "serving",
    "take_on",
    "temporary_name",
    "unguarded",
]

_OF_A_DESCRIPTOR = ("/dev/fd/", "/dev/std", "/proc/")

_lock = threading.Lock()  # guards the files
_files: weakref.WeakKeyDictionary[ModuleType, str | None] = weakref.WeakKeyDictionary()
_failure: BaseException | None = None  # of the import of the main module, in a child


def remember_main() -> None:
    """Remember the file now, while the program runs."""
    main_can_be_imported()


def hide_main() -> None:
    """This process's main module is no part of the program: its children have none."""
    with _lock:
        _files[sys.modules["__main__"]] = None


def main_can_be_imported() -> bool:
    """Whether a child has a main module like this process's."""
    main = sys.modules.get("__main__")
    name = _spec_name(main)
    if name is None:
        return _importable_file(main) is not None
    return name.rpartition(".")[2] != "__main__"


def _spec_name(main: ModuleType | None) -> str | None:
    name: str | None = getattr(getattr(main, "__spec__", None), "name", None)
    return name


def _importable_file(main: ModuleType | None) -> str | None:
    """The file of a main module, as it was at the first call."""
    if main is None:
        return None
    with _lock:
        if main not in _files:
            file = getattr(main, "__file__", None)
            _files[main] = str(file) if file is not None and _is_there(str(file)) else None
        return _files[main]


def _is_there(file: str) -> bool:
    """Whether a child finds the same file there: it has other descriptors, and a pipe is read once.

    ``python /dev/stdin`` and ``python <(...)`` name a descriptor.
    """
    return os.path.isfile(file) and not file.startswith(_OF_A_DESCRIPTOR)


def preparation(name: str) -> dict[str, Any]:
    """The data for :func:`take_on`, in the format of ``multiprocessing.spawn.prepare``.

    The function of ``multiprocessing`` fails without a current directory, and for main modules
    without a ``__spec__``.

    Args:
        name: the name of the process until it has imported its main module.
    """
    data: dict[str, Any] = {
        "name": name,
        "authkey": bytes(process.current_process().authkey),
        "log_to_stderr": util._log_to_stderr,  # type: ignore[attr-defined]
        "sys_path": list(sys.path),
        "sys_argv": list(getattr(sys, "argv", [""])),
        "orig_dir": process.ORIGINAL_DIR,  # type: ignore[attr-defined]
    }
    if util._logger is not None:  # type: ignore[attr-defined]
        data["log_level"] = util._logger.getEffectiveLevel()  # type: ignore[attr-defined]
    if (method := multiprocessing.get_start_method(allow_none=True)) is not None:
        data["start_method"] = method
    return {**data, **_what_main_is()}


def _what_main_is() -> dict[str, str]:
    main = sys.modules.get("__main__")
    if (name := _spec_name(main)) is not None:
        return {"init_main_from_name": name}
    if (file := _importable_file(main)) is None:
        return {}
    folder = process.ORIGINAL_DIR or ""  # type: ignore[attr-defined]
    return {"init_main_from_path": os.path.normpath(os.path.join(folder, file))}


def take_on(data: dict[str, Any]) -> None:
    """In a child: take on the parent's settings, and import its main module."""
    global _failure  # noqa: PLW0603 - of a process there is only one
    try:
        spawn.prepare(data)
    except BaseException as error:
        _failure = error  # reported to the parent as soon as that is possible


def check_main() -> None:
    """In a child: raise if the main module could not be imported.

    Raises:
        Hopeless: because of its content.
        OSError, MemoryError: something was missing, perhaps only for now.
    """
    error = _failure
    if error is None:
        return
    if isinstance(error, (OSError, MemoryError)) and not isinstance(error, PermissionError):
        raise error
    raise Hopeless(
        f"the main module of this program cannot be imported by a child process: it raised "
        f"{type(error).__name__}. What is not for children belongs under "
        '`if __name__ == "__main__":`'
    ) from error


def after_fork() -> None:
    """In a forked child: a thread of the parent may hold the lock."""
    global _lock  # noqa: PLW0603 - there is only one main module
    _lock = threading.Lock()


#: The exit code of a child, or a forkserver, that would start children during its own start.
UNGUARDED = 114

_PREFIX = "ion_actors child "
_serving = False  # this process is a forkserver, and imports what its children will need


def unguarded() -> Hopeless:
    """The error to raise in the parent."""
    return Hopeless(
        "the main module of this program, or a module that it imports, makes a pool of processes "
        "while it is imported. Each child imports it, too, and would make children of its own. "
        "Put what starts the program, and the pool with it, into a function, and call that under "
        '`if __name__ == "__main__":`'
    )


def temporary_name(name: str) -> str:
    """The name of a child's process until it has imported the main module."""
    return _PREFIX + name


def leave_if_unguarded() -> None:
    """End this process if it is a child of ours that has not started yet, or a forkserver."""
    process = multiprocessing.current_process()
    beginning = getattr(process, "_inheriting", False) and process.name.startswith(_PREFIX)
    if beginning or _serving:
        os._exit(UNGUARDED)


def check_bootstrapped() -> None:
    """Raise if this process is a child of ``multiprocessing`` that has not started yet.

    Raises:
        Hopeless: it is.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise unguarded()


@contextlib.contextmanager
def serving() -> Iterator[None]:
    """The block in which a forkserver imports modules."""
    global _serving  # noqa: PLW0603 - of a process there is only one
    _serving = True
    try:
        yield
    finally:
        _serving = False
