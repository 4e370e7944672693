"""Whose turn it is: the permits, and the line of those who wait for them, as plain decisions.

There is no thread and no lock in here; :mod:`ion_actors.semaphore.permits` shares a line among
threads. Its lock is reentrant, since a signal handler or a finalizer may release permits while its
thread is in the midst of something here. Hence the shape of the code: what belongs together is
changed by a run of plain assignments, with no call in between at which CPython would let anybody
in, and what was looked up before a call is looked at again after it.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass

from ion_actors.context import Turn

__all__ = ["Fairness", "PermitLine", "SemaphoreMetrics", "Waiter"]

#: One who waits; the item is the number of permits.
Waiter = Turn[int]


class Fairness(enum.Enum):
    """Who is next when permits come free."""

    FIFO = "fifo"
    """The oldest waiter. Nobody passes it, however few permits they want: so the heavy are never
    starved by the light."""

    LIFO = "lifo"
    """The newest waiter. Nobody older passes it, and whoever comes is newer still. For work that
    is worth less the longer it has waited."""

    NONE = "none"
    """Whoever fits, the oldest of those first. Permits never lie idle while somebody could use
    them, but many light ones can starve a heavy one."""


@dataclass(frozen=True, slots=True)
class SemaphoreMetrics:
    """The numbers of a semaphore in one moment.

    Attributes:
        capacity: all permits.
        available: permits that nobody holds.
        waiting: how many wait for permits.
        acquisitions: how often permits were granted.
        given_up: how many waits ended without: by a timeout, a context or an interruption.
    """

    capacity: int
    available: int
    waiting: int
    acquisitions: int
    given_up: int


class PermitLine:
    """The permits of one semaphore, and who waits for them.

    Whenever a method has returned and :meth:`serve` has returned None, nobody waits whose turn it
    is: under FIFO and LIFO the front waiter does not fit, under NONE nobody does.
    """

    __slots__ = (
        "_first",
        "_last",
        "acquisitions",
        "available",
        "capacity",
        "fairness",
        "given_up",
        "waiting",
    )

    def __init__(self, capacity: int, fairness: Fairness) -> None:
        self.capacity = capacity
        self.fairness = fairness
        self.available = capacity
        self.waiting = 0
        self.acquisitions = 0
        self.given_up = 0
        self._first: Waiter | None = None
        self._last: Waiter | None = None

    # -- without waiting -------------------------------------------------------------------

    def take(self, permits: int) -> bool:
        """Take permits now, if one who comes now may have them."""
        # A newcomer is the newest, so under LIFO it is next; under NONE anybody is.
        if permits > self.available or (self.waiting and self.fairness is Fairness.FIFO):
            return False
        self.available -= permits
        self.acquisitions += 1
        return True

    def give_back(self, permits: int) -> bool:
        """Give permits back; False, and nothing happens, if fewer are held."""
        if permits > self.capacity - self.available:
            return False
        self.available += permits
        return True

    # -- waiting ---------------------------------------------------------------------------

    def join(self, turn: Waiter) -> None:
        """Wait, as the newest."""
        last = self._last
        turn.ahead = last
        if last is None:
            self._first = turn
        else:
            last.behind = turn
        self._last = turn
        self.waiting += 1

    def serve(self) -> Waiter | None:
        """Let in the one whose turn it is; None if there is none."""
        while (turn := self._next()) is not None:
            if self._end(turn, turn.item, None):
                self.acquisitions += 1
                return turn
        return None

    def leave(self, turn: Waiter, error: BaseException | None) -> bool:
        """End the wait with this error; False, and nothing happens, if it is over."""
        if not self._end(turn, 0, error):
            return False
        self.given_up += 1
        return True

    def _next(self) -> Waiter | None:
        front = self._last if self.fairness is Fairness.LIFO else self._first
        if front is None or front.item <= self.available:
            return front
        if self.fairness is not Fairness.NONE:
            return None
        return next((one for one in self.everybody() if one.item <= self.available), None)

    def everybody(self) -> Iterator[Waiter]:
        """Who waits, the oldest first."""
        # Should a signal handler take this one out, the walk ends here. That is soon enough: the
        # handler's own call has served whoever it could.
        turn = self._first
        while turn is not None:
            yield turn
            turn = turn.behind

    def _end(self, turn: Waiter, permits: int, error: BaseException | None) -> bool:
        """Take one who waits out of the line, with so many permits: all of it or nothing."""
        if turn.over or permits > self.available:
            return False
        ahead, behind = turn.ahead, turn.behind
        if ahead is None:
            self._first = behind
        else:
            ahead.behind = behind
        if behind is None:
            self._last = ahead
        else:
            behind.ahead = ahead
        turn.ahead = turn.behind = None
        turn.error = error
        turn.over = True
        self.available -= permits
        self.waiting -= 1
        return True

    # -- numbers ---------------------------------------------------------------------------

    def snapshot(self) -> SemaphoreMetrics:
        """The numbers of this moment."""
        return SemaphoreMetrics(
            self.capacity, self.available, self.waiting, self.acquisitions, self.given_up
        )
