"""The moments at which time limits end the tasks of one pool, and one timer for the first of them.

Most tasks end long before their time limit, so noting one costs next to nothing: a task is added to
a list without an order. It is looked at again when the clock calls, or when the list has grown too
long: what has ended is dropped then. Only what is left when the clock calls goes to a heap.

A task is referred to weakly: whoever has to run it refers to it, and nobody else keeps it.
"""

from __future__ import annotations

import heapq
import itertools
import math
import threading
import weakref
from collections import deque
from typing import Generic, Protocol, TypeVar

from ion_actors.clock import Clock, system_clock
from ion_actors.delivery import release_references
from ion_actors.workerpool.mailbox.alarm import Alarm

__all__ = ["Deadlines", "Limited"]


class Limited(Protocol):
    """What time limits end."""

    def next_limit(self) -> float | None:
        """The moment at which the next of its limits ends it; None if none does any more."""
        ...

    def end_in_time(self) -> None:
        """Its next limit has come. On the clock's thread, under no lock, and perhaps once more."""
        ...


T = TypeVar("T", bound=Limited)

#: A moment, a number that settles ties, and the task.
_Entry = tuple[float, int, weakref.ref[T]]


class Deadlines(Generic[T]):
    """See the module.

    Args:
        clock: the clock.
        patience: so many that have ended are not worth a sweep.

    Attributes:
        exact: it is to look again whenever one is over: a clock of tests shows what it waits for.
    """

    def __init__(self, clock: Clock, patience: int = 1024) -> None:
        self._clock = clock
        self.exact = clock is not system_clock
        self._alarm = Alarm(clock, self._first, self._ring)
        self._lock = threading.RLock()  # guards the heap, and the left end of the list
        self._new: deque[weakref.ref[T]] = deque()  # any thread appends
        self._sweep_at = self._patience = patience
        self._heap: list[_Entry[T]] = []
        self._numbers = itertools.count()
        self._next = math.inf  # the clock calls at this moment, or before

    def add(self, task: T, moment: float) -> None:
        """Have the task ended at its next limit, which is this moment; once more does no harm."""
        self._new.append(weakref.ref(task))
        if moment < self._next:
            self._call_at(moment)
        elif len(self._new) >= self._sweep_at:
            self._sweep()

    def __len__(self) -> int:
        """How many are noted, some of those included that have ended."""
        return len(self._new) + len(self._heap)

    def look_again(self) -> None:
        """A task has ended, or its limit counts no more: wait for the next one that does."""
        seen: list[T] = []
        self._next = math.inf
        self._sort(seen)
        if (entry := self._due(seen)) is not None:  # the clock is late, and is about to call
            self._next = min(self._next, entry[0])
        self._alarm.set(exactly=True)
        release_references(seen)

    def stop(self) -> None:
        """No task is left that could be ended."""
        with self._lock:
            self._new.clear()
            self._heap, self._next = [], math.inf
        self._alarm.set()

    def _first(self) -> float | None:
        return None if self._next == math.inf else self._next

    def _call_at(self, moment: float) -> None:
        try:
            if self._next == math.inf:  # somebody may have been interrupted below
                seen: list[T] = []
                self._sort(seen)
                release_references(seen)
            with self._lock:
                first = self._heap[0][0] if self._heap else moment
                self._next = min(self._next, moment, first)
            self._alarm.set()
        except BaseException:  # Ctrl-C: nobody may rely on it
            self._next = math.inf
            raise

    def _sweep(self) -> None:
        """Drop what has ended. An interruption may leave a task in the list twice."""
        seen: list[T] = []  # to be let go of when the lock is free
        new = self._new
        with self._lock:
            for _ in range(len(new)):
                if self._limit_of(new[0], seen) is not None:
                    new.append(new[0])
                new.popleft()
            self._sweep_at = max(self._patience, 2 * len(new))
        release_references(seen)

    def _limit_of(self, ref: weakref.ref[T], seen: list[T]) -> float | None:
        """The next limit of the task, if there is one; adds it to those that were seen."""
        if (task := ref()) is None:
            return None
        seen.append(task)
        return task.next_limit()

    def _sort(self, seen: list[T]) -> None:
        """Move the list to the heap. An interruption may leave a task in both."""
        new = self._new
        with self._lock:
            for _ in range(len(new)):
                if (moment := self._limit_of(new[0], seen)) is not None:
                    heapq.heappush(self._heap, (moment, next(self._numbers), new[0]))
                new.popleft()

    def _ring(self) -> None:
        """The moments of some have come. On the clock's thread; it is called again if it fails."""
        self._next = math.inf  # first: who adds one from here on plans its moment anew
        seen: list[T] = []
        self._sort(seen)
        while (entry := self._due(seen)) is not None:
            seen[-1].end_in_time()
            self._done_with(entry, seen)
        self._alarm.set()
        if seen:
            release_references(seen)

    def _due(self, seen: list[T]) -> _Entry[T] | None:
        """The first entry whose moment has come; its task is the last of those that were seen."""
        heap, now = self._heap, self._clock.monotonic()
        with self._lock:
            while heap:
                entry = moment, number, ref = heap[0]
                limit = self._limit_of(ref, seen)
                if limit is None:
                    heapq.heappop(heap)
                elif limit > moment:
                    heapq.heapreplace(heap, (limit, number, ref))
                elif moment <= now:
                    return entry
                else:
                    self._next = min(self._next, moment)
                    return None
        return None

    def _done_with(self, entry: _Entry[T], seen: list[T]) -> None:
        """That limit has ended the task, or could not."""
        heap = self._heap
        with self._lock:
            if heap and heap[0] is entry:  # else an earlier one was added; it is looked at again
                limit = self._limit_of(entry[2], seen)
                if limit is None or limit <= entry[0]:
                    heapq.heappop(heap)
