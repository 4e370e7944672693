"""Inboxes of actors that can be closed, and messages that are answered later."""

from __future__ import annotations

import contextlib
import functools
import queue
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import pykka
from pykka._envelope import Envelope  # private, as is the next; the tests watch over both
from pykka.messages import _ActorStop as ActorStop

from ion_actors.forking import check
from ion_actors.raised import traceback_of
from ion_actors.standby import STANDBY

__all__ = [
    "ActorStop",
    "ControlLane",
    "Envelope",
    "Inbox",
    "Request",
    "refuse",
    "settle",
    "too_late",
]


class Request:
    """A message that the actor answers later, and not its loop."""

    __slots__ = ("message", "reply_to")

    def __init__(self, message: Any, reply_to: pykka.Future[Any] | None) -> None:
        self.message = message
        self.reply_to = reply_to

    def reply(self, value: Any) -> None:
        """Answer, if a reply is expected and there was none yet."""
        if (reply_to := self.reply_to) is not None:
            settle(reply_to, functools.partial(reply_to.set, value))
            self.reply_to = None

    def fail(self, error: BaseException) -> None:
        """Answer with an error, if a reply is expected and there was none yet."""
        if (reply_to := self.reply_to) is not None:
            given = (type(error), error, traceback_of(error))
            settle(reply_to, functools.partial(reply_to.set_exception, given))
            self.reply_to = None


class ControlLane:
    """An unbounded queue of envelopes that can be closed.

    pykka's own inbox is a queue that stays open when its actor has ended, so a late ``ask`` gets no
    answer. :meth:`empty` closes this one and answers what is left with ``ActorDeadError``; later
    messages get the same answer.

    An envelope that was taken stays ``in_hand`` until :meth:`done`: the reader may be interrupted.
    """

    def __init__(self) -> None:
        self._queue: deque[Envelope[Any]] = deque()
        # Wakes the reader: None if there is something in the queue, or an envelope to be put there.
        # The latter is for code that can make only one call: see ActorThread.
        self.bell: queue.SimpleQueue[Envelope[Any] | None] = queue.SimpleQueue()
        # Guards the order of put and close, and that of look and take. Reentrant: a finalizer may
        # put during a put.
        self._lock = threading.RLock()
        self._closed = False
        self.in_hand: Envelope[Any] | None = None

    def shut(self) -> None:
        """Close it as it is, in a forked child, where nobody reads it."""
        self._lock = threading.RLock()  # a thread of the parent may hold the old one
        self._closed = True

    def put(self, envelope: Envelope[Any]) -> bool:
        """Add one; if the lane is closed, answer it with ActorDeadError and return False."""
        check()
        with self._lock:
            if not self._closed:
                try:
                    self._queue.append(envelope)
                finally:  # also if Ctrl-C came in between: the reader must wake
                    self.bell.put(None)
                return True
        too_late(envelope)
        return False

    def get(self, timeout: float | None = None) -> Envelope[Any]:
        """Block until there is an envelope, and take it in hand.

        Args:
            timeout: seconds to wait at most.

        Raises:
            queue.Empty: the timeout passed.
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
        """The envelope in hand was handled."""
        self.in_hand = None

    def has_more(self) -> bool:
        """Whether there is one besides that in hand."""
        return bool(self._queue)

    def empty(self) -> bool:
        """Close the lane and answer what is left: at the end of the actor, or of a pool whose
        workers do not stop."""
        with self._lock:
            self._closed = True
        while self._queue:
            with contextlib.suppress(IndexError):  # two threads may do this
                envelope = self._queue[0]
                too_late(envelope)  # first: it may be interrupted; twice does no harm
                self._forget(envelope)
        return True

    def _forget(self, envelope: Envelope[Any]) -> None:
        with self._lock:
            if self._queue and self._queue[0] is envelope:
                del self._queue[0]


def refuse(envelope: Envelope[Any], error: Exception) -> None:
    """Answer with an error; raise it in the sender, if no reply is expected."""
    if envelope.reply_to is None:
        raise error
    envelope.reply_to.set_exception((type(error), error, None))


def settle(future: pykka.Future[Any], settle: Callable[[], object]) -> None:
    """Settle a future; if an earlier attempt was interrupted, finish that."""
    try:
        settle()
    except queue.Full:  # what both kinds of futures raise
        if (wake_again := getattr(future, "wake_again", None)) is not None:
            wake_again()


def too_late(envelope: Envelope[Any]) -> None:
    """Answer that the actor had stopped."""
    dead = pykka.ActorDeadError("the actor had stopped before the message came")
    if isinstance(envelope.message, Request):
        envelope.message.fail(dead)
    elif envelope.reply_to is not None:
        with contextlib.suppress(queue.Full):
            if isinstance(envelope.message, ActorStop):
                envelope.reply_to.set(None)
            else:
                refuse(envelope, dead)


class Inbox:
    """An actor's inbox that only has a :class:`ControlLane`."""

    may_block = False  #: whether ``put`` may

    def __init__(self) -> None:
        self.control = ControlLane()

    def put(self, envelope: Envelope[Any]) -> bool:
        """Called by senders, in their threads. Returns whether it will be handled."""
        return self.control.put(envelope)

    def get(self) -> Envelope[Any]:
        """Called by the actor's loop."""
        return self.control.get()

    def empty(self) -> bool:
        """Called by the clean-up after the loop."""
        return self.control.empty()
