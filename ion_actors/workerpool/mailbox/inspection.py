"""What waits in a mailbox, for those who look, and for those who give it up.

The facts are read under the mailbox's lock, so they belong to one moment. A predicate is the user's
code: it is asked later, under no lock. So a task may have begun when it is given up; then it stays.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ion_actors.errors import TaskDropped
from ion_actors.keys import Key
from ion_actors.naming import describe
from ion_actors.workerpool.mailbox.mailbox import Mailbox
from ion_actors.workerpool.mailbox.task import TaskFuture
from ion_actors.workerpool.model.outcomes import DropReason
from ion_actors.workerpool.model.reports import QueuedTask

__all__ = ["purge", "waiting_tasks"]

_Found = tuple[TaskFuture[Any], QueuedTask]


def waiting_tasks(mailbox: Mailbox, *, arguments: bool) -> list[_Found]:
    """The tasks that wait now, in the order of acceptance, and what is to be said of each."""
    now = mailbox.context.clock.monotonic()
    found = mailbox.map_queued(_copy_of)
    return [(one[0], _facts_of(one, now, arguments)) for one in found]


def _copy_of(task: TaskFuture[Any]) -> tuple[Any, ...]:
    # Under the lock: as little as possible, and nothing that is the user's is called.
    name = task.given_name, task.fn
    return task, name, task.key, task.queued_at, task.due, task.args, task.kwargs


def _facts_of(copied: tuple[Any, ...], now: float, arguments: bool) -> QueuedTask:
    task, (name, fn), key, queued_at, due, args, kwargs = copied
    expires_at, context = task.expires_at, task.own_context  # these stay as they are
    return QueuedTask(
        name=describe(fn, name),
        age=0.0 if queued_at is None else max(0.0, now - queued_at),
        key=key.value if type(key) is Key else None,
        key_limit=None if key is None else task.key_limit,
        priority=task.priority,
        expires_in=None if expires_at is None else max(0.0, expires_at - now),
        due_in=None if due is None else max(0.0, due - now),
        deadline=None if context is None else context.deadline,
        args=args if arguments else None,
        kwargs=(kwargs or {}) if arguments else None,
    )


def purge(
    mailbox: Mailbox, predicate: Callable[[QueuedTask], object] | None, *, arguments: bool
) -> int:
    """Give up the tasks that the predicate picks, or all. Returns how many were given up."""
    found = waiting_tasks(mailbox, arguments=arguments)
    picked = [one for one in found if predicate is None or predicate(one[1])]
    return sum(mailbox.withdraw(task, _purged(mailbox.name, facts)) for task, facts in picked)


def _purged(pool: str, task: QueuedTask) -> TaskDropped:
    return TaskDropped(
        f"task {task.name!r} was purged from the queue of pool {pool!r}",
        task=task.name, why=DropReason.PURGED,
    )  # fmt: skip
