"""How a task ends without its worker: withdrawn, dropped, given up, or fenced.

A queued task is *withdrawn* when it was cancelled, and *dropped* when the pool ends or has no room
or time for it. A running one is *fenced* when it will not end: it ends for its submitter, and what
its worker may still make of it is ignored. What the pool gives up on its own account is counted by
its reason, and told to those who listen to dead letters.

A part of the lane, under its lock: see :mod:`ion_actors.workerpool.lane`. Letters are written under
it, so that whoever has seen a task's end finds its letter; hooks and subscribers are told without.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures._base import PENDING, RUNNING
from typing import Any

from typing_extensions import override

from ion_actors.context import Context
from ion_actors.delivery import is_kept_free, let_go
from ion_actors.errors import IonError
from ion_actors.observe import HOOKS
from ion_actors.workerpool.handoff import Dropped, Waiter
from ion_actors.workerpool.hooks import Ending
from ion_actors.workerpool.letters import DeadLetters
from ion_actors.workerpool.line import Line
from ion_actors.workerpool.metrics import Outcome, Tally
from ion_actors.workerpool.ranked import Ranked
from ion_actors.workerpool.reasons import DropReason, reason_of
from ion_actors.workerpool.task import TaskFuture, run_callbacks_in_thread

__all__ = ["Endings", "OnDropped"]

#: Told how a task ended that the pool dropped, and why if it gave it up.
OnDropped = Callable[[Ending, BaseException, DropReason | None], object]

_TOLD: Ending = (False, None)  # its worker has told the hooks of its end

_CHUNK = 1000  # tasks ended per holding of the lock when the whole queue is dropped
_MIN_SWEEP = 64  # a queue this short is searched; so many dead places are not worth a sweep


class Endings(Line):
    """The lane as the pool has it. A part of ``Mailbox``.

    Args:
        name: the pool's.
        limit: how many tasks may wait.
        size: how many workers there are to be.
        context: the pool's, of which every task's is a child.
        on_dropped: told of each task that ends without its worker, or is given up.
    """

    def __init__(
        self,
        name: str,
        limit: int,
        size: int,
        context: Context,
        on_dropped: OnDropped | None = None,
    ) -> None:
        super().__init__(name, limit, size, context.clock.monotonic)
        self.context = context
        self._on_dropped = on_dropped
        self._letters: DeadLetters | None = None  # once somebody has asked for them

    def withdraw(self, task: TaskFuture[Any], error: IonError, *, elsewhere: bool = False) -> bool:
        """End a task that is still queued, with that error. Returns whether it was.

        Its callbacks run here or, if this thread must not be kept, elsewhere.
        """
        with self._lock:
            if task._state is not PENDING or task._withdrawn:
                return False
            reason = self._reason(error)
            callbacks = self._bury(task, error, reason)
            self._vacate(task)
            admitted = self._admit()
        for waiter in admitted:
            waiter.wake()
        let_go([task._release(), task._give_up_key()])
        self._dropped(task, error, reason)
        if elsewhere:
            run_callbacks_in_thread([(task, callbacks)])
        else:
            task._run_callbacks(callbacks)
        return True

    def _vacate(self, task: TaskFuture[Any]) -> None:
        """Give up the place of a task that has ended in the queue; under the lock."""
        if len(self._queue) <= _MIN_SWEEP or isinstance(self._queue, Ranked):
            self._queue.remove(task)
            return
        self._dead += 1
        if self._dead > max(_MIN_SWEEP, len(self._queue) // 2):
            self._sweep()

    def _sweep(self) -> None:
        if self._dead:
            self._queue = deque(one for one in self._queue if not one._withdrawn)
            self._dead = 0

    def _dropped(self, task: TaskFuture[Any], error: IonError, reason: DropReason | None) -> None:
        """Tell of a task that ended without its worker; not under the lock."""
        if self._on_dropped is not None or self._letters is not None:
            self._all_dropped([(task, error, reason)])

    def _all_dropped(
        self, ended: Iterable[tuple[TaskFuture[Any], IonError, DropReason | None]]
    ) -> None:
        if self._on_dropped is not None:
            news = [(task._take_ending(), error, reason) for task, error, reason in ended]
            tell = functools.partial(_tell_of, self._on_dropped, news)
            if is_kept_free():
                HOOKS.post(tell)
            else:
                tell()
        if self._letters is not None and any(reason is not None for _, _, reason in ended):
            self._letters._tell()

    def _lose(
        self,
        task: TaskFuture[Any],
        call: tuple[Any, ...],
        error: BaseException,
        reason: DropReason | None,
    ) -> None:
        """Note that the pool gives a task up, before anybody can see its end; under the lock."""
        if reason is None:
            return
        self._ledger.dropped[reason] += 1
        if self._letters is not None:
            self._letters._note(task._name, call, reason, error, task._history)

    def _reason(self, error: IonError) -> DropReason | None:
        """Why the pool gives up a queued task; None if that is its submitter's wish."""
        # A task that knows of its pool's end before the supervisor does ends by its own context.
        ended = DropReason.CLOSED if self.context.cancelled else None
        return reason_of(error) or ended

    def _bury(self, task: TaskFuture[Any], error: IonError, reason: DropReason | None) -> Any:
        self._lose(task, (task._fn, task._args, task._kwargs), error, reason)
        with task._lock:
            task._withdrawn = True
            self._ledger.withdrawn += 1
            return task._end_early(error)

    def drop_queue(self, make_error: Callable[[TaskFuture[Any]], IonError]) -> list[Dropped]:
        """End everything that is queued. The callbacks are to be run by the caller."""
        dropped: list[Dropped] = []
        while True:
            ended = []
            with self._lock:
                if isinstance(self._queue, Ranked):
                    self._queue = deque(self._queue)  # keys count no more
                for _ in range(min(_CHUNK, len(self._queue))):
                    task = self._queue.popleft()
                    if task._withdrawn:
                        self._dead -= 1
                    elif task._state is PENDING:
                        error = make_error(task)
                        reason = self._reason(error)
                        ended.append((task, error, reason, self._bury(task, error, reason)))
                    else:  # a stranger has settled it
                        self._ledger.withdrawn += 1
                over = not self._queue
            dropped += [(task, task._release(), callbacks) for task, _, _, callbacks in ended]
            if keys := [task._give_up_key() for task, *_ in ended if task._key is not None]:
                let_go(keys)
            self._all_dropped([one[:3] for one in ended])
            if over:
                return dropped

    def fence(
        self, task: TaskFuture[Any], error: IonError, call: tuple[Any, ...] = ()
    ) -> list[Any] | None:
        """End a running task without its worker, whose late result will be ignored.

        Args:
            task: the task.
            error: what its future shall raise.
            call: its function, arguments and keywords, if the pool gives it up.

        Returns:
            The callbacks, to be run by the caller; None if it had ended.
        """
        reason = reason_of(error)
        with self._lock, task._lock:
            if task._state is not RUNNING or task._fenced:
                return None
            if not task._counted:
                self._ledger.fenced += 1
            self._lose(task, call, error, reason)
            callbacks = task._end_early(error) or []
        self._dropped(task, error, reason)
        return callbacks

    def give_back(
        self,
        task: TaskFuture[Any],
        error: BaseException,
        tally: Tally,
        outcome: Outcome,
        reason: DropReason,
    ) -> list[Any] | None:
        """A running task ends by its worker, and the pool gives it up. Returns the callbacks."""
        call = task._release()
        with self._lock:
            lost = task._state is RUNNING
            if lost:
                self._lose(task, call, error, reason)
            callbacks = task._fail(error, tally, outcome)
        if lost and self._on_dropped is not None:
            self._on_dropped(_TOLD, error, reason)
        if lost and self._letters is not None:
            self._letters._tell()
        return callbacks

    def letters(self, make: Callable[[], DeadLetters]) -> DeadLetters:
        """The pool's dead letters; made now, if nobody has asked for them before."""
        with self._lock:
            if self._letters is None:
                self._letters = make()
            return self._letters

    def tell_letters(self, patience: float | None) -> None:
        """Wait for those who are told of dead letters, for so many seconds at most."""
        if self._letters is not None:
            self._letters.join(patience)

    @override
    def _turned_away(self, waiters: Iterable[Waiter]) -> None:
        if self._letters is None:
            return
        for waiter in waiters:
            task, error = waiter.item, waiter.error
            assert error is not None
            call = (task._fn, task._args, task._kwargs)
            self._letters._note(task._name, call, DropReason.REFUSED, error, ())
        self._letters._tell()


def _tell_of(
    on_dropped: OnDropped, news: Iterable[tuple[Ending, BaseException, DropReason | None]]
) -> None:
    for one in news:
        on_dropped(*one)
