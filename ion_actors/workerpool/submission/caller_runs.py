"""A submitter that runs its task itself, because the mailbox is full and the policy says so.

It stands in for a worker as long as the task takes: it is counted like one, seen in reports and
dumps, and a drain waits for it. It is no actor: there is nobody to be replaced when the task
panics.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures._base import RUNNING
from dataclasses import replace
from typing import Any

from ion_actors.actors import Request
from ion_actors.backends.stacks import Stack
from ion_actors.backends.stream.producer import refuse_generators
from ion_actors.backends.thread import ThreadRunner
from ion_actors.context import of_thread
from ion_actors.interruption import is_interruption
from ion_actors.naming import printable
from ion_actors.raised import is_a
from ion_actors.workerpool.core import PoolCore
from ion_actors.workerpool.mailbox.protocols import NOT_BEGUN
from ion_actors.workerpool.mailbox.task import TaskFuture
from ion_actors.workerpool.messages import Panicked, Stopped
from ion_actors.workerpool.model.metrics import Tally
from ion_actors.workerpool.model.outcomes import Directive, Outcome
from ion_actors.workerpool.model.reports import Panic
from ion_actors.workerpool.worker.failure import panic_error
from ion_actors.workerpool.worker.settlement import Settlement, TaskItem, tell_begin, tell_end
from ion_actors.workerpool.worker.task_wrapper import call_wrapped

__all__ = ["Caller"]


class Caller:
    """A thread that runs one task of a pool that is not its own."""

    appointed = False
    keeps_others = False  # each worker has a thread
    index = -1  # it has no seat
    doomed = True
    returning = None  # a task that it ran is not tried again
    starting = False
    pid = None  # this process

    def __init__(self, core: PoolCore) -> None:
        self.thread: threading.Thread | None = threading.current_thread()
        self.name = f"{core.spec.name}-caller-{printable(self.thread.name)}"
        self.tally = Tally()
        self.slot: TaskFuture[Any] | None = None
        self.current: TaskFuture[Any] | None = None
        self.put_back: TaskFuture[Any] | None = None  # it waits for another try, by a worker
        self.has_control = False
        self.started_at = NOT_BEGUN
        self.interrupted: list[tuple[TaskFuture[Any] | None, float]] = []
        self._core = core
        self._spec = core.spec
        self._runner = ThreadRunner(core.spec.context)
        self._callbacks: list[Callable[[Any], object]] | None = None  # of the task, once it ended

    def wake(self) -> None:
        """It is awake."""

    def where(self) -> Stack:
        """Where its task is."""
        return self._runner.where(self.thread)

    def run(self, task: TaskFuture[Any], accepted: Callable[[TaskFuture[Any]], object]) -> bool:
        """Accept the task and run it to its outcome. Returns whether it might begin.

        Raises:
            PoolClosed, BrokenPool: the pool accepts nothing any more.
            BaseException: an interruption (Ctrl-C, a soft time limit): it came while the task ran,
                and was meant for this thread.
        """
        core = self._core
        try:
            core.workers.append(self)  # first: from here on, nobody takes the pool for idle
            core.mailbox.enlist(self.tally)
            if not core.mailbox.claim_new(task, self, nested=False):
                return False
            if task.special:
                accepted(task)
            self._perform(task)
            return True
        except BaseException as error:
            self._write_off(task, error)
            raise
        finally:
            try:
                self._leave(task)
            except BaseException:  # Ctrl-C: nobody else would do it
                self._leave(task)
                raise
            finally:
                del task

    def sent_ahead(self) -> Sequence[TaskFuture[Any]]:
        """Nothing: it runs one task."""
        return ()

    def _leave(self, task: TaskFuture[Any]) -> None:
        """Stand in no longer. May be done again."""
        if task.key is not None and task is not self.put_back:
            self._core.mailbox.release(task)
        self.thread = None  # nobody should wait for it to end
        self._core.tell(Stopped(self))

    def _write_off(self, task: TaskFuture[Any], error: BaseException) -> None:
        """An interruption came before the task began, or before it was settled."""
        try:
            if task._state is RUNNING and task is not self.put_back:
                shown = panic_error(task.task_name(), self.name, error, self._spec)
                task.release_call()
                task.fail(shown, self.tally, Outcome.PANICKED)
                task._mark_read()  # the interruption is raised here
            task.wake_again()
        finally:
            del task, error

    def _perform(self, task: TaskFuture[Any]) -> None:
        self.started_at = self._spec.context.clock.monotonic()
        outer, of_thread.task_context = of_thread.task_context, task.task_context
        outer_report, of_thread.report = of_thread.report, task._report
        interruption: BaseException | None = None
        try:
            value = self._call(task)
        except BaseException as error:
            if is_a(error, KeyboardInterrupt) or is_interruption(error):
                task.terms = replace(task.terms, retry=None)  # it is raised here
            item = TaskItem(task, self._spec, self._core.mailbox, self)
            Settlement(self._spec, self).settle(item, error)
            if is_a(error, KeyboardInterrupt) or is_interruption(error):
                interruption = error
                task._mark_read()  # it is raised here
        else:
            if self._spec.hooks is not None:
                took = self._spec.context.clock.monotonic() - self.started_at
                tell_end(self._spec.hooks, task, Outcome.COMPLETED, None, took)
            self.run_callbacks(task, task.complete(value, self.tally))
        finally:
            of_thread.task_context, of_thread.report = outer, outer_report
            self.current = None
            value = item = None  # type: ignore[assignment]
        task._run_callbacks(self._callbacks)  # they are not the task: its context is not theirs
        if interruption is not None:
            try:
                raise interruption
            finally:
                del interruption, task

    def _call(self, task: TaskFuture[Any]) -> Any:
        spec, backend = self._spec, self._runner
        task.begin(self.started_at)
        if spec.hooks is not None:
            tell_begin(spec.hooks, task, self.name, self._core.mailbox.backlog, self.started_at)
        outer, of_thread.task_name = of_thread.task_name, task.task_name
        with backend.on_top():  # it may be called by a coroutine
            try:
                if spec.task_wrapper is None:
                    value = task.variables.run(task.fn, *task.args, **(task.kwargs or {}))
                else:
                    value = call_wrapped(spec.task_wrapper, backend, task)
                value = backend.finish(value, task.task_context(), task.variables)
                if spec.dialect.refuses_generators:
                    refuse_generators(value, task.fn)
                return value
            finally:
                of_thread.task_name = outer
                backend.stop()

    # -- what has raised: see ion_actors.workerpool.worker.settlement ------------------------

    def doom(self) -> None:
        """It runs only this one task."""

    def report(self, name: str, error: BaseException, directive: Directive) -> Panic | None:
        """Tell the supervisor of the panic. It has no seat that anybody is to take."""
        spec = self._spec
        try:
            self._core.tell(Request(Panicked(self, name, error, directive), None))
            if spec.recovery.handler is None:
                return None
            restarts = self._core.metrics().restarts
            return Panic(spec.name, self.name, name, error, restarts, directive)
        finally:
            del error

    def run_callbacks(
        self, task: TaskFuture[Any], callbacks: list[Callable[[Any], object]] | None
    ) -> None:
        """They are run a moment later: they are not the task, and its context is not theirs."""
        self._callbacks = callbacks
