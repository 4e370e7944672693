"""A worker on an event loop: a slot without a thread, which runs one task at a time.

::

    woken, on the loop ──▶ take a task ──▶ a coroutine of the loop runs it ──▶ take the next ──▶ …
                               │ nothing                 │ raised
                               ▼                         └──▶ settle it: a panic ends the slot
                             parked                           and not the loop

Each task is an ``asyncio.Task`` of its own, with the task's variables, so that what belongs to the
current task (timeouts, task groups, sessions by task) belongs to this one only. Its coroutine ends
with the outcome: nothing that a task raises reaches the loop, but for a Ctrl-C, which is the
program's. What has to be done outside of the task's variables (hooks, what a raised exception
leads to) is called by the loop in a moment.

All of this happens on the loop, but for what other threads ask: :meth:`LoopWorker.wake`, which
posts, and questions.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import logging
import threading
from collections.abc import Callable, Coroutine, Sequence
from types import CoroutineType
from typing import TYPE_CHECKING, Any
from weakref import ref

from ion_actors.actors import Envelope, Request
from ion_actors.awaitables import PLAIN_TYPES, is_awaitable, running_loop
from ion_actors.backends.stacks import Seen
from ion_actors.backends.stream.producer import refuse_generators
from ion_actors.context import CURRENT, Context, Registration
from ion_actors.errors import ContextEnded
from ion_actors.futures import Future
from ion_actors.raised import is_a
from ion_actors.workerpool.mailbox.protocols import NOT_BEGUN, PARKED, RETIRE, Order
from ion_actors.workerpool.mailbox.task import TaskFuture
from ion_actors.workerpool.messages import Panicked, Ready, StartFailed, Stopped
from ion_actors.workerpool.model.outcomes import Directive, Outcome
from ion_actors.workerpool.worker.failure import panic_error
from ion_actors.workerpool.worker.inbox import outcome_of
from ion_actors.workerpool.worker.loop.actor_host import LoopActorHost
from ion_actors.workerpool.worker.settlement import Settlement, TaskItem, tell_begin, tell_end

if TYPE_CHECKING:
    from ion_actors.backends.stacks import Stack
    from ion_actors.workerpool.model.metrics import Tally
    from ion_actors.workerpool.model.reports import Panic
    from ion_actors.workerpool.worker.actor_host import LetterItem
    from ion_actors.workerpool.worker.loop.team import LoopTeam

__all__ = ["LoopWorker"]

# How many tasks a worker may begin that end at once, before others have the loop.
_TURN = 20

# Seconds for which a dying worker waits for the supervisor's reply. It never blocks.
_REPLY_TIMEOUT = 5.0

WAIT = Order("WAIT")  # there is nothing to do before it is woken again

_NOBODY: list[tuple[TaskFuture[Any] | None, float]] = []  # of all that interrupt nothing


class LoopWorker:
    """See the module. Its supervisor makes it.

    Args:
        team: what it shares with the others.
        index: of its seat; below zero, it stands in for one: it runs one task and leaves.
    """

    __slots__ = (
        "__weakref__", "_cancel_early_me", "_cancelled", "_coroutine", "_done", "_driving",
        "_failure", "_follow_me", "_host", "_lettered", "_registration", "_retired",
        "_settlement", "_task", "_team", "begun", "busy", "current", "enlisted", "has_control",
        "index", "interrupted", "interrupted_once", "left", "name", "parked", "put_back", "ready",
        "slot", "started_at", "tally", "telling",
    )  # fmt: skip

    appointed = True
    thread: threading.Thread | None = None  # nobody is to wait for it: the loop's may be a user's
    pid: int | None = None  # this process

    def __init__(self, team: LoopTeam, index: int) -> None:
        spec = team.spec
        self._team = team
        self.tally: Tally = team.tally  # of all that share the loop
        self.index = index
        self.name = spec.worker_name(index) if index >= 0 else f"{spec.name}-helper"
        self.slot: TaskFuture[Any] | None = None  # handed over, not begun; mailbox's lock
        self.current: TaskFuture[Any] | None = None  # handed over, not ended
        self.started_at = NOT_BEGUN
        self.interrupted = _NOBODY if index >= 0 else []
        self.interrupted_once = False  # the loop has ended under it
        self.put_back: TaskFuture[Any] | None = None  # queued again, no longer this worker's
        self.telling: TaskFuture[Any] | None = None  # it has ended, its callbacks are being run
        self.has_control = False
        self.parked = False  # the mailbox counts it as idle
        self.ready = not spec.must_start or index < 0
        self.begun = self.ready  # it needs no start
        self.left = False
        self.enlisted = False
        self.busy = False  # a coroutine of its own is on the loop
        self._done = False  # it is to stop: a task has taken it down
        self._retired = False  # the supervisor has told it to stop
        self._driving = False  # it is in the middle of taking tasks
        self._lettered = False  # the last thing that it did was to answer a letter
        self._cancelled = False  # its coroutine has been, once
        self._failure: BaseException | None = None  # what its actor is to be told of
        self._task: asyncio.Task[Any] | None = None
        self._coroutine: Coroutine[Any, Any, Any] | None = None
        self._registration: Registration | None = None  # with the context of its task
        self._settlement: Settlement | None = None
        # One object each for all tasks.
        self._follow_me = self._follow
        self._cancel_early_me = self._cancel_early
        self._host = (
            None
            if spec.residence is None or index < 0
            else LoopActorHost(self, team, spec.residence)
        )

    # -- what its supervisor asks ----------------------------------------------------------

    @property
    def inbox(self) -> LoopActorHost:
        """Takes messages for the actor that lives here."""
        assert self._host is not None
        return self._host

    @property
    def gone(self) -> bool:
        """Whether it runs nothing any more."""
        return self.left or self._team.site.is_lost()

    @property
    def doomed(self) -> bool:
        """Whether it stops as soon as its current task is over, and has been replaced."""
        return self._done or self._retired or self.index < 0

    @property
    def dormant(self) -> bool:
        """Whether it has nothing to do and nothing to clean up, so that it may just be let go."""
        return self.parked and self._host is None

    @property
    def starting(self) -> bool:
        """Whether its initializer runs, or what has to be done before the next task."""
        return not self.left and (not self.ready or (self.busy and self.current is None))

    def enlist(self) -> None:
        """Have the mailbox know it, once its supervisor does: from here on it is handed tasks."""
        if self.enlisted:
            return
        team = self._team
        if self.ready and self.index >= 0:
            self.parked = True  # first: it may be woken at once
            if not team.mailbox.park(self, team.tally, first=True):
                self.parked = False
                self.wake()
        else:
            team.mailbox.enlist(team.tally)
        self.enlisted = True

    def start_thread(self) -> None:
        """Begin, on the loop."""
        self.begun = True
        self._team.site.post(self._open)

    def wake(self) -> None:
        """Have it look for work. Any thread may call this, and once too often."""
        self._team.site.post(self.look)

    def retire(self) -> None:
        """Stop as soon as the current task is over; nothing is lost by it."""
        self._retired = True
        self.wake()

    @property
    def keeps_others(self) -> bool:
        """Whether its coroutine has the loop at this moment."""
        coroutine = self._coroutine
        return coroutine is not None and getattr(coroutine, "cr_running", False)

    def where(self) -> Stack:
        """Where its task is. Any thread may ask; nothing is waited for."""
        task = self.current
        if task is not None and task.stream is not None and (text := task.stream.standstill()):
            return Seen(text)
        return self._team.site.where(self._coroutine)

    def fate(self) -> str:
        """How it ended, if it did not end by itself."""
        return f"the event loop of worker {self.name} has ended"

    def abandon(self, where: Stack) -> None:
        """The pool's time is up: nobody may wait for it any longer. Any thread may call this."""
        if self._host is not None:
            self._host.abandon(where)

    def kill(self) -> bool:
        """The pool's time is up: cancel its coroutine once more. That may not end it."""
        self._team.site.post(functools.partial(self.cancel, again=True))
        return False

    def sent_ahead(self) -> Sequence[TaskFuture[Any]]:
        """Nothing: the loop runs all that begins."""
        return ()

    def unsettled(self) -> list[TaskFuture[Any]]:
        """What it has left unsettled, if the loop has ended."""
        found = [self.put_back, self.current, self.telling]
        return [one for one in found if one is not None and one is not self.slot]

    def write_off(self, task: TaskFuture[Any], error: BaseException) -> None:
        """The loop has ended: settle such a task and nothing more."""
        try:
            if task is self.put_back:
                self._team.mailbox.finish_put_back(task)
            else:
                shown = panic_error(task.task_name(), self.name, error, self._team.spec)
                task.fail(shown, self.tally, Outcome.PANICKED)
        finally:
            del error

    def clean_up(self) -> None:
        """The loop has ended: another thread does what may block."""
        for task in self.unsettled():
            task.wake_again()

    # -- on the loop -----------------------------------------------------------------------

    def look(self) -> None:
        """See what there is to do. May be called once too often."""
        if self.parked:
            self.parked = False
            if self.slot is None:
                self._team.mailbox.unpark(self)  # woken for another reason than a task
        self._go_on()

    def _go_on(self) -> None:
        """Take tasks until one is under way, or there is none."""
        if self._driving or self.busy or self.left or self.parked:
            return  # a loop may begin and end a task in here: then this is in the middle of it
        self._driving = True
        try:
            for _ in range(_TURN):
                if self._done or self._retired or self.has_control or self.slot is not None:
                    found: Any = self._next()
                elif self.ready and self.index >= 0:
                    found = self._team.mailbox.take(self)  # the hot path
                else:
                    found = self._next()
                if type(found) is TaskFuture:
                    self._begin(found)
                elif not self._heed(found):
                    return
                if self.busy:
                    return  # type: ignore[unreachable]  # mypy does not see that it may begin
        finally:
            self._driving = False
            found = None  # a task that began and failed in here holds this frame by its error
        self.wake()  # the others have the loop first

    def _next(self) -> TaskFuture[Any] | Order | None:
        """What it is to do, if there is more to think of than the next task. None: look again."""
        if self._done or self._retired or (self.index < 0 and self.slot is None):
            return RETIRE
        if not self.ready:
            return WAIT
        if self.has_control and self._answer_letter():
            return None
        task = self.slot
        if task is not None:
            self.slot = None
            return task
        return self._team.mailbox.take(self)

    def _heed(self, order: Order | None) -> bool:
        """Do what was found instead of a task. Returns whether to look for another one."""
        if order is PARKED:
            self.parked = True
        elif order is RETIRE:
            self._retired = True
            self._leave()
        return order is None

    def _begin(self, task: TaskFuture[Any]) -> None:
        """Run one task to its outcome, which may come later."""
        team = self._team
        self.started_at = team.now()
        self._cancelled = False
        try:
            if team.context._end is not None or task.special:
                task.begin(self.started_at)
            task.follower = self._follow_me
            if task.own_context is not None:
                self._follow(task.own_context)
            if team.hooks is not None:
                tell_begin(team.hooks, task, self.name, team.mailbox.backlog, self.started_at)
        except BaseException as error:
            self._settle(task, error)
            del task  # the error holds this frame
            return
        coroutine = self._perform(task)
        try:
            self._run(coroutine, task.variables)
        except BaseException as error:
            if self._coroutine is not None or not self.busy:
                raise  # it has begun, or the loop is closed
            self._settle(task, error)  # the loop's task factory raised
            if is_a(error, KeyboardInterrupt) and _is_in_main_thread():
                raise
        finally:
            del task, coroutine  # as above

    def _run(self, coroutine: Coroutine[Any, Any, Any], variables: contextvars.Context) -> None:
        """Have the loop run a coroutine of its own, which may end in here."""
        self.busy = True
        self._coroutine = coroutine
        try:
            made = self._team.site.start(coroutine, variables, self._cancel_early_me)
        except BaseException:  # of a closed loop, or of its task factory
            if not (self._team.loop.is_closed() or getattr(coroutine, "cr_frame", None) is None):
                self._coroutine = None  # nothing has begun
            coroutine.close()
            raise
        if self.busy and self._coroutine is coroutine:
            self._task = made
        del coroutine, variables  # if it has failed, its error holds this frame

    async def _perform(self, task: TaskFuture[Any]) -> None:
        """The coroutine of a task: the hot path. Nothing that the task raises leaves it."""
        CURRENT.set(ref(task))  # see enter_task(): this saves a call
        team = self._team
        try:
            if self._cancelled:
                raise asyncio.CancelledError
            if team.wrapped or self._host is not None:
                value = self._call(task)
            elif task.kwargs is not None:
                value = task.fn(*task.args, **task.kwargs)
            else:
                value = task.fn(*task.args)
            if type(value) is CoroutineType or is_awaitable(value):
                value = await value
            if type(value) not in PLAIN_TYPES and team.refuses_generators:
                refuse_generators(value, task.fn)
        except BaseException as error:
            if type(error) is GeneratorExit and not self._runs_now():
                self.write_off(task, error)  # the loop was closed, and this is collected
                raise
            # In a moment: what follows is not the task, and its variables are not its own.
            self._call_soon(self._settle, task, error)
            if is_a(error, KeyboardInterrupt) and _is_in_main_thread():
                raise  # it may be Ctrl-C, which is the program's
        else:
            self._succeed(task, value)
        finally:
            # The traceback of an exception in the future holds this frame: no cycles.
            task = value = team = None  # type: ignore[assignment]

    def _call(self, task: TaskFuture[Any]) -> Any:
        """Call the function of a task as a wrapper wants it, and for the actor that lives here."""
        call = functools.partial(task.fn, *task.args, **(task.kwargs or {}))
        try:
            wrapper = self._team.spec.task_wrapper
            with contextlib.nullcontext() if self._host is None else self._host.at_home():
                return call() if wrapper is None else wrapper(call)()
        finally:
            del task, call

    def _runs_now(self) -> bool:
        """Whether the loop runs the coroutine of this worker at this moment."""
        loop = self._team.loop
        if running_loop() is not loop:
            return False
        # No task yet: this is the first step of one that begins at once.
        return self._task is None or asyncio.current_task(loop) in (self._task, None)

    def _call_soon(self, call: Callable[..., object], *args: Any) -> None:
        self._team.loop.call_soon(call, *args, context=contextvars.Context())

    def _succeed(self, task: TaskFuture[Any], value: Any) -> None:
        if self._team.hooks is not None or task.key is not None:
            self._call_soon(self._complete, task, value)
            return
        if callbacks := task.complete(value, self._team.tally):
            contextvars.Context().run(self.run_callbacks, task, callbacks)
        self._over(task)

    def _complete(self, task: TaskFuture[Any], value: Any) -> None:
        team = self._team
        if team.hooks is not None:
            tell_end(team.hooks, task, Outcome.COMPLETED, None, team.now() - self.started_at)
        self.run_callbacks(task, task.complete(value, team.tally))
        self._over(task)

    def _over(self, task: TaskFuture[Any]) -> None:
        """A task has ended: it is no longer this worker's. Go on."""
        task.follower = None
        if (registration := self._registration) is not None:
            self._registration = None
            registration.remove()
        self.current = self._task = self._coroutine = None
        self.started_at = NOT_BEGUN
        self.busy = False
        if task.key is not None:
            self._leave_key(task)
        del task
        self._go_on()

    def _leave_key(self, task: TaskFuture[Any]) -> None:
        if task is not self.put_back:
            self._team.mailbox.release(task, None if self.doomed else self)
            self.telling = None
        elif not self._done:  # it is tried again, and keeps its key until then
            self.put_back = None

    def run_callbacks(
        self, task: TaskFuture[Any], callbacks: list[Callable[[Any], object]] | None
    ) -> None:
        """Run the callbacks of a task that has ended: it is not current any more."""
        if callbacks or task.key is not None:  # it holds its key yet
            self.telling = task
        self.current = None
        try:
            task._run_callbacks(callbacks)
        except BaseException as error:
            self._hold_off(error)
        if task.key is None:
            self.telling = None

    def _hold_off(self, error: BaseException) -> None:
        """A callback was interrupted, or wants the thread to end: this task has yet to be left."""
        if is_a(error, KeyboardInterrupt) and _is_in_main_thread():
            self._call_soon(_throw, error)  # it may be Ctrl-C, which is the program's
        else:
            self._team.spec.log(
                logging.ERROR, "a callback raised on the event loop, which goes on", error=error
            )

    # -- the end of contexts -----------------------------------------------------------------

    def _follow(self, context: Context) -> None:
        """The current task has got a context: cancel the coroutine when it ends."""
        site = self._team.site
        if (task := self.current) is None:
            return
        cancel = functools.partial(self._cancel_task, task)
        self._registration = context.add_callback(functools.partial(site.post, cancel))

    def _cancel_task(self, task: TaskFuture[Any]) -> None:
        if self.current is task:
            self.cancel()

    def cancel(self, *, again: bool = False) -> None:
        """Cancel what runs here. Once: a second time would end what it does about the first."""
        if self._task is not None and (again or not self._cancelled):
            self._cancelled = True
            self._task.cancel()

    def _cancel_early(self) -> None:
        """Its coroutine was cancelled before it has begun: it is to end at once."""
        self._cancelled = True

    # -- what has raised: see ion_actors.workerpool.worker.settlement ------------------------

    def _settle(self, task: TaskFuture[Any], error: BaseException) -> None:
        """A task has raised this."""
        try:
            item = TaskItem(task, self._team.spec, self._team.mailbox, self)
            self._settler().settle(item, error)
            if task.key is None and not self._done:
                self.put_back = None  # it waits for another try
        finally:
            item = error = None  # type: ignore[assignment]
            self._over(task)

    def letter_raised(self, item: LetterItem, error: BaseException) -> None:
        """A letter has raised: settle it, as a task that raised this."""
        try:
            self._settler().settle(item, error)
        finally:
            item = error = None  # type: ignore[assignment]

    def _settler(self) -> Settlement:
        if self._settlement is None:
            self._settlement = Settlement(self._team.spec, self)
        return self._settlement

    @property
    def returning(self) -> LoopWorker | None:
        """It may put back a task that took it down: a successor runs it."""
        return self if self.index >= 0 else None

    def doom(self) -> None:
        """What it ran has panicked: it begins nothing more, and stops."""
        self._done = True

    def report(self, name: str, error: BaseException, directive: Directive) -> Panic | None:
        """Tell the supervisor of the panic, and wait for its reply: by then it has acted."""
        self._done = True
        try:
            if self._host is not None:
                self._failure = error
                self._host.announce_leaving()  # its successor waits for that
            reply: Future[Panic] = Future()
            self._team.boss.put(Envelope(Request(Panicked(self, name, error, directive), reply)))
            return outcome_of(reply, _REPLY_TIMEOUT)
        except BaseException as fault:
            # Without a reply: the pool has ended meanwhile.
            self._team.spec.log(logging.DEBUG, "no reply from the supervisor", error=fault)
            return None
        finally:
            del error

    # -- its life, and the actor that lives in it -----------------------------------------------

    def _open(self) -> None:
        if not self.busy:
            self._run(self._opening(), contextvars.Context())

    async def _opening(self) -> None:
        """Run the initializer, and have the actor move in."""
        spec = self._team.spec
        try:
            if self._cancelled:
                raise asyncio.CancelledError
            if self._host is not None:
                await self._host.open()
            elif spec.initializer is not None:
                value: Any = spec.initializer(*spec.initargs)
                if is_awaitable(value):
                    await value
        except BaseException as error:
            if not ((is_a(error, ContextEnded) or self._cancelled) and spec.context.cancelled):
                self._team.tell(StartFailed(self, error))
            self._done = True
        else:
            self.ready = True
            self._team.tell(Ready(self))
        self._call_soon(self._idle)

    def _idle(self) -> None:
        """A coroutine of its own that was no task has ended."""
        self._task = self._coroutine = None
        self.busy = self._cancelled = False
        self._go_on()

    def _answer_letter(self) -> bool:
        """Have the actor answer the next letter, unless it is a task's turn."""
        assert self._host is not None
        if self._lettered:
            self._lettered = False
            self.has_control = False  # to take a task; then it is set again
            try:
                if self.slot is None:
                    found: Any = self._team.mailbox.take(self)
                    if type(found) is TaskFuture:
                        self.slot = found
                    elif found is PARKED:
                        self._team.mailbox.unpark(self)
            finally:
                self.has_control = True
            if self.slot is not None:
                return False
        self.has_control = False  # first: what is put from here on sets it again
        letter = self._host.next_letter()
        if self._host.has_letters():
            self.has_control = True
        if letter is not None:
            self._lettered = True
            self._run(self._answering(letter), letter.variables)
        return True

    async def _answering(self, letter: Any) -> None:
        assert self._host is not None
        await self._host.deliver(letter)
        self._call_soon(self._idle)

    def stop_with_actor(self) -> None:
        """The actor has stopped itself."""
        self._retired = True
        self.wake()

    def _leave(self) -> None:
        """Go, once the actor has left."""
        if self._host is not None and self._host.lives:
            self._cancelled = True  # nobody is to keep it from that
            self._run(self._leaving(), contextvars.Context())
        else:
            self._gone()

    async def _leaving(self) -> None:
        assert self._host is not None
        failure, self._failure = self._failure, None
        try:
            await self._host.leave(failure)
        finally:
            del failure
        self._call_soon(self._left_by_actor)

    def _left_by_actor(self) -> None:
        self._task = self._coroutine = None
        self.busy = False
        self._gone()

    def _gone(self) -> None:
        if self._host is not None:
            self._host.close()
        self.left = True
        self._team.tell(Stopped(self))


def _throw(error: BaseException) -> None:
    raise error


def _is_in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
