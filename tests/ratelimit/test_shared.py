"""Limits that processes share, here in one process, on storages that the test controls."""

from __future__ import annotations

import asyncio
import functools
import logging
import sys
import threading
import types
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from limits.storage import MemoryStorage, Storage
from limits.storage.base import MovingWindowSupport

from ion_actors import (
    Cancelled,
    Context,
    DeadlineExceeded,
    Pool,
    RateLimited,
    RateLimitedPastDeadline,
    StorageUnavailable,
)
from ion_actors.ratelimit import Rate, SharedLimiter, WindowStrategy, per, per_second
from ion_actors.ratelimit.store import Level, until_worth_asking
from ion_actors.testing import RecordingMetrics, RecordingTracer, VirtualClock
from tests.waiting import eventually


class Outage(Exception):
    """What the client of some storage raises."""


class ClockedStorage(Storage, MovingWindowSupport):
    """A moving window by a clock of the test's, that can fail and can be slow."""

    STORAGE_SCHEME = None
    base_exceptions = Outage

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__()
        self.clock = clock
        self.lock = threading.Lock()
        self.taken: list[float] = []
        self.asked = 0
        self.down = False
        self.before: Callable[[], object] = lambda: None

    def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        self.asked += 1
        assert self.lock.acquire(blocking=False), "only one at a time asks"
        try:
            self.before()
            self.fail_if_down()
            if self._living(expiry) + amount > limit:
                return False
            self.taken += [self.clock.monotonic()] * amount
            return True
        finally:
            self.lock.release()

    def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
        self.fail_if_down()
        living = self._living(expiry)
        return (self.taken[-living] if living else self.clock.monotonic()), living

    def _living(self, expiry: int) -> int:
        now = self.clock.monotonic()
        return sum(moment > now - expiry for moment in self.taken)

    def fail_if_down(self) -> None:
        if self.down:
            raise Outage("nobody is there")

    def clear(self, key: str) -> None:
        self.taken.clear()

    def unused(self, *args: object) -> Any:
        raise NotImplementedError

    incr = get = get_expiry = check = reset = unused


@pytest.fixture
def storage(clock: VirtualClock, monkeypatch: pytest.MonkeyPatch) -> ClockedStorage:
    clock.advance(1_700_000_000)
    fake = types.SimpleNamespace(time=clock.monotonic)
    monkeypatch.setattr("ion_actors.ratelimit.store.time", fake)
    return ClockedStorage(clock)


def drain(limiter: SharedLimiter) -> None:
    assert limiter.allow(int(limiter.rate.tokens))


def until_done(clock: VirtualClock, *futures: Future[Any]) -> None:
    """Let time pass for as long as something waits."""
    while wait(futures, timeout=0.002).not_done:
        clock.advance(0.05)


def in_thread(threads: ThreadPoolExecutor, clock: VirtualClock, call: Callable[[], Any]):
    def run() -> Any:
        with Context(clock=clock):
            return call()

    return threads.submit(run)


