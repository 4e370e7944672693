"""What belongs to a task and not to its arguments, and what that means while the task lives."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, TypeVar

from ion_actors._arguments import make_plain, seconds, whole_number
from ion_actors.context import Context, current_context
from ion_actors.errors import ContextEnded, DeadlineExceeded
from ion_actors.raised import is_a
from ion_actors.workerpool.task import TaskFuture, run_callbacks_in_thread

__all__ = ["TaskOptions", "call_with_context", "on_context_end"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class TaskOptions:
    """What belongs to a task and not to its arguments: see :meth:`Submitter.options`."""

    context: Context | None = None
    timeout: float | None = None
    name: str | None = None
    pass_context: bool = False
    ttl: float | None = None
    priority: int | None = None
    key: Hashable | None = None
    retry_on_worker_death: int | None = None

    def __post_init__(self) -> None:
        if self.context is not None and not isinstance(self.context, Context):
            raise TypeError(f"context must be a Context or None, not {self.context!r}")
        seconds("timeout", self.timeout)
        if self.name is not None and not isinstance(self.name, str):
            raise TypeError(f"name must be a string or None, not {self.name!r}")
        if self.name is not None:  # no subclass: it is shown on threads that must not block
            object.__setattr__(self, "name", str.__str__(self.name))
        seconds("ttl", self.ttl)
        if self.priority is not None:
            whole_number("priority", self.priority)
        if self.retry_on_worker_death is not None:
            whole_number("retry_on_worker_death", self.retry_on_worker_death, minimum=0)
        make_plain(self, "timeout", "ttl", "priority", "retry_on_worker_death")
        try:
            hash(self.key)
        except TypeError:
            raise TypeError(f"key must be hashable, not {self.key!r}") from None

    @property
    def ranked(self) -> bool:
        """Whether the tasks may begin in another order than that of acceptance."""
        return bool(self.priority) or self.key is not None


def on_context_end(task: TaskFuture[Any]) -> None:
    """A task's context is over. Runs in the thread that ended it, which may be the clock's.

    A queued task ends with it. A running one was asked to stop, unless it has used up a time limit
    of its own: then whoever waits for it gets the error now, and its worker stays taken.
    """
    mailbox, name = task._mailbox, task._task_name()
    error: ContextEnded = task.task_context()._error()
    error = type(error)(f"task {name!r}: {error.reason}", task=name)
    if not mailbox.withdraw(task, error, elsewhere=True) and _overran(task, error):
        callbacks = mailbox.fence(task, error)
        run_callbacks_in_thread([(task, callbacks)])


def _overran(task: TaskFuture[Any], error: ContextEnded) -> bool:
    return task._limit is not None and is_a(error, DeadlineExceeded)


def call_with_context(fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
    """Call with the current context as the first argument."""
    return fn(current_context(), *args, **kwargs)
