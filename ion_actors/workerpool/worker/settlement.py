"""How a worker settles what it was given, when that does not simply return.

::

    raised ──judge──▶ FAILED, CANCELLED ──▶ settle the future, go on
                └───▶ PANICKED ──▶ tell the supervisor ──▶ settle the future, or put the task back
                                   and stop

So a successor is appointed before anybody learns of the panic. The pool's hooks are told of each
task that runs by its worker, or by whoever stands in for one.
"""

from __future__ import annotations

import contextvars
import functools
import logging
import threading
from collections.abc import Callable
from concurrent.futures._base import RUNNING
from typing import TYPE_CHECKING, Any, cast

from typing_extensions import override

from ion_actors.actors import IsolatedActor
from ion_actors.backends.protocol import NotReady, Runner
from ion_actors.context import of_thread
from ion_actors.errors import TaskPanicked
from ion_actors.futures import Future
from ion_actors.futures.state import Parked
from ion_actors.workerpool.hooks import PoolHooks
from ion_actors.workerpool.mailbox.mailbox import Mailbox
from ion_actors.workerpool.mailbox.protocols import NOT_BEGUN
from ion_actors.workerpool.mailbox.task import TaskFuture
from ion_actors.workerpool.messages import Panicked, StartFailed, Stopped
from ion_actors.workerpool.model.metrics import Tally
from ion_actors.workerpool.model.outcomes import Directive, Outcome
from ion_actors.workerpool.model.reports import Panic
from ion_actors.workerpool.spec import PoolSpec
from ion_actors.workerpool.worker.actor_host import ActorHost
from ion_actors.workerpool.worker.failure import (
    Fate,
    Verdict,
    fate,
    judge,
    panic_error,
    remember,
    too_late,
    without_retry,
)
from ion_actors.workerpool.worker.inbox import Envelope, Request, SupervisorInbox

if TYPE_CHECKING:
    from ion_actors.workerpool.worker.worker import PoolWorker

__all__ = ["Settlement", "tell_begin", "tell_end", "tell_retry"]


def tell_begin(
    hooks: PoolHooks, task: TaskFuture[Any], worker: str, queued: int, started_at: float
) -> None:
    """A task begins, and so many others are waiting."""
    variables = task.variables
    waited = max(0.0, started_at - task.accepted_at)
    variables.run(hooks.started, queued, waited)
    # In the task's variables, so that what it traces belongs to this span.
    task.span = variables.run(hooks.span, task.task_name(), worker, waited)
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


def tell_retry(hooks: PoolHooks, task: TaskFuture[Any], error: BaseException) -> None:
    """A task took its worker down, and is not over: it will begin again, with another span."""
    with task._lock:
        span, task.span = task.span, None
    task.variables.run(hooks.finish, span, error)
    task.variables.run(hooks.retried)


# How long a dying worker waits for the supervisor's word before it goes on without it. The
# supervisor never blocks, so this is only reached when something is badly wrong.
_WORD_TIMEOUT = 5.0


