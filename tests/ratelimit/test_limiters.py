"""Token and leaky buckets as their users see them: order, time, changes, ends of waits."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ion_actors import (
    Cancelled,
    Context,
    DeadlineExceeded,
    Pool,
    RateLimited,
    RateLimitedPastDeadline,
)
from ion_actors.ratelimit import LeakyBucket, Rate, TokenBucket, per_minute, per_second
from ion_actors.ratelimit.scheduler import WaitingLines
from ion_actors.testing import VirtualClock
from tests.inside import scheduler_of, turn_at
from tests.ratelimit.helpers import PATIENCE, eventually, queue_up


def empty(clock: VirtualClock, burst: int = 5, **rest: Any) -> TokenBucket:
    limiter = TokenBucket(per_second(1), burst, clock=clock, **rest)
    assert limiter.allow(burst)
    return limiter


# -- allow ---------------------------------------------------------------------------------


def test_a_token_bucket_starts_full_and_fills_at_its_rate(clock: VirtualClock) -> None:
    limiter = TokenBucket(per_second(2), 3, clock=clock)
    assert [limiter.allow() for _ in range(4)] == [True, True, True, False]
    clock.advance(0.5)
    assert (limiter.allow(), limiter.allow()) == (True, False)
    clock.advance(60)
    assert limiter.tokens == 3.0
    assert (limiter.allow(2), limiter.allow(2)) == (True, False)


def test_a_leaky_bucket_starts_empty_and_leaks(clock: VirtualClock) -> None:
    limiter = LeakyBucket(per_second(2), 3, clock=clock)
    assert (limiter.level, limiter.capacity) == (0.0, 3)
    assert limiter.allow(3)
    assert not limiter.allow()
    clock.advance(0.75)
    assert (limiter.level, limiter.tokens) == (1.5, 1.5)
    limiter.fill_to(3)
    assert limiter.level == 3.0
    limiter.set_capacity(5)
    assert limiter.level == 5.0
    limiter.set_temporary_limit(per_second(0), 1, 10)
    assert (limiter.capacity, limiter.rate) == (1, per_second(0))


@pytest.mark.parametrize("n", [0, -1, 1.0, True, "1", None])
def test_a_number_of_tokens_that_makes_no_sense(clock: VirtualClock, n: Any) -> None:
    limiter = TokenBucket(per_second(1), 5, clock=clock)
    for verb in (limiter.allow, limiter.wait):
        with pytest.raises((TypeError, ValueError), match="n must be"):
            verb(n)


@pytest.mark.parametrize("waiters", [0, 1])
def test_more_than_the_burst_can_never_be_there(
    clock: VirtualClock, threads: ThreadPoolExecutor, waiters: int
) -> None:
    limiter = empty(clock)
    waits = queue_up(limiter, threads, *[1] * waiters)
    for verb in (limiter.allow, limiter.wait):
        with pytest.raises(ValueError, match="n must be at most the burst, 5, not 6"):
            verb(6)
    clock.advance(1)
    for one in waits:
        one.result(PATIENCE)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"jitter": 1.1}, "jitter must be"),
        ({"jitter": -0.1}, "jitter must be"),
        ({"metrics": 3}, "metrics must have"),
        ({"tracer": 3}, "tracer must have"),
        ({"logger": 3}, "logger must be"),
    ],
)
def test_settings_that_make_no_sense(options: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        TokenBucket(per_second(1), 5, **options)
    with pytest.raises((TypeError, ValueError), match=message):
        LeakyBucket(per_second(1), 5, **options)


def test_its_own_words_are_in_the_errors() -> None:
    with pytest.raises(ValueError, match="burst must be"):
        TokenBucket(per_second(1), 0)
    with pytest.raises(ValueError, match="capacity must be"):
        LeakyBucket(per_second(1), 0)
    with pytest.raises(TypeError, match="rate must be a Rate"):
        TokenBucket(1, 1)  # type: ignore[arg-type]


def test_the_clock_is_that_of_the_context(clock: VirtualClock) -> None:
    with Context(clock=clock):
        limiter = TokenBucket(per_second(1), 1)
    assert limiter.allow()
    clock.advance(1)
    assert limiter.allow()
    assert not limiter.allow()


# -- waiting in order ----------------------------------------------------------------------


def test_threads_are_served_in_order_each_at_its_moment(
    clock: VirtualClock, threads: ThreadPoolExecutor
) -> None:
    limiter = empty(clock)
    waits = queue_up(limiter, threads, 1, 3, 1)
    moments = []
    for one in waits:
        assert not one.done()
        clock.advance_to_next()
        one.result(PATIENCE)
        moments.append(clock.monotonic())
    assert moments == [1.0, 4.0, 5.0]
    assert (limiter.waiting, clock.timers) == (0, 0)


def test_a_heavy_wait_is_not_starved_and_allow_overtakes_nobody(
    clock: VirtualClock, threads: ThreadPoolExecutor
) -> None:
    limiter = empty(clock)
    [heavy] = queue_up(limiter, threads, 5)
    for _ in range(4):
        clock.advance(1)
        assert not limiter.allow()
        assert limiter.tokens >= 1
    clock.advance(1)
    heavy.result(PATIENCE)
    assert limiter.tokens == 0.0


def test_threads_and_coroutines_stand_in_one_line(
    clock: VirtualClock, threads: ThreadPoolExecutor
) -> None:
    limiter = empty(clock)
    served: list[str] = []

    async def main() -> None:
        async def coroutine(name: str) -> None:
            await limiter.awaits()
            served.append(name)

        def thread(name: str) -> None:
            limiter.wait()
            served.append(name)

        tasks: list[Any] = []
        for i, name in enumerate("abcdef"):
            if i % 2:
                tasks.append(asyncio.wrap_future(threads.submit(thread, name)))
            else:
                tasks.append(asyncio.create_task(coroutine(name)))
            while limiter.waiting <= i:  # noqa: ASYNC110  # a thread is about to do that
                await asyncio.sleep(0)
        for one in tasks:
            clock.advance_to_next()
            await one

    asyncio.run(main())
    assert served == list("abcdef")
    assert clock.timers == 0


def test_what_is_due_is_given_before_anybody_new_is_heard(
    clock: VirtualClock, threads: ThreadPoolExecutor
) -> None:
    """A timer's thread may be late; whoever comes by then serves those who wait, first."""
    limiter = empty(clock, burst=1)
    [first] = queue_up(limiter, threads, 1)
    clock.lag(1.0)  # the time is up, and nobody was told
    assert not limiter.allow()
    first.result(PATIENCE)


