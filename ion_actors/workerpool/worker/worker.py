"""The worker: an actor that runs one task at a time, and lets nothing out.

::

    inbox ──RUN──▶ run the task in the slot ──▶ take the next ──▶ … ──▶ parked, or stopped
                          │ panic
                          └──▶ tell the supervisor ──▶ settle the future ──▶ stop

A worker without an initializer has no thread until there is something for it: whoever wakes it for
the first time has the supervisor start one. That is one message and no waiting, so a signal handler
or a finalizer may do it. The supervisor handles a thread that cannot be started.

Whatever a task, a hook or a callback raises ends here: as the outcome of the task, in the log, or,
if it is none of those (a bug, or an exception thrown into the thread), as this worker's own end:
see :mod:`ion_actors.actors`. If its thread ends from outside, the supervisor does what is left.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures._base import RUNNING
from typing import Any, cast

import pykka
from typing_extensions import override

from ion_actors.actors import Envelope, IsolatedActor, Request
from ion_actors.awaitables import PLAIN_TYPES, Kind, kind_of
from ion_actors.backends.protocol import NotReady, Runner, Traceable
from ion_actors.backends.stacks import Seen, Stack, stack_of
from ion_actors.backends.stream.producer import refuse_generators
from ion_actors.context import Context, of_thread
from ion_actors.errors import ContextEnded
from ion_actors.futures import Future
from ion_actors.futures.callbacks import are_quick
from ion_actors.raised import is_a
from ion_actors.workerpool.mailbox.mailbox import Mailbox
from ion_actors.workerpool.mailbox.protocols import NOT_BEGUN, PARKED, Order
from ion_actors.workerpool.mailbox.task import TaskFuture, run_callbacks_in_thread
from ion_actors.workerpool.messages import Needed, Panicked, Ready, StartFailed, Stopped
from ion_actors.workerpool.model.metrics import Tally
from ion_actors.workerpool.model.outcomes import Directive, Outcome
from ion_actors.workerpool.model.reports import Panic
from ion_actors.workerpool.spec import PoolSpec
from ion_actors.workerpool.worker.actor_host import ActorHost, LetterItem
from ion_actors.workerpool.worker.ahead import look_ahead
from ion_actors.workerpool.worker.failure import classify, panic_error
from ion_actors.workerpool.worker.inbox import (
    Letter,
    Run,
    SupervisorInbox,
    WorkerInbox,
    outcome_of,
)
from ion_actors.workerpool.worker.nested_waits import WorkersHelp
from ion_actors.workerpool.worker.settlement import Settlement, TaskItem, tell_begin, tell_end
from ion_actors.workerpool.worker.task_wrapper import call_wrapped

__all__ = ["PoolWorker", "current_worker"]

_of_thread = threading.local()

_RESULT = Kind.RESULT

# How long a dying worker waits for the supervisor's reply before it goes on without it. The
# supervisor never blocks, so this is only reached when something is badly wrong.
_REPLY_TIMEOUT = 5.0


def current_worker() -> PoolWorker | None:
    """The worker that the calling thread is, if it is one."""
    return getattr(_of_thread, "worker", None)


class PoolWorker(IsolatedActor):
    """A worker of a pool. Its supervisor makes it and starts it.

    It is not in pykka's registry: it is a part of its pool, which is.
    """

    _ion_inbox = WorkerInbox
    _ion_future = Future

    appointed = True
    keeps_others = False  # each has a thread

    def __init__(self, spec: PoolSpec, mailbox: Mailbox, boss: SupervisorInbox, index: int) -> None:
        super().__init__()
        self.name = spec.worker_name(index)
        self.index = index
        self.tally = Tally()
        self.slot: TaskFuture[Any] | None = None  # handed over, not begun; mailbox's lock
        self.current: TaskFuture[Any] | None = None  # handed over, not ended
        self.started_at = NOT_BEGUN  # when the current task began
        self.interrupted: list[tuple[TaskFuture[Any] | None, float]] = []  # see run_nested()
        self.put_back: TaskFuture[Any] | None = None  # queued again, no longer this worker's
        self.ahead: deque[TaskFuture[Any]] = deque()  # handed over, to come after the current one
        self.telling: TaskFuture[Any] | None = None  # it has ended, its callbacks are being run
        self.interrupted_once = False  # by something that was thrown into its thread
        self._spec = spec
        self._mailbox = mailbox
        self._boss = boss
        self._now = spec.context.clock.monotonic
        self._pool_context = spec.context
        self._hooks = spec.hooks
        self._settlement = Settlement(spec, self)
        self._done = False  # it is to stop
        self._failure: BaseException | None = None  # what its resident is to be told of
        self.has_control = False
        self.ready = not spec.must_start
        self.thread: threading.Thread | None = None
        self.begun = False  # its thread was asked for; the supervisor's to write
        self._retired = False  # the supervisor has told it to stop
        self.left = False  # it has: its thread is about to end
        self._runner = spec.backend.make_runner(self.name, spec.context, spec.log)
        self._instead = self._how_to_call(spec)
        self._take = self._how_to_take(spec)
        self.inbox = cast("WorkerInbox", self.actor_inbox)
        self.inbox.bind(self, mailbox)
        #: Have it look for work: see :class:`ion_actors.workerpool.mailbox.protocols.Taker`.
        self.wake: Callable[[], None] = self.inbox.wake
        self._actor_host = None if spec.residence is None else ActorHost(self, spec, spec.residence)
        if self.ready:
            self.wake = self._wake_first  # before it is parked: then it may be woken
        self.enlisted = False  # the mailbox knows it

    def enlist(self) -> None:
        """Have the mailbox know it, once its supervisor does: from here on it is handed tasks."""
        if self.enlisted:
            return
        if self.ready:
            self.inbox.parked = self._mailbox.park(self, self.tally)
        else:
            self._mailbox.enlist(self.tally)
        self.enlisted = True

    def _how_to_call(self, spec: PoolSpec) -> Callable[[TaskFuture[Any]], Any] | None:
        """How to run a task, unless by plainly calling its function."""
        if spec.task_wrapper is not None:
            return functools.partial(call_wrapped, spec.task_wrapper, self._runner)
        return None if self._runner.inline else self._runner.call

    def _how_to_take(
        self, spec: PoolSpec
    ) -> Callable[[PoolWorker], TaskFuture[Any] | Order | None]:
        """How to come to the next task, unless by asking the mailbox."""
        if self._runner.inline:
            return self._mailbox.take
        found = look_ahead(self._runner, self, self._item, self.tally, self._mailbox, spec)
        return self._mailbox.take if found is None else found.next

    def sent_ahead(self) -> Sequence[TaskFuture[Any]]:
        """The tasks that were sent before their turn."""
        return self.ahead.copy()

    def _wake_first(self) -> None:
        """Wake it when it may have no thread yet. Once too often does no harm."""
        self.inbox.wake()
        self._tell(Needed(self))

    @property
    def dormant(self) -> bool:
        """Whether it has no thread, and needs none until it is woken."""
        return self.inbox.parked and not self.begun

    @property
    def gone(self) -> bool:
        """Whether its thread has ended, or is about to."""
        return self.left or (self._ion_thread is not None and self._ion_thread.over)

    def start_thread(self) -> None:
        """Begin; pykka's own ``start`` would make another actor, and register it.

        Raises:
            RuntimeError, MemoryError, OSError: there can be no more threads.
        """
        self.wake = self.inbox.wake
        try:
            self._ion_start_thread()
        finally:  # also if this was interrupted: it must not be started twice
            if (thread := self._ion_thread) is not None:
                self.thread = thread
                self.begun = True

    # -- life ------------------------------------------------------------------------------

    @override
    def on_start(self) -> None:
        """Run the initializer, in this worker's thread."""
        self.thread = threading.current_thread()
        _of_thread.worker = self
        of_thread.task_context = self._task_context
        of_thread.helper = WorkersHelp(self, self._mailbox, self._spec)
        of_thread.report = self._report
        of_thread.task_name = self._name_of_task
        if self.ready:
            return
        try:
            if self._actor_host is not None:
                self._actor_host.open()
            else:
                self._runner.start(self._spec.initializer, self._spec.initargs)
        except BaseException as error:
            if not (is_a(error, ContextEnded) and self._pool_context.cancelled):
                self._tell(StartFailed(self, error))
            self.stop()
        else:
            self.ready = True
            self._tell(Ready(self))

    @override
    def on_stop(self) -> None:
        """Leave. The loop calls this last, in this worker's thread."""
        self._move_out(None)
        try:
            self._runner.stop()
        except BaseException as error:
            self._spec.log(logging.ERROR, "worker %s did not stop cleanly", self.name, error=error)
        _of_thread.worker = of_thread.task_context = of_thread.helper = None
        of_thread.report = of_thread.task_name = None
        self.left = True
        self._tell(Stopped(self))

    def _task_context(self) -> Context | None:
        task = self.current
        return None if task is None else task.task_context()

    def _name_of_task(self) -> str:
        task = self.current
        return "initializer" if task is None else task.task_name()

    def _report(self, fraction: float, message: str) -> None:
        if (task := self.current) is not None:
            task._report(fraction, message)

    def _move_out(self, error: BaseException | None) -> None:
        """Have the actor that lives here leave before the next one moves in."""
        if self._actor_host is None:
            return
        self._failure = error if self._failure is None else self._failure
        if not self.interrupted:
            of_thread.task_context = None  # its hooks are not the task
            self._actor_host.leave(self._failure)
            self._failure = None

    @override
    def _ion_thread_name(self) -> str:
        return self.name

    def _tell(self, message: object) -> None:
        self._boss.put(Envelope(message))

    # -- work ------------------------------------------------------------------------------

    @override
    def on_receive(self, message: Any) -> None:
        """Run the task in the slot and then all that the mailbox has."""
        if isinstance(message, Run):
            self._work()
        else:
            self._on_letter(message)

    def _on_letter(self, message: Any) -> None:
        if isinstance(message, Letter) and self._actor_host is not None:
            self._actor_host.deliver(message)
        else:
            self._spec.log(logging.WARNING, "worker %s does not know %r", self.name, message)

    def _work(self) -> None:
        take = self._take
        found: Any = self.slot
        self.slot = None
        # Not `while <condition>`: CPython 3.11 does not specialise a loop that jumps back by one.
        while True:
            if type(found) is not TaskFuture:
                return
            try:
                self._perform(found)
            finally:
                if found.key is not None:
                    self._leave_key(found, comes=True)
            self.current = found = None  # nothing may hold a settled task while we are parked
            self.started_at = NOT_BEGUN
            if self._done and not self.ahead:
                return
            found = take(self)
            if found is PARKED:
                found = self.inbox.sleep()  # here: pykka's loop would only lead back

    def run_nested(self, task: TaskFuture[Any], claim: Callable[[], bool]) -> bool:
        """Run a task in the middle of another one, if the mailbox hands it over.

        Args:
            task: which one.
            claim: has it handed over. It may be interrupted at any point, as this may.

        Returns:
            Whether it was.
        """
        depth = len(self.interrupted)
        try:
            if not claim():
                return False
            with self._runner.on_top():
                self._perform(task)
            return True
        except BaseException as error:  # thrown in from outside
            if len(self.interrupted) > depth:
                self.salvage(task, error)
            raise
        finally:
            try:
                self._come_back(task, depth)
            except BaseException:  # the same
                self._come_back(task, depth)
                raise
            finally:
                del task, claim

    def _come_back(self, task: TaskFuture[Any], depth: int) -> None:
        """Go on with the task that was interrupted. May be done again."""
        if len(self.interrupted) > depth:
            if task.key is not None:
                self._leave_key(task, comes=False)
            self.current, self.started_at = self.interrupted[-1]
            of_thread.task_context = self._task_context
            self.interrupted.pop()  # last: whoever looks must find the task in one of the two

    def retire(self) -> None:
        """Stop as soon as the current task is over; nothing is lost by it."""
        self._retired = True
        with contextlib.suppress(pykka.ActorDeadError):  # it was about to stop anyway
            self.stop()

    @override
    def stop(self) -> None:
        """Stop after what its inbox has, unless it has stopped."""
        if not self.actor_stopped.is_set():
            super().stop()

    def where(self) -> Stack:
        """Where it is. Any thread may ask; nothing is waited for."""
        task, runner = self.current, self._runner
        if task is not None and task.stream is not None and (text := task.stream.standstill()):
            return Seen(text)
        return runner.where(self.thread) if isinstance(runner, Traceable) else stack_of(self.thread)

    @property
    def starting(self) -> bool:
        """Whether what it runs its tasks in is being started, or its initializer runs."""
        if not self.ready:
            return not self.gone
        return isinstance(self._runner, Traceable) and self._runner.starting

    @property
    def pid(self) -> int | None:
        """The process in which its tasks run; None for this one, or if there is none now."""
        return self._runner.pid if isinstance(self._runner, Traceable) else None

    def fate(self) -> str:
        """How it ended, if it did not end by itself."""
        return f"the thread of worker {self.name} was ended from outside"

    def abandon(self, where: Stack) -> None:
        """The pool's time is up: nobody may wait for it any longer. Any thread may call this."""
        if self._actor_host is not None:
            self._actor_host.abandon(where)

    def kill(self) -> bool:
        """End what it runs, if it runs elsewhere. Returns whether it does; it soon stops then."""
        return self._runner.kill()

    @property
    def runner(self) -> Runner:
        """Where what it is given runs."""
        return self._runner

    @property
    def doomed(self) -> bool:
        """Whether it stops as soon as its current task is over, and has been replaced."""
        return self._done or self._retired

    def _perform(self, task: TaskFuture[Any]) -> None:  # noqa: C901 - each check saves a call
        """Run one task to its outcome."""
        # The hot path: what is not needed for every task is behind a check.
        self.started_at = self._now()
        try:
            if self._pool_context._end is not None or task.special:
                task.begin(self.started_at)
            if self._hooks is not None:
                begun = self.name, self._mailbox.backlog, self.started_at
                tell_begin(self._hooks, task, *begun)
            if self._instead is not None:
                value = self._instead(task)
            elif task.kwargs is not None:
                value = task.variables.run(task.fn, *task.args, **task.kwargs)
            elif task.args:
                value = task.variables.run(task.fn, *task.args)
            else:  # to unpack nothing takes longer than the call
                value = task.variables.run(task.fn)
            if type(value) not in PLAIN_TYPES and (kind := kind_of(value)) is not _RESULT:
                value = self._result_of(task, value, kind)
        except BaseException as error:
            self._failed(task, error)
        else:
            if self._hooks is not None:
                took = self._now() - self.started_at
                tell_end(self._hooks, task, Outcome.COMPLETED, None, took)
            if callbacks := task.complete(value, self.tally):
                self.run_callbacks(task, callbacks)
        finally:
            # The traceback of an exception in the future holds this frame: no cycles.
            task = value = None  # type: ignore[assignment]

    def _result_of(self, task: TaskFuture[Any], value: Any, kind: Kind) -> Any:
        """The result of a task that returned a coroutine; a generator is refused."""
        try:
            if kind is Kind.COROUTINE:
                value = self._runner.finish(value, task.task_context(), task.variables)
            if self._spec.dialect.refuses_generators:
                refuse_generators(value, task.fn)
            return value
        finally:
            del task, value  # an error's traceback holds this frame

    def run_callbacks(
        self, task: TaskFuture[Any], callbacks: list[Callable[[Any], object]] | None
    ) -> None:
        """Run the callbacks of a task that has ended: it is not current any more."""
        if self.ahead and callbacks and not are_quick(callbacks):
            # They may block, or even wait for what is ahead here.
            run_callbacks_in_thread([(task, callbacks)])
            callbacks = None
        if callbacks or task.key is not None:  # it holds its key yet
            self.telling = task
        self.current = None  # they are not the task: its context is not theirs
        task._run_callbacks(callbacks)
        if task.key is None:
            self.telling = None

    def _leave_key(self, task: TaskFuture[Any], *, comes: bool) -> None:
        """This worker is done with a task that has a key."""
        if task is not self.put_back:
            self._mailbox.release(task, self if comes else None)
            if not task._built_callbacks:  # else it was interrupted while it ran them
                self.telling = None
        elif not self._done:  # it is tried again, and keeps its key until then
            self.put_back = None

    # -- what has raised: see ion_actors.workerpool.worker.settlement ------------------------

    def _failed(self, task: TaskFuture[Any], error: BaseException) -> None:
        try:
            if type(error) is NotReady:
                self._hand_back(task, error)
            else:
                self._settlement.settle(self._item(task), error)
                if task.key is None and not self._done:
                    self.put_back = None  # it waits for another try
        finally:
            task = error = None  # type: ignore[assignment]
        if self._done:
            self.stop()

    def letter_raised(self, item: LetterItem, error: BaseException) -> None:
        """A letter has raised: settle it, as a task that raised this."""
        try:
            if type(error) is NotReady:
                item.refuse(error)
                self._give_up(error)
            else:
                self._settlement.settle(item, error)
        finally:
            item = error = None  # type: ignore[assignment]
        if self._done:
            self.stop()

    def _item(self, task: TaskFuture[Any]) -> TaskItem:
        return TaskItem(task, self._spec, self._mailbox, self)

    def _hand_back(self, task: TaskFuture[Any], error: NotReady) -> None:
        """There is nothing to run the task in: this worker has failed, and not the task."""
        self._give_up(error)
        try:
            if self._mailbox.put_back(task, self, begun=False):
                return
            # The pool is at its end, or somebody else has ended it.
            item = self._item(task)
            ended = self._pool_context._error()
            self._settlement.conclude(item, error, classify(item, ended, self._spec))
        finally:
            item = ended = task = error = None  # type: ignore[assignment]

    def _give_up(self, error: NotReady) -> None:
        """There is nothing to run anything in. It is to stop."""
        self._done = True
        cause = error if error.__cause__ is None else error.__cause__
        self._tell(StartFailed(self, cause))

    @property
    def returning(self) -> PoolWorker:
        """It may put back a task that took it down: a successor runs it."""
        return self

    def doom(self) -> None:
        """What it ran has panicked: it begins nothing more, and stops."""
        self._done = True

    def report(self, name: str, error: BaseException, directive: Directive) -> Panic | None:
        """Tell the supervisor of the panic, and wait for its reply: by then it has acted."""
        self._done = True
        try:
            self._move_out(error)
            return self._ask(Panicked(self, name, error, directive))
        finally:
            del error

    def _ask(self, message: Panicked) -> Panic | None:
        reply: Future[Panic] = Future()
        self._boss.put(Envelope(Request(message, reply)))
        try:
            return outcome_of(reply, _REPLY_TIMEOUT)
        except BaseException as error:
            # Without a reply: the pool has ended meanwhile.
            self._spec.log(logging.DEBUG, "no reply from the supervisor", error=error)
            return None

    # -- what comes from outside, between any two steps ---------------------------------------

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
        self._ion_stop()

    def unsettled(self) -> list[TaskFuture[Any]]:
        """What an interruption may have left unsettled, the innermost first."""
        below = [one for one, _ in reversed(self.interrupted)]
        found = [self.put_back, self.current, self.telling, *below, *self.ahead.copy()]
        return [one for one in found if one is not None and one is not self.slot]

    def salvage(self, task: TaskFuture[Any], error: BaseException) -> None:
        """An interruption has kept this worker from settling a task. May be done again."""
        try:
            if task is self.put_back or self._came_back(task):
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
        """Settle such a task and nothing more; another thread may have to do this."""
        try:
            if task is self.put_back or self._came_back(task):
                self._mailbox.finish_put_back(task)
                return
            if task._state is RUNNING:
                shown = panic_error(task.task_name(), self.name, error, self._spec)
                task.fail(shown, self.tally, Outcome.PANICKED)
        finally:
            del error

    def _came_back(self, task: TaskFuture[Any]) -> bool:
        """Whether it was ahead, and has been given back."""
        return task in self.ahead and not task.sent

    def clean_up(self) -> None:
        """Its thread is gone: another one does what may block."""
        for task in self.unsettled():
            task.wake_again()
        try:
            self._runner.stop()
        except BaseException as error:
            self._spec.log(logging.ERROR, "worker %s did not stop cleanly", self.name, error=error)

    def _let_go(self, task: TaskFuture[Any]) -> None:
        """Do what is left to do for a task that has ended."""
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
        return functools.partial(self._boss.control.bell.put, Envelope(Stopped(self)))
