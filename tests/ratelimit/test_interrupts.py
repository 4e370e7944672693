"""Ctrl-C, at every point at which CPython lets it in: others are served all the same."""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from typing import Any

import pytest

from ion_actors import Cancelled, Context, ContextEnded, RateLimited
from ion_actors.context import Terms, Turn, background, wait_turn
from ion_actors.ratelimit import Limit, Limiter, MultiTierLimiter, TokenBucket, per_second
from ion_actors.ratelimit.fair_lock import FairLock
from ion_actors.testing import VirtualClock
from tests.inside import scheduler_of, turn_at
from tests.interrupts import KINDS, Helped, every_point, interrupt

LIMIT = Limit(per_second(1), 2)

kinds = pytest.mark.parametrize("raised", KINDS)


def make_limiter(kind: str, clock: VirtualClock) -> tuple[Limiter, Any]:
    """The limiter, and what can pause it."""
    if kind == "bucket":
        bucket = TokenBucket(LIMIT.rate, LIMIT.burst, clock=clock)
        return bucket, bucket
    tiers = MultiTierLimiter(LIMIT, LIMIT, LIMIT, clock=clock)
    return tiers.for_(route="GET /a", resource="x"), tiers


def stand_in_line(limiter: Limiter, n: int) -> list[str]:
    """Somebody else waits. Returns a list that grows when they are woken."""
    woken: list[str] = []
    turn = turn_at(limiter, n, lambda: woken.append("woken"))
    if scheduler_of(limiter).join(turn):
        woken.append("at once")
    return woken


def check_all_is_well(limiter: Limiter, clock: VirtualClock, woken: list[str], where: str) -> None:
    clock.advance(100)
    assert woken, where
    assert limiter.waiting == 0, where
    assert not scheduler_of(limiter).crowded, where
    assert limiter.allow(2), where
    assert clock.timers == 0, where


def at_every_point(make: Callable[[int], str]) -> list[str]:
    # An interruption at the end of a ``with`` block leaves its context current: not for the next.
    return every_point(lambda point: contextvars.copy_context().run(make, point))


@kinds
@pytest.mark.parametrize("ending", ["granted", "cancelled", "late", "denied"])
@pytest.mark.parametrize("kind", ["bucket", "tiers"])
def test_waiting(kind: str, ending: str, raised: type[BaseException]) -> None:
    def make(point: int) -> str:
        def happens() -> None:
            if ending == "cancelled":
                context.cancel()
            elif ending == "late":
                pausing.pause_for(9)
            clock.advance(5)

        clock = Helped(happens)
        limiter, pausing = make_limiter(kind, clock)
        context = Context(clock=clock)
        assert limiter.allow(2)
        timeout = 1.0 if ending == "denied" else 4.0

        def wait() -> None:
            with context:
                limiter.wait(2, timeout=timeout)

        where, outcome = interrupt(point, wait, raised)
        assert isinstance(outcome, raised | RateLimited | ContextEnded | None), where
        assert not where or isinstance(outcome, raised), where
        check_all_is_well(limiter, clock, stand_in_line(limiter, 1), where)
        return where

    assert len(at_every_point(make)) > 50


@kinds
@pytest.mark.parametrize("call", ["allow", "resume", "cancel"])
@pytest.mark.parametrize("kind", ["bucket", "tiers"])
def test_what_others_wait_for(kind: str, call: str, raised: type[BaseException]) -> None:
    def make(point: int) -> str:
        clock = VirtualClock()
        limiter, pausing = make_limiter(kind, clock)
        assert limiter.allow(2)
        pausing.pause_for(50)
        woken = stand_in_line(limiter, 1)
        context = Context(clock=clock)
        heavy = turn_at(limiter, 2, lambda: None)
        scheduler_of(limiter).join(heavy)
        context.add_callback(lambda: scheduler_of(limiter).give_up(heavy, Cancelled("it went")))
        calls: dict[str, Callable[[], object]] = {
            "allow": limiter.allow,
            "resume": pausing.resume,
            "cancel": context.cancel,
        }
        where, outcome = interrupt(point, calls[call], raised)
        assert isinstance(outcome, raised) == bool(where), where
        check_all_is_well(limiter, clock, woken, where)
        return where

    assert len(at_every_point(make)) > 20


@kinds
@pytest.mark.parametrize("waiting", [0, 2])
@pytest.mark.parametrize("verb", ["join", "give_up", "leave", "wait"])
def test_a_door(  # noqa: C901  # each verb has its own sequel
    verb: str, waiting: int, raised: type[BaseException]
) -> None:
    def make(point: int) -> str:  # noqa: C901
        fair_lock, woken = FairLock(), list[Turn[None]]()
        clock = Helped(lambda: clock.advance(5))

        def turn() -> Turn[None]:
            made: Turn[None] = Turn(None, lambda: woken.append(made))
            return made

        inside = verb != "join" or waiting > 0
        if inside:
            assert fair_lock.join(turn())
        one, others = turn(), [turn() for _ in range(waiting)]
        if verb == "give_up":
            fair_lock.join(one)
        for other in others:
            fair_lock.join(other)
        calls: dict[str, Callable[[], object]] = {
            "join": lambda: fair_lock.join(one),
            "give_up": lambda: fair_lock.give_up(one, None),
            "leave": fair_lock.leave,
            "wait": lambda: wait_turn(fair_lock, None, Terms(background(), clock, 5.0, Cancelled)),
        }
        where, outcome = interrupt(point, calls[verb], raised)
        if verb == "leave" and where.startswith("call in FairLock.leave:"):
            fair_lock.leave()  # it had not begun
        elif verb != "leave" and inside:
            fair_lock.leave()
        if verb == "give_up" and where.startswith("call in FairLock.give_up:"):
            fair_lock.leave()  # it was let in instead
        if verb == "join" and outcome is True:
            fair_lock.leave()
        for other in others:
            assert other in woken, where
            fair_lock.leave()
        if verb == "join" and outcome is False:
            fair_lock.leave()
        assert fair_lock.waiting == 0, where
        assert fair_lock.join(turn()), where
        return where

    assert len(at_every_point(make)) > 3
