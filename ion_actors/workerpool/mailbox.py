"""A pool's tasks until they have ended, and their numbers: the mailbox as the pool has it.

The way of a task from its submitter to a worker is in :mod:`ion_actors.workerpool.lane`. Here is
what may happen to it on the way: it is withdrawn, because it was cancelled; dropped, because the
pool ends; claimed, by a worker that waits for it; fenced, because it will not end. All of it is
decided under the lane's lock, so it happens to a task at most once.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures._base import PENDING, RUNNING
from typing import Any

from ion_actors.context import Context
from ion_actors.errors import IonError, TaskDropped
from ion_actors.workerpool.handoff import NOT_BEGUN, Dropped, Helping
from ion_actors.workerpool.hooks import Ending
from ion_actors.workerpool.lane import Lane
from ion_actors.workerpool.task import TaskFuture, run_callbacks_in_thread

__all__ = ["Mailbox"]

_CHUNK = 1000  # tasks ended per holding of the lock when the whole queue is dropped
_MIN_SWEEP = 64  # a queue this short is searched; so many dead places are not worth a sweep


class Mailbox(Lane):
    """See the module.

    Args:
        name: the pool's.
        limit: how many tasks may wait.
        size: how many workers there are to be.
        context: the pool's, of which every task's is a child.
        on_dropped: told of each task that ends without its worker.
    """

    def __init__(
        self,
        name: str,
        limit: int,
        size: int,
        context: Context,
        on_dropped: Callable[[Ending, IonError], object] | None = None,
    ) -> None:
        super().__init__(name, limit, size)
        self.context = context
        self._on_dropped = on_dropped

    # -- workers that help themselves: see ion_actors.workerpool.helping ----------------------

    def claim(self, task: TaskFuture[Any], worker: Helping) -> bool:
        """Hand a queued task to the worker that waits for it. Returns whether it was queued."""
        with self._lock:
            if task._state is not PENDING or task._withdrawn:
                return False
            task._withdrawn = True
            self._vacate(task)
            self._hand_over(task, worker)
            admitted = self._admit()
        for waiter in admitted:
            waiter.wake()
        return True

    def claim_new(self, task: TaskFuture[Any], worker: Helping) -> None:
        """Accept a task for which there is no room: the worker that submits it runs it itself.

        Raises:
            PoolClosed, BrokenPool: the pool accepts nothing any more.
        """
        with self._lock:
            if self._refusal is not None:
                self._ledger.rejected += 1
                raise self._refusal()
            self._hand_over(task, worker)

    def _hand_over(self, task: TaskFuture[Any], worker: Helping) -> None:
        task._state = RUNNING
        self._ledger.started += 1
        worker.interrupted.append((worker.current, worker.started_at))
        worker.started_at = NOT_BEGUN
        worker.current = task

    # -- ending tasks ----------------------------------------------------------------------

    def withdraw(self, task: TaskFuture[Any], error: IonError, *, elsewhere: bool = False) -> bool:
        """End a task that is still queued, with that error. Returns whether it was.

        Its callbacks run here or, if this thread must not be kept, elsewhere.
        """
        with self._lock:
            if task._state is not PENDING or task._withdrawn:
                return False
            callbacks = self._bury(task, error)
            self._vacate(task)
            admitted = self._admit()
        for waiter in admitted:
            waiter.wake()
        task._release()
        self._dropped(task, error)
        if elsewhere:
            run_callbacks_in_thread([(task, callbacks)])
        else:
            task._run_callbacks(callbacks)
        return True

    def _vacate(self, task: TaskFuture[Any]) -> None:
        """Give up the place of a task that has ended in the queue; under the lock."""
        if len(self._queue) <= _MIN_SWEEP:
            self._queue.remove(task)
            return
        self._dead += 1
        if self._dead > max(_MIN_SWEEP, len(self._queue) // 2):
            self._queue = deque(one for one in self._queue if not one._withdrawn)
            self._dead = 0

    def _dropped(self, task: TaskFuture[Any], error: IonError) -> None:
        if self._on_dropped is not None:
            self._on_dropped(task._take_ending(), error)

    def _bury(self, task: TaskFuture[Any], error: IonError) -> Any:
        with task._lock:
            task._withdrawn = True
            self._ledger.withdrawn += 1
            if isinstance(error, TaskDropped):
                self._ledger.dropped[error.why] += 1
            return task._end_early(error)

    def drop_queue(self, make_error: Callable[[TaskFuture[Any]], IonError]) -> list[Dropped]:
        """End everything that is queued. The callbacks are to be run by the caller."""
        dropped: list[Dropped] = []
        while True:
            ended = []
            with self._lock:
                for _ in range(min(_CHUNK, len(self._queue))):
                    task = self._queue.popleft()
                    if task._withdrawn:
                        self._dead -= 1
                    elif task._state is PENDING:
                        error = make_error(task)
                        ended.append((task, error, self._bury(task, error)))
                    else:  # a stranger has settled it
                        self._ledger.withdrawn += 1
                over = not self._queue
            for task, error, callbacks in ended:
                dropped.append((task, task._release(), callbacks))
                self._dropped(task, error)
            if over:
                return dropped

    def fence(self, task: TaskFuture[Any], error: IonError) -> list[Any] | None:
        """End a running task without its worker, whose late result will be ignored.

        Returns:
            The callbacks, to be run by the caller; None if it had ended.
        """
        with self._lock, task._lock:
            if task._state is not RUNNING or task._fenced:
                return None
            self._ledger.fenced += 1
            callbacks = task._end_early(error) or []
        self._dropped(task, error)
        return callbacks

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
        self._ledger.withdrawn += len(stranded)
        self._ledger.fenced += len(running)
        return stranded + running

    # -- numbers ---------------------------------------------------------------------------

    def count_restart(self) -> int:
        """One more worker was replaced. Returns how many have been."""
        with self._lock:
            self._ledger.restarts += 1
            return self._ledger.restarts
