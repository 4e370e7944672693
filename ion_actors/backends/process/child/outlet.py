"""Where a generator in a child process puts its items: the channel to the parent.

The parent grants room by messages on the control channel, which another thread reads.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from ion_actors.backends.stream.transit import Credit
from ion_actors.backends.stream.waiting_room import WaitingRoom
from ion_actors.context import Context

__all__ = ["RemoteOutlet"]


class RemoteOutlet:
    """See :class:`ion_actors.backends.stream.conduit.Outlet`.

    Args:
        size: how many items may be ahead of the reader.
        send: sends an item.
    """

    def __init__(self, size: int, send: Callable[[Any], object]) -> None:
        self._credit = Credit(size)
        self._lock = threading.RLock()  # guards the credit, and who waits
        self._room = WaitingRoom(self._lock)
        self._send = send

    def put(self, item: Any) -> None:
        """Send an item on.

        Raises:
            TaskNotPicklable: it cannot be sent.
        """
        self._credit.put += 1
        self._send(item)

    def wait_for_room(self, context: Context) -> bool:
        """Wait until another item may be made. True: the context ends when the reader leaves."""
        while True:
            if context.cancelled:
                context.check()
            if self._credit.room:
                return True
            self._room.wait(self._has_room, context)

    async def await_room(self, context: Context) -> bool:
        """:meth:`wait_for_room` for coroutines. False, and no error, if the context has ended."""
        while not context.cancelled:
            if self._credit.room:
                return True
            await self._room.await_(self._has_room, context)
        return False

    def _has_room(self) -> bool:
        return self._credit.room

    def grant(self, granted: int) -> None:
        """The parent has room for so many items in all. Any thread may call this."""
        with self._lock:
            self._credit.grant(granted)
        self._room.wake()
