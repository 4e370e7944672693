"""Where a child is that does not answer, since native code holds the GIL: seen from outside.

In the child, ``faulthandler`` writes the stacks when a certain signal comes, without the GIL. The
signal goes to the watching thread, so that no system call of a task is interrupted. That thread has
not answered for a while: it waits for the GIL, which another thread holds, and no frame changes.
"""

from __future__ import annotations

import importlib
import threading
import time
from typing import Any

from ion_actors.backends.process.child.last_words import LastWords
from ion_actors.backends.process.signals import DUMP
from ion_actors.backends.process.transport.messages import Threads
from ion_actors.backends.stacks import formatted, read_dump
from ion_actors.clock import system_clock

__all__ = ["OutsideView"]

_PAUSE = 0.01  # seconds; a dump is over when no more has come for so long


class OutsideView:
    """Looks at one child.

    Args:
        pid: its process id.
        words: to which ``faulthandler`` writes there.
    """

    def __init__(self, pid: int, words: LastWords) -> None:
        self._pid = pid
        self._words = words
        # Held while a dump is written, or two would be read as one. Reentrant for signal handlers.
        self._lock = threading.RLock()

    def text(self, threads: Threads, until: float) -> str:
        """Why it does not answer, in a few words, and the stack of its task; empty if unknown.

        Args:
            threads: those of the child.
            until: the moment of the system's clock until which this may take.
        """
        try:
            with open(f"/proc/{self._pid}/status") as file:
                status = dict(line.split(":", 1) for line in file)
            if status["State"].strip()[:1] in "Tt":
                return ": it is stopped)\n"
            if DUMP is None or not int(status["SigCgt"], 16) >> (DUMP - 1) & 1:
                return ""
            if not self._lock.acquire(timeout=max(0.0, until - system_clock.monotonic())):
                return ""
            try:
                dump = self._dump(threads.watching, until)
            finally:
                self._lock.release()
            stack = formatted(read_dump(dump, threads.main))
        except (OSError, KeyError, ValueError, AttributeError):
            return ""  # it has just ended; or this system cannot do that
        return f": perhaps native code holds the GIL)\n{stack}" if stack else ""

    def _dump(self, thread: int, until: float) -> str:
        """What ``faulthandler`` writes there now."""
        begin = end = self._words.written()
        if begin is None or end is None or not thread:
            return ""
        libc: Any = importlib.import_module("ctypes").CDLL(None)
        if libc.tgkill(self._pid, thread, DUMP) != 0:
            return ""
        while system_clock.monotonic() < until:
            time.sleep(_PAUSE)
            before, end = end, self._words.written() or end
            if end == before > begin:
                break
        return self._words.take(begin, end)
