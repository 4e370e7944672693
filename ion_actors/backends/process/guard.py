"""A program that makes its pool whenever it is imported, and so in each of its children.

A child begins by importing the main module of its parent. If that makes a pool of processes, which
is what ``if __name__ == "__main__":`` is there to prevent, the child ends at once, with an exit
code that its parent knows. The parent then says what is wrong, once, and does not try again.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator

from ion_actors.backends.protocol import Hopeless

__all__ = ["UNGUARDED", "leave_if_unguarded", "starting", "temporary_name", "unguarded"]

#: With this exits a child, or a forkserver, that is about to have children before it has started.
UNGUARDED = 114

_PREFIX = "ion_actors child "
_PATIENCE = 1.0  # seconds that a forkserver may take to exit once it has closed its streams


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
    """End this process if it is a child of ours that has not begun yet."""
    process = multiprocessing.current_process()
    if getattr(process, "_inheriting", False) and (
        process.name.startswith(_PREFIX) or _is_forkserver_of_ours()
    ):
        os._exit(UNGUARDED)


def _is_forkserver_of_ours() -> bool:
    """Whether this process was started to be a forkserver, and is to preload the child's code."""
    command = " ".join(sys.orig_argv)
    return "multiprocessing.forkserver" in command and "ion_actors.backends" in command


@contextlib.contextmanager
def starting(method: str) -> Iterator[None]:
    """For the time in which a process is started.

    Raises:
        Hopeless: the forkserver has exited for that reason.
    """
    try:
        yield
    except (OSError, EOFError):
        if method == "forkserver" and _forkserver_has_left():
            raise unguarded() from None
        raise


def _forkserver_has_left() -> bool:
    from multiprocessing import forkserver  # noqa: PLC0415 - not everywhere

    pid: int | None = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
    if pid is None:
        return False
    until = time.monotonic() + _PATIENCE
    with contextlib.suppress(ChildProcessError):  # another thread has seen it off
        while time.monotonic() < until:
            # Only looked at: its end is multiprocessing's to take note of.
            found = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if found is not None:
                return found.si_status == UNGUARDED
            time.sleep(0.005)
    return False