async def auntil(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110  # what is waited for happens in threads
            await asyncio.sleep(0)


# -- allow ---------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", WindowStrategy)
def test_so_many_tokens_and_no_more(strategy: WindowStrategy) -> None:
    limiter = SharedLimiter(per(3, 3600), storage="memory://", key="k", strategy=strategy)
    assert limiter.tokens == 3
    assert [limiter.allow(), limiter.allow(2), limiter.allow()] == [True, True, False]
    assert limiter.tokens == 0
    limiter.reset()
    assert limiter.allow(3)


def test_what_is_refused_costs_nothing_in_a_fixed_window() -> None:
    limiter = SharedLimiter(
        per(3, 3600), storage="memory://", key="k", strategy=WindowStrategy.FIXED_WINDOW
    )
    assert limiter.allow(2)
    assert not limiter.allow(2)
    assert limiter.allow(1)


def test_the_same_key_shares_and_another_does_not() -> None:
    storage = MemoryStorage()
    rate = per(2, 3600)
    one, two = (SharedLimiter(rate, storage=storage, key="k") for _ in "12")
    other = SharedLimiter(rate, storage=storage, key="other")
    assert one.allow()
    assert two.allow()
    assert not one.allow()
    assert not two.allow()
    assert other.allow(2)


def test_more_than_the_rate_has_is_refused(storage: ClockedStorage) -> None:
    limiter = SharedLimiter(per_second(3), storage=storage, key="k")
    for call in (limiter.allow, limiter.wait):
        with pytest.raises(ValueError, match="n must be at most the rate's 3 tokens, not 4"):
            call(4)
    assert storage.asked == 0


async def call_awaitably(limiter: SharedLimiter) -> list[Any]:
    found: list[Any] = [await limiter.atokens(), await limiter.aallow(2), await limiter.aallow()]
    await limiter.awaits(0 + 1, timeout=5)
    return found


def test_the_awaitable_twins_do_the_same() -> None:
    limiter = SharedLimiter(per(2, 1), storage="memory://", key="k")
    assert asyncio.run(call_awaitably(limiter)) == [2, True, False]


# -- waiting -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "run", [lambda one: one.wait, lambda one: lambda: asyncio.run(one.awaits())]
)
def test_who_waits_is_served_when_the_window_has_moved_on(
    storage: ClockedStorage,
    clock: VirtualClock,
    threads: ThreadPoolExecutor,
    run: Callable[[SharedLimiter], Callable[[], Any]],
) -> None:
    limiter = SharedLimiter(per(2, 20), storage=storage, key="k")
    began = clock.monotonic()
    drain(limiter)
    waiter = in_thread(threads, clock, run(limiter))
    clock.wait_for_timers()
    assert storage.asked == 2
    clock.advance(19.9)
    assert not waiter.done()
    clock.advance(0.2)
    waiter.result(30)
    assert clock.monotonic() - began == pytest.approx(20.1)
    assert storage.asked == 3  # it did not ask before there was a reason to


def test_threads_and_coroutines_are_served_in_order_and_only_the_first_asks(
    storage: ClockedStorage, clock: VirtualClock, threads: ThreadPoolExecutor
) -> None:
    limiter = SharedLimiter(per(1, 1), storage=storage, key="k")
    drain(limiter)
    served: list[int] = []

    async def alone(number: int) -> None:
        await limiter.awaits()
        served.append(number)

    def run(number: int) -> None:
        if number % 2:
            asyncio.run(alone(number))
        else:
            limiter.wait()
            served.append(number)

    waiters = []
    for number in range(8):
        waiters.append(in_thread(threads, clock, functools.partial(run, number)))
        eventually(lambda: limiter.waiting == number + 1)
    assert storage.asked == 2
    until_done(clock, *waiters)
    assert served == list(range(8))
    assert limiter.waiting == 0


def test_a_heavy_waiter_is_not_starved_by_those_who_do_not_wait(
    storage: ClockedStorage, clock: VirtualClock, threads: ThreadPoolExecutor
) -> None:
    limiter = SharedLimiter(per(3, 1), storage=storage, key="k")
    assert limiter.allow(2)
    heavy = in_thread(threads, clock, lambda: limiter.wait(3))
    clock.wait_for_timers()
    assert not limiter.allow()  # though there is one
    until_done(clock, heavy)
    heavy.result()


def test_a_wait_that_cannot_end_in_time_fails_at_once(
    storage: ClockedStorage, clock: VirtualClock
) -> None:
    limiter = SharedLimiter(per(2, 10), storage=storage, key="k", name="api")
    drain(limiter)
    clock.advance(4)
    with Context(clock=clock), pytest.raises(RateLimited, match="api does not have 1 of 2") as one:
        limiter.wait(timeout=5.9)
    assert type(one.value) is RateLimited
    assert one.value.retry_after == pytest.approx(6)
    assert (one.value.limiter, one.value.remaining, one.value.limit) == ("api", 0, 2)
    with Context(clock=clock, timeout=5), pytest.raises(RateLimitedPastDeadline):
        limiter.wait(timeout=5.9)
    with Context(clock=clock), pytest.raises(RateLimited):
        limiter.wait(timeout=0)
    assert limiter.waiting == 0


