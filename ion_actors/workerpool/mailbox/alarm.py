"""One timer for the first of many moments."""

from __future__ import annotations

import threading
from collections.abc import Callable

from ion_actors.actors import NO_MORE_THREADS
from ion_actors.clock import Clock, Repeatable, Timer
from ion_actors.interruption import is_interruption

__all__ = ["Alarm"]

_TRIES = 3


class Alarm:
    """Has the clock make a call at the first of the moments that something waits for.

    Args:
        clock: the clock.
        first: the first of them, or None. Asked under no lock.
        ring: the call, on the clock's thread: nothing in it may block. It calls :meth:`set`.
    """

    def __init__(
        self, clock: Clock, first: Callable[[], float | None], ring: Callable[[], object]
    ) -> None:
        self._clock = clock
        self._first = first
        self._ring = Repeatable(ring)
        self._timer: Timer | None = None
        self._lock = threading.RLock()  # guards the change of the timer

    def set(self, *, exactly: bool = False) -> None:
        """Have it ring in time, or not at all. To be called, under no lock, after each change.

        Args:
            exactly: it must not ring before. Else that is cheaper than to set it again.
        """
        try:
            self._set(exactly=exactly)
        except BaseException:
            # Thrown in from outside. It may have cancelled a timer that another thread relies on.
            self._set(exactly=exactly)
            raise

    def _set(self, *, exactly: bool) -> None:
        failed = 0
        while failed < _TRIES:  # another thread may have changed something meanwhile
            when, timer = self._first(), self._timer
            if when is None and timer is None:
                return
            if (
                when is not None
                and timer is not None
                and timer.pending
                and (timer.when == when or (timer.when < when and not exactly))
            ):
                return
            try:
                self._replace(None if when is None else self._clock.call_at(when, self._ring))
            except NO_MORE_THREADS as error:
                if is_interruption(error):
                    raise
                failed += 1  # perhaps it was thrown in; else the next change tries again

    def _replace(self, timer: Timer | None) -> None:
        with self._lock:
            old, self._timer = self._timer, timer
        if old is not None:
            old.cancel()
