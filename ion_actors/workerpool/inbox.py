"""The inboxes of a pool's actors, as pykka sees them.

pykka's own inbox is a queue that stays open when its actor is gone, so an ``ask`` that comes in
between is never answered. A :class:`ControlLane` closes: pykka calls ``empty()`` only to clean up
after its loop, which is the moment to answer what is left with ``ActorDeadError``, and whatever
comes later on the spot. (pykka's own clean-up does not know a :class:`Request`.)
"""

from __future__ import annotations

import contextlib
import contextvars
import queue
import threading
from typing import TYPE_CHECKING, Any

import pykka
from pykka._envelope import Envelope  # private, as is the next; the tests watch over both
from pykka.messages import _ActorStop
from typing_extensions import override

from ion_actors.forking import check
from ion_actors.futures import Future
from ion_actors.logs import Logger
from ion_actors.workerpool.handoff import PARKED, RETIRE
from ion_actors.workerpool.messages import Broadcast, Close, Drain, Resize
from ion_actors.workerpool.task import TaskFuture

if TYPE_CHECKING:
    from collections.abc import Callable

    from ion_actors.workerpool.mailbox import Mailbox
    from ion_actors.workerpool.worker import Worker

logger = Logger("ion_actors", later=True)

__all__ = [
    "RUN",
    "ControlLane",
    "Envelope",
    "Letter",
    "Request",
    "Run",
    "SupervisorInbox",
    "WorkerInbox",
    "refuse",
]


class Run:
    """Tells a worker to look at its slot."""


RUN: Envelope[Any] = Envelope(Run())


class Request:
    """A message whose reply comes later, from the supervisor and not from pykka's loop."""

    __slots__ = ("message", "reply_to")

    def __init__(self, message: Any, reply_to: pykka.Future[Any] | None) -> None:
        self.message = message
        self.reply_to = reply_to

    def reply(self, value: Any) -> None:
        """Answer, if somebody asked and there was no answer yet."""
        if (reply_to := self.reply_to) is not None:
            self.reply_to = None
            reply_to.set(value)

    def fail(self, error: BaseException) -> None:
        """Answer with an error, if somebody asked and there was no answer yet."""
        if (reply_to := self.reply_to) is not None:
            self.reply_to = None
            reply_to.set_exception((type(error), error, error.__traceback__))


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
        """Answer that the pool's end came first, which is no news for the log."""
        reply_to = self.reply_to
        self.fail(error)
        if isinstance(reply_to, Future):
            reply_to._mark_read()


class ControlLane:
    """An unbounded queue of envelopes that can be closed."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Envelope[Any]] = queue.SimpleQueue()
        # Guards the order of put and close. Reentrant: a finalizer may put while a put is going on.
        self._lock = threading.RLock()
        self._closed = False

    def shut(self) -> None:
        """Close it as it is, in a forked child, where nobody will look at it."""
        self._lock = threading.RLock()  # the old one may be held by a thread that is not here
        self._closed = True

    def put(self, envelope: Envelope[Any]) -> bool:
        """Add one; if the lane is closed, answer it with ActorDeadError and return False."""
        check()
        with self._lock:
            if not self._closed:
                self._queue.put(envelope)
                return True
        _too_late(envelope)
        return False

    def get(self) -> Envelope[Any]:
        """Block until there is one."""
        return self._queue.get()

    def get_nowait(self) -> Envelope[Any] | None:
        """The next one, or None."""
        try:
            return self._queue.get_nowait()
        except queue.Empty:
            return None

    def has_more(self) -> bool:
        """Whether there is one now."""
        return not self._queue.empty()

    def empty(self) -> bool:
        """Close the lane for good and answer what is left. For pykka's clean-up, and for the end of
        a pool whose workers do not stop."""
        with self._lock:
            self._closed = True
        while (envelope := self.get_nowait()) is not None:
            _too_late(envelope)
        return True


def _too_late(envelope: Envelope[Any]) -> None:
    dead = pykka.ActorDeadError("the actor had stopped before the message came")
    if isinstance(envelope.message, Request):
        envelope.message.fail(dead)
    elif envelope.reply_to is not None:
        refuse(envelope, dead)


class SupervisorInbox:
    """A pool's mailbox as an actor's inbox: two lanes.

    Tasks go to the bounded task lane in the sender's own thread, which is what blocks while it is
    full. Everything else goes to the control lane, which never blocks.
    """

    def __init__(self) -> None:
        self.control = ControlLane()
        self.accept: Callable[[Envelope[Any]], bool] | None = None  # takes the task messages
        self.understood: frozenset[type] = frozenset()  # by the supervisor
        self.ended = False  # the pool has: let pykka's stop through
        self._handled: Envelope[Any] | None = None

    def put(self, envelope: Envelope[Any]) -> None:
        """Called by senders, in their threads."""
        kind = type(envelope.message)
        if kind in (Drain, Close, Resize, Broadcast) or (kind is _ActorStop and not self.ended):
            # These are answered by the supervisor: when it is done, or with an error.
            envelope = Envelope(Request(envelope.message, envelope.reply_to))
        elif self.accept is not None and self.accept(envelope):
            return
        elif kind is not _ActorStop and kind not in self.understood:
            # Refused here: under tell, an error in the handler would be the actor's end.
            refuse(envelope, TypeError(f"a pool does not understand {envelope.message!r}"))
            return
        self.control.put(envelope)

    def get(self) -> Envelope[Any]:
        """Called by pykka's loop."""
        if self._handled is not None:  # which pykka's loop still holds, with all it refers to
            self._handled.message = self._handled.reply_to = None
        self._handled = self.control.get()
        return self._handled

    def empty(self) -> bool:
        """Called by pykka's clean-up."""
        return self.control.empty()


def refuse(envelope: Envelope[Any], error: Exception) -> None:
    """Answer with an error; raise it in the sender, if nobody asked."""
    if envelope.reply_to is None:
        raise error
    envelope.reply_to.set_exception((type(error), error, None))


class WorkerInbox:
    """A worker's inbox: its slot in the mailbox, and its control lane.

    The worker sleeps on one lock, which whoever has something for it releases. It may be woken once
    too often: it looks again and goes back to sleep.
    """

    def __init__(self) -> None:
        self.control = ControlLane()
        self.parked = False  # the mailbox counts this worker as idle
        self._worker: Worker | None = None
        self._lettered = False  # the last thing that the worker was given was a letter
        self.mailbox: Mailbox | None = None
        self._asleep = threading.Lock()
        self._asleep.acquire()

    def bind(self, worker: Worker, mailbox: Mailbox) -> None:
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
        """Called by pykka's loop: the next thing to do, sooner or later."""
        try:
            return self._get()
        except BaseException:
            # An exception thrown into the thread. pykka's loop would die of it without a word.
            logger.exception("a worker was interrupted while it waited, and stops")
            return Envelope(_ActorStop())

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

    def _is_a_tasks_turn(self, worker: Worker) -> bool:
        """Control messages go first: who writes to itself all the time would get nothing done."""
        self._lettered = False
        return worker.ready and not worker.doomed

    def _let_a_task_in(self, worker: Worker, mailbox: Mailbox) -> None:
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

    def _ask(self, worker: Worker, mailbox: Mailbox) -> Envelope[Any] | None:
        found = mailbox.take(worker)
        if found is PARKED:
            self.parked = True
        elif found is RETIRE:
            return Envelope(_ActorStop())
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
        """Called by pykka's clean-up."""
        return self.control.empty()
