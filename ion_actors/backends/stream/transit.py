"""How many items of a stream may be on their way, and how its two sides may end it.

Decisions only: no locks, no threads, no clocks.

::

    put ──▶ items ──▶ take            at most `size` items are between the two
            end()     leave()         the generator is over; the reader has gone

A generator in another process cannot see the items. It has a :class:`Credit`: it may put as many
items in all as it was granted, which is as many as were taken, and ``size`` more. It is told of
that when it has used up its credit, or half the size has come together.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final

__all__ = ["NOTHING", "Credit", "Transit"]

#: What :meth:`Transit.take` returns if there is no item.
NOTHING: Final = object()


class Transit:
    """The items between a generator and its reader.

    Args:
        size: how many there may be, 1 or more.

    Attributes:
        put: how many were put so far.
        granted: how many a generator in another process knows that it may put in all.
        ended: no more items come.
        left: no more items are taken.
    """

    __slots__ = ("_items", "ended", "granted", "left", "put", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self.put = 0
        self.granted = size
        self.ended = self.left = False
        self._items: deque[Any] = deque()

    @property
    def taken(self) -> int:
        """How many items were taken. Counted by what is left, so an interruption loses none."""
        return self.put - len(self._items)

    @property
    def room(self) -> bool:
        """Whether another item may be made."""
        return len(self._items) < self.size and not self.closed

    @property
    def closed(self) -> bool:
        """Whether no item may be put any more."""
        return self.ended or self.left

    @property
    def ready(self) -> bool:
        """Whether a reader need not wait: there is an item, or there will be none."""
        return bool(self._items) or self.closed

    @property
    def over(self) -> bool:
        """Whether no item will be taken any more."""
        return self.closed and not self._items

    def add(self, item: Any) -> None:
        """The generator has made an item. It is dropped if nobody would take it."""
        if not self.closed:
            self._items.append(item)
            self.put += 1

    def take(self) -> Any:
        """The next item, or ``NOTHING``."""
        return self._items.popleft() if self._items else NOTHING

    def end(self) -> None:
        """No more items come. Those that have come can still be taken."""
        self.ended = True

    def leave(self) -> deque[Any]:
        """No more items are taken. Returns those that are dropped, for the caller to let go of."""
        self.left = True
        dropped, self._items = self._items, deque()
        self.put -= len(dropped)
        return dropped

    def begin_elsewhere(self) -> None:
        """A generator in another process begins."""
        self.granted = self.taken + self.size

    def due(self) -> int | None:
        """How many items that one is to be granted in all; None if it need not be told now."""
        allowed = self.taken + self.size
        more = allowed - self.granted
        starves = self.put >= self.granted
        return allowed if more > 0 and (starves or 2 * more >= self.size) else None


class Credit:
    """How many items a generator may put whose reader is in another process.

    Args:
        size: how many it may put before the first one is taken.

    Attributes:
        granted: how many it may put in all.
        put: how many it has put.
    """

    __slots__ = ("granted", "put")

    def __init__(self, size: int) -> None:
        self.granted = size
        self.put = 0

    @property
    def room(self) -> bool:
        """Whether another item may be made."""
        return self.put < self.granted

    def grant(self, granted: int) -> None:
        """So many in all. Grants may come twice, or in another order."""
        self.granted = max(self.granted, granted)
