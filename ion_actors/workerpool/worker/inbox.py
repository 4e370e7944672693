"""The inboxes of a pool's actors, as their loops see them: :mod:`ion_actors.actors`.

Also what one worker will answer to a broadcast: :class:`Answer`.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import queue
import threading
import weakref
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import pykka
from typing_extensions import override

from ion_actors.actors import ActorStop, ControlLane, Envelope, Inbox, Request, refuse
from ion_actors.clock import Clock, Timer
from ion_actors.futures import Future
from ion_actors.futures.waiters import Parked
from ion_actors.logs import Logger
from ion_actors.workerpool.mailbox.protocols import PARKED, RETIRE, Helping
from ion_actors.workerpool.mailbox.task import TaskFuture
from ion_actors.workerpool.messages import Broadcast, Close, Drain, Resize

if TYPE_CHECKING:
    from collections.abc import Callable

    from ion_actors.workerpool.mailbox.mailbox import Mailbox

__all__ = [
    "RUN",
    "Answer",
    "Letter",
    "Run",
    "SupervisorInbox",
    "WorkerInbox",
    "outcome_of",
]

logger = Logger("ion_actors", later=True)

T = TypeVar("T")


class Run:
    """Tells a worker to look at its slot."""


RUN: Envelope[Any] = Envelope(Run())


class Letter(Request):
    """A message for the actor that lives in a worker, which is no task of the pool's."""

    __slots__ = ("variables",)

    def __init__(
        self,
        message: Any,
        reply_to: pykka.Future[Any] | None,
        variables: contextvars.Context | None = None,
    ) -> None:
        super().__init__(message, reply_to)
        self.variables = contextvars.Context() if variables is None else variables

    def begin(self) -> bool:
        """It is about to be answered. Returns whether anybody still wants that."""
        if not isinstance(self.reply_to, Future) or self.reply_to.running():
            return True
        try:
            return self.reply_to.set_running_or_notify_cancel()
        except RuntimeError:  # a stranger has settled it
            return False

    @override
    def reply(self, value: Any) -> None:
        """Answer, unless it has been answered: the pool may have ended first."""
        with contextlib.suppress(queue.Full):  # what both kinds of futures raise
            super().reply(value)

    @override
    def fail(self, error: BaseException) -> None:
        """Answer with an error, unless it has been answered or nobody wants it."""
        if self.begin():
            with contextlib.suppress(queue.Full):
                super().fail(error)

    def end(self, error: BaseException) -> None:
        """Answer that the pool's end came first. Nobody has to read that: it is not logged."""
        reply_to = self.reply_to
        self.fail(error)
        if isinstance(reply_to, Future):
            reply_to._mark_read()


def outcome_of(reply: Future[T], patience: float) -> T:
    """Wait for the supervisor's reply, for so many seconds at most.

    Raises:
        TimeoutError: it did not come.
        BaseException: the reply is an error.
    """
    # Not result(): the task's context may have ended; and what is thrown in must not leave a lock
    # locked that the supervisor needs for its reply.
    come = threading.Lock()
    come.acquire()
    with reply._lock:  # not a callback: the supervisor has those run by another thread
        reply._waiters.append(Parked(come.release))
        if reply.done():
            come.release()
    come.acquire(timeout=patience)
    return reply.result(0)


class SupervisorInbox(Inbox):
    """A pool's mailbox as an actor's inbox: two lanes.

    Tasks go to the bounded task lane in the sender's own thread, which is what blocks while it is
    full. Everything else goes to the control lane, which never blocks.
    """

    may_block = True

    def __init__(self) -> None:
        super().__init__()
        self.accept: Callable[[Envelope[Any]], bool] | None = None  # takes the task messages
        self.understood: frozenset[type] = frozenset()  # by the supervisor
        self.ended = False  # the pool has: let pykka's stop through

    def remind(self, clock: Clock, when: float, message: object) -> Timer:
        """Have a message come at a moment."""
        return clock.call_at(when, functools.partial(self.control.put, Envelope(message)))

    @override
    def put(self, envelope: Envelope[Any]) -> bool:
        kind = type(envelope.message)
        if kind in (Drain, Close, Resize, Broadcast) or (kind is ActorStop and not self.ended):
            # These are answered by the supervisor: when it is done, or with an error.
            envelope = Envelope(Request(envelope.message, envelope.reply_to))
        elif self.accept is not None and self.accept(envelope):
            return True
        elif kind is not ActorStop and kind not in self.understood:
            # Refused here: under tell, an error in the handler would be the actor's end.
            refuse(envelope, TypeError(f"a pool does not understand {envelope.message!r}"))
            return False
        return super().put(envelope)


