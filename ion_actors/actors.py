"""The one place that knows pykka's internals: inboxes that close, loops that let nothing out.

pykka stops every actor of the process when a ``BaseException`` reaches an actor's loop, and what is
thrown into a thread from outside (``PyThreadState_SetAsyncExc``, a profiler that raises) can reach
it between any two steps. So the library's actors have a loop of their own::

    begin ─▶ serve the inbox ─▶ leave ─▶ close the inbox
      ▲            │ interrupted, anywhere
      └─ on_interrupted() ◀─┘          the step that was interrupted is done again

Each step may be repeated, and a message stays in hand until it was dealt with. What ends the thread
nevertheless is told by CPython itself, without a step of Python code: see :class:`ActorThread`.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import queue
import threading
import traceback
import weakref
from _thread import allocate_lock
from collections import deque
from collections.abc import Callable
from typing import Any, Self

import pykka
from pykka._envelope import Envelope  # private, as is the next; the tests watch over both
from pykka.messages import _ActorStop
from typing_extensions import override

from ion_actors.clock import acquire, start_thread
from ion_actors.forking import check
from ion_actors.logs import Logger
from ion_actors.raised import traceback_of
from ion_actors.standby import NO_MORE_THREADS, STANDBY

__all__ = [
    "NO_MORE_THREADS",
    "ActorThread",
    "ControlLane",
    "Envelope",
    "Flag",
    "Inbox",
    "IsolatedActor",
    "Request",
    "refuse",
    "settle",
    "unregister",
]

logger = Logger("ion_actors", later=True)
_pykka_logger = Logger("pykka", later=True)
_registry: Any = pykka.ActorRegistry

# So many interruptions an actor survives. Whoever throws more than that wants its thread to end.
_PATIENCE = 100

_numbers = itertools.count(1)


class Flag(threading.Event):
    """An event without a lock, which an exception thrown into ``set`` could leave locked."""

    def __init__(self) -> None:
        # Not the base's: that builds a lock and a condition.
        self._raised = False
        self._sleepers: deque[Any] = deque()  # a lock for each thread that waits

    @override
    def is_set(self) -> bool:
        """Whether it is set."""
        return self._raised

    @override
    def set(self) -> None:
        """Set it. If it was interrupted, it can be done again."""
        self._raised = True
        for sleeper in list(self._sleepers):
            with contextlib.suppress(RuntimeError):  # it has been woken before
                sleeper.release()

    @override
    def clear(self) -> None:
        """Take it back."""
        self._raised = False

    def _at_fork_reinit(self) -> None:
        """For threading."""
        self._sleepers = deque()

    @override
    def wait(self, timeout: float | None = None) -> bool:
        """Block until it is set, for so many seconds at most. Returns whether it is."""
        sleeper = allocate_lock()
        sleeper.acquire()
        try:
            self._sleepers.append(sleeper)
            if not self._raised:
                if timeout is None:
                    acquire(sleeper)
                else:
                    sleeper.acquire(timeout=max(0.0, min(timeout, threading.TIMEOUT_MAX)))
        finally:
            with contextlib.suppress(ValueError):
                self._sleepers.remove(sleeper)
        return self._raised


class ActorThread(threading.Thread):
    """A daemon thread whose end is told by CPython itself.

    ``on_end`` is called with one argument when CPython lets go of the thread's function, which it
    does whatever the thread was ended by. If ``on_end`` is built of C functions only
    (``functools.partial`` of ``SimpleQueue.put``), nothing that is thrown into the thread can come
    in between. It is also called if the thread could not be started. :meth:`forget` takes it back.
    """

    def __init__(
        self, target: Callable[[], object], name: str, on_end: Callable[[Any], object]
    ) -> None:
        super().__init__(target=target, name=name, daemon=True)
        self._started = Flag()  # start() waits for it, and may be interrupted there
        self._on_end: Callable[[Any], object] | None = on_end
        self._watch: weakref.ref[Any] | None = None

    @override
    def start(self) -> None:
        """Start it.

        Raises:
            RuntimeError, MemoryError, OSError: there can be no more threads.
        """
        try:
            self._arm()
            super().start()
        except BaseException as error:
            self._look_whether_it_began(error)
            raise
        finally:
            vars(self).pop("_bootstrap", None)

    def _arm(self) -> None:
        """Make what threading has CPython call. Nobody else will hold it, so it goes at the end.

        It is an attribute and no property, in which an interruption could keep it alive.
        """
        boot = functools.partial(_boot, self)
        if self._on_end is not None:
            self._watch = weakref.ref(boot, self._on_end)
        vars(self)["_bootstrap"] = boot

    def _look_whether_it_began(self, error: BaseException) -> None:
        """After an interrupted start: if it did not, forget it, and tell nobody of its end."""
        boot = None if self._watch is None else self._watch()
        probe = None if boot is None else weakref.ref(boot)
        self._watch = None  # first: what is let go of below has not ended
        del boot
        vars(self).pop("_bootstrap", None)
        traceback.clear_frames(traceback_of(error))  # they may hold it, too
        boot = None if probe is None else probe()
        if boot is not None and self._on_end is not None:
            self._watch = weakref.ref(boot, self._on_end)
        elif self.ident is None:  # threading itself does this only if the error is an Exception
            getattr(threading, "_limbo", {}).pop(self, None)

    @property
    def began(self) -> bool:
        """Whether there is or was such a thread: ``start`` may have been interrupted."""
        return self.ident is not None or (self._watch is not None and self._watch() is not None)

    @property
    def over(self) -> bool:
        """Whether it has ended: ``is_alive`` is false also of one that is just beginning."""
        return self._watch is not None and self._watch() is None

    def forget(self) -> None:
        """Its end is of no interest any more."""
        self._on_end = self._watch = None


def _boot(thread: ActorThread) -> None:
    # An interrupted start() may have struck it off, and threading would fail to find it there.
    getattr(threading, "_limbo", {}).setdefault(thread, thread)
    threading.Thread._bootstrap(thread)  # type: ignore[attr-defined]


class Request:
    """A message whose reply comes later, from the actor and not from its loop."""

    __slots__ = ("message", "reply_to")

    def __init__(self, message: Any, reply_to: pykka.Future[Any] | None) -> None:
        self.message = message
        self.reply_to = reply_to

    def reply(self, value: Any) -> None:
        """Answer, if somebody asked and there was no answer yet."""
        if (reply_to := self.reply_to) is not None:
            settle(reply_to, functools.partial(reply_to.set, value))
            self.reply_to = None

    def fail(self, error: BaseException) -> None:
        """Answer with an error, if somebody asked and there was no answer yet."""
        if (reply_to := self.reply_to) is not None:
            given = (type(error), error, traceback_of(error))
            settle(reply_to, functools.partial(reply_to.set_exception, given))
            self.reply_to = None


class ControlLane:
    """An unbounded queue of envelopes that can be closed.

    pykka's own inbox is a queue that stays open when its actor is gone, so an ``ask`` that comes in
    between is never answered. This one is closed by :meth:`empty`, which answers what is left with
    ``ActorDeadError``, and so does whatever comes later.

    What was taken out stays ``in_hand`` until :meth:`done`: the reader may be interrupted.
    """

    def __init__(self) -> None:
        self._queue: deque[Envelope[Any]] = deque()
        # Wakes the reader: None for what is in the queue, or an envelope to be put there. This is
        # the entrance for those who can make only one call: see ActorThread.
        self.bell: queue.SimpleQueue[Envelope[Any] | None] = queue.SimpleQueue()
        # Guards the order of put and close, and that of look and take. Reentrant: a finalizer may
        # put while a put is going on.
        self._lock = threading.RLock()
        self._closed = False
        self.in_hand: Envelope[Any] | None = None

    def shut(self) -> None:
        """Close it as it is, in a forked child, where nobody will look at it."""
        self._lock = threading.RLock()  # the old one may be held by a thread that is not here
        self._closed = True

    def put(self, envelope: Envelope[Any]) -> bool:
        """Add one; if the lane is closed, answer it with ActorDeadError and return False."""
        check()
        with self._lock:
            if not self._closed:
                try:
                    self._queue.append(envelope)
                finally:  # also if Ctrl-C came in between: the reader must look
                    self.bell.put(None)
                return True
        _too_late(envelope)
        return False

    def get(self, timeout: float | None = None) -> Envelope[Any]:
        """Block until there is one, and take it in hand.

        Args:
            timeout: seconds to wait at most.

        Raises:
            queue.Empty: the time was up.
        """
        while (envelope := self.get_nowait()) is None:
            pause = STANDBY.attend() if timeout is None else timeout
            try:
                rung = self.bell.get(True, pause)
            except queue.Empty:
                if timeout is not None:
                    raise
                continue  # to attend
            if rung is not None:
                self._queue.append(rung)
        return envelope

    def get_nowait(self) -> Envelope[Any] | None:
        """The one in hand, or the next one, or None."""
        if self.in_hand is None and self._queue:
            with self._lock:
                if self._queue:
                    self.in_hand = self._queue[0]
                    del self._queue[0]
        return self.in_hand

    def done(self) -> None:
        """What is in hand was dealt with."""
        self.in_hand = None

    def has_more(self) -> bool:
        """Whether there is one besides that in hand."""
        return bool(self._queue)

    def empty(self) -> bool:
        """Close the lane for good and answer what is left. For the actor's end, and for the end of
        a pool whose workers do not stop."""
        with self._lock:
            self._closed = True
        while self._queue:
            with contextlib.suppress(IndexError):  # two may be at it
                envelope = self._queue[0]
                _too_late(envelope)  # first: it may be interrupted; twice does no harm
                self._forget(envelope)
        return True

    def _forget(self, envelope: Envelope[Any]) -> None:
        with self._lock:
            if self._queue and self._queue[0] is envelope:
                del self._queue[0]


def refuse(envelope: Envelope[Any], error: Exception) -> None:
    """Answer with an error; raise it in the sender, if nobody asked."""
    if envelope.reply_to is None:
        raise error
    envelope.reply_to.set_exception((type(error), error, None))


def settle(future: pykka.Future[Any], settle: Callable[[], object]) -> None:
    """Settle a future; if that was interrupted before, finish it."""
    try:
        settle()
    except queue.Full:  # what both kinds of futures raise
        if (wake_again := getattr(future, "wake_again", None)) is not None:
            wake_again()


def _too_late(envelope: Envelope[Any]) -> None:
    dead = pykka.ActorDeadError("the actor had stopped before the message came")
    if isinstance(envelope.message, Request):
        envelope.message.fail(dead)
    elif envelope.reply_to is not None:
        with contextlib.suppress(queue.Full):
            if isinstance(envelope.message, _ActorStop):
                envelope.reply_to.set(None)
            else:
                refuse(envelope, dead)


class Inbox:
    """An actor's inbox that is nothing but a :class:`ControlLane`."""

    def __init__(self) -> None:
        self.control = ControlLane()

    def put(self, envelope: Envelope[Any]) -> None:
        """Called by senders, in their threads."""
        self.control.put(envelope)

    def get(self) -> Envelope[Any]:
        """Called by the actor's loop."""
        return self.control.get()

    def empty(self) -> bool:
        """Called by the clean-up after the loop."""
        return self.control.empty()


