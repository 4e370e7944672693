"""Tasks that may not begin before their time: a heap, by moments of the clock.

A task is here until its time has come (``options(delay=...)``, ``submit_at``), or between two of
its tries (``options(retry=...)``). It is accepted, counts as queued and takes up a place in the
queue.

The heap knows no clock and no lock. The mailbox asks it, under its own lock, what is due, and has
the clock call it at the first of these moments.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

__all__ = ["Delayed"]

T = TypeVar("T")

_MIN_SWEEP = 64  # so many entries of what was removed are not worth a sweep

#: A moment, a number that settles ties, and the task.
_Entry = tuple[float, int, T]


class Delayed(Generic[T]):
    """See the module. Tasks of the same moment keep the order in which they were added."""

    def __init__(self) -> None:
        self._entries: dict[T, _Entry[T]] = {}
        self._heap: list[_Entry[T]] = []  # also has entries that were removed
        self._numbers = itertools.count()

    def __len__(self) -> int:
        """How many wait."""
        return len(self._entries)

    def __contains__(self, task: T) -> bool:
        return task in self._entries

    def __iter__(self) -> Iterator[T]:
        """Those that wait, in the order of their time."""
        return iter([task for _, _, task in sorted(self._entries.values())])

    def add(self, task: T, due: float) -> None:
        """Have a task wait until that moment; one that waits already gets another moment."""
        entry = (due, next(self._numbers), task)
        self._entries[task] = entry
        heapq.heappush(self._heap, entry)

    def discard(self, task: T) -> bool:
        """Take a task out, before or at its time. Returns whether it was in."""
        if self._entries.pop(task, None) is None:
            return False
        if len(self._heap) > 2 * len(self._entries) + _MIN_SWEEP:
            self._heap = sorted(self._entries.values())
        return True

    def first(self) -> tuple[float, T] | None:
        """The next task and its moment; None if none waits."""
        heap = self._heap
        while heap and self._entries.get(heap[0][2]) is not heap[0]:
            heapq.heappop(heap)
        return (heap[0][0], heap[0][2]) if heap else None

    def mended(self, waits: Callable[[T], bool]) -> Delayed[T]:
        """The same anew, whatever was interrupted at whatever point, with those that still wait."""
        new: Delayed[T] = Delayed()
        for due, _, task in sorted(self._entries.values()):
            if waits(task):
                new.add(task, due)
        return new
