"""Many threads and coroutines at one breaker; every race is held open by events and barriers."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from ion_actors import CircuitOpen
from ion_actors.circuit import CircuitBreaker, CircuitState, FailureRate
from ion_actors.testing import VirtualClock

CLOSED, OPEN, HALF_OPEN = CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN
PATIENCE = 30.0
CROWD = 24


@pytest.mark.parametrize("limit", [1, 3])
def test_of_many_threads_half_open_admits_exactly_the_limit(
    limit: int, clock: VirtualClock, threads: ThreadPoolExecutor
) -> None:
    breaker = CircuitBreaker(
        "mine",
        half_open_max_requests=limit,
        half_open_success_threshold=limit,
        clock=clock,
    )
    breaker.trip(0)
    together = threading.Barrier(CROWD)
    turned_away = threading.Barrier(CROWD - limit + 1)
    release = threading.Event()

    def call() -> str:
        together.wait(PATIENCE)
        try:
            with breaker:
                release.wait(PATIENCE)
                return "trial"
        except CircuitOpen:
            turned_away.wait(PATIENCE)
            return "rejected"

    calls = [threads.submit(call) for _ in range(CROWD)]
    turned_away.wait(PATIENCE)  # all others are inside, and stay there
    assert breaker.metrics().trials == breaker.metrics().running == limit
    assert breaker.metrics().rejected == CROWD - limit
    release.set()
    outcomes = [one.result(PATIENCE) for one in calls]
    assert (outcomes.count("trial"), outcomes.count("rejected")) == (limit, CROWD - limit)
    assert breaker.state is CLOSED


@pytest.mark.parametrize("limit", [1, 3])
def test_of_many_coroutines_half_open_admits_exactly_the_limit(limit: int) -> None:
    breaker = CircuitBreaker(
        "mine", half_open_max_requests=limit, half_open_success_threshold=limit
    )
    breaker.trip(0)

    async def main() -> list[object]:
        release = asyncio.Event()
        calls = [asyncio.ensure_future(breaker.aexecute(release.wait)) for _ in range(100)]
        await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        assert breaker.metrics().trials == limit
        release.set()
        return await asyncio.gather(*calls, return_exceptions=True)

    outcomes = asyncio.run(main())
    assert outcomes.count(True) == limit
    assert sum(isinstance(one, CircuitOpen) for one in outcomes) == 100 - limit
    assert breaker.state is CLOSED


def test_threads_and_loops_share_the_slots_of_one_breaker(threads: ThreadPoolExecutor) -> None:
    breaker = CircuitBreaker("mine", half_open_max_requests=2)
    breaker.trip(0)
    inside, release = threading.Barrier(3), threading.Event()

    def in_thread() -> None:
        with breaker:
            inside.wait(PATIENCE)
            release.wait(PATIENCE)

    async def in_loop() -> None:
        async with breaker:
            await asyncio.to_thread(inside.wait, PATIENCE)
            await asyncio.to_thread(release.wait, PATIENCE)

    one, other = threads.submit(in_thread), threads.submit(asyncio.run, in_loop())
    inside.wait(PATIENCE)
    with pytest.raises(CircuitOpen):
        breaker.execute(print)
    release.set()
    one.result(PATIENCE)
    other.result(PATIENCE)
    assert breaker.state is CLOSED


def test_coroutines_interleaved_in_blocks_of_one_breaker_keep_their_calls_apart() -> None:
    """Each is in a block from before or after a reset, and only the latter's failures count."""
    breaker = CircuitBreaker("mine", failure_threshold=4)

    async def call(inside: asyncio.Event, leave: asyncio.Event) -> None:
        async with breaker:
            inside.set()
            await leave.wait()
            raise ConnectionError

    async def main() -> None:
        leave_old, leave_new = asyncio.Event(), asyncio.Event()
        old = [asyncio.ensure_future(call(asyncio.Event(), leave_old)) for _ in range(6)]
        await asyncio.sleep(0)
        assert breaker.metrics().running == 6
        breaker.reset()
        new = [asyncio.ensure_future(call(asyncio.Event(), leave_new)) for _ in range(3)]
        await asyncio.sleep(0)
        leave_old.set()
        await asyncio.wait(old)
        assert breaker.metrics().consecutive_failures == 0
        leave_new.set()
        await asyncio.wait(new)
        assert all(isinstance(one.exception(), ConnectionError) for one in old + new)
        assert breaker.metrics().consecutive_failures == 3

    asyncio.run(main())
    assert breaker.state is CLOSED


