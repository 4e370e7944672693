"""Requests of a multi-tier limiter: priority and sub-resource; its numbers, reset and pause."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ion_actors import Cancelled, Context, RateLimited
from ion_actors.context import Turn
from ion_actors.ratelimit import Limit, MultiTierLimiter, MultiTierMetrics, per_second
from ion_actors.ratelimit.bucket import ServerBucket, ticks
from ion_actors.ratelimit.claims import BucketQueue, Claim
from ion_actors.ratelimit.headers import ServerLimits
from ion_actors.ratelimit.scheduler import WaitingLines
from ion_actors.testing import VirtualClock
from tests.ratelimit.helpers import PATIENCE, eventually, queue_up

ONE = Limit(per_second(1), 1)


def count(limiter: MultiTierLimiter, *names: str) -> list[Any]:
    found = limiter.metrics()
    return [getattr(found, name) for name in names]


# -- priority -------------------------------------------------------------------------------------


def served(clock: VirtualClock, futures: dict[str, Future[None]]) -> list[str]:
    """Who is served in which order, if a token comes each second."""
    order: list[str] = []
    while len(order) < len(futures):
        clock.advance(1)
        new = [name for name in futures if name not in order]
        eventually(lambda new=new: any(futures[name].done() for name in new))  # type: ignore[misc]
        order += [name for name in new if futures[name].done()]
    return order


@pytest.mark.parametrize("where", [{"route": "GET /a"}, {"resource": "x"}, {}])
def test_those_of_a_higher_priority_are_served_first(
    clock: VirtualClock, threads: ThreadPoolExecutor, where: dict[str, Any]
) -> None:
    limiter = MultiTierLimiter(ONE, ONE, ONE, clock=clock)
    assert limiter.for_(**where).allow()
    futures = {}
    for name, priority in [("low", -1), ("first", 0), ("second", 0), ("high", 2), ("top", 7)]:
        request = limiter.for_(**where, priority=priority)
        [futures[name]] = queue_up(request, threads, 1)
    assert served(clock, futures) == ["top", "high", "first", "second", "low"]


def test_priority_counts_among_those_who_lack_only_global_tokens(
    clock: VirtualClock, threads: ThreadPoolExecutor
) -> None:
    limiter = MultiTierLimiter(ONE, clock=clock)
    assert limiter.allow()
    [low] = queue_up(limiter.for_(route="GET /a"), threads, 1)
    [high] = queue_up(limiter.for_(route="GET /b", priority=1), threads, 1)
    assert served(clock, {"low": low, "high": high}) == ["high", "low"]


def test_the_priority_of_one_route_holds_up_no_other_route(
    clock: VirtualClock, threads: ThreadPoolExecutor
) -> None:
    limiter = MultiTierLimiter(route_limit=ONE, clock=clock)
    busy = limiter.for_(route="GET /a", priority=9)
    assert busy.allow()
    queue_up(busy, threads, 1)
    assert limiter.for_(route="GET /b").allow()
    clock.advance(1)


def test_who_does_not_wait_passes_only_those_of_a_lower_priority(
    clock: VirtualClock, threads: ThreadPoolExecutor
) -> None:
    limiter = MultiTierLimiter(route_limit=Limit(per_second(1), 4), clock=clock)
    assert limiter.for_(route="GET /a").allow(2)
    [waits] = queue_up(limiter.for_(route="GET /a", priority=1), threads, 4)
    assert not limiter.for_(route="GET /a").allow()
    assert not limiter.for_(route="GET /a", priority=1).allow()
    assert limiter.for_(route="GET /a", priority=2).allow()
    clock.advance(3)
    waits.result(PATIENCE)


def test_who_was_passed_is_next_when_the_other_gives_up(
    clock: VirtualClock, threads: ThreadPoolExecutor
) -> None:
    limiter = MultiTierLimiter(route_limit=ONE, clock=clock)
    assert limiter.for_(route="GET /a").allow()
    [low] = queue_up(limiter.for_(route="GET /a"), threads, 1)
    context = Context(clock=clock)

    def wait() -> None:
        with context:
            limiter.for_(route="GET /a", priority=1).wait()

    high = threads.submit(wait)
    eventually(lambda: limiter.waiting == 2)
    context.cancel()
    with pytest.raises(Cancelled):
        high.result(PATIENCE)
    clock.advance(1)
    low.result(PATIENCE)


def test_a_deadline_is_judged_by_those_who_come_before(
    clock: VirtualClock, threads: ThreadPoolExecutor
) -> None:
    limiter = MultiTierLimiter(route_limit=ONE, clock=clock)
    assert limiter.for_(route="GET /a").allow()
    lows = queue_up(limiter.for_(route="GET /a"), threads, 1, 1)
    with pytest.raises(RateLimited) as refused:
        limiter.for_(route="GET /a").wait(timeout=1)
    assert refused.value.retry_after == 3
    [high] = queue_up(limiter.for_(route="GET /a", priority=1), threads, 1, timeout=1)
    clock.advance(1)
    high.result(PATIENCE)
    clock.advance(1)
    clock.advance(1)
    for low in lows:
        low.result(PATIENCE)


@pytest.mark.parametrize("priority", [1.5, "1", None])
def test_a_priority_is_a_whole_number(priority: Any) -> None:
    with pytest.raises(TypeError, match="priority must be"):
        MultiTierLimiter().for_(priority=priority)


@given(
    st.lists(st.tuples(st.integers(0, 2), st.sets(st.integers(0, 2), min_size=1)), max_size=12),
    st.data(),
)
def test_lines_are_sorted_and_their_fronts_are_those_first_in_all(
    arrivals: list[tuple[int, set[int]]], data: st.DataObject
) -> None:
    queues = [BucketQueue(ServerBucket(ONE, 0)) for _ in range(3)]
    lines = WaitingLines(None)
    there: list[Turn[Claim]] = []
    for number, (priority, where) in enumerate(arrivals):
        claim = Claim(1, tuple, None, False, priority)
        claim.queues = tuple(queues[one] for one in sorted(where))
        claim.number = number
        turn = Turn(claim, lambda: None)
        lines.enter(turn)
        there.append(turn)
        if data.draw(st.booleans(), "one leaves"):
            gone = there.pop(data.draw(st.integers(0, len(there) - 1), "which"))
            lines.leave(gone)
        ranked = sorted(there, key=lambda turn: (-turn.item.priority, turn.item.number))
        for queue in queues:
            assert list(queue.turns) == [one for one in ranked if queue in one.item.queues]
            assert queue.wanted == len(queue.turns)
            for ahead, one in enumerate(queue.turns):
                assert queue.ahead_of(one.item) == ahead
        first = [one for one in there if all(next(iter(p.turns)) is one for p in one.item.queues)]
        assert set(lines.fronts) == set(first)


# -- sub-resources ---------------------------------------------------------------------------------


def test_a_sub_resource_has_a_bucket_besides_that_of_the_resource(clock: VirtualClock) -> None:
    limiter = MultiTierLimiter(
        resource_limit=Limit(per_second(1), 3), sub_resource_limit=ONE, clock=clock
    )
    first, second, third = (
        limiter.for_(resource="org", sub_resource=name) for name in ("a", "b", "c")
    )
    assert [first.allow(), first.allow()] == [True, False]
    assert [second.allow(), second.allow()] == [True, False]
    assert limiter.for_(resource="org").tokens == 1
    assert [third.allow(), limiter.for_(resource="org", sub_resource="d").allow()] == [True, False]
    assert limiter.for_(resource="another", sub_resource="a").allow()


def test_by_default_a_sub_resource_is_limited_as_a_resource_is(clock: VirtualClock) -> None:
    limiter = MultiTierLimiter(resource_limit=Limit(per_second(1), 2), clock=clock)
    alone = limiter.for_(sub_resource="a")
    assert [alone.allow() for _ in range(3)] == [True, True, False]
    assert limiter.for_(resource="a").allow()


def test_a_sub_resource_of_its_own_limit_is_named_in_errors(clock: VirtualClock) -> None:
    limiter = MultiTierLimiter(clock=clock)
    request = limiter.for_(resource="org", sub_resource="a")
    request.set_limit(ONE)
    assert request.allow()
    with pytest.raises(RateLimited) as refused:
        request.wait(timeout=0)
    assert refused.value.bucket == "sub-resource a"
    assert refused.value.is_retryable
    assert limiter.for_(resource="org").allow()


@pytest.mark.parametrize("name", ["resource", "sub_resource"])
def test_what_cannot_be_hashed_is_refused_by_its_name(name: str) -> None:
    with pytest.raises(TypeError, match=f"^{name} must be hashable"):
        MultiTierLimiter().for_(**{name: []})  # type: ignore[arg-type]


def test_a_limit_of_sub_resources_must_be_one() -> None:
    with pytest.raises(TypeError, match="sub_resource_limit must be a Limit"):
        MultiTierLimiter(sub_resource_limit=3)  # type: ignore[arg-type]


# -- numbers --------------------------------------------------------------------------------------


def test_at_first_all_numbers_are_zero(clock: VirtualClock) -> None:
    assert MultiTierLimiter(clock=clock).metrics() == MultiTierMetrics(
        0, 0, 0, 0, 0, 0, 0.0, 0.0, 0
    )


def test_each_refusal_is_a_hit_of_the_tier_that_lacks_tokens(clock: VirtualClock) -> None:
    limiter = MultiTierLimiter(
        Limit(per_second(1), 6), Limit(per_second(1), 3), Limit(per_second(1), 2), clock=clock
    )
    for route, resource in [("GET /a", "x"), ("GET /a", "x"), ("GET /a", "x"), ("GET /a", "y"),
                            ("GET /a", "y"), ("GET /b", "z")]:  # fmt: skip
        limiter.for_(route=route, resource=resource).allow()
    assert limiter.allow(2)
    hits = ("global_limit_hits", "route_limit_hits", "resource_limit_hits")
    assert count(limiter, "total_requests", *hits) == [6, 0, 1, 1]
    assert not limiter.for_(route="GET /c").allow()
    assert count(limiter, "total_requests", *hits) == [6, 1, 1, 1]


def test_a_call_for_several_tokens_counts_as_so_many_requests(clock: VirtualClock) -> None:
    limiter = MultiTierLimiter(clock=clock)
    limiter.for_(route="GET /a").wait(5)
    assert limiter.allow(2)
    assert count(limiter, "total_requests", "buckets_active") == [7, 1]


def test_waits_are_counted_and_timed(clock: VirtualClock, threads: ThreadPoolExecutor) -> None:
    limiter = MultiTierLimiter(route_limit=ONE, clock=clock)
    request = limiter.for_(route="GET /a")
    request.wait()
    waits = queue_up(request, threads, 1, 1)
    assert count(limiter, "queued_requests", "route_limit_hits") == [2, 2]
    assert count(limiter, "total_requests", "max_wait_time") == [1, 0]
    for one in waits:
        clock.advance(1)
        one.result(PATIENCE)
    names = ("total_requests", "queued_requests", "avg_wait_time", "max_wait_time")
    assert count(limiter, *names) == [3, 0, 1.5, 2.0]


def test_a_wait_without_tokens_is_a_dropped_request(clock: VirtualClock) -> None:
    limiter = MultiTierLimiter(ONE, clock=clock)

    async def main() -> None:
        await limiter.awaits()
        with pytest.raises(RateLimited):
            await limiter.awaits(timeout=0.5)
        task = asyncio.create_task(limiter.awaits())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    names = ("total_requests", "dropped_requests", "queued_requests", "global_limit_hits")
    assert count(limiter, *names) == [1, 2, 0, 2]


def test_what_can_never_be_is_no_hit(clock: VirtualClock, threads: ThreadPoolExecutor) -> None:
    limiter = MultiTierLimiter(ONE, clock=clock)
    assert limiter.allow()
    [waits] = queue_up(limiter, threads, 1)  # so that the next one is not even tried at once
    before = limiter.metrics()
    for call in (limiter.allow, limiter.wait):
        with pytest.raises(ValueError, match="there can never be so many"):
            call(2)
    assert limiter.metrics() == before
    clock.advance(1)
    waits.result(PATIENCE)


# -- to begin anew --------------------------------------------------------------------------------


def test_reset_is_as_new(clock: VirtualClock) -> None:
    limiter = MultiTierLimiter(Limit(per_second(5), 5), ONE, clock=clock)
    request = limiter.for_(route="GET /a")
    assert request.allow()
    limiter.set_temporary_limit(per_second(1), 1, 60)
    request.learn({"X-RateLimit-Limit": "9", "X-RateLimit-Remaining": "0",
                   "X-RateLimit-Reset-After": "60"})  # fmt: skip
    limiter.pause_for(30)
    limiter.reset()
    assert not limiter.is_paused
    assert limiter.metrics() == MultiTierLimiter(clock=clock).metrics()
    assert limiter.tokens == 5
    assert request.allow()


def test_reset_serves_those_that_wait(clock: VirtualClock, threads: ThreadPoolExecutor) -> None:
    limiter = MultiTierLimiter(route_limit=Limit(per_second(1), 2), clock=clock)
    request = limiter.for_(route="GET /a")
    assert request.allow(2)
    waits = queue_up(request, threads, 1, 1, 1)
    limiter.reset()
    for one in waits[:2]:
        one.result(PATIENCE)
    assert count(limiter, "queued_requests", "buckets_active") == [1, 1]
    clock.advance(1)
    waits[2].result(PATIENCE)


def test_reset_keeps_limits_that_were_set(clock: VirtualClock) -> None:
    limiter = MultiTierLimiter(clock=clock)
    limiter.for_(route="GET /a").set_limit(ONE)
    limiter.set_limit(Limit(per_second(1), 3))
    limiter.reset()
    assert (limiter.for_(route="GET /a").tokens, limiter.tokens) == (1, 3)


def test_a_bucket_forgets_the_quota_of_the_server() -> None:
    bucket = ServerBucket(Limit(per_second(1), 4), 0)
    bucket.learn(ServerLimits(limit=1, remaining=0, reset_after=60.0), 0)
    assert not bucket.has(1, 0)
    bucket.reset(0)
    assert bucket.has(4, 0)
    assert bucket.as_new(0)
    bucket.take(4, 0)
    bucket.give_back(4, bucket.mark(), ticks(1.0))
    assert bucket.tokens(ticks(1.0)) <= 4


# -- paused ---------------------------------------------------------------------------------------


def test_it_says_whether_and_until_when_it_is_paused(clock: VirtualClock) -> None:
    limiter = MultiTierLimiter(clock=clock)

    def pause() -> tuple[bool, float | None]:
        return limiter.is_paused, limiter.paused_until

    assert pause() == (False, None)
    limiter.pause_for(2.5)
    assert pause() == (True, clock.monotonic() + 2.5)
    assert not limiter.allow()
    assert count(limiter, "global_limit_hits") == [1]
    clock.advance(2.5)
    assert pause() == (False, None)
    assert limiter.allow()
    until_then = clock.monotonic() + 7
    limiter.pause_until(until_then)
    assert limiter.paused_until == until_then
    limiter.resume()
    assert pause() == (False, None)


def test_a_pause_of_the_server_is_one_if_it_is_for_everything(clock: VirtualClock) -> None:
    limiter = MultiTierLimiter(clock=clock)
    request = limiter.for_(route="GET /a")
    request.learn({"Retry-After": "3"}, status=429)
    assert not limiter.is_paused
    request.learn({"Retry-After": "3", "X-RateLimit-Global": "true"}, status=429)
    assert limiter.paused_until == clock.monotonic() + 3


# -- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("after", "retryable"), [(None, False), (0.0, True), (1.5, True)])
def test_an_error_says_whether_to_try_again(after: float | None, retryable: bool) -> None:
    assert RateLimited("no", limiter="a", retry_after=after).is_retryable is retryable
