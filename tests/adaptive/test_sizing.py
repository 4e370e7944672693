"""How a pool's size follows its work: simulations of whole pools, and properties of decisions."""

from __future__ import annotations

import math
import pickle
import statistics
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ion_actors.adaptive import Adaptive
from ion_actors.adaptive.sizing import PoolLoad
from tests.adaptive.pool_simulation import SimulatedPool

PHASES = [(40, 60), (8, 60), (60, 60)]


@pytest.mark.parametrize("jitter", [0.0, 0.5])
@pytest.mark.parametrize("seed", range(3))
def test_a_hidden_capacity_is_found_and_followed(seed: int, jitter: float) -> None:
    pool = SimulatedPool(Adaptive(1, 200), seed, jitter=jitter)
    for capacity, seconds in PHASES:
        found = pool.phase(capacity, seconds)
        assert found.throughput >= 0.9, (capacity, found.throughput)
        assert 0.75 * capacity <= statistics.median(found.sizes) <= 1.5 * capacity
        assert max(found.sizes) <= 2 * capacity


def test_so_is_one_whose_tasks_take_any_time_though_not_as_well() -> None:
    found = []
    for seed in range(6):
        pool = SimulatedPool(Adaptive(1, 200), seed, jitter=None)
        found.append([pool.phase(*phase).throughput for phase in PHASES])
    for of_phase in zip(*found, strict=True):
        assert statistics.median(of_phase) >= 0.85, found


def test_slow_tasks_take_longer_to_teach() -> None:
    pool = SimulatedPool(Adaptive(2, 100), 1, latency=2.0)
    assert pool.phase(30, 600).throughput >= 0.9


def test_a_pool_that_may_be_larger_than_the_server_needs_is_not() -> None:
    """As with work for a CPU: more workers add nothing."""
    found = SimulatedPool(Adaptive(1, 1000), 3).phase(2, 120)
    assert found.throughput >= 0.8  # it tries one worker, too
    assert statistics.mean(found.sizes) <= 5


def test_a_pool_that_is_to_be_as_large_as_it_may_gets_there_soon() -> None:
    pool = SimulatedPool(Adaptive(1, 16), 1)
    pool.phase(1000, 10)
    assert max(pool.sizes) == 16
    assert pool.phase(1000, 60).throughput >= 0.9 * 16 / 1000


@pytest.mark.parametrize("seed", range(3))
def test_resizes_are_damped(seed: int) -> None:
    pool = SimulatedPool(Adaptive(1, 200), seed)
    pool.phase(20, 60)
    found = pool.phase(20, 240)
    assert found.changes <= len(found.sizes) / 4  # a trial and its end are two
    for one, other in zip(pool.sizes, pool.sizes[1:], strict=False):
        assert max(one, other) <= max(2 * min(one, other), min(one, other) + 2)


def test_an_idle_pool_shrinks_slowly_to_its_minimum() -> None:
    pool = SimulatedPool(Adaptive(3, 200), 1)
    pool.phase(40, 60)
    sizes = pool.rest(30)
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] == 3
    for number in range(len(sizes) - 5):
        assert sizes[number + 5] >= sizes[number] // 2
    assert pool.phase(40, 60).throughput >= 0.9, "and it grows again"


def load(now: float, size: int, **facts: Any) -> PoolLoad:
    return PoolLoad(
        **({"now": now, "size": size, "running": size, "backlog": 9, "ended": 0} | facts)
    )


def test_a_pool_with_idle_workers_keeps_a_few_more_than_are_busy() -> None:
    sizing = Adaptive(1, 100).begin().after(load(0, 80))
    assert sizing.size == 80
    for look in range(100):
        sizing = sizing.after(load(look, sizing.size, running=20, backlog=0))
    assert sizing.size == 25


def test_a_pool_whose_workers_cannot_begin_what_waits_stays_as_it_is() -> None:
    """Its workers start, or keys are in the way, or it is paused: that tells nothing."""
    sizing = Adaptive(1, 100).begin().after(load(0, 10))
    for look in range(100):
        sizing = sizing.after(load(look, 10, running=3, ended=1000 * look))
        assert sizing.size == 10


