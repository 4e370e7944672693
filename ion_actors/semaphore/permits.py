"""The permits of a semaphore, shared by threads and coroutines.

It adds to :class:`PermitLine` a lock, and the waking of served waiters, both safe against Ctrl-C at
any point: a permit is always either free or held by a caller that knows it, and every served waiter
is woken.
"""

from __future__ import annotations

import threading

from ion_actors.forking import HOOKS_RAN, renew_after_fork, run_hooks
from ion_actors.semaphore.line import Fairness, PermitLine, SemaphoreMetrics, Waiter

__all__ = ["Permits"]


class Permits:
    """A line to wait in: see :class:`ion_actors.context.Line`. The caller checks the weights."""

    __slots__ = ("__weakref__", "_line", "_lock")

    def __init__(self, capacity: int, fairness: Fairness) -> None:
        self._line = PermitLine(capacity, fairness)
        # Guards the line. Reentrant: see there. No waiter is woken under it.
        self._lock = threading.RLock()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """In a forked child: there are no waiters, and all permits are free.

        Threads of the parent that held some cannot return them here.
        """
        before = self._line
        self._line = PermitLine(before.capacity, before.fairness)
        self._lock = threading.RLock()
        for turn in list(before.everybody()):
            # The waiter is this very thread if a signal handler has forked; or it is a coroutine.
            if before.leave(turn, RuntimeError("this process was forked while it waited")):
                turn.wake()

    def take(self, permits: int) -> bool:
        """Take them now, unless a waiter is next. Returns whether they were taken."""
        if not HOOKS_RAN[0]:
            run_hooks()
        taken = False
        try:
            with self._lock:
                taken = self._line.take(permits)
        except BaseException:  # Ctrl-C: the caller will not learn that it has them
            if taken:
                self.give_back(permits)
            raise
        return taken

    def give_back(self, permits: int, receipt: list[bool] | None = None) -> bool:
        """Give them back, and serve the next; False, and nothing happens, if fewer are held.

        Args:
            permits: how many.
            receipt: filled once that has happened, for a caller that may be interrupted before.
        """
        if not HOOKS_RAN[0]:
            run_hooks()
        given = False
        served: list[Waiter] = []
        try:
            with self._lock:
                given = self._line.give_back(permits)
                if receipt is not None:
                    receipt.append(given)
                if self._line.waiting:
                    self._serve(served)
            for turn in served:
                turn.wake()
        except BaseException:  # Ctrl-C: the caller will not give them back a second time
            with self._lock:
                given = given or self._line.give_back(permits)
                if receipt is not None:
                    receipt.append(given)
            self._serve_and_wake(served)
            raise
        return given

    def resize(self, capacity: int) -> None:
        """Have so many permits from now on; permits that are held stay held."""
        if not HOOKS_RAN[0]:
            run_hooks()
        served: list[Waiter] = []
        try:
            with self._lock:
                self._line.resize(capacity)
                self._serve(served)
            for turn in served:
                turn.wake()
        except BaseException:
            with self._lock:
                self._line.resize(capacity)
            self._serve_and_wake(served)
            raise

    # -- as a line -------------------------------------------------------------------------

    def join(self, turn: Waiter) -> bool:
        """Serve the turn now, or add it to the line."""
        if not HOOKS_RAN[0]:
            run_hooks()
        joined = False
        served: list[Waiter] = []
        try:
            with self._lock:
                self._line.join(turn)
                joined = True
                self._serve(served)
                at_once = turn.over
            for one in served:
                if one is not turn:
                    one.wake()
        except BaseException:
            self._serve_and_wake(served)
            if joined and not self.give_up(turn, None):
                self.forsake(turn)
            raise
        return at_once

    def give_up(self, turn: Waiter, error: BaseException | None) -> bool:
        """End a wait, unless it is over; waiters behind it may then be served."""
        left = False
        ended: list[Waiter] = []
        try:
            with self._lock:
                left = self._line.leave(turn, error)
                if left:
                    ended.append(turn)
                    self._serve(ended)
            for one in ended:
                one.wake()
        except BaseException:
            self._serve_and_wake(ended)
            raise
        return left

    def forsake(self, turn: Waiter) -> None:
        """It was served, but its waiter was interrupted: free its permits."""
        self.give_back(turn.item)

    def _serve(self, served: list[Waiter]) -> None:
        """Serve all waiters that can be, and add them to this list; under the lock."""
        while (turn := self._line.serve()) is not None:
            served.append(turn)

    def _serve_and_wake(self, served: list[Waiter]) -> None:
        """Complete what an interruption has left undone."""
        with self._lock:
            self._serve(served)
        for turn in served:
            turn.wake()

    # -- numbers ---------------------------------------------------------------------------

    @property
    def capacity(self) -> int:
        """All permits."""
        return self._line.capacity

    @property
    def fairness(self) -> Fairness:
        """Who is next."""
        return self._line.fairness

    @property
    def available(self) -> int:
        """Free permits."""
        if not HOOKS_RAN[0]:
            run_hooks()
        return self._line.available

    @property
    def waiting(self) -> int:
        """The number of waiters."""
        if not HOOKS_RAN[0]:
            run_hooks()
        return self._line.waiting

    def snapshot(self) -> SemaphoreMetrics:
        """The current numbers."""
        if not HOOKS_RAN[0]:
            run_hooks()
        with self._lock:
            return self._line.snapshot()
