"""One budget: a deadline at the edge covers the wait for room, the queue, the run, and what the
task submits in turn, wherever to."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ion_actors import Context, DeadlineExceeded, Future, Pool, current_context
from ion_actors.testing import VirtualClock
from tests.workerpool.helpers import PATIENCE, Gate, busy, eventually, run_in_thread, until_waiting


def remaining() -> float | None:
    return current_context().remaining()


def under(context: Context, call: Any, *args: Any) -> Any:
    with context:
        return call(*args)


def test_the_wait_for_room_is_covered(clock: VirtualClock) -> None:
    with Pool(1, 0, context=Context(clock=clock)) as pool, busy(pool):
        budget = Context(timeout=5, clock=clock)
        waiting = run_in_thread(under, budget, pool.submit, pow, 2, 2)
        until_waiting(pool, 1)
        clock.advance(5)
        assert isinstance(waiting.exception(PATIENCE), DeadlineExceeded)
    assert pool.metrics().submitted == 1, "that was the busy one"


def test_the_queue_is_covered(clock: VirtualClock) -> None:
    with Pool(1, context=Context(clock=clock)) as pool, busy(pool):
        with Context(timeout=5, clock=clock):
            queued = pool.submit(pow, 2, 2)
        clock.advance(5)
        assert isinstance(queued.exception(PATIENCE), DeadlineExceeded)
        assert pool.metrics().queued == 0, "it gives up its place at once"


def test_the_run_is_covered_and_sees_what_is_left(clock: VirtualClock) -> None:
    with Pool(1, context=Context(clock=clock)) as pool:
        with Context(timeout=5, clock=clock):
            with busy_for(pool, clock, 2):
                left = pool.submit(remaining)
            assert left.result(PATIENCE) == 3
            sleeping = pool.submit(lambda: current_context().sleep(60))
        eventually(lambda: pool.metrics().running)
        clock.wait_for_timers(2)
        clock.advance(3)
        assert isinstance(sleeping.exception(PATIENCE), DeadlineExceeded)


class busy_for:  # read as a word
    """The pool's workers are busy for so many seconds of the clock."""

    def __init__(self, pool: Pool, clock: VirtualClock, seconds: float) -> None:
        self._busy, self._clock, self._seconds = busy(pool), clock, seconds

    def __enter__(self) -> None:
        self._busy.__enter__()

    def __exit__(self, *details: Any) -> None:
        self._clock.advance(self._seconds)
        self._busy.__exit__(*details)


def test_what_a_task_submits_in_turn_has_the_same_budget_in_any_pool(clock: VirtualClock) -> None:
    root = Context(clock=clock)
    with Pool(1, context=root) as first, Pool(1, context=root) as second:

        def outer() -> list[float | None]:
            clock.advance(1)
            here = first.submit(remaining).result()
            clock.advance(1)
            there = second.submit(lambda: (clock.advance(1), first.submit(remaining))[1]).result()
            return [here, there.result()]

        with Context(timeout=10, clock=clock):
            assert first.submit(outer).result(PATIENCE) == [9, 7]


def test_grandchildren_end_with_it(clock: VirtualClock) -> None:
    root = Context(clock=clock)
    below: list[Future[Any]] = []
    with Pool(1, context=root) as first, Pool(1, context=root) as second:
        entered = Gate()
        entered.open()

        def inner() -> None:
            entered()
            current_context().sleep(60)

        def outer() -> None:
            below.append(second.submit(inner))
            below.append(second.submit(inner))  # it is queued until the end
            below[0].result()

        with Context(timeout=5, clock=clock):
            top = first.submit(outer)
        entered.await_entered()
        eventually(lambda: len(below) == 2)
        clock.wait_for_timers(2)
        clock.advance(5)
        for future in (top, *below):
            assert isinstance(future.exception(PATIENCE), DeadlineExceeded)


def test_a_nested_task_may_have_less_and_never_more(clock: VirtualClock) -> None:
    with Pool(2, context=Context(clock=clock)) as pool:

        def outer() -> list[float | None]:
            short = pool.options(timeout=2).submit(remaining)
            long = pool.options(timeout=60).submit(remaining)
            return [short.result(), long.result()]

        with Context(timeout=10, clock=clock):
            assert pool.submit(outer).result(PATIENCE) == [2, 10]


def test_a_time_limit_of_a_task_is_the_budget_of_what_it_submits(clock: VirtualClock) -> None:
    with Pool(2, context=Context(clock=clock)) as pool:

        def outer() -> float | None:
            clock.advance(3)
            return pool.submit(remaining).result()

        assert pool.options(timeout=10).submit(outer).result(PATIENCE) == 7


@pytest.mark.parametrize("verb", ["map", "map_unordered"])
def test_map_is_covered(clock: VirtualClock, verb: str) -> None:
    with Pool(2, context=Context(clock=clock)) as pool:
        with Context(timeout=10, clock=clock):
            clock.advance(4)
            left = list(getattr(pool, verb)(lambda _: remaining(), range(5)))
        assert left == [6] * 5
        gate = Gate()
        with pytest.raises(DeadlineExceeded), Context(timeout=5, clock=clock):
            results = getattr(pool, verb)(lambda _: gate(), range(3))
            ended = run_in_thread(lambda: (gate.await_entered(), clock.advance(5)))
            list(results)
        ended.result(PATIENCE)
        gate.open()


def test_coroutines_are_covered(clock: VirtualClock) -> None:
    root = Context(clock=clock)

    async def main() -> list[float | None]:
        async with Pool(1, context=root) as first, Pool(1, context=root) as second:

            async def inner() -> float | None:
                return remaining()

            async def outer() -> list[float | None]:
                here = remaining()
                clock.advance(2)
                return [here, await (await second.asubmit(inner))]

            async with Context(timeout=10, clock=clock):
                left = await (await first.asubmit(outer))
                clock.advance(1)
                return [*left, *[one async for one in first.amap(lambda _: remaining(), [0])]]

    assert asyncio.run(main()) == [10, 8, 7]


def test_a_task_that_takes_its_worker_down_has_one_budget_for_all_tries(
    clock: VirtualClock,
) -> None:
    left: list[float | None] = []

    def panics() -> None:
        left.append(remaining())
        clock.advance(2)
        if len(left) < 3:
            raise SystemExit

    with Pool(1, context=Context(clock=clock)) as pool, Context(timeout=10, clock=clock):
        pool.options(retry_on_worker_death=5).submit(panics).result(PATIENCE)
    assert left == [10, 8, 6]


def test_work_that_shall_outlive_it_says_so(clock: VirtualClock) -> None:
    from ion_actors import background

    with Pool(1, context=Context(clock=clock)) as pool, busy(pool):
        with Context(timeout=5, clock=clock):
            mine = pool.submit(remaining)
            shielded = pool.options(context=background()).submit(remaining)
        clock.advance(5)
        assert isinstance(mine.exception(PATIENCE), DeadlineExceeded)
        assert not shielded.done()
    assert shielded.result(PATIENCE) is None