def test_timeout_zero_takes_what_is_there(storage: ClockedStorage, clock: VirtualClock) -> None:
    limiter = SharedLimiter(per(2, 10), storage=storage, key="k")
    with Context(clock=clock):
        limiter.wait(2, timeout=0)


def test_the_time_runs_out_in_line(
    storage: ClockedStorage, clock: VirtualClock, threads: ThreadPoolExecutor
) -> None:
    limiter = SharedLimiter(per(1, 10), storage=storage, key="k")
    drain(limiter)
    first = in_thread(threads, clock, limiter.wait)
    eventually(lambda: limiter.waiting == 1)
    second = in_thread(threads, clock, lambda: limiter.wait(timeout=3))
    eventually(lambda: limiter.waiting == 2)
    clock.wait_for_timers(2)
    clock.advance(3)
    with pytest.raises(RateLimited):
        second.result(30)
    assert not first.done()
    until_done(clock, first)


def test_losing_the_tokens_to_others_again_and_again_ends_with_the_time(
    storage: ClockedStorage, clock: VirtualClock, threads: ThreadPoolExecutor
) -> None:
    limiter = SharedLimiter(per(1, 1), storage=storage, key="k")
    drain(limiter)

    def somebody_else_is_quicker() -> None:
        if not storage._living(1):
            storage.taken.append(clock.monotonic())

    storage.before = somebody_else_is_quicker
    waiter = in_thread(threads, clock, lambda: limiter.wait(timeout=5.5))
    while not waiter.done():  # no faster than it can ask
        eventually(lambda: clock.timers > 0 or waiter.done())
        if clock.timers:
            clock.advance_to_next()
    with pytest.raises(RateLimited):
        waiter.result()
    assert 5 <= storage.asked <= 8


def test_a_storage_that_says_it_has_tokens_and_gives_none_is_left_in_time(
    storage: ClockedStorage, clock: VirtualClock, threads: ThreadPoolExecutor
) -> None:
    limiter = SharedLimiter(per(2, 1), storage=storage, key="k")
    storage.acquire_entry = lambda *args, **kwargs: False  # type: ignore[method-assign]
    waiter = in_thread(threads, clock, lambda: limiter.wait(timeout=0.3))
    until_done(clock, waiter)
    with pytest.raises(RateLimited):
        waiter.result()


@pytest.mark.parametrize("position", [0, 1, 2])
def test_whoever_leaves_the_line_lets_the_others_go_on(
    storage: ClockedStorage, clock: VirtualClock, threads: ThreadPoolExecutor, position: int
) -> None:
    limiter = SharedLimiter(per(1, 10), storage=storage, key="k")
    drain(limiter)
    contexts = [Context(clock=clock) for _ in range(3)]
    waiters = []

    def run(context: Context) -> None:
        with context:
            limiter.wait()

    for number, context in enumerate(contexts):
        waiters.append(threads.submit(run, context))
        eventually(lambda: limiter.waiting == number + 1)
    clock.wait_for_timers()
    contexts[position].cancel("enough")
    with pytest.raises(Cancelled, match="enough"):
        waiters[position].result(30)
    waiters.pop(position)
    until_done(clock, *waiters)
    for waiter in waiters:
        waiter.result()
    assert limiter.waiting == 0


def test_an_ended_context_asks_nobody(storage: ClockedStorage, clock: VirtualClock) -> None:
    limiter = SharedLimiter(per_second(1), storage=storage, key="k")
    with Context(clock=clock, timeout=1):
        clock.advance(1)
        with pytest.raises(DeadlineExceeded):
            limiter.wait()
    assert storage.asked == 0


