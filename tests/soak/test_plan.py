"""What is drawn can be drawn again, and makes sense."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.soak.plan import (
    BACKENDS,
    EXHAUSTING,
    ON_LOOPS,
    Blow,
    Ending,
    Job,
    Lot,
    Round,
    Strike,
    draw,
)

ROUNDS = st.builds(draw, st.integers(0, 10**9), st.integers(0, 10**4), st.just(BACKENDS))


def actions(drawn: Round) -> list[Job | Blow]:
    return [one for part in drawn.submitters for one in part]


@given(seed=st.integers(0, 10**9), number=st.integers(0, 10**4))
def test_a_round_is_drawn_from_its_seed_and_number_only(seed: int, number: int) -> None:
    assert draw(seed, number, BACKENDS) == draw(seed, number, BACKENDS)


def test_each_round_of_a_soak_can_be_drawn_alone() -> None:
    found = [draw(5, number, BACKENDS) for number in range(10)]
    assert found[::-1] == [draw(5, number, BACKENDS) for number in range(9, -1, -1)]
    assert len({repr(one) for one in found}) == 10
    assert draw(6, 0, BACKENDS) != found[0]


@given(drawn=ROUNDS)
def test_no_round_asks_for_what_a_pool_refuses(drawn: Round) -> None:
    assert not (drawn.backend == "process" and (drawn.virtual or drawn.overflow == "caller_runs"))
    for one in actions(drawn):
        if isinstance(one, Job):
            assert drawn.queue_size or "delay" not in one.options
            assert "key_limit" not in one.options or "key" in one.options


@given(drawn=ROUNDS)
def test_no_round_would_end_the_program_or_say_nothing(drawn: Round) -> None:
    assert not (Strike.FORK in drawn.strikes and drawn.exhausts)
    if drawn.backend != "process":
        assert Strike.KILL not in drawn.strikes
        lots = {one.lot for one in actions(drawn) if isinstance(one, Job)}
        assert lots.isdisjoint((Lot.KILLED, Lot.LEAVES))


def test_in_the_long_run_everything_happens() -> None:
    found = [draw(1, number, BACKENDS) for number in range(400)]
    assert {one.backend for one in found} == set(BACKENDS)
    assert {one.ending for one in found} == set(Ending)
    assert {strike for one in found for strike in one.strikes} == set(Strike)
    jobs = [job for one in found for job in actions(one) if isinstance(job, Job)]
    assert {job.lot for job in jobs} == set(Lot)
    assert {name for job in jobs for name in job.options} >= {"timeout", "ttl", "key", "delay"}
    assert any(one.interrupted for one in found)
    assert any(one.virtual for one in found)


@pytest.mark.parametrize("backend", BACKENDS)
def test_only_what_is_asked_for_is_drawn(backend: str) -> None:
    found = [
        draw(1, one, (backend,), interrupts=False, loops=False, forks=False) for one in range(50)
    ]
    assert {one.backend for one in found} == {backend}
    assert not any(one.interrupted or Strike.FORK in one.strikes for one in found)
    jobs = [job for one in found for job in actions(one) if isinstance(job, Job)]
    assert ON_LOOPS.isdisjoint(job.lot for job in jobs)


def test_a_round_knows_what_may_go_wrong_in_it() -> None:
    quiet = Round(0, "thread", 1, 1, "block", True, False, False, ((),), Ending.DRAIN)
    assert not any((quiet.exhausts, quiet.calls_off, quiet.kills))
    for strike in Strike:
        struck = Round(
            0, "thread", 1, 1, "block", True, False, False, ((Blow(strike, 0.5),),), Ending.BLOCK
        )
        assert struck.exhausts == (strike in EXHAUSTING)
        assert struck.calls_off == (strike in (Strike.DRAIN, Strike.CLOSE, Strike.PURGE))
        assert struck.kills == (strike is Strike.KILL)
