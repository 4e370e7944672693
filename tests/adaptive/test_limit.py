"""The limit as programs use it: permits, blocks, wrappers, pauses, contexts, interruptions."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from ion_actors import AcquireTimeout, Cancelled, Context, Pool, QueueFull, RateLimited
from ion_actors.adaptive import AdaptiveLimit, Bounds, Sample, Vegas, is_overload
from ion_actors.testing import RecordingMetrics, RecordingTracer, VirtualClock
from tests.interrupts import KINDS, every_point, interrupt
from tests.semaphore.helpers import PATIENCE, eventually, in_thread


class HTTPError(Exception):
    def __init__(self, status: int, retry_after: float | None = None) -> None:
        super().__init__(status)
        self.response = SimpleNamespace(status_code=status)
        self.retry_after = retry_after


def refuse(limit: AdaptiveLimit, retry_after: float | None = None) -> None:
    permit = limit.try_acquire()
    assert permit is not None
    permit.overloaded(retry_after)


def test_permits_are_given_up_to_the_limit() -> None:
    limit = AdaptiveLimit(2)
    first, second = limit.try_acquire(), limit.try_acquire()
    assert first is not None
    assert second is not None
    assert limit.try_acquire() is None
    assert (limit.limit, limit.in_flight) == (2, 2)
    first.ignore()
    assert limit.in_flight == 1
    second.success()
    now = limit.metrics()
    assert (now.succeeded, now.ignored, now.overloaded, now.in_flight) == (1, 1, 0, 0)


def test_how_a_call_ended_is_said_once() -> None:
    permit = AdaptiveLimit(2).acquire()
    permit.success()
    for again in (permit.success, permit.overloaded, permit.ignore):
        with pytest.raises(RuntimeError, match="already said"):
            again()


def test_a_permit_that_is_dropped_is_given_back() -> None:
    limit = AdaptiveLimit(1)
    limit.acquire()
    gc.collect()
    assert (limit.in_flight, limit.metrics().ignored) == (0, 1)


def test_the_hooks_of_a_permit_that_is_dropped_run_where_they_may_block() -> None:
    told = []

    class Hooks(RecordingMetrics):
        def inc(self, name: str, **labels: str) -> None:
            told.append((name, labels["status"], threading.current_thread()))

    limit = AdaptiveLimit(1, metrics=Hooks())
    limit.acquire()
    assert limit.in_flight == 0
    eventually(lambda: told)
    name, status, thread = told[0]
    assert (name, status) == ("ion_adaptive_calls_total", "ignored")
    assert thread is not threading.current_thread()


def test_refusals_lower_the_limit_and_successes_raise_it() -> None:
    limit = AdaptiveLimit(10, clock=(clock := VirtualClock()))
    clock.advance(1)
    refuse(limit)
    assert limit.limit == 9
    for _ in range(60):
        permits = [one for one in iter(limit.try_acquire, None) if one]
        clock.advance(1)
        for permit in permits:
            permit.success()
    assert limit.limit > 50


def test_who_waits_is_served_in_order_as_the_limit_grows() -> None:
    limit = AdaptiveLimit(1, maximum=1)
    held = limit.acquire()
    waiting = []
    for number in range(3):
        waiting.append(in_thread(limit.acquire, PATIENCE))
        eventually(lambda: limit.waiting == number + 1)
    held.success()
    first = waiting[0].result(PATIENCE)
    first.ignore()
    waiting[1].result(PATIENCE).ignore()
    waiting[2].result(PATIENCE).ignore()
    assert limit.waiting == limit.in_flight == 0


def test_a_wait_ends_in_time_and_with_its_context() -> None:
    limit = AdaptiveLimit(1, name="db")
    held = limit.acquire()
    with pytest.raises(AcquireTimeout, match="limit 'db': no call could begin within 0 s"):
        limit.acquire(timeout=0)
    with pytest.raises(AcquireTimeout):
        limit.acquire(timeout=0.01)
    context = Context()
    waits = in_thread(limit.acquire, None, context)
    eventually(lambda: limit.waiting == 1)
    context.cancel("enough")
    with pytest.raises(Cancelled):
        waits.result(PATIENCE)
    held.ignore()
    assert limit.in_flight == 0


def test_coroutines_wait_without_blocking_their_loop() -> None:
    async def main() -> None:
        limit = AdaptiveLimit(1, maximum=1)
        held = await limit.aacquire()
        other = asyncio.ensure_future(limit.aacquire())
        await asyncio.sleep(0)
        assert limit.waiting == 1
        held.success()
        (await other).success()
        blocked = await limit.aacquire()
        other = asyncio.ensure_future(limit.aacquire())
        await asyncio.sleep(0)
        other.cancel()
        with pytest.raises(asyncio.CancelledError):
            await other
        blocked.ignore()
        async with limit.hold() as permit:
            assert limit.in_flight == 1
        assert permit.ended

    asyncio.run(main())


@pytest.mark.parametrize(
    ("error", "counted"),
    [
        (RateLimited("slow down", limiter="x"), "overloaded"),
        (QueueFull("pool", 1), "overloaded"),
        (TimeoutError(), "overloaded"),
        (HTTPError(429), "overloaded"),
        (HTTPError(503), "overloaded"),
        (HTTPError(404), "ignored"),
        (ValueError("an ordinary error"), "ignored"),
        (KeyboardInterrupt(), "ignored"),
    ],
    ids=repr,
)
def test_how_a_block_is_left_says_how_the_call_ended(error: BaseException, counted: str) -> None:
    limit = AdaptiveLimit(10)
    with pytest.raises(type(error)), limit.hold():
        raise error
    now = limit.metrics()
    assert getattr(now, counted) == 1
    assert now.succeeded + now.overloaded + now.ignored == 1
    with limit.hold():
        pass
    assert limit.metrics().succeeded == 1


def test_what_the_block_said_itself_holds() -> None:
    limit = AdaptiveLimit(10)
    with limit.hold() as permit:
        permit.ignore()
    with pytest.raises(TimeoutError), limit.hold() as permit:
        permit.success()
        raise TimeoutError
    now = limit.metrics()
    assert (now.succeeded, now.overloaded, now.ignored) == (1, 0, 1)


def test_objects_that_answer_everything_are_no_refusal() -> None:
    class Strange(Exception):
        def __getattr__(self, name: str) -> Any:
            raise RuntimeError(name)

    class Yes(Exception):
        def __getattr__(self, name: str) -> Any:
            return self

    assert not is_overload(Strange())
    assert not is_overload(Yes())


def test_the_rule_of_the_user_decides(caplog: pytest.LogCaptureFixture) -> None:
    limit = AdaptiveLimit(10, is_overload=ZeroDivisionError)
    with pytest.raises(ZeroDivisionError), limit.hold():
        _ = 1 / 0
    assert limit.metrics().overloaded == 1

    def broken(error: Exception) -> bool:
        raise LookupError("oops")

    limit = AdaptiveLimit(10, name="broken", is_overload=broken)
    with pytest.raises(ValueError, match="mine"), limit.hold():
        raise ValueError("mine")
    assert limit.metrics().ignored == 1
    eventually(lambda: "is_overload of limit 'broken' failed" in caplog.text)


def test_retry_after_stops_all_calls_until_then(clock: VirtualClock) -> None:
    limit = AdaptiveLimit(10, clock=clock)
    with pytest.raises(HTTPError), limit.hold():
        raise HTTPError(429, retry_after=5.0)
    assert limit.metrics().paused
    assert limit.try_acquire() is None
    waits = in_thread(limit.acquire)
    eventually(lambda: limit.waiting == 1)
    clock.advance(3)
    late = Context(clock=clock)
    with pytest.raises(AcquireTimeout, match="paused"):
        limit.acquire(timeout=0, context=late)
    assert limit.waiting == 1
    clock.advance(2)
    waits.result(PATIENCE).success()
    assert not limit.metrics().paused
    assert limit.limit == 9


def test_a_longer_pause_prevails(clock: VirtualClock) -> None:
    limit = AdaptiveLimit(10, clock=clock)
    one, two = limit.acquire(), limit.acquire()
    one.overloaded(retry_after=1)
    two.overloaded(retry_after=10)
    clock.advance(1)
    assert limit.try_acquire() is None
    clock.advance(8.9)
    assert limit.try_acquire() is None
    clock.advance(0.2)
    permit = limit.try_acquire()
    assert permit is not None
    permit.ignore()
    assert clock.timers == 0


def test_wrapped_calls_in_a_pool() -> None:
    limit = AdaptiveLimit(2, maximum=2)
    most, under_way, lock = [0], [0], threading.Lock()
    together = threading.Barrier(2)

    def call(number: int) -> int:
        with lock:
            under_way[0] += 1
            most[0] = max(most[0], under_way[0])
        together.wait(PATIENCE)
        with lock:
            under_way[0] -= 1
        if number == 3:
            raise ValueError
        return number

    with Pool(4, task_wrapper=limit.wrap) as pool:
        futures = [pool.submit(call, number) for number in range(8)]
        assert [one.exception(PATIENCE) is None for one in futures] == [n != 3 for n in range(8)]
    now = limit.metrics()
    assert most == [2]
    assert (now.succeeded, now.ignored, now.in_flight) == (7, 1, 0)


def test_wrapped_coroutines_hold_a_permit_while_they_run() -> None:
    limit = AdaptiveLimit(1)

    @limit.wrap
    async def call() -> int:
        return limit.in_flight

    assert asyncio.run(call()) == 1
    assert limit.metrics().succeeded == 1


def test_an_algorithm_of_the_user() -> None:
    class Fixed:
        def begin(self, limit: float, bounds: Bounds) -> Any:
            return SimpleNamespace(limit=limit)

        def after(self, state: Any, sample: Sample, bounds: Bounds) -> Any:
            return SimpleNamespace(limit=10_000.0 if sample.overloaded else -1.0)

    limit = AdaptiveLimit(3, minimum=2, maximum=50, algorithm=Fixed())
    limit.acquire().success()
    assert limit.limit == 2
    limit.acquire().overloaded()
    assert limit.limit == 50


def test_hooks_are_told() -> None:
    metrics, tracer = RecordingMetrics(), RecordingTracer()
    limit = AdaptiveLimit(1, name="api", metrics=metrics, tracer=tracer, maximum=1)
    held = limit.acquire()
    waits = in_thread(limit.acquire)
    eventually(lambda: limit.waiting == 1)
    held.success()
    waits.result(PATIENCE).ignore()
    for status in ("success", "ignored"):
        assert metrics.count("ion_adaptive_calls_total", limiter="api", status=status) == 1
    assert len(tracer.spans("ion_adaptive_acquire", limiter="api")) == 1


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: AdaptiveLimit(0), ValueError, "initial must be at least 1"),
        (lambda: AdaptiveLimit(20, maximum=10), ValueError, r"initial must be at most maximum"),
        (lambda: AdaptiveLimit(minimum=5, maximum=4), ValueError, "maximum must be at least 5"),
        (lambda: AdaptiveLimit("3"), TypeError, "initial must be a whole number"),
        (lambda: AdaptiveLimit(algorithm=Vegas), TypeError, "algorithm must be AIMD"),
        (lambda: AdaptiveLimit(is_overload=3), TypeError, "is_overload must"),
        (lambda: AdaptiveLimit(name=3), TypeError, "name must be a string"),
        (lambda: AdaptiveLimit(clock=3), TypeError, "clock must be a Clock"),
        (lambda: AdaptiveLimit().acquire(timeout="x"), TypeError, "timeout must be"),
        (lambda: AdaptiveLimit().hold(context=3), TypeError, "context must be"),
    ],
)
def test_senseless_arguments_are_named(
    make: Callable[[], object], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        make()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("verb", ["acquire", "success", "overloaded"])
def test_an_interruption_loses_no_permit(verb: str, kind: type[BaseException]) -> None:
    def make(point: int) -> str:
        limit = AdaptiveLimit(3, clock=VirtualClock())
        if verb == "acquire":
            where, outcome = interrupt(point, limit.try_acquire, kind)
            permit = None if isinstance(outcome, kind) else outcome
        else:
            permit = limit.acquire()
            where, outcome = interrupt(point, getattr(permit, verb), kind)
            if not permit.ended:  # it had not begun: the caller knows, and may say it again
                permit.ignore()
        assert limit.in_flight == (1 if verb == "acquire" and permit is not None else 0), where
        del permit, outcome
        assert limit.in_flight == 0, where
        # It works as before.
        every = [limit.acquire() for _ in range(limit.limit)]
        assert limit.try_acquire() is None, where
        for one in every:
            one.success()
        return where

    assert len(every_point(make)) > 3
