"""A worker that has to wait helps itself: so a task may wait for its siblings.

::

    a task waits for a queued task of its own pool ──▶ its worker takes it out and runs it, there
    a task submits to its own pool, which is full  ──▶ its worker runs the new task, there
    result(), get(), submit(), … without a timeout ──▶ it is noted, and refused if it cannot end

Only what is waited for is run in the middle of a task, as in fork/join pools, never what happens to
be queued: that could wait for the very task it interrupts. It is the same for the task that finds
no room: it is new, and can at most be waited for by the one that submits it. So the worker's stack
grows as the recursion of the tasks does, and no further.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

from ion_actors.backends.stream.conduit import Conduit
from ion_actors.context import Context, current_context
from ion_actors.futures import Future
from ion_actors.workerpool.mailbox.mailbox import Mailbox
from ion_actors.workerpool.mailbox.protocols import Helping
from ion_actors.workerpool.mailbox.task import TaskFuture
from ion_actors.workerpool.worker.deadlock import (
    Items,
    Room,
    WaitingWorker,
    is_waiting,
    waiting,
)
from ion_actors.workerpool.worker.inbox import Answer

if TYPE_CHECKING:
    from ion_actors.workerpool.spec import PoolSpec

__all__ = ["WorkersHelp", "tasks_behind"]

# Frames that must be left on the interpreter's stack before another task is put on top: its own
# first steps, and the handling of the RecursionError that it may well end with.
_HEADROOM = 200

# Seconds after which a worker tries again to run a task itself that it waits for, if that has a key
# or may be delayed.
_LOOK_AGAIN = 0.2


class Interruptible(Helping, Protocol):
    """A worker that can run a task in the middle of another one."""

    ready: bool  # its initializer has run

    def run_nested(self, task: TaskFuture[Any], claim: Callable[[], bool]) -> bool:
        """Run a task in the middle of another one, if ``claim`` has it handed over."""
        ...


class WorkersHelp:
    """What the tasks of one worker do when they wait: see :class:`ion_actors.context.Helper`."""

    def __init__(self, worker: Interruptible, mailbox: Mailbox, spec: PoolSpec) -> None:
        self._worker = worker
        self._mailbox = mailbox
        self._spec = spec
        self._waiter = WaitingWorker(worker, mailbox, spec)

    # -- waits for futures -----------------------------------------------------------------

    def help(self, future: object) -> None:
        """Run what is waited for, if it is queued in this worker's pool."""
        try:
            for task in tasks_behind(future):
                if current_context().cancelled:
                    return
                if self._may_run(task):
                    claim = functools.partial(self._mailbox.claim, task, self._worker)
                    self._worker.run_nested(task, claim)
        finally:
            future = task = claim = None  # type: ignore[assignment]

    def wait(self, future: Future[Any], timeout: float | None) -> bool:
        """Wait for the future. A timeout limits the waiting, not what is run meanwhile.

        Raises:
            DeadlockError: the wait would never end.
        """
        try:
            self.help(future)
            if timeout is None:
                for task in _needed_by(future):
                    self._wait_for(task)
            return future._block(timeout)
        finally:
            future = task = None  # type: ignore[assignment]  # a traceback may hold this frame

    def _wait_for(self, task: TaskFuture[Any] | Answer[Any]) -> None:
        # Whoever has its key may go without a worker being left that would come for it, and so may
        # everybody until its time has come, or those that another size leaves over: so look again
        # from time to time. All else that closes a circle is a wait.
        looks = isinstance(task, TaskFuture) and (
            task.timed or task.key is not None or not self._spec.helping
        )
        again = _LOOK_AGAIN if looks else None
        context = current_context()
        try:
            while True:
                with waiting(self._waiter, task, context):
                    if task._block(again) or again is None or context.cancelled:
                        return
                self.help(task)
        finally:
            del task  # a traceback may hold this frame

    def _may_run(self, task: TaskFuture[Any]) -> bool:
        return (
            task.mailbox is self._mailbox
            and task.stream is None  # it would wait for its reader, which may be below
            and self._spec.helping
            and self._worker.ready
            and _has_headroom()
        )

    # -- waits for room --------------------------------------------------------------------

    def serves(self, mailbox: Mailbox) -> bool:
        """Whether it is that pool's worker."""
        return mailbox is self._mailbox

    def run_new(self, task: TaskFuture[Any], accepted: Callable[[TaskFuture[Any]], object]) -> bool:
        """Accept a task of this worker's own pool and run it at once. Returns whether it did."""
        claim = functools.partial(self._claim_new, task, accepted)
        try:
            return self._may_run(task) and self._worker.run_nested(task, claim)
        finally:
            del task, claim  # a traceback may hold this frame

    def _claim_new(
        self, task: TaskFuture[Any], accepted: Callable[[TaskFuture[Any]], object]
    ) -> bool:
        try:
            if not self._mailbox.claim_new(task, self._worker):
                return False
            if task.special:
                accepted(task)
            return True
        finally:
            del task

    # -- waits for the items of a stream -------------------------------------------------------

    @contextlib.contextmanager
    def waiting_for_item(
        self, task: TaskFuture[Any], conduit: Conduit, context: Context
    ) -> Iterator[None]:
        """For the time of a wait for an item of this task's, which this context ends.

        Raises:
            DeadlockError: it would never come.
        """
        with waiting(self._waiter, Items(task, conduit), context):
            yield

    @contextlib.contextmanager
    def awaiting_item(
        self, task: TaskFuture[Any], conduit: Conduit, context: Context
    ) -> Iterator[None]:
        """The same for coroutines, of which several may wait in one task: the first one counts."""
        if is_waiting(self._waiter):
            yield
            return
        with self.waiting_for_item(task, conduit, context):
            yield

    @contextlib.contextmanager
    def waiting_for_room(self, task: TaskFuture[Any], context: Context) -> Iterator[None]:
        """For the time of a wait in any pool's mailbox, which this context ends."""
        with waiting(self._waiter, Room(task), context):
            yield


def _needed_by(future: Future[Any]) -> list[TaskFuture[Any]] | list[Answer[Any]]:
    """What must come for it to be done, as far as workers can see to that."""
    if isinstance(future, Answer):
        return [] if future.done() else [future]
    return tasks_behind(future)


def tasks_behind(future: object) -> list[TaskFuture[Any]]:
    """The unfinished tasks that a future depends on: itself, or those that it was derived from."""
    found: dict[TaskFuture[Any], None] = {}
    seen = {id(future)}
    todo = [future]
    while todo:  # a chain may be long
        one = todo.pop()
        if not isinstance(one, Future) or one.done():
            continue
        if isinstance(one, TaskFuture):
            found[one] = None
            continue
        sources = [source() for source in reversed(one._sources)]
        todo.extend(source for source in sources if id(source) not in seen)
        seen.update(map(id, sources))
    return list(found)


def _has_headroom() -> bool:
    try:
        sys._getframe(max(0, sys.getrecursionlimit() - _HEADROOM))
    except ValueError:  # the stack is not that deep
        return True
    return False
