"""When time limits end tasks: one structure for all tasks of a pool."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import itertools
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ion_actors import Context, DeadlineExceeded, Pool, TaskExpired, current_context
from ion_actors.clock import Timer, system_clock
from ion_actors.testing import VirtualClock
from ion_actors.workerpool.mailbox.deadlines import Deadlines
from tests.workerpool.helpers import PATIENCE, Gate, eventually


@pytest.fixture
def gate() -> Iterator[Gate]:
    one = Gate()
    yield one
    one.open()


class Limit:
    """Something with limits that end it one after the other."""

    def __init__(self, clock: VirtualClock, moments: list[float]) -> None:
        self.clock = clock
        self.moments = sorted(moments)
        self.rung: list[float] = []

    def next_limit(self) -> float | None:
        return self.moments[0] if self.moments else None

    def end_in_time(self) -> None:
        self.rung.append(self.clock.monotonic())
        self.moments.pop(0)


class StubbornLimit(Limit):
    """It does not end at its limit."""

    def end_in_time(self) -> None:
        self.rung.append(self.clock.monotonic())


_ADD = st.tuples(st.just("add"), st.lists(st.integers(1, 50), min_size=1, max_size=3, unique=True))
_STEP = st.one_of(
    _ADD,
    st.tuples(st.just("pass"), st.integers(0, 20)),
    st.tuples(st.just("end"), st.integers(0, 30)),
)


@given(st.lists(_STEP, max_size=40), st.integers(1, 8), st.booleans())
def test_each_limit_rings_at_its_moment_unless_it_has_ended_before(
    steps: list[tuple[str, Any]], least: int, exact: bool
) -> None:
    clock = VirtualClock()
    watch: Deadlines[Limit] = Deadlines(clock, least)
    watch.exact = exact
    limits: list[Limit] = []
    expected: list[list[float]] = []
    for kind, what in steps:
        if kind == "add":
            moments = [clock.monotonic() + one for one in what]
            limits.append(Limit(clock, moments))
            expected.append(sorted(moments))
            watch.add(limits[-1], min(moments))
        elif kind == "pass":
            clock.advance(what)
        elif what < len(limits):
            now = clock.monotonic()
            expected[what] = [one for one in expected[what] if one <= now]
            limits[what].moments.clear()
            if exact:
                watch.look_again()
        if exact:
            pending = [one.next_limit() for one in limits]
            first = min((one for one in pending if one is not None), default=None)
            assert clock.moments == ([] if first is None else [first])
    clock.advance(100)
    assert [one.rung for one in limits] == expected
    assert clock.timers == 0


def test_what_does_not_end_at_its_limit_rings_once() -> None:
    clock = VirtualClock()
    watch: Deadlines[Limit] = Deadlines(clock)
    stubborn = StubbornLimit(clock, [1.0])
    other = Limit(clock, [2.0])
    watch.add(stubborn, 1.0)
    watch.add(other, 2.0)
    clock.advance(5.0)
    assert (stubborn.rung, other.rung, clock.timers) == ([1.0], [2.0], 0)


def test_many_that_end_early_are_not_kept_and_plan_one_timer() -> None:
    clock = VirtualClock()
    watch: Deadlines[Limit] = Deadlines(clock, patience=100)
    watch.exact = False
    for number in range(1000):
        one = Limit(clock, [60.0 + number])
        watch.add(one, one.moments[0])
        alive = weakref.ref(one)
        del one
        assert alive() is None
    assert clock.timers == 1
    assert len(watch) <= 200
    watch.stop()
    assert clock.timers == 0


def test_threads_that_add_at_the_same_time_lose_none() -> None:
    clock = VirtualClock()
    watch: Deadlines[Limit] = Deadlines(clock)
    watch.exact = False
    numbers = itertools.count()
    limits = [[Limit(clock, [1000.0 - 4 * i - j]) for i in range(200)] for j in range(4)]
    ready = threading.Barrier(5)

    def add(mine: list[Limit]) -> None:
        ready.wait()
        for one in mine:
            watch.add(one, one.moments[0])
            next(numbers)

    crew = [threading.Thread(target=add, args=(mine,)) for mine in limits]
    for thread in crew:
        thread.start()
    ready.wait()
    while next(numbers) < 400:
        clock.advance(0.5)
    for thread in crew:
        thread.join()
    clock.advance(2000.0)
    assert all(len(one.rung) == 1 for mine in limits for one in mine)


@pytest.mark.parametrize("options", [{"timeout": 0.05}, {"ttl": 0.05}])
def test_a_queued_task_ends_when_its_time_is_over_though_no_worker_comes(
    options: dict[str, Any], gate: Gate
) -> None:
    error = DeadlineExceeded if "timeout" in options else TaskExpired
    with Pool(1, 5) as pool:
        pool.submit(gate)
        gate.await_entered()
        hurried = pool.options(**options).submit(int)
        patient = pool.options(timeout=60.0, ttl=60.0).submit(int, "3")
        with pytest.raises(error):
            hurried.result(PATIENCE)
        assert not patient.done()
        gate.open()
        assert patient.result(PATIENCE) == 3


def test_of_two_limits_of_a_task_the_first_one_counts(clock: VirtualClock, gate: Gate) -> None:
    with Pool(1, 5, context=Context(clock=clock)) as pool:
        pool.submit(gate)
        gate.await_entered()
        expires = pool.options(ttl=1.0, timeout=2.0).submit(int)
        ends = pool.options(ttl=2.0, timeout=1.0).submit(int)
        clock.advance(1.0)
        with pytest.raises(TaskExpired):
            expires.result(0)
        with pytest.raises(DeadlineExceeded):
            ends.result(0)
        gate.open()


def test_a_task_that_is_late_when_it_begins_ends_with_its_name() -> None:
    with Pool(1) as pool:
        pool.submit(int).result(PATIENCE)  # the worker is awake
        for _ in range(20):
            task = pool.options(name="late", timeout=0.0).submit(int)
            with pytest.raises(DeadlineExceeded, match="task 'late': the deadline has passed"):
                task.result(PATIENCE)


def test_a_task_with_a_ttl_that_runs_is_ended_by_its_timeout(
    clock: VirtualClock, gate: Gate
) -> None:
    with Pool(1, 5, context=Context(clock=clock)) as pool:
        task = pool.options(ttl=1.0, timeout=2.0).submit(gate)
        gate.await_entered()
        clock.advance(1.5)
        assert not task.done()
        clock.advance(0.5)
        with pytest.raises(DeadlineExceeded):
            task.result(0)
        gate.open()


def test_a_thread_that_a_task_starts_has_its_deadline_before_anybody_asked_for_it() -> None:
    found: list[float | None] = []

    def look() -> None:
        found.append(current_context().deadline)

    def task() -> None:
        copied = contextvars.copy_context()
        thread = threading.Thread(target=copied.run, args=(look,))
        thread.start()
        thread.join()
        look()

    with Pool(1) as pool:
        pool.options(timeout=60.0).submit(task).result(PATIENCE)
    assert found[0] is not None
    assert found[0] == found[1]


def test_a_coroutine_and_what_it_has_run_in_a_thread_have_its_deadline() -> None:
    async def task() -> tuple[float | None, float | None]:
        return current_context().deadline, await asyncio.to_thread(
            lambda: current_context().deadline
        )

    with Pool(1) as pool:
        here, there = pool.options(timeout=60.0).submit(task).result(PATIENCE)
    assert here is not None
    assert here == there


@pytest.mark.parametrize("options", [{"timeout": 600.0}, {"ttl": 600.0}])
def test_a_pool_that_ended_waits_for_no_limit(options: dict[str, Any]) -> None:
    before = system_clock.timers
    with Pool(2) as pool:
        for future in [pool.options(**options).submit(int) for _ in range(10)]:
            future.result(PATIENCE)
    eventually(lambda: system_clock.timers <= before)


def test_a_limit_does_not_keep_a_result() -> None:
    class Result:
        """Something that can be referred to weakly."""

    with Pool(1) as pool:
        future = pool.options(timeout=600.0, ttl=600.0).submit(Result)
        result = weakref.ref(future.result(PATIENCE))
        del future
        eventually(lambda: gc.collect() is not None and result() is None)


def test_an_interruption_while_a_moment_is_planned_leaves_later_ones_planned() -> None:
    class Clock(VirtualClock):
        """A clock that can be interrupted."""

        interrupted = False

        def call_at(self, when: float, call: Any) -> Timer:
            if self.interrupted:
                self.interrupted = False
                raise KeyboardInterrupt
            return super().call_at(when, call)

    clock = Clock()
    watch: Deadlines[Limit] = Deadlines(clock)
    first, second = Limit(clock, [1.0]), Limit(clock, [2.0])
    clock.interrupted = True
    with pytest.raises(KeyboardInterrupt):
        watch.add(first, 1.0)
    watch.add(second, 2.0)
    clock.advance(3.0)
    assert (first.rung, second.rung) == ([1.0], [2.0])
