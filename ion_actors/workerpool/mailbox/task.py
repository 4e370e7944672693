"""A task in a pool: the future that its submitter holds, and the call until it is made.

One object, not two: it is made for every submission, and waits in the mailbox by the million. What
belongs to the call is dropped as soon as the outcome is known, so that a future that is kept does
not keep its arguments alive.

Who may end a task is settled by two locks, always taken in this order: the mailbox's (is it still
queued?), then the future's own (has it ended?).
"""

from __future__ import annotations

import contextvars
import copy
import itertools
from collections.abc import Callable, Hashable
from concurrent.futures._base import CANCELLED_AND_NOTIFIED, FINISHED, PENDING, RUNNING
from types import FunctionType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ion_actors.backends.stream.conduit import Conduit
from ion_actors.context import Context, Helper, Registration
from ion_actors.delivery import run_elsewhere
from ion_actors.errors import (
    Cancelled,
    ContextEnded,
    DeadlineExceeded,
    DeadlockError,
    IonError,
    TaskDropped,
    TaskExpired,
)
from ion_actors.futures import Future
from ion_actors.futures.callbacks import Callbacks
from ion_actors.naming import describe, printable
from ion_actors.own_variables import own_values
from ion_actors.raised import add_note, is_a
from ion_actors.workerpool.hooks import Ending
from ion_actors.workerpool.mailbox.deadlines import Deadlines
from ion_actors.workerpool.model.metrics import Tally
from ion_actors.workerpool.model.outcomes import DropReason, Outcome
from ion_actors.workerpool.model.reports import WorkerDeath
from ion_actors.workerpool.model.retry import PastTries
from ion_actors.workerpool.task_options import PLAIN, TaskTerms

if TYPE_CHECKING:
    import asyncio

    from ion_actors.observe import Span

__all__ = ["Home", "TaskFuture", "on_context_end", "run_callbacks_in_thread"]

T = TypeVar("T")
_Callbacks = Callbacks | None

_TICKETS = itertools.count(1)


class Home(Protocol):
    """What a task, and whoever waits for it, needs of the mailbox that it was submitted to."""

    name: str  # the pool's
    limit: int  # how many tasks may wait
    size: int  # how many workers there are to be
    context: Context  # the pool's
    deadlines: Deadlines[Any]  # of its tasks
    loop: asyncio.AbstractEventLoop | None  # on which all workers share one thread, if they do
    interrupted: bool  # by Ctrl-C: errors that nobody reads are no news

    @property
    def helper(self) -> Helper | None:
        """How the tasks there wait for each other."""
        ...

    @property
    def backlog(self) -> int:
        """Tasks that wait now."""
        ...

    @property
    def refuses(self) -> bool:
        """Whether nothing is accepted any more."""
        ...

    def withdraw(self, task: TaskFuture[Any], error: IonError, *, elsewhere: bool = False) -> bool:
        """End a task that is still queued. Returns whether it was."""
        ...

    def fence(
        self, task: TaskFuture[Any], error: IonError, call: tuple[Any, ...] = ()
    ) -> list[Any] | None:
        """End a running task without its worker. Returns the callbacks, to be run by the caller."""
        ...

    def holders(self, task: TaskFuture[Any]) -> tuple[TaskFuture[Any], ...]:
        """The tasks of its key that run, if this one waits for room among them."""
        ...


