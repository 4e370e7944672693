"""When a pool's hooks are told of a task that runs: by its worker, or by whoever stands in."""

from __future__ import annotations

from typing import Any

from ion_actors.workerpool.hooks import Hooks
from ion_actors.workerpool.metrics import Outcome
from ion_actors.workerpool.task import TaskFuture

__all__ = ["tell_begin", "tell_end", "tell_retry"]


def tell_begin(
    hooks: Hooks, task: TaskFuture[Any], worker: str, queued: int, started_at: float
) -> None:
    """A task begins, and so many others are waiting."""
    variables = task._vars
    waited = max(0.0, started_at - task._accepted_at)
    variables.run(hooks.started, queued, waited)
    # In the task's variables, so that what it traces belongs to this span.
    task._span = variables.run(hooks.span, task._task_name(), worker, waited)
    if task._fenced:  # whoever did so may have found no span to finish
        variables.run(hooks.dropped, task._take_ending(), task._exception)


def tell_end(
    hooks: Hooks,
    task: TaskFuture[Any],
    outcome: Outcome,
    error: BaseException | None,
    took: float,
) -> None:
    """A task is over after so many seconds; whoever fenced it may have told so already."""
    variables = task._vars
    untold, span = task._take_ending()
    if untold:
        variables.run(hooks.ended, outcome.status, took)
    variables.run(hooks.finish, span, error)


def tell_retry(hooks: Hooks, task: TaskFuture[Any], error: BaseException) -> None:
    """A task took its worker down, and is not over: it will begin again, with another span."""
    with task._lock:
        span, task._span = task._span, None
    task._vars.run(hooks.finish, span, error)
    task._vars.run(hooks.retried)
