"""What a hostile or broken server, or whoever makes up names, can do to a limiter: not much."""

from __future__ import annotations

import gc
import logging
import re
import time
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ion_actors import RateLimited
from ion_actors.ratelimit import (
    HeaderBounds,
    Limit,
    MultiTierLimiter,
    ServerLimits,
    parse_headers,
    per_hour,
    per_second,
)
from ion_actors.ratelimit.routes import Routes, normal_route, resource_key
from ion_actors.testing import VirtualClock
from tests import rounds
from tests.inside import scheduler_of
from tests.ratelimit.helpers import PATIENCE, queue_up
from tests.ratelimit.test_headers import NAMES, VALUES

HOUR, DAY = 3600.0, 86_400.0
FAR = {
    "seconds": {"Retry-After": "999999999999999"},
    "a date": {
        "Retry-After": "Fri, 31 Dec 9999 23:59:59 GMT",
        "Date": "Mon, 01 Jan 2024 00:00:00 GMT",
    },
    "a window": {"RateLimit-Reset": "999999999", "RateLimit-Remaining": "0"},
    "a moment": {"X-RateLimit-Reset": "99999999999", "X-RateLimit-Remaining": "0",
                 "Date": formatdate(0, usegmt=True)},
    "a structured field": {"RateLimit": '"a";r=0;t=999999999999999'},
    "everything": {"Retry-After": "999999999999999", "X-RateLimit-Global": "true"},
    "everything, by a window": {"X-RateLimit-Scope": "global", "X-RateLimit-Remaining": "0",
                                "X-RateLimit-Reset-After": "999999999"},
}  # fmt: skip


@pytest.mark.parametrize("status", [200, 429, 503])
@pytest.mark.parametrize("headers", FAR.values(), ids=FAR)
def test_no_answer_stops_anything_for_longer_than_the_bound(
    headers: dict[str, str], status: int, clock: VirtualClock, threads: ThreadPoolExecutor
) -> None:
    limiter = MultiTierLimiter(clock=clock)
    route = limiter.for_(route="GET /a")
    told = route.learn(headers, status=status)
    assert (told.retry_after or 0.0) <= HOUR
    assert (told.reset_after or 0.0) <= DAY
    assert not route.allow()
    with pytest.raises(RateLimited) as caught:
        route.wait(timeout=1)
    assert caught.value.retry_after is not None
    assert caught.value.retry_after <= DAY
    [waiting] = queue_up(route, threads, 1)
    clock.advance(DAY + 1)
    waiting.result(PATIENCE)
    assert limiter.for_(route="GET /other").allow()


def test_the_bounds_are_the_users(clock: VirtualClock) -> None:
    bounds = HeaderBounds(retry_after=5, reset_after=7, requests=9, name=3, field=40)
    limiter = MultiTierLimiter(clock=clock, header_bounds=bounds)
    told = limiter.for_(route="GET /a").learn(
        {
            "Retry-After": "6",
            "RateLimit-Limit": "10",
            "RateLimit-Remaining": "11",
            "RateLimit-Reset": "8",
            "X-RateLimit-Bucket": "abcd",
        }
    )
    assert told == ServerLimits(limit=9, remaining=9, reset_after=7.0, retry_after=5.0)
    at_them = {"Retry-After": "5", "RateLimit-Reset": "7", "X-RateLimit-Bucket": "abc"}
    assert parse_headers(at_them, bounds=bounds) == ServerLimits(
        reset_after=7.0, retry_after=5.0, bucket="abc"
    )
    assert parse_headers({"Retry-After": "5" + " " * 40}, bounds=bounds) == ServerLimits()


