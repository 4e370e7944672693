"""Limits in tiers: who shares a bucket, who waits for whom, and what a server's answers teach."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from ion_actors import RateLimited
from ion_actors.ratelimit import Limit, MultiTierLimiter, per_minute, per_second
from ion_actors.ratelimit.routes import normal_route
from ion_actors.testing import RecordingMetrics, RecordingTracer, VirtualClock
from tests.ratelimit.helpers import PATIENCE, queue_up

ONE = Limit(per_second(1), 1)


@pytest.mark.parametrize(
    ("route", "normal"),
    [
        ("GET /users/17", "GET /users/{id}"),
        ("GET /users/17/?page=2", "GET /users/{id}"),
        ("GET //users//17/posts/4", "GET /users/{id}/posts/{id}"),
        ("GET /a/123e4567-e89b-12d3-a456-426614174000", "GET /a/{id}"),
        ("GET /v1/users", "GET /v1/users"),
        ("GET /17a/b2", "GET /17a/b2"),
        ("GET /", "GET /"),
        ("/", "/"),
        ("GET", "GET"),
        ("", ""),
    ],
)
def test_a_route_without_what_differs_from_request_to_request(route: str, normal: str) -> None:
    assert normal_route(route) == normal
    assert normal_route(normal) == normal


def test_the_defaults(clock: VirtualClock) -> None:
    limiter = MultiTierLimiter(clock=clock)
    assert limiter.tokens == 100.0
    assert limiter.for_(route="GET /a").tokens == 50.0
    assert limiter.for_(route="GET /a", resource="x").tokens == 20.0


def test_routes_of_one_template_share_its_bucket(clock: VirtualClock) -> None:
    limiter = MultiTierLimiter(
        routes={"GET /repos/{owner}/{repo}": Limit(per_second(1), 2), "GET /repos/a/b": ONE},
        clock=clock,
    )
    for path in ("x/y", "z/17"):
        assert limiter.for_(route=f"GET /repos/{path}").allow()
    assert not limiter.for_(route="GET /repos/u/v").allow()
    assert limiter.for_(route="GET /repos/a/b").allow()
    assert limiter.for_(route="GET /repos/a/b/c").tokens == 50.0


def test_an_exhausted_route_holds_nobody_else_up(
    clock: VirtualClock, threads: ThreadPoolExecutor
) -> None:
    limiter = MultiTierLimiter(Limit(per_second(100), 5), ONE, clock=clock)
    slow, quick = limiter.for_(route="GET /slow"), limiter.for_(route="GET /quick")
    assert slow.allow()
    [one] = queue_up(slow, threads, 1)
    assert quick.allow()
    assert limiter.allow()
    assert not slow.allow()
    clock.advance(1)
    one.result(PATIENCE)
    assert (limiter.waiting, clock.timers) == (0, 0)


def test_who_lacks_only_the_global_tokens_is_served_before_later_ones(
    clock: VirtualClock, threads: ThreadPoolExecutor
) -> None:
    limiter = MultiTierLimiter(Limit(per_second(1), 3), clock=clock)
    assert limiter.allow(3)
    waits = queue_up(limiter.for_(route="GET /a"), threads, 3)
    waits += queue_up(limiter.for_(route="GET /b"), threads, 1)
    waits += queue_up(limiter, threads, 1)
    clock.advance(2)
    assert not limiter.for_(route="GET /c").allow()
    for one in waits:
        assert not one.done()
        clock.advance(1)
        one.result(PATIENCE)


def test_those_who_share_a_resource_are_served_in_order(
    clock: VirtualClock, threads: ThreadPoolExecutor
) -> None:
    limiter = MultiTierLimiter(route_limit=ONE, resource_limit=Limit(per_second(4), 1), clock=clock)
    assert limiter.for_(route="GET /a").allow()
    waits = queue_up(limiter.for_(route="GET /a", resource="x"), threads, 1)
    waits += queue_up(limiter.for_(route="GET /b", resource="x"), threads, 1)
    clock.advance(0.5)
    assert not any(one.done() for one in waits)
    clock.advance(0.5)
    waits[0].result(PATIENCE)
    clock.advance(0.25)
    waits[1].result(PATIENCE)


def test_an_error_names_the_tier_that_is_exhausted(clock: VirtualClock) -> None:
    limiter = MultiTierLimiter(Limit(per_second(1), 2), ONE, clock=clock)
    request = limiter.for_(route="GET /users/17")
    request.wait()
    with pytest.raises(RateLimited) as caught:
        request.wait(timeout=0.5)
    assert (caught.value.bucket, caught.value.is_global) == ("route GET /users/{id}", False)
    assert limiter.allow()
    with pytest.raises(RateLimited) as caught:
        limiter.for_(route="GET /b").wait(timeout=0.5)
    assert (caught.value.bucket, caught.value.is_global) == ("everything", True)
    with pytest.raises(ValueError, match="burst of route GET /b, 1, not 2"):
        limiter.for_(route="GET /b").allow(2)


def test_a_bucket_that_is_not_full_is_not_evicted(clock: VirtualClock) -> None:
    limiter = MultiTierLimiter(route_limit=Limit(per_minute(1), 5), bucket_ttl=60, clock=clock)
    route = limiter.for_(route="GET /a")
    assert route.allow(5)
    clock.advance(120)
    assert limiter.for_(route="GET /b").allow()
    assert limiter.buckets == 2
    assert route.tokens == 2.0


def test_other_limits_while_running(clock: VirtualClock, threads: ThreadPoolExecutor) -> None:
    limiter = MultiTierLimiter(clock=clock, bucket_ttl=1)
    route = limiter.for_(route="GET /a/1")
    route.set_limit(Limit(per_second(1), 2))
    assert route.tokens == 2.0
    clock.advance(5)
    limiter.for_(route="GET /b").allow()
    assert limiter.for_(route="GET /a/2").tokens == 2.0  # it outlives its bucket
    limiter.set_limit(Limit(per_second(0), 1))
    assert limiter.allow()
    [one] = queue_up(limiter, threads, 1)
    limiter.set_temporary_limit(per_second(1), 1, 10)
    clock.advance(1)
    one.result(PATIENCE)
    limiter.clear_temporary_limit()
    clock.advance(100)
    assert not limiter.allow()


# -- what the server says ------------------------------------------------------------------


def test_retry_after_pauses_the_route_and_nothing_else(
    clock: VirtualClock, threads: ThreadPoolExecutor
) -> None:
    limiter = MultiTierLimiter(clock=clock)
    route = limiter.for_(route="GET /a", resource="x")
    told = route.learn({"Retry-After": "30"}, status=429)
    assert told.retry_after == 30.0
    assert not route.allow()
    assert limiter.for_(route="GET /b", resource="x").allow()
    with pytest.raises(RateLimited) as caught:
        route.wait(timeout=29)
    assert caught.value.retry_after == 30.0
    [one] = queue_up(route, threads, 1)
    limiter.resume()
    one.result(PATIENCE)


def test_a_global_refusal_pauses_everything(clock: VirtualClock) -> None:
    limiter = MultiTierLimiter(clock=clock)
    headers = {"Retry-After": "2", "X-RateLimit-Global": "true"}
    limiter.for_(route="GET /a").learn(headers, status=429)
    assert not limiter.for_(route="GET /b").allow()
    clock.advance(2)
    assert limiter.for_(route="GET /b").allow()


def test_what_remains_is_not_exceeded_until_the_reset(clock: VirtualClock) -> None:
    limiter = MultiTierLimiter(clock=clock)
    route = limiter.for_(route="GET /a")
    route.learn({"RateLimit-Limit": "6", "RateLimit-Remaining": "2", "RateLimit-Reset": "10"})
    assert [route.allow() for _ in range(3)] == [True, True, False]
    clock.advance(10)
    assert [route.allow() for _ in range(7)] == [True] * 6 + [False]


def test_routes_with_the_same_bucket_of_the_server_share_one(clock: VirtualClock) -> None:
    limiter = MultiTierLimiter(route_limit=Limit(per_second(1), 4), bucket_ttl=60, clock=clock)
    a, b = limiter.for_(route="GET /a"), limiter.for_(route="GET /b")
    assert a.allow(3)
    a.learn({"X-RateLimit-Bucket": "abcd"})
    assert (a.tokens, b.tokens) == (1.0, 4.0)
    b.learn({"X-RateLimit-Bucket": "abcd"})
    assert limiter.buckets == 1
    assert b.allow()
    assert not a.allow()
    a.learn({"X-RateLimit-Bucket": "efgh"})  # the server thinks again
    assert limiter.buckets == 2
    assert a.tokens == 0.0
    clock.advance(120)
    assert limiter.for_(route="GET /c").allow()
    assert limiter.buckets == 1
    assert (a.tokens, b.tokens) == (4.0, 4.0)


def test_headers_teach_the_limit_for_everything_where_no_route_is_given(
    clock: VirtualClock,
) -> None:
    limiter = MultiTierLimiter(clock=clock)
    limiter.learn({"Retry-After": "1", "X-RateLimit-Bucket": "abcd"}, status=503)
    assert not limiter.for_(route="GET /a").allow()


# -- arguments and hooks -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"global_limit": 3}, "global_limit must be a Limit"),
        ({"route_limit": None}, "route_limit must be a Limit"),
        ({"resource_limit": per_second(1)}, "resource_limit must be a Limit"),
        ({"routes": {"GET /": 3}}, r"routes\['GET /'\] must be a Limit"),
        ({"bucket_ttl": 0}, "bucket_ttl must be more than 0"),
        ({"jitter": 2}, "jitter must be"),
    ],
)
def test_settings_that_make_no_sense(options: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        MultiTierLimiter(**options)


def test_requests_that_make_no_sense() -> None:
    limiter = MultiTierLimiter()
    with pytest.raises(TypeError, match="route must be a string"):
        limiter.for_(route=17)  # type: ignore[arg-type]
    for resource in ([1], {"a": [1]}):
        with pytest.raises(TypeError, match="resource must be hashable"):
            limiter.for_(resource=resource)
    with pytest.raises(TypeError, match="limit must be a Limit"):
        limiter.set_limit(3)  # type: ignore[arg-type]
    for verb in (limiter.pause_for, limiter.pause_until):
        with pytest.raises(ValueError, match="must be"):
            verb(float("inf"))


def test_a_wrapped_call_passes_its_tiers(clock: VirtualClock) -> None:
    limiter = MultiTierLimiter(clock=clock)
    request = limiter.for_(route="GET /a", resource="x")

    @request.wrap
    def call() -> int:
        return 7

    assert call() == 7
    assert (limiter.tokens, request.tokens) == (99.0, 19.0)


def test_the_hooks_are_told(clock: VirtualClock, threads: ThreadPoolExecutor) -> None:
    metrics, tracer = RecordingMetrics(), RecordingTracer()
    limiter = MultiTierLimiter(
        Limit(per_second(1), 2), name="api", clock=clock, metrics=metrics, tracer=tracer
    )
    route = limiter.for_(route="GET /a")
    route.wait(2)
    assert not route.allow()
    [one] = queue_up(route, threads, 2)
    clock.advance(2)
    one.result(PATIENCE)
    with pytest.raises(RateLimited):
        route.wait(timeout=0.5)
    total = "ion_ratelimit_requests_total"
    assert metrics.count(total, limiter="api", result="allowed") == 2
    assert metrics.count(total, limiter="api", result="denied") == 2
    assert metrics.observed("ion_ratelimit_wait_duration_seconds") == [2.0]
    assert metrics.last("ion_ratelimit_tokens_available", limiter="api") == 0.0
    spans = tracer.spans("ion_ratelimit_wait", limiter="api")
    assert [(span.attributes["tokens"], span.finishes) for span in spans] == [(2, 1), (1, 1)]
    assert isinstance(spans[1].error, RateLimited)
