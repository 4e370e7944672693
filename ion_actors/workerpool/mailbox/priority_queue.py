"""A queue in which tasks have a priority and a key: the order in which they may begin.

**Priority** moves a task ahead in the line by so many places per level: its rank is its number in
the order of acceptance, less ``stride`` times its priority, and the lowest rank is next. So equals
stay in their order, and nobody starves: whoever comes ``stride`` tasks later needs one level more
to get ahead. (It is the ageing of schedulers, counted in places instead of seconds.)

**Key**: tasks of one key begin in the order of acceptance, and only so many of them run at a time:
never more than the smallest ``key_limit`` among those that run. The first of those that wait stands
in the line if there is room for it, the others behind it in a line of their own. So a key with much
to do takes a few workers, and the tasks of other keys pass by.

**Fair between keys**: when the next place of the line belongs to a task with a key, the keys take
turns, whatever their lines behind it are. The key whose turn it is begins a task *in that place*,
and the task that had it gets the other's place instead. So a key with thousands of tasks holds up
no other key, and tasks without a key, whose places are their own, are overtaken by none more.

Invariants:

- a task *holds* its key from when it is taken out until it is released;
- a task *stands* in the line if it has no key, or is the first of its key and has room there;
- what does not stand may still be in a heap; it is passed over.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator
from heapq import heappop, heappush
from typing import Any, Generic, Literal, Protocol, TypeVar

__all__ = ["PriorityQueue", "Rankable"]

_NEXT = -math.inf  # the rank of what was taken out and comes back
_MIN_SWEEP = 64  # so many entries of what was removed are not worth a sweep


class Rankable(Protocol):
    """What can be queued."""

    key: Hashable | None

    @property
    def priority(self) -> int:
        """The more, the sooner."""
        ...

    @property
    def key_limit(self) -> int:
        """How many of its key may run while it does, itself included."""
        ...


T = TypeVar("T", bound=Rankable)

#: A rank, a number that settles ties, and the task.
_Entry = tuple[float, int, T]

#: When it is the turn of a task's key: a rank, when the key had its last turn, number and task.
_Turn = tuple[float, int, int, T]


class _KeyLine(Generic[T]):
    """The tasks of one key."""

    __slots__ = ("accepted", "holders", "standing", "turn", "waiting")

    def __init__(self) -> None:
        self.waiting: OrderedDict[T, None] = OrderedDict()
        self.holders: dict[T, None] = {}  # those that run
        self.standing: _Turn[T] | None = None  # of the first that waits, if it may begin
        self.accepted = 0  # how many tasks of all keys were accepted before its last turn
        self.turn = 0  # the number of that turn

    def first(self) -> T | None:
        """The one that begins next."""
        return next(iter(self.waiting), None)

    def has_room_for(self, task: T, more: int = 0) -> bool:
        """Whether a task may run beside those that do, and so many more."""
        holders = self.holders
        running = len(holders) + more
        if running == 0:
            return True
        if running >= task.key_limit:
            return False
        return not holders or running < min([one.key_limit for one in holders])

    def has_room_for_two(self) -> bool:
        """Whether the second that waits may begin, too, if the first does."""
        two = list(itertools.islice(self.waiting, 2))
        return len(two) == 2 and all(self.has_room_for(one, more=1) for one in two)


class PriorityQueue(Generic[T]):
    """See the module. It has those methods of a ``deque`` that the task queue uses.

    Args:
        tasks: what is queued already, in the order of acceptance.
        stride: how many places one level of priority is worth.
    """

    def __init__(self, tasks: Iterable[T], stride: int) -> None:
        self._stride = stride
        self._heap: list[_Entry[T]] = []  # the line
        self._turns: list[_Turn[T]] = []  # those in it that have a key, in the order of turns
        self._entries: OrderedDict[T, _Entry[T]] = OrderedDict()  # in the order of acceptance
        self._keys: dict[Hashable, _KeyLine[T]] = {}
        self._accepted = 0
        self._before = itertools.count(-1, -1)
        self._turn_numbers = itertools.count(1)
        self._chosen: _Entry[T] | None = None  # the next, if it was looked for since a change
        for task in tasks:
            self.append(task)

    def __len__(self) -> int:
        """How many are queued."""
        return len(self._entries)

    def __bool__(self) -> bool:
        """Whether one of them may begin now."""
        return self._chosen is not None or self._choose() is not None

    def __iter__(self) -> Iterator[T]:
        return iter(list(self._entries))

    def append(self, task: T) -> None:
        """Queue a task that was just accepted."""
        self._accepted = number = self._accepted + 1
        self._insert(task, (number - self._stride * task.priority, number, task))

    def _insert(self, task: T, entry: _Entry[T]) -> None:
        self._chosen = None
        self._entries[task] = entry
        if (key := task.key) is None:
            heappush(self._heap, entry)
            return
        line = self._keys.get(key) or self._line_of(key)
        line.waiting[task] = None
        if len(line.waiting) == 1:
            self._let_first_stand(key, line)

    def appendleft(self, task: T) -> None:
        """Queue a task again that was taken out and did not begin: it is the next."""
        self._come_back(task, next(self._before))

    def append_first(self, task: T) -> None:
        """Queue a task that is tried again: before all that are new, behind others like it."""
        self._accepted += 1
        self._come_back(task, self._accepted)

    def _come_back(self, task: T, number: int) -> None:
        entry = (_NEXT, number, task)
        self._chosen = None
        self._entries[task] = entry
        self._to_front(self._entries, task, number)
        if task.key is None:
            heappush(self._heap, entry)
            return
        line = self._line_of(task.key)
        line.holders.pop(task, None)
        line.waiting[task] = None
        self._to_front(line.waiting, task, number)
        self._let_first_stand(task.key, line)

    def _to_front(self, ordered: OrderedDict[T, Any], task: T, number: int) -> None:
        """Move a task that comes back ahead of all but those that came back and begin before it."""
        ahead = []
        for one in ordered:
            if one is not task and self._entries[one][:2] > (_NEXT, number):
                break
            ahead.append(one)
        for one in (task, *reversed(ahead)):
            ordered.move_to_end(one, last=False)

    def __getitem__(self, place: Literal[0]) -> T:
        """The task that is next.

        Raises:
            IndexError: none of them may begin now.
        """
        chosen = self._chosen or self._choose()
        if chosen is None:
            raise IndexError("no task may begin")
        return chosen[2]

    def __delitem__(self, place: Literal[0]) -> None:
        """Take out the task that is next, and its key with it."""
        entry = self._chosen or self._choose()
        if entry is None:
            raise IndexError("no task may begin")
        self._chosen = None
        first = self._heap[0]
        if first is entry:
            heappop(self._heap)
        else:  # it begins in the first place of the line; who has that gets its place instead
            owner = first[2]
            self._entries[owner] = other = (entry[0], first[1], owner)
            heapq.heapreplace(self._heap, other)
        if entry[2].key is not None:
            self.take_key(entry[2])
        del self._entries[entry[2]]

    def popleft(self) -> T:
        """Take out the task that is next, and its key with it.

        Raises:
            IndexError: none of them may begin now.
        """
        task = self[0]
        del self[0]
        return task

    def _choose(self) -> _Entry[T] | None:
        """Find the next, if any may begin."""
        heap, entries, keys = self._heap, self._entries, self._keys
        while heap:
            first = heap[0]
            task = first[2]
            if entries.get(task) is first:
                if (key := task.key) is None:
                    self._chosen = first
                    return first
                line = keys.get(key)
                if line is not None and (turn := line.standing) is not None and turn[3] is task:
                    break
            heappop(heap)
        else:
            return None
        turns = self._turns  # the place belongs to a task with a key, but any of these may begin
        while (line := keys.get(turns[0][3].key)) is None or line.standing is not turns[0]:
            heappop(turns)
        self._chosen = first = entries[turns[0][3]]
        return first

    def _stands(self, entry: _Entry[T]) -> bool:
        task = entry[2]
        if self._entries.get(task) is not entry:
            return False
        if task.key is None:
            return True
        line = self._keys.get(task.key)
        return line is not None and line.standing is not None and line.standing[3] is task

    def _has_turn(self, turn: _Turn[T]) -> bool:
        line = self._keys.get(turn[3].key)
        return line is not None and line.standing is turn

    def mended(self, queued: Callable[[T], bool], taken: Callable[[T], bool]) -> PriorityQueue[T]:
        """The same anew, whatever was interrupted at whatever point.

        Args:
            queued: whether a task still is.
            taken: whether it has begun.
        """
        new: PriorityQueue[T] = PriorityQueue((), self._stride)
        new._accepted, new._before = self._accepted, self._before
        new._turn_numbers = self._turn_numbers
        entries = OrderedDict(self._entries)
        for key, old in list(self._keys.items()):
            line = new._line_of(key)
            line.accepted, line.turn = old.accepted, old.turn
            line.holders = {
                task: None for task in list(old.holders) if not (task in entries and queued(task))
            }
        for task in entries:
            if task.key is not None and taken(task):
                new._line_of(task.key).holders[task] = None
        for task, entry in entries.items():
            if queued(task):
                new._insert(task, entry)
        for key, line in list(new._keys.items()):
            new._let_first_stand(key, line)
        return new

    def claim(self, task: T) -> None:
        """Take out a queued task that :meth:`may_begin`, before its turn, and its key with it.

        Raises:
            KeyError: it is not queued.
        """
        if task not in self._entries:
            raise KeyError(task)
        self._chosen = None
        self.take_key(task)
        del self._entries[task]
        self._sweep()

    def oldest(self) -> T:
        """The task that was accepted first.

        Raises:
            StopIteration: there is none.
        """
        return next(iter(self._entries))

    def remove(self, task: T) -> None:
        """Take a task out that will not begin.

        Raises:
            KeyError: it is not queued.
        """
        self._chosen = None
        del self._entries[task]
        if (line := self._keys.get(task.key)) is not None:
            line.waiting.pop(task, None)
            self._let_first_stand(task.key, line)
        self._sweep()

    # -- keys ------------------------------------------------------------------------------

    def may_begin(self, task: T) -> bool:
        """Whether the key of this task, which need not be queued, does not stand in its way."""
        line = self._keys.get(task.key)
        if line is None:
            return True
        first = line.first()
        return (first is None or first is task) and line.has_room_for(task)

    def holders(self, task: T) -> tuple[T, ...]:
        """The tasks for whose end this one, or the first of its key before it, has to wait."""
        line = self._keys.get(task.key)
        if line is None or line.has_room_for(line.first() or task):
            return ()
        return tuple(line.holders)

    def take_key(self, task: T) -> None:
        """The task begins: it counts among those of its key that run."""
        key = task.key
        if key is None:
            return
        line = self._keys.get(key) or self._line_of(key)
        line.holders[task] = None
        if task in line.waiting:
            del line.waiting[task]
        line.accepted, line.turn = self._accepted, next(self._turn_numbers)
        self._chosen = line.standing = None
        if line.waiting and task.key_limit > 1:
            self._let_first_stand(key, line)

    def release(self, task: T) -> bool:
        """A task is over, and does not hold its key any more.

        Returns:
            Whether more than one of the tasks that waited for that may begin now.
        """
        line = self._keys.get(task.key)
        if line is None or task not in line.holders:
            return False
        del line.holders[task]
        if line.holders or not line.waiting:
            self._let_first_stand(task.key, line)
        else:
            self._chosen = None
            self._stand(next(iter(line.waiting)), line)
        standing = line.standing
        return standing is not None and standing[3].key_limit > 1 and line.has_room_for_two()

    def _line_of(self, key: Hashable) -> _KeyLine[T]:
        line = self._keys.get(key)
        if line is None:
            self._keys[key] = line = _KeyLine()
        return line

    def _let_first_stand(self, key: Hashable, line: _KeyLine[T]) -> None:
        """Find out whether a task of this key stands in the line now."""
        self._chosen = None
        if not line.waiting:
            line.standing = None
            if not line.holders:
                self._keys.pop(key, None)
            return
        first = next(iter(line.waiting))
        if line.holders and not line.has_room_for(first):
            line.standing = None
            return
        self._stand(first, line)

    def _stand(self, first: T, line: _KeyLine[T]) -> None:
        """The first of its key stands in the line from now on, unless it does already."""
        if line.standing is not None and line.standing[3] is first:
            return
        rank, number, _ = entry = self._entries[first]
        turn = (rank, 0, number, first)  # if it comes back, it is the next
        if rank != _NEXT:
            # As if it had been accepted when its key had its last turn, unless it was later still.
            since = max(number, line.accepted) - self._stride * first.priority
            turn = (since, line.turn, number, first)
        heappush(self._heap, entry)
        heappush(self._turns, turn)
        line.standing = turn

    def _sweep(self) -> None:
        if len(self._heap) > 2 * len(self._entries) + _MIN_SWEEP:
            self._heap = [one for one in dict.fromkeys(self._heap) if self._stands(one)]
            heapq.heapify(self._heap)
        if len(self._turns) > 2 * len(self._keys) + _MIN_SWEEP:
            self._turns = [one for one in self._turns if self._has_turn(one)]
            heapq.heapify(self._turns)