@pytest.mark.parametrize(
    ("bounds", "error"),
    [
        ({"retry_after": -1}, ValueError),
        ({"retry_after": float("nan")}, ValueError),
        ({"reset_after": float("inf")}, ValueError),
        ({"reset_after": "1"}, TypeError),
        ({"requests": 0}, ValueError),
        ({"name": 1.5}, TypeError),
        ({"field": 0}, ValueError),
    ],
)
def test_bounds_are_checked(bounds: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(bounds))):
        HeaderBounds(**bounds)
    with pytest.raises(TypeError, match="bounds must be HeaderBounds"):
        parse_headers({}, bounds=bounds)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="header_bounds must be HeaderBounds"):
        MultiTierLimiter(header_bounds=bounds)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="max_buckets must be at least 1"):
        MultiTierLimiter(max_buckets=0)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "value",
    ["9" * 5000, "-1", "nan", "inf", "1e400", "\N{ARABIC-INDIC DIGIT ONE}", "\ud800", "5\ud800",
     "Fri, 31 Dec 9999 23:59:59 -2359", "Mon, 01 Jan 0001 00:00:00 +2359", "\x00", '"\udfff";r=1',
     "Fri, \N{ARABIC-INDIC DIGIT THREE}1 Dec 2025 23:59:59 GMT", "1" * 15 + "." + "1" * 15],
    ids=lambda value: ascii(value)[:30],
)  # fmt: skip
@pytest.mark.parametrize("status", [200, 429])
def test_a_number_that_is_none_is_no_fault_of_ours(name: str, value: str, status: int) -> None:
    limiter = MultiTierLimiter()
    told = limiter.for_(route="GET /a").learn({name: value}, status=status)
    assert all(one is None or one >= 0 for one in (told.limit, told.remaining, told.reset_after))
    assert (told.retry_after or 0.0) <= HOUR
    assert name == "Retry-After" or told.retry_after is None


# -- garbage -------------------------------------------------------------------------------

HOSTILE = st.one_of(
    VALUES,
    st.text(st.characters(), max_size=30),
    st.characters(categories=["Cs", "Cc", "Nd", "Zs"]),
    st.integers(-(10**18), 10**18).map(str),
    st.integers(0, 10**15).map('"b";r=0;t={}'.format),
)


@given(
    answers=st.lists(
        st.tuples(
            st.dictionaries(st.sampled_from(NAMES), HOSTILE, max_size=8),
            st.sampled_from([200, 301, 429, 503]),
        ),
        max_size=4,
    )
)
def test_whatever_is_answered_the_route_is_open_again_after_a_day(
    answers: list[tuple[dict[str, str], int]],
) -> None:
    clock = VirtualClock()
    limiter = MultiTierLimiter(clock=clock)
    route = limiter.for_(route="GET /a", resource="x")
    for headers, status in answers:
        route.learn(headers, status=status)
        route.allow()
    assert limiter.buckets <= 2
    clock.advance(DAY)
    assert route.allow()


