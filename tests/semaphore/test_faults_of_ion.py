"""The faults of ion's semaphore, as observed by running it on Go: none of them is ours."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from ion_actors import AcquireTimeout, Context, DeadlineExceeded
from ion_actors.semaphore import Fairness, WeightedSemaphore
from ion_actors.testing import VirtualClock

PATIENCE = 30.0
Until = Callable[[Callable[[], object]], None]


class LateSleeper(VirtualClock):
    """A clock on which something happens between the joining of the line and the sleep."""

    def __init__(self, happens: Callable[[], object]) -> None:
        super().__init__()
        self._happens = happens

    def park(self, signal: threading.Lock, deadline: float | None) -> bool:
        self._happens()
        return super().park(signal, deadline)


def test_a_waiter_that_is_served_before_it_sleeps_wakes_up() -> None:
    """ion: the first lost wake-up. The permit went to nobody, and the waiter timed out."""
    one = WeightedSemaphore(1)
    one.acquire()
    context = Context(clock=LateSleeper(one.release))
    assert one.acquire(timeout=5.0, context=context)
    assert one.available == 0


def test_a_waiter_that_is_late_as_it_is_served_hands_its_turn_on(
    threads: ThreadPoolExecutor, until: Until, clock: VirtualClock
) -> None:
    """ion: the second lost wake-up. The turn of one whose context had ended was lost."""
    one = WeightedSemaphore(1)
    one.acquire()
    ended, lasting = Context(clock=clock), Context(clock=clock)
    first = threads.submit(one.acquire, context=ended)
    until(lambda: one.waiting == 1)
    second = threads.submit(one.acquire, context=lasting)
    until(lambda: one.waiting == 2)

    ended.cancel()
    one.release()

    assert second.result(PATIENCE)
    assert first.exception(PATIENCE) is not None
    assert (one.available, one.waiting) == (0, 0)


@pytest.mark.parametrize("fairness", Fairness)
def test_no_waiter_times_out_while_a_permit_is_free(
    fairness: Fairness, threads: ThreadPoolExecutor, clock: VirtualClock
) -> None:
    """ion: a waiter timed out with a permit free."""
    one = WeightedSemaphore(2, fairness=fairness)
    one.acquire(2)
    context = Context(clock=clock)
    waits = [threads.submit(one.acquire, timeout=5.0, context=context) for _ in range(4)]
    clock.wait_for_timers(4)
    one.release(2)
    clock.wait_for_timers(2)
    clock.advance(10.0)
    outcomes = [wait.exception(PATIENCE) for wait in waits]
    assert sum(outcome is None for outcome in outcomes) == 2
    assert one.available == 0


def test_with_a_logger_that_takes_a_millisecond_nobody_fails(
    threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ion: 46 of 50 waiters failed."""

    class Slow(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            time.sleep(0.001)

    logger = logging.getLogger("slow")
    monkeypatch.setattr(logger, "level", logging.DEBUG)
    monkeypatch.setattr(logger, "handlers", [Slow()])
    one = WeightedSemaphore(1, logger=logger)
    one.acquire()

    def take_and_give() -> None:
        with one.hold(timeout=PATIENCE):
            pass

    async def many() -> None:
        async def take_and_give() -> None:
            async with one.hold(timeout=PATIENCE):
                pass

        await asyncio.gather(*(take_and_give() for _ in range(25)))

    waits = [threads.submit(take_and_give) for _ in range(25)]
    waits.append(threads.submit(asyncio.run, many()))
    one.release()
    assert [wait.exception(PATIENCE) for wait in waits] == [None] * 26
    assert one.available == 1


def test_the_light_do_not_barge_past_the_heavy(threads: ThreadPoolExecutor, until: Until) -> None:
    """ion: FIFO served the first waiter that fitted, so that a heavy one never got its turn."""
    one = WeightedSemaphore(3)
    one.acquire(3)
    heavy = threads.submit(one.acquire, 3)
    until(lambda: one.waiting == 1)
    light = threads.submit(one.acquire, 1)
    until(lambda: one.waiting == 2)

    one.release(2)  # enough for the light one
    assert one.try_acquire(1) is False, "nor may one who tries"
    with pytest.raises(AcquireTimeout):
        one.acquire(1, timeout=0)
    assert (one.available, one.waiting) == (2, 2)

    one.release(1)
    assert heavy.result(PATIENCE)
    assert not light.done()
    one.release(3)
    assert light.result(PATIENCE)


def test_the_timeouts_error_is_the_deadlines_error() -> None:
    """ion: whoever looked for the deadline's error did not find it."""
    one = WeightedSemaphore(1)
    one.acquire()
    with pytest.raises(DeadlineExceeded):
        one.acquire(timeout=0.001)
    with pytest.raises(TimeoutError):
        one.acquire(timeout=0)
