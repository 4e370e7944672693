"""A started process: signals to it, its end, and its exit code as text."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from multiprocessing.connection import wait

from ion_actors.backends.process.parent.forkserver import read_number
from ion_actors.clock import system_clock

__all__ = ["Handle", "how_it_died", "signal_name"]

# Seconds to wait for an exit code once the process has ended.
_CODE_PATIENCE = 5.0


class Handle:
    """Sends signals to a process, and waits for its end.

    With pidfds it never confuses the process with a later one of the same id.

    Args:
        pid: its id.
        sentinel: a descriptor that is readable when it has ended. The handle owns this and
        stream: the one by which it got its instructions; open as long as its parent lives.
        forked: whether a forkserver forked it, which writes its exit code to the sentinel.
    """

    def __init__(self, pid: int, sentinel: int, stream: int, *, forked: bool) -> None:
        self.pid = pid
        self._own_sentinel, self._stream, self._forked = sentinel, stream, forked
        self._pidfd = _open_pidfd(pid)
        self._sentinel = sentinel if self._pidfd is None else self._pidfd

    def has_ended(self) -> bool:
        """Whether it has ended."""
        return bool(wait([self._sentinel], 0))

    def await_end(self) -> None:
        """Wait until it has ended."""
        wait([self._sentinel])

    def send_signal(self, signum: signal.Signals) -> bool:
        """Send it a signal, if it has not ended. Not to be called after :meth:`bury`.

        Returns:
            Whether that is permitted. It is not, for example, after this process has dropped its
            privileges.
        """
        try:
            if self._pidfd is not None:
                signal.pidfd_send_signal(self._pidfd, signum)
            elif self.pid:
                os.kill(self.pid, signum)
        except ProcessLookupError:  # it has just ended
            return True
        except PermissionError:
            return False
        return True

    def bury(self) -> int | None:
        """It has ended: free its resources. Returns its exit code, if that is known."""
        try:
            return self._told_code() if self._forked else self._reaped_code()
        finally:
            self._close()

    def _close(self) -> None:
        """Close its descriptors."""
        for fd in (self._own_sentinel, self._stream, self._pidfd):
            if fd is not None:
                os.close(fd)

    def _told_code(self) -> int | None:
        if not wait([self._own_sentinel], _CODE_PATIENCE):
            return None
        try:
            return read_number(self._own_sentinel)
        except (OSError, EOFError):  # the forkserver has ended as well
            return None

    def _reaped_code(self) -> int | None:
        until = system_clock.monotonic() + _CODE_PATIENCE
        with contextlib.suppress(ChildProcessError):  # other code has waited for it
            while system_clock.monotonic() < until:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                if pid:
                    return os.waitstatus_to_exitcode(status)
                time.sleep(0.005)
        return None


def _open_pidfd(pid: int) -> int | None:
    if not (hasattr(os, "pidfd_open") and hasattr(signal, "pidfd_send_signal")):
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:  # a kernel without it; or it has died already, and is not there any more
        return None


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
    """An exit code as text: the end of a sentence about the process."""
    if exitcode is None:
        return (
            "has ended; its exit code is unknown, since the forkserver, which reports it, has "
            "ended as well, or this program ignores SIGCHLD, or waits for all its children"
        )
    name = signal_name(exitcode)
    if name is None:
        return f"exited with code {exitcode}"
    if name == "SIGKILL":
        return "was killed by SIGKILL, perhaps by the system because memory ran out"
    words = signal.strsignal(-exitcode)
    return f"was killed by {name}" + (f" ({words})" if words else "")
