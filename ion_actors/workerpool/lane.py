"""The task lane of a pool's mailbox: bounded, first come first served, handed out directly.

::

    submitter ──offer──▶ an idle worker's slot ──────────────▶ running
                   └───▶ the queue (at most `limit`) ──take──▶ running
                   └───▶ the waiters (each a blocked submitter) ──admit──▶ the queue

Invariants, whenever the lock is free:

- a worker is idle only if the queue holds no live task and nobody waits;
- somebody waits only if the queue is full (with a limit of 0: if no worker is idle);
- ``queued = len(queue) - dead``: a task that is withdrawn from a long queue leaves its place behind
  as a dead one, which is passed over in its turn and swept when the dead outnumber the living;
- a task in the queue is PENDING, a task handed out is RUNNING, and only code that holds the lock
  moves one to the other: so whoever wants to end a queued task decides here whether it still is.

What else may happen to a task in here (it is withdrawn, dropped, claimed, fenced) is the subject of
:mod:`ion_actors.workerpool.mailbox`, under the same lock. No user code runs under it. It is
reentrant because a finalizer or a signal handler may run at any point of the holder's code, and may
call the pool.

A thread that blocks on a lock is handed the lock before it gets the GIL back, so that whoever runs
meanwhile blocks on the lock in turn: a convoy of two switches per task, measured at half the
throughput. Hence the busy flag. It is only a hint: who sees it set lets its holder run first, and
then takes the lock, which is free. With many workers that would be a crowd passing the GIL to each
other, with the holder somewhere among them; so all but one of them queue up behind a turnstile.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures._base import PENDING, RUNNING
from typing import Any

from ion_actors.errors import IonError, QueueFull
from ion_actors.workerpool.handoff import PARKED, RETIRE, Order, Taker, Waiter
from ion_actors.workerpool.metrics import Ledger, PoolMetrics, Tally
from ion_actors.workerpool.reasons import DropReason
from ion_actors.workerpool.task import TaskFuture

__all__ = ["Lane"]

_GIL = getattr(sys, "_is_gil_enabled", lambda: True)()  # without it there are no convoys
_YIELDS = 50  # how often a busy holder is let run before the lock is waited for


class Lane:
    """Who submits and who works: see the module. A part of ``Mailbox``.

    Args:
        name: the pool's.
        limit: how many tasks may wait.
        size: how many workers there are to be; the supervisor may change it.
    """

    def __init__(self, name: str, limit: int, size: int) -> None:
        self.name = name
        self.limit = limit
        self.size = size
        self._lock = threading.RLock()  # guards everything below
        self._busy = False  # the lock is held, on the hot paths
        self._turnstile = threading.RLock()  # guards nothing: only its owner yields to the holder
        self._queue: deque[TaskFuture[Any]] = deque()
        self._dead = 0
        self._idle: dict[Taker, None] = {}  # an ordered set; the latest is the warmest
        self._waiters: deque[Waiter] = deque()
        self._refusal: Callable[[], IonError] | None = None
        self._ledger = Ledger()
        self.before_end: PoolMetrics | None = None  # the numbers when the refusal began

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
        with self._lock:
            self._busy = True
            if self._refusal is not None:
                self._ledger.rejected += 1
                self._busy = False
                raise self._refusal()
            if self._idle:
                worker = self._idle.popitem()[0]
                task._state = RUNNING
                self._ledger.started += 1
                worker.current = worker.slot = task
            else:
                accepted = len(self._queue) - self._dead < self.limit
                if accepted:
                    self._queue.append(task)
                elif waiter is not None:
                    self._waiters.append(waiter)
                self._busy = False
                return accepted
            self._busy = False
        worker.wake()
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

    def full(self) -> QueueFull:
        """The error of a submission that finds no room; counts it."""
        with self._lock:
            self._ledger.rejected += 1
        return QueueFull(self.name, self.limit)

    # As a line (see ion_actors.context.turns): what its three methods mean here.

    def join(self, waiter: Waiter) -> bool:
        """Accept the waiter's task if there is room; else it waits for room."""
        with self._lock:  # whoever looks for circles must not see it in, and not marked
            waiter.item._admitted = accepted = self.offer(waiter.item, waiter)
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

    def _admit(self) -> list[Waiter]:
        """Let in as many waiters as there is room for; under the lock. They are to be woken."""
        admitted = []
        while self._waiters and len(self._queue) - self._dead < self.limit:
            waiter = self._waiters.popleft()
            self._let_in(waiter)
            self._queue.append(waiter.item)
            admitted.append(waiter)
        return admitted

    def _let_in(self, waiter: Waiter) -> None:
        waiter.over = waiter.item._admitted = True
        waiter.item._begin_limit()

    # -- workers ---------------------------------------------------------------------------

    def take(self, worker: Taker) -> TaskFuture[Any] | Order | None:
        """The next task for this worker, or PARKED, or RETIRE, or None: it has control messages."""
        if self._busy and _GIL:
            self._let_holder_run()
        with self._lock:
            self._busy = True
            queue = self._queue
            task = queue.popleft() if queue and not worker.has_control else None
            if task is None or task._state is not PENDING:
                if worker.has_control:
                    self._busy = False
                    return None
                task = self._next_live(task)
                if task is None:
                    self._busy = False
                    if self._refusal is not None:
                        return RETIRE
                    self._idle[worker] = None
                    return PARKED
            task._state = RUNNING
            self._ledger.started += 1
            worker.current = task
            admitted = self._admit() if self._waiters else ()
            self._busy = False
        for waiter in admitted:
            waiter.wake()
        return task

    def _next_live(self, task: TaskFuture[Any] | None) -> TaskFuture[Any] | None:
        """The next live task, from this one on, taken out; under the lock."""
        while task is not None:
            if task._state is PENDING:
                return task
            if task._withdrawn:
                self._dead -= 1
            else:  # a stranger called one of the executor's methods on a pool's future
                self._ledger.withdrawn += 1
            task = self._queue.popleft() if self._queue else None
        if self._waiters:  # only with a limit of 0: a rendezvous
            waiter = self._waiters.popleft()
            self._let_in(waiter)
            waiter.wake()
            return waiter.item
        return None

    def park(self, worker: Taker, tally: Tally) -> bool:
        """Count a new worker. If there is nothing to do it is idle from the start.

        Returns:
            Whether it is idle, and so will be woken. If not, it is to ask for work.
        """
        with self._lock:
            self._ledger.open(tally)
            # Once nothing is accepted, there is nobody who would wake it.
            nothing = not self._waiters and len(self._queue) == self._dead
            idle = nothing and self._refusal is None
            if idle:  # last in line: it may not even have a thread
                self._idle = {worker: None, **self._idle}
            return idle

    def enlist(self, tally: Tally) -> None:
        """Count a new worker that is not ready yet."""
        with self._lock:
            self._ledger.open(tally)

    def interrupt(self, worker: Taker) -> None:
        """Make the worker look at its control messages as soon as its task is done."""
        with self._lock:
            worker.has_control = True
            self._idle.pop(worker, None)
        worker.wake()

    def unpark(self, worker: Taker) -> bool:
        """Take a worker out of the idle ones. Returns whether it was one."""
        with self._lock:
            return self._idle.pop(worker, PARKED) is None

    def discharge(self, worker: Taker, tally: Tally) -> None:
        """A worker is gone. A task that it was handed and never began goes to the next one."""
        heir: Taker | None = None
        with self._lock:
            self._idle.pop(worker, None)
            self._ledger.close(tally)
            task, worker.slot = worker.slot, None
            if task is not None and task._state is RUNNING:
                if self._idle:
                    heir = self._idle.popitem()[0]
                    heir.current = heir.slot = task
                else:
                    task._state = PENDING
                    self._ledger.started -= 1
                    self._queue.appendleft(task)
        if heir is not None:
            heir.wake()

    # -- numbers ---------------------------------------------------------------------------

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
            return len(self._queue) - self._dead

    def snapshot(self) -> PoolMetrics:
        """The numbers of this moment. Why they add up: :mod:`ion_actors.workerpool.metrics`."""
        with self._lock:
            return self._ledger.snapshot(self.size, self.limit, len(self._queue) - self._dead)
