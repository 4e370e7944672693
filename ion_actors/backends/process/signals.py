"""Signals that are sent to all processes of a program, and what a helper of ours does with them.

A terminal, a service manager or ``kill -- -group`` tells all processes at once. What becomes of the
tasks is for the parent to decide. So a child, and a forkserver, must not die of them. It handles
them by doing nothing, and does not ignore them: a program that a task starts would inherit an
ignored or a blocked signal, and could not be interrupted. A handler ends with ``exec``.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import socket
import sys
from collections.abc import Collection, Iterator, Mapping
from types import FrameType
from typing import Any

from ion_actors.forking import on_fork

__all__ = [
    "NO_SIGPIPE",
    "hold_back_others",
    "ignored_here",
    "leave_to_parent",
    "restore_in_forks",
    "take_over_ignored",
    "withheld",
    "without_sigpipe",
]

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2")

#: Those that may be sent to all processes of a program.
TO_ALL = tuple(getattr(signal, name) for name in _NAMES if hasattr(signal, name))

#: Flags of a send over a socket. That the other side is gone is an error of the call; it must not
#: end a program that has taken back that Python ignores SIGPIPE, as tools for a command line do.
NO_SIGPIPE: int = getattr(socket, "MSG_NOSIGNAL", 0)

# Python ignores some by itself, and nobody can ignore the others.
_NOT_TAKEN_OVER = {
    getattr(signal, name, None)
    for name in ("SIGPIPE", "SIGXFZ", "SIGXFSZ", "SIGKILL", "SIGSTOP", "SIGTERM", "SIGABRT")
}
_TAKEN_OVER = tuple(sorted(map(int, signal.valid_signals() - _NOT_TAKEN_OVER)))


# Where `sa_mask` is in `struct sigaction`: behind the handler, on these systems.
_MACHINES = {"x86_64", "i686", "aarch64", "arm64", "armv7l", "riscv64", "ppc64le"}
_MOST_OF_ACTION = 1024  # bytes; it has some 150
_offset_of_mask: int | None = None
_libc: Any = None
_ctypes: Any = None
with contextlib.suppress(ImportError):  # some builds of Python lack it
    _ctypes = importlib.import_module("ctypes")
_known = sys.platform in ("linux", "darwin") and os.uname().machine in _MACHINES
if _known and _ctypes is not None:
    _offset_of_mask, _libc = _ctypes.sizeof(_ctypes.c_void_p), _ctypes.CDLL(None)


def _leave(signum: int, frame: FrameType | None) -> None:
    """The parent has got it, too."""


def leave_to_parent(ignored: Collection[int] = ()) -> None:
    """Do nothing when one of these signals comes, from now on. Called by the main thread.

    Args:
        ignored: signals that the parent ignores; so do this process and the programs it starts.
    """
    for signum in TO_ALL:
        if signum in ignored and signum != signal.SIGTERM:
            signal.signal(signum, signal.SIG_IGN)
        elif signal.getsignal(signum) is not _leave:  # that of a forkserver is, and lasts
            signal.signal(signum, _leave)
            signal.siginterrupt(signum, False)  # system calls go on
            hold_back_others(signum)


def hold_back_others(signum: int) -> None:
    """Have the system hold back the other ones of these signals while it calls this one's handler.

    Handlers run on the small stack of ``faulthandler``, which overflows if some four of them come
    at once, and each is in the middle of its call. Python cannot say so; the C library can. It
    does nothing where it is not known how.

    Args:
        signum: has a handler already.
    """
    if _offset_of_mask is None:
        return
    action = _ctypes.create_string_buffer(_MOST_OF_ACTION)
    if _libc.sigaction(int(signum), None, action) == 0:
        for one in TO_ALL:
            _libc.sigaddset(_ctypes.byref(action, _offset_of_mask), int(one))
        _libc.sigaction(int(signum), action, None)


def restore_in_forks() -> None:
    """Have the usual dispositions in what this process forks: there it is not a child of ours."""
    on_fork(_restore)


def _restore() -> None:
    for signum in TO_ALL:
        if signal.getsignal(signum) is _leave:
            interrupt = signum == signal.SIGINT
            with contextlib.suppress(ValueError):  # the fork was noticed by another thread
                signal.signal(signum, signal.default_int_handler if interrupt else signal.SIG_DFL)


def ignored_here(status: Mapping[str, str]) -> frozenset[int]:
    """The signals that this process ignores, and that its children are to ignore, too.

    Args:
        status: what the system says of this process. Quicker than to ask for each signal.
    """
    if (found := status.get("SigIgn")) is not None:
        mask = int(found, 16)
        return frozenset(signum for signum in _TAKEN_OVER if mask >> (signum - 1) & 1)
    return frozenset(s for s in _TAKEN_OVER if signal.getsignal(s) is signal.SIG_IGN)


def take_over_ignored(ignored: frozenset[int], status: Mapping[str, str]) -> None:
    """Ignore these signals, as the parent does, and no others. Called by the main thread."""
    for signum in ignored ^ ignored_here(status):
        signal.signal(signum, signal.SIG_IGN if signum in ignored else signal.SIG_DFL)


@contextlib.contextmanager
def withheld() -> Iterator[None]:
    """For the time in which this thread starts a helper: that one has these signals blocked.

    They come when it has its handlers, and unblocks them.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, TO_ALL)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def without_sigpipe() -> Iterator[None]:
    """For the time in which this thread writes to a pipe: the same as ``NO_SIGPIPE`` does."""
    pending = signal.SIGPIPE in signal.sigpending()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGPIPE])
    try:
        yield
    finally:
        if not pending and signal.SIGPIPE in signal.sigpending():
            signal.sigwait([signal.SIGPIPE])
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
