"""How a limit is learnt: simulations of whole servers, and properties of single decisions."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ion_actors.adaptive import AIMD, Algorithm, Bounds, Gradient, Sample, Vegas
from tests.adaptive.simulation import simulate

ALGORITHMS = [AIMD(), Vegas(), Gradient()]
BY_LATENCY = [Vegas(), Gradient()]


def named(algorithm: Algorithm) -> str:
    return type(algorithm).__name__


@pytest.mark.parametrize("seed", range(1))
@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=named)
def test_a_hidden_capacity_is_found_and_followed(algorithm: Algorithm, seed: int) -> None:
    phases = simulate(algorithm, [(40, 50), (8, 50), (60, 50)], seed=seed)
    for phase in phases:
        assert phase.throughput >= 0.9, phase
        assert phase.refused <= 0.05, phase


@pytest.mark.parametrize("latency", [0.05, 0.3])
def test_refusals_teach_at_any_pace(latency: float) -> None:
    for phase in simulate(AIMD(), [(40, 60), (8, 60), (60, 60)], latency=latency):
        assert phase.throughput >= 0.9, phase
        assert phase.refused <= 0.05, phase


@pytest.mark.parametrize("jitter", [0.05, 0.3])
@pytest.mark.parametrize("algorithm", BY_LATENCY, ids=named)
def test_a_server_that_queues_is_kept_within_twice_its_capacity(
    algorithm: Algorithm, jitter: float
) -> None:
    phases = [(40, 60.0), (8, 60.0), (30, 60.0)]
    for phase in simulate(algorithm, phases, queueing=True, jitter=jitter):
        assert phase.throughput >= 0.9, phase
        assert phase.limit <= 2 * phase.capacity, phase


def test_the_base_does_not_drift_in_a_long_time() -> None:
    for algorithm in BY_LATENCY:
        (phase,) = simulate(algorithm, [(10, 400.0)], queueing=True)
        assert phase.highest <= 2 * phase.capacity, phase


def after(algorithm: Algorithm, state: Any, **facts: Any) -> Any:
    sample = Sample(**({"began": 1.0, "ended": 2.0, "in_flight": 10, "overloaded": False} | facts))
    return algorithm.after(state, sample, Bounds(1, 100))


def test_what_began_before_a_cut_has_been_answered() -> None:
    one = AIMD(backoff=0.5)
    state = after(one, one.begin(20.0, Bounds(1, 100)), overloaded=True)
    assert state.limit == 10
    late = after(one, state, overloaded=True, began=1.5, ended=3.0)
    assert late.limit == 10
    again = after(one, late, overloaded=True, began=2.5, ended=3.0)
    assert again.limit == 5


def test_a_refusal_of_a_raised_limit_puts_it_back() -> None:
    one = AIMD(backoff=0.5, hold=2)
    state = one.begin(1.0, Bounds(1, 100))
    levels = [state.limit]
    for now in range(1, 6):
        state = after(one, state, began=float(now), ended=now + 0.5, in_flight=9)
        levels.append(state.limit)
    assert levels[:3] == [1, 2, 2]
    raised = state.limit
    back = after(one, state, began=8.0, ended=9.0, overloaded=True)
    assert back.limit == state.good < raised
    kept = after(one, back, began=9.5, ended=9.6, in_flight=9)
    assert kept.limit == back.limit


def test_a_limit_that_is_not_used_does_not_grow() -> None:
    for algorithm in ALGORITHMS:
        state = algorithm.begin(50.0, Bounds(1, 100))
        for now in range(1, 500):
            state = after(algorithm, state, began=float(now), ended=now + 0.1, in_flight=1)
        assert state.limit <= 50


calls = st.lists(
    st.tuples(
        st.floats(0, 1000), st.floats(0, 10), st.integers(1, 200), st.booleans()
    ),
    max_size=80,
)  # fmt: skip


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=named)
@given(calls=calls, first=st.integers(2, 90))
def test_whatever_happens_the_limit_is_within_its_bounds(
    algorithm: Algorithm, calls: list[tuple[float, float, int, bool]], first: int
) -> None:
    bounds = Bounds(2, 90)
    state = algorithm.begin(float(first), bounds)
    for began, takes, in_flight, overloaded in calls:
        state = algorithm.after(state, Sample(began, began + takes, in_flight, overloaded), bounds)
        assert 2 <= bounds.hold(state.limit) <= 90
        if not getattr(state, "probing", 0):
            assert 2 <= state.limit <= 90


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=named)
@given(calls=calls)
def test_a_refusal_never_raises_the_limit(
    algorithm: Algorithm, calls: list[tuple[float, float, int, bool]]
) -> None:
    bounds = Bounds(1, 100)
    state = algorithm.begin(20.0, bounds)
    for began, takes, in_flight, overloaded in calls:
        before = state.limit
        state = algorithm.after(state, Sample(began, began + takes, in_flight, overloaded), bounds)
        assert not overloaded or state.limit <= before


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: AIMD(backoff=1), ValueError, "backoff must be between 0 and 1"),
        (lambda: AIMD(backoff="x"), TypeError, "backoff must be a number"),  # type: ignore[arg-type]
        (lambda: AIMD(hold=0), ValueError, "hold must be at least 1"),
        (lambda: Vegas(alpha=3, beta=2), ValueError, "beta must be at least 3"),
        (lambda: Vegas(probe_every=1), ValueError, "probe_every must be at least 10"),
        (lambda: Gradient(tolerance=0.5), ValueError, "tolerance must be at least 1"),
        (lambda: Gradient(smoothing=0), ValueError, "smoothing must be more than 0"),
    ],
)
def test_senseless_settings_are_named(make: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        make()
