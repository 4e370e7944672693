"""The main module of the program, and how a child process makes itself one like it.

A child imports the file of its parent's main module, or the module of that name, as
``multiprocessing`` does. There is nothing to import after ``python -c``, at a prompt, in a notebook
or when the program comes from standard input, and what is called ``__main__`` (``python -m
package``, ``python folder``) is left alone. What is defined there can go to a child by value only.

A main module forgets its file when it has come to its end, which an interpreter that waits for its
pools survives. So the file is remembered, for the children that are started then. A debugger may
have left a main module without most of what others have.

If the main module makes a pool of processes whenever it is imported, and so in each of its
children, which is what ``if __name__ == "__main__":`` is there to prevent, the child ends at once,
with an exit code that its parent knows. The parent then says what is wrong, once, and does not try
again.
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
from pathlib import Path
from types import ModuleType
from typing import Any

from ion_actors.backends.protocol import Hopeless

__all__ = [
    "UNGUARDED",
    "after_fork",
    "check_bootstrapped",
    "check_main",
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
    """Look now, while the program runs."""
    main_can_be_imported()


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
    """The file of a main module, as it was when somebody asked first."""
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
    return Path(file).is_file() and not file.startswith(_OF_A_DESCRIPTOR)


def preparation(name: str) -> dict[str, Any]:
    """What :func:`take_on` needs, in the format of ``multiprocessing.spawn.prepare``.

    That one's own function for it fails where there is no current directory, and for main modules
    without a ``__spec__``.

    Args:
        name: that the process is to have until it has imported its main module.
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
    return {"init_main_from_path": os.path.normpath(Path(folder, file))}


def take_on(data: dict[str, Any]) -> None:
    """In a child: be like the parent, and import its main module."""
    global _failure  # noqa: PLW0603 - of a process there is only one
    try:
        spawn.prepare(data)
    except BaseException as error:
        _failure = error  # the parent is told when there is a way to


def check_main() -> None:
    """In a child: complain if the main module could not be imported.

    Raises:
        Hopeless: because of what it contains.
        OSError, MemoryError: there was something missing, perhaps only for now.
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
    """In a forked child: a thread that stayed in the parent may have held the lock."""
    global _lock  # noqa: PLW0603 - there is only one main module
    _lock = threading.Lock()


#: With this exits a child, or a forkserver, that is about to have children before it has started.
UNGUARDED = 114

_PREFIX = "ion_actors child "
_serving = False  # this process is a forkserver, and imports what its children will need


def unguarded() -> Hopeless:
    """What to raise in the parent."""
    return Hopeless(
        "the main module of this program, or a module that it imports, makes a pool of processes "
        "while it is imported. Each child imports it, too, and would make children of its own. "
        "Put what starts the program, and the pool with it, into a function, and call that under "
        '`if __name__ == "__main__":`'
    )


def temporary_name(name: str) -> str:
    """The name that a child's process has until it has imported the main module."""
    return _PREFIX + name


def leave_if_unguarded() -> None:
    """End this process if it is a child of ours that has not begun yet, or a forkserver."""
    process = multiprocessing.current_process()
    beginning = getattr(process, "_inheriting", False) and process.name.startswith(_PREFIX)
    if beginning or _serving:
        os._exit(UNGUARDED)


def check_bootstrapped() -> None:
    """Complain if this process is a child of somebody else that has not begun yet.

    Raises:
        Hopeless: it is.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise unguarded()


@contextlib.contextmanager
def serving() -> Iterator[None]:
    """In a forkserver, for the time of its imports."""
    global _serving  # noqa: PLW0603 - of a process there is only one
    _serving = True
    try:
        yield
    finally:
        _serving = False
