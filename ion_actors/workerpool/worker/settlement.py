"""What a raised exception leads to: one path for all who run something for a pool.

::

    raised ──classify──▶ CANCELLED ──▶ settle the future, go on
                └──────▶ FAILED ──▶ settle the future, or have the task wait for another try; go on
                └──────▶ PANICKED ──▶ tell the supervisor ──▶ settle the future, or queue it again

So a successor is appointed before anybody learns of the panic.

A worker runs tasks, and has its actor answer letters; a submitter may run its task itself. Two
protocols say where these differ: a ``WorkItem`` is what was run (a task, or a letter), and
``SettlingWorker`` is who ran it (a worker, or a caller, which is not replaced).
"""

from __future__ import annotations

import contextvars
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

from ion_actors.context import Context, of_thread
from ion_actors.errors import TaskPanicked
from ion_actors.raised import in_a_line, unshared
from ion_actors.workerpool.hooks import PoolHooks
from ion_actors.workerpool.mailbox.mailbox import Mailbox
from ion_actors.workerpool.mailbox.protocols import Returning
from ion_actors.workerpool.mailbox.task import TaskFuture
from ion_actors.workerpool.mistakes import hint_at_options
from ion_actors.workerpool.model.metrics import Tally
from ion_actors.workerpool.model.outcomes import Directive, Outcome, excess_of
from ion_actors.workerpool.model.reports import Panic
from ion_actors.workerpool.model.retry import PastTries
from ion_actors.workerpool.spec import PoolSpec
from ion_actors.workerpool.worker.failure import (
    Failure,
    RetryDecision,
    WorkItem,
    classify,
    decide_retry,
    next_try,
    panic_error,
    remember,
    too_late,
    without_retry,
)

__all__ = ["Settlement", "SettlingWorker", "TaskItem", "tell_begin", "tell_end"]


def tell_begin(
    hooks: PoolHooks, task: TaskFuture[Any], worker: str, queued: int, started_at: float
) -> None:
    """A task begins, and so many others are waiting."""
    variables = task.variables
    waited = max(0.0, started_at - task.accepted_at)
    variables.run(hooks.started, queued, waited)
    # In the task's variables, so that what it traces belongs to this span.
    attempt = 1 + len(task.history) + (0 if task.past_tries is None else task.past_tries.count)
    task.span = variables.run(hooks.span, task.task_name(), worker, waited, attempt)
    if task.fenced:  # whoever did so may have found no span to finish
        variables.run(hooks.dropped, task.take_ending(), task._exception)


def tell_end(
    hooks: PoolHooks,
    task: TaskFuture[Any],
    outcome: Outcome,
    error: BaseException | None,
    took: float,
) -> None:
    """A task is over after so many seconds; whoever fenced it may have told so already."""
    variables = task.variables
    untold, span = task.take_ending()
    if untold:
        variables.run(hooks.ended, outcome.status, took)
    variables.run(hooks.finish, span, error)


def _tell_retry(hooks: PoolHooks, task: TaskFuture[Any], error: BaseException) -> None:
    """A task is not over: it will begin again, with another span."""
    task.variables.run(hooks.finish, task.take_span(), error)
    task.variables.run(hooks.retried)


class SettlingWorker(Protocol):
    """Who ran what raised: a worker, or a caller that stands in for one."""

    name: str
    tally: Tally
    started_at: float  # when what it runs began
    current: TaskFuture[Any] | None
    put_back: TaskFuture[Any] | None  # queued again, no longer its own

    @property
    def returning(self) -> Returning | None:
        """Itself, if it may put back a task that took it down; None for a caller."""
        ...

    def doom(self) -> None:
        """What it ran has panicked: it is to begin nothing more."""
        ...

    def report(self, name: str, error: BaseException, directive: Directive) -> Panic | None:
        """Tell the supervisor of the panic. Returns what the panic handler is to be told, if any.

        Args:
            name: of what it ran.
            error: what that raised.
            directive: what is to become of the worker.
        """
        ...

    def run_callbacks(
        self, task: TaskFuture[Any], callbacks: list[Callable[[Any], object]] | None
    ) -> None:
        """Run the callbacks of a task that has ended, now or a moment later."""
        ...


