"""A program that makes its pool whenever it is imported, and so in each of its children.

A child begins by importing the main module of its parent. If that makes a pool of processes, which
is what ``if __name__ == "__main__":`` is there to prevent, the child ends at once, with an exit
code that its parent knows. The parent then says what is wrong, once, and does not try again.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
from collections.abc import Iterator

from ion_actors.backends.protocol import Hopeless

__all__ = [
    "UNGUARDED",
    "check_bootstrapped",
    "leave_if_unguarded",
    "serving",
    "temporary_name",
    "unguarded",
]

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
