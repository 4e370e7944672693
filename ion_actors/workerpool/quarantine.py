"""What becomes of a task that took its worker down: it may be tried again, but not for ever.

Only a task whose submitter said that it may be run more than once is tried again, at the front of
the queue. One that takes down a worker each time is poison: after the last try it is quarantined,
with the history of what it did.
"""

from __future__ import annotations

import enum
import logging
from typing import Any

from ion_actors.errors import TaskDropped, TaskQuarantined
from ion_actors.naming import as_repr
from ion_actors.workerpool.directive import Directive
from ion_actors.workerpool.metrics import Outcome
from ion_actors.workerpool.reasons import DropReason
from ion_actors.workerpool.report import WorkerDeath
from ion_actors.workerpool.spec import PoolSpec
from ion_actors.workerpool.task import TaskFuture
from ion_actors.workerpool.verdict import Verdict

__all__ = ["Fate", "fate", "remember", "too_late", "without_retry"]


class Fate(enum.Enum):
    """What becomes of such a task."""

    AGAIN = "again"  # back to the front of the queue
    CANCELLED = "cancelled"  # nobody wants it any more
    PANICKED = "panicked"  # it may not be run again: that is the end of it
    QUARANTINED = "quarantined"  # it has been run again as often as it may be


def fate(*, deaths: int, retries: int, directive: Directive, ended: bool) -> Fate:
    """What becomes of a task.

    Args:
        deaths: how many workers it has taken down, 1 or more.
        retries: how often it may be run again.
        directive: what becomes of the worker.
        ended: its context is over.
    """
    if retries == 0 or directive is Directive.ESCALATE:
        return Fate.PANICKED
    if ended:
        return Fate.CANCELLED
    return Fate.AGAIN if deaths <= retries else Fate.QUARANTINED


def without_retry(task: TaskFuture[Any], verdict: Verdict, end: Fate, spec: PoolSpec) -> Verdict:
    """The verdict on a task that has come to such an end."""
    error = verdict.shown
    try:
        if end is Fate.CANCELLED:
            shown = task.task_context()._error()
            shown.task = task._task_name()
            shown.__cause__ = error
            return Verdict(Outcome.CANCELLED, shown, verdict.directive)
        if end is Fate.QUARANTINED:
            poison = _quarantined(task, error)
            spec.log(logging.ERROR, "%s", poison, error=error, task=poison.task)
            return Verdict(
                Outcome.PANICKED, poison, verdict.directive, reason=DropReason.QUARANTINED
            )
        return verdict
    finally:
        del error, task, verdict


def too_late(task: TaskFuture[Any], verdict: Verdict, spec: PoolSpec) -> Verdict:
    """The verdict on a task that would be tried again, had the pool not been closed."""
    name = task._task_name()
    why = f"pool {spec.name!r} was closed before task {name!r} could be tried again"
    shown = TaskDropped(why, task=name, why=DropReason.CLOSED)
    shown.__cause__ = verdict.shown
    try:
        return Verdict(Outcome.CANCELLED, shown, verdict.directive, reason=DropReason.CLOSED)
    finally:
        del shown, task, verdict


def _quarantined(task: TaskFuture[Any], error: BaseException) -> TaskQuarantined:
    name, history = task._task_name(), task._history
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
        task._history = (*task._history, WorkerDeath(worker, error, at, age))
        return len(task._history)
    finally:
        del error, task
