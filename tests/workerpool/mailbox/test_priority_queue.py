"""The queue with priorities and keys against a model that searches a list."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ion_actors.workerpool.mailbox.priority_queue import PriorityQueue

STRIDE = 3


@dataclass(eq=False)
class Item:
    priority: int = 0
    key: str | None = None
    number: int = 0


@dataclass
class Model:
    """Who waits, in the order of acceptance, and which keys are taken."""

    waiting: list[Item] = field(default_factory=list)
    returned: list[Item] = field(default_factory=list)  # to the front, the last one first
    holders: dict[str, Item] = field(default_factory=dict)
    accepted: int = 0

    def line(self) -> list[Item]:
        return self.returned + self.waiting

    def may_begin(self, item: Item) -> bool:
        if item.key is None:
            return True
        same = [one for one in self.line() if one.key == item.key]
        return item.key not in self.holders and (not same or same[0] is item)

    def next(self) -> Item | None:
        for item in self.returned:
            if self.may_begin(item):
                return item
        ready = [item for item in self.waiting if self.may_begin(item)]
        return min(
            ready, key=lambda one: (one.number - STRIDE * one.priority, one.number), default=None
        )

    def remove(self, item: Item) -> None:
        (self.returned if item in self.returned else self.waiting).remove(item)


class RankedMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.queue: PriorityQueue[Item] = PriorityQueue([], STRIDE)
        self.model = Model()
        self.out: list[Item] = []  # taken out, not over

    @rule(priority=st.integers(-2, 3), key=st.sampled_from([None, None, "a", "b"]))
    def append(self, priority: int, key: str | None) -> None:
        item = Item(priority, key, self.model.accepted)
        self.model.accepted += 1
        self.queue.append(item)
        self.model.waiting.append(item)

    @rule()
    def take(self) -> None:
        expected = self.model.next()
        if expected is None:
            with pytest.raises(IndexError):
                self.queue.popleft()
            return
        assert self.queue.popleft() is expected
        self.begin(expected)

    def begin(self, item: Item) -> None:
        self.model.remove(item)
        if item.key is not None:
            self.model.holders[item.key] = item
        self.out.append(item)

    @precondition(lambda self: self.out)
    @rule(which=st.integers(0, 100))
    def end(self, which: int) -> None:
        item = self.out.pop(which % len(self.out))
        self.queue.release(item)
        if item.key is not None:
            del self.model.holders[item.key]

    @precondition(lambda self: self.out)
    @rule(which=st.integers(0, 100))
    def give_back(self, which: int) -> None:
        item = self.out.pop(which % len(self.out))
        self.queue.appendleft(item)
        if item.key is not None:
            del self.model.holders[item.key]
        self.model.returned.insert(0, item)

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
            self.begin(item)

    @precondition(lambda self: self.model.line())
    @rule()
    def drop_oldest(self) -> None:
        oldest = self.model.line()[0]
        assert self.queue.pop_oldest() is oldest
        self.model.remove(oldest)

    @rule(key=st.sampled_from(["a", "b"]))
    def hand_over(self, key: str) -> None:
        """A task that never was in the queue begins, if its key is free."""
        item = Item(0, key, self.model.accepted)
        assert self.queue.may_begin(item) == self.model.may_begin(item)
        if self.model.may_begin(item):
            self.queue.take_key(item)
            self.model.holders[key] = item
            self.out.append(item)

    @invariant()
    def it_is_as_the_model(self) -> None:
        assert list(self.queue) == self.model.line()
        assert len(self.queue) == len(self.model.line())
        assert bool(self.queue) == (self.model.next() is not None)
        for key in ("a", "b"):
            assert self.queue.holder(Item(0, key)) is self.model.holders.get(key)

    @invariant()
    def what_was_removed_does_not_pile_up(self) -> None:
        assert len(self.queue._heap) <= 2 * len(self.queue) + 65


TestRanked = RankedMachine.TestCase


@given(st.lists(st.integers(-3, 3), max_size=60), st.lists(st.booleans(), max_size=60))
def test_nobody_is_overtaken_more_often_than_priorities_allow(
    priorities: list[int], takes: list[bool]
):
    queue: PriorityQueue[Item] = PriorityQueue([], STRIDE)
    order: list[Item] = []
    for number, priority in enumerate(priorities):
        queue.append(Item(priority, None, number))
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
    assert len(queue._heap) < 100
    assert queue.popleft() is items[0]
