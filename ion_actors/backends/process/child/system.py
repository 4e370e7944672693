"""What a child process asks of its operating system."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
from multiprocessing.connection import wait
from pathlib import Path
from types import FrameType

__all__ = ["ORPHANED", "die_with_parent", "is_importing", "resident_memory", "signal_main_thread"]

# Which signal tells of what happens to a descriptor; Python has no name for it before 3.13.
_F_SETSIG = 10


def die_with_parent(lifeline: socket.socket) -> None:
    """Have the kernel kill this process when the parent is gone, whatever it is at.

    The watching thread cannot, while native code keeps Python's lock. The kernel can signal the end
    of a stream.

    Args:
        lifeline: the other end of it is the parent's alone, and is never written to.
    """
    if sys.platform != "linux":
        return
    import fcntl  # noqa: PLC0415 - not everywhere

    fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(lifeline, _F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)
    if wait([lifeline], 0):  # it was gone before
        os._exit(ORPHANED)


def signal_main_thread(signum: signal.Signals) -> None:
    """Send a signal to the main thread, so that its system call is interrupted if it is in one."""
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident or 0, signum)
    else:
        signal.raise_signal(signum)


def is_importing(frame: FrameType | None) -> bool:
    """Whether a module is being imported there. One that is interrupted may be of no more use."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def resident_memory() -> int:
    """Bytes of memory that this process holds now or, where that is not known, has held at most."""
    with contextlib.suppress(OSError):
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    import resource  # noqa: PLC0415 - not everywhere

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


#: With this a child exits whose parent is gone. Nobody is left to see it, but a debugger.
ORPHANED = 113
