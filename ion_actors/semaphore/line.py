"""Who is next: the permits, and the line of waiters, as decisions without threads.

There is no thread and no lock in here; :mod:`ion_actors.semaphore.permits` shares a line among
threads. Its lock is reentrant, since a signal handler or a finalizer may release permits while its
thread is in the middle of a method here. Hence the shape of the code: related state is changed by a
sequence of plain assignments, without a call in between at which CPython could run a handler, and
state that was read before a call is read again after it.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass

from ion_actors.context import Turn

__all__ = ["Fairness", "PermitLine", "SemaphoreMetrics", "Waiter"]

#: A waiter; the item is the number of permits.
Waiter = Turn[int]


class Fairness(enum.Enum):
    """Who is next when permits come free."""

    FIFO = "fifo"
    """The oldest waiter. No other passes it, however few permits that needs: so light waiters never
    starve a heavy one."""

    LIFO = "lifo"
    """The newest waiter. No older one passes it, but later ones do. For work that is worth less the
    longer it has waited."""

    NONE = "none"
    """Any waiter for which there are enough permits, the oldest of these first. No permit is idle
    while a waiter could use it, but many light waiters can starve a heavy one."""


@dataclass(frozen=True, slots=True)
class SemaphoreMetrics:
    """The numbers of a semaphore at one moment.

    Attributes:
        capacity: all permits.
        available: free permits.
        waiting: the number of waiters.
        acquisitions: how often permits were granted.
        given_up: how many waits ended without permits: by a timeout, a context or an interruption.
    """

    capacity: int
    available: int
    waiting: int
    acquisitions: int
    given_up: int


class PermitLine:
    """The permits of one semaphore, and its waiters.

    After each method, and once :meth:`serve` has returned None, no waiter can be served: under FIFO
    and LIFO there are not enough permits for the front waiter, under NONE for none of them.
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
        """Take permits now, if a newcomer may have them."""
        # A newcomer is the newest, so under LIFO it is next; under NONE any waiter may be.
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

    def resize(self, capacity: int) -> None:
        """Have so many permits. While more are held than that, ``available`` is negative."""
        # Computed first: see the module.
        available = self.available + capacity - self.capacity
        self.capacity = capacity
        self.available = available

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
        """Serve the next waiter that can be served; None if there is none."""
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
        """The waiters, the oldest first."""
        # If a signal handler removes this one, the walk ends here. That is right: the handler's own
        # call has served every waiter that it could.
        turn = self._first
        while turn is not None:
            yield turn
            turn = turn.behind

    def _end(self, turn: Waiter, permits: int, error: BaseException | None) -> bool:
        """Remove a waiter from the line, with so many permits: both or nothing."""
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
        """The current numbers."""
        return SemaphoreMetrics(
            self.capacity, self.available, self.waiting, self.acquisitions, self.given_up
        )
