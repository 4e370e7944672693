"""The items of a stream on their way through this process.

::

    generator ──put──▶ Conduit ──take──▶ reader         in a thread, or on a loop, each of them
    a child ══════▶ its worker ──put──▶ Conduit         and is granted further items

One generator, any number of readers. Nobody blocks to put, take, end or leave: only to wait for
room or for an item, and with a context that ends the wait.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from ion_actors.backends.stream.transit import Transit
from ion_actors.backends.stream.waiting_room import WaitingRoom
from ion_actors.context import Context

__all__ = ["Conduit", "Deferred", "Outlet"]


class Outlet(Protocol):
    """What a generator puts its items into, where it runs."""

    def put(self, item: Any, /) -> None:
        """Send an item on. There is room for it."""
        ...

    def wait_for_room(self, context: Context, /) -> bool:
        """Wait until another item may be made. Returns whether one is wanted.

        Raises:
            Cancelled, DeadlineExceeded: the context has ended.
        """
        ...

    async def await_room(self, context: Context, /) -> bool:
        """:meth:`wait_for_room` for coroutines. False, and no error, if the context has ended."""
        ...


class Deferred(NamedTuple):
    """A large item, which is not in this process until its reader calls this."""

    open: Callable[[], Any]


class Conduit:
    """See the module.

    Args:
        size: how many items may be on their way, 1 or more.
    """

    def __init__(self, size: int) -> None:
        self._lock = threading.RLock()  # guards what is in transit, and who waits; see WaitingRoom
        self._transit = Transit(size)
        self._room = WaitingRoom(self._lock)  # the generator waits here
        self._news = WaitingRoom(self._lock)  # and here the readers
        self._grant: Callable[[int], object] | None = None

    # -- facts -----------------------------------------------------------------------------

    @property
    def size(self) -> int:
        """How many items may be on their way."""
        return self._transit.size

    @property
    def put_so_far(self) -> int:
        """How many items have come from the generator."""
        return self._transit.put

    @property
    def taken(self) -> int:
        """How many items were read."""
        with self._lock:
            return self._transit.taken

    @property
    def ready(self) -> bool:
        """Whether a reader need not wait."""
        return self._transit.ready

    @property
    def over(self) -> bool:
        """Whether no item will be taken any more."""
        return self._transit.over

    @property
    def full(self) -> bool:
        """Whether the generator waits for its reader."""
        with self._lock:
            return not (self._transit.room or self._transit.closed)

    def standstill(self) -> str:
        """Where the generator is, if it waits for its reader; else empty."""
        return f"(waits for its reader, after {self.put_so_far} items)\n" if self.full else ""

    # -- the generator's side: see Outlet ----------------------------------------------------

    def put(self, item: Any) -> None:
        """Send an item on."""
        with self._lock:
            self._transit.add(item)
            waiting = self._news.waiters()
        for wake in waiting:
            wake()
        if self._grant is not None:
            self._tell()

    def wait_for_room(self, context: Context) -> bool:
        """Wait until another item may be made. Returns whether one is wanted."""
        while True:
            if context.cancelled:
                context.check()
            if self._transit.room:
                return True
            if self._transit.closed:
                return False
            self._room.wait(self._may_go_on, context)

    async def await_room(self, context: Context) -> bool:
        """:meth:`wait_for_room` for coroutines. False, and no error, if the context has ended."""
        while not context.cancelled:
            if self._transit.room:
                return True
            if self._transit.closed:
                return False
            await self._room.await_(self._may_go_on, context)
        return False

    def _may_go_on(self) -> bool:
        return self._transit.room or self._transit.closed

    def begin_elsewhere(self, grant: Callable[[int], object]) -> None:
        """The generator begins in another process.

        Args:
            grant: tells it how many items it may put in all. Any thread may call it, and twice.
        """
        with self._lock:
            self._transit.begin_elsewhere()
            self._grant = grant

    def end_elsewhere(self) -> None:
        """That one is over, or cannot be reached."""
        self._grant = None

    def end(self, _: object = None) -> None:
        """No more items come: the task has ended. Calling twice does no harm."""
        with self._lock:
            self._transit.end()
        self._news.wake()
        self._room.wake()

    # -- the reader's side -------------------------------------------------------------------

    def take(self) -> Any:
        """The next item, perhaps a ``Deferred``; ``NOTHING`` if none is there."""
        with self._lock:
            item = self._transit.take()
            waiting = self._room.waiters()
        for wake in waiting:  # also if there was nothing: an interruption may have been in between
            wake()
        if self._grant is not None:
            self._tell()
        return item

    def wait_for_item(self, context: Context) -> None:
        """Block until there may be one, or the end, also that of the context."""
        self._news.wait(self._is_ready, context)

    async def await_item(self, context: Context) -> None:
        """:meth:`wait_for_item` for coroutines."""
        await self._news.await_(self._is_ready, context)

    def _is_ready(self) -> bool:
        return self._transit.ready

    def leave(self) -> None:
        """No more items are taken. Calling twice does no harm; a finalizer may do it."""
        with self._lock:
            dropped = self._transit.leave()
        self._news.wake()
        self._room.wake()
        dropped.clear()  # here, and without the lock: their finalizers are users' code

    def _tell(self) -> None:
        """Grant a generator in another process further items, if that is due."""
        with self._lock:
            grant, due = self._grant, self._transit.due()
        if grant is None or due is None:
            return
        grant(due)
        with self._lock:  # only now: what was interrupted is told again
            self._transit.granted = max(self._transit.granted, due)