# -- ends of waits -------------------------------------------------------------------------


def test_a_wait_that_cannot_be_served_in_its_time_fails_at_once(clock: VirtualClock) -> None:
    limiter = empty(clock, name="api")
    with pytest.raises(RateLimited, match="can be there in 2 s; the timeout is earlier") as caught:
        limiter.wait(2, timeout=1.5)
    error = caught.value
    assert isinstance(error, TimeoutError)
    assert not isinstance(error, DeadlineExceeded)
    facts = (error.limiter, error.retry_after, error.is_global, error.bucket)
    assert facts == ("api", 2.0, False, None)
    assert (error.remaining, error.limit) == (0, 5)
    assert (clock.monotonic(), clock.timers, limiter.waiting) == (0.0, 0, 0)


def test_those_ahead_count_when_the_time_is_judged(
    clock: VirtualClock, threads: ThreadPoolExecutor
) -> None:
    limiter = empty(clock)
    waits = queue_up(limiter, threads, 2, 1)
    with pytest.raises(RateLimited) as caught:
        limiter.wait(timeout=3.5)
    assert caught.value.retry_after == 4.0
    waits += queue_up(limiter, threads, 1, timeout=4.0)
    clock.advance(4)
    for one in waits:
        one.result(PATIENCE)


def test_a_timeout_of_zero_takes_what_is_there(clock: VirtualClock) -> None:
    limiter = TokenBucket(per_second(1), 1, clock=clock)
    limiter.wait(timeout=0)
    with pytest.raises(RateLimited):
        limiter.wait(timeout=0)


def test_tokens_that_come_at_the_very_end_are_in_time(
    clock: VirtualClock, threads: ThreadPoolExecutor
) -> None:
    limiter = empty(clock)
    for _ in range(20):
        [one] = queue_up(limiter, threads, 1, timeout=1.0)
        clock.advance(1.0)
        one.result(PATIENCE)


def test_tokens_are_in_time_even_if_the_timer_that_brings_them_is_late(
    clock: VirtualClock,
) -> None:
    limiter = empty(clock)
    scheduler, turn = scheduler_of(limiter), turn_at(limiter, 1, lambda: None, timeout=1.0)
    assert not scheduler.join(turn)
    clock.lag(1.0)  # the time is up, and no timer has fired
    assert not scheduler.give_up(turn, TimeoutError())
    assert (turn.over, turn.error) == (True, None)
    assert clock.timers == 0


