"""How long until a full pool has room."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ion_actors.workerpool.model.retry_after import WINDOW, Pace, PaceMark

rates = st.floats(0.01, 1e6)
gaps = st.lists(st.floats(0.001, 60), min_size=1, max_size=30)


def refused(pace: Pace, rate: float, moments: list[float], workers: int = 1) -> Pace:
    """The pace after refusals at these moments, by a pool that ends so many tasks a second."""
    for at in moments:
        mark = PaceMark(at, math.floor(at * rate))
        pace = pace.seen(mark, workers=workers, rested=False)
    return pace


def moments(gaps: list[float], begin: float = 0.0) -> list[float]:
    found = [begin]
    for gap in gaps:
        found.append(found[-1] + gap)
    return found


@given(rates, gaps, st.integers(1, 64), st.integers(1, 10_000))
def test_a_steady_pool_is_known_within_two_tasks(rate, gaps, workers, tasks):
    pace = refused(Pace(), rate, moments(gaps), workers)
    wait = pace.time_for(tasks)
    if wait is not None:
        assert pace.rate == pytest.approx(rate, rel=2 / (workers + 1))
        assert wait == pytest.approx(tasks / pace.rate)
    else:
        assert sum(gaps) * rate < workers + 2


@given(rates, gaps, st.floats(60, 1e6))
def test_what_a_pool_did_when_it_had_nothing_to_do_does_not_count(rate, gaps, pause):
    before = refused(Pace(), rate, moments(gaps))
    ended = math.floor(sum(gaps) * rate)
    idle = before.seen(PaceMark(sum(gaps) + pause, ended + 3), workers=1, rested=True)
    assert idle.rate == before.rate, "it is as fast as it was"
    begin = PaceMark(sum(gaps) + pause, ended + 3)
    again = idle.seen(PaceMark(begin.at + 2, begin.ended + 20), workers=1, rested=False)
    assert again.rate == pytest.approx(10.0)


def test_nothing_is_known_at_first():
    assert Pace().time_for(5) is None
    assert Pace().seen(PaceMark(9, 100), workers=1, rested=True).time_for(5) is None


@given(st.integers(1, 64), st.integers(0, 64))
def test_a_handful_of_tasks_tells_nothing(workers, ended):
    """Each may have been almost over when the stretch began."""
    pace = Pace().seen(PaceMark(0, 0), workers=workers, rested=True)
    pace = pace.seen(PaceMark(1, min(workers, ended)), workers=workers, rested=False)
    assert pace.rate is None


@given(rates, rates)
def test_a_pool_that_has_changed_is_known_anew_after_two_windows(one, other):
    pace, ended, at = Pace(), 0.0, 0.0
    for rate in (one, other):
        for _ in range(60):
            at += WINDOW / 20
            ended += rate * WINDOW / 20
            pace = pace.seen(PaceMark(at, math.floor(ended)), workers=1, rested=False)
    if other * WINDOW > 3:
        assert pace.rate == pytest.approx(other, abs=2 / WINDOW)


@given(st.floats(1, 1e6), st.floats(20, 1e5))
def test_a_pool_that_hangs_is_known_to_be_slow(rate, hangs):
    pace = refused(Pace(), rate, [0, 5, 10])
    assert pace.rate == pytest.approx(rate, rel=0.2)
    pace = pace.seen(PaceMark(10 + hangs, math.floor(10 * rate)), workers=1, rested=False)
    assert pace.time_for(1) >= min(hangs / 5, hangs / (10 * rate)) / 2


@given(st.floats(20, 1e4), st.integers(1, 16))
def test_tasks_of_minutes_are_measured_over_minutes(took, workers):
    pace = Pace()
    for step in range(200):
        mark = PaceMark(step * took / 10, workers * (step // 10))
        pace = pace.seen(mark, workers=workers, rested=False)
    assert pace.rate == pytest.approx(workers / took, rel=0.6)


@given(st.lists(st.tuples(st.floats(0, 5), st.integers(0, 100), st.booleans()), max_size=40))
def test_a_wait_is_a_finite_number_whatever_happens(steps):
    pace, at, ended = Pace(), 0.0, 0
    for gap, more, rested in steps:
        at, ended = at + gap, ended + more
        pace = pace.seen(PaceMark(at, ended), workers=2, rested=rested)
        wait = pace.time_for(1)
        assert wait is None or (wait > 0 and math.isfinite(wait))