class TaskFuture(Future[T]):
    """The future of a task that was submitted to a pool."""

    # Set for every task, by Submitter._new_task().
    fn: Callable[..., T]  # its name, once it has been dropped
    args: tuple[Any, ...]
    kwargs: dict[str, Any] | None
    variables: contextvars.Context
    mailbox: Home

    # Only for those that differ.
    own_context: Context | None = None  # made at submission or on demand: see task_context()
    terms: TaskTerms = PLAIN
    expires_at: float | None = None  # the moment when its ttl is over, once it is accepted
    due: float | None = None  # when its time comes, as long as it has not
    past_tries: PastTries | None = None  # of the tries before this one
    born_at = 0.0  # when it was accepted, or its delay is over; only if it may be tried again
    key: Hashable | None = None  # a Key: see ion_actors.keys
    _registration: Registration | None = None  # with its context, while it can end early
    fenced = False  # ended by another than its worker, whose late result is to be ignored
    counted = False  # as ended, though its future may not say so yet
    withdrawn = False  # left the queue before its turn; its place may still be there
    admitted = False  # to the mailbox, after a wait; its submitter may not have woken yet
    _ended_by: Cancelled | DropReason | None = None  # it was cancelled before it ran
    _spare: contextvars.Context | None = None  # the variables for the next try, if there may be one
    history: tuple[WorkerDeath, ...] = ()  # the workers that it took down
    follower: Callable[[Context], object] | None = None  # is told of a context that it gets late
    stream: Conduit | None = None  # what it yields goes there
    sent = False  # to where it will run, before its turn; its runner looks after its context
    special = False  # any of the above or below, or a context of the submitter's
    accepted_at = 0.0  # only with hooks
    queued_at: float | None = None  # only if it was not handed to a worker at once
    span: Span | None = None  # only with hooks
    _told = False  # only with hooks: they know how it ended

    @property
    def given_name(self) -> str | None:
        """Its name, if its submitter has given it one."""
        return self.terms.name

    @property
    def ranked(self) -> bool:
        """Whether it has a priority or a key."""
        return self.terms.ranked

    @property
    def timed(self) -> bool:
        """Whether it has a delay, or may be tried again."""
        return self.terms.timed

    @property
    def priority(self) -> int:
        """The more, the sooner."""
        return self.terms.priority

    @property
    def key_limit(self) -> int:
        """How many of its key may run while it does, itself included."""
        return self.terms.key_limit

    def task_name(self) -> str:
        """Its name, for errors and logs."""
        return self._function_name() if self.given_name is None else self.given_name

    def _function_name(self) -> str:
        fn: Any = self.fn
        return fn if type(fn) is str else describe(fn)

    @property
    def ticket(self) -> int:
        """Its number among the tasks that somebody has looked at; given when first asked for."""
        found: int = self.__dict__.setdefault("_ticket", next(_TICKETS))
        return found

    def has_ticket(self, number: int) -> bool:
        """Whether that is its number."""
        return self.__dict__.get("_ticket") == number

    @property
    def released(self) -> bool:
        """Whether its call has been dropped: then only the name of its function is left of it."""
        fn: object = self.fn
        return type(fn) is str

    def cancel(self) -> bool:
        """Cancel the task.

        If it is still queued, it leaves the mailbox at once, and this returns True. If it is
        running, it is asked to stop: its context ends, and this returns False.
        """
        if self.done():  # which looks for a fork, too
            return self.cancelled()
        name = self.task_name()
        why = f"the future of task {name!r} was cancelled"
        if self.mailbox.withdraw(self, Cancelled(why, task=name)):
            return True
        if not self.done():
            self.task_context().cancel(why)
        return self.cancelled()

    def task_context(self) -> Context:
        """The context that the task runs under; made now, if nobody has asked for it before."""
        if self.own_context is None:
            made: Context = object.__new__(Context)
            made._clock = self.mailbox.context.clock
            made._inherit((self.mailbox.context,), None)
            with self._lock:
                self.special = True
                if self.own_context is None:
                    self.own_context = made
            if self.follower is not None:
                self.follower(self.own_context)
        return self.own_context

    def report_progress(self, fraction: float, message: str) -> None:
        """Take the progress that it reports."""
        self._report(fraction, message)

    def helper(self) -> Helper | None:
        """How its waits are handled, if it shares its thread with others."""
        return self.mailbox.helper

    def _refuse_to_block(self, loop: asyncio.AbstractEventLoop, timeout: float | None) -> None:
        if loop is self.mailbox.loop and timeout != 0:
            raise DeadlockError(
                f"task {self.task_name()!r} runs on the event loop that this wait would block: "
                "write `await future`, and not `future.result()`",
                tasks=(self.task_name(),),
            )

    def _cancelled_error(self) -> Cancelled:
        # A new one each time: those that are raised gather frames.
        if self._ended_by is DropReason.CLOSED:
            return self.closed_error()
        if isinstance(self._ended_by, Cancelled):
            return copy.copy(self._ended_by)
        return Cancelled("the future was cancelled", task=self.task_name())

    def _describe(self) -> str:
        return f"task {self.task_name()!r}"

    def __repr__(self) -> str:
        return self._shown_as(f"TaskFuture {printable(self.task_name())!r}")

    def _home(self) -> Home:
        return self.mailbox

    def begin_limits(self, clock: Callable[[], float]) -> None:
        """The task is accepted: its own time limits count from now, or the end of its delay."""
        terms = self.terms
        if not (terms.timed or terms.ttl is not None or terms.limit is not None):
            return
        start = clock()
        if terms.timed:
            due = terms.at if terms.delay is None else start + terms.delay
            self.due = due if due is not None and due > start else None
            self.born_at = start = start if self.due is None else self.due
        if terms.ttl is not None:
            self.expires_at = start + terms.ttl
        if terms.limit is not None and self.own_context is not None:
            self.own_context.limit_to(start + terms.limit)

    def next_limit(self) -> float | None:
        """The moment at which the next of its time limits ends it; None if none does any more."""
        state = self._state
        if not (state is PENDING or state is RUNNING) or self.variables is _RELEASED_VARS:
            return None
        limit = None if state is RUNNING else self.expires_at
        if self.terms.limit is not None and self.own_context is not None:
            deadline = self.own_context._deadline
            if limit is None or (deadline is not None and deadline < limit):
                return deadline
        return limit

    def come_back(self) -> None:
        """It was handed over, and is queued after all: its ``ttl`` counts."""
        if self.expires_at is not None:
            self.mailbox.deadlines.add(self, self.expires_at)

    def end_in_time(self) -> None:
        """One of its time limits has passed. On the clock's thread; once more does no harm."""
        limit = self.next_limit()
        if limit is not None and limit == self.expires_at:
            self.mailbox.withdraw(self, self._expired(), elsewhere=True)
        elif self.own_context is not None and self.own_context.cancelled:
            on_context_end(self)

    def _expired(self) -> TaskExpired:
        name, ttl = self.task_name(), self.terms.ttl or 0.0
        return TaskExpired(
            f"task {name!r} was dropped: it waited in the queue for more than {ttl:.3g} s",
            task=name, why=DropReason.EXPIRED, ttl=ttl,
        )  # fmt: skip

    def begin(self, now: float) -> None:
        """It was handed to a worker, and is about to run, unless it was sent ahead.

        Raises:
            Cancelled, DeadlineExceeded: its context has ended.
            TaskExpired: it has waited for too long, and its timer is late.
        """
        home, context = self.mailbox.context, self.own_context
        if context is not None:
            deadline = context._deadline
            if (
                home._end is not None
                or context._end is not None
                or (deadline is not None and now >= deadline)
                or len(context._parents) != 1
                or context._parents[0] is not home
            ):
                self._check_context()
        elif home._end is not None:
            self._check_context()
        if self.expires_at is None:
            return
        if self.mailbox.deadlines.exact:
            self.mailbox.deadlines.look_again()
        if now >= self.expires_at:
            error = self._expired()
            self.task_context().cancel(error.reason)
            call = (self.fn, self.args, self.kwargs)
            callbacks = self.mailbox.fence(self, error, call)
            self._run_callbacks(callbacks)
            raise error

    def _check_context(self) -> None:
        """A thorough look, if a quick one has not shown that it goes on."""
        if self.sent:
            return
        context = self.task_context()
        if context.cancelled:
            on_context_end(self)  # perhaps nobody has told it yet
            context.check()

    def spare_variables(self) -> None:
        """It may be run again: keep its variables as they are now."""
        self._spare = own_values(self.variables.copy())

    def begin_anew(self, now: float, *, begun: bool) -> None:
        """It is to be queued again: what its last try has left behind must not touch the next."""
        task = self  # names that `self` gets would take up places: see _make_known()
        task.withdrawn = task.sent = False
        task.queued_at = now if task.queued_at is None else task.queued_at
        if begun:
            task.expires_at = None  # it had begun in time
        task.accepted_at = now
        if task._spare is not None:
            task.variables = own_values(task._spare.copy())

    # -- how it ends; each returns the callbacks, to be run by the caller without any lock ---

    def complete(self, result: T, tally: Tally) -> _Callbacks:
        """Its worker is done: it returned."""
        # In two looks: a variable would keep the function, and what it refers to, until the end.
        self.fn = self.fn.__qualname__ if type(self.fn) is FunctionType else self._function_name()  # type: ignore[assignment]
        self.args = ()
        self.kwargs = None
        self.variables = _RELEASED_VARS
        if self.special:
            self._leave_context()
            if self.history:
                self.history = ()  # its tracebacks hold what the tries before had at hand
        with self._lock:
            if self._state is not RUNNING:
                self._count_late(tally, Outcome.COMPLETED)
                return None
            tally.completed += 1  # before anybody can see the result
            if self._built_condition is None and self._built_waiters is None:
                self._result = result
                self._state = FINISHED
                return self._built_callbacks
            try:
                return self._finish(result, None)
            except BaseException:  # thrown in from outside
                if self._state is RUNNING:
                    tally.completed -= 1
                raise

    def count(self, outcome: Outcome, tally: Tally) -> None:
        """It runs no more: count it, if that was not done before, though it may end later."""
        with self._lock:
            if self._state is not RUNNING or self.counted or self.fenced:
                return
            # Nothing can be thrown in between these.
            if outcome is Outcome.FAILED:
                tally.failed += 1
            elif outcome is Outcome.PANICKED:
                tally.panicked += 1
            elif outcome is Outcome.CANCELLED:
                tally.cancelled += 1
            else:
                tally.completed += 1
            self.counted = True

    def fail(self, error: BaseException, tally: Tally, outcome: Outcome) -> _Callbacks:
        """Its worker is done: it raised."""
        with self._lock:
            if self._state is not RUNNING:
                self._count_late(tally, outcome)
                return None
            self.count(outcome, tally)  # before anybody can see the error
            callbacks = self._finish(None, error)
        if outcome is Outcome.CANCELLED:
            self._mark_read()  # somebody wanted this: no news for the log
        return callbacks

    def _count_late(self, tally: Tally, outcome: Outcome) -> None:
        # Fenced: whoever ended it has counted it. Else a stranger called set_result() on a
        # pool's future, and the task itself must still be counted.
        if not (self.fenced or self.counted):
            tally.count(outcome)

    def take_ending(self) -> Ending:
        """What is to be told to the hooks: by its worker, or by whoever ended it without."""
        with self._lock:
            untold, self._told = not self._told, True
            span, self.span = self.span, None
        return untold, span

    def take_span(self) -> Span | None:
        """Its span, which the caller finishes."""
        with self._lock:
            span, self.span = self.span, None
        return span

    def end_early(self, error: IonError) -> _Callbacks:
        """It ends while queued, or without its worker; under both locks."""
        if self._state is RUNNING:
            self.fenced = True
        self.tell_past_tries(error)
        if self._state is not RUNNING and is_a(error, Cancelled):
            self._ended_by = error
            self._state = CANCELLED_AND_NOTIFIED
            for waiter in self._built_waiters or ():
                waiter.add_cancelled(self)
            return self._wake_all()
        callbacks = self._finish(None, error)
        self._mark_read()  # whoever ended it has said so: no news for the log
        return callbacks

    def end_as_closed(self) -> _Callbacks:
        """It is queued, and the pool was closed; under both locks.

        For many at once: its error is made when somebody asks for it.
        """
        self._ended_by = DropReason.CLOSED
        self._state = CANCELLED_AND_NOTIFIED
        for waiter in self._built_waiters or ():
            waiter.add_cancelled(self)
        return self._wake_all()

    def closed_error(self) -> TaskDropped:
        """The error of a task that did not start before its pool was closed."""
        name = self.task_name()
        why = f"pool {self.mailbox.name!r} was closed before task {name!r} could start"
        return TaskDropped(why, task=name, why=DropReason.CLOSED)

    def tell_past_tries(self, error: BaseException) -> None:
        """It ends with this error: that of its last try, or of the wait for the next one."""
        if self.past_tries is not None:
            for note in self.past_tries.notes():
                add_note(error, note)

    def release_call(self) -> tuple[Any, ...]:
        """Drop the call. It is returned for the caller to let go of, or to report, unlocked."""
        fn = self.fn
        call = (fn, self.args, self.kwargs, self.variables)
        self.fn = fn.__qualname__ if type(fn) is FunctionType else self._function_name()  # type: ignore[assignment]
        self.args = ()
        self.kwargs = None
        self.variables = _RELEASED_VARS
        self._leave_context()
        return call

    def _give_up_key(self) -> Hashable | None:
        """It will not run, and its place may stay in the queue for a while. Returns its key."""
        key, self.key = self.key, None
        return key

    def keep_registration(self, registration: Registration) -> None:
        """Note its place on its context, to be given up when the task is over."""
        self._registration = registration
        # It was faster, and has not seen this. (It need not be done yet: first it drops its call.)
        if self.variables is _RELEASED_VARS:
            self._leave_context()

    def _leave_context(self) -> None:
        if self._spare is not None:
            self._spare = None
        if self.own_context is not None:
            self.own_context.pass_through()  # nobody can cancel it through this future now
        if (registration := self._registration) is not None:
            self._registration = None
            registration.remove()
        if self.terms is not PLAIN and self.mailbox.deadlines.exact:
            self.mailbox.deadlines.look_again()