def test_a_pause_is_no_time_in_which_nothing_ended() -> None:
    sizing = Adaptive(10, 100).begin()
    for look in range(3):
        sizing = sizing.after(load(look, sizing.size, ended=100 * look))
    assert sizing.size == 20  # it has begun to climb
    sizing = sizing.after(load(4, 20, ended=300))
    sizing = sizing.after(load(500, 20, running=0, ended=300))
    sizing = sizing.after(load(501, 20, ended=300))
    sizing = sizing.after(load(502, 20, ended=500))
    assert sizing.size == 40


def test_tasks_that_take_very_long_hold_up_no_others() -> None:
    sizing, changes = Adaptive(1, 100).begin(), []
    for look in range(500):
        before, sizing = sizing.size, sizing.after(load(look, sizing.size))
        if sizing.size != before:
            changes.append((look, sizing.size))
    assert changes == [(20, 3), (60, 5), (140, 7), (300, 9)]
    for look in range(500, 550):
        sizing = sizing.after(load(look, sizing.size, running=0, backlog=0))
    assert sizing.size == 1
    for look in range(550, 571):
        sizing = sizing.after(load(look, sizing.size))
    assert sizing.size == 3, "and after a rest, it begins anew"


def test_slow_tasks_that_end_are_waited_for() -> None:
    sizing = Adaptive(100, 200).begin()
    for look in range(76):  # each worker ends one in 15 looks
        assert sizing.size == 100
        sizing = sizing.after(load(look, sizing.size, ended=100 * look // 15))
    assert sizing.size == 200, "a trial"


def test_a_size_that_somebody_sets_is_where_it_goes_on() -> None:
    sizing = Adaptive(2, 50).begin()
    assert sizing.after(load(1, 30)).size == 30
    assert sizing.after(load(1, 1)).size == 2
    assert sizing.after(load(1, 70)).size == 50


LOADS = st.lists(
    st.tuples(
        st.floats(0.001, 100), st.integers(0, 100), st.integers(0, 3), st.integers(0, 10_000)
    ),
    max_size=60,
)


@given(st.integers(1, 20), st.integers(0, 100), LOADS)
def test_it_stays_within_its_bounds_and_never_jumps(
    minimum: int, more: int, loads: list[tuple[float, int, int, int]]
) -> None:
    bounds = Adaptive(minimum, minimum + more)
    sizing, now, ended = bounds.begin(), 0.0, 0
    for seconds, running, backlog, ends in loads:
        now, ended, before = now + seconds, ended + ends, sizing.size
        sizing = sizing.after(
            load(now, before, running=min(running, before), backlog=backlog, ended=ended)
        )
        assert bounds.minimum <= sizing.size <= bounds.maximum
        assert before // 2 <= sizing.size <= 2 * before + 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((0, 5), "minimum must be at least 1, not 0"),
        ((2.0, 5), "minimum must be a whole number, not 2.0"),
        ((True, 5), "minimum must be a whole number, not True"),
        ((2, "5"), "maximum must be a whole number, not '5'"),
        ((6, 5), "maximum must be at least minimum .6., not 5"),
        ((1, 5, 0), "interval must be more than 0 seconds, not 0"),
        ((1, 5, -1), "interval must be at least 0"),
        ((1, 5, math.inf), "interval must be"),
        ((1, 5, math.nan), "interval must be"),
        ((1, 5, None), "interval must be a number, not None"),
    ],
)
def test_arguments_that_make_no_sense(arguments: tuple[Any, ...], says: str) -> None:
    with pytest.raises((TypeError, ValueError), match=says):
        Adaptive(*arguments)


def test_it_is_a_value() -> None:
    assert Adaptive(1, 5) == Adaptive(minimum=1, maximum=5, interval=0.5)
    assert pickle.loads(pickle.dumps(Adaptive(1, 5))) == Adaptive(1, 5)
    assert repr(Adaptive(2, 64)) == "Adaptive(minimum=2, maximum=64, interval=0.5)"
