"""What the plots show: rates and times from nothing but numbers at some moments."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ion_actors.dashboard.history import SERIES, History


def pool(name: str = "@1", **numbers: int) -> dict[str, Any]:
    zeros = dict.fromkeys(
        ("queued", "delayed", "running", "completed", "failed", "panicked", "cancelled"), 0
    )
    return {"id": name, **zeros, **numbers}


def last(history: History, name: str = "@1") -> dict[str, float | None]:
    return dict(zip(SERIES, history.last()[name], strict=True))


def test_a_steady_pool() -> None:
    """Ten tasks a second, each waits for 2 s and runs for 0.4 s."""
    history = History(window=5)
    for second in range(20):
        steady = pool(queued=20, running=4, completed=9 * second, failed=second)
        history.add(1000.0 + second, float(second), [steady])
    assert last(history) == {
        "queued": 20, "running": 4, "rate": 10, "errors": 1, "queue_time": 2,
        "run_time": pytest.approx(0.4),
    }  # fmt: skip


def test_one_sample_says_nothing_of_rates_and_times() -> None:
    history = History()
    history.add(0.0, 0.0, [pool(queued=3, completed=100)])
    assert last(history) == {
        "queued": 3, "running": 0, "rate": None, "errors": None, "queue_time": None,
        "run_time": None,
    }  # fmt: skip


def test_nothing_ends_so_times_are_unknown() -> None:
    history = History()
    for second in range(3):
        history.add(second, second, [pool(queued=5, running=2)])
    now = last(history)
    assert (now["rate"], now["queue_time"], now["run_time"]) == (0, None, None)


def test_tasks_that_wait_for_their_time_are_not_queued_for_a_worker() -> None:
    history = History()
    history.add(0, 0, [pool(queued=5, delayed=4)])
    assert last(history)["queued"] == 1


def test_it_is_bounded_and_a_pool_may_begin_later() -> None:
    history = History(length=4)
    for second in range(10):
        pools = [pool("@1"), *([pool("@2", running=second)] if second >= 8 else [])]
        history.add(second, second, pools)
    found = history.as_dict()
    assert found["times"] == [6, 7, 8, 9]
    assert found["pools"]["@1"]["queued"] == [0, 0, 0, 0]
    assert found["pools"]["@2"]["running"] == [8, 9]


def test_a_pool_that_is_gone_is_forgotten() -> None:
    history = History()
    history.add(0, 0, [pool("@1"), pool("@2")])
    history.add(1, 1, [pool("@2")])
    assert set(history.as_dict()["pools"]) == set(history.last()) == {"@2"}


COUNTS = st.integers(0, 10**6)
SAMPLES = st.lists(st.lists(COUNTS, min_size=7, max_size=7), min_size=1, max_size=20)


@given(SAMPLES, st.lists(st.floats(0, 10), min_size=20, max_size=20))
def test_any_numbers_give_json(samples: list[list[int]], steps: list[float]) -> None:
    """Whatever the numbers: a pool may be replaced under its id, and clocks may stand still."""
    history, moment = History(length=7, window=3), 0.0
    for numbers, step in zip(samples, steps, strict=False):
        names = ("queued", "delayed", "running", "completed", "failed", "panicked", "cancelled")
        history.add(moment, moment, [pool(**dict(zip(names, numbers, strict=True)))])
        moment += step
    json.dumps(history.as_dict(), allow_nan=False)
    for values in history.as_dict()["pools"]["@1"].values():
        assert len(values) == min(len(samples), 7)
