"""What a limiter that fails open says while its storage fails: again and again, but not often."""

from __future__ import annotations

import logging
import threading

from ion_actors.clock import Clock
from ion_actors.errors import StorageUnavailable
from ion_actors.forking import renew_after_fork
from ion_actors.observe import Log, Probe

__all__ = ["Outage"]

# Failures that do not end by themselves: somebody has to change something.
_FOR_PEOPLE = frozenset({"authentication", "read_only", "out_of_memory", "script", "refused"})


class Outage:
    """Counts what is let through because the storage fails, and says so at a bounded rate.

    Args:
        limiter: the limiter's name.
        clock: what tells the time.
        every: seconds between two messages, at least.
        log: where to.
        probe: gets the counter ``ion_ratelimit_fail_open_total`` with the label ``kind``, or None.
    """

    def __init__(
        self, limiter: str, clock: Clock, every: float, log: Log, probe: Probe | None
    ) -> None:
        self._limiter = limiter
        self._clock = clock
        self._every = every
        self._log = log
        self._probe = probe
        self._said_at: float | None = None
        self._since = 0  # let through since the last message
        self._announced = False  # the last message said that the storage fails
        self.after_fork()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """In a forked child: the thread that had the lock may not be there."""
        # Guards what is counted and said. Nobody waits for it: who does not get it, says nothing.
        self._lock = threading.Lock()

    def failed(self, error: StorageUnavailable) -> None:
        """One call was let through because of this."""
        if self._probe is not None:
            self._probe.inc("ion_ratelimit_fail_open_total", kind=error.kind)
        self._since += 1
        if (count := self._due()) is None:
            return
        level = logging.ERROR if error.kind in _FOR_PEOPLE else logging.WARNING
        facts = {"kind": error.kind, "count": count}
        if count == 1:
            self._log(level, "%s lets everything through: %s", self._limiter, error, **facts)
        else:
            self._log(
                level, "%s lets everything through, %d calls since it last said so: %s",
                self._limiter, count, error, **facts,
            )  # fmt: skip

    def _due(self) -> int | None:
        """How many were let through since the last message; None if it is not yet time for one."""
        if not self._lock.acquire(blocking=False):
            return None
        try:
            now, last = self._clock.monotonic(), self._said_at
            if last is not None and now < last + self._every:
                return None
            self._said_at, self._announced = now, True
            count, self._since = self._since, 0
            return count or None
        finally:
            self._lock.release()

    def over(self) -> None:
        """The storage has answered."""
        if self._announced:
            self._announced = False  # a race of two threads here only logs twice
            self._log(logging.INFO, "%s limits again", self._limiter)