def run_callbacks_in_thread(ended: list[tuple[TaskFuture[Any], _Callbacks]]) -> None:
    """Run done-callbacks where nobody else waits: users' code may block, supervisors must not."""
    if not any(callbacks for _, callbacks in ended):
        return

    def run() -> None:
        ended.reverse()
        while ended:  # who has posted this must not be the last to let go of them
            task, callbacks = ended.pop()
            task._run_callbacks(callbacks)

    run_elsewhere(run)


_RELEASED_VARS = contextvars.Context()


def _make_known() -> None:
    """Have CPython know the names of all attributes that plain tasks get.

    Instances share one table of names as long as it has them all, and with each instance that is
    made it takes one name less. A burst makes many before its first task ends; from then on each
    task that ends would get a dict of its own. From 3.14 on, names that the class's own methods set
    as ``self.name`` are in the table from the start. It has 30 places, so little room is left.
    """
    first: TaskFuture[None] = object.__new__(TaskFuture)
    of_each: tuple[str, ...]
    of_each = ("_lock", "mailbox", "fn", "args", "kwargs", "variables", "_state", "own_context")
    of_each += ("key", "special", "_built_condition", "_built_waiters", "_built_callbacks")
    for name in (*of_each, "_result", "queued_at", "terms", "expires_at"):
        setattr(first, name, None)


_make_known()


def on_context_end(task: TaskFuture[Any]) -> None:
    """A task's context is over. Runs in the thread that ended it, which may be the clock's.

    A queued task ends with it. A running one was asked to stop, unless it has used up a time limit
    of its own: then whoever waits for it gets the error now, and its worker stays taken.
    """
    mailbox, name = task.mailbox, task.task_name()
    error: ContextEnded = task.task_context()._error()
    error = type(error)(f"task {name!r}: {error.reason}", task=name)
    if not mailbox.withdraw(task, error, elsewhere=True) and _overran(task, error):
        callbacks = mailbox.fence(task, error)
        run_callbacks_in_thread([(task, callbacks)])


def _overran(task: TaskFuture[Any], error: ContextEnded) -> bool:
    return task.terms.limit is not None and is_a(error, DeadlineExceeded)
