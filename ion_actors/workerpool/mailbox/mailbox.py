"""A pool's mailbox, whole: the task queue, and all that happens to tasks besides their turn.

A queued task is *withdrawn* when it was cancelled, and *dropped* when the pool ends or has no room
or time for it. A running one is *fenced* when it will not end: it ends for its submitter, and what
its worker may still make of it is ignored. What the pool gives up on its own account is counted by
its reason, and told to those who listen to dead letters
(:mod:`ion_actors.workerpool.mailbox.notices`). A task may also be claimed before its turn, put back
after it, or crowded out; and it may have to wait for its time, before its first try or between two
of them (:mod:`ion_actors.workerpool.mailbox.delayed`).

One object with one lock, that of :mod:`ion_actors.workerpool.mailbox.task_queue`. What happens to a
task is decided under it, so it happens at most once.
"""

from __future__ import annotations

import functools
import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures._base import PENDING, RUNNING
from typing import TYPE_CHECKING, Any, TypeVar

from typing_extensions import override

from ion_actors.context import Context
from ion_actors.delivery import release_references
from ion_actors.errors import IonError, TaskDropped
from ion_actors.workerpool.mailbox.alarm import Alarm
from ion_actors.workerpool.mailbox.dead_letters import DeadLetters
from ion_actors.workerpool.mailbox.deadlines import Deadlines
from ion_actors.workerpool.mailbox.delayed import Delayed
from ion_actors.workerpool.mailbox.notices import Notices, OnDropped
from ion_actors.workerpool.mailbox.priority_queue import PriorityQueue
from ion_actors.workerpool.mailbox.protocols import (
    NOT_BEGUN,
    PARKED,
    Dropped,
    Helping,
    HelpsOnLoop,
    Order,
    Returning,
    Sending,
    Taker,
    Waiter,
)
from ion_actors.workerpool.mailbox.task import TaskFuture, run_callbacks_in_thread
from ion_actors.workerpool.mailbox.task_queue import TaskQueue
from ion_actors.workerpool.model.metrics import Tally
from ion_actors.workerpool.model.outcomes import DropReason, Outcome, reason_of
from ion_actors.workerpool.model.overflow import CoDel, Delays

if TYPE_CHECKING:
    import asyncio

__all__ = ["Mailbox", "SheddingMailbox"]

T = TypeVar("T")

#: A task, its error if it was made, why the pool gave it up if it did, and its callbacks.
_Ended = tuple[TaskFuture[Any], "IonError | None", "DropReason | None", Any]

_CHUNK = 1000  # tasks ended per holding of the lock when the whole queue is dropped
_MIN_SWEEP = 64  # a queue this short is searched; so many dead places are not worth a sweep