@pytest.mark.parametrize("position", [0, 1])
def test_a_cancelled_coroutine_passes_its_turn_on(
    storage: ClockedStorage, clock: VirtualClock, threads: ThreadPoolExecutor, position: int
) -> None:
    limiter = SharedLimiter(per(1, 10), storage=storage, key="k")
    drain(limiter)
    ready = threading.Event()

    async def main() -> list[str]:
        waiters = []
        for number in range(3):
            waiters.append(asyncio.create_task(limiter.awaits()))
            await auntil(lambda: limiter.waiting == number + 1)
        waiters[position].cancel()
        await asyncio.wait([waiters[position]])
        ready.set()
        await asyncio.wait(waiters)
        return ["cancelled" if one.cancelled() else "served" for one in waiters]

    running = in_thread(threads, clock, lambda: asyncio.run(main()))
    assert ready.wait(20)
    until_done(clock, running)
    assert running.result().count("cancelled") == 1
    assert running.result()[position] == "cancelled"
    assert limiter.waiting == 0


def test_an_interrupt_while_the_storage_is_asked_lets_the_next_one_in(
    storage: ClockedStorage, clock: VirtualClock
) -> None:
    limiter = SharedLimiter(per(1, 10), storage=storage, key="k")

    def interrupt() -> None:
        storage.before = lambda: None
        raise KeyboardInterrupt

    storage.before = interrupt
    with Context(clock=clock):
        with pytest.raises(KeyboardInterrupt):
            limiter.wait()
        limiter.wait()


def test_a_coroutine_cancelled_while_the_storage_is_asked_leaves_no_trace(
    storage: ClockedStorage, clock: VirtualClock
) -> None:
    limiter = SharedLimiter(per(1, 10), storage=storage, key="k")
    drain(limiter)
    asked, answer = threading.Event(), threading.Event()

    def be_slow() -> None:
        asked.set()
        assert answer.wait(20)

    storage.before = be_slow

    async def main() -> None:
        waiter = asyncio.create_task(limiter.awaits())
        await asyncio.to_thread(asked.wait, 20)
        waiter.cancel()
        await asyncio.wait([waiter])
        answer.set()

    asyncio.run(main())  # waits for the thread that asks
    assert limiter.waiting == 0
    limiter.reset()
    assert limiter.allow()


def test_a_slow_storage_does_not_stop_the_event_loop(storage: ClockedStorage) -> None:
    limiter = SharedLimiter(per(5, 10), storage=storage, key="k")
    answer = threading.Event()

    def be_slow() -> None:
        assert answer.wait(20)

    storage.before = be_slow

    async def main() -> None:
        waiters = [asyncio.create_task(call) for call in (limiter.awaits(), limiter.atokens())]
        await auntil(lambda: storage.asked == 1)
        answer.set()  # only a loop that goes on gets here
        await asyncio.gather(*waiters)

    asyncio.run(main())
    assert storage.asked == 1


# -- a storage that fails ------------------------------------------------------------------


def test_a_storage_that_does_not_answer_is_an_error(
    storage: ClockedStorage, clock: VirtualClock
) -> None:
    limiter = SharedLimiter(per_second(1), storage=storage, key="payments")
    storage.down = True
    for call in (limiter.allow, limiter.wait, lambda: limiter.tokens):
        with pytest.raises(StorageUnavailable, match="'payments' failed: nobody") as caught:
            call()
        assert isinstance(caught.value.__cause__, Outage)
        assert caught.value.key == "payments"
    storage.down = False
    limiter.wait()


