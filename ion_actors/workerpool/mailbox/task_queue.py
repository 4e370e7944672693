"""The queue of a pool's tasks: bounded, first come first served, handed out directly.

::

    submitter ──offer──▶ an idle worker's slot ──────────────▶ running
                   └───▶ the queue (at most `limit`) ──take──▶ running
                   └───▶ the waiters (each a blocked submitter) ──admit──▶ the queue
                   └───▶ the delayed ones ──their time has come──────────▶ the queue

Invariants, whenever the lock is free:

- a worker is idle only if no live task in the queue may begin, and nobody waits whose task may;
- somebody waits only if the queue is full (with a limit of 0: if no worker is idle, or the key of
  its task is taken: see :mod:`ion_actors.workerpool.mailbox.priority_queue`), or if a task that
  may have to wait for its time finds too many that do;
- while the pool is paused, nothing leaves the queue to a worker: those that sleep are not idle;
- ``queued = len(queue) - dead + len(delayed)``, and ``room = limit - len(delayed)``;
- a task that is withdrawn from a long queue leaves its place behind as a dead one, which is passed
  over in its turn and swept when the dead outnumber the living;
- a task in the queue is PENDING, a task handed out is RUNNING, and only code that holds the lock
  moves one to the other: so whoever wants to end a queued task decides here whether it still is.

First comes the way of a plain task, which is the hot path; then tasks with a priority or a key, and
submitters that wait for room. All else is built on top, under the same lock: see
:mod:`ion_actors.workerpool.mailbox.mailbox`. No user code runs under it. It is reentrant because
a finalizer or a signal handler may run at any point of the holder's code, and may call the pool.

An exception may be thrown into a thread whenever it begins a function or returns from one written
in C. So whatever moves is first noted where it goes to, and then taken out where it comes from, and
:meth:`TaskQueue.mend` finishes what was interrupted in between.

A thread that blocks on a lock is handed the lock before it gets the GIL back, so that whoever runs
meanwhile blocks on the lock in turn: a convoy of two switches per task, measured at half the
throughput. Hence the busy flag. It is only a hint: who sees it set lets its holder run first, and
then takes the lock, which is free. With many workers that would be a crowd passing the GIL to each
other, with the holder somewhere among them; so all but one of them queue up behind a turnstile.
"""

from __future__ import annotations

import itertools
import math
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures._base import PENDING, RUNNING
from typing import Any

from ion_actors.errors import IonError, QueueFull
from ion_actors.workerpool.mailbox.delayed import Delayed
from ion_actors.workerpool.mailbox.priority_queue import PriorityQueue
from ion_actors.workerpool.mailbox.protocols import PARKED, RETIRE, Helping, Order, Taker, Waiter
from ion_actors.workerpool.mailbox.task import TaskFuture
from ion_actors.workerpool.model.metrics import Ledger, PoolMetrics, Tally
from ion_actors.workerpool.model.outcomes import DropReason
from ion_actors.workerpool.model.retry_after import Pace, PaceMark

__all__ = ["TaskQueue"]

_GIL = getattr(sys, "_is_gil_enabled", lambda: True)()  # without it there are no convoys
_SHORT = 32  # In a longer queue so many tasks share the time at which the first was queued.
_YIELDS = 50  # how often a busy holder is let run before the lock is waited for