def test_the_deadline_of_the_context_counts_too(clock: VirtualClock) -> None:
    limiter = empty(clock)
    with (
        Context(timeout=1.5, clock=clock),
        pytest.raises(RateLimitedPastDeadline, match="deadline of the context") as caught,
    ):
        limiter.wait(2, timeout=1.75)
    assert isinstance(caught.value, DeadlineExceeded)
    assert caught.value.retry_after == 2.0
    with Context(timeout=1.5, clock=clock), pytest.raises(RateLimited) as shorter:
        limiter.wait(2, timeout=1.0)
    assert type(shorter.value) is RateLimited


def test_a_deadline_that_comes_first_after_all_ends_the_wait(
    clock: VirtualClock, threads: ThreadPoolExecutor
) -> None:
    limiter = empty(clock)

    def wait() -> None:
        with Context(timeout=2, clock=clock):
            limiter.wait()

    one = threads.submit(wait)
    eventually(lambda: limiter.waiting == 1)
    limiter.set_rate(per_minute(1))
    clock.advance(2)
    with pytest.raises(RateLimitedPastDeadline) as caught:
        one.result(PATIENCE)
    assert caught.value.retry_after == pytest.approx(58)


def test_a_timeout_that_comes_first_after_all_ends_the_wait(
    clock: VirtualClock, threads: ThreadPoolExecutor
) -> None:
    limiter = empty(clock)
    [one] = queue_up(limiter, threads, 1, timeout=2)
    limiter.set_rate(per_second(0))
    clock.advance(2)
    with pytest.raises(RateLimited, match="its limit never allows") as caught:
        one.result(PATIENCE)
    assert caught.value.retry_after is None
    assert clock.timers == 0


def test_in_an_ended_context_nothing_is_taken(clock: VirtualClock) -> None:
    limiter = TokenBucket(per_second(1), 1, clock=clock)
    context = Context(clock=clock)
    context.cancel()
    with context, pytest.raises(Cancelled):
        limiter.wait()
    assert limiter.tokens == 1.0


def test_who_is_cancelled_lets_those_behind_move_up(
    clock: VirtualClock, threads: ThreadPoolExecutor
) -> None:
    limiter = empty(clock)
    context = Context(clock=clock)

    def wait() -> None:
        with context:
            limiter.wait(5)

    heavy = threads.submit(wait)
    eventually(lambda: limiter.waiting == 1)
    light = queue_up(limiter, threads, 2, 1)
    clock.advance(2)
    context.cancel("enough")
    with pytest.raises(Cancelled, match="enough"):
        heavy.result(PATIENCE)
    light[0].result(PATIENCE)  # the tokens were there
    assert not light[1].done()
    clock.advance(1)
    light[1].result(PATIENCE)
    assert clock.timers == 0


