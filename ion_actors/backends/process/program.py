"""The main module of the program, and whether a child process can make itself one like it.

``multiprocessing`` has each child import the file of its parent's main module, or the module of
that name. There is nothing to import after ``python -c``, at a prompt, in a notebook or when the
program comes from standard input, and what is called ``__main__`` (``python -m package``, ``python
folder``) it leaves alone. What is defined there can go to a child by value only.

A main module forgets its file when it has come to its end, which an interpreter that waits for its
pools survives. So the file is remembered, for the children that are started then.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

__all__ = ["after_fork", "main_can_be_imported", "main_in_place", "remember_main"]

_lock = threading.Lock()  # guards all below, and what main says of itself
_files: weakref.WeakKeyDictionary[ModuleType, str | None] = weakref.WeakKeyDictionary()
_starts = 0  # processes that are just being started
_undo: Callable[[], object] | None = None  # what to do when there are none


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
            _files[main] = file if file is not None and Path(file).exists() else None
        return _files[main]


@contextlib.contextmanager
def main_in_place() -> Iterator[None]:
    """For the time in which a process is started: main says of itself what a child can import."""
    global _starts, _undo  # noqa: PLW0603 - there is only one main module
    main = sys.modules.get("__main__")
    file = _importable_file(main)
    with _lock:
        if _starts == 0 and main is not None and _spec_name(main) is None:
            _undo = _put_in_place(main, file)
        _starts += 1
    try:
        yield
    finally:
        with _lock:
            _starts -= 1
            if _starts == 0 and _undo is not None:
                _undo()
                _undo = None


def _put_in_place(main: ModuleType, file: str | None) -> Callable[[], object] | None:
    """Returns how to undo it, if anything was done."""
    before: str | None = getattr(main, "__file__", None)
    if before == file:
        return None
    _set_file(main, file)
    return lambda: _set_file(main, before)


def _set_file(main: ModuleType, file: str | None) -> None:
    if file is None:
        vars(main).pop("__file__", None)
    else:
        main.__file__ = file


def after_fork() -> None:
    """In a forked child: a thread that stayed in the parent may have held the lock."""
    global _lock, _starts, _undo
    if _undo is not None:
        _undo()
    _lock, _starts, _undo = threading.Lock(), 0, None
