"""Ctrl-C, at every point at which CPython lets it in: others are served all the same."""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from typing import Any

import pytest
from interrupts import Helped, Interrupted, every_point, interrupt

from ion_actors import Context
from ion_actors.context import Turn
from ion_actors.ratelimit import Limit, Limiter, MultiTierLimiter, TokenBucket, per_second
from ion_actors.ratelimit.places import Claim
from ion_actors.testing import VirtualClock

LIMIT = Limit(per_second(1), 2)


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
    turn = Turn(Claim(n, limiter._find, None, False), lambda: woken.append("woken"))
    if limiter._gate.join(turn):
        woken.append("at once")
    return woken


def check_all_is_well(limiter: Limiter, clock: VirtualClock, woken: list[str], where: str) -> None:
    clock.advance(100)
    assert woken, where
    assert limiter.waiting == 0, where
    assert not limiter._gate.crowded, where
    assert limiter.allow(2), where
    assert clock.timers == 0, where


def at_every_point(make: Callable[[int], str]) -> list[str]:
    # An interruption at the end of a ``with`` block leaves its context current: not for the next.
    return every_point(lambda point: contextvars.copy_context().run(make, point))


@pytest.mark.parametrize("ending", ["granted", "cancelled", "late", "denied"])
@pytest.mark.parametrize("kind", ["bucket", "tiers"])
def test_waiting(kind: str, ending: str) -> None:
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

        where, _ = interrupt(point, wait)
        check_all_is_well(limiter, clock, stand_in_line(limiter, 1), where)
        return where

    assert len(at_every_point(make)) > 50


@pytest.mark.parametrize("call", ["allow", "resume", "cancel"])
@pytest.mark.parametrize("kind", ["bucket", "tiers"])
def test_what_others_wait_for(kind: str, call: str) -> None:
    def make(point: int) -> str:
        clock = VirtualClock()
        limiter, pausing = make_limiter(kind, clock)
        assert limiter.allow(2)
        pausing.pause_for(50)
        woken = stand_in_line(limiter, 1)
        context = Context(clock=clock)
        heavy = Turn(Claim(2, limiter._find, None, False), lambda: None)
        limiter._gate.join(heavy)
        context.add_callback(lambda: limiter._gate.give_up(heavy, context._error()))
        calls: dict[str, Callable[[], object]] = {
            "allow": limiter.allow,
            "resume": pausing.resume,
            "cancel": context.cancel,
        }
        where, outcome = interrupt(point, calls[call])
        assert isinstance(outcome, Interrupted) == bool(where) or call == "cancel"
        check_all_is_well(limiter, clock, woken, where)
        return where

    assert len(at_every_point(make)) > 20
