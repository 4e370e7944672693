"""The faults of ion's breaker, as listed in the field study: none of them is ours."""

from __future__ import annotations

import math
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from ion_actors import CircuitOpen
from ion_actors.circuit import CircuitBreaker, CircuitState
from ion_actors.testing import VirtualClock

CLOSED, OPEN, HALF_OPEN = CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN
PATIENCE = 30.0


def test_half_open_with_a_limit_of_1_admits_1_of_100_concurrent_calls() -> None:
    """ion: all 100."""
    breaker = CircuitBreaker.aggressive("mine")
    breaker.trip(0)
    together, release = threading.Barrier(100), threading.Event()
    turned_away = threading.Barrier(100)
    admitted = []

    def call() -> None:
        together.wait(PATIENCE)
        try:
            with breaker:
                admitted.append(1)
                release.wait(PATIENCE)
        except CircuitOpen:
            turned_away.wait(PATIENCE)

    with ThreadPoolExecutor(100) as crowd:
        calls = [crowd.submit(call) for _ in range(100)]
        turned_away.wait(PATIENCE)  # with the 99 others
        assert len(admitted) == 1
        assert breaker.metrics().rejected == 99
        release.set()
        for one in calls:
            one.result(PATIENCE)
    assert len(admitted) == 1
    assert breaker.state is CLOSED


@pytest.mark.parametrize("error", [None, ConnectionError()], ids=["success", "failure"])
def test_a_late_result_of_the_closed_state_changes_nothing_in_half_open(
    error: BaseException | None, clock: VirtualClock
) -> None:
    """ion: a late success closed it, a late failure opened it."""
    breaker = CircuitBreaker.aggressive("mine", clock=clock)
    late = breaker.guard()
    late.__enter__()
    breaker.trip()
    clock.advance(45)
    with breaker:
        assert breaker.state is HALF_OPEN
        late.__exit__(None if error is None else type(error), error, None)
        assert breaker.state is HALF_OPEN
        assert breaker.metrics().trials == 1
    assert breaker.state is CLOSED


@pytest.mark.parametrize("error", [SystemExit, BaseException])
def test_a_panic_is_recorded(error: type[BaseException]) -> None:
    """ion: never."""
    breaker = CircuitBreaker("mine", failure_threshold=2)
    for _ in range(2):
        with pytest.raises(error), breaker:
            raise error
    assert breaker.state is OPEN
    assert breaker.metrics().failed == 2


def test_an_ignored_error_is_no_success(clock: VirtualClock) -> None:
    """ion: it ended a row of failures, and closed a half-open circuit."""
    breaker = CircuitBreaker.aggressive("mine", is_failure=OSError, clock=clock)

    def call(error: Exception) -> None:
        with pytest.raises(type(error)), breaker:
            raise error

    call(ConnectionError())
    call(ValueError())
    call(ConnectionError())
    assert breaker.state is OPEN
    clock.advance(45)
    call(ValueError())
    assert breaker.state is HALF_OPEN
    assert (breaker.metrics().succeeded, breaker.metrics().ignored) == (0, 2)


@pytest.mark.parametrize(
    "name", ["failure_threshold", "half_open_max_requests", "half_open_success_threshold"]
)
@pytest.mark.parametrize("value", [0, -1, 1.5, True, "3"])
def test_an_invalid_count_is_refused(name: str, value: Any) -> None:
    """ion: New() accepted it."""
    with pytest.raises((TypeError, ValueError), match=f"{name} must be .*{value!r}"):
        CircuitBreaker("mine", **{name: value})


@pytest.mark.parametrize("name", ["recovery_timeout", "trial_timeout"])
@pytest.mark.parametrize("value", [0, -1, math.nan, "3", True])
def test_an_invalid_time_is_refused(name: str, value: Any) -> None:
    """ion: New() accepted it."""
    with pytest.raises((TypeError, ValueError), match=f"{name} must be"):
        CircuitBreaker("mine", **{name: value})


def test_a_recovery_that_never_comes_is_refused() -> None:
    with pytest.raises(ValueError, match="recovery_timeout must be at least 0 and finite, not inf"):
        CircuitBreaker("mine", recovery_timeout=math.inf)
