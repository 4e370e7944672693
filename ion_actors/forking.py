"""What a forked child must put right: it has every object, but of the threads only its own.

::

    os.fork()               Python runs the hooks in the child, before anything else
    fork() in foreign code  nobody runs them: whoever comes here first in the child does

Some programs fork in C and do not tell Python (uWSGI's workers, for one). There, this library's
public functions notice it by :data:`HOOKS_RAN`: a byte in memory that the kernel fills with zeros
in each forked child. Reading it costs some 15 ns, where ``os.getpid()`` would cost ten times that.
The check comes before a function takes a lock or waits, so no thread of the child is inside when
the hooks replace the locks.

Where the kernel cannot do that, only those places notice such a fork that can afford
``os.getpid()``: they call :func:`check`.
"""

from __future__ import annotations

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
    "on_fork",
    "renew_after_fork",
    "run_hooks",
]

_WIPE_ON_FORK = 18  # MADV_WIPEONFORK of Linux 4.14, for which the mmap module has no name


class Inherited(Protocol):
    """What has locks, or knows who waits."""

    def after_fork(self) -> None:
        """Forget, in the child, the threads that stayed in the parent.

        Nothing else runs here yet. A lock may be held by a thread that is not there, in the midst
        of a change, so it must be replaced and not be waited for. If it is interrupted, it is
        called again.
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
# Held by who runs the hooks. A lock of the parent may be held by a thread that is not here, so each
# process has its own.
_locks: dict[int, AbstractContextManager[object]] = {}
_ghosts = False
_under_way_in = 0  # the process whose hooks are being run


def on_fork(hook: Callable[[], object]) -> None:
    """Have ``hook()`` called in each forked child, in the order of registration, for ever.

    What :class:`Inherited` says of ``after_fork`` holds for it.
    """
    _hooks.append(hook)


def before_fork(hook: Callable[[], object]) -> None:
    """Have ``hook()`` called before each fork that Python makes, for ever."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=hook)


def renew_after_fork(one: Inherited) -> None:
    """Have ``one.after_fork()`` called in each forked child, for as long as it lives."""
    if not HOOKS_RAN[0]:
        run_hooks()
    _all.add(one)


def check() -> None:
    """Run the hooks if this is a forked child where they have not run. For whoever may wait."""
    if not HOOKS_RAN[0] or (_page is None and os.getpid() != _pid):
        run_hooks()


def run_hooks() -> None:
    """In a child that was forked without Python's knowledge: put everything right, once.

    Threads that come meanwhile wait for that.
    """
    pid = os.getpid()
    with _locks.setdefault(pid, threading.RLock()):
        if _under_way_in == pid:
            return  # a hook has called a function that checks
        if _pid != pid or not HOOKS_RAN[0]:
            _run_hooks(by_python=False)


def has_ghosts() -> bool:
    """Whether the interpreter still has the threads of the parent in its list.

    Then nobody may look at the frames of threads: those of a ghost lie where its stack was.
    """
    return _ghosts


def _run_hooks(*, by_python: bool = True) -> None:
    global _pid, _under_way_in, _ghosts  # noqa: PLW0603  # of this process there is only one
    _ghosts = not by_python
    _under_way_in = os.getpid()
    errors = []
    try:
        for hook in (*_hooks, *[one.after_fork for one in list(_all)]):
            try:
                hook()
            except Exception as error:  # a bug, but the others have to run
                errors.append(error)
        _pid = _under_way_in
        HOOKS_RAN[0] = 1  # last: who sees it finds all in order; interrupted, they run again
    finally:
        _under_way_in = 0
    if errors:
        raise ExceptionGroup(f"not all could be put right after a fork: {errors}", errors)


HOOKS_RAN[0] = 1
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_run_hooks)