class TaskQueue:
    """Who submits, who works and who waits: see the module. The base of ``Mailbox``.

    Args:
        name: the pool's.
        limit: how many tasks may wait.
        size: how many workers there are to be; the supervisor may change it.
        now: the clock.
    """

    sheds = False  # tasks that waited too long, so that it must be known since when they do

    def __init__(self, name: str, limit: int, size: int, now: Callable[[], float]) -> None:
        self.name = name
        self.limit = limit
        self.size = size
        self._now = now
        self._tick = -math.inf  # when a task was queued of late
        self._strides = itertools.cycle([True, *[False] * (_SHORT - 1)])
        self._pace = Pace()
        self._lock = threading.RLock()  # guards everything below
        self._busy = False  # the lock is held, on the hot paths
        self._turnstile = threading.RLock()  # guards nothing: only its owner yields to the holder
        # Ranked from the first task on that has a priority or a key.
        self._queue: deque[TaskFuture[Any]] | PriorityQueue[TaskFuture[Any]] = deque()
        self._dead = 0
        self._delayed: Delayed[TaskFuture[Any]] = Delayed()  # accepted; their time has not come
        self._room = limit  # how many of the others may be queued
        self._parked: dict[Taker, None] = {}  # those that sleep; the latest is the warmest
        self._idle = self._parked  # those that are handed tasks: the same, or none while paused
        self.paused = False
        self._resumed_at = -math.inf
        self._rested = True  # a worker has been idle since somebody found no room
        self._waiters: deque[Waiter] = deque()
        self._refusal: Callable[[], IonError] | None = None
        self.ledger = Ledger()  # changes under the lock only
        self.before_end: PoolMetrics | None = None  # the numbers when the refusal began
        self.interrupted = False  # Ctrl-C has ended what would have read the tasks' errors

    # -- submitters ------------------------------------------------------------------------

    def offer(self, task: TaskFuture[Any], waiter: Waiter | None = None) -> bool:
        """Accept the task if there is room; else let the waiter, if any, queue up for it.

        Returns:
            Whether it was accepted.

        Raises:
            PoolClosed, BrokenPool: the pool accepts nothing any more.
        """
        if self._busy and _GIL:
            self._let_holder_run()
        worker: Taker | None = None
        try:
            with self._lock:
                self._busy = True
                if self._refusal is not None:
                    self.ledger.rejected += 1
                    self._busy = False
                    raise self._refusal()
                if not self._idle:
                    queue = self._queue
                    waiting = len(queue) - self._dead
                    accepted = waiting < self._room
                    if accepted:
                        if waiting < _SHORT or next(self._strides):  # the clock is not cheap
                            self._tick = self._now()
                        task.queued_at = self._tick
                        queue.append(task)
                    elif waiter is not None:
                        self._waiters.append(waiter)
                    self._busy = False
                    return accepted
                # Not popitem(): that can be interrupted when the worker is out, and has no name.
                worker = next(reversed(self._idle))
                del self._idle[worker]
                task._state = RUNNING
                self.ledger.started += 1
                worker.current = worker.slot = task
                self._busy = False
            worker.wake()
        except BaseException:  # Ctrl-C
            if worker is not None:
                worker.wake()  # perhaps once more: a worker that sleeps on its task would be lost
            raise
        return True

    def _let_holder_run(self) -> None:
        time.sleep(0)
        if self._busy:
            self._yield_in_turn()

    def _yield_in_turn(self) -> None:
        with self._turnstile:
            for _ in range(_YIELDS):
                if not self._busy:
                    return
                time.sleep(0)
            self._busy = False  # left behind by an interrupted holder

    def _admit(self) -> list[Waiter]:
        """Let in as many waiters as there is room for; under the lock. They are to be woken."""
        admitted = []
        while self._waiters and len(self._queue) - self._dead < self._room:
            waiter = self._waiters[0]
            self._let_in(waiter)
            self._enter(waiter.item)
            admitted.append(waiter)
            del self._waiters[0]
        return admitted

    def _let_in(self, waiter: Waiter) -> None:
        waiter.over = waiter.item.admitted = True
        waiter.item.queued_at = self._now()
        waiter.item.begin_limits(self._now)

    def _enter(self, task: TaskFuture[Any]) -> None:
        """Give an accepted task its place; under the lock."""
        if task.due is None:
            self._queue.append(task)
        else:
            self._delayed.add(task, task.due)
            self._room = self.limit - len(self._delayed)

    # -- workers ---------------------------------------------------------------------------

    def take(self, worker: Taker) -> TaskFuture[Any] | Order | None:
        """The next task for this worker, or PARKED, or RETIRE, or None: it has control messages."""
        if self._busy and _GIL:
            self._let_holder_run()
        with self._lock:
            self._busy = True
            queue = self._queue
            if worker.has_control:
                self._busy = False
                return None
            task = queue[0] if queue and not self.paused else None
            if task is None or task._state is not PENDING:
                task = self._next_live()
                if task is None:
                    self._busy = False
                    if self._is_over():
                        return RETIRE
                    self._parked[worker] = None
                    self._rested = True
                    return PARKED
            # Nothing can be thrown in between these, and what is, finds the task in one place.
            worker.current = task
            task._state = RUNNING
            self.ledger.started += 1
            try:
                del queue[0]
            except BaseException:  # only one with ranks can be interrupted
                self.mend()
                raise
            admitted = self._admit() if self._waiters else ()
            self._busy = False
        for waiter in admitted:
            waiter.wake()
        return task

    def _is_over(self) -> bool:
        """Whether nothing will come any more for a worker that finds nothing; under the lock."""
        if self._refusal is None or self._delayed:
            return False
        return not (self.paused and len(self._queue))

    def _next_live(self) -> TaskFuture[Any] | None:
        """The next live task, which is then the first in the queue; under the lock."""
        if self.paused:
            return None
        queue = self._queue
        while queue:
            task = queue[0]
            if task._state is PENDING:
                return task
            self._count_dead(task)
            del queue[0]
            self._release(task)  # it was taken out with its key
        return self._next_waiting() if self._waiters else None

    def _count_dead(self, task: TaskFuture[Any]) -> None:
        if task.withdrawn:
            self._dead -= 1
        else:  # a stranger called one of the executor's methods on a pool's future
            self.ledger.withdrawn += 1

    def _next_waiting(self) -> TaskFuture[Any] | None:
        """The first task whose submitter waits, though a worker is idle; under the lock.

        That is so with a limit of 0, when keys stand in the way of all that is queued, and when too
        many wait for their time.
        """
        queue = self._queue
        for waiter in self._waiters:
            if waiter.item.timed and (waiter.item.due is not None or not self._fits(waiter.item)):
                continue
            if not isinstance(queue, PriorityQueue) or queue.may_begin(waiter.item):
                self._let_in(waiter)
                queue.appendleft(waiter.item)
                self._waiters.remove(waiter)
                waiter.wake()
                return waiter.item
        return None

    def _release(self, task: TaskFuture[Any]) -> bool:
        """Have it hold its key no more. Returns whether several tasks may begin by that."""
        return isinstance(self._queue, PriorityQueue) and self._queue.release(task)

    def _hand_out(self) -> list[Taker]:
        """Give idle workers what may begin; under the lock. They are to be woken."""
        heirs = []
        while self._idle:
            task = self._next_live()
            if task is None:
                break
            heir = next(reversed(self._idle))
            heirs.append(heir)
            heir.current = heir.slot = task
            task._state = RUNNING
            self.ledger.started += 1
            del self._idle[heir]
            try:
                del self._queue[0]
            except BaseException:
                self.mend()
                raise
        for waiter in self._admit():
            waiter.wake()
        return heirs

    def mend(self) -> list[Taker]:
        """Finish what a thread has begun in here that was interrupted. May be done at any time.

        Returns:
            Workers that were given a task, and are to be woken. So is everyone else who has one.
        """
        with self._lock:
            self._busy = False
            self._idle = {} if self.paused else self._parked
            if isinstance(self._queue, PriorityQueue):
                self._queue = self._queue.mended(self._is_queued, self._is_taken)
            else:
                self._queue = deque(one for one in self._queue if self._is_queued(one))
                self._dead = 0
            queued = set(self._queue)
            self._delayed = self._delayed.mended(lambda one: self._is_waiting(one, queued))
            self._room = self.limit - len(self._delayed)
            for waiter in [one for one in self._waiters if one.over]:
                if waiter.item._state is PENDING and not (
                    waiter.item in queued or waiter.item in self._delayed
                ):
                    self._enter(waiter.item)
                self._waiters.remove(waiter)
                waiter.wake()
            return self._hand_out()

    def _is_queued(self, task: TaskFuture[Any]) -> bool:
        return task._state is PENDING and not task.withdrawn

    def _is_waiting(self, task: TaskFuture[Any], queued: set[TaskFuture[Any]]) -> bool:
        if task in queued:  # it was about to be moved there
            task.due = None
        return self._is_queued(task) and task not in queued

    def _is_taken(self, task: TaskFuture[Any]) -> bool:
        return task._state is RUNNING

    def park(self, worker: Taker, tally: Tally, *, first: bool = False) -> bool:
        """Count a new worker. If there is nothing to do it is idle from the start.

        Args:
            worker: which one.
            tally: what it ends.
            first: it is as good as any other that is idle. Else it comes last in line: it may not
                even have a thread.

        Returns:
            Whether it is idle, and so will be woken. If not, it is to ask for work.
        """
        with self._lock:
            if worker in self._parked:  # it was interrupted
                return True
            self.ledger.open(tally)
            # Once nothing is accepted, there is nobody who would wake it.
            nothing = not self._waiters and len(self._queue) == self._dead
            idle = nothing and self._refusal is None
            if idle and first:
                self._parked[worker] = None
                self._rested = True
            elif idle:
                self._parked = {worker: None, **self._parked}
                self._idle = {} if self.paused else self._parked
                self._rested = True
            return idle

    def enlist(self, tally: Tally) -> None:
        """Count a new worker that is not ready yet."""
        with self._lock:
            self.ledger.open(tally)

    def interrupt(self, worker: Taker) -> None:
        """Make the worker look at its control messages as soon as its task is done."""
        with self._lock:
            worker.has_control = True
            self._parked.pop(worker, None)
            # It may have released a key, and was about to come for the next task of that key.
            heirs = self._hand_out() if isinstance(self._queue, PriorityQueue) else ()
        worker.wake()
        for heir in heirs:
            heir.wake()

    def unpark(self, worker: Taker) -> bool:
        """Take a worker out of the idle ones. Returns whether it was one."""
        with self._lock:
            return self._parked.pop(worker, PARKED) is None

    def discharge(self, worker: Taker, tally: Tally) -> None:
        """A worker is gone. A task that it was handed and never began goes to the next one."""
        with self._lock:
            self._parked.pop(worker, None)
            self.ledger.close(tally)
            task = worker.slot
            if task is not None:
                if task._state is RUNNING:
                    # Nothing can be thrown in between these.
                    task._state = PENDING
                    self.ledger.started -= 1
                    self._queue.appendleft(task)
                elif task._state is PENDING and task not in self._queue:  # it was interrupted
                    self._queue.appendleft(task)
                worker.slot = None
                if worker.current is task:
                    worker.current = None
            heirs = self._hand_out()
        for heir in heirs:
            heir.wake()
        if task is not None:
            task.come_back()

    # -- pauses ----------------------------------------------------------------------------

    def pause(self) -> bool:
        """Let no queued task begin from now on. Returns whether any would have.

        Raises:
            PoolClosed, BrokenPool: the pool accepts nothing any more.
        """
        with self._lock:
            if self._refusal is not None:
                raise self._refusal()
            before = self.paused
            # Nothing can be thrown in between these.
            self.paused, self._idle = True, {}
        return not before

    def resume(self) -> bool:
        """Let queued tasks begin again. Returns whether they did not."""
        with self._lock:
            if not self.paused:
                return False
            parked = list(self._parked)
            self._resumed_at = self._now()
            try:
                # Nothing can be thrown in between these.
                self.paused, self._idle = False, self._parked
                for worker in self._hand_out():
                    worker.wake()
            except BaseException:  # thrown in from outside
                for worker in (*self.mend(), *parked):
                    worker.wake()
                raise
        return True

    # -- numbers ---------------------------------------------------------------------------

    def bound(self, limit: int) -> None:
        """Let so many tasks wait from now on."""
        with self._lock:
            self.limit = limit
            self._room = limit - len(self._delayed)

    def refusal(self) -> IonError | None:
        """Why nothing is accepted any more; None if tasks are."""
        make_error = self._refusal
        return None if make_error is None else make_error()

    @property
    def refuses(self) -> bool:
        """Whether nothing is accepted any more."""
        return self._refusal is not None

    @property
    def waiting(self) -> int:
        """Submitters that wait now."""
        return len(self._waiters)

    @property
    def backlog(self) -> int:
        """Tasks that wait now."""
        with self._lock:
            return len(self._queue) - self._dead + len(self._delayed)

    @property
    def delays(self) -> bool:
        """Whether some of the tasks that wait now wait for their time."""
        return bool(self._delayed)

    @property
    def has_work(self) -> bool:
        """Whether one of the tasks that wait now may begin, or will when its time has come: those
        whose key is taken may not."""
        with self._lock:
            queue = self._queue
            if self._delayed:
                return True
            return bool(queue) if isinstance(queue, PriorityQueue) else len(queue) > self._dead

    def snapshot(self) -> PoolMetrics:
        """The numbers of this moment. They add up: :mod:`ion_actors.workerpool.model.metrics`."""
        with self._lock:
            waiting, delayed = len(self._queue) - self._dead, len(self._delayed)
            return self.ledger.snapshot(self.size, self.limit, waiting, delayed, paused=self.paused)

    # -- tasks with a priority or a key ----------------------------------------------------

    def offer_ranked(self, task: TaskFuture[Any], waiter: Waiter | None = None) -> bool:
        """:meth:`offer` for a task that has a priority or a key."""
        with self._lock:
            queue = self._queue
            if not isinstance(queue, PriorityQueue):
                queue = self._ranked()
            try:
                if self._refusal is None:
                    if not self._idle or not queue.may_begin(task):
                        return self._queue_up(task, waiter)
                    queue.take_key(task)
                return self.offer(task, waiter)
            except BaseException:  # Ctrl-C, or refused: if nobody runs it, nobody gives it back
                if task._state is not RUNNING:
                    queue.release(task)
                if self._refusal is None:
                    for heir in self.mend():
                        heir.wake()
                raise

    def _queue_up(self, task: TaskFuture[Any], waiter: Waiter | None) -> bool:
        accepted = len(self._queue) - self._dead < self._room
        if accepted:
            task.queued_at = self._now()
            if task.due is None:
                self._queue.append(task)
            else:
                self._enter(task)
        elif waiter is not None:
            self._waiters.append(waiter)
        return accepted

    def _ranked(self) -> PriorityQueue[TaskFuture[Any]]:
        """The queue, from now on one that knows priorities and keys; under the lock."""
        if isinstance(self._queue, PriorityQueue):
            return self._queue
        living = [task for task in self._queue if not task.withdrawn]
        self._queue = ranked = PriorityQueue(living, stride=max(1, self.limit))
        self._dead = 0
        return ranked

    def release(self, task: TaskFuture[Any], worker: Helping | None = None) -> None:
        """A task that has a key is over: the next of that key may begin.

        Args:
            task: which one.
            worker: who will come for the next task in a moment, if anybody will.
        """
        with self._lock:
            queue = self._queue
            several = isinstance(queue, PriorityQueue) and queue.release(task)
            comes = worker is not None and not (worker.doomed or worker.has_control)
            heirs = [] if comes and not several else self._hand_out()
        for heir in heirs:
            heir.wake()

    # -- tasks that have a delay, or may have to wait for another try ----------------------------

    def offer_timed(self, task: TaskFuture[Any], waiter: Waiter | None = None) -> bool:
        """:meth:`offer` for such a task: there must be a place for it, even if a worker is idle."""
        with self._lock:
            if self._refusal is None:
                if task.due is not None:
                    return self._queue_up(task, waiter)
                if self._idle and not self._fits(task):
                    if waiter is not None:
                        self._waiters.append(waiter)
                    return False
            return (self.offer_ranked if task.ranked else self.offer)(task, waiter)

    def _fits(self, task: TaskFuture[Any]) -> bool:
        """Whether there would be a place for the task if it had to wait for another try."""
        return task.terms.retry is None or len(self._delayed) < max(self.limit, self.size)

    def offer_any(self, task: TaskFuture[Any], waiter: Waiter | None = None) -> bool:
        """:meth:`offer`, whatever the task has."""
        if task.timed:
            return self.offer_timed(task, waiter)
        return (self.offer_ranked if task.ranked else self.offer)(task, waiter)

    # -- submitters that find no room: a line, as ion_actors.context.turns has it ------------

    def full(self) -> QueueFull:
        """The error of a submission that finds no room; counts it."""
        with self._lock:
            self.ledger.rejected += 1
            wait = self._time_to_retry()
        return QueueFull(self.name, self.limit, retry_after=wait)

    def _time_to_retry(self) -> float | None:
        """Seconds until what waits now has begun, as far as is known; under the lock."""
        tasks = len(self._queue) - self._dead + len(self._waiters) + 1
        now = PaceMark(self._now(), self.ledger.ended())
        self._pace = self._pace.seen(now, workers=self.size, rested=self._rested)
        self._rested = False
        return None if self.paused else self._pace.time_for(tasks)

    def join(self, waiter: Waiter) -> bool:
        """Accept the waiter's task if there is room; else it waits for room."""
        with self._lock:  # whoever looks for circles must not see it in, and not marked
            waiter.item.admitted = accepted = self.offer_any(waiter.item, waiter)
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
            self.ledger.rejected += 1
            waiter.over = True
            waiter.error = error
        waiter.wake()
        return True

    def refuse(
        self, make_error: Callable[[], IonError], *, again: bool = False, resume: bool = False
    ) -> None:
        """Accept nothing from now on: submissions and those who wait get such an error.

        The first refusal stands, unless ``again``. With ``resume`` what was accepted is done, also
        if the pool was paused.
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
            self.ledger.rejected += len(waiters)
            if waiters:
                self.ledger.dropped[DropReason.REFUSED] += len(waiters)
            if resume:
                self.resume()
        self._turned_away(waiters)
        for waiter in waiters:
            waiter.wake()

    def _turned_away(self, waiters: Iterable[Waiter]) -> None:
        """These were waiting when the pool began to refuse; not under the lock."""
