"""Pools whose size follows their work. What is decided is tested in ``tests/adaptive``."""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
import time
from typing import Any

import pytest

from ion_actors import Context, Pool, PoolClosed, current_context
from ion_actors.adaptive import Adaptive
from ion_actors.testing import VirtualClock
from tests.workerpool.helpers import PATIENCE, Gate, all_is_told, busy, eventually, run_in_thread

QUICK = 0.02  # seconds between two looks


def waits() -> None:
    time.sleep(0.002)  # as for a server


def sleeps() -> None:
    current_context().sleep(1.0)


def run_for(pool: Pool, clock: VirtualClock, seconds: float) -> list[int]:
    """All workers have something to do, which takes a second, for so long. Returns the sizes."""

    def all_sleep() -> bool:
        """Each worker has a task, also those that are too many, and the next look is planned."""
        return clock.timers - 1 == pool.metrics().running >= pool.size

    end, sizes = clock.monotonic() + seconds, []
    while clock.monotonic() < end:
        eventually(all_sleep)
        sizes.append(pool.size)
        clock.advance_to_next()
    return sizes


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


def test_a_pool_grows_while_tasks_wait_and_shrinks_when_there_are_none(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "ion_actors.pool")
    with Pool(Adaptive(1, 4, interval=QUICK), name="follows") as pool:
        assert pool.size == pool.metrics().size == 1
        done = threading.Event()

        def work() -> bool:
            while not done.is_set():
                list(pool.map(lambda _: time.sleep(0.002), range(100)))
            return True

        working = run_in_thread(work)
        eventually(lambda: pool.size == 4)
        done.set()
        assert working.result(PATIENCE)
        eventually(lambda: pool.size == 1)
        assert (pool.metrics().size, pool.dump().size) == (1, 1)
        assert "size=1," in repr(pool)
        eventually(lambda: len(pool.dump().workers) == 1)
    all_is_told()
    said = [one.getMessage() for one in caplog.records if "workers now" in one.getMessage()]
    assert any(one.startswith("pool 'follows' has 2 workers now, and had 1") for one in said), said


def test_the_size_follows_by_the_clock_of_the_pool(clock: VirtualClock) -> None:
    with Pool(Adaptive(1, 8, interval=5.0), context=Context(clock=clock)) as pool:
        tasks = [pool.submit(sleeps) for _ in range(3_000)]
        sizes = run_for(pool, clock, 300)
        assert max(sizes) == 8
        assert min(sizes[len(sizes) // 2 :]) >= 4
        for one in tasks:
            one.cancel()
        eventually(lambda: pool.metrics().queued == 0 and not pool.metrics().running)
        for _ in range(100):
            eventually(lambda: clock.timers == 1)
            clock.advance_to_next()
        eventually(lambda: pool.size == 1)
    assert clock.timers == 0


@pytest.mark.parametrize("end", ["drain", "close"])
def test_no_look_is_left_when_the_pool_ends(end: str, clock: VirtualClock) -> None:
    pool = Pool(Adaptive(2, 8), context=Context(clock=clock))
    eventually(lambda: clock.timers == 1)
    with busy(pool) as gate:
        for _ in range(3):
            clock.advance_to_next()
            eventually(lambda: clock.timers == 1)
        ending = run_in_thread(getattr(pool, end))
        eventually(lambda: pool.is_draining or pool.is_closed)
        gate.open()
    assert ending.result(PATIENCE)
    assert clock.timers == 0
    with pytest.raises(PoolClosed):
        pool.resize(3)


def test_a_pool_of_fixed_size_never_looks(clock: VirtualClock) -> None:
    with Pool(2, context=Context(clock=clock)) as pool:
        assert pool.submit(int).result(PATIENCE) == 0
        assert clock.timers == 0


def test_a_pool_that_is_paused_does_not_grow(clock: VirtualClock) -> None:
    with Pool(Adaptive(2, 8), context=Context(clock=clock)) as pool:
        pool.pause()
        for _ in range(100):
            pool.submit(int)
        for _ in range(20):
            eventually(lambda: clock.timers == 1)
            clock.advance_to_next()
        eventually(lambda: clock.timers == 1)
        assert pool.size == 2


def test_it_goes_on_from_a_size_that_is_set_by_hand(clock: VirtualClock) -> None:
    with Pool(Adaptive(2, 8), context=Context(clock=clock)) as pool:
        for given, kept in ((6, 6), (30, 8), (1, 2)):
            pool.resize(given)
            assert pool.size == given
            eventually(lambda: clock.timers == 1)
            clock.advance_to_next()
            eventually(lambda: clock.timers == 1)
            assert pool.size == kept


def test_slots_of_an_event_loop_follow_the_work_too() -> None:
    async def answers(number: int) -> int:
        await asyncio.sleep(0.002)
        return number

    async def main() -> None:
        async with Pool(Adaptive(1, 8, interval=QUICK), backend="asyncio") as pool:
            largest = 0
            async for _ in pool.amap(answers, itertools.count()):
                largest = max(largest, pool.size)
                if largest == 8:
                    break
            await pool.aclose(PATIENCE)

    asyncio.run(asyncio.wait_for(main(), PATIENCE))


def test_a_task_that_takes_long_does_not_hold_up_all_others() -> None:
    gate = Gate()
    with Pool(Adaptive(1, 4, interval=QUICK)) as pool:
        pool.submit(gate)
        gate.await_entered()
        assert pool.submit(pow, 2, 3).result(PATIENCE) == 8
        gate.open()


def test_without_a_queue_it_grows_for_submitters_that_wait() -> None:
    with Pool(Adaptive(1, 4, interval=QUICK), 0) as pool:
        done = threading.Event()

        def submit() -> None:
            while not done.is_set():
                pool.submit(waits).result(PATIENCE)

        submitting = [run_in_thread(submit) for _ in range(8)]
        eventually(lambda: pool.size >= 2)
        done.set()
        for one in submitting:
            one.result(PATIENCE)


def test_a_map_feeds_as_many_workers_as_there_may_be() -> None:
    gate, pulled = Gate(), []
    with Pool(Adaptive(1, 100)) as pool:
        results = pool.map(lambda _: gate(), (pulled.append(n) for n in itertools.count()))
        first = run_in_thread(next, results)
        gate.await_entered()
        eventually(lambda: len(pulled) >= 400)
        gate.open()
        assert first.result(PATIENCE) == "through"
        results.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("size", "says"),
    [
        (Adaptive, "size must be an instance of .*Adaptive.*: write Adaptive"),
        ((1, 4), "size must be a whole number, not .1, 4."),
        ("4", "size must be a whole number, not '4'"),
        (2.0, "size must be a whole number, not 2.0"),
        (True, "size must be a whole number, not True"),
        (0, "size must be at least 1, not 0"),
    ],
)
def test_a_senseless_size_is_named(size: Any, says: str) -> None:
    with pytest.raises((TypeError, ValueError), match=says):
        Pool(size)
