"""The decisions of a pipeline, against a model that goes through the items one after the other."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ion_actors.pipeline.flow import Cell, Flow, Shape, Work

shapes = st.one_of(
    st.builds(
        Shape,
        work=st.just(Work.TASK),
        window=st.integers(1, 4),
        ordered=st.booleans(),
    ),
    st.just(Shape(Work.CALL)),
    st.builds(
        Shape,
        work=st.just(Work.BATCH),
        window=st.integers(1, 4),
        within=st.one_of(st.none(), st.just(5.0)),
    ),
)


def outcome(stage: int, shape: Shape, item: Any, fans: list[int]) -> list[Any] | None:
    """What comes of an item in a stage: several items, or None if it fails."""
    fan = fans[(sum(leaves(item)) + stage) % len(fans)]
    if shape.work is Work.CALL:
        return [item] if fan else []
    return None if fan == 3 else [(item, number) for number in range(fan)]


def model(plan: list[Shape], count: int, fans: list[int]) -> list[Any]:
    items: list[Any] = list(range(count))
    for stage, shape in enumerate(plan):
        if shape.work is Work.BATCH:
            size = shape.window
            items = [tuple(items[n : n + size]) for n in range(0, len(items), size)]
        else:
            found = [outcome(stage, shape, item, fans) for item in items]
            items = [one for outputs in found for one in outputs or ()]
    return items


def leaves(item: Any) -> list[int]:
    return [item] if isinstance(item, int) else list(itertools.chain(*map(leaves, item)))


@dataclass
class Driver:
    """Does what a driver may do, in any order."""

    flow: Flow
    plan: list[Shape]
    fans: list[int]
    count: int
    begun: list[Cell]
    taken: list[Any]
    now: float = 0.0

    def check(self) -> None:
        for shape, station in zip(self.plan, self.flow.stations, strict=True):
            assert 0 <= station.count <= shape.window
        held = sum(station.count for station in self.flow.stations) + self.flow.ready
        assert held <= sum(shape.window for shape in self.plan) + 2
        for before, after in itertools.pairwise(self.flow.stations):
            assert before.items_out == after.items_in

    def end(self, cell: Cell) -> None:
        found = outcome(cell.stage, self.plan[cell.stage], cell.item, self.fans)
        if found is None:
            self.flow.fail(cell)
            self.flow.skip(cell)
        else:
            self.flow.end(cell, found)

    def settle(self) -> None:
        """What a driver does after each step."""
        self.flow.tick(self.now)
        while True:
            self.flow.hand_on()
            job = self.flow.next_job()
            if job is None:
                return
            if self.plan[job.stage].work is Work.CALL:
                self.end(job)
            else:
                self.begun.append(job)

    def choices(self) -> list[str]:
        found = ["pull"] * self.flow.wants + ["take"] * self.flow.ready
        return found + ["end"] * bool(self.begun) + ["tick"] * (self.flow.due is not None)

    def step(self, choice: str, which: int) -> None:
        if choice == "pull" and self.flow.pulled < self.count:
            self.flow.pull(self.flow.pulled)
        elif choice == "pull":
            self.flow.exhaust()
        elif choice == "take":
            item = self.flow.take()
            self.taken.append(item)
        elif choice == "end":
            self.end(self.begun.pop(which % len(self.begun)))
        else:
            self.now += 2.5
        self.settle()
        self.check()


def driver(plan: list[Shape], fans: list[int], count: int) -> Driver:
    return Driver(Flow(plan), plan, fans, count, [], [])


plans = st.lists(shapes, max_size=4)
fans = st.lists(st.integers(0, 3), min_size=1, max_size=5)


def hashable(outputs: list[Any]) -> list[Any]:
    """Batches are lists, and the model's are tuples."""
    return [tuple(hashable(list(one))) if isinstance(one, list | tuple) else one for one in outputs]


