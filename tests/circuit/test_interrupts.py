"""A breaker whose block is interrupted as it begins is not running."""

from __future__ import annotations

import contextvars

import pytest

from ion_actors.circuit import CircuitBreaker
from ion_actors.circuit.breaker import _ENTERED
from ion_actors.testing import VirtualClock
from tests.interrupts import KINDS, every_point, interrupt


@pytest.mark.parametrize("kind", KINDS)
def test_a_call_that_is_interrupted_as_it_begins(
    kind: type[BaseException], clock: VirtualClock
) -> None:
    def make(point: int) -> str:
        one = CircuitBreaker("c", clock=clock)
        where, outcome = interrupt(point, one.__enter__, kind)
        if not isinstance(outcome, kind):
            one.__exit__(None, None, None)
        assert one.metrics().running == 0, where
        return where

    found = every_point(lambda point: str(contextvars.copy_context().run(make, point)))
    assert len(found) > 3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("of", ["breaker", "guard"])
def test_a_call_that_is_interrupted_as_it_ends(
    of: str, kind: type[BaseException], clock: VirtualClock
) -> None:
    def make(point: int) -> str:
        breaker = CircuitBreaker("c", clock=clock)
        block = breaker if of == "breaker" else breaker.guard()
        block.__enter__()
        where, _ = interrupt(point, lambda: block.__exit__(None, None, None), kind)
        if where.startswith(f"call in {type(block).__name__}.__exit__"):
            return where  # before its first step
        assert breaker.metrics().running == 0, where
        assert _ENTERED.get() is None, where
        return where

    found = every_point(lambda point: str(contextvars.copy_context().run(make, point)))
    assert len(found) > 3
