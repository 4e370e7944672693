"""Hooks that run in forked children: a child has copies of all objects, but only its own thread.

::

    os.fork()               Python runs the hooks in the child, before anything else
    fork() in foreign code  the first call of this library in the child runs them

Some programs fork in C and do not tell Python (uWSGI's workers, for example). There, the library's
public functions notice it by :data:`HOOKS_RAN`: a byte in memory that the kernel fills with zeros
in each forked child. Reading it costs some 15 ns, ``os.getpid()`` would cost ten times that. A
function checks it before it takes a lock or waits, so no thread of the child holds a lock when the
hooks replace the locks.

Where the kernel has no such memory, only functions that can afford ``os.getpid()`` notice such a
fork: they call :func:`check`.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import sys
import threading
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

__all__ = [
    "HOOKS_RAN",
    "Inherited",
    "before_fork",
    "check",
    "has_ghosts",
    "no_fork_meanwhile",
    "on_fork",
    "renew_after_fork",
    "run_hooks",
]

_WIPE_ON_FORK = 18  # MADV_WIPEONFORK of Linux 4.14, for which the mmap module has no name


class Inherited(Protocol):
    """An object that has locks, or a list of waiting threads."""

    def after_fork(self) -> None:
        """Forget, in the child, the threads that stayed in the parent.

        Nothing else runs in the child yet. A lock may be held by a thread of the parent, in the
        middle of a change, so it must be replaced and not waited for. If this is interrupted, it
        is called again.
        """
        ...


def _wiped_page() -> mmap.mmap | None:
    """Memory that reads as zero in each forked child; None if the kernel has no such thing."""
    if sys.platform != "linux":
        return None
    page = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    try:
        page.madvise(_WIPE_ON_FORK)
    except OSError:
        return None
    return page


_page = _wiped_page()

#: ``HOOKS_RAN[0]`` is 0 in a forked child whose hooks have not run: then call :func:`run_hooks`.
HOOKS_RAN: mmap.mmap | bytearray = bytearray(1) if _page is None else _page

_pid = os.getpid()
_hooks: list[Callable[[], object]] = []
_all: weakref.WeakSet[Inherited] = weakref.WeakSet()
# Held by the thread that runs the hooks. A thread of the parent may hold the parent's lock, so each
# process has its own.
_locks: dict[int, AbstractContextManager[object]] = {}
_whole = threading.RLock()  # held in those blocks, and during each fork that Python makes
_ghosts = False
_under_way_in = 0  # the process whose hooks are being run


def on_fork(hook: Callable[[], object]) -> None:
    """Call ``hook()`` in each forked child, in the order of registration, for ever.

    The rules of :meth:`Inherited.after_fork` apply to it.
    """
    _hooks.append(hook)


def before_fork(hook: Callable[[], object]) -> None:
    """Call ``hook()`` before each fork that Python makes, for ever."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=hook)


def no_fork_meanwhile() -> AbstractContextManager[object]:
    """A block, to be kept short, during which other threads cannot fork by ``os.fork``.

    A fork keeps copies of all descriptors. Some must be closed everywhere before their reader goes
    on: ``subprocess.Popen`` waits for the end of a pipe whose other end a fork may have got.
    """
    return _whole


def renew_after_fork(one: Inherited) -> None:
    """Call ``one.after_fork()`` in each forked child, as long as the object exists."""
    if not HOOKS_RAN[0]:
        run_hooks()
    _all.add(one)


def check() -> None:
    """Run the hooks if this is a forked child where they have not run. It may block."""
    if not HOOKS_RAN[0] or (_page is None and os.getpid() != _pid):
        run_hooks()


def run_hooks() -> None:
    """Run the hooks once, in a child that was forked without Python's knowledge.

    Other threads that call this meanwhile wait for that.
    """
    pid = os.getpid()
    with _locks.setdefault(pid, threading.RLock()):
        if _under_way_in == pid:
            return  # a hook has called a function that checks
        if _pid != pid or not HOOKS_RAN[0]:
            _run_hooks(by_python=False)


def has_ghosts() -> bool:
    """Whether the interpreter still lists the threads of the parent.

    If so, the frames of threads must not be read: those of a parent's thread are in invalid memory.
    """
    return _ghosts


def _run_hooks(*, by_python: bool = True) -> None:
    global _pid, _under_way_in, _ghosts, _whole  # noqa: PLW0603  # there is only one process
    _ghosts = not by_python
    _whole = threading.RLock()
    _under_way_in = os.getpid()
    errors = []
    try:
        for hook in (*_hooks, *[one.after_fork for one in list(_all)]):
            try:
                hook()
            except Exception as error:  # a bug, but the others must run
                errors.append(error)
        _pid = _under_way_in
        HOOKS_RAN[0] = 1  # last: whoever reads it finds all done; if interrupted, they run again
    finally:
        _under_way_in = 0
    if errors:
        raise ExceptionGroup(f"some hooks failed after a fork: {errors}", errors)


def _begin_fork() -> None:
    _whole.acquire()


def _end_fork() -> None:
    with contextlib.suppress(RuntimeError):  # Ctrl-C: it was not acquired
        _whole.release()


HOOKS_RAN[0] = 1
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_begin_fork, after_in_parent=_end_fork, after_in_child=_run_hooks)
