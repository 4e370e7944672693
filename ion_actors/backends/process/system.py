"""What a child process asks of its operating system."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import select
import signal
import sys
import threading
from pathlib import Path

from ion_actors.backends.process.death import ORPHANED

__all__ = ["die_with_parent", "resident_memory", "signal_main_thread"]

# Which signal tells of what happens to a descriptor; Python has no name for it before 3.13.
_F_SETSIG = 10


def die_with_parent() -> None:
    """Have the kernel kill this process when the parent is gone, whatever it is at.

    The watching thread cannot, while native code keeps Python's lock. The kernel can signal the end
    of a stream: here of the one that ``multiprocessing`` keeps open in a parent for just that.
    """
    parent = multiprocessing.parent_process()
    if sys.platform != "linux" or parent is None:
        return
    import fcntl  # noqa: PLC0415 - not everywhere

    lifeline: int = parent.sentinel
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(lifeline, _F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)
    if select.select([lifeline], [], [], 0)[0]:  # it was gone before
        os._exit(ORPHANED)


def signal_main_thread(signum: signal.Signals) -> None:
    """Send a signal to the main thread, so that its system call is interrupted if it is in one."""
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident or 0, signum)
    else:
        signal.raise_signal(signum)


def resident_memory() -> int:
    """Bytes of memory that this process holds now or, where that is not known, has held at most."""
    with contextlib.suppress(OSError):
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    import resource  # noqa: PLC0415 - not everywhere

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
