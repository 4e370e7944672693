"""Signals that are sent to all processes of a program, in the library's own processes.

A terminal, a service manager or ``kill -- -group`` signals all processes at once. The parent
decides what happens to the tasks. So children and forkservers must not die of these signals. They
have handlers that do nothing. The signals are not ignored: a program that a task starts would
inherit an ignored or a blocked signal, and could not be interrupted; ``exec`` removes handlers.
"""

from __future__ import annotations

import contextlib
import functools
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
    "DUMP",
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

#: Signals that may be sent to all processes of a program.
TO_ALL = tuple(getattr(signal, name) for name in _NAMES if hasattr(signal, name))

#: Flags of a send over a socket. If the other side has ended, the call raises; SIGPIPE must not end
#: the program, which may have given SIGPIPE its default action, as command-line tools do.
NO_SIGPIPE: int = getattr(socket, "MSG_NOSIGNAL", 0)

#: Has a child write its stacks, for :mod:`.parent.outside_view`. A signal that nobody uses: not the
#: first or the last of the realtime signals, nor one that a terminal or a service manager sends.
DUMP: int | None = signal.SIGRTMAX - 5 if sys.platform == "linux" else None

# Python itself ignores some of these; the others cannot be ignored.
_NOT_TAKEN_OVER = {
    getattr(signal, name, None)
    for name in ("SIGPIPE", "SIGXFZ", "SIGXFSZ", "SIGKILL", "SIGSTOP", "SIGTERM", "SIGABRT")
}
_TAKEN_OVER = tuple(sorted(map(int, signal.valid_signals() - _NOT_TAKEN_OVER)))


# Where `sa_mask` is in `struct sigaction`: behind the handler, on these systems.
_MACHINES = {"x86_64", "i686", "aarch64", "arm64", "armv7l", "riscv64", "ppc64le"}
_MOST_OF_ACTION = 1024  # bytes; it has about 150


@functools.cache
def _ctypes_and_libc() -> tuple[Any, Any]:
    """None for both on other systems. Only children need them; they are large."""
    if sys.platform not in ("linux", "darwin") or os.uname().machine not in _MACHINES:
        return None, None
    try:
        ctypes: Any = importlib.import_module("ctypes")
    except ImportError:  # some builds of Python lack it
        return None, None
    return ctypes, ctypes.CDLL(None)


def _leave(signum: int, frame: FrameType | None) -> None:
    """Do nothing: the parent has got the signal, too."""


def leave_to_parent(ignored: Collection[int] = ()) -> None:
    """Do nothing when one of these signals comes, from now on. Called by the main thread.

    Args:
        ignored: signals that the parent ignores; so do this process and the programs it starts.
    """
    for signum in TO_ALL:
        if signum in ignored and signum != signal.SIGTERM:
            signal.signal(signum, signal.SIG_IGN)
        elif signal.getsignal(signum) is not _leave:  # a forkserver has set it, and it stays
            signal.signal(signum, _leave)
            signal.siginterrupt(signum, False)  # system calls go on
            hold_back_others(signum)


def hold_back_others(signum: int) -> None:
    """Block the other ones of these signals while the handler of this one runs.

    Handlers run on the small stack of ``faulthandler``, which overflows if about four of them are
    nested. Python has no function for this; the C library has. On systems where that is not known
    to work, this does nothing.

    Args:
        signum: a signal that has a handler already.
    """
    ctypes, libc = _ctypes_and_libc()
    if ctypes is None:
        return
    offset_of_mask = ctypes.sizeof(ctypes.c_void_p)
    action = ctypes.create_string_buffer(_MOST_OF_ACTION)
    if libc.sigaction(int(signum), None, action) == 0:
        for one in TO_ALL:
            libc.sigaddset(ctypes.byref(action, offset_of_mask), int(one))
        libc.sigaction(int(signum), action, None)


def restore_in_forks() -> None:
    """Restore the usual handlers in forks of this process, which are not children of the pool."""
    on_fork(_restore)


def _restore() -> None:
    for signum in TO_ALL:
        if signal.getsignal(signum) is _leave:
            interrupt = signum == signal.SIGINT
            with contextlib.suppress(ValueError):  # this is not the main thread, which forked
                signal.signal(signum, signal.default_int_handler if interrupt else signal.SIG_DFL)


def ignored_here(status: Mapping[str, str]) -> frozenset[int]:
    """The signals that this process ignores, which its children must ignore, too.

    Args:
        status: the system's status of this process; quicker than asking for each signal.
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
    """The block in which this thread starts a helper: these signals are blocked there.

    The helper unblocks them when it has its handlers.
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
