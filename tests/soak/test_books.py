"""The books of a soak find what is wrong, and nothing else."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ion_actors import Future, Pool, PoolMetrics
from tests.soak import errands
from tests.soak.books import OUTCOMES, allowed, balance, blurred, growth, outcome, unbalanced
from tests.soak.gauges import Sample, grown, read, write
from tests.soak.plan import Blow, Ending, Job, Lot, Round, Strike

QUIET = Round(0, "thread", 1, 1, "block", True, False, False, ((),), Ending.DRAIN)

COUNTS = st.tuples(*[st.integers(0, 1000)] * 6)


def numbers(queued: int, running: int, *ended: int) -> PoolMetrics:
    counts = dict(zip(OUTCOMES, ended, strict=True))
    total = queued + running + sum(ended)
    return PoolMetrics(2, 10, queued, running, total, **counts, rejected=0, restarts=0)


@given(counts=COUNTS)
def test_a_snapshot_balances_or_not(counts: tuple[int, ...]) -> None:
    right = numbers(*counts)
    assert not unbalanced(right)
    assert unbalanced(dataclasses.replace(right, submitted=right.submitted + 1))
    assert unbalanced(dataclasses.replace(right, queued=-1, running=right.running + counts[0] + 1))


@given(ended=st.tuples(*[st.integers(0, 1000)] * 4), where=st.sampled_from(OUTCOMES))
def test_the_pool_and_the_futures_say_the_same(ended: tuple[int, ...], where: str) -> None:
    last = numbers(0, 0, *ended)
    seen = Counter(dict(zip(OUTCOMES, ended, strict=True)))
    assert balance(last, seen, complete=True) == []
    seen[where] += 1
    assert len(balance(last, seen, complete=False)) == 1
    seen[where] -= 2
    assert len(balance(last, seen, complete=True)) == 1
    assert balance(last, seen, complete=False) == []


@given(counts=COUNTS)
def test_a_pool_that_has_ended_has_nothing_left(counts: tuple[int, ...]) -> None:
    found = balance(numbers(*counts), Counter(), complete=False)
    assert bool(found) == (counts[0] + counts[1] > 0)


def test_how_futures_have_ended() -> None:
    pending: Future[object] = Future()
    assert outcome(pending) == "pending"
    with Pool(1) as pool:
        ended = [pool.submit(one) for one in (int, errands.fail, errands.stray)]
        late = pool.options(timeout=0.01).submit(errands.linger)
        for one in (*ended, late):
            one.exception(30)
        found = [outcome(one) for one in (*ended, late)]
    assert found == ["completed", "failed", "panicked", "cancelled"]
    pending.cancel()
    assert outcome(pending) == "cancelled"


@pytest.mark.parametrize(
    ("lot", "expected"),
    [(Lot.WELL, "completed"), (Lot.FAIL, "failed"), (Lot.PANIC, "panicked")],
)
def test_how_a_task_may_end(lot: Lot, expected: str) -> None:
    plain, limited = Job(lot), Job(lot, options={"timeout": 1.0})
    assert allowed(plain, QUIET) == {expected}
    assert allowed(limited, QUIET) == {expected, "cancelled"}
    purged = dataclasses.replace(QUIET, submitters=((Blow(Strike.PURGE, 0.5),),))
    assert allowed(plain, purged) == {expected, "cancelled"}
    starved = dataclasses.replace(QUIET, submitters=((Blow(Strike.NO_MEMORY, 0.5),),))
    assert allowed(plain, starved) == set(OUTCOMES)


def test_a_panic_may_be_counted_before_a_time_limit_or_a_close_ends_its_future() -> None:
    assert blurred(Job(Lot.EXIT, cancel=True), "cancelled")
    assert blurred(Job(Lot.EXIT), "cancelled")
    assert not blurred(Job(Lot.EXIT, cancel=True), "panicked")
    assert not blurred(Job(Lot.WELL, cancel=True), "cancelled")


@given(start=st.floats(0, 1000), each=st.floats(0, 10), count=st.integers(40, 200))
def test_what_grows_is_found(start: float, each: float, count: int) -> None:
    found = growth([start + each * number for number in range(count)])
    assert found == pytest.approx(each * count / 2, rel=0.1, abs=1e-6)


@given(st.lists(st.floats(0, 1000), max_size=19))
def test_too_few_values_say_nothing(values: list[float]) -> None:
    assert growth(values) == 0


def test_a_single_high_value_and_the_first_quarter_are_no_growth() -> None:
    assert growth([0.0] * 25 + [5.0] * 70 + [500.0] + [5.0] * 4) == 0


def sample(number: int, resident: float = 50.0, descriptors: int = 30) -> Sample:
    return Sample(float(number), number, resident, descriptors, 10, 2)


def test_only_what_is_beyond_the_tolerance_counts() -> None:
    assert grown([sample(number) for number in range(100)]) == []
    assert grown([sample(number, resident=50 + number / 10) for number in range(100)]) == []
    (memory,) = grown([sample(number, resident=50 + number) for number in range(100)])
    assert memory.startswith("resident grew by 50")
    (files,) = grown([sample(number, descriptors=number) for number in range(100)])
    assert files.startswith("descriptors")


def test_the_samples_are_written_as_a_table(tmp_path: Path) -> None:
    write(tmp_path / "soak.csv", [read(1.25, 7), sample(2)])
    lines = (tmp_path / "soak.csv").read_text().splitlines()
    assert lines[0] == "seconds,tasks,resident,descriptors,threads,children"
    assert lines[1].startswith("1.2,7,")
    assert lines[2] == "2.0,2,50.0,30,10,2"
