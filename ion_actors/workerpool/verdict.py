"""What an exception means for the task that raised it."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from ion_actors.errors import Cancelled, ContextEnded, TaskPanicked
from ion_actors.workerpool.metrics import Outcome
from ion_actors.workerpool.spec import PoolSpec
from ion_actors.workerpool.task import TaskFuture

__all__ = ["judge", "panic_error"]


def judge(
    task: TaskFuture[Any], error: BaseException, spec: PoolSpec
) -> tuple[Outcome, BaseException]:
    """How the task has ended, and what its future shows of the exception."""
    context = task.task_context()
    if isinstance(error, ContextEnded) and context.cancelled:
        error.task = error.task or task._task_name()
        return Outcome.CANCELLED, error
    if isinstance(error, asyncio.CancelledError):
        why = Cancelled("the coroutine was cancelled", task=task._task_name())
        ended: ContextEnded = context._error() if context.cancelled else why
        ended.__cause__ = error
        return Outcome.CANCELLED, ended
    try:
        panic = task._vars.run(spec.recovery.calls_it_panic, error)
    except BaseException as fault:
        spec.log(logging.ERROR, "is_panic failed on %r", error, error=fault)
        panic = False
    return (Outcome.PANICKED if panic else Outcome.FAILED), error


def panic_error(task: str, worker: str, error: BaseException) -> TaskPanicked:
    """What the future of a task raises that took its worker down with this."""
    shown = TaskPanicked(
        f"task {task!r} panicked with {error!r} and took its worker {worker} down",
        task=task,
        worker=worker,
    )
    shown.__cause__ = error
    try:
        return shown
    finally:
        del error, shown  # a traceback may hold this frame