def test_a_coroutine_cancelled_just_when_it_is_served_gives_the_tokens_back(
    clock: VirtualClock,
) -> None:
    limiter = empty(clock, burst=2)

    async def main() -> None:
        task = asyncio.create_task(limiter.awaits(2))
        await asyncio.sleep(0)
        clock.advance(2)  # served, but the coroutine has not run since
        assert (limiter.waiting, limiter.tokens) == (0, 0.0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert limiter.allow(2)

    asyncio.run(main())


@pytest.mark.parametrize("jitter", [0.0, 1.0])
def test_tokens_given_back_go_to_those_who_wait(clock: VirtualClock, jitter: float) -> None:
    limiter = empty(clock, burst=2, jitter=jitter)

    async def main() -> None:
        first = asyncio.create_task(limiter.awaits(2))
        second = asyncio.create_task(limiter.awaits(2))
        await asyncio.sleep(0)
        served = clock.advance_to_next()
        first.cancel()
        await asyncio.wait([first])
        await asyncio.wait_for(second, PATIENCE)
        assert clock.monotonic() == served

    asyncio.run(main())


def test_a_wait_leaves_nothing_behind(clock: VirtualClock) -> None:
    limiter = empty(clock)
    with pytest.raises(RateLimited):
        limiter.wait(timeout=0.1)
    gone = weakref.ref(limiter)
    gc.collect()
    del limiter
    assert gone() is None


# -- changes while running -----------------------------------------------------------------


def test_a_new_rate_counts_from_now_on_also_for_those_who_wait(
    clock: VirtualClock, threads: ThreadPoolExecutor
) -> None:
    limiter = empty(clock)
    waits = queue_up(limiter, threads, 5, 5)
    clock.advance(3)
    limiter.set_rate(per_second(4))
    clock.advance(0.5)
    waits[0].result(PATIENCE)
    limiter.set_rate(per_second(0))
    clock.advance(1000)
    assert not waits[1].done()
    assert clock.timers == 0
    limiter.set_rate(per_second(5))
    clock.advance(1)
    waits[1].result(PATIENCE)


def test_another_burst(clock: VirtualClock, threads: ThreadPoolExecutor) -> None:
    limiter = TokenBucket(per_second(1), 5, clock=clock)
    limiter.set_burst(2)
    assert (limiter.tokens, limiter.burst) == (2.0, 2)
    limiter.set_burst(6)
    assert limiter.tokens == 2.0
    assert limiter.allow(2)
    waits = queue_up(limiter, threads, 1, 5, 3)
    limiter.set_burst(4)
    clock.advance(1)
    waits[0].result(PATIENCE)
    with pytest.raises(RateLimited, match="its limit never allows 5 tokens"):
        waits[1].result(PATIENCE)
    clock.advance(3)
    waits[2].result(PATIENCE)


def test_a_temporary_limit_ends_by_itself_and_leaves_no_timer(
    clock: VirtualClock, threads: ThreadPoolExecutor
) -> None:
    limiter = empty(clock)
    limiter.set_temporary_limit(per_minute(6), 1, 20)
    assert (limiter.rate, limiter.burst, clock.timers) == (per_minute(6), 1, 0)
    clock.advance(19)
    assert limiter.tokens == 1.0
    [three] = queue_up(limiter, threads, 3)  # more than its burst: after it, then
    clock.advance(2.5)
    assert not three.done()
    clock.advance(0.5)
    three.result(PATIENCE)
    assert (limiter.rate, limiter.burst) == (per_second(1), 5)


def test_a_temporary_limit_can_be_ended_early(
    clock: VirtualClock, threads: ThreadPoolExecutor
) -> None:
    limiter = empty(clock)
    limiter.set_temporary_limit(per_second(0), 1, 1000)
    [one] = queue_up(limiter, threads, 1)
    limiter.clear_temporary_limit()
    clock.advance(1)
    one.result(PATIENCE)


def test_drain_to_lowers_and_never_raises(clock: VirtualClock) -> None:
    limiter = TokenBucket(per_second(1), 5, clock=clock)
    limiter.drain_to(2)
    assert limiter.tokens == 2.0
    limiter.drain_to(4)
    assert limiter.tokens == 2.0
    with pytest.raises(ValueError, match="tokens must be"):
        limiter.drain_to(-1)


def test_a_pause_lets_nothing_through_and_tokens_gather(
    clock: VirtualClock, threads: ThreadPoolExecutor
) -> None:
    limiter = empty(clock)
    limiter.pause_for(10)
    limiter.pause_for(5)  # the longest counts
    waits = queue_up(limiter, threads, 5, 1)
    clock.advance(9)
    assert not limiter.allow()
    assert limiter.tokens == 5.0
    clock.advance(1)
    waits[0].result(PATIENCE)
    assert not waits[1].done()
    clock.advance(1)
    waits[1].result(PATIENCE)
    limiter.pause_until(clock.monotonic() + 2)
    with pytest.raises(RateLimited) as caught:
        limiter.wait(timeout=1)
    assert caught.value.retry_after == 2.0


@pytest.mark.parametrize("duration", [-1, float("inf"), None, "1"])
def test_a_duration_that_makes_no_sense(clock: VirtualClock, duration: Any) -> None:
    limiter = TokenBucket(per_second(1), 1, clock=clock)
    with pytest.raises((TypeError, ValueError), match="duration must be"):
        limiter.pause_for(duration)
    with pytest.raises((TypeError, ValueError), match="duration must be"):
        limiter.set_temporary_limit(per_second(1), 1, duration)


# -- jitter --------------------------------------------------------------------------------


def test_jitter_makes_waits_longer_by_at_most_its_part(
    clock: VirtualClock, threads: ThreadPoolExecutor
) -> None:
    limiter = empty(clock, burst=1, jitter=0.5)
    delays = []
    for _ in range(20):
        [one] = queue_up(limiter, threads, 1)
        before = clock.monotonic()
        clock.advance_to_next()
        one.result(PATIENCE)
        delays.append(clock.monotonic() - before)
    assert all(delay <= 1.5 for delay in delays)
    assert max(delays) > 1.0
    assert len(set(delays)) > 10


def test_jitter_never_makes_a_wait_late(clock: VirtualClock, threads: ThreadPoolExecutor) -> None:
    limiter = empty(clock, burst=1, jitter=1.0)
    for _ in range(20):
        [one] = queue_up(limiter, threads, 1, timeout=2.0)
        clock.advance(2.0)
        one.result(PATIENCE)


# -- any schedule --------------------------------------------------------------------------

actions = st.one_of(
    st.tuples(st.just("wait"), st.integers(1, 4), st.sampled_from([None, 0.5, 3.0])),
    st.tuples(st.just("wait"), st.integers(1, 4), st.none()),
    st.tuples(st.just("allow"), st.integers(1, 4)),
    st.tuples(st.just("cancel"), st.integers(0, 9)),
    st.tuples(st.just("rush"), st.integers(0, 9)),  # cancelled just when it is served
    st.tuples(st.just("rate"), st.integers(0, 9), st.integers(1, 3)),
    st.tuples(st.just("pause"), st.floats(0, 2)),
    st.tuples(st.just("resume")),
    st.tuples(st.just("go"), st.floats(0, 3)),
    st.tuples(st.just("go"), st.sampled_from([0.1, 1 / 3, 1.0])),
)


class Schedule:
    """Runs coroutines on a virtual clock, and keeps the books about who was let through when."""

    def __init__(self, jitter: float) -> None:
        self.clock = VirtualClock(1.0)
        self.limiter = TokenBucket(per_second(2), 4, clock=self.clock, jitter=jitter)
        self.inflow = Fraction(0)
        self.rate = Fraction(2)
        self.grants: list[tuple[Fraction, int]] = []  # (inflow until then, tokens)
        self.order: list[int] = []  # of arrival, of those who were served after a wait
        self.waits: list[asyncio.Task[None]] = []

    async def settle(self) -> None:
        for _ in range(6):
            await asyncio.sleep(0)

    async def wait(self, number: int, n: int, timeout: float | None) -> None:
        await self.limiter.awaits(n, timeout)
        self.grants.append((self.inflow, n))
        self.order.append(number)

    async def go(self, duration: float) -> None:
        end = self.clock.monotonic() + duration
        while True:
            before = Fraction(self.clock.monotonic())
            if self.is_due_by(end):
                self.clock.advance_to_next()
            else:
                self.clock.advance(max(0.0, end - self.clock.monotonic()))
            self.inflow += (Fraction(self.clock.monotonic()) - before) * self.rate
            await self.settle()
            if self.clock.monotonic() >= end and not self.is_due_by(end):
                return

    def is_due_by(self, end: float) -> bool:
        return any(when <= end for when in self.clock.moments)

    async def act(self, action: tuple[Any, ...]) -> None:
        match action:
            case ("wait", n, timeout):
                coroutine = self.wait(len(self.waits), n, timeout)
                self.waits.append(asyncio.create_task(coroutine))
            case ("allow", n):
                before = self.limiter.waiting
                if self.limiter.allow(n):
                    assert not before, "it overtook"
                    self.grants.append((self.inflow, n))
            case ("cancel", which) if self.waits:
                self.waits[which % len(self.waits)].cancel()
            case ("rush", which) if self.waits and self.clock.timers:
                before_ = Fraction(self.clock.monotonic())
                self.clock.advance_to_next()
                self.inflow += (Fraction(self.clock.monotonic()) - before_) * self.rate
                self.waits[which % len(self.waits)].cancel()
            case ("rate", tokens, per):
                self.limiter.set_rate(Rate(tokens, per))
                self.rate = Fraction(tokens, per)
            case ("pause", duration):
                self.limiter.pause_for(duration)
            case ("resume",):
                self.limiter.resume()
            case ("go", duration):
                await self.go(duration)
        await self.settle()

    async def run(self, schedule: list[tuple[Any, ...]]) -> None:
        for action in schedule:
            await self.act(action)
        await self.act(("resume",))
        await self.act(("rate", 9, 1))
        await self.go(100.0)
        assert all(one.done() for one in self.waits), "somebody was forgotten"
        for one in self.waits:
            if not one.cancelled() and (error := one.exception()) is not None:
                assert isinstance(error, RateLimited)
        assert (self.clock.timers, self.limiter.waiting) == (0, 0)
        assert self.order == sorted(self.order), "served out of order"
        self.check_windows()

    def check_windows(self) -> None:
        for i, (start, _) in enumerate(self.grants):
            total = 0
            for inflow, n in self.grants[i:]:
                total += n
                assert total <= 4 + inflow - start


@given(st.lists(actions, max_size=25), st.sampled_from([0.0, 0.0, 0.7]))
def test_over_any_schedule_no_window_has_too_much_and_nobody_is_forgotten(
    schedule: list[tuple[Any, ...]], jitter: float
) -> None:
    asyncio.run(Schedule(jitter).run(schedule))


# -- around calls --------------------------------------------------------------------------


def test_a_wrapped_call_takes_a_token(clock: VirtualClock) -> None:
    limiter = TokenBucket(per_second(1), 2, clock=clock)

    @limiter.wrap
    def double(n: int) -> int:
        return 2 * n

    @limiter.wrap
    async def triple(n: int) -> int:
        return 3 * n

    assert double(2) == 4
    assert asyncio.run(triple(2)) == 6
    assert limiter.tokens == 0.0
    with Context(timeout=0.5, clock=clock), pytest.raises(RateLimitedPastDeadline):
        double(2)


def test_a_pool_begins_its_tasks_no_faster(clock: VirtualClock) -> None:
    limiter = TokenBucket(per_second(1), 1, clock=clock)
    moments: list[float] = []
    lock = threading.Lock()

    def task() -> None:
        with lock:
            moments.append(clock.monotonic())

    with Pool(3, context=Context(clock=clock), task_wrapper=limiter.wrap) as pool:
        futures = [pool.submit(task) for _ in range(6)]
        for done in range(1, 6):
            eventually(lambda: sum(one.done() for one in futures) >= done)
            eventually(lambda: limiter.waiting == min(3, 6 - done))
            clock.advance_to_next()
        for one in futures:
            one.result(PATIENCE)
    assert moments == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]


