"""Tasks that a worker's runner has before their turn: see ``SendsAhead`` of the backends.

::

    queue ──take──▶ ahead, RUNNING ──its turn──▶ the worker's current task
      ▲                │
      └───give_back────┘ not begun

A task is in the queue, or ahead in one worker, or that worker's current one. The worker comes to
those ahead before it asks the mailbox, in the order in which they were taken, also when it is
about to stop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures._base import PENDING
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from ion_actors.backends.protocol import SendsAhead, Task
from ion_actors.errors import Cancelled
from ion_actors.workerpool.mailbox.mailbox import Mailbox
from ion_actors.workerpool.mailbox.protocols import Order, Sending
from ion_actors.workerpool.mailbox.task import (
    TaskFuture,
    on_context_end,
    run_callbacks_in_thread,
)
from ion_actors.workerpool.model.metrics import Tally
from ion_actors.workerpool.model.outcomes import Outcome
from ion_actors.workerpool.worker.failure import classify
from ion_actors.workerpool.worker.settlement import TaskItem

if TYPE_CHECKING:
    from ion_actors.backends.protocol import Runner
    from ion_actors.workerpool.spec import PoolSpec

__all__ = ["WorkersAhead", "look_ahead"]

_ItemOf: TypeAlias = Callable[[TaskFuture[Any]], TaskItem]


class WorkersAhead:
    """One worker's, as its runner sees them; see :class:`ion_actors.backends.TasksAhead`.

    Args:
        worker: whose.
        item_of: makes of one of its tasks what is settled.
        tally: where it counts them.
        mailbox: where they come from.
        spec: the pool's.
    """

    def __init__(
        self, worker: Sending, item_of: _ItemOf, tally: Tally, mailbox: Mailbox, spec: PoolSpec
    ) -> None:
        self._worker = worker
        self._item_of = item_of
        self._tally = tally
        self._mailbox = mailbox
        self._spec = spec

    def next(self, worker: Sending) -> TaskFuture[Any] | Order | None:
        """What the worker runs now, as ``Mailbox.take``."""
        ahead = worker.ahead
        if not ahead:
            return self._mailbox.take(worker)
        # First noted where it goes to, then taken out where it comes from.
        worker.current = task = ahead[0]
        ahead.popleft()
        return task

    def take(self, most: int, fits: Callable[[Task], bool]) -> list[TaskFuture[Any]]:
        """Take so many more at most, as long as they fit."""

        def may_go(task: TaskFuture[Any]) -> bool:
            return task.stream is None and task.expires_at is None and fits(cast("Task", task))

        return self._mailbox.take_ahead(self._worker, most, may_go)

    def give_back(self, tasks: Sequence[Task]) -> None:
        """The last ones have not begun: they are queued again, or end with their pool."""
        given = cast("Sequence[TaskFuture[Any]]", tasks)
        try:
            self._mailbox.take_back(given, self._worker)
            while self._worker.ahead and self._worker.ahead[-1] in given:
                self._end(self._worker.ahead[-1])
                self._worker.ahead.pop()
            for task in given:
                self._catch_up(task)
        finally:
            del tasks, given

    def _end(self, task: TaskFuture[Any]) -> None:
        """End what cannot be queued: the pool ends, or it has ended without its worker."""
        item = self._item_of(task)
        over = self._spec.context
        error = over._error() if over.cancelled else Cancelled("the task was given back")
        try:
            failure = classify(item, error, self._spec)
            if failure.reason is None:
                task.release_call()
                callbacks = task.fail(error, self._tally, Outcome.CANCELLED)
            else:
                outcome, reason = failure.outcome, failure.reason
                callbacks = self._mailbox.give_back(
                    task, failure.shown, self._tally, outcome, reason
                )
            # Elsewhere: here another task is the current one.
            run_callbacks_in_thread([(task, callbacks)])
        finally:
            del task, item, error

    def _catch_up(self, task: TaskFuture[Any]) -> None:
        """It is queued again: see to what a queued task does not wait for a worker for."""
        if task._state is not PENDING:
            return
        task.come_back()
        if (context := task.own_context) is not None and context.cancelled:
            on_context_end(task)


def look_ahead(
    runner: Runner,
    worker: Sending,
    item_of: _ItemOf,
    tally: Tally,
    mailbox: Mailbox,
    spec: PoolSpec,
) -> WorkersAhead | None:
    """What such a runner uses from now on; None if tasks have to wait for their turn here.

    The other arguments are for :class:`WorkersAhead`.
    """
    if spec.residence is not None or spec.hooks is not None or spec.task_wrapper is not None:
        return None  # they have to be told, or asked, when a task begins
    if mailbox.sheds or not isinstance(runner, SendsAhead):
        return None
    found = WorkersAhead(worker, item_of, tally, mailbox, spec)
    runner.look_ahead(found)
    return found