def test_fail_open_lets_everything_through_and_says_so_once(
    storage: ClockedStorage, clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    limiter = SharedLimiter(per(1, 60), storage=storage, key="k", fail_open=True, name="api")
    storage.down = True
    with caplog.at_level(logging.INFO, "ion_actors.ratelimit"), Context(clock=clock):
        for _ in range(3):
            assert limiter.allow()
            limiter.wait()
        storage.down = False
        assert limiter.allow()
        assert not limiter.allow()
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "api lets everything through" in caplog.text
    assert "api limits again" in caplog.text


def test_fail_open_when_the_storage_goes_between_two_questions(
    storage: ClockedStorage, clock: VirtualClock
) -> None:
    limiter = SharedLimiter(per(1, 60), storage=storage, key="k", fail_open=True)
    drain(limiter)
    storage.get_moving_window = lambda *args: storage.unused_outage()  # type: ignore[method-assign]

    def outage() -> Any:
        storage.down = True
        raise Outage

    storage.unused_outage = outage  # type: ignore[attr-defined]
    with Context(clock=clock):
        limiter.wait()


# -- what it is made of --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"rate": 3}, TypeError, "rate must be a Rate"),
        ({"rate": Rate(1.5)}, ValueError, "whole numbers.*tokens of Rate"),
        ({"rate": Rate(1, 0.5)}, ValueError, "whole numbers.*seconds of Rate"),
        ({"rate": Rate(0)}, ValueError, "whole numbers.*tokens of Rate"),
        ({"key": 3}, TypeError, "key must be a string"),
        ({"key": ""}, ValueError, "key must not be empty"),
        ({"strategy": "moving-window"}, TypeError, "strategy must be a WindowStrategy"),
        ({"name": 3}, TypeError, "name must be a string or None"),
        ({"storage": 3}, TypeError, "storage must be an address like"),
        ({"storage": "async+memory://"}, TypeError, "not one for asyncio"),
        ({"storage": "carrier-pigeon://:secret@roof"}, ValueError, "cannot use carrier-pigeon://"),
        ({"logger": 3}, TypeError, "logger must be"),
        ({"metrics": 3}, TypeError, "metrics must have"),
    ],
)
def test_arguments_are_checked(
    change: dict[str, Any], error: type[Exception], message: str
) -> None:
    arguments = {"rate": per_second(3), "storage": "memory://", "key": "k", **change}
    with pytest.raises(error, match=message) as caught:
        SharedLimiter(arguments.pop("rate"), **arguments)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("n", [0, -1, 1.5, "1", True])
def test_a_number_of_tokens_is_checked(n: Any) -> None:
    limiter = SharedLimiter(per_second(3), storage="memory://", key="k")
    for call in (limiter.allow, limiter.wait):
        with pytest.raises((TypeError, ValueError), match="n must be"):
            call(n)


def test_a_storage_that_cannot_count_so_is_refused(storage: ClockedStorage) -> None:
    counter = WindowStrategy.SLIDING_WINDOW_COUNTER
    with pytest.raises(ValueError, match="cannot count by"):
        SharedLimiter(per_second(3), storage=storage, key="k", strategy=counter)


@pytest.mark.parametrize(
    ("missing", "address"), [("limits.storage", "memory://"), ("redis", "redis://localhost")]
)
def test_what_is_not_installed_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, missing: str, address: str
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match="with its extra 'redis'"):
        SharedLimiter(per_second(3), storage=address, key="k")


def test_names_and_the_repr() -> None:
    limiter = SharedLimiter(per(3, 2), storage="memory://", key="k", name="api")
    assert (limiter.name, limiter.rate) == ("api", Rate(3, 2))
    assert repr(limiter) == "<SharedLimiter 'api' 3 per 2 s, waiting=0>"
    unnamed = SharedLimiter(per_second(3), storage="memory://", key="k")
    assert unnamed.name.startswith("shared-limiter-")


# -- around functions, and in a pool -------------------------------------------------------


def test_wrap_limits_calls_of_functions_and_coroutines(
    storage: ClockedStorage, clock: VirtualClock
) -> None:
    limiter = SharedLimiter(per(2, 60), storage=storage, key="k")

    @limiter.wrap
    def double(x: int) -> int:
        return 2 * x

    @limiter.wrap
    async def adouble(x: int) -> int:
        return 2 * x

    with Context(clock=clock):
        assert double(2) == 4
        assert asyncio.run(adouble(3)) == 6
    assert storage.asked == 2
    with Context(clock=clock, timeout=1), pytest.raises(RateLimitedPastDeadline):
        double(2)


