"""The arithmetic: strict over any stretch of time, exact to the tick, and never stingy."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ion_actors.ratelimit import Limit, Rate, per, per_hour, per_minute, per_second
from ion_actors.ratelimit.bucket import Bucket, Mark, ServerBucket, moment, ticks
from ion_actors.ratelimit.headers import ServerLimits

rates = st.one_of(
    # Not down to 1e-308: fractions of that are exact too, and slow.
    st.builds(Rate, st.floats(1e-6, 1e6), st.floats(1e-3, 1e6)),
    st.builds(Rate, st.integers(0, 50), st.integers(1, 7)),
)
limits = st.builds(Limit, rates, st.integers(1, 12))
steps = st.one_of(st.just(0.0), st.floats(0, 5), st.sampled_from([0.1, 1 / 3, 1e-9, 60.0]))


# -- rates ---------------------------------------------------------------------------------


def test_rates_are_equal_if_they_are_equally_fast() -> None:
    assert per_minute(60) == per_second(1) == per_hour(3600) == per(2, 2)
    assert len({per_minute(60), per_second(1)}) == 1
    assert per_second(1) != per_second(2)
    assert per_second(1) != 1


def test_a_third_of_a_token_is_exactly_that() -> None:
    assert per(1, 3).exact == Fraction(1, 3)
    assert per_hour(1).tokens_per_second == 1 / 3600


def test_a_rate_says_what_it_is() -> None:
    assert (str(per_second(2.5)), str(per_minute(5))) == ("2.5/s", "5 per 60 s")


@pytest.mark.parametrize(
    ("tokens", "seconds", "error"),
    [
        (-1, 1, ValueError),
        (math.inf, 1, ValueError),
        (math.nan, 1, ValueError),
        (1, 0, ValueError),
        (1, -1, ValueError),
        (1, math.inf, ValueError),
        ("1", 1, TypeError),
        (True, 1, TypeError),
    ],
)
def test_a_rate_that_makes_no_sense(tokens: float, seconds: float, error: type[Exception]) -> None:
    with pytest.raises(error, match="must be"):
        Rate(tokens, seconds)


@pytest.mark.parametrize("burst", [0, -1, 1.5, True, None])
def test_a_limit_that_makes_no_sense(burst: int) -> None:
    with pytest.raises((TypeError, ValueError), match="burst must be"):
        Limit(per_second(1), burst)
    with pytest.raises(TypeError, match="rate must be a Rate"):
        Limit(1, 1)  # type: ignore[arg-type]


# -- moments -------------------------------------------------------------------------------


@given(st.floats(2**-8, 1e9) | st.floats(1e9, 1.7e308))
@example(1e300)
def test_a_moment_becomes_ticks_without_rounding(when: float) -> None:
    assert Fraction(ticks(when), 2**60) == Fraction(when)
    assert moment(ticks(when)) == when


@given(st.integers(0, 2**90))
def test_a_tick_becomes_the_earliest_float_that_is_not_before_it(tick: int) -> None:
    found = moment(tick)
    assert found is not None
    assert ticks(found) >= tick
    assert Fraction(math.nextafter(found, -math.inf)) * 2**60 < tick


def test_a_tick_that_no_float_reaches_is_never() -> None:
    assert moment(2**2000) is None
    assert moment(ticks(1.7976931348623157e308) + 1) is None


# -- strictness ----------------------------------------------------------------------------


@dataclass
class Grant:
    at: Fraction
    n: int
    burst: int  # that held then
    inflow: Fraction  # all that the rates let in until then
    mark: Mark
    used: bool = True


@dataclass
class History:
    """What a bucket did, and what its rates let in, by exact arithmetic of another kind."""

    bucket: Bucket
    now: float
    inflow: Fraction = Fraction(0)
    grants: list[Grant] = field(default_factory=list)
    ends: Fraction | None = None  # of the temporary limit
    short: Limit | None = None

    def go(self, step: float) -> None:
        before, self.now = Fraction(self.now), self.now + step
        after = Fraction(self.now)
        if self.short is not None and self.ends is not None:
            until = max(before, min(after, self.ends))
            self.inflow += (until - before) * self.short.rate.exact
            before = until
            if self.ends <= after:
                self.short = None
        rate = (self.short or self.bucket.lasting).rate.exact
        self.inflow += (after - before) * rate

    def take(self, n: int) -> None:
        tick = ticks(self.now)
        if self.bucket.try_take(n, tick):
            burst = self.bucket.current.burst
            mark = self.bucket.mark()
            self.grants.append(Grant(Fraction(self.now), n, burst, self.inflow, mark))

    def give_back(self, which: int) -> None:
        used = [one for one in self.grants if one.used]
        if used:
            one = used[which % len(used)]
            one.used = False
            self.bucket.give_back(one.n, one.mark, ticks(self.now))

    def check(self) -> None:
        used = [one for one in self.grants if one.used]
        for i, first in enumerate(used):
            total = 0
            for last in used[i:]:
                total += last.n
                assert total <= first.burst + last.inflow - first.inflow


takes = st.tuples(st.just("take"), st.integers(1, 12))
moves = st.one_of(
    takes,
    takes,
    st.tuples(st.just("back"), st.integers(0, 5)),
    st.tuples(st.just("limit"), limits),
    st.tuples(st.just("short"), limits, steps),
    st.tuples(st.just("drain"), st.integers(0, 12)),
    st.tuples(st.just("look"), st.integers(1, 12)),
    st.tuples(st.just("clear")),
)


@given(limits, st.floats(1, 1e6), st.lists(st.tuples(steps, moves), max_size=30))
@example(  # tokens that come back after the bucket was full again must not make a second burst
    Limit(per_second(1), 10),
    1.0,
    [(0.0, ("take", 5)), (5.0, ("take", 4)), (0.0, ("back", 0)), (0.0, ("take", 10))],
)
@example(
    Limit(per_second(1), 10),
    1.0,
    [(0.0, ("take", 5)), (3.0, ("take", 4)), (0.0, ("back", 0)), (0.0, ("take", 9))],
)
@example(  # nor must they if they would have been lost before the burst was raised
    Limit(per_second(1), 4),
    1.0,
    [
        (0.0, ("take", 3)),
        (5.0, ("take", 1)),
        (0.0, ("limit", Limit(per_second(1), 10))),
        (0.0, ("back", 0)),
        (0.0, ("take", 6)),
    ],
)
def test_no_window_has_more_than_the_burst_and_what_flows_in(
    limit: Limit, start: float, schedule: list[tuple[float, tuple[object, ...]]]
) -> None:
    history = History(Bucket(limit, ticks(start)), start)
    bucket = history.bucket
    for step, move in schedule:
        history.go(step)
        now = ticks(history.now)
        match move:
            case ("take", int(n)):
                history.take(n)
            case ("back", int(which)):
                history.give_back(which)
            case ("limit", Limit() as other):
                bucket.set_lasting(other, now)
            case ("short", Limit() as other, float(length)):
                bucket.set_temporary(other, now + ticks(length), now)
                history.short = other
                history.ends = Fraction(now + ticks(length), 2**60)
            case ("drain", int(n)):
                bucket.drain_to(n, now)
            case ("look", int(n)):
                bucket.when(n, now)
                bucket.tokens(now)
            case ("clear",):
                bucket.clear_temporary(now)
                history.short = None
    history.check()


@given(st.builds(per, st.integers(1, 50), st.integers(1, 7)), st.lists(steps, max_size=30))
def test_not_a_single_token_is_lost_either(rate: Rate, pauses: list[float]) -> None:
    now = 1.0
    bucket = Bucket(Limit(rate, 10**9), ticks(now))
    bucket.drain_to(0, ticks(now))
    taken = 0
    for pause in pauses:
        now += pause
        while bucket.try_take(1, ticks(now)):
            taken += 1
            if taken > 500:
                return
    assert taken == math.floor((Fraction(now) - 1) * rate.exact)


def test_a_change_of_the_rate_rounds_down() -> None:
    bucket = Bucket(Limit(per(1, 3), 1), 0)
    bucket.drain_to(0, 0)
    bucket.set_lasting(Limit(per_second(1), 1), 1)  # a third of what a tick will let in from now
    assert not bucket.has(1, 2**60)
    assert bucket.has(1, 2**60 + 1)


# -- looking ahead -------------------------------------------------------------------------


@given(
    limits,
    st.integers(1, 12),
    st.integers(0, 12),
    st.one_of(st.none(), st.tuples(limits, steps)),
    steps,
)
def test_the_moment_foretold_is_the_first_one(
    limit: Limit, n: int, left: int, short: tuple[Limit, float] | None, pause: float
) -> None:
    now = ticks(1.0)
    bucket = Bucket(limit, now)
    bucket.drain_to(left, now)
    if short is not None:
        bucket.set_temporary(short[0], now + ticks(short[1]), now)
    bucket.pause(now + ticks(pause))
    found = bucket.when(n, now)
    if found is None:
        assert n > limit.burst or limit.rate.tokens == 0 or limit.rate.exact < Fraction(1, 10**9)
        return
    assert copy.copy(bucket).has(n, found)
    assert found == now or not copy.copy(bucket).has(n, found - 1)


def test_those_ahead_are_counted_in() -> None:
    now = ticks(1.0)
    bucket = Bucket(Limit(per_second(2), 4), now)
    bucket.drain_to(0, now)
    assert bucket.when(1, now, ahead=3) == ticks(3.0)
    assert bucket.when(1, now) == ticks(1.5)


@given(limits, st.lists(st.tuples(steps, st.integers(1, 12)), max_size=12), st.booleans())
def test_taking_in_one_go_is_looking_and_taking(
    limit: Limit, schedule: list[tuple[float, int]], server: bool
) -> None:
    one = (ServerBucket if server else Bucket)(limit, ticks(1.0))
    if isinstance(one, ServerBucket):
        one.learn(ServerLimits(limit=5, remaining=3, reset_after=1.0), ticks(1.0))
    two = copy.copy(one)
    now = 1.0
    for step, n in schedule:
        now += step
        found = two.has(n, ticks(now))
        if found:
            two.take(n, ticks(now))
        assert one.try_take(n, ticks(now)) == found
    assert one.tokens(ticks(now)) == two.tokens(ticks(now))


@given(limits, st.integers(0, 12), steps)
def test_what_it_says_it_has_can_be_taken(limit: Limit, left: int, pause: float) -> None:
    bucket = Bucket(limit, ticks(1.0))
    bucket.drain_to(left, ticks(1.0))
    now = ticks(1.0 + pause)
    whole = math.floor(bucket.tokens(now))
    assert bucket.room(now) >= limit.burst - bucket.tokens(now) - 1e-6
    assert whole == 0 or bucket.has(whole, now)
    assert not bucket.has(whole + 1, now)


# -- a server's quota ----------------------------------------------------------------------

PLENTY = Limit(per_second(1000), 1000)


def told(remaining: int, reset_after: float, limit: int | None = 10) -> ServerLimits:
    return ServerLimits(limit=limit, remaining=remaining, reset_after=reset_after)


def greedy(bucket: ServerBucket, now: float) -> int:
    taken = 0
    while bucket.try_take(1, ticks(now)):
        taken += 1
    return taken


def test_what_the_server_says_remains_is_all_there_is_until_its_reset() -> None:
    bucket = ServerBucket(PLENTY, ticks(1.0))
    bucket.learn(told(3, 5.0), ticks(1.0))
    assert greedy(bucket, 1.0) == 3
    assert bucket.when(1, ticks(2.0)) == ticks(6.0)
    assert greedy(bucket, 5.9) == 0
    assert greedy(bucket, 6.0) == 10  # a window like the one before


def test_a_late_answer_of_the_same_window_gives_nothing_back() -> None:
    bucket = ServerBucket(PLENTY, ticks(1.0))
    bucket.learn(told(2, 5.0), ticks(1.0))
    bucket.learn(told(9, 5.0), ticks(1.0))
    assert greedy(bucket, 1.0) == 2


def test_a_window_nobody_told_of_ends_after_the_length_of_the_last() -> None:
    bucket = ServerBucket(PLENTY, ticks(1.0))
    bucket.learn(told(0, 5.0), ticks(1.0))
    assert greedy(bucket, 8.0) == 10  # it begins with its first token
    assert greedy(bucket, 12.9) == 0
    assert greedy(bucket, 13.0) == 10


def test_what_is_told_of_a_presumed_window_holds_instead() -> None:
    bucket = ServerBucket(PLENTY, ticks(1.0))
    bucket.learn(told(0, 5.0), ticks(1.0))
    assert bucket.try_take(1, ticks(6.0))
    bucket.learn(told(9, 2.0), ticks(6.0))
    assert greedy(bucket, 6.0) == 9
    assert greedy(bucket, 8.0) == 10


def test_without_a_number_per_window_the_next_one_is_free() -> None:
    bucket = ServerBucket(PLENTY, ticks(1.0))
    bucket.learn(told(1, 5.0, limit=None), ticks(1.0))
    assert greedy(bucket, 1.0) == 1
    assert greedy(bucket, 6.0) == 1000


def test_more_than_a_window_has_is_for_the_server_to_judge() -> None:
    bucket = ServerBucket(PLENTY, ticks(1.0))
    bucket.learn(told(0, 5.0), ticks(1.0))
    assert bucket.has(11, ticks(1.0))
    assert not bucket.has(10, ticks(1.0))


def test_a_refusal_without_a_time_leaves_nothing() -> None:
    bucket = ServerBucket(PLENTY, ticks(1.0))
    bucket.learn(ServerLimits(remaining=0), ticks(1.0))
    assert greedy(bucket, 1.0) == 0
    assert greedy(bucket, 1.002) == 2
