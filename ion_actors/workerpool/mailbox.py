"""A pool's mailbox, whole: the lane, the line before it, the endings, and what is left.

::

    Lane      the way of a plain task from its submitter to a worker: the hot path
    Line      submitters that wait for room, tasks that wait for their key
    Endings   how a task ends without a worker, and what is told of it
    Mailbox   tasks that are claimed before their turn, put back after it, or crowded out

One object with one lock. What happens to a task is decided under it, so it happens at most once.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures._base import PENDING, RUNNING
from typing import Any

from ion_actors.errors import IonError, TaskDropped
from ion_actors.workerpool.endings import Endings
from ion_actors.workerpool.handoff import NOT_BEGUN, Helping, Returning
from ion_actors.workerpool.ranked import Ranked
from ion_actors.workerpool.reasons import DropReason
from ion_actors.workerpool.task import TaskFuture

__all__ = ["Mailbox"]


class Mailbox(Endings):
    """See the module, and :class:`~ion_actors.workerpool.endings.Endings` for its arguments."""

    # -- workers that help themselves: see ion_actors.workerpool.helping ----------------------

    def claim(self, task: TaskFuture[Any], worker: Helping) -> bool:
        """Hand a queued task to the worker that waits for it. Returns whether it was queued."""
        with self._lock:
            if task._state is not PENDING or task._withdrawn:
                return False
            if isinstance(self._queue, Ranked) and not self._queue.may_begin(task):
                return False
            try:
                task._withdrawn = True
                if isinstance(self._queue, Ranked):
                    self._queue.claim(task)
                else:
                    self._vacate(task)
                self._hand_over(task, worker)
            except BaseException:  # thrown in from outside
                self._take_back(task)
                raise
            admitted = self._admit()
        for waiter in admitted:
            waiter.wake()
        return True

    def _take_back(self, task: TaskFuture[Any]) -> None:
        """Have a task queued that was about to be handed over; under the lock."""
        if task._state is PENDING:
            task._withdrawn = False
            if task not in self._queue:
                self._queue.appendleft(task)
        for heir in self.mend():
            heir.wake()

    def claim_new(self, task: TaskFuture[Any], worker: Helping) -> bool:
        """Accept a task for which there is no room: the worker that submits it runs it itself.

        Returns:
            Whether it was accepted; its key may be taken.

        Raises:
            PoolClosed, BrokenPool: the pool accepts nothing any more.
        """
        with self._lock:
            if self._refusal is not None:
                self._ledger.rejected += 1
                raise self._refusal()
            if task._ranked:
                queue = self._ranked()
                if not queue.may_begin(task):
                    return False
                queue.take_key(task)
            try:
                self._hand_over(task, worker)
            except BaseException:  # thrown in from outside: it was not accepted
                self._release(task)
                raise
            return True

    def holder(self, task: TaskFuture[Any]) -> TaskFuture[Any] | None:
        """The task that has the key of this one, which waits for it."""
        with self._lock:
            return self._queue.holder(task) if isinstance(self._queue, Ranked) else None

    def _hand_over(self, task: TaskFuture[Any], worker: Helping) -> None:
        below = (worker.current, worker.started_at)
        try:
            worker.interrupted.append(below)
        except BaseException:  # Ctrl-C, when it was done
            if worker.interrupted and worker.interrupted[-1] is below:
                del worker.interrupted[-1]
            raise
        # Nothing can be thrown in between these.
        task._state = RUNNING
        self._ledger.started += 1
        worker.started_at = NOT_BEGUN
        worker.current = task

    # -- full: see ion_actors.workerpool.overflow ----------------------------------------------

    def drop_newest(self, task: TaskFuture[Any]) -> None:
        """Accept the task if there is room after all; else drop it.

        Raises:
            PoolClosed, BrokenPool: the pool accepts nothing any more.
        """
        with self._lock:
            if self.join_in(task):
                return
            error = self._crowded_out(task, DropReason.NEWEST)
            callbacks = self._bury(task, error, error.why)
        self._let_go(task, error, callbacks)

    def drop_oldest(self, task: TaskFuture[Any]) -> None:
        """Accept the task, in the place of the oldest one if need be.

        Raises:
            PoolClosed, BrokenPool: the pool accepts nothing any more.
        """
        dropped = []
        with self._lock:
            # Perhaps more than one: what is tried again is queued beyond the limit.
            while not self.join_in(task):
                victim = self._pop_oldest() or task  # there may be none: the limit may be 0
                error = self._crowded_out(victim, DropReason.OLDEST)
                dropped.append((victim, error, self._bury(victim, error, error.why)))
                if victim is task:
                    break
        for victim, error, callbacks in dropped:
            self._let_go(victim, error, callbacks)

    def join_in(self, task: TaskFuture[Any]) -> bool:
        """Accept the task if there is room."""
        return self.offer_ranked(task) if task._ranked else self.offer(task)

    def _pop_oldest(self) -> TaskFuture[Any] | None:
        queue = self._queue
        while len(queue):
            task = queue.pop_oldest() if isinstance(queue, Ranked) else queue.popleft()
            if task._state is PENDING and not task._withdrawn:
                return task
            self._count_dead(task)
        return None

    def _crowded_out(self, task: TaskFuture[Any], why: DropReason) -> TaskDropped:
        name = task._task_name()
        return TaskDropped(
            f"task {name!r} was dropped: {self.limit} tasks are waiting in pool {self.name!r}",
            task=name, why=why, retry_after=self._time_to_retry(),
        )  # fmt: skip

    def _let_go(self, task: TaskFuture[Any], error: TaskDropped, callbacks: Any) -> None:
        task._release()
        self._dropped(task, error, error.why)
        task._run_callbacks(callbacks)

    def put_back(self, task: TaskFuture[Any], worker: Returning, *, begun: bool = True) -> bool:
        """Queue a running task again, at the front: it took its worker down, or found it down.

        Args:
            task: which one.
            worker: whose it was; from here on it is not.
            begun: it has run. Else its ``ttl`` counts on.

        Returns:
            Whether it was. Not if it has ended without its worker, or the pool is at its end.
        """
        with self._lock:
            if self.context.cancelled:
                return False
            with task._lock:
                if task._state is not RUNNING or task._fenced:
                    return False
                if task._withdrawn:
                    self._sweep()  # it was claimed, and its old place may still be there
                task._begin_anew(self._now(), begun=begun)
                # Nothing can be thrown in between these.
                task._state = PENDING
                self._ledger.started -= 1
                worker.current, worker.put_back = None, task
            self._queue.appendleft(task)
            heirs = self._hand_out()
        for heir in heirs:
            heir.wake()
        task._come_back()
        return True

    def finish_put_back(self, task: TaskFuture[Any]) -> None:
        """:meth:`put_back` was interrupted. If the task is pending, see to it that it is queued."""
        with self._lock:
            if task._state is PENDING and not task._withdrawn and task not in self._queue:
                self._queue.appendleft(task)
            heirs = self._hand_out()
        for heir in heirs:
            heir.wake()
        task._come_back()

    def disown(
        self, make_error: Callable[[], IonError], running: list[TaskFuture[Any]]
    ) -> list[TaskFuture[Any]]:
        """In a forked child: refuse everything. Returns the tasks that nobody will run here."""
        # The old locks may be held by threads that are not here.
        self._lock, self._turnstile = threading.RLock(), threading.RLock()
        self._refusal = make_error
        stranded = [task for task in self._queue if not (task.done() or task._withdrawn)]
        self._queue, self._waiters, self._idle = deque(), deque(), {}
        self._dead = 0
        self._letters = None  # those who subscribed did so in the parent
        self._ledger.withdrawn += len(stranded)
        self._ledger.fenced += len(running)
        return stranded + running

    # -- numbers ---------------------------------------------------------------------------

    def count_restart(self) -> int:
        """One more worker was replaced. Returns how many have been."""
        with self._lock:
            self._ledger.restarts += 1
            return self._ledger.restarts