SHAPES: dict[str, Callable[[int], str]] = {
    "commas": lambda n: "," * n,
    "quotes": lambda n: '"' * n,
    "backslashes": lambda n: '"' + "\\" * n,
    "quoted backslashes": lambda n: '"' + "\\" * (n - n % 2) + '"',
    "spaces": lambda n: " " * n,
    "spaces inside": lambda n: "1" + " " * n + "1",
    "semicolons": lambda n: ";" * n,
    "equals": lambda n: "a=" * (n // 2),
    "digits": lambda n: "1" * n,
    "members": lambda n: '"a";r=1;t=1,' * (n // 12),
    "parameters": lambda n: '"a"' + ";r=1" * (n // 4),
    "nested": lambda n: "(" * (n // 2) + ")" * (n // 2),
    "almost closed": lambda n: '"a",' * (n // 4) + '"',
    "dates": lambda n: "Mon, 01 Jan " * (n // 12),
}


def cost(headers: dict[str, str], bounds: HeaderBounds) -> float:
    """Seconds of this thread that reading takes, at best."""
    found = []
    for _ in range(3):
        began = time.thread_time()
        parse_headers(headers, status=429, bounds=bounds)
        found.append(time.thread_time() - began)
    return min(found)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_reading_takes_time_in_proportion_to_the_length(shape: Callable[[int], str]) -> None:
    unbounded = HeaderBounds(field=10**8)
    names = [name for name in NAMES if name != "Date"]
    small, large = ({name: shape(n) for name in names} for n in (15_000, 240_000))
    # In proportion would be 16 times as much; the square, 256 times.
    assert cost(large, unbounded) < 64 * cost(small, unbounded) + 0.01


class Repeats:
    """One field, sent very often, as clients that keep repeats have it."""

    def __init__(self, name: str, value: str, times: int) -> None:
        self.pair, self.times = (name, value), times

    def items(self) -> list[tuple[str, str]]:
        return [self.pair] * self.times


def test_no_more_is_read_than_the_bound_allows() -> None:
    assert parse_headers({"Retry-After": "5" + " " * 9000}) == ServerLimits()
    assert parse_headers({"Retry-After" + " " * 9000: "5"}) == ServerLimits()
    told = parse_headers({"RateLimit": '"a";r=1,' * 100_000, "Retry-After": "5"})
    assert told == ServerLimits(retry_after=5.0)
    for value in ("", "1", '"a";r=1'):
        repeats: Any = Repeats("RateLimit", value, 200_000)
        assert parse_headers(repeats) == ServerLimits()
    one: Any = Repeats("RateLimit", '"a";r=1', 3)
    assert parse_headers(one).remaining == 1
    assert parse_headers({"X-RateLimit-Bucket": "b" * 257}) == ServerLimits()
    assert parse_headers({"RateLimit": f'"{"b" * 257}";r=1'}) == ServerLimits(remaining=1)


# -- names without number ------------------------------------------------------------------

BUSY = {"X-RateLimit-Remaining": "1000000", "X-RateLimit-Reset-After": "900000000"}


def growth(step: Callable[[int], object], count: int) -> int:
    """Bytes that are held after so many steps and were not before."""
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for k in range(count):
            step(k)
        gc.collect()
        return tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()


def test_a_server_that_makes_up_names_makes_no_buckets(clock: VirtualClock) -> None:
    limiter = MultiTierLimiter(clock=clock)
    route = limiter.for_(route="GET /a")
    for k in range(100):
        route.learn({**BUSY, "X-RateLimit-Bucket": f"b{k}"})
    assert limiter.buckets == 1
    with pytest.raises(ValueError, match="of bucket b99, 50,"):
        route.allow(51)


def test_what_a_route_has_used_goes_with_it_to_another_name(clock: VirtualClock) -> None:
    limiter = MultiTierLimiter(route_limit=Limit(per_hour(1), 4), clock=clock)
    a, b = limiter.for_(route="GET /a"), limiter.for_(route="GET /b")
    a.learn({"X-RateLimit-Bucket": "x", "X-RateLimit-Remaining": "1",
             "X-RateLimit-Reset-After": "60"})  # fmt: skip
    a.learn({"X-RateLimit-Bucket": "y"})
    assert [a.allow(), a.allow()] == [True, False]  # the quota of x was not forgotten
    b.learn({"X-RateLimit-Bucket": "y"})
    assert not b.allow()
    b.learn({"X-RateLimit-Bucket": "z"})
    assert limiter.buckets == 2
    assert a.tokens == 3.0


ATTACKS: dict[str, Callable[[MultiTierLimiter, int], object]] = {
    "routes": lambda limiter, k: limiter.for_(route=f"GET /r-{k}").allow(),
    "resources": lambda limiter, k: limiter.for_(resource=f"user {k}").allow(),
    "mappings": lambda limiter, k: limiter.for_(resource={"user": k}).allow(),
    "a bucket for each": lambda limiter, k: limiter.for_(route=f"GET /r-{k}").learn(
        {**BUSY, "X-RateLimit-Bucket": f"b{k}"}
    ),
    "one bucket for all": lambda limiter, k: limiter.for_(route=f"GET /r-{k}").learn(
        {**BUSY, "X-RateLimit-Bucket": "shared"}
    ),
    "policies": lambda limiter, k: limiter.for_(route=f"GET /r-{k}", resource=k).learn(
        {"RateLimit": f'"p{k}";r=0;t=9999999', "RateLimit-Policy": f'"p{k}";q=5;w=9999999'}
    ),
    "two names by turns": lambda limiter, k: limiter.for_(route=f"GET /r-{k // 2}").learn(
        {**BUSY, "X-RateLimit-Bucket": f"b{k % 7}"}
    ),
    "pauses": lambda limiter, k: limiter.for_(route=f"GET /r-{k}").learn({"Retry-After": "99999"}),
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_memory_stays_flat(
    attack: Callable[[MultiTierLimiter, int], object],
    clock: VirtualClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.CRITICAL, "ion_actors.ratelimit")  # or the records would be counted
    limiter = MultiTierLimiter(Limit(per_second(10**9), 10**9), max_buckets=50, clock=clock)
    for k in range(200):
        attack(limiter, k)
    grown = growth(lambda k: attack(limiter, 200 + k), rounds(1000, thorough=3000))
    assert limiter.buckets <= 50
    assert grown < 200_000  # 1000 buckets are more than a megabyte


def test_names_are_not_kept_at_any_length(clock: VirtualClock) -> None:
    limiter = MultiTierLimiter(clock=clock)

    def attack(k: int) -> None:
        limiter.for_(route=f"GET /{'r' * 100_000}{k}", resource=f"{'u' * 100_000}{k}").allow()

    assert growth(attack, 50) < 2_000_000
    assert limiter.buckets == 100  # each is still itself


def test_another_bucket_takes_the_place_of_a_full_one(clock: VirtualClock) -> None:
    limiter = MultiTierLimiter(route_limit=Limit(per_hour(1), 2), max_buckets=3, clock=clock)
    a, b, c, d = (limiter.for_(route=f"GET /{name}") for name in "abcd")
    assert a.allow(2)
    assert b.tokens == c.tokens == 2.0  # made, and full
    assert d.allow(2)
    assert not a.allow()
    assert limiter.buckets == 3
    assert b.allow(2)  # in place of c
    assert not a.allow()
    assert c.allow()  # in place of the one that was used least lately, though it is not full
    assert limiter.buckets == 3


def test_a_bucket_with_somebody_in_line_stays(
    clock: VirtualClock, threads: ThreadPoolExecutor
) -> None:
    limiter = MultiTierLimiter(route_limit=Limit(per_second(1), 1), max_buckets=1, clock=clock)
    a = limiter.for_(route="GET /a")
    assert a.allow()
    [waiting] = queue_up(a, threads, 1)
    for k in range(20):
        assert limiter.for_(route=f"GET /b-{k}").allow()
        assert not a.allow()  # who waits is next
    clock.advance(1)
    waiting.result(PATIENCE)
    assert not a.allow()
    limiter.for_(route="GET /c").allow()
    limiter.for_(route="GET /d").allow()
    assert limiter.buckets <= 2


# -- routes --------------------------------------------------------------------------------


def test_no_path_makes_a_template_try_everything() -> None:
    routes = Routes({"GET /x/{a}-{b}-{c}-{d}-{e}!": 1, "GET /{a}{b}{c}{d}{e}{f}!": 1})
    path = f"GET /x/{'-' * 5000}"
    assert routes.key(path) == routes.key(path)
    assert "{" not in routes.key(path)


PIECES = st.sampled_from(["{a}", "{b}", "{c}", "a", "b", "-", ".", "/", "x/"])


@given(st.lists(PIECES, max_size=7), st.text("ab-./x", max_size=10))
def test_a_template_fits_what_a_plain_expression_fits(pieces: list[str], path: str) -> None:
    routes = Routes({f"GET /{''.join(pieces)}": 1})
    template = normal_route(f"GET /{''.join(pieces)}")
    plain = re.sub(r"\\\{[^/{}]*\\\}", "[^/]+", re.escape(template))
    name = Routes({}).key(f"GET /{path}")
    fits = name == template or re.fullmatch(plain, name) is not None
    assert (routes.key(name) == template) is fits


def test_a_long_name_is_as_good_as_its_own() -> None:
    one, other = "x" * 10_000 + "1", "x" * 10_000 + "2"
    assert resource_key(one) == resource_key(one) != resource_key(other)
    assert Routes({}).key(one) != Routes({}).key(other)
    assert len(str(resource_key("\ud800" * 1000))) < 1000


def test_names_that_cannot_be_shown_are_shown_all_the_same(clock: VirtualClock) -> None:
    class Shy:
        def __repr__(self) -> str:
            raise RuntimeError

    limiter = MultiTierLimiter(clock=clock)
    for resource, shown in (
        ("a\nb\ud800\u2028", r"a\nb\ud800\u2028"),
        (10**5000, "int"),
        (Shy(), "Shy"),
    ):
        with pytest.raises(ValueError, match="burst of resource") as caught:
            limiter.for_(resource=resource).allow(21)
        assert shown in str(caught.value)
        assert len(str(caught.value)) < 1000


def test_what_a_resource_says_of_itself_is_asked_without_the_lock(clock: VirtualClock) -> None:
    limiter = MultiTierLimiter(resource_limit=Limit(per_second(1), 1), clock=clock)
    asked = []

    class Resource:
        def __repr__(self) -> str:
            asked.append("repr")
            assert not scheduler_of(limiter).lock._is_owned()  # type: ignore[attr-defined]
            return "me"

    request = limiter.for_(resource=Resource())
    request.set_limit(Limit(per_second(1), 2))
    assert request.allow(2)
    with pytest.raises(RateLimited, match="of resource me can be there in 1 s"):
        request.wait(timeout=0.5)
    assert asked == ["repr"]