def test_who_was_served_waits_no_more(
    clock: VirtualClock, threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    limiter = TokenBucket(per_second(1), 1, clock=clock)
    assert limiter.allow()
    looked = threading.Event()
    leave = WaitingLines.leave

    def late(lines: WaitingLines, turn: Any) -> Any:  # it is awake by now
        looked.wait(0.1)
        return leave(lines, turn)

    def wait() -> int:
        limiter.wait()
        try:
            return limiter.waiting
        finally:
            looked.set()

    one = threads.submit(wait)
    eventually(lambda: limiter.waiting == 1)
    monkeypatch.setattr(WaitingLines, "leave", late)
    clock.advance(1)
    assert one.result(PATIENCE) == 0


def test_times_beyond_all_calendars_are_times_like_others(clock: VirtualClock) -> None:
    limiter = TokenBucket(Rate(1e-300, 1), 1, clock=clock, jitter=0.5)
    assert limiter.allow()
    with pytest.raises(RateLimited) as denied:
        limiter.wait(timeout=1e290)
    assert denied.value.retry_after == pytest.approx(1e300)
    never = TokenBucket(Rate(5e-324, 1e300), 1, clock=clock)
    assert never.allow()
    with pytest.raises(RateLimited, match="its limit never allows"):
        never.wait(timeout=1e300)
    limiter.set_temporary_limit(per_second(1), 1, 1e300)
    clock.advance(1)
    limiter.pause_for(1e300)
    assert not limiter.allow()
    limiter.resume()
    assert limiter.allow()
    assert clock.timers == 0


# -- in real time ---------------------------------------------------------------------------


def test_in_real_time_threads_and_coroutines_get_all_their_tokens(
    threads: ThreadPoolExecutor,
) -> None:
    limiter = TokenBucket(per_second(2000), 5)
    began = time.monotonic()

    def thread() -> None:
        for _ in range(25):
            limiter.wait()

    async def coroutines() -> None:
        async def one() -> None:
            for _ in range(25):
                await limiter.awaits()

        await asyncio.gather(*[one() for _ in range(4)])

    futures = [threads.submit(thread) for _ in range(4)]
    asyncio.run(coroutines())
    for future in futures:
        future.result(PATIENCE)
    assert time.monotonic() - began >= 195 / 2000  # no faster than agreed
    assert limiter.waiting == 0
