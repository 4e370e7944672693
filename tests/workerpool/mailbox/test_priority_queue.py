"""The queue with priorities and keys against a model that searches a list."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ion_actors.workerpool.mailbox.priority_queue import PriorityQueue
from tests.inside import heap_of

STRIDE = 3


@dataclass(eq=False)
class Item:
    priority: int = 0
    key: str | None = None
    key_limit: int = 1
    number: int = 0  # in the order of acceptance
    place: float = 0.0  # in the line


@dataclass
class Model:
    """Who waits, in the order of acceptance, who runs, and when each key had its last turn."""

    waiting: list[Item] = field(default_factory=list)
    returned: list[Item] = field(default_factory=list)  # to the front, the last one first
    running: list[Item] = field(default_factory=list)
    turns: dict[str, tuple[int, int]] = field(default_factory=dict)  # accepted before, number
    accepted: int = 0
    turn: int = 0

    def accept(self, item: Item) -> None:
        self.accepted += 1
        item.number = self.accepted
        item.place = item.number - STRIDE * item.priority
        self.waiting.append(item)

    def line(self) -> list[Item]:
        return self.returned + self.waiting

    def running_of(self, key: str | None) -> list[Item]:
        return [one for one in self.running if one.key == key]

    def has_room(self, item: Item) -> bool:
        running = self.running_of(item.key)
        return len(running) < min([item.key_limit, *(one.key_limit for one in running)])

    def may_begin(self, item: Item) -> bool:
        if item.key is None:
            return True
        same = [one for one in self.line() if one.key == item.key]
        return (not same or same[0] is item) and self.has_room(item)

    def since(self, item: Item) -> tuple[int, int, int]:
        """When it is the turn of its key."""
        assert item.key is not None
        accepted, turn = self.turns.get(item.key, (0, 0))
        return max(item.number, accepted) - STRIDE * item.priority, turn, item.number

    def next(self) -> tuple[Item, Item] | None:
        """Who is next, and whose place it begins in."""
        for item in self.returned:
            if self.may_begin(item):
                return item, item
        standing = [item for item in self.waiting if self.may_begin(item)]
        if not standing:
            return None
        first = min(standing, key=lambda one: (one.place, one.number))
        if first.key is None:
            return first, first
        return min((one for one in standing if one.key is not None), key=self.since), first

    def begin(self, item: Item) -> None:
        if item in self.line():
            self.remove(item)
        self.running.append(item)
        if item.key is not None:
            self.turn += 1
            self.turns[item.key] = (self.accepted, self.turn)

    def remove(self, item: Item) -> None:
        (self.returned if item in self.returned else self.waiting).remove(item)
        self.forget(item.key)

    def forget(self, key: str | None) -> None:
        """A key of which nothing is known any more."""
        if key is not None and not any(one.key == key for one in [*self.line(), *self.running]):
            self.turns.pop(key, None)

    def end(self, item: Item) -> None:
        self.running.remove(item)
        self.forget(item.key)


KEYS = st.sampled_from([None, None, "a", "b", "c"])
LIMITS = st.sampled_from([1, 1, 2, 3])


class RankedMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.queue: PriorityQueue[Item] = PriorityQueue([], STRIDE)
        self.model = Model()

    @rule(priority=st.integers(-2, 3), key=KEYS, limit=LIMITS)
    def append(self, priority: int, key: str | None, limit: int) -> None:
        item = Item(priority, key, limit)
        self.model.accept(item)
        self.queue.append(item)

    @rule()
    def take(self) -> None:
        expected = self.model.next()
        if expected is None:
            with pytest.raises(IndexError):
                self.queue.popleft()
            return
        item, first = expected
        assert self.queue.popleft() is item
        item.place, first.place = first.place, item.place
        self.model.begin(item)

    @precondition(lambda self: self.model.running)
    @rule(which=st.integers(0, 100))
    def end(self, which: int) -> None:
        item = self.model.running[which % len(self.model.running)]
        self.model.end(item)
        several = self.queue.release(item)
        assert several == self.two_may_begin(item.key)

    def two_may_begin(self, key: str | None) -> bool:
        same = [one for one in self.model.line() if one.key == key]
        if key is None or len(same) < 2 or not self.model.has_room(same[0]):
            return False
        self.model.running.append(same[0])
        try:
            return self.model.has_room(same[1])
        finally:
            self.model.running.pop()

    @precondition(lambda self: self.model.running)
    @rule(which=st.integers(0, 100))
    def give_back(self, which: int) -> None:
        item = self.model.running.pop(which % len(self.model.running))
        self.queue.appendleft(item)
        item.place = -math.inf
        self.model.returned.insert(0, item)

    @precondition(lambda self: self.model.running)
    @rule(which=st.integers(0, 100))
    def try_again(self, which: int) -> None:
        """As after a failure: behind those that came back before it."""
        item = self.model.running.pop(which % len(self.model.running))
        self.model.accepted += 1
        self.queue.append_first(item)
        item.place = -math.inf
        self.model.returned.append(item)

    @precondition(lambda self: self.model.line())
    @rule(which=st.integers(0, 100))
    def remove(self, which: int) -> None:
        line = self.model.line()
        item = line[which % len(line)]
        self.queue.remove(item)
        self.model.remove(item)

    @precondition(lambda self: self.model.line())
    @rule(which=st.integers(0, 100))
    def claim(self, which: int) -> None:
        line = self.model.line()
        item = line[which % len(line)]
        assert self.queue.may_begin(item) == self.model.may_begin(item)
        if self.model.may_begin(item):
            self.queue.claim(item)
            self.model.begin(item)

    @precondition(lambda self: self.model.line())
    @rule()
    def drop_oldest(self) -> None:
        oldest = self.model.line()[0]
        assert self.queue.oldest() is oldest
        self.queue.remove(oldest)
        self.model.remove(oldest)

    @rule(key=st.sampled_from(["a", "b", "c"]), limit=LIMITS)
    def hand_over(self, key: str, limit: int) -> None:
        """A task that never was in the queue begins, if there is room for its key."""
        item = Item(0, key, limit, self.model.accepted)
        assert self.queue.may_begin(item) == self.model.may_begin(item)
        if self.model.may_begin(item):
            self.queue.take_key(item)
            self.model.begin(item)

    @rule()
    def mend(self) -> None:
        """An interruption at a point where nothing was under way changes nothing."""
        self.queue = self.queue.mended(
            lambda one: one in self.model.line(), lambda one: one in self.model.running
        )

    @invariant()
    def it_is_as_the_model(self) -> None:
        line = self.model.line()
        assert list(self.queue) == line
        assert len(self.queue) == len(line)
        assert bool(self.queue) == (self.model.next() is not None)
        for key in ("a", "b", "c"):
            probe = Item(0, key)
            first = next((one for one in line if one.key == key), probe)
            running = [] if self.model.has_room(first) else self.model.running_of(key)
            assert set(self.queue.holders(probe)) == set(running)

    @invariant()
    def no_limit_is_exceeded(self) -> None:
        for item in self.model.running:
            assert item.key is None or len(self.model.running_of(item.key)) <= item.key_limit

    @invariant()
    def what_was_removed_does_not_pile_up(self) -> None:
        assert len(heap_of(self.queue)) <= 2 * len(self.queue) + 65
        assert len(self.queue._turns) <= 2 * len(self.queue._keys) + 65

    @invariant()
    def what_is_over_is_forgotten(self) -> None:
        known = {one.key for one in [*self.model.line(), *self.model.running]} - {None}
        assert set(self.queue._keys) == known


TestRanked = RankedMachine.TestCase


@given(st.lists(st.integers(-3, 3), max_size=60), st.lists(st.booleans(), max_size=60))
def test_nobody_is_overtaken_more_often_than_priorities_allow(
    priorities: list[int], takes: list[bool]
):
    queue: PriorityQueue[Item] = PriorityQueue([], STRIDE)
    order: list[Item] = []
    for number, priority in enumerate(priorities):
        queue.append(Item(priority, number=number))
        if takes[number : number + 1] == [True]:
            order.append(queue.popleft())
    order += [queue.popleft() for _ in range(len(queue))]
    for place, item in enumerate(order):
        overtook = [one for one in order[:place] if one.number > item.number]
        levels = max((one.priority for one in overtook), default=0) - item.priority
        assert len(overtook) <= max(0, levels) * STRIDE
        assert all(one.priority > item.priority for one in overtook)


def test_what_was_queued_before_keeps_its_order():
    early = [Item(number=n) for n in range(3)]
    queue = PriorityQueue(early, STRIDE)
    urgent = Item(priority=1)
    queue.append(urgent)
    assert [queue.popleft() for _ in range(4)] == [*early[:1], urgent, *early[1:]]


def test_cancelling_most_of_a_long_queue_frees_its_places():
    queue: PriorityQueue[Item] = PriorityQueue([], STRIDE)
    items = [Item(number=n) for n in range(1000)]
    for item in items:
        queue.append(item)
    for item in items[1:]:
        queue.remove(item)
    assert len(heap_of(queue)) < 100
    assert queue.popleft() is items[0]


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.booleans()), max_size=80), st.integers(1, 3))
def test_while_a_key_waits_for_its_turn_no_other_has_more_than_one(
    steps: list[tuple[str, bool]], limit: int
):
    queue: PriorityQueue[Item] = PriorityQueue([], STRIDE)
    waiting: dict[str, list[Item]] = {key: [] for key in "abcd"}
    passed: dict[str, dict[str, int]] = {key: dict.fromkeys("abcd", 0) for key in "abcd"}

    def take() -> None:
        item = queue.popleft()
        assert item.key is not None
        assert waiting[item.key].pop(0) is item, "in the order of its key"
        for key, line in waiting.items():
            if key != item.key and line:
                passed[key][item.key] += 1
                assert passed[key][item.key] <= 1
        passed[item.key] = dict.fromkeys("abcd", 0)
        queue.release(item)

    for number, (key, takes) in enumerate(steps):
        item = Item(0, key, limit, number)
        queue.append(item)
        waiting[key].append(item)
        if takes:
            take()
    while queue:
        take()


def test_a_key_with_ten_thousand_tasks_does_not_hold_up_the_others():
    queue: PriorityQueue[Item] = PriorityQueue([], 10_000)
    for number in range(10_000):
        queue.append(Item(0, "hot", 2, number))
    late, plain = Item(0, "late", 2), Item()
    queue.append(late)
    queue.append(plain)
    begun = []
    for _ in range(2):
        begun.append(queue.popleft())
        queue.release(begun[-1])
    assert late in begun
    rest = [queue.popleft() for _ in range(2)]  # nothing ends: the key is full
    assert [one.key for one in rest] == ["hot", "hot"]
    assert queue.popleft() is plain


def test_tasks_without_a_key_are_overtaken_by_no_more_than_there_were_before():
    queue: PriorityQueue[Item] = PriorityQueue([], STRIDE)
    items = [Item(0, "hot", 1, number) for number in range(10)]
    plain = Item(number=10)
    for item in [*items, plain, *(Item(0, f"key {n}", 1, 11 + n) for n in range(1000))]:
        queue.append(item)
    before = 0
    while (item := queue.popleft()) is not plain:
        queue.release(item)
        before += 1
    assert before <= 10


def test_a_limit_of_one_among_greater_ones_is_kept_as_by_a_lock_of_readers_and_writers():
    queue: PriorityQueue[Item] = PriorityQueue([], STRIDE)
    readers = [Item(0, "k", 3, n) for n in range(2)]
    writer, later = Item(0, "k", 1), [Item(0, "k", 3, n) for n in range(3)]
    for item in [*readers, writer, *later]:
        queue.append(item)
    assert [queue.popleft(), queue.popleft()] == readers
    assert not queue, "the writer waits for both, and whoever came after it waits for the writer"
    assert queue.holders(later[0]) == tuple(readers)
    assert not queue.release(readers[0])
    assert not queue
    assert not queue.release(readers[1])
    assert queue.popleft() is writer
    assert not queue
    assert queue.release(writer)
    assert [queue.popleft() for _ in range(3)] == later
