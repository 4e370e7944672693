"""The state machine against a model that keeps the whole history and recounts it each time."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from ion_actors.circuit.machine import BreakerMachine, CircuitState, Permit, Refusal
from ion_actors.circuit.rules import BreakerRules, CallOutcome, FailureRate

CLOSED, OPEN, HALF_OPEN = CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN

windows = st.one_of(
    st.none(),
    st.builds(
        FailureRate,
        st.sampled_from([0.25, 0.5, 1.0]),
        calls=st.integers(2, 6),
        minimum=st.integers(1, 2),
    ),
    st.builds(
        FailureRate,
        st.sampled_from([0.25, 0.5, 1.0]),
        seconds=st.just(60.0),  # so buckets are of a whole second, and no rounding is in the way
        minimum=st.integers(1, 4),
    ),
)
settings = st.builds(
    BreakerRules,
    failure_threshold=st.none() | st.integers(1, 4),
    recovery_timeout=st.sampled_from([1.0, 8.0]),
    half_open_max_requests=st.integers(1, 3),
    half_open_success_threshold=st.integers(1, 4),
    trial_timeout=st.sampled_from([None, 4.0, 16.0]),
    window=windows,
)


@dataclass
class Era:
    """What was seen since the last change of state or reset."""

    state: CircuitState
    until: float = 0.0
    results: list[tuple[float, bool]] = field(default_factory=list)  # when, and whether it failed
    trials: dict[Permit, float] = field(default_factory=dict)  # running, and since when


class Modelled(RuleBasedStateMachine):
    @initialize(rules=settings)
    def begin(self, rules: BreakerRules) -> None:
        self.rules = rules
        self.machine = BreakerMachine(rules)
        self.now = 0.0
        self.era = Era(CLOSED)
        self.running: list[tuple[Permit, Era]] = []
        self.seen = [CLOSED]  # every state, in order
        self.counts = dict.fromkeys([*CallOutcome, "rejected"], 0)

    # -- the model ---------------------------------------------------------------------------

    def enter(self, state: CircuitState, until: float = 0.0) -> None:
        self.era = Era(state, until)
        if self.seen[-1] is not state:
            self.seen.append(state)

    def slots(self) -> int:
        limit = self.rules.trial_timeout or math.inf
        young = [since for since in self.era.trials.values() if self.now < since + limit]
        return self.rules.half_open_max_requests - len(young)

    def ripe(self) -> bool:
        return self.era.state is OPEN and self.now >= self.era.until

    def should_open(self) -> bool:
        last = [failed for _, failed in self.era.results]
        in_a_row = len(last) if all(last) else last[::-1].index(False)
        threshold, policy = self.rules.failure_threshold, self.rules.window
        if threshold is not None and in_a_row >= threshold:
            return True
        if policy is None:
            return False
        assert policy.minimum is not None
        seen = self.in_window(policy)
        return len(seen) >= policy.minimum and sum(seen) / len(seen) >= policy.rate

    def in_window(self, policy: FailureRate) -> list[bool]:
        if policy.calls is not None:
            return [failed for _, failed in self.era.results][-policy.calls :]
        return [failed for when, failed in self.era.results if when // 1 > self.now // 1 - 60]

    # -- what happens --------------------------------------------------------------------------

    @rule(step=st.sampled_from([0.25, 1.0, 4.0, 8.0, 30.0, 61.0]))
    def time_passes(self, step: float) -> None:
        self.now += step

    @rule()
    def a_call_comes(self) -> None:
        if self.ripe():
            self.enter(HALF_OPEN)
        wanted = self.era.state is CLOSED or (self.era.state is HALF_OPEN and self.slots() > 0)
        permit = self.machine.admit(self.now)
        assert isinstance(permit, Permit) == wanted
        if isinstance(permit, Refusal):
            assert permit == Refusal(self.era.state, self.machine.retry_after(self.now))
            self.counts["rejected"] += 1
            return
        assert permit.state is self.era.state
        self.running.append((permit, self.era))
        if self.era.state is HALF_OPEN:
            self.era.trials[permit] = self.now

    @precondition(lambda self: self.running)
    @rule(data=st.data(), outcome=st.sampled_from(CallOutcome))
    def a_call_ends(self, data: st.DataObject, outcome: CallOutcome) -> None:
        which = data.draw(st.integers(0, len(self.running) - 1))
        permit, era = self.running.pop(which)
        era.trials.pop(permit, None)
        self.counts[outcome] += 1
        self.machine.settle(permit, outcome, self.now)
        if era is not self.era or outcome in (CallOutcome.IGNORED, CallOutcome.CANCELLED):
            return
        failed = outcome is CallOutcome.FAILED
        era.results.append((self.now, failed))
        if era.state is HALF_OPEN:
            if failed:
                self.enter(OPEN, self.now + self.rules.recovery_timeout)
            elif len(era.results) == self.rules.half_open_success_threshold:
                self.enter(CLOSED)
        elif failed and self.should_open():
            self.enter(OPEN, self.now + self.rules.recovery_timeout)

    @rule(duration=st.sampled_from([None, 0.0, 2.0, math.inf]))
    def somebody_trips_it(self, duration: float | None) -> None:
        self.machine.trip(self.now, duration)
        self.enter(OPEN, self.now + (self.rules.recovery_timeout if duration is None else duration))

    @rule()
    def somebody_resets_it(self) -> None:
        self.machine.reset(self.now)
        self.enter(CLOSED)

    # -- what always holds -----------------------------------------------------------------------

    @invariant()
    def the_state_is_that_of_the_model(self) -> None:
        state = HALF_OPEN if self.ripe() else self.era.state
        assert self.machine.state_at(self.now) is state
        assert (self.machine.pass_ is not None) == (state is CLOSED)

    @invariant()
    def every_change_is_told_once_and_in_order(self) -> None:
        changes = list(self.machine.changes)
        assert [change.new for change in changes] == self.seen[1:]
        assert [change.old for change in changes] == self.seen[:-1]

    @invariant()
    def a_call_is_worth_a_try_when_it_says(self) -> None:
        after = self.machine.retry_after(self.now)
        if self.era.state is OPEN and not self.ripe():
            assert after == self.era.until - self.now
        else:
            full = self.era.state is HALF_OPEN and self.slots() <= 0
            assert after == (self.rules.recovery_timeout / 10 if full else 0)

    @invariant()
    def the_numbers_add_up(self) -> None:
        seen = self.machine.metrics("m", self.now, running=len(self.running))
        ended = {one: getattr(seen, one.value) for one in CallOutcome}
        assert ended | {"rejected": seen.rejected} == self.counts
        assert seen.requests == len(self.running) + sum(ended.values())
        assert seen.state_changes == len(self.seen) - 1
        assert 0 <= seen.trials <= self.rules.half_open_max_requests

    @invariant()
    def the_failure_rate_is_that_of_the_window_or_of_all(self) -> None:
        rate = self.machine.metrics("m", self.now, running=0).failure_rate
        if (policy := self.rules.window) is not None:
            seen = self.in_window(policy) if self.era.state is CLOSED else []
        else:
            failed, succeeded = self.counts[CallOutcome.FAILED], self.counts[CallOutcome.SUCCEEDED]
            seen = [True] * failed + [False] * succeeded
        assert rate == (sum(seen) / len(seen) if seen else None)


def test_the_machine_is_its_model() -> None:
    run_state_machine_as_test(Modelled)  # type: ignore[no-untyped-call]


# -- some sentences of the documentation, one by one --------------------------------------------


def failing(machine: BreakerMachine, times: int, now: float = 0.0) -> None:
    for _ in range(times):
        end(machine, CallOutcome.FAILED, now)


def end(machine: BreakerMachine, outcome: CallOutcome, now: float = 0.0) -> None:
    permit = machine.admit(now)
    assert isinstance(permit, Permit)
    machine.settle(permit, outcome, now)


def half_open(**settings: object) -> BreakerMachine:
    machine = BreakerMachine(BreakerRules(**settings))  # type: ignore[arg-type]
    machine.trip(0.0, 0.0)
    return machine


def test_a_success_ends_a_row_of_failures() -> None:
    machine = BreakerMachine(BreakerRules(3))
    failing(machine, 2)
    end(machine, CallOutcome.SUCCEEDED)
    failing(machine, 2)
    assert machine.state is CLOSED
    failing(machine, 1)
    assert machine.state is OPEN


@pytest.mark.parametrize("outcome", [CallOutcome.IGNORED, CallOutcome.CANCELLED])
def test_what_is_neither_does_not_end_a_row_of_failures(outcome: CallOutcome) -> None:
    machine = BreakerMachine(BreakerRules(2))
    failing(machine, 1)
    end(machine, outcome)
    failing(machine, 1)
    assert machine.state is OPEN


@pytest.mark.parametrize("outcome", [CallOutcome.IGNORED, CallOutcome.CANCELLED])
def test_what_is_neither_gives_its_slot_back_and_no_more(outcome: CallOutcome) -> None:
    machine = half_open(half_open_max_requests=1, half_open_success_threshold=1)
    for _ in range(5):
        end(machine, outcome)
        assert machine.state is HALF_OPEN
    end(machine, CallOutcome.SUCCEEDED)
    assert machine.state is CLOSED


def test_more_successes_than_slots_are_made_one_after_the_other() -> None:
    machine = half_open(half_open_max_requests=1, half_open_success_threshold=3)
    for _ in range(3):
        assert machine.state_at(0.0) is HALF_OPEN
        end(machine, CallOutcome.SUCCEEDED)
    assert machine.state is CLOSED


def test_a_trial_that_hangs_loses_its_slot_but_not_its_say() -> None:
    machine = half_open(half_open_max_requests=1, half_open_success_threshold=1, trial_timeout=5)
    hanging = machine.admit(0.0)
    assert isinstance(hanging, Permit)
    assert isinstance(machine.admit(4.9), Refusal)
    assert isinstance(machine.admit(5.0), Permit)
    assert isinstance(machine.admit(5.0), Refusal)
    machine.settle(hanging, CallOutcome.SUCCEEDED, 6.0)
    assert machine.state is CLOSED


def test_a_late_failure_of_a_hanging_trial_opens_it_again() -> None:
    machine = half_open(half_open_max_requests=1, trial_timeout=5)
    hanging = machine.admit(0.0)
    assert isinstance(hanging, Permit)
    assert isinstance(machine.admit(5.0), Permit)
    machine.settle(hanging, CallOutcome.FAILED, 6.0)
    assert machine.state is OPEN


def test_without_a_trial_timeout_a_trial_keeps_its_slot() -> None:
    machine = half_open(half_open_max_requests=1, trial_timeout=None)
    assert isinstance(machine.admit(0.0), Permit)
    assert isinstance(machine.admit(1e12), Refusal)


def test_a_rate_is_not_judged_before_there_are_enough_calls() -> None:
    machine = BreakerMachine(BreakerRules(window=FailureRate(0.5, calls=10, minimum=4)))
    failing(machine, 3)
    assert machine.state is CLOSED
    failing(machine, 1)
    assert machine.state is OPEN
    assert machine.changes[-1].reason == "4 of 4 calls failed"


def test_a_success_never_opens_it() -> None:
    machine = BreakerMachine(BreakerRules(window=FailureRate(0.5, calls=10, minimum=4)))
    failing(machine, 3)
    end(machine, CallOutcome.SUCCEEDED)
    assert machine.state is CLOSED
    failing(machine, 1)
    assert machine.state is OPEN


def test_a_window_replaces_the_limit_in_a_row_unless_both_are_given() -> None:
    assert BreakerRules().failure_threshold == 5
    assert BreakerRules(window=FailureRate(0.5)).failure_threshold is None
    both = BreakerMachine(BreakerRules(2, window=FailureRate(1.0)))
    failing(both, 2)
    assert both.changes[-1].reason == "failures in a row: 2"


def test_a_window_of_seconds_forgets() -> None:
    machine = BreakerMachine(BreakerRules(window=FailureRate(0.5, seconds=60, minimum=4)))
    failing(machine, 3, now=0.0)
    end(machine, CallOutcome.SUCCEEDED, now=30.0)
    failing(machine, 3, now=61.0)  # 3 of 4; the first three are too old
    assert machine.state is OPEN
    assert machine.changes[-1].reason == "3 of 4 calls failed"


def test_it_begins_with_an_empty_window_after_it_was_open() -> None:
    machine = BreakerMachine(BreakerRules(window=FailureRate(0.5, calls=4, minimum=2)))
    failing(machine, 2)
    machine.reset(0.0)
    failing(machine, 1)
    assert machine.state is CLOSED
