"""What an exception means for the task that raised it, and for its worker.

A task that took its worker down may be tried again, but not for ever: only one whose submitter said
that it may be run more than once is tried again, at the front of the queue. One that takes down a
worker each time is poison: after the last try it is quarantined, with the history of what it did.
"""

from __future__ import annotations

import contextvars
import enum
import logging
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from ion_actors.context import Context
from ion_actors.errors import (
    Cancelled,
    ContextEnded,
    TaskDropped,
    TaskOutOfMemory,
    TaskPanicked,
    TaskQuarantined,
)
from ion_actors.naming import as_repr
from ion_actors.raised import is_a, is_asyncio_cancellation, name_of
from ion_actors.workerpool.mailbox.task import TaskFuture
from ion_actors.workerpool.model.outcomes import Directive, DropReason, Outcome, excess_of
from ion_actors.workerpool.model.reports import WorkerDeath
from ion_actors.workerpool.model.retry import Plan, hint_of
from ion_actors.workerpool.spec import PoolSpec

__all__ = [
    "Failure",
    "RetryDecision",
    "WorkItem",
    "classify",
    "decide_retry",
    "directive_for",
    "next_try",
    "panic_error",
    "remember",
    "too_late",
    "without_retry",
]


class Failure(NamedTuple):
    """What an exception means."""

    outcome: Outcome  # how the task has ended
    shown: BaseException  # what its future shows
    directive: Directive = Directive.RESUME  # what becomes of its worker
    reason: DropReason | None = None  # why the pool has given it up, if it has


class WorkItem(Protocol):
    """What was run and has raised: a task, or a letter to the actor that lives in a worker."""

    @property
    def variables(self) -> contextvars.Context:
        """Its variables, in which the policy is asked."""
        ...

    def task_context(self) -> Context:
        """The context that it runs under."""
        ...

    def task_name(self) -> str:
        """Its name, for errors and logs."""
        ...

    def concerned(self) -> str | None:
        """The task's name; None if it is no task."""
        ...

    def try_again(self, failure: Failure) -> Failure | None:
        """Have it tried again, which returns None; or return the failure, perhaps another one."""
        ...

    def stopped(self, failure: Failure, error: BaseException) -> None:
        """It runs no more, though it may be a while until it has ended."""
        ...

    def end(self, failure: Failure, shown: BaseException) -> None:
        """It has ended: have those who wait for it see this error."""
        ...


def classify(item: WorkItem, error: BaseException, spec: PoolSpec) -> Failure:
    """How it has ended, what those who wait for it see of that, and what becomes of the worker."""
    context = item.task_context()
    if is_a(error, ContextEnded) and context.cancelled:
        error.task = error.task or item.concerned()
        return Failure(Outcome.CANCELLED, error, reason=_stopped(spec))
    if is_asyncio_cancellation(error):
        why = Cancelled("the coroutine was cancelled", task=item.concerned())
        ended: ContextEnded = context._error() if context.cancelled else why
        ended.__cause__ = error
        return Failure(Outcome.CANCELLED, ended, reason=_stopped(spec))
    directive = item.variables.run(directive_for, error, spec)
    outcome = Outcome.FAILED if directive is Directive.RESUME else Outcome.PANICKED
    return Failure(outcome, error, directive)


def _stopped(spec: PoolSpec) -> DropReason | None:
    return DropReason.STOPPED if spec.context.cancelled else None


def directive_for(error: BaseException, spec: PoolSpec) -> Directive:
    """What becomes of a worker in which somebody's code raised this."""
    try:
        return spec.recovery.directive(error)
    except BaseException as fault:
        spec.log(logging.ERROR, "decide or is_panic failed on %r", error, error=fault)
        return Directive.RESUME if is_a(error, Exception) else Directive.RESTART


def panic_error(task: str, worker: str, error: BaseException, spec: PoolSpec) -> TaskPanicked:
    """What the future of a task raises that took its worker down with this."""
    shown = _out_of_memory(task, worker, error) or spec.dialect.panicked(
        f"task {task!r} panicked with {as_repr(error)} and took its worker {worker} down",
        task=task,
        worker=worker,
    )
    shown.__cause__ = error
    try:
        return shown
    finally:
        del error, shown  # a traceback may hold this frame