class Settlement:
    """Decides what a raised exception means, and acts on it; for one who runs tasks.

    Args:
        spec: the pool's.
        who: whose it is.
    """

    def __init__(self, spec: PoolSpec, who: SettlingWorker) -> None:
        self._spec = spec
        self._who = who

    def settle(self, item: WorkItem, error: BaseException) -> None:
        """What was run has raised this."""
        try:
            error = unshared(error)
            first = classify(item, error, self._spec)
            failure: Failure | None = first
            if first.outcome is Outcome.PANICKED:
                self._who.doom()
            if first.outcome is not Outcome.CANCELLED:
                failure = item.try_again(first)
            if failure is None:
                if first.directive is not Directive.RESUME:
                    self._go_down(item.task_name(), error, first.directive)
            else:
                self.conclude(item, error, failure)
        finally:
            item = error = first = failure = None  # type: ignore[assignment]

    def conclude(self, item: WorkItem, error: BaseException, failure: Failure) -> None:
        """It ends."""
        shown = failure.shown
        try:
            item.stopped(failure, error)
            if failure.directive is not Directive.RESUME:
                died = self._go_down(item.task_name(), error, failure.directive)
                shown = died if shown is error else shown
            item.end(failure, shown)
        finally:
            item = error = shown = died = failure = None  # type: ignore[assignment]

    def _go_down(self, name: str, error: BaseException, directive: Directive) -> TaskPanicked:
        """What was run has panicked: the supervisor does as the policy says.

        Returns:
            What to show to those who wait for the outcome, by now.
        """
        try:
            panic = self._who.report(name, error, directive)
            if panic is not None:
                self._tell_handler(panic)
            return panic_error(name, self._who.name, error, self._spec)
        finally:
            panic = error = None  # type: ignore[assignment]

    def _tell_handler(self, panic: Panic) -> None:
        if self._spec.recovery.handler is not None:
            of_thread.task_context = None  # it is not the task: its context is not its own
            try:
                contextvars.Context().run(self._spec.recovery.handler, panic)
            except BaseException as error:
                self._spec.log(logging.ERROR, "the panic handler failed", error=error)


class TaskItem:
    """A task that has raised: see :class:`~ion_actors.workerpool.worker.failure.WorkItem`."""

    __slots__ = ("_mailbox", "_spec", "_task", "_who", "variables")

    def __init__(
        self, task: TaskFuture[Any], spec: PoolSpec, mailbox: Mailbox, who: SettlingWorker
    ) -> None:
        self.variables = task.variables
        self._task = task
        self._spec = spec
        self._mailbox = mailbox
        self._who = who

    def task_context(self) -> Context:
        """The context that it runs under."""
        return self._task.task_context()

    def task_name(self) -> str:
        """Its name, for errors and logs."""
        return self._task.task_name()

    concerned = task_name

    def try_again(self, failure: Failure) -> Failure | None:
        """Put the task back into the queue; or return the failure on it, if it has to end."""
        task, worker = self._task, self._who.returning
        if task.stream is not None and task.stream.put_so_far:
            return failure  # its reader has items that would come again
        retries = (
            task.terms.retries and excess_of(failure.shown) is None
        )  # it would take as much again
        if failure.outcome is Outcome.FAILED or not retries:
            return self._postpone(failure)
        if worker is None:
            return failure
        now = self._spec.context.clock.monotonic()
        try:
            end = decide_retry(
                deaths=remember(
                    task, self._who.name, failure.shown, now, now - self._who.started_at
                ),
                retries=task.terms.retries,
                directive=failure.directive,
                ended=task.task_context().cancelled and not self._spec.context.cancelled,
            )
            if end is not RetryDecision.AGAIN:
                return without_retry(task, failure, end, self._spec)
            if self._spec.hooks is not None:
                _tell_retry(self._spec.hooks, task, failure.shown)
            if self._mailbox.put_back(task, worker):
                return None
            return too_late(task, failure, self._spec)
        finally:
            self = task = failure = None  # type: ignore[assignment]

    def _postpone(self, failure: Failure) -> Failure | None:
        """Have the task wait for another try; or return the failure on it, if it has to end."""
        task, who, spec = self._task, self._who, self._spec
        if task.terms.retry is None:
            return failure
        now = spec.context.clock.monotonic()
        try:
            due, why = next_try(task, failure, now, spec)
            if due is not None:
                before = task.past_tries
                failed = in_a_line(failure.shown), now - who.started_at
                task.past_tries = (before or PastTries()).added(*failed)  # it may begin at once
                if spec.hooks is not None:
                    _tell_retry(spec.hooks, task, failure.shown)
                if self._mailbox.postpone(task, who, due):
                    return None
                task.past_tries, why = before, "its pool has ended"
            if task.past_tries is not None:
                task.past_tries = replace(task.past_tries, why=why)
            return failure
        finally:
            self = task = who = failure = None  # type: ignore[assignment]

    def stopped(self, failure: Failure, error: BaseException) -> None:
        """It runs no more: tell the hooks, and count it."""
        try:
            if self._spec.hooks is not None:
                took = self._spec.context.clock.monotonic() - self._who.started_at
                tell_end(self._spec.hooks, self._task, failure.outcome, error, took)
            if failure.directive is not Directive.RESUME:  # what follows takes time
                self._task.count(failure.outcome, self._who.tally)
        finally:
            self = failure = error = None  # type: ignore[assignment]

    def end(self, failure: Failure, shown: BaseException) -> None:
        """Settle its future."""
        task, tally = self._task, self._who.tally
        try:
            task.tell_past_tries(shown)
            outcome, reason = failure.outcome, failure.reason
            if reason is not None:
                callbacks = self._mailbox.give_back(task, shown, tally, outcome, reason)
            else:
                hint_at_options(shown, task.kwargs, "submit" if task.stream is None else "stream")
                task.release_call()
                callbacks = task.fail(shown, tally, outcome)
            self._who.run_callbacks(task, callbacks)
        finally:
            self = task = failure = shown = None  # type: ignore[assignment]