# pykka's own functions for the two log in the thread that calls them, which may be a supervisor's.


def _register(ref: pykka.ActorRef[Any]) -> None:
    with _registry._actor_refs_lock:
        _registry._actor_refs.append(ref)
    _pykka_logger.debug("Registered %s", ref)


def unregister(ref: pykka.ActorRef[Any]) -> None:
    """Take an actor out of pykka's registry. It need not be there."""
    with _registry._actor_refs_lock, contextlib.suppress(ValueError):
        _registry._actor_refs.remove(ref)
    _pykka_logger.debug("Unregistered %s", ref)


class IsolatedActor(pykka.ThreadingActor):
    """An actor whose end is nobody else's: see the module.

    Its inbox has a :class:`ControlLane` named ``control``, as :class:`Inbox` has. The names begin
    with ``_ion`` to stay out of the way of users' actors, which may get this class in front.
    """

    use_daemon_thread = True

    _ion_begun = False  # on_start is through
    _ion_left = False  # on_stop is through
    _ion_over = False  # nothing is left to do
    _ion_fault: BaseException | None = None  # what came in from outside, until it was dealt with
    _ion_thread: ActorThread | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.actor_stopped = Flag()
        self._actor_ref.actor_stopped = self.actor_stopped

    # -- the thread ------------------------------------------------------------------------

    @classmethod
    @override
    def start(  # pyright: ignore[reportIncompatibleMethodOverride]  # pykka's type is the same
        cls, *args: Any, **kwargs: Any
    ) -> pykka.ActorRef[Self]:
        """As pykka's, but an actor that cannot be started is not registered."""
        actor = cls(*args, **kwargs)
        try:
            _register(actor.actor_ref)
            actor._start_actor_loop()
        except BaseException:
            if actor._ion_thread is None:
                unregister(actor.actor_ref)
            raise
        return actor.actor_ref

    @override
    def _start_actor_loop(self) -> None:
        """Start the thread.

        Raises:
            RuntimeError, MemoryError, OSError: there can be no more threads.
        """
        thread = ActorThread(self._actor_loop, self._ion_thread_name(), self._ion_on_thread_end())
        self._ion_thread = thread
        try:
            start_thread(thread)
        except BaseException:
            if not thread.began:  # else it was Ctrl-C, and the thread goes its way
                thread.forget()
                self._ion_thread = None
            raise

    def _ion_thread_name(self) -> str:
        return f"{type(self).__name__}-{next(_numbers)}"

    def _ion_on_thread_end(self) -> Callable[[Any], object]:
        """What to call if the thread ends without a word."""
        return self._ion_bury

    def _ion_bury(self, _: object) -> None:
        """The thread has ended. If there is something left to do, another one does it, or this."""
        if self._ion_over or self._ion_thread is None or self._ion_thread.ident is None:
            return  # or it has never begun
        if self._ion_fault is None:
            self._ion_fault = RuntimeError(f"the thread of {self} was ended from outside")
        try:
            self._start_actor_loop()
        except NO_MORE_THREADS:
            self._actor_loop()

    # -- the loop --------------------------------------------------------------------------

    @override
    def _actor_loop(self) -> None:
        try:
            self._ion_insist()
        except BaseException as error:  # it came between two of its steps
            self._ion_fault = error
            self._ion_insist()

    def _ion_insist(self) -> None:
        for _ in range(_PATIENCE):
            try:
                self._ion_live()
            except BaseException as error:
                self._ion_fault = error
            else:
                return

    def _ion_live(self) -> None:
        """All that there is to do, from where it was interrupted."""
        if (fault := self._ion_fault) is not None:
            self._ion_interrupted(fault)
            self._ion_fault = fault = None
        if not self._ion_begun:
            self._actor_loop_setup()
            self._ion_begun = True
        self._actor_loop_running()
        self._actor_loop_teardown()
        self._ion_finish()
        self._ion_over = True
        if (thread := self._ion_thread) is not None:
            thread.forget()

    def _ion_interrupted(self, error: BaseException) -> None:
        """An exception came from outside. May be called again."""
        logger.error("actor %s was interrupted, and ends", self, exc_info=error)
        self._stop()

    @override
    def _actor_loop_setup(self) -> None:
        self.on_start()

    def _ion_finish(self) -> None:
        """The last thing to do. May be done again if it was interrupted."""

    @override
    def _actor_loop_running(self) -> None:
        while not self.actor_stopped.is_set():
            self._ion_serve(self.actor_inbox.get())

    def _ion_serve(self, envelope: Envelope[Any]) -> None:
        """Handle one message."""
        response = self._handle_receive(envelope.message)
        if envelope.reply_to is not None:
            settle(envelope.reply_to, functools.partial(envelope.reply_to.set, response))
        self._ion_done()

    def _ion_done(self) -> None:
        """The message was dealt with."""
        if (lane := self._ion_lane()) is not None:
            lane.done()

    def _ion_lane(self) -> ControlLane | None:
        """Where its messages are; None if it has an inbox of a foreign kind."""
        return getattr(self.actor_inbox, "control", None)

    @override
    def _stop(self) -> None:
        """End. May be done again if it was interrupted."""
        unregister(self.actor_ref)
        self.actor_stopped.set()
        if not self._ion_left:
            self.on_stop()
            self._ion_left = True

    @override
    def _actor_loop_teardown(self) -> None:
        if (lane := self._ion_lane()) is None:
            super()._actor_loop_teardown()
            return
        if lane.in_hand is not None:  # it was interrupted, and nobody comes back to it
            _too_late(lane.in_hand)
            lane.done()
        self.actor_inbox.empty()
