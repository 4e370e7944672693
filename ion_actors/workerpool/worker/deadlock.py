"""Which workers wait for what, and whether any of them can ever go on.

A worker that waits has one wait: for a future, or for room in a mailbox. The one needs the worker
that runs the task, or, if it is queued, *any* worker of its pool (but if its key has no room, one
of those that run the tasks of that key); so does the other. The answer to a broadcast needs the
worker that is to give it. A worker that is in no such wait is taken to go on by itself some day. So
a wait can end if, and only if, a worker that does not wait can be reached from it; otherwise it
closes a circle, whichever way it came about, and whoever closed it is told.

Waits that end by themselves (with a ``timeout``) are not entered, nor are waits for what is no
task. The search is over workers and not over tasks because a worker that runs a task in the middle
of another has to end the upper one first.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures._base import RUNNING
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ion_actors.backends.stream.conduit import Conduit
from ion_actors.context import Context
from ion_actors.errors import DeadlockError
from ion_actors.forking import on_fork
from ion_actors.workerpool.mailbox.protocols import Helping
from ion_actors.workerpool.mailbox.task import Home, TaskFuture
from ion_actors.workerpool.worker.inbox import Answer

if TYPE_CHECKING:
    from ion_actors.workerpool.spec import PoolSpec

__all__ = ["Items", "Room", "WaitingWorker", "is_waiting", "waiting"]

# Guards the dict. Reentrant, since a finalizer may wait for something in the middle of a search.
_lock = threading.RLock()
#: What each worker that waits waits for; guarded by the lock.
waits: dict[WaitingWorker, Wait] = {}


@dataclass(slots=True, eq=False, repr=False)
class WaitingWorker:
    """A worker, as far as waits are concerned."""

    worker: Helping
    mailbox: Home
    spec: PoolSpec

    def tasks(self) -> list[TaskFuture[Any]]:
        """What it is at: the current one last, before it those that this one interrupts."""
        every = [*(task for task, _ in self.worker.interrupted), self.worker.current]
        return [task for task in every if task is not None]


@dataclass(slots=True, eq=False, repr=False)
class Room:
    """What the submitter of a task waits for while the mailbox is full."""

    task: TaskFuture[Any]

    @property
    def mailbox(self) -> Home:
        """Where there is none."""
        return self.task.mailbox

    def found(self) -> bool:
        """Whether the task is in, or will be as soon as its submitter asks."""
        mailbox = self.mailbox
        return mailbox.refuses or mailbox.backlog < mailbox.limit or self.task.admitted


@dataclass(slots=True, eq=False, repr=False)
class Items:
    """What the reader of a stream waits for: the next item, from the worker that makes it."""

    task: TaskFuture[Any]
    conduit: Conduit

    def found(self) -> bool:
        """Whether there is one, or the end."""
        return self.conduit.ready


Target = TaskFuture[Any] | Answer[Any] | Room | Items


@dataclass(slots=True, eq=False, repr=False)
class Wait:
    """What a worker waits for: a task, its items, the answer to a broadcast, or room."""

    target: Target
    context: Context  # ends the wait when it ends
    helps: bool = False  # who waits runs it itself when its time has come, if nobody else does

    def over(self) -> bool:
        """Whether it is about to end: the worker has only not woken yet."""
        if self.context.is_over():  # this is asked under the graph's lock
            return True
        target = self.target
        return target.found() if isinstance(target, Room | Items) else target.done()

    def needs(self) -> list[WaitingWorker] | None:
        """Any of these must go on for it to end; None: one that does not wait will do."""
        if isinstance(self.target, Room):
            return _all_of(self.target.mailbox)
        if isinstance(self.target, Answer):
            return [waiter for waiter in waits if self.target.is_of(waiter.worker)] or None
        task = self.target.task if isinstance(self.target, Items) else self.target
        if task._state is RUNNING:
            return _holders_of(task)
        holders = task.mailbox.holders(task)
        if others := [one for one in holders if one is not task]:
            found = [_holders_of(one) for one in others]
            return None if None in found else [waiter for one in found for waiter in one or ()]
        if self.helps and task.timed:
            return None
        return _all_of(task.mailbox)


def _all_of(mailbox: Home) -> list[WaitingWorker] | None:
    # A doomed worker takes no further task. If fewer wait than the pool has, one does not.
    found = [waiter for waiter in waits if waiter.mailbox is mailbox and not waiter.worker.doomed]
    return found if found and len(found) >= mailbox.size else None


def _holders_of(task: TaskFuture[Any]) -> list[WaitingWorker] | None:
    return [waiter for waiter in waits if any(one is task for one in waiter.tasks())] or None


@contextlib.contextmanager
def waiting(waiter: WaitingWorker, target: Target, context: Context) -> Iterator[None]:
    """For the time of a wait of this worker's, which the context ends when it ends.

    Raises:
        DeadlockError: it would never end.
    """
    helps = (
        isinstance(target, TaskFuture)
        and target.mailbox is waiter.mailbox
        and target.stream is None
        and waiter.spec.helping
    )
    wait = Wait(target, context, helps=helps)
    circle: list[tuple[WaitingWorker, Target]] = []
    with _lock:
        outer = waits.get(waiter)  # of a callback's or a finalizer's, around this one
    try:
        with _lock:  # at once: of those who close a circle together, one is to be told
            waits[waiter] = wait
            circle = [(one, waits[one].target) for one in _stuck(waiter)]
        if circle:
            raise _error(circle)
        yield
    finally:
        with _lock:
            if outer is None:
                waits.pop(waiter, None)
            else:
                waits[waiter] = outer
        del target, context, wait, outer, circle


def is_waiting(waiter: WaitingWorker) -> bool:
    """Whether it is in a wait."""
    with _lock:
        return waiter in waits


def _stuck(start: WaitingWorker) -> list[WaitingWorker]:
    """Those who wait for each other, from this one on; none if somebody can go on."""
    seen: dict[WaitingWorker, None] = {}
    pending = [start]
    while pending:
        waiter = pending.pop()
        if waiter in seen:
            continue
        wait = waits.get(waiter)
        if wait is None or wait.over():
            return []
        seen[waiter] = None
        needed = wait.needs()
        if needed is None:
            return []
        pending += needed
    return list(seen)


def _error(circle: list[tuple[WaitingWorker, Target]]) -> DeadlockError:
    names, steps = [], []
    for waiter, target in circle:
        tasks = waiter.tasks()
        name = tasks[-1].task_name() if tasks else "a callback"
        names.append(name)
        if isinstance(target, Room):
            what = f"room in pool {target.mailbox.name!r}"
        elif isinstance(target, Answer):
            what = target.description()
        elif isinstance(target, Items):
            what = f"the items of stream {target.task.task_name()!r}"
        else:
            what = f"task {target.task_name()!r}"
        steps.append(f"{name!r} (on pool {waiter.spec.name!r}) waits for {what}")
    return DeadlockError(
        "these tasks wait for each other, and none of them can go on: " + "; ".join(steps),
        tasks=tuple(names),
    )


def _after_fork() -> None:
    """In a forked child: the workers that wait, and whoever has the lock, are not here."""
    global _lock  # noqa: PLW0603  # there is one for the process, and this is another process
    _lock = threading.RLock()
    waits.clear()


on_fork(_after_fork)