@pytest.fixture
def impatient_threads() -> Iterator[None]:
    """With the GIL, threads take turns after microseconds, so that what is not atomic is seen."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


ERRORS = {
    "succeeded": None,
    "failed": ConnectionError(),
    "ignored": ValueError(),
    "cancelled": asyncio.CancelledError(),
}


@pytest.mark.parametrize("outcomes", [["succeeded"], ["failed"], [*ERRORS]], ids=str)
@pytest.mark.usefixtures("impatient_threads")
def test_no_count_is_lost_under_many_threads(
    outcomes: list[str], threads: ThreadPoolExecutor
) -> None:
    breaker = CircuitBreaker(
        "mine", window=FailureRate(1.0, calls=10**6, minimum=10**6), is_failure=OSError
    )
    together = threading.Barrier(9)
    rounds = 1000

    def call(number: int) -> None:
        error = ERRORS[outcomes[number % len(outcomes)]]
        together.wait(PATIENCE)
        for _ in range(rounds):
            with contextlib.suppress(BaseException), breaker.guard():
                if error is not None:
                    raise error

    def watch() -> None:
        together.wait(PATIENCE)
        for _ in range(rounds):
            seen = breaker.metrics()
            ended = seen.succeeded + seen.failed + seen.ignored + seen.cancelled
            assert seen.requests == seen.running + ended
            assert 0 <= seen.running <= 8

    watcher = threads.submit(watch)
    calls = [threads.submit(call, number) for number in range(8)]
    for one in (*calls, watcher):
        one.result(PATIENCE)
    numbers = breaker.metrics()
    assert (numbers.requests, numbers.running) == (8 * rounds, 0)
    for outcome in outcomes:
        assert getattr(numbers, outcome) == 8 * rounds / len(outcomes)


def test_changes_by_many_threads_are_told_one_at_a_time_and_in_order(
    threads: ThreadPoolExecutor,
) -> None:
    told: list[tuple[CircuitState, CircuitState]] = []
    at_it = threading.Lock()

    def on_change(old: CircuitState, new: CircuitState) -> None:
        assert at_it.acquire(blocking=False), "two at a time"
        told.append((old, new))
        at_it.release()

    breaker = CircuitBreaker("mine", on_state_change=on_change)
    together = threading.Barrier(8)

    def change(number: int) -> None:
        together.wait(PATIENCE)
        for _ in range(200):
            (breaker.trip if number % 2 else breaker.reset)()

    for one in [threads.submit(change, number) for number in range(8)]:
        one.result(PATIENCE)
    assert len(told) == breaker.metrics().state_changes > 0
    states = [CLOSED, *(new for _, new in told)]
    assert [old for old, _ in told] == states[:-1]
    assert states[-1] is breaker.state


def test_who_changes_the_state_does_not_wait_for_a_slow_callback(
    threads: ThreadPoolExecutor,
) -> None:
    inside, release = threading.Event(), threading.Event()
    told: list[tuple[CircuitState, str]] = []

    def on_change(old: CircuitState, new: CircuitState) -> None:
        inside.set()
        release.wait(PATIENCE)
        told.append((new, threading.current_thread().name))

    breaker = CircuitBreaker("mine", on_state_change=on_change)
    slow = threads.submit(breaker.trip)
    inside.wait(PATIENCE)
    breaker.reset()  # returns at once, and so does a call
    assert breaker.execute(int, "7") == 7
    assert told == []
    release.set()
    slow.result(PATIENCE)
    assert [state for state, _ in told] == [OPEN, CLOSED]
    assert len({thread for _, thread in told}) == 1


def test_late_results_of_every_kind_change_nothing(clock: VirtualClock) -> None:
    breaker = CircuitBreaker("mine", failure_threshold=1, half_open_max_requests=2, clock=clock)
    while_closed, trial = breaker.guard(), breaker.guard()
    while_closed.__enter__()
    breaker.trip(0)
    trial.__enter__()
    assert breaker.state is HALF_OPEN
    breaker.trip(5)
    for late, error in ((while_closed, ConnectionError()), (trial, None)):
        late.__exit__(None if error is None else type(error), error, None)
        assert breaker.state is OPEN
        assert breaker.metrics().retry_after == 5
    assert (breaker.metrics().succeeded, breaker.metrics().failed) == (1, 1)


def test_a_callback_runs_when_the_change_is_done_and_under_no_lock(
    clock: VirtualClock, threads: ThreadPoolExecutor
) -> None:
    seen: list[tuple[CircuitState, int, int]] = []

    def on_change(old: CircuitState, new: CircuitState) -> None:
        numbers = breaker.metrics()  # from another thread, too: no lock is held
        assert threads.submit(breaker.metrics).result(PATIENCE) == numbers
        seen.append((numbers.state, numbers.failed, numbers.running))

    breaker = CircuitBreaker("mine", failure_threshold=1, on_state_change=on_change, clock=clock)
    with pytest.raises(ConnectionError), breaker:
        raise ConnectionError
    assert seen == [(OPEN, 1, 0)]
