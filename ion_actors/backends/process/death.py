"""How a child process has died, in words."""

from __future__ import annotations

import signal

__all__ = ["ORPHANED", "how_it_died", "signal_name"]

#: With this a child exits whose parent is gone. Nobody is left to see it, but a debugger.
ORPHANED = 113


def signal_name(exitcode: int | None) -> str | None:
    """The name of the signal that ended a process; None if none did.

    Args:
        exitcode: as of ``multiprocessing.Process``: below zero for signals.
    """
    if exitcode is None or exitcode >= 0:
        return None
    try:
        return signal.Signals(-exitcode).name
    except ValueError:  # a realtime signal
        return f"signal {-exitcode}"


def how_it_died(exitcode: int | None) -> str:
    """What an exit code says, as the end of a sentence about the process."""
    if exitcode is None:
        return (
            "has ended; how is not known: the forkserver, which is told, has ended as well, or "
            "this program ignores SIGCHLD, or waits for all its children"
        )
    name = signal_name(exitcode)
    if name is None:
        return f"exited with code {exitcode}"
    if name == "SIGKILL":
        return "was killed by SIGKILL, perhaps by the system, for want of memory"
    words = signal.strsignal(-exitcode)
    return f"was killed by {name}" + (f" ({words})" if words else "")
