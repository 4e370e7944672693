"""What a window counts, against a count of the whole history."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ion_actors.circuit.rules import FailureRate
from ion_actors.circuit.window import CallWindow, TimeWindow, window_of

histories = st.lists(st.tuples(st.floats(0, 20), st.booleans()), max_size=80)


@given(st.integers(1, 10), st.lists(st.booleans(), max_size=40))
def test_a_window_of_calls_counts_the_last_ones(calls: int, results: list[bool]) -> None:
    window = CallWindow(calls)
    for number, failed in enumerate(results):
        window.add(float(number), failed)
        last = results[: number + 1][-calls:]
        assert window.counts(float(number)) == (len(last), sum(last))


@given(st.sampled_from([0.5, 7.0, 60.0]), histories, st.floats(0, 100))
def test_a_window_of_seconds_counts_nothing_older_and_all_but_a_sixtieth(
    seconds: float, history: list[tuple[float, bool]], wait: float
) -> None:
    window = TimeWindow(seconds)
    now, seen = 0.0, []
    for step, failed in history:
        now += step
        window.add(now, failed)
        seen.append((now, failed))
    now += wait
    at_most = [failed for when, failed in seen if now - when <= seconds * (1 + 1e-9)]
    at_least = [failed for when, failed in seen if now - when < seconds * (59 / 60 - 1e-9)]
    total, failures = window.counts(now)
    assert len(at_least) <= total <= len(at_most)
    assert sum(at_least) <= failures <= sum(at_most)


@given(histories)
def test_a_window_of_seconds_needs_a_fixed_room(history: list[tuple[float, bool]]) -> None:
    window = TimeWindow(10.0)
    now = 0.0
    for step, failed in history:
        now += step / 100
        window.add(now, failed)
        assert len(window.buckets) <= 60


def test_a_result_that_comes_with_an_older_time_is_counted_with_the_latest() -> None:
    window = TimeWindow(60.0)
    window.add(10.0, True)
    window.add(8.0, True)  # threads read the clock, and then take their turn
    assert window.counts(10.0) == (2, 2)
    assert window.counts(70.0) == (0, 0)


def test_the_policy_says_which_window_it_is() -> None:
    assert isinstance(window_of(FailureRate(0.5)), CallWindow)
    assert isinstance(window_of(FailureRate(0.5, seconds=3)), TimeWindow)
