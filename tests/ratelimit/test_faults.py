"""Each fault seen in the Go toolkit's limiters is a test here, named after it."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

from ion_actors.ratelimit import (
    Limit,
    MultiTierLimiter,
    TokenBucket,
    per_hour,
    per_minute,
    per_second,
)
from ion_actors.testing import VirtualClock
from tests.ratelimit.helpers import PATIENCE, eventually, queue_up


def test_50_concurrent_waiters_all_succeed() -> None:
    """There, two did: all slept for the same token, and nobody had reserved one."""
    limiter = TokenBucket(per_second(1000), 1)
    begin = threading.Barrier(25)

    def thread() -> None:
        begin.wait(PATIENCE)
        limiter.wait()

    async def coroutines() -> None:
        await asyncio.gather(*[limiter.awaits() for _ in range(25)])

    with ThreadPoolExecutor(25) as threads:
        futures = [threads.submit(thread) for _ in range(25)]
        asyncio.run(coroutines())
        for one in futures:
            one.result(PATIENCE)


def test_50_waiters_each_take_exactly_one_token(
    clock: VirtualClock, threads: ThreadPoolExecutor
) -> None:
    limiter = TokenBucket(per_second(10), 1, clock=clock)
    assert limiter.allow()

    async def main() -> None:
        waits = queue_up(limiter, threads, *[1] * 25)
        tasks = [asyncio.create_task(limiter.awaits()) for _ in range(25)]
        await asyncio.sleep(0)
        assert limiter.waiting == 50
        for served in range(1, 51):
            clock.advance_to_next()
            assert limiter.waiting == 50 - served
        for one in waits:
            one.result(PATIENCE)
        await asyncio.gather(*tasks)

    asyncio.run(main())
    assert clock.monotonic() >= 5.0
    assert limiter.tokens < 0.001


def test_refused_routes_burn_no_global_tokens(clock: VirtualClock) -> None:
    limiter = MultiTierLimiter(
        Limit(per_second(1), 10), Limit(per_second(1), 1), Limit(per_second(1), 1), clock=clock
    )
    request = limiter.for_(route="GET /a", resource="x")
    assert request.allow()
    for _ in range(100):
        assert not request.allow()
    assert limiter.tokens == 9.0
    assert limiter.for_(resource="x").tokens == 0.0
    assert not limiter.for_(route="GET /b", resource="x").allow()
    assert limiter.for_(route="GET /b").tokens == 1.0


def test_refused_globally_burns_no_route_tokens(clock: VirtualClock) -> None:
    limiter = MultiTierLimiter(Limit(per_second(1), 1), clock=clock)
    assert limiter.allow()
    request = limiter.for_(route="GET /a", resource="x")
    assert not request.allow()
    assert limiter.for_(route="GET /a").allow() is False
    clock.advance(1)
    assert request.allow()


def test_map_order_hashing_lets_no_equal_request_past_a_burst_of_1(clock: VirtualClock) -> None:
    limiter = MultiTierLimiter(resource_limit=Limit(per_minute(1), 1), clock=clock)
    names = [f"parameter-{i}" for i in range(8)]
    allowed = 0
    for turn in range(len(names)):
        order = names[turn:] + names[:turn]
        allowed += limiter.for_(
            route="GET /items/7", resource={name: name.upper() for name in order}
        ).allow()
    assert allowed == 1
    assert limiter.buckets == 2


def test_waiting_goes_by_the_test_clock(clock: VirtualClock, threads: ThreadPoolExecutor) -> None:
    """There, it slept in real time: an hour, here."""
    limiter = TokenBucket(per_hour(1), 1, clock=clock)
    assert limiter.allow()
    [one] = queue_up(limiter, threads, 1)
    clock.advance(3600)
    one.result(PATIENCE)


def test_early_resume_wakes_those_who_wait(
    clock: VirtualClock, threads: ThreadPoolExecutor
) -> None:
    bucket = TokenBucket(per_second(1), 5, clock=clock)
    tiers = MultiTierLimiter(clock=clock)
    for limiter in (bucket, tiers):
        limiter.pause_until(clock.monotonic() + 3600)
        waits = queue_up(limiter, threads, 1, 2)
        assert not limiter.allow()
        limiter.resume()
        for one in waits:
            one.result(PATIENCE)
    assert clock.monotonic() == 0.0
    assert clock.timers == 0


def test_early_resume_wakes_the_coroutines_that_wait(clock: VirtualClock) -> None:
    limiter = TokenBucket(per_second(1), 5, clock=clock)

    async def main() -> None:
        limiter.pause_for(3600)
        tasks = [asyncio.create_task(limiter.awaits()) for _ in range(3)]
        await asyncio.sleep(0)
        assert limiter.waiting == 3
        limiter.resume()
        await asyncio.wait_for(asyncio.gather(*tasks), PATIENCE)

    asyncio.run(main())


def test_buckets_are_evicted(clock: VirtualClock) -> None:
    limiter = MultiTierLimiter(bucket_ttl=3600, clock=clock)
    for user in range(1000):
        assert limiter.for_(route="GET /a", resource=user).allow()
        clock.advance(0.1)
    assert limiter.buckets == 1001
    clock.advance(3600)
    for _ in range(501):
        assert limiter.for_(route="GET /a").allow()
        clock.advance(0.1)
    assert limiter.buckets == 1


def test_a_rate_set_during_a_temporary_limit_is_not_lost(clock: VirtualClock) -> None:
    limiter = TokenBucket(per_second(1), 1, clock=clock)
    limiter.set_temporary_limit(per_second(2), 2, 10)
    limiter.set_rate(per_second(7))
    limiter.set_burst(9)
    assert (limiter.rate, limiter.burst) == (per_second(2), 2)
    clock.advance(10)
    assert (limiter.rate, limiter.burst) == (per_second(7), 9)
    assert limiter.allow(2)
    clock.advance(1)
    assert limiter.tokens >= 7.0


def test_a_second_temporary_limit_does_not_make_the_first_one_last(clock: VirtualClock) -> None:
    limiter = TokenBucket(per_second(1), 1, clock=clock)
    limiter.set_temporary_limit(per_second(2), 2, 10)
    clock.advance(5)
    limiter.set_temporary_limit(per_second(3), 3, 1)
    clock.advance(1)
    assert (limiter.rate, limiter.burst) == (per_second(1), 1)


def test_a_granted_wait_never_fails_afterwards(
    clock: VirtualClock, threads: ThreadPoolExecutor
) -> None:
    limiter = TokenBucket(per_second(1), 1, clock=clock)
    assert limiter.allow()
    waits = queue_up(limiter, threads, *[1] * 10, timeout=10.0)
    for _ in range(10):
        clock.advance(1)
        assert not limiter.allow()
    for one in waits:
        one.result(PATIENCE)
    eventually(lambda: limiter.waiting == 0)
