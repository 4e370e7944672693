"""The life of a pool: whatever is asked in whatever order, the promises about its end hold."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ion_actors.workerpool.model.lifecycle import Action, Life, Phase, cancel_lead

STOP, CANCEL, ABANDON, FINISH = (
    Action.STOP_ACCEPTING,
    Action.CANCEL_ALL,
    Action.ABANDON,
    Action.FINISH,
)

waits = st.floats(0, 100)
timeouts = st.none() | st.just(0.0) | waits
steps = st.one_of(
    st.tuples(st.just("drain"), waits, timeouts),
    st.tuples(st.just("close"), waits, timeouts),
    st.tuples(st.just("tick"), waits, st.none()),
    st.tuples(st.just("all_ended"), waits, st.none()),
)
histories = st.lists(steps, max_size=12)


def play(history):
    """Yield (name, now, timeout, life before, life after, actions) for each step."""
    life, now = Life(), 0.0
    for name, wait, timeout in history:
        now += wait
        if name == "all_ended":
            after, actions = life.all_ended()
        elif name == "tick":
            after, actions = life.tick(now)
        else:
            after, actions = getattr(life, name)(now, timeout)
        yield name, now, timeout, life, after, actions
        life = after


def all_actions(history):
    return [action for *_, actions in play(history) for action in actions]


ORDER = [Phase.RUNNING, Phase.DRAINING, Phase.CANCELLING, Phase.CLOSED]


@given(histories)
def test_phases_only_go_forward(history):
    for *_, before, after, _ in play(history):
        assert ORDER.index(before.phase) <= ORDER.index(after.phase)


@given(histories)
def test_a_deadline_never_moves_later(history):
    for *_, before, after, _ in play(history):
        if before.deadline is not None and after.phase is not Phase.CLOSED:
            assert after.deadline is not None
            assert after.deadline <= before.deadline


@given(histories)
def test_the_moment_to_act_never_moves_later(history):
    for *_, before, after, _ in play(history):
        if before.next_moment() is not None and before.phase is after.phase is Phase.DRAINING:
            assert after.next_moment() <= before.next_moment()


@given(histories)
def test_every_request_brings_the_deadline_within_its_own(history):
    for name, now, timeout, _, after, _ in play(history):
        if name in {"drain", "close"} and timeout is not None and after.phase is not Phase.CLOSED:
            assert after.deadline <= now + timeout


@given(histories)
def test_each_action_happens_at_most_once_and_in_order(history):
    done = all_actions(history)
    expected = [action for action in (STOP, CANCEL, ABANDON, FINISH) if action in done]
    assert done == expected


@given(histories)
def test_finish_comes_when_and_only_when_the_life_ends(history):
    for *_, before, after, actions in play(history):
        ends = before.phase is not Phase.CLOSED and after.phase is Phase.CLOSED
        assert (FINISH in actions) is ends
        if ends:
            assert actions[-1] is FINISH


@given(histories)
def test_contexts_are_cancelled_when_and_only_when_cancelling_begins(history):
    early = (Phase.RUNNING, Phase.DRAINING)
    for name, *_, before, after, actions in play(history):
        begins = before.phase in early and after.phase not in early and name != "all_ended"
        assert (CANCEL in actions) is begins


@given(histories)
def test_nothing_is_abandoned_before_the_deadline(history):
    deadline = math.inf  # the earliest that anybody asked for
    for name, now, timeout, *_, actions in play(history):
        if name in {"drain", "close"} and timeout is not None:
            deadline = min(deadline, now + timeout)
        if ABANDON in actions:
            assert now >= deadline


@given(histories)
def test_only_time_makes_a_drain_overdue(history):
    cancel_at = math.inf
    for name, now, timeout, before, after, _ in play(history):
        if name == "drain" and timeout is not None and before.phase in ORDER[:2]:
            cancel_at = min(cancel_at, now + timeout - cancel_lead(timeout))
        if after.overdue and not before.overdue:
            assert before.phase in ORDER[:2]
            assert name != "close"
            assert now >= cancel_at


@given(histories)
def test_who_ticks_whenever_told_to_is_at_the_end_by_the_deadline(history):
    life = [Life(), *(after for *_, after, _ in play(history))][-1]
    deadline = life.deadline
    for _ in range(3):
        if (moment := life.next_moment()) is not None:
            life, _ = life.tick(moment)
    if deadline is not None:
        assert life.phase is Phase.CLOSED


@given(histories, waits, timeouts)
def test_nothing_happens_after_the_end(history, now, timeout):
    closed = Life(Phase.CLOSED, overdue=True)
    for name, _, limit in history:
        step = closed.all_ended() if name == "all_ended" else closed.drain(now, limit)
        assert step == (closed, ())
    assert closed.close(now, timeout) == (closed, ())
    assert closed.tick(now) == (closed, ())
    assert closed.next_moment() is None


def test_a_running_pool_does_not_end_because_its_workers_are_between_restarts():
    assert Life().all_ended() == (Life(), ())


def test_a_drain_without_deadline_plans_nothing():
    life, actions = Life().drain(5.0, None)
    assert actions == (STOP,)
    assert life.next_moment() is None


def test_a_drain_cancels_a_little_before_its_deadline_and_abandons_at_it():
    life, actions = Life().drain(0.0, 10.0)
    assert (life.phase, actions) == (Phase.DRAINING, (STOP,))
    assert life.tick(9.89) == (life, ())
    life, actions = life.tick(9.9)
    assert (life.phase, life.overdue, actions) == (Phase.CANCELLING, True, (CANCEL,))
    assert life.tick(9.99) == (life, ())
    life, actions = life.tick(10.0)
    assert (life.phase, life.overdue, actions) == (Phase.CLOSED, True, (ABANDON, FINISH))


def test_a_drain_that_is_over_in_time_is_not_overdue():
    life, _ = Life().drain(0.0, 10.0)
    life, actions = life.all_ended()
    assert (life.phase, life.overdue, actions) == (Phase.CLOSED, False, (FINISH,))


def test_a_drain_without_any_time_does_everything_at_once():
    life, actions = Life().drain(1.0, 0.0)
    assert (life.phase, actions) == (Phase.CLOSED, (STOP, CANCEL, ABANDON, FINISH))


def test_a_close_without_any_time_does_everything_at_once():
    life, actions = Life().close(1.0, 0.0)
    assert (life.phase, life.overdue, actions) == (
        Phase.CLOSED,
        False,
        (STOP, CANCEL, ABANDON, FINISH),
    )


def test_close_overtakes_a_drain():
    life, _ = Life().drain(0.0, None)
    life, actions = life.close(1.0, 2.0)
    assert (life.phase, life.deadline, actions) == (Phase.CANCELLING, 3.0, (CANCEL,))


def test_a_close_that_is_more_patient_than_the_drain_before_changes_no_deadline():
    life, _ = Life().drain(0.0, 5.0)
    assert life.close(1.0, 100.0)[0].deadline == 5.0


def test_a_second_close_can_be_less_patient():
    life, _ = Life().close(0.0, 100.0)
    assert life.close(1.0, 0.0)[1] == (ABANDON, FINISH)


def test_a_drain_while_cancelling_only_brings_the_deadline_forward():
    life, _ = Life().close(0.0, 100.0)
    life, actions = life.drain(1.0, 5.0)
    assert (life.phase, life.deadline, actions) == (Phase.CANCELLING, 6.0, ())
    assert life.drain(2.0, None)[0].deadline == 6.0


@pytest.mark.parametrize(("timeout", "expected"), [(0, 0), (0.5, 0.05), (1, 0.1), (3600, 0.1)])
def test_the_grace_is_a_tenth_and_at_most_a_tenth_of_a_second(timeout, expected):
    assert cancel_lead(timeout) == pytest.approx(expected)
