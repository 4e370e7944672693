"""Calls of a child process to the operating system."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
from multiprocessing.connection import wait
from types import FrameType

__all__ = ["ORPHANED", "die_with_parent", "is_importing", "resident_memory", "signal_main_thread"]

# Sets the signal for events of a descriptor; Python has no name for it before 3.13.
_F_SETSIG = 10


def die_with_parent(lifeline: socket.socket) -> None:
    """Let the kernel kill this process when the parent has ended.

    The watching thread cannot do that while native code holds the GIL. The kernel can signal the
    end of a stream.

    Args:
        lifeline: a socket whose other end only the parent has, which never writes to it.
    """
    if sys.platform != "linux":
        return
    import fcntl  # noqa: PLC0415 - not everywhere

    fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(lifeline, _F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)
    if wait([lifeline], 0):  # it has ended already
        os._exit(ORPHANED)


def signal_main_thread(signum: signal.Signals) -> None:
    """Send a signal to the main thread, so that its system call is interrupted if it is in one."""
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident or 0, signum)
    else:
        signal.raise_signal(signum)


def is_importing(frame: FrameType | None) -> bool:
    """Whether a module is being imported there. An interrupted import may leave it unusable."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def resident_memory() -> int:
    """Bytes of memory that this process uses now or, if that is unknown, has used at most."""
    with contextlib.suppress(OSError):
        with open("/proc/self/statm", encoding="ascii") as file:
            pages = int(file.read().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    import resource  # noqa: PLC0415 - not everywhere

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


#: The exit code of a child whose parent has ended. Only a debugger can see it.
ORPHANED = 113
