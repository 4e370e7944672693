"""A bus: passes events to subscribers.

Subscribers are users' code: they run on a thread that exists only while there are events, never on
the publishing thread, and in the order of the events.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from ion_actors.forking import check, renew_after_fork
from ion_actors.logs import Logger
from ion_actors.naming import printable
from ion_actors.own_variables import daemon_thread
from ion_actors.standby import NO_MORE_THREADS, RETRY, STANDBY

__all__ = ["Bus", "Subscription"]

logger = Logger("ion_actors", later=True)

E = TypeVar("E")


class Subscription:
    """The subscription of a callback; :meth:`remove` cancels it."""

    __slots__ = ("_bus", "callback")

    def __init__(self, bus: Bus[Any], callback: Callable[[Any], object]) -> None:
        self._bus = bus
        self.callback = callback

    def remove(self) -> None:
        """Do not call it any more, apart from a call that has begun. Calling twice does no harm."""
        self._bus.drop(self)


class Bus(Generic[E]):
    """See the module.

    Args:
        thread: the name of the thread that subscribers run on.
    """

    def __init__(self, thread: str) -> None:
        self._thread_name = thread
        self._subscriptions: dict[Subscription, None] = {}
        self._forward: Callable[[E], object] | None = None
        self._reset()
        renew_after_fork(self)

    def _reset(self) -> None:
        self._lock = threading.RLock()  # guards all below, and the subscriptions
        self._queue: deque[E] = deque()
        self._thread: threading.Thread | None = None  # while there are events

    def after_fork(self) -> None:
        """In a forked child: drop pending events, which the parent delivers."""
        self._reset()

    @property
    def heard(self) -> bool:
        """Whether there are subscribers."""
        return bool(self._subscriptions)

    @property
    def thread(self) -> threading.Thread | None:
        """The thread that subscribers run on, while there are events."""
        return self._thread

    def add(self, callback: Callable[[E], object]) -> Subscription:
        """Call this one, too, for each event from now on.

        Raises:
            TypeError: it is not callable.
        """
        if not callable(callback):
            raise TypeError(f"callback must be callable, not {callback!r}")
        check()
        subscription = Subscription(self, callback)
        with self._lock:
            self._subscriptions[subscription] = None
        return subscription

    def drop(self, subscription: Subscription) -> None:
        """Do not call it any more."""
        check()
        with self._lock:
            self._subscriptions.pop(subscription, None)

    def forward(self, to: Callable[[E], object]) -> None:
        """Call ``to(event)`` for each event, too, at once and in their order. It must not block."""
        with self._lock:
            self._forward = to

    def publish(self, event: E) -> None:
        """Pass the event to all subscribers. Never blocks."""
        with self._lock:
            forward = self._forward
            self.note(event)
            self.tell()
        if forward is not None:
            forward(event)

    def note(self, event: E) -> None:
        """Queue the event until the next :meth:`tell` or :meth:`join`. Allowed under any lock."""
        check()
        # Without the bus's lock: that is held while a thread starts, and a finalizer may run in it
        # that waits for the caller's lock.
        if self._subscriptions:
            self._queue.append(event)

    def tell(self) -> None:
        """Pass the queued events to all subscribers."""
        if self._try_to_tell() is not None:
            STANDBY.ask(self._try_to_tell)

    def _try_to_tell(self) -> float | None:
        """A job: see :mod:`ion_actors.standby`."""
        check()
        with self._lock:
            if self._queue and self._thread is None:
                self._thread = self._started_thread()
            return RETRY if self._queue and self._thread is None else None

    def join(self, patience: float | None) -> bool:
        """Wait until all events are delivered, at most so many seconds. Returns whether they are.

        On the bus's own thread, which cannot wait for itself, it returns False at once.
        """
        self.tell()
        thread = self._thread
        if thread is threading.current_thread():
            return False
        if thread is None:
            return not self._queue
        thread.join(patience)
        return not thread.is_alive()

    def _started_thread(self) -> threading.Thread | None:
        thread = daemon_thread(self._tell, printable(self._thread_name))
        try:
            thread.start()
        except NO_MORE_THREADS:  # a later attempt follows, or the interpreter exits
            logger.debug("events of %s cannot be delivered now", self._thread_name, exc_info=True)
            return None
        return thread

    def _tell(self) -> None:
        while True:
            with self._lock:
                if not self._queue:
                    self._thread = None
                    return
                event = self._queue.popleft()
                subscriptions = list(self._subscriptions)
            for one in subscriptions:
                if one in self._subscriptions:
                    self._call(one, event)
            del event, subscriptions  # keep nothing alive while waiting for the lock

    def _call(self, subscription: Subscription, event: E) -> None:
        try:
            subscription.callback(event)
        except BaseException:
            logger.exception("a subscriber failed on %s", event)
