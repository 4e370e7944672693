"""The permits of a semaphore, shared by threads and coroutines.

What this adds to :class:`PermitLine` is a lock, the waking of those who were served, and what
becomes of both when Ctrl-C strikes in the midst of it: a permit is always either free or held by
somebody who knows, and whoever was served is woken.
"""

from __future__ import annotations

import threading

from ion_actors.forking import HOOKS_RAN, renew_after_fork, run_hooks
from ion_actors.semaphore.line import Fairness, PermitLine, SemaphoreMetrics, Waiter

__all__ = ["Permits"]


class Permits:
    """A line to be waited in: see :class:`ion_actors.context.Line`. Weights are checked before."""

    __slots__ = ("__weakref__", "_line", "_lock")

    def __init__(self, capacity: int, fairness: Fairness) -> None:
        self._line = PermitLine(capacity, fairness)
        # Guards the line. Reentrant: see there. Nobody is woken under it.
        self._lock = threading.RLock()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """In a forked child: nobody waits, and all permits are free.

        Who held some is not here to give them back.
        """
        before = self._line
        self._line = PermitLine(before.capacity, before.fairness)
        self._lock = threading.RLock()
        for turn in list(before.everybody()):
            # It is this very thread's if a signal handler has forked, or a coroutine's.
            if before.leave(turn, RuntimeError("this process was forked while it waited")):
                turn.wake()

    def take(self, permits: int) -> bool:
        """Take them now, if that passes nobody who is next; returns whether."""
        if not HOOKS_RAN[0]:
            run_hooks()
        taken = False
        try:
            with self._lock:
                taken = self._line.take(permits)
        except BaseException:  # Ctrl-C: the caller will never know that it has them
            if taken:
                self.give_back(permits)
            raise
        return taken

    def give_back(self, permits: int, receipt: list[bool] | None = None) -> bool:
        """Give them back, and serve who is next; False, and nothing happens, if fewer are held.

        Args:
            permits: how many.
            receipt: filled once that has happened, for one who may be interrupted before.
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
        except BaseException:  # Ctrl-C: nobody will give them back a second time
            with self._lock:
                given = given or self._line.give_back(permits)
                if receipt is not None:
                    receipt.append(given)
            self._serve_and_wake(served)
            raise
        return given

    # -- as a line -------------------------------------------------------------------------

    def join(self, turn: Waiter) -> bool:
        """Serve the turn now, or let it wait."""
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
        """End a wait, unless it is over; those behind may be light enough to be next."""
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
        """It was served and does not know: its permits are free again."""
        self.give_back(turn.item)

    def _serve(self, served: list[Waiter]) -> None:
        """Serve all whose turn it is, into this list; under the lock."""
        while (turn := self._line.serve()) is not None:
            served.append(turn)

    def _serve_and_wake(self, served: list[Waiter]) -> None:
        """What an interruption left undone."""
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
        """Permits that nobody holds now."""
        if not HOOKS_RAN[0]:
            run_hooks()
        return self._line.available

    @property
    def waiting(self) -> int:
        """How many wait now."""
        if not HOOKS_RAN[0]:
            run_hooks()
        return self._line.waiting

    def snapshot(self) -> SemaphoreMetrics:
        """The numbers of this moment."""
        if not HOOKS_RAN[0]:
            run_hooks()
        with self._lock:
            return self._line.snapshot()
