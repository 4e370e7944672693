"""Lifecycle events, and who is told of them.

Subscribers are users' code: they run on a thread that lives only while there is something to tell,
never on a supervisor's, and in the order of the events. What a supervisor tells, its parent tells
as well, so a subscription at the root hears the whole tree.
"""

from __future__ import annotations

import enum
import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

__all__ = ["Bus", "Lifecycle", "LifecycleEvent", "Subscription"]

logger = logging.getLogger("ion_actors")


class Lifecycle(enum.Enum):
    """What can happen to a child."""

    STARTED = "started"  #: for the first time
    START_FAILED = "failed to start"  #: its start raised, or its ``on_start``
    PANICKED = "panicked"  #: it failed: a pool broke, an actor died, a supervisor gave up
    ENDED = "ended"  #: by itself or by somebody else, without a failure
    RESTARTED = "restarted"  #: started again
    STOPPED = "stopped"  #: its supervisor has stopped it; a pool was drained or closed
    ABANDONED = "abandoned"  #: it did not stop in time and was left alone
    GAVE_UP = "gave up"  #: it is the supervisor itself: a child had to be restarted once too often


@dataclass(frozen=True, slots=True)
class LifecycleEvent:
    """Something that happened to a child."""

    kind: Lifecycle  #: what
    path: tuple[str, ...]  #: to whom: the name of the supervisor asked, and the ids below it
    at: float  #: when: a moment of the supervisor's clock
    restarts: int = 0  #: how often the child has been started again
    because: str | None = None  #: the id of the sibling that had to be restarted; of the last straw
    error: BaseException | None = None  #: what it failed with

    @property
    def child(self) -> str:
        """The child's id; of GAVE_UP, the supervisor's own."""
        return self.path[-1]

    def __str__(self) -> str:
        because = f" because of {self.because}" if self.because else ""
        error = f": {self.error!r}" if self.error is not None else ""
        return f"{'/'.join(self.path)} {self.kind.value}{because}{error}"


Callback = Callable[[LifecycleEvent], object]


class Subscription:
    """A callback's place; :meth:`remove` gives it up."""

    __slots__ = ("_bus", "callback")

    def __init__(self, bus: Bus, callback: Callback) -> None:
        self._bus = bus
        self.callback = callback

    def remove(self) -> None:
        """Call it no more, apart from a call that has begun. Calling twice does no harm."""
        self._bus.drop(self)


class Bus:
    """Takes events from one supervisor, and gives them to its subscribers and its parent's."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.RLock()  # guards all below
        self._subscriptions: dict[Subscription, None] = {}
        self._queue: deque[LifecycleEvent] = deque()
        self._thread: threading.Thread | None = None  # while there is something to tell
        self._parent: tuple[Bus, str] | None = None

    def add(self, callback: Callback) -> Subscription:
        """Tell this one, too, of what happens from now on."""
        subscription = Subscription(self, callback)
        with self._lock:
            self._subscriptions[subscription] = None
        return subscription

    def drop(self, subscription: Subscription) -> None:
        """Tell it no more."""
        with self._lock:
            self._subscriptions.pop(subscription, None)

    def tell_parent(self, parent: Bus, child: str) -> None:
        """Pass everything on, as what happens below the parent's child of that id."""
        with self._lock:
            self._parent = parent, child

    def publish(self, event: LifecycleEvent) -> None:
        """Have everybody told. Never blocks."""
        with self._lock:
            parent = self._parent
            if self._subscriptions:
                self._queue.append(event)
                if self._thread is None:
                    self._thread = self._started_thread()
        if parent is not None:
            bus, child = parent
            bus.publish(replace(event, path=(bus._name, child, *event.path[1:])))

    def join(self, patience: float) -> None:
        """Wait until everything has been told, for so many seconds at most."""
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(patience)

    def _started_thread(self) -> threading.Thread | None:
        thread = threading.Thread(target=self._tell, name=f"{self._name}-events", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the interpreter exits
            self._queue.clear()
            logger.debug("events of %s cannot be told any more", self._name, exc_info=True)
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

    def _call(self, subscription: Subscription, event: LifecycleEvent) -> None:
        try:
            subscription.callback(event)
        except BaseException:
            logger.exception("a subscriber failed on %s", event)
