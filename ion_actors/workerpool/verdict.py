"""What an exception means for the task that raised it."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, NamedTuple

from ion_actors.errors import Cancelled, ContextEnded, TaskPanicked
from ion_actors.naming import as_repr
from ion_actors.raised import is_a
from ion_actors.workerpool.directive import Directive
from ion_actors.workerpool.metrics import Outcome
from ion_actors.workerpool.reasons import DropReason
from ion_actors.workerpool.spec import PoolSpec
from ion_actors.workerpool.task import TaskFuture

__all__ = ["Verdict", "directive_for", "judge", "panic_error"]


class Verdict(NamedTuple):
    """What an exception means."""

    outcome: Outcome  # how the task has ended
    shown: BaseException  # what its future shows
    directive: Directive = Directive.RESUME  # what becomes of its worker
    reason: DropReason | None = None  # why the pool has given it up, if it has


def judge(task: TaskFuture[Any], error: BaseException, spec: PoolSpec) -> Verdict:
    """How the task has ended, what its future shows of it, and what becomes of the worker."""
    context = task.task_context()
    if is_a(error, ContextEnded) and context.cancelled:
        error.task = error.task or task._task_name()
        return Verdict(Outcome.CANCELLED, error, reason=_stopped(spec))
    if is_a(error, asyncio.CancelledError):
        why = Cancelled("the coroutine was cancelled", task=task._task_name())
        ended: ContextEnded = context._error() if context.cancelled else why
        ended.__cause__ = error
        return Verdict(Outcome.CANCELLED, ended, reason=_stopped(spec))
    directive = task._vars.run(directive_for, error, spec)
    outcome = Outcome.FAILED if directive is Directive.RESUME else Outcome.PANICKED
    return Verdict(outcome, error, directive)


def _stopped(spec: PoolSpec) -> DropReason | None:
    return DropReason.STOPPED if spec.context.cancelled else None


def directive_for(error: BaseException, spec: PoolSpec) -> Directive:
    """What becomes of a worker in which somebody's code raised this."""
    try:
        return spec.recovery.directive(error)
    except BaseException as fault:
        spec.log(logging.ERROR, "decide or is_panic failed on %r", error, error=fault)
        return Directive.RESUME if is_a(error, Exception) else Directive.RESTART


def panic_error(task: str, worker: str, error: BaseException) -> TaskPanicked:
    """What the future of a task raises that took its worker down with this."""
    shown = TaskPanicked(
        f"task {task!r} panicked with {as_repr(error)} and took its worker {worker} down",
        task=task,
        worker=worker,
    )
    shown.__cause__ = error
    try:
        return shown
    finally:
        del error, shown  # a traceback may hold this frame
