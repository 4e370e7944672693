"""A queue in which tasks have a priority and a key: the order in which they may begin.

**Priority** moves a task ahead in the line by so many places per level: its rank is its number in
the order of acceptance, less ``stride`` times its priority, and the lowest rank is next. So equals
stay in their order, and nobody starves: whoever comes ``stride`` tasks later needs one level more
to get ahead. (It is the ageing of schedulers, counted in places instead of seconds.)

**Key**: tasks of one key run one at a time, in the order of acceptance. The first of them stands
in the line with its own rank, the others behind it in a line of their own, until it has been run.
So a key with much to do takes one worker, and the tasks of other keys pass by.

Invariants:

- a key is *taken* from when its task is taken out until that task is released;
- a task is in the heap if it has no key, or if its key is free and it is the first of it;
- what was removed may still be in the heap, but not in ``_entries``; it is passed over.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Generic, Literal, Protocol, TypeVar

__all__ = ["PriorityQueue", "Rankable"]

_MIN_SWEEP = 64  # so many entries of what was removed are not worth a sweep


class Rankable(Protocol):
    """What can be queued."""

    priority: int  # the more, the sooner
    key: Hashable | None


T = TypeVar("T", bound=Rankable)

#: A rank, a number that settles ties, and the task.
_Entry = tuple[float, int, T]


class PriorityQueue(Generic[T]):
    """See the module. It has those methods of a ``deque`` that the task queue uses.

    Args:
        tasks: what is queued already, in the order of acceptance.
        stride: how many places one level of priority is worth.
    """

    def __init__(self, tasks: Iterable[T], stride: int) -> None:
        self._stride = stride
        self._heap: list[_Entry[T]] = []
        self._entries: OrderedDict[T, _Entry[T]] = OrderedDict()  # in the order of acceptance
        self._lines: dict[Hashable, OrderedDict[T, None]] = {}  # who waits, by key
        self._holders: dict[Hashable, T] = {}  # of the keys that are taken
        self._numbers = itertools.count()
        self._before = itertools.count(-1, -1)
        for task in tasks:
            self.append(task)

    def __len__(self) -> int:
        """How many are queued."""
        return len(self._entries)

    def __bool__(self) -> bool:
        """Whether one of them may begin now."""
        heap = self._heap
        while heap and self._entries.get(heap[0][2]) is not heap[0]:
            heapq.heappop(heap)
        return bool(heap)

    def __iter__(self) -> Iterator[T]:
        return iter(list(self._entries))

    def append(self, task: T) -> None:
        """Queue a task that was just accepted."""
        number = next(self._numbers)
        self._insert(task, (number - self._stride * task.priority, number, task))

    def _insert(self, task: T, entry: _Entry[T]) -> None:
        self._entries[task] = entry
        if task.key is None:
            heapq.heappush(self._heap, entry)
            return
        line = self._lines.setdefault(task.key, OrderedDict())
        line[task] = None
        if len(line) == 1 and task.key not in self._holders:
            heapq.heappush(self._heap, entry)

    def appendleft(self, task: T) -> None:
        """Queue a task again that was taken out and did not begin: it is the next."""
        if self.holder(task) is task:
            del self._holders[task.key]
        entry = (-math.inf, next(self._before), task)
        self._entries[task] = entry
        self._entries.move_to_end(task, last=False)
        if task.key is not None:
            line = self._lines.setdefault(task.key, OrderedDict())
            line[task] = None
            line.move_to_end(task, last=False)
        heapq.heappush(self._heap, entry)

    def __getitem__(self, place: Literal[0]) -> T:
        """The task that is next.

        Raises:
            IndexError: none of them may begin now.
        """
        if not self:
            raise IndexError("no task may begin")
        return self._heap[0][2]

    def __delitem__(self, place: Literal[0]) -> None:
        """Take out the task that is next, and its key with it."""
        task = self[0]
        heapq.heappop(self._heap)
        del self._entries[task]
        self.take_key(task)

    def popleft(self) -> T:
        """Take out the task that is next, and its key with it.

        Raises:
            IndexError: none of them may begin now.
        """
        task = self[0]
        del self[0]
        return task

    def mended(self, queued: Callable[[T], bool], taken: Callable[[T], bool]) -> PriorityQueue[T]:
        """The same anew, whatever was interrupted at whatever point.

        Args:
            queued: whether a task still is.
            taken: whether it has begun.
        """
        new: PriorityQueue[T] = PriorityQueue((), self._stride)
        new._numbers, new._before = self._numbers, self._before
        entries = OrderedDict(self._entries)
        begun = [task for task in entries if task.key is not None and taken(task)]
        new._holders = {key: task for key, task in self._holders.items() if not queued(task)}
        new._holders.update({task.key: task for task in begun if task.key is not None})
        for task, entry in entries.items():
            if queued(task):
                new._insert(task, entry)
        return new

    def claim(self, task: T) -> None:
        """Take out a queued task that :meth:`may_begin`, before its turn, and its key with it.

        Raises:
            KeyError: it is not queued.
        """
        del self._entries[task]
        self.take_key(task)
        self._sweep()

    def pop_oldest(self) -> T:
        """Take out the task that was accepted first, and leave its key alone.

        Raises:
            KeyError: there is none.
        """
        task = next(iter(self._entries))
        self.remove(task)
        return task

    def remove(self, task: T) -> None:
        """Take a task out that will not begin.

        Raises:
            KeyError: it is not queued.
        """
        del self._entries[task]
        self._leave_line(task)
        self._sweep()

    # -- keys ------------------------------------------------------------------------------

    def may_begin(self, task: T) -> bool:
        """Whether the key of this task, which need not be queued, stands in its way."""
        if task.key is None:
            return True
        if task.key in self._holders:
            return False
        line = self._lines.get(task.key)
        return not line or next(iter(line)) is task

    def holder(self, task: T) -> T | None:
        """Which task has the key of this one."""
        return None if task.key is None else self._holders.get(task.key)

    def take_key(self, task: T) -> None:
        """The task begins: the others of its key must wait."""
        if task.key is not None:
            self._leave_line(task, free=False)
            self._holders[task.key] = task

    def release(self, task: T) -> None:
        """A task is over. If it has its key, the next task of that key may begin."""
        key = task.key
        if key is None or self._holders.get(key) is not task:
            return
        del self._holders[key]
        self._let_first_begin(key)

    def _leave_line(self, task: T, *, free: bool = True) -> None:
        line = self._lines.get(task.key) if task.key is not None else None
        if line is None or task not in line:
            return
        was_first = next(iter(line)) is task
        del line[task]
        if not line:
            del self._lines[task.key]
        elif was_first and free and task.key not in self._holders:
            self._let_first_begin(task.key)

    def _let_first_begin(self, key: Hashable) -> None:
        if line := self._lines.get(key):
            heapq.heappush(self._heap, self._entries[next(iter(line))])

    def _sweep(self) -> None:
        if len(self._heap) > 2 * len(self._entries) + _MIN_SWEEP:
            self._heap = [one for one in self._heap if self._entries.get(one[2]) is one]
            heapq.heapify(self._heap)