def _out_of_memory(task: str, worker: str, error: BaseException) -> TaskOutOfMemory | None:
    try:
        excess = excess_of(error)
        if excess is None:
            return None
        limit, peak = excess
        return TaskOutOfMemory(
            f"task {task!r} was ended: its child process held {peak / 1e6:.1f} MB, and may hold "
            f"{limit / 1e6:.1f} MB (max_memory_per_child); it took its worker {worker} down",
            task=task, worker=worker, limit=limit, peak=peak,
        )  # fmt: skip
    finally:
        del error


class RetryDecision(enum.Enum):
    """What becomes of such a task."""

    AGAIN = "again"  # back to the front of the queue
    CANCELLED = "cancelled"  # nobody wants it any more
    PANICKED = "panicked"  # it may not be run again: that is the end of it
    QUARANTINED = "quarantined"  # it has been run again as often as it may be


def decide_retry(*, deaths: int, retries: int, directive: Directive, ended: bool) -> RetryDecision:
    """What becomes of a task.

    Args:
        deaths: how many workers it has taken down, 1 or more.
        retries: how often it may be run again.
        directive: what becomes of the worker.
        ended: its context is over.
    """
    if retries == 0 or directive is Directive.ESCALATE:
        return RetryDecision.PANICKED
    if ended:
        return RetryDecision.CANCELLED
    return RetryDecision.AGAIN if deaths <= retries else RetryDecision.QUARANTINED


def next_try(task: TaskFuture[Any], failure: Failure, now: float, spec: PoolSpec) -> Plan:
    """When a task is tried again that has ended so, as its ``retry`` says."""
    retry, error = task.terms.retry, failure.shown
    try:
        if retry is None:
            return Plan(None, "")
        if task.task_context().cancelled:
            return Plan(None, "its context has ended")
        if failure.directive is Directive.ESCALATE:
            return Plan(None, "its pool is broken")
        died = failure.outcome is Outcome.PANICKED
        covers = retry.covers_death if died else retry.covers
        if not task.variables.run(_covers, covers, error, spec):
            return Plan(None, f"{name_of(type(error))} is not tried again")
        failures = 1 if task.past_tries is None else task.past_tries.count + 1
        return retry.plan(failures, now, task.born_at, task.variables.run(hint_of, error))
    finally:
        del task, failure, error


def _covers(covers: Callable[[BaseException], bool], error: BaseException, spec: PoolSpec) -> bool:
    try:
        return covers(error)
    except BaseException as fault:
        spec.log(logging.ERROR, "retry's on failed on %r", error, error=fault)
        return False
    finally:
        del error


def without_retry(
    task: TaskFuture[Any], failure: Failure, end: RetryDecision, spec: PoolSpec
) -> Failure:
    """The failure on a task that has come to such an end."""
    error = failure.shown
    try:
        if end is RetryDecision.CANCELLED:
            shown = task.task_context()._error()
            shown.task = task.task_name()
            shown.__cause__ = error
            return Failure(Outcome.CANCELLED, shown, failure.directive)
        if end is RetryDecision.QUARANTINED:
            poison = _quarantined(task, error)
            spec.log(logging.ERROR, "%s", poison, error=error, task=poison.task)
            return Failure(
                Outcome.PANICKED, poison, failure.directive, reason=DropReason.QUARANTINED
            )
        return failure
    finally:
        del error, task, failure


def too_late(task: TaskFuture[Any], failure: Failure, spec: PoolSpec) -> Failure:
    """The failure on a task that would be tried again, had the pool not been closed."""
    name = task.task_name()
    why = f"pool {spec.name!r} was closed before task {name!r} could be tried again"
    shown = TaskDropped(why, task=name, why=DropReason.CLOSED)
    shown.__cause__ = failure.shown
    try:
        return Failure(Outcome.CANCELLED, shown, failure.directive, reason=DropReason.CLOSED)
    finally:
        del shown, task, failure


def _quarantined(task: TaskFuture[Any], error: BaseException) -> TaskQuarantined:
    name, history = task.task_name(), task.history
    workers = ", ".join(death.worker for death in history)
    shown = TaskQuarantined(
        f"task {name!r} is quarantined: it took down {len(history)} workers, one after the other "
        f"({workers}), the last one with {as_repr(error)}",
        task=name, worker=history[-1].worker, history=history,
    )  # fmt: skip
    shown.__cause__ = error
    try:
        return shown
    finally:
        del error, shown, history


def remember(
    task: TaskFuture[Any], worker: str, error: BaseException, at: float, age: float
) -> int:
    """Note that the task took down this worker. Returns how many it has."""
    try:
        task.history = (*task.history, WorkerDeath(worker, error, at, age))
        return len(task.history)
    finally:
        del error, task