class Settlement(IsolatedActor):
    """See the module. A part of ``PoolWorker``."""

    _hosting: ActorHost | None
    _runner: Runner

    def __init__(self, spec: PoolSpec, mailbox: Mailbox, boss: SupervisorInbox, index: int) -> None:
        super().__init__()
        self.name = f"{spec.name}-{index}"
        self.index = index
        self.tally = Tally()
        self.slot: TaskFuture[Any] | None = None  # handed over, not begun; mailbox's lock
        self.current: TaskFuture[Any] | None = None  # handed over, not ended
        self.started_at = NOT_BEGUN  # when the current task began
        self.interrupted: list[
            tuple[TaskFuture[Any] | None, float]
        ] = []  # see PoolWorker.run_here()
        self._spec = spec
        self._mailbox = mailbox
        self._boss = boss
        self._now = spec.context.clock.monotonic
        self._pool_context = spec.context
        self._hooks = spec.hooks
        self._done = False  # it is to stop
        self._failure: BaseException | None = None  # what its resident is to be told of
        self.interrupted_once = False  # by something that was thrown into its thread
        self.put_back: TaskFuture[Any] | None = None  # queued again, no longer this worker's
        self.telling: TaskFuture[Any] | None = None  # it has ended, its callbacks are being run

    @property
    def _whole(self) -> PoolWorker:
        """The worker that this is a part of, as the supervisor knows it."""
        return cast("PoolWorker", self)

    def _failed(self, task: TaskFuture[Any], error: BaseException) -> None:
        try:
            if type(error) is NotReady:
                self._hand_back(task, error)
                self.stop()
                return
            judged = judge(task, error, self._spec)
            verdict: Verdict | None = judged
            if judged.outcome is Outcome.PANICKED:
                self._done = True
                if task.retries:
                    verdict = self._try_again(task, judged)
            if verdict is None:
                self.go_down(task.task_name(), error, judged.directive)
            else:
                self._settle(task, error, verdict)
        finally:
            task = error = judged = verdict = None  # type: ignore[assignment]
        if self._done:
            self.stop()

    def _settle(self, task: TaskFuture[Any], error: BaseException, verdict: Verdict) -> None:
        """The task ends."""
        outcome, shown, directive, reason = verdict
        try:
            if self._hooks is not None:
                self._observe(task, outcome, error)
            if directive is not Directive.RESUME:
                task.count(outcome, self.tally)  # it runs no more, and what follows takes time
                died = self.go_down(task.task_name(), error, directive)
                shown = died if shown is error else shown
            task.keep_name()
            if reason is not None:
                callbacks = self._mailbox.give_back(task, shown, self.tally, outcome, reason)
            else:
                task.release_call()
                callbacks = task.fail(shown, self.tally, outcome)
            self.run_callbacks(task, callbacks)
        finally:
            task = error = shown = died = verdict = None  # type: ignore[assignment]

    def _hand_back(self, task: TaskFuture[Any], error: NotReady) -> None:
        """There is nothing to run the task in: this worker has failed, and not the task."""
        self.give_up(error)
        try:
            if self._mailbox.put_back(task, self, begun=False):
                return
            # The pool is at its end, or somebody else has ended it.
            self._settle(task, error, judge(task, self._pool_context._error(), self._spec))
        finally:
            del task, error

    def give_up(self, error: NotReady) -> None:
        """There is nothing to run anything in. It is to stop."""
        self._done = True
        cause = error if error.__cause__ is None else error.__cause__
        self._tell(StartFailed(self._whole, cause))

    def _try_again(self, task: TaskFuture[Any], verdict: Verdict) -> Verdict | None:
        """Put the task back into the queue; or return the verdict on it, if it has to end."""
        now = self._now()
        try:
            task.keep_name()
            end = fate(
                deaths=remember(task, self.name, verdict.shown, now, now - self.started_at),
                retries=task.retries,
                directive=verdict.directive,
                ended=task.task_context().cancelled and not self._pool_context.cancelled,
            )
            if end is not Fate.AGAIN:
                return without_retry(task, verdict, end, self._spec)
            if self._hooks is not None:
                tell_retry(self._hooks, task, verdict.shown)
            if self._mailbox.put_back(task, self):
                return None
            return too_late(task, verdict, self._spec)
        finally:
            task = verdict = None  # type: ignore[assignment]

    def go_down(self, name: str, error: BaseException, directive: Directive) -> TaskPanicked:
        """What it ran has panicked. It is to stop, and the supervisor does as the policy says.

        Returns:
            What to show to those who wait for the outcome, by now.
        """
        self._done = True
        try:
            self._move_out(error)
            panic = self._ask(Panicked(self._whole, name, error, directive))
            if panic is not None:
                self._tell_handler(panic)
            return panic_error(name, self.name, error)
        finally:
            del error

    def _ask(self, message: object) -> Panic | None:
        reply: Future[Panic] = Future()
        self._boss.put(Envelope(Request(message, reply)))
        try:
            # Not result(): the task's context may have ended; and what is thrown in must not leave
            # a lock locked that the supervisor needs for its reply.
            come = threading.Lock()
            come.acquire()
            with reply._lock:  # not a callback: the supervisor has those run by another thread
                reply._waiters.append(Parked(come.release))
                if reply.done():
                    come.release()
            come.acquire(timeout=_WORD_TIMEOUT)
            return reply.result(0)
        except BaseException as error:
            # Without its word: the pool has ended meanwhile.
            self._spec.log(logging.DEBUG, "no word from the supervisor", error=error)
            return None

    def _tell_handler(self, panic: Panic) -> None:
        if self._spec.recovery.handler is not None:
            of_thread.task_context = None  # it is not the task: its context is not its own
            try:
                contextvars.Context().run(self._spec.recovery.handler, panic)
            except BaseException as error:
                self._spec.log(logging.ERROR, "the panic handler failed", error=error)

    def _move_out(self, error: BaseException | None) -> None:
        """Whoever lives here goes, once there is no task below; before a successor moves in."""
        if self._hosting is None:
            return
        self._failure = error if self._failure is None else self._failure
        if not self.interrupted:
            of_thread.task_context = None  # its hooks are not the task
            self._hosting.leave(self._failure)
            self._failure = None

    def abandon(self) -> None:
        """The pool's time is up: nobody may wait for it any longer. Any thread may call this."""
        if self._hosting is not None:
            self._hosting.abandon()

    @override
    def stop(self) -> None:
        """Stop after what its inbox has, unless it has stopped."""
        if not self.actor_stopped.is_set():
            super().stop()

    # -- what comes from outside, between any two steps ---------------------------------------

    def run_callbacks(
        self, task: TaskFuture[Any], callbacks: list[Callable[[Any], object]] | None
    ) -> None:
        """Run the callbacks of a task that has ended: it is not current any more."""
        if callbacks or task.key is not None:  # it holds its key yet
            self.telling = task
        self.current = None  # they are not the task: its context is not theirs
        task._run_callbacks(callbacks)
        if task.key is None:
            self.telling = None

    def release_key(self, task: TaskFuture[Any], *, comes: bool) -> None:
        """A task is over: the next of its key may begin.

        Args:
            task: which one.
            comes: this worker will come for another task in a moment.
        """
        self._mailbox.release(task, self._whole if comes else None)
        if not task._built_callbacks:  # else it was interrupted while it ran them
            self.telling = None

    @override
    def _ion_interrupted(self, error: BaseException) -> None:
        """Settle what it had begun, and stop. The supervisor replaces this worker.

        A task that it was handed and has not begun goes to the successor.
        """
        self._done = True
        if not self.interrupted_once:
            self.interrupted_once = True
            self._spec.log(logging.ERROR, "worker %s crashed", self.name, error=error)
        self._move_out(error)
        for task in self.unsettled():
            self.salvage(task, error)
        self._ion_begun = True
        self._stop()

    def unsettled(self) -> list[TaskFuture[Any]]:
        """What an interruption may have left unsettled, the innermost first."""
        below = [one for one, _ in reversed(self.interrupted)]
        found = [self.put_back, self.current, self.telling, *below]
        return [one for one in found if one is not None and one is not self.slot]

    def salvage(self, task: TaskFuture[Any], error: BaseException) -> None:
        """An interruption has kept this worker from settling a task. May be done again."""
        try:
            if task is self.put_back:
                self._mailbox.finish_put_back(task)
                return
            if task._state is RUNNING:
                self._failed(task, error)
        except BaseException:
            self.write_off(task, error)
            raise
        finally:
            del error
        self._let_go(task)

    def write_off(self, task: TaskFuture[Any], error: BaseException) -> None:
        """:meth:`salvage` without any ceremony, if need be by another thread."""
        try:
            if task is self.put_back:
                self._mailbox.finish_put_back(task)
                return
            if task._state is RUNNING:
                task.keep_name()
                shown = panic_error(task.task_name(), self.name, error)
                task.fail(shown, self.tally, Outcome.PANICKED)
        finally:
            del error

    def clean_up(self) -> None:
        """Its thread is gone: do what may block, on another one."""
        for task in self.unsettled():
            task.wake_again()
        try:
            self._runner.stop()
        except BaseException as error:
            self._spec.log(logging.ERROR, "worker %s did not stop cleanly", self.name, error=error)

    def _let_go(self, task: TaskFuture[Any]) -> None:
        """What is left to do for a task that has ended."""
        task.wake_again()
        if task.key is not None:
            self._mailbox.release(task)
        if self.current is task:
            self.current = None
        if self.telling is task:
            self.telling = None

    @override
    def _ion_on_thread_end(self) -> Callable[[Any], object]:
        # C functions only: nothing can be thrown in between. The supervisor does the rest.
        return functools.partial(self._boss.control.bell.put, Envelope(Stopped(self._whole)))

    @override
    def _ion_thread_name(self) -> str:
        return self.name

    def _announce(self, task: TaskFuture[Any]) -> None:
        """Tell the hooks that a task begins."""
        if self._hooks is not None:
            tell_begin(self._hooks, task, self.name, self._mailbox.backlog, self.started_at)

    def _observe(
        self, task: TaskFuture[Any], outcome: Outcome, error: BaseException | None
    ) -> None:
        """Tell the hooks how a task ended."""
        if self._hooks is not None:
            tell_end(self._hooks, task, outcome, error, self._now() - self.started_at)

    def _tell(self, message: object) -> None:
        self._boss.put(Envelope(message))