class Mailbox(TaskQueue):
    """See the module.

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
        self.loop: asyncio.AbstractEventLoop | None = None
        self.helper: HelpsOnLoop | None = None
        self.notices = Notices(self.ledger, on_dropped)
        self._alarm = Alarm(context.clock, self._first_moment, self._ring)
        self.deadlines: Deadlines[TaskFuture[Any]] = Deadlines(context.clock)

    def withdraw(self, task: TaskFuture[Any], error: IonError, *, elsewhere: bool = False) -> bool:
        """End a task that is still queued, with that error. Returns whether it was.

        Its callbacks run here or, if this thread must not be kept, elsewhere.
        """
        try:
            with self._lock:
                if task._state is not PENDING or task.withdrawn:
                    return False
                reason = self._reason(error)
                callbacks = self._bury(task, error, reason)
                if delayed := task in self._delayed:
                    woken: list[Waiter | Taker] = [*self._leave_delayed(task)]
                else:
                    self._vacate(task)
                    woken = [*self._admit()]
                    # The next of its key may have room where this one had none.
                    woken += self._hand_out() if isinstance(self._queue, PriorityQueue) else ()
            for one in woken:
                one.wake()
            if delayed:
                self._alarm.set()
            release_references([task.release_call(), task._give_up_key()])
            self.notices.tell(task, error, reason)
            if elsewhere:
                run_callbacks_in_thread([(task, callbacks)])
            else:
                task._run_callbacks(callbacks)
        except BaseException:  # thrown in from outside
            self.end_after_all([(task, error)])
            raise
        return True

    def end_after_all(self, ended: list[tuple[TaskFuture[Any], IonError]]) -> None:
        """Whoever was ending these queued tasks was interrupted: end them, tell all who wait."""
        with self._lock:
            # Others were taken by a worker meanwhile, and are its to end.
            ended = [(task, error) for task, error in ended if self._ends_here(task)]
            for task, error in ended:
                if task._state is PENDING:
                    self._bury(task, error, self._reason(error))
            woken: list[Waiter | Taker] = [*self.mend(), *self._admit()]
        for one in woken:
            one.wake()
        for task, error in ended:
            if not task.released:
                release_references([task.release_call(), task._give_up_key()])
            self.notices.tell(task, error, self._reason(error))
            task.wake_again()

    def _ends_here(self, task: TaskFuture[Any]) -> bool:
        return task._state is PENDING or (task.withdrawn and task._state is not RUNNING)

    def _vacate(self, task: TaskFuture[Any]) -> None:
        """Give up the place of a task that has ended in the queue; under the lock."""
        if len(self._queue) <= _MIN_SWEEP or isinstance(self._queue, PriorityQueue):
            self._queue.remove(task)
            return
        self._dead += 1
        if self._dead > max(_MIN_SWEEP, len(self._queue) // 2):
            self._sweep()

    def _sweep(self) -> None:
        if self._dead:
            self._queue = deque(one for one in self._queue if not one.withdrawn)
            self._dead = 0

    def _reason(self, error: IonError) -> DropReason | None:
        """Why the pool gives up a queued task; None if that is its submitter's wish."""
        if (reason := reason_of(error)) is not None:
            return reason
        # A task that knows of its pool's end before the supervisor does ends by its own context.
        return DropReason.CLOSED if self.context.is_over() else None  # it is asked under the lock

    def _bury(
        self,
        task: TaskFuture[Any],
        error: IonError,
        reason: DropReason | None,
        *,
        gone: bool = False,
    ) -> Any:
        """End a queued task; under the lock. Its place will be passed over, or is gone."""
        self.notices.note(task, (task.fn, task.args, task.kwargs), error, reason)
        with task._lock:
            if not gone:  # else it would only cost each of many tasks a dict
                task.withdrawn = True
            self.ledger.withdrawn += 1
            try:
                return task.end_early(error)
            except BaseException:  # thrown in from outside: no worker may find it half ended
                if task._state is PENDING:
                    task.end_early(error)
                raise

    def drop_queue(
        self, make_error: Callable[[TaskFuture[Any]], IonError] | None = None
    ) -> list[Dropped]:
        """End everything that is queued. The callbacks are to be run by the caller.

        Args:
            make_error: the error of each task. By default the pool was closed.
        """
        dropped: list[Dropped] = []
        while True:
            ended = []
            with self._lock:
                if isinstance(self._queue, PriorityQueue):
                    self._queue = deque(self._queue)  # keys count no more
                self._queue.extend(one for one in self._delayed if one.due is not None)
                self._delayed = Delayed()
                self._room = self.limit
                quiet = make_error is None and not self.notices.wanted
                drop = self._drop_quietly if quiet else functools.partial(self._drop, make_error)
                for _ in range(min(_CHUNK, len(self._queue))):
                    task = self._queue.popleft()
                    if task.withdrawn:
                        self._dead -= 1
                    elif task._state is PENDING:
                        ended.append(drop(task))
                    else:  # a stranger has settled it
                        self.ledger.withdrawn += 1
                over = not self._queue
                if over and self.paused and self._refusal is not None:
                    self.resume()  # nothing is left that it could keep from beginning
                retiring = self._retiring() if over else []
            dropped += [(task, task.release_call(), callbacks) for task, _, _, callbacks in ended]
            if keys := [task._give_up_key() for task, *_ in ended if task.key is not None]:
                release_references(keys)
            self.notices.tell_all(ended)
            for worker in retiring:
                worker.wake()
            if over:
                self._alarm.set()
                return dropped

    def _drop(
        self, make_error: Callable[[TaskFuture[Any]], IonError] | None, task: TaskFuture[Any]
    ) -> _Ended:
        """End a task that was taken out of the queue; under the lock."""
        error = task.closed_error() if make_error is None else make_error(task)
        reason = self._reason(error)
        return task, error, reason, self._bury(task, error, reason, gone=True)

    def _drop_quietly(self, task: TaskFuture[Any]) -> _Ended:
        """The same if the pool was closed and nobody is told: its error can wait for a reader."""
        if task.past_tries is not None:  # the error tells of them
            return self._drop(None, task)
        self.ledger.dropped[DropReason.CLOSED] += 1
        with task._lock:
            self.ledger.withdrawn += 1
            return task, None, DropReason.CLOSED, task.end_as_closed()

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
            if task._state is not RUNNING or task.fenced:
                return None
            if not task.counted:
                self.ledger.fenced += 1
            self.notices.note(task, call, error, reason)
            callbacks = task.end_early(error) or []
        self.notices.tell(task, error, reason)
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
        call = task.release_call()
        with self._lock:
            lost = task._state is RUNNING
            if lost:
                self.notices.note(task, call, error, reason)
            callbacks = task.fail(error, tally, outcome)
        if lost:
            self.notices.tell_given_back(error, reason)
        return callbacks

    def letters(self, make: Callable[[], DeadLetters]) -> DeadLetters:
        """The pool's dead letters; made now, if nobody has asked for them before."""
        with self._lock:
            if self.notices.letters is None:
                self.notices.letters = make()
            return self.notices.letters

    @override
    def _turned_away(self, waiters: Iterable[Waiter]) -> None:
        self.notices.tell_turned_away(waiters)

    # -- workers that help themselves: see ion_actors.workerpool.worker.nested_waits ------------

    def claim(self, task: TaskFuture[Any], worker: Helping) -> bool:
        """Hand a queued task to the worker that waits for it. Returns whether it was queued."""
        with self._lock:
            if task._state is not PENDING or task.withdrawn or task.due is not None:
                return False
            if isinstance(self._queue, PriorityQueue) and not self._queue.may_begin(task):
                return False
            try:
                task.withdrawn = True
                if isinstance(self._queue, PriorityQueue):
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
            task.withdrawn = False
            if task not in self._queue:
                self._queue.appendleft(task)
        for heir in self.mend():
            heir.wake()

    def claim_new(self, task: TaskFuture[Any], worker: Helping, *, nested: bool = True) -> bool:
        """Accept a task for which there is no room: the worker that submits it runs it itself.

        Args:
            task: which one.
            worker: who submits it.
            nested: it is run in the middle of another task. Else not while the pool is paused.

        Returns:
            Whether it was accepted; its key may be taken.

        Raises:
            PoolClosed, BrokenPool: the pool accepts nothing any more.
        """
        with self._lock:
            if self._refusal is not None:
                self.ledger.rejected += 1
                raise self._refusal()
            if self.paused and not nested:
                return False
            if task.ranked:
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

    def holders(self, task: TaskFuture[Any]) -> tuple[TaskFuture[Any], ...]:
        """The tasks of its key that run, if this one waits for room among them."""
        with self._lock:
            return self._queue.holders(task) if isinstance(self._queue, PriorityQueue) else ()

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
        self.ledger.started += 1
        worker.started_at = NOT_BEGUN
        worker.current = task

    # -- full: see ion_actors.workerpool.model.overflow ------------------------------------

    def drop_newest(self, task: TaskFuture[Any]) -> None:
        """Accept the task if there is room after all; else drop it.

        Raises:
            PoolClosed, BrokenPool: the pool accepts nothing any more.
        """
        with self._lock:
            if self.offer_any(task):
                return
            error = self._crowded_out(task, DropReason.NEWEST)
            callbacks = self._bury(task, error, error.why)
        self._let_go(task, error, callbacks)

    def drop_oldest(self, task: TaskFuture[Any]) -> None:
        """Accept the task, in the place of the oldest one if need be.

        Raises:
            PoolClosed, BrokenPool: the pool accepts nothing any more.
        """
        dropped: list[tuple[TaskFuture[Any], IonError]] = []
        to_tell = []
        try:
            with self._lock:
                # Perhaps more than one: what is tried again is queued beyond the limit.
                while not self.offer_any(task):
                    # There may be none: the limit may be 0, or all places be taken by delayed ones.
                    victim = (self._oldest() if self._room > 0 else None) or task
                    error = self._crowded_out(victim, DropReason.OLDEST)
                    dropped.append((victim, error))
                    to_tell.append((victim, error, self._bury(victim, error, error.why)))
                    if victim is task:
                        break
                    self._queue.remove(victim)
                heirs = self._hand_out()
            for heir in heirs:
                heir.wake()
            for victim, error, callbacks in to_tell:
                self._let_go(victim, error, callbacks)
        except BaseException:  # thrown in from outside: nobody else would end them
            self.end_after_all([one for one in dropped if one[0] is not task])
            raise

    def _oldest(self) -> TaskFuture[Any] | None:
        """The task that has been queued for longest. The places before it, of dead ones, go."""
        queue = self._queue
        while len(queue):
            task = queue.oldest() if isinstance(queue, PriorityQueue) else queue[0]
            if self._is_queued(task):
                return task
            self._count_dead(task)
            queue.remove(task)
        return None

    def _crowded_out(self, task: TaskFuture[Any], why: DropReason) -> TaskDropped:
        name = task.task_name()
        return TaskDropped(
            f"task {name!r} was dropped: {self.limit} tasks are waiting in pool {self.name!r}",
            task=name, why=why, retry_after=self._time_to_retry(),
        )  # fmt: skip

    def _let_go(self, task: TaskFuture[Any], error: TaskDropped, callbacks: Any) -> None:
        task.release_call()
        self.notices.tell(task, error, error.why)
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
            if self.context.is_over():
                return False
            with task._lock:
                if not self._begin_anew(task, begun=begun):
                    return False
                # Nothing can be thrown in between these.
                task._state = PENDING
                self.ledger.started -= 1
                self.ledger.retries += begun
                worker.current, worker.put_back = None, task
            self._queue.appendleft(task)
            heirs = self._hand_out()
        for heir in heirs:
            heir.wake()
        task.come_back()
        return True

    def _begin_anew(self, task: TaskFuture[Any], *, begun: bool) -> bool:
        """Have a running task forget its last try; under both locks. Returns whether it runs."""
        if task._state is not RUNNING or task.fenced:
            return False
        if task.withdrawn:
            self._sweep()  # it was claimed, and its old place may still be there
        task.begin_anew(self._now(), begun=begun)
        return True

    def finish_put_back(self, task: TaskFuture[Any]) -> None:
        """:meth:`put_back` was interrupted. If the task is pending, see to it that it is queued."""
        with self._lock:
            if (
                task._state is PENDING
                and not task.withdrawn
                and task not in self._queue
                and task not in self._delayed
            ):
                self._queue.appendleft(task)
            heirs = self._hand_out()
        for heir in heirs:
            heir.wake()
        self._alarm.set()
        task.come_back()

    # -- tasks that are sent ahead: see ion_actors.workerpool.worker.ahead ----------------------

    def take_ahead(
        self, worker: Sending, most: int, fits: Callable[[TaskFuture[Any]], bool]
    ) -> list[TaskFuture[Any]]:
        """Hand queued tasks to a worker that has one, before their turn: at most its share.

        Args:
            worker: which one.
            most: so many at most.
            fits: whether a task may be handed over; the first that may not is the end. Called under
                the lock.
        """
        found: list[TaskFuture[Any]] = []
        with self._lock:
            queue = self._queue
            if self.paused or isinstance(queue, PriorityQueue):
                return found
            if worker.has_control or worker.doomed:
                return found
            for _ in range(min(most, (len(queue) - self._dead) // max(1, self.size))):
                task = self._next_live()
                if task is None or not fits(task):
                    break
                worker.ahead.append(task)
                # Nothing can be thrown in between these.
                task._state, task.sent = RUNNING, True
                self.ledger.started += 1
                del queue[0]
                found.append(task)
            admitted = self._admit()
        for waiter in admitted:
            waiter.wake()
        return found

    def take_back(self, tasks: Sequence[TaskFuture[Any]], worker: Sending) -> None:
        """Queue the last of those again, at the front, in their order: they have not begun.

        Not those that have ended without their worker, and none if the pool is at its end. These
        are still in ``worker.ahead``.
        """
        with self._lock:
            over, kept = self.context.is_over(), []
            for task in reversed(tasks):
                with task._lock:
                    fresh = not over and self._begin_anew(task, begun=False)
                    if fresh:
                        # Nothing can be thrown in between these.
                        task._state = PENDING
                        self.ledger.started -= 1
                if fresh:
                    self._queue.appendleft(task)
                else:
                    kept.append(task)
                worker.ahead.pop()
            worker.ahead.extend(reversed(kept))
            heirs = self._hand_out()
        for heir in heirs:
            heir.wake()

    # -- tasks that wait for their time: see ion_actors.workerpool.mailbox.delayed --------------

    def postpone(self, task: TaskFuture[Any], worker: Returning, due: float) -> bool:
        """A running task failed, and is tried again at that moment; until then it keeps its key.

        Args:
            task: which one.
            worker: whose it was; from here on it is not.
            due: when, by the pool's clock.

        Returns:
            Whether it is. Not if it has ended without its worker, or the pool is at its end.
        """
        with self._lock:
            if self.context.is_over():
                return False
            with task._lock:
                if not self._begin_anew(task, begun=True):
                    return False
                try:
                    self._delayed.add(task, due)
                    room = self.limit - len(self._delayed)
                    # Nothing can be thrown in between these.
                    task._state, task.due, self._room = PENDING, due, room
                    self.ledger.started -= 1
                    self.ledger.retries += 1
                    worker.current, worker.put_back = None, task
                except BaseException:  # thrown in from outside: its worker settles it
                    self._delayed.discard(task)
                    raise
        self._alarm.set()
        return True

    def keep_time(self) -> None:
        """A delayed task was accepted, or somebody was interrupted: have the clock call in time."""
        self._alarm.set()

    def delayed(self) -> list[TaskFuture[Any]]:
        """The tasks that wait for their time, in its order."""
        with self._lock:
            return list(self._delayed)

    def _first_moment(self) -> float | None:
        with self._lock:
            first = self._delayed.first()
        return None if first is None else first[0]

    def _ring(self) -> None:
        """The time of some has come: they join the queue. On the clock's thread."""
        while self._admit_delayed():
            pass
        self._alarm.set()

    def _admit_delayed(self) -> bool:
        """Queue some of those whose time has come. Returns whether there may be more."""
        with self._lock:
            now, admitted = self._now(), 0
            parked = list(self._parked)
            try:
                while admitted < _CHUNK and (first := self._delayed.first()) and first[0] <= now:
                    self._admit_one(first[1], now)
                    admitted += 1
                for worker in (*self._hand_out(), *self._retiring()):
                    worker.wake()
            except BaseException:  # thrown in from outside
                for worker in (*self.mend(), *parked):
                    worker.wake()
                raise
        return admitted == _CHUNK

    def _admit_one(self, task: TaskFuture[Any], now: float) -> None:
        task.accepted_at = now  # what it waited on purpose does not count
        if task.due is not None:  # else its worker was interrupted, and settles it
            if task.past_tries is not None:
                self._ranked().append_first(task)
            elif task.ranked:
                self._ranked().append(task)
            else:
                self._queue.append(task)
        self._delayed.discard(task)
        task.due = None
        self._room = self.limit - len(self._delayed)

    def _leave_delayed(self, task: TaskFuture[Any]) -> list[Taker]:
        """Take out a task that has ended; under the lock. Returns who is to be woken."""
        self._delayed.discard(task)
        self._room = self.limit - len(self._delayed)
        self._release(task)
        return [*self._hand_out(), *self._retiring()]

    def _retiring(self) -> list[Taker]:
        """Who waited for nothing but delayed tasks, and may go; under the lock."""
        return list(self._parked) if self._is_over() else []

    def disown(
        self, make_error: Callable[[], IonError], running: list[TaskFuture[Any]]
    ) -> list[TaskFuture[Any]]:
        """In a forked child: refuse everything. Returns the tasks that nobody will run here."""
        # The old locks may be held by threads that are not here.
        self._lock, self._turnstile = threading.RLock(), threading.RLock()
        self._refusal = make_error
        waited = [*self._queue, *self._delayed]
        stranded = [task for task in waited if not (task.done() or task.withdrawn)]
        self._queue, self._waiters = deque(), deque()
        self._parked = self._idle = {}
        self.paused = False
        self._dead, self._delayed, self._room = 0, Delayed(), self.limit
        self.notices.letters = None  # those who subscribed did so in the parent
        self.deadlines = Deadlines(self.context.clock)
        self.ledger.withdrawn += len(stranded)
        self.ledger.fenced += len(running)
        return stranded + running

    # -- numbers, and a look inside: see ion_actors.workerpool.mailbox.inspection -----------------

    def map_queued(self, look: Callable[[TaskFuture[Any]], T], most: int | None = None) -> list[T]:
        """What ``look`` returns for each task that waits, in the order of acceptance.

        Those that wait for their time come last, in its order. ``look`` is called under the lock,
        and must run no code of the user's.

        Args:
            look: is called with each task.
            most: only for so many.
        """
        with self._lock:
            waiting = itertools.chain.from_iterable((self._queue, self._delayed))
            queued = (task for task in waiting if self._is_queued(task))
            return [look(task) for task in itertools.islice(queued, most)]

    def count_restart(self) -> int:
        """One more worker was replaced. Returns how many have been."""
        with self._lock:
            self.ledger.restarts += 1
            return self.ledger.restarts


class SheddingMailbox(Mailbox):
    """A ``Mailbox`` with a ``CoDel`` in front of its workers.

    A task that is left out has been taken from the queue already, so it is fenced: ended before its
    worker begins it. The policy is in :mod:`ion_actors.workerpool.model.overflow`.
    """

    sheds = True

    def __init__(
        self,
        name: str,
        limit: int,
        size: int,
        context: Context,
        on_dropped: OnDropped | None,
        policy: CoDel,
    ) -> None:
        super().__init__(name, limit, size, context, on_dropped)
        self._policy = policy
        self._delays = Delays()  # guarded by the queue's lock
        self._now = context.clock.monotonic

    @override
    def take(self, worker: Taker) -> TaskFuture[Any] | Order | None:
        while True:
            found = super().take(worker)
            if isinstance(found, TaskFuture):
                if not self._is_late(found):
                    return found
                worker.current = None  # it never begins: no worker has it
                self._shed(found)
            else:
                if found is PARKED:
                    with self._lock:
                        self._delays = self._delays.idle(self._policy, self._now())
                return found

    def _is_late(self, task: TaskFuture[Any]) -> bool:
        with self._lock:
            now = self._now()
            delay = now - max(task.accepted_at, self._resumed_at)  # a pause is no overload
            self._delays, late = self._delays.waited(self._policy, now, delay)
        return late

    def _shed(self, task: TaskFuture[Any]) -> None:
        name = task.task_name()
        waited = self._now() - task.accepted_at
        with self._lock:
            wait = self._time_to_retry()
        error = TaskDropped(
            f"task {name!r} was shed: it had waited for {waited:.3g} s, and pool {self.name!r} is "
            "overloaded",
            task=name, why=DropReason.SHED, retry_after=wait,
        )  # fmt: skip
        callbacks = self.fence(task, error, task.release_call())
        if task.key is not None:
            self.release(task)
        run_callbacks_in_thread([(task, callbacks)])