@given(plan=plans, fans=fans, count=st.integers(0, 12), data=st.data())
def test_all_items_go_through_in_order_and_within_bounds(
    plan: list[Shape], fans: list[int], count: int, data: st.DataObject
) -> None:
    one = driver(plan, fans, count)
    one.settle()
    while not one.flow.over:
        choices = one.choices()
        assert choices, "the flow is stuck"
        one.step(data.draw(st.sampled_from(choices)), data.draw(st.integers(0, 100)))
    assert not one.begun
    expected = model(plan, count, fans)
    if all(shape.ordered and shape.within is None for shape in plan):
        assert hashable(one.taken) == expected
    elif not any(shape.work is Work.BATCH for shape in plan):
        assert Counter(hashable(one.taken)) == Counter(expected)


@given(plan=plans, count=st.integers(0, 12), data=st.data(), before=st.integers(0, 30))
def test_nothing_is_pulled_or_given_after_the_end(
    plan: list[Shape], count: int, data: st.DataObject, before: int
) -> None:
    one = driver(plan, [1], count)
    one.settle()
    for _ in range(before):
        if not (choices := one.choices()):
            break
        one.step(data.draw(st.sampled_from(choices)), data.draw(st.integers(0, 100)))
    one.flow.close()
    assert one.flow.over
    assert not one.flow.wants
    assert not one.flow.ready
    assert one.flow.next_job() is None
    assert one.flow.due is None


@given(windows=st.lists(st.integers(1, 5), min_size=1, max_size=4), ordered=st.booleans())
def test_a_consumer_that_does_not_come_stops_the_source(windows: list[int], ordered: bool) -> None:
    plan = [Shape(Work.TASK, window, ordered) for window in windows]
    one = driver(plan, [1], 1000)
    while True:
        one.settle()
        if one.begun:
            one.end(one.begun.pop())
        elif one.flow.wants:
            one.flow.pull(one.flow.pulled)
        else:
            break
    assert one.flow.pulled == sum(windows) + 1  # one is on the way out


def test_after_a_failure_only_what_is_done_goes_on() -> None:
    one = driver([Shape(Work.TASK, 4), Shape(Work.CALL)], [1], 100)
    for _ in range(4):
        one.step("pull", 0)
    first, second, third, fourth = one.begun
    for cell in (fourth, first, second):
        one.end(cell)
    one.flow.fail(third)
    one.flow.stop()
    one.settle()
    for number in range(2):
        assert one.flow.take() == (number, 0)
        one.settle()
    assert not one.flow.ready
    assert not one.flow.wants


def test_after_a_failure_no_task_begins() -> None:
    one = driver([Shape(Work.TASK, 4), Shape(Work.TASK, 4)], [1], 100)
    one.step("pull", 0)
    one.step("pull", 0)
    failed, done = one.begun
    one.end(done)
    one.flow.fail(failed)
    one.flow.stop()
    one.flow.hold(0, held=False)  # room comes too late
    one.flow.skip(failed)
    one.flow.hand_on()
    assert one.flow.stations[1].count == 1
    assert one.flow.next_job() is None


def test_a_slow_item_holds_up_its_window_and_no_more() -> None:
    one = driver([Shape(Work.TASK, 3)], [1], 100)
    for _ in range(3):
        one.step("pull", 0)
    slow, *rest = one.begun
    for cell in rest:
        one.begun.remove(cell)
        one.end(cell)
    one.settle()
    assert not one.flow.wants
    assert not one.flow.ready
    one.end(slow)
    one.settle()
    assert one.flow.ready


def test_without_order_a_slow_item_is_overtaken() -> None:
    one = driver([Shape(Work.TASK, 2, ordered=False)], [1], 100)
    one.step("pull", 0)
    one.step("pull", 0)
    one.end(one.begun.pop(1))
    one.settle()
    assert one.flow.take() == (1, 0)
    assert one.flow.wants


def test_a_batch_is_closed_when_it_is_full_or_its_time_has_come() -> None:
    one = driver([Shape(Work.BATCH, 2, within=5.0)], [1], 100)
    for _ in range(3):
        one.step("pull", 0)
    assert one.flow.take() == [0, 1]
    one.settle()
    one.step("tick", 0)
    assert not one.flow.ready
    assert one.flow.due == 5.0
    one.step("tick", 0)
    assert one.flow.take() == [2]
    assert one.flow.due is None
