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
import functools
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

__all__ = ["main_can_be_imported", "main_in_place", "remember_main"]

_lock = threading.Lock()  # guards that one thread at a time changes what main says of itself


def remember_main() -> None:
    """Look now, while the program runs."""
    _importable_file()
    main_can_be_imported()


@functools.cache
def main_can_be_imported() -> bool:
    """Whether a child has a main module like this process's."""
    name = _spec_name(sys.modules.get("__main__"))
    if name is None:
        return _importable_file() is not None
    return name.rpartition(".")[2] != "__main__"


@functools.cache
def _importable_file() -> str | None:
    file = getattr(sys.modules.get("__main__"), "__file__", None)
    return file if file is not None and Path(file).exists() else None


def _spec_name(main: ModuleType | None) -> str | None:
    name: str | None = getattr(getattr(main, "__spec__", None), "name", None)
    return name


@contextlib.contextmanager
def main_in_place() -> Iterator[None]:
    """For the time in which a process is started: main says of itself what a child can import."""
    main = sys.modules.get("__main__")
    file = _importable_file()
    if main is None or _spec_name(main) is not None or getattr(main, "__file__", None) == file:
        yield
        return
    with _lock:
        before = vars(main).pop("__file__", None)
        if file is not None:
            main.__file__ = file
        try:
            yield
        finally:
            vars(main).pop("__file__", None)
            if before is not None:
                main.__file__ = before