class Reader(Helping, Protocol):
    """What an inbox needs of its worker."""

    ready: bool  # its initializer has run


class WorkerInbox:
    """A worker's inbox: its slot in the mailbox, and its control lane.

    The worker sleeps on one lock. Whoever has something for it releases that lock. If it is woken
    once too often, it looks again and goes back to sleep.
    """

    def __init__(self) -> None:
        self.control = ControlLane()
        self.parked = False  # the mailbox counts this worker as idle
        self._worker: Reader | None = None
        self._lettered = False  # the last thing that the worker was given was a letter
        self.mailbox: Mailbox | None = None
        self._asleep = threading.Lock()
        self._asleep.acquire()

    def bind(self, worker: Reader, mailbox: Mailbox) -> None:
        """Tell it whose it is; pykka makes inboxes without arguments."""
        self._worker, self.mailbox = worker, mailbox

    def wake(self) -> None:
        """Have the worker look."""
        try:
            self._asleep.release()
        except RuntimeError:
            return  # it has been woken and has not looked yet

    def put(self, envelope: Envelope[Any]) -> None:
        """Called by senders, in their threads."""
        assert self._worker is not None
        assert self.mailbox is not None
        if self.control.put(envelope):
            self.mailbox.interrupt(self._worker)

    def get(self) -> Envelope[Any]:
        """Called by the worker's loop: the next thing to do, sooner or later."""
        return self._get()

    def sleep(self) -> TaskFuture[Any] | None:
        """Called by the worker when it is parked: its next task, or None to look at its inbox."""
        worker, mailbox = self._worker, self.mailbox
        assert worker is not None
        assert mailbox is not None
        self._asleep.acquire()
        if worker.slot is None:
            mailbox.unpark(worker)  # woken for another reason than a task
        # From here on nobody hands it anything: it is not parked any more.
        task = worker.slot
        if task is not None:
            worker.slot = None
        return task

    def _get(self) -> Envelope[Any]:
        worker, mailbox = self._worker, self.mailbox
        assert worker is not None
        assert mailbox is not None
        while True:
            if self._lettered and self._is_a_tasks_turn(worker):
                self._let_a_task_in(worker, mailbox)
            elif worker.has_control and (envelope := self._next_control()) is not None:
                self._lettered = type(envelope.message) is Letter
                return envelope
            if worker.slot is not None:
                self.parked = False
                return RUN
            if self.parked:
                self._asleep.acquire()
                if worker.slot is None:
                    mailbox.unpark(worker)  # woken for another reason than a task
                self.parked = False
            elif (envelope := self._ask(worker, mailbox)) is not None:
                return envelope

    def _is_a_tasks_turn(self, worker: Reader) -> bool:
        """Control messages go first: who writes to itself all the time would get nothing done."""
        self._lettered = False
        return worker.ready and not worker.doomed

    def _let_a_task_in(self, worker: Reader, mailbox: Mailbox) -> None:
        if worker.slot is not None:
            return
        worker.has_control = False
        envelope = self._ask(worker, mailbox)
        worker.has_control = True  # to look again: there may be more of them
        if self.parked:
            self.parked = False
            mailbox.unpark(worker)
        elif envelope is not None:  # it is to retire, once it has answered what has come by now
            self.control.put(envelope)

    def _ask(self, worker: Reader, mailbox: Mailbox) -> Envelope[Any] | None:
        found = mailbox.take(worker)
        if found is PARKED:
            self.parked = True
        elif found is RETIRE:
            return Envelope(ActorStop())
        elif isinstance(found, TaskFuture):
            worker.slot = found
        return None

    def _next_control(self) -> Envelope[Any] | None:
        worker = self._worker
        assert worker is not None
        worker.has_control = False  # first: what is put from here on sets it again
        envelope = self.control.get_nowait()
        if self.control.has_more():
            worker.has_control = True
        return envelope

    def empty(self) -> bool:
        """Called by the clean-up after the loop."""
        return self.control.empty()


class Answer(Future[T]):
    """The future of it; it knows whose it is, so that a worker cannot wait for its own."""

    def __init__(self, worker: object, name: str) -> None:
        super().__init__()
        self._worker = weakref.ref(worker)
        self._of = name

    def is_of(self, worker: object) -> bool:
        """Whether that is the worker that it comes from."""
        return self._worker() is worker

    def description(self) -> str:
        """Whose answer it is, in words."""
        return f"the answer of worker {self._of!r}"

    _describe = description