def test_it_limits_the_tasks_of_a_pool(storage: ClockedStorage, clock: VirtualClock) -> None:
    limiter = SharedLimiter(per(2, 10), storage=storage, key="k")
    with Pool(4, context=Context(clock=clock), task_wrapper=limiter.wrap) as pool:
        futures = [pool.submit(abs, -number) for number in range(6)]
        until_done(clock, *futures)
        assert [future.result() for future in futures] == list(range(6))
    # When each was let in; when a task then looks at the clock, that may have gone on.
    assert len(storage.taken) == 6
    for earlier, later in zip(storage.taken, storage.taken[2:], strict=False):
        assert later - earlier >= 10


# -- hooks ---------------------------------------------------------------------------------


def test_what_happens_is_told_to_the_hooks(storage: ClockedStorage, clock: VirtualClock) -> None:
    metrics, tracer = RecordingMetrics(), RecordingTracer()
    limiter = SharedLimiter(
        per(2, 10), storage=storage, key="k", name="api", metrics=metrics, tracer=tracer
    )
    with Context(clock=clock) as context:
        limiter.wait(2)
        assert not limiter.allow()
        with pytest.raises(RateLimited):
            limiter.wait(timeout=1)
        storage.down = True
        for call in (limiter.allow, limiter.wait):
            with pytest.raises(StorageUnavailable):
                call()
        storage.down = False
        storage.before = context.cancel
        with pytest.raises(Cancelled):
            limiter.wait()
    total = functools.partial(metrics.count, "ion_ratelimit_requests_total", limiter="api")
    counts = {one: total(result=one) for one in ("allowed", "denied", "error", "cancelled")}
    assert counts == {"allowed": 1, "denied": 2, "error": 2, "cancelled": 1}
    assert metrics.last("ion_ratelimit_tokens_available", limiter="api") == 0
    spans = tracer.spans("ion_ratelimit_wait", limiter="api")
    assert [type(span.error) for span in spans] == [
        *(type(None), RateLimited, StorageUnavailable, Cancelled)
    ]


def test_how_long_a_wait_took_and_that_one_was_cancelled(
    storage: ClockedStorage, clock: VirtualClock, threads: ThreadPoolExecutor
) -> None:
    metrics = RecordingMetrics()
    limiter = SharedLimiter(per(1, 10), storage=storage, key="k", metrics=metrics)
    drain(limiter)
    served = in_thread(threads, clock, limiter.wait)
    until_done(clock, served)
    [took] = metrics.observed("ion_ratelimit_wait_duration_seconds")
    assert took >= 10
    context = Context(clock=clock)

    def run() -> None:
        with context:
            limiter.wait()

    waiter = threads.submit(run)
    clock.wait_for_timers()
    context.cancel()
    with pytest.raises(Cancelled):
        waiter.result(30)
    assert metrics.count("ion_ratelimit_requests_total", result="cancelled") == 1


# -- when to ask again ---------------------------------------------------------------------


@given(
    remaining=st.integers(0, 100),
    reset_after=st.floats(0, 1e6),
    wanted=st.integers(1, 100),
    rate=st.builds(Rate, st.integers(1, 10**6), st.integers(1, 10**6)),
)
def test_the_storage_is_neither_pestered_nor_forgotten(
    remaining: int, reset_after: float, wanted: int, rate: Rate
) -> None:
    pause = until_worth_asking(Level(remaining, reset_after), wanted, rate)
    assert 0.005 <= pause <= 30
    if remaining < wanted:
        assert pause >= min(reset_after, 30)
        assert pause <= max(reset_after + 0.001, 0.05)
    else:
        assert pause <= 0.05
