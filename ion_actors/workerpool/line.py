"""Who waits at a pool's mailbox: submitters for room, and tasks for their key.

A part of the lane, under its lock: see :mod:`ion_actors.workerpool.lane`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures._base import RUNNING
from typing import Any

from ion_actors.errors import IonError, QueueFull
from ion_actors.workerpool.estimate import Mark
from ion_actors.workerpool.handoff import Helping, Waiter
from ion_actors.workerpool.lane import Lane
from ion_actors.workerpool.ranked import Ranked
from ion_actors.workerpool.reasons import DropReason
from ion_actors.workerpool.task import TaskFuture

__all__ = ["Line"]


class Line(Lane):
    """The lane with those who wait for it. A part of ``Mailbox``."""

    # -- tasks with a priority or a key ----------------------------------------------------

    def offer_ranked(self, task: TaskFuture[Any], waiter: Waiter | None = None) -> bool:
        """:meth:`offer` for a task that has a priority or a key."""
        with self._lock:
            queue = self._ranked()
            if self._refusal is None:
                if not queue.may_begin(task):
                    return self._queue_up(task, waiter)
                if self._idle:
                    queue.take_key(task)
            try:
                return self.offer(task, waiter)
            except BaseException:  # Ctrl-C, or refused: if nobody runs it, nobody gives it back
                if task._state is not RUNNING:
                    queue.release(task)
                raise

    def _queue_up(self, task: TaskFuture[Any], waiter: Waiter | None) -> bool:
        accepted = len(self._queue) - self._dead < self.limit
        if accepted:
            self._queue.append(task)
        elif waiter is not None:
            self._waiters.append(waiter)
        return accepted

    def _ranked(self) -> Ranked[TaskFuture[Any]]:
        """The queue, from now on one that knows priorities and keys; under the lock."""
        if isinstance(self._queue, Ranked):
            return self._queue
        living = [task for task in self._queue if not task._withdrawn]
        self._queue = ranked = Ranked(living, stride=max(1, self.limit))
        self._dead = 0
        return ranked

    def release(self, task: TaskFuture[Any], worker: Helping | None = None) -> None:
        """A task that has a key is over: the next of that key may begin.

        Args:
            task: which one.
            worker: who will come for the next task in a moment, if anybody will.
        """
        with self._lock:
            self._release(task)
            comes = worker is not None and not (worker.doomed or worker.has_control)
            heirs = [] if comes else self._hand_out()
        for heir in heirs:
            heir.wake()

    # -- submitters that find no room: a line, as ion_actors.context.turns has it ------------

    def full(self) -> QueueFull:
        """The error of a submission that finds no room; counts it."""
        with self._lock:
            self._ledger.rejected += 1
            wait = self._time_to_retry()
        return QueueFull(self.name, self.limit, retry_after=wait)

    def _time_to_retry(self) -> float | None:
        """Seconds until what waits now has begun, as far as is known; under the lock."""
        tasks = len(self._queue) - self._dead + len(self._waiters) + 1
        now = Mark(self._now(), self._ledger.ended())
        self._pace = self._pace.seen(now, workers=self.size, rested=self._rested)
        self._rested = False
        return self._pace.time_for(tasks)

    def join(self, waiter: Waiter) -> bool:
        """Accept the waiter's task if there is room; else it waits for room."""
        with self._lock:  # whoever looks for circles must not see it in, and not marked
            offer = self.offer_ranked if waiter.item._ranked else self.offer
            waiter.item._admitted = accepted = offer(waiter.item, waiter)
        return accepted

    def forsake(self, waiter: Waiter) -> None:
        """The submitter was interrupted, but its task was admitted: nobody wants it."""
        waiter.item.cancel()

    def give_up(self, waiter: Waiter, error: BaseException | None) -> bool:
        """End a wait, unless it is over already. Returns whether this call ended it."""
        with self._lock:
            if waiter.over:
                return False
            self._waiters.remove(waiter)
            self._ledger.rejected += 1
            waiter.over = True
            waiter.error = error
        waiter.wake()
        return True

    def refuse(self, make_error: Callable[[], IonError], *, again: bool = False) -> None:
        """Accept nothing from now on: submissions and those who wait get such an error.

        The first refusal stands, unless ``again``.
        """
        with self._lock:
            if self._refusal is None:
                self.before_end = self.snapshot()
            if self._refusal is None or again:
                self._refusal = make_error
            waiters, self._waiters = self._waiters, deque()
            for waiter in waiters:
                waiter.over = True
                waiter.error = make_error()
            self._ledger.rejected += len(waiters)
            if waiters:
                self._ledger.dropped[DropReason.REFUSED] += len(waiters)
        self._turned_away(waiters)
        for waiter in waiters:
            waiter.wake()

    def _turned_away(self, waiters: Iterable[Waiter]) -> None:
        """These were waiting when the pool began to refuse; not under the lock."""
