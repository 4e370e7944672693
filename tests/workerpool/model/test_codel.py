"""When the adaptive policy sheds: pure decisions."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ion_actors import CoDel, Overflow, Pool, Worker
from ion_actors.workerpool.model.overflow import Delays, checked_overflow

POLICY = CoDel(target=1.0, interval=10.0)


def run(delays: list[tuple[float, float]], state: Delays | None = None) -> list[bool]:
    """The verdicts on tasks taken at these times after these delays."""
    state = state or Delays()
    verdicts = []
    for now, delay in delays:
        state, shed = state.waited(POLICY, now, delay)
        verdicts.append(shed)
    return verdicts


def test_a_burst_loses_nothing():
    assert not any(run([(float(t), 9.0 - t) for t in range(10)]))


def test_a_standing_queue_is_shed_after_an_interval():
    verdicts = run([(0.5 * t, 5.0) for t in range(60)])
    assert not any(verdicts[:20])
    assert all(verdicts[20:])


def test_one_that_waited_less_than_twice_the_target_is_kept():
    overloaded = Delays(5.0, 20.0, overloaded=True)
    assert run([(11.0, 2.0), (12.0, 2.1)], overloaded) == [False, True]


def test_it_ends_when_somebody_waited_less_than_the_target():
    overloaded = Delays(5.0, 10.0, overloaded=True)
    verdicts = run([(10.0, 5.0), (15.0, 0.5), (20.0, 5.0), (25.0, 5.0)], overloaded)
    assert verdicts == [True, False, False, False]


def test_it_ends_when_a_worker_was_idle():
    state = Delays(5.0, 10.0, overloaded=True).idle(POLICY, 12.0)
    assert run([(12.5, 5.0), (21.0, 5.0)], state) == [False, False]


def test_a_pause_is_no_overload():
    assert run([(0.0, 5.0), (100.0, 5.0)]) == [False, False]


def eighths(low: int, high: int) -> st.SearchStrategy[float]:
    """Floats that add up exactly."""
    return st.integers(low, high).map(lambda n: n / 8)


@given(st.lists(st.tuples(eighths(4, 24), eighths(7, 40)), min_size=10, max_size=80))
def test_what_it_sheds_has_waited_long_and_so_has_everybody(steps: list[tuple[float, float]]):
    now, state, seen = 0.0, Delays(), []
    for pause, delay in steps:
        now += pause
        state, shed = state.waited(POLICY, now, delay)
        if shed:
            assert delay > 2 * POLICY.target
            # Everybody that was taken in the interval before this one has waited too long, too.
            began = state.ends_at - POLICY.interval
            judged = [one for at, one in seen if began - POLICY.interval <= at < began]
            assert all(one > POLICY.target for one in judged)
        seen.append((now, delay))


@given(
    st.lists(st.floats(0.01, 3), min_size=1, max_size=200),
    st.floats(0.05, 2),
)
def test_what_runs_has_waited_for_a_bounded_time(arrivals: list[float], service: float):
    """One server, whatever comes: the bound that the documentation gives."""
    moments, at = [], 0.0
    for gap in arrivals:
        at += gap / 10
        moments.append(at)
    now, state = 0.0, Delays()
    for arrived in moments:
        if arrived >= now:
            state = state.idle(POLICY, now)
            now = arrived
        state, shed = state.waited(POLICY, now, now - arrived)
        if not shed:
            # + service: the task before it was taken that much earlier
            assert now - arrived <= POLICY.target + 2 * POLICY.interval + service
            now += service


@pytest.mark.parametrize("bad", [0, -1, math.nan, math.inf, None])
def test_a_senseless_number_is_refused(bad: float):
    with pytest.raises(ValueError, match="target"):
        CoDel(target=bad)
    with pytest.raises(ValueError, match="interval"):
        CoDel(interval=bad)


@pytest.mark.parametrize("one", list(Overflow))
def test_a_policy_may_be_named(one: Overflow):
    assert checked_overflow(one.value) is one
    assert checked_overflow(one) is one


def test_a_policy_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match=r"overflow must be one of 'block', .*'explode'"):
        Pool(1, overflow="explode")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="overflow"):
        Pool(1, overflow=3)  # type: ignore[arg-type]


@pytest.mark.parametrize("elsewhere", [{"backend": "process"}, {"worker": Worker}])
def test_callers_run_only_what_they_can(elsewhere: dict[str, object]):
    with pytest.raises(ValueError, match="overflow 'caller_runs' is not for"):
        Pool(1, overflow="caller_runs", **elsewhere)
