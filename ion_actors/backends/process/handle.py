"""A process that was started, as the kernel knows it."""

from __future__ import annotations

import contextlib
import os
import signal
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

__all__ = ["Handle"]

# Seconds that an exit code may take from the forkserver once its process has ended.
_CODE_PATIENCE = 5.0


class Handle:
    """Sends signals to a process, and waits for its end.

    Where there are pidfds it never means a later process of the same number.

    Args:
        process: has been started, and is this one's from now on.
    """

    def __init__(self, process: BaseProcess) -> None:
        self._process = process
        self.pid = process.pid or 0
        self._pidfd = _open_pidfd(self.pid)
        self._sentinel = process.sentinel if self._pidfd is None else self._pidfd

    def has_ended(self) -> bool:
        """Whether it has."""
        return bool(wait([self._sentinel], 0))

    def await_end(self) -> None:
        """Wait until it has ended."""
        wait([self._sentinel])

    def send_signal(self, signum: signal.Signals) -> None:
        """Send it a signal, if it has not ended. Not to be called after :meth:`bury`."""
        with contextlib.suppress(ProcessLookupError):  # it was quicker
            if self._pidfd is not None:
                signal.pidfd_send_signal(self._pidfd, signum)
            elif self.pid:
                os.kill(self.pid, signum)

    def bury(self) -> int | None:
        """It has ended: let go of it. Returns its exit code, if that can be had."""
        exitcode = _exit_code(self._process)
        with contextlib.suppress(ValueError):  # it would say that it still runs
            self._process.close()
        if self._pidfd is not None:
            os.close(self._pidfd)
        return exitcode


def _exit_code(process: Any) -> int | None:
    started = process._popen
    if started.method != "forkserver":
        process.join(_CODE_PATIENCE)
        return process.exitcode  # type: ignore[no-any-return]
    code = None
    if wait([process.sentinel], _CODE_PATIENCE):
        with contextlib.suppress(OSError, EOFError):  # multiprocessing would call that 255
            code = _read_code(process.sentinel)
    started.returncode = 255 if code is None else code  # it can be read only once
    return code


def _read_code(sentinel: int) -> int:
    from multiprocessing.forkserver import read_signed  # noqa: PLC0415 - not everywhere

    found: int = read_signed(sentinel)
    return found


def _open_pidfd(pid: int) -> int | None:
    if not (hasattr(os, "pidfd_open") and hasattr(signal, "pidfd_send_signal")):
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:  # a kernel without it; or it has died already, and is not there any more
        return None
