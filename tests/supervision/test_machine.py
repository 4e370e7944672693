"""The decisions: compared with OTP's own way of doing it, for any tree, any crashes, any timing."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ion_actors import Backoff, PanicRecovery
from ion_actors.supervision import AutoShutdown, ChildState, Restart, Strategy, SupervisorState
from ion_actors.supervision.machine import Machine
from ion_actors.supervision.states import (
    ChildOutcome,
    ChildRecord,
    Finish,
    GaveUp,
    RestartCause,
    Retry,
    Rules,
    Start,
    Stop,
)
from tests.supervision.otp import Otp

LIVE = (ChildState.STARTING, ChildState.RUNNING, ChildState.STOPPING)
OUTCOMES = {
    "asked": ChildOutcome.ASKED,
    "gave up": ChildOutcome.GAVE_UP,
    "start failed": ChildOutcome.START_FAILED,
    "significant": ChildOutcome.SIGNIFICANT,
}


@dataclass
class Script:
    """What the world does, the same for both: who crashes during which start or stop."""

    first_fails: int | None  # which of the first starts does not succeed
    restarts: list[bool]  # whether the n-th start succeeds, after each child's first
    meanwhile: dict[int, list[tuple[int, bool]]]  # (child, failed) that end during the n-th act
    children: int = 0
    now: float = 0.0
    acts: itertools.count = field(default_factory=itertools.count)

    def start(self, number: int) -> bool:
        if number < self.children:
            return number != self.first_fails
        number -= self.children
        return self.restarts[number] if number < len(self.restarts) else True


class WorldOfOtp:
    def __init__(self, script, rules, records):
        self.script, self.trace, self.alive, self.count = script, [], set(), 0
        self.names = [record.id for record in records]
        self.otp = Otp(
            rules.strategy, rules.limit.max_restarts, rules.limit.within,
            rules.auto_shutdown.value, [(one.id, one.restart, one.significant) for one in records],
            self.start, self.stop, lambda: script.now,
        )  # fmt: skip

    def act(self):
        number = next(self.script.acts)
        for index, failed in self.script.meanwhile.get(number, []):
            self.crash(self.names[index % len(self.names)], failed)

    def crash(self, child, failed):
        if child in self.alive:
            self.alive.discard(child)
            self.trace.append(("crash", child))
            self.otp.exit(child, failed)

    def start(self, child):
        self.trace.append(("start", child))
        self.act()
        self.count += 1
        if self.script.start(self.count - 1):
            self.alive.add(child)
            return True
        return False

    def stop(self, child):
        self.trace.append(("stop", child))
        self.alive.discard(child)
        self.act()


class WorldOfMachine:
    """Carries out the orders. At most one of them is under way at any time."""

    def __init__(self, script, rules, records):
        self.script, self.trace, self.alive, self.count = script, [], set(), 0
        self.names = [record.id for record in records]
        self.machine = Machine(rules, tuple(records))
        self.todo, self.retries, self.finished = [], [], 0
        self.gave_up = None

    def take(self, step):
        self.machine, orders = step
        for order in orders:
            if isinstance(order, Start | Stop):
                self.todo.append(order)
            elif isinstance(order, Retry):
                self.retries.append(order.id)
            elif isinstance(order, GaveUp):
                self.gave_up = order.id
            elif isinstance(order, Finish):
                self.finished += 1
        assert len(self.todo) <= 1, "two things are under way"

    def act(self):
        number = next(self.script.acts)
        for index, failed in self.script.meanwhile.get(number, []):
            self.crash(self.names[index % len(self.names)], failed)

    def crash(self, child, failed):
        if child in self.alive:
            self.alive.discard(child)
            self.trace.append(("crash", child))
            self.take(self.machine.ended(child, self.script.now, failed=failed))

    def pump(self):
        while self.todo or self.retries:
            if not self.todo:
                self.take(self.machine.retry(self.retries.pop(0), self.script.now))
                continue
            order = self.todo.pop()
            if isinstance(order, Start):
                self.start(order.id)
            else:
                self.stop(order.id)

    def start(self, child):
        self.trace.append(("start", child))
        self.act()
        self.count += 1
        if self.script.start(self.count - 1):
            self.alive.add(child)
            self.take(self.machine.started(child, self.script.now))
        else:
            self.take(self.machine.start_failed(child, self.script.now))

    def stop(self, child):
        self.trace.append(("stop", child))
        self.alive.discard(child)
        self.act()
        self.take(self.machine.stopped(child, self.script.now))


@st.composite
def setups(draw):
    auto = draw(st.sampled_from(AutoShutdown))
    records = []
    for index in range(draw(st.integers(1, 5))):
        restart = draw(st.sampled_from(Restart))
        may = auto is not AutoShutdown.NEVER and restart is not Restart.PERMANENT
        records.append(ChildRecord(f"c{index}", restart, draw(st.booleans()) if may else False))
    rules = Rules(
        strategy=draw(st.sampled_from(Strategy)),
        limit=PanicRecovery(max_restarts=draw(st.integers(0, 20)), within=5.0),
        auto_shutdown=auto,
    )
    return rules, tuple(records)


crashes = st.tuples(st.integers(0, 4), st.booleans())
histories = st.lists(st.tuples(st.sampled_from([0.0, 0.5, 3.0, 10.0]), crashes), max_size=8)
scripts = st.tuples(
    st.sampled_from([None, None, None, None, None, 0, 1, 4]),
    st.lists(st.sampled_from([True, True, False]), max_size=20),
    st.dictionaries(st.integers(0, 30), st.lists(crashes, max_size=3), max_size=6),
)


@settings(max_examples=5 * settings().max_examples)
@given(setups(), scripts, histories)
def test_it_does_what_otp_does(setup, script, history):
    rules, records = setup
    ours, theirs = Script(*script, len(records)), Script(*script, len(records))
    machine, otp = WorldOfMachine(ours, rules, records), WorldOfOtp(theirs, rules, records)

    machine.take(machine.machine.begin())
    machine.pump()
    otp.otp.init()
    otp.otp.pump()
    for wait, (index, failed) in history:
        ours.now += wait
        theirs.now += wait
        child = f"c{index % len(records)}"
        machine.crash(child, failed)
        machine.pump()
        otp.crash(child, failed)
        otp.otp.pump()
        assert machine.trace == otp.trace

    machine.take(machine.machine.stop(ours.now))
    machine.pump()
    otp.otp.terminate()
    assert machine.trace == otp.trace
    assert machine.alive == otp.alive == set()
    assert machine.gave_up == otp.otp.gave_up
    assert machine.machine.outcome is OUTCOMES[otp.otp.over]
    assert machine.machine.state is SupervisorState.STOPPED
    assert machine.finished == 1


# -- the world at its worst: anything may be said at any time ------------------------------------

sayings = st.lists(
    st.tuples(
        st.sampled_from(["started", "start_failed", "retry", "ended", "stopped", "stop"]),
        st.sampled_from(["c0", "c1", "c2", "c3", "c4", "nobody"]),
        st.booleans(),
    ),
    max_size=40,
)


@given(setups(), sayings, st.booleans())
def test_whatever_it_is_told_one_thing_at_a_time_is_under_way_and_it_can_be_stopped(
    setup, said, slow
):
    rules, records = setup
    machine, orders = Machine(rules, records).begin()
    open_orders = [one for one in orders if isinstance(one, Start | Stop)]
    finishes = sum(isinstance(one, Finish) for one in orders)
    for verb, child, failed in [*said, ("stop", "", False)]:
        if verb == "stop":
            machine, orders = machine.stop(0.0)
        elif verb == "ended":
            machine, orders = machine.ended(child, 0.0, failed=failed)
        else:
            machine, orders = getattr(machine, verb)(child, 0.0)
        open_orders += [one for one in orders if isinstance(one, Start | Stop)]
        finishes += sum(isinstance(one, Finish) for one in orders)
        stopping = [record.id for record in machine.records if record.state is ChildState.STOPPING]
        starting = [record.id for record in machine.records if record.state is ChildState.STARTING]
        assert len(stopping) <= 1
        assert len(starting) <= 1
        if machine.state is not SupervisorState.STOPPED:
            assert not (stopping and starting) or machine.state is SupervisorState.STOPPING
    while any(record.state is ChildState.STOPPING for record in machine.records):
        (child,) = [record.id for record in machine.records if record.state is ChildState.STOPPING]
        machine, orders = machine.stopped(child, 0.0)
        assert not any(isinstance(one, Start) for one in orders)
        finishes += sum(isinstance(one, Finish) for one in orders)
    assert machine.state is SupervisorState.STOPPED
    assert finishes == 1
    assert not any(record.state in LIVE for record in machine.records)


# -- single decisions, in words ------------------------------------------------------------------


def running(*restarts, **rules):
    records = tuple(ChildRecord(name, kind) for name, kind in zip("abcdef", restarts, strict=False))
    machine, _ = Machine(Rules(**rules), records).begin()
    for record in records:
        machine, _ = machine.started(record.id, 0.0)
    assert machine.state is SupervisorState.RUNNING
    return machine


PERMANENT, TRANSIENT, TEMPORARY = Restart.PERMANENT, Restart.TRANSIENT, Restart.TEMPORARY


def test_children_start_one_after_the_other_in_order():
    machine, orders = Machine(Rules(), (ChildRecord("a"), ChildRecord("b"))).begin()
    assert orders == (Start("a"),)
    machine, orders = machine.started("a", 0.0)
    assert orders == (Start("b"),)
    machine, orders = machine.started("b", 0.0)
    assert orders == ()
    assert machine.state is SupervisorState.RUNNING


def test_rest_for_one_stops_what_came_after_in_reverse_and_starts_it_in_order():
    machine = running(*[PERMANENT] * 4, strategy=Strategy.REST_FOR_ONE)
    machine, orders = machine.ended("b", 0.0, failed=True)
    assert orders == (RestartCause("b"), Stop("d"))
    machine, orders = machine.stopped("d", 0.0)
    assert orders == (Stop("c"),)
    machine, orders = machine.stopped("c", 0.0)
    assert orders == (Start("b"),)
    machine, orders = machine.started("b", 0.0)
    assert orders == (Start("c"),)
    machine, orders = machine.started("c", 0.0)
    assert orders == (Start("d"),)


def test_one_for_all_brings_back_a_transient_child_that_had_ended_normally():
    machine = running(PERMANENT, TRANSIENT, strategy=Strategy.ONE_FOR_ALL)
    machine, orders = machine.ended("b", 0.0, failed=False)
    assert orders == ()
    machine, orders = machine.ended("a", 0.0, failed=True)
    assert orders == (RestartCause("a"), Start("a"))
    _, orders = machine.started("a", 0.0)
    assert orders == (Start("b"),)


def test_a_temporary_child_is_forgotten_with_its_group():
    machine = running(PERMANENT, TEMPORARY, strategy=Strategy.ONE_FOR_ALL)
    machine, orders = machine.ended("a", 0.0, failed=True)
    assert orders == (RestartCause("a"), Stop("b"))
    machine, orders = machine.stopped("b", 0.0)
    assert orders == (Start("a"),)
    machine, orders = machine.started("a", 0.0)
    assert orders == ()
    assert [record.id for record in machine.records] == ["a"]


@pytest.mark.parametrize("most", [0, 1, 3])
def test_one_restart_more_than_allowed_is_the_end(most):
    machine = running(PERMANENT, PERMANENT, limit=PanicRecovery(max_restarts=most, within=5.0))
    for _ in range(most):
        machine, orders = machine.ended("a", 1.0, failed=True)
        assert orders == (RestartCause("a"), Start("a"))
        machine, _ = machine.started("a", 1.0)
    machine, orders = machine.ended("a", 5.9, failed=True)
    assert orders == (GaveUp("a"), Stop("b"))
    assert machine.stopped("b", 6.0)[1] == (Finish(),)


def test_old_restarts_do_not_count():
    machine = running(PERMANENT, limit=PanicRecovery(max_restarts=1, within=5.0))
    for now in (0.0, 5.0, 10.0, 15.0):
        machine, orders = machine.ended("a", now, failed=True)
        assert orders == (RestartCause("a"), Start("a"))
        machine, _ = machine.started("a", now)


def test_a_start_that_fails_is_tried_again_after_the_backoff_until_it_gives_up():
    backoff = Backoff(initial=1.0, factor=2.0, maximum=60.0, jitter=0.0, retries=3)
    limit = PanicRecovery(max_restarts=None)
    machine = running(PERMANENT, PERMANENT, limit=limit, backoff=backoff)
    machine, orders = machine.ended("a", 0.0, failed=True)
    for delay in (1.0, 2.0, 4.0):
        machine, orders = machine.start_failed("a", 0.0)
        assert orders == (Retry("a", delay),)
        assert machine.record("a").state is ChildState.RESTARTING
        machine, orders = machine.retry("a", 0.0)
        assert orders == (RestartCause("a"), Start("a"))
    machine, orders = machine.start_failed("a", 0.0)
    assert orders == (GaveUp("a"), Stop("b"))


def test_a_start_that_succeeds_forgets_the_failures():
    backoff = Backoff(initial=1.0, factor=2.0, jitter=0.0)
    machine = running(PERMANENT, limit=PanicRecovery(max_restarts=None), backoff=backoff)
    for _ in range(3):
        machine, _ = machine.ended("a", 0.0, failed=True)
        machine, orders = machine.start_failed("a", 0.0)
        assert orders == (Retry("a", 1.0),)
        machine, _ = machine.retry("a", 0.0)
        machine, _ = machine.started("a", 0.0)


def test_a_child_that_dies_while_another_restarts_is_seen_to_afterwards():
    machine = running(PERMANENT, PERMANENT, limit=PanicRecovery(max_restarts=2))
    machine, _ = machine.ended("a", 0.0, failed=True)
    machine, orders = machine.ended("b", 0.0, failed=True)
    assert orders == ()
    machine, orders = machine.started("a", 0.0)
    assert orders == (RestartCause("b"), Start("b"))


def test_a_stop_during_a_restart_starts_nothing_more():
    machine = running(*[PERMANENT] * 3, strategy=Strategy.ONE_FOR_ALL)
    machine, orders = machine.ended("a", 0.0, failed=True)
    assert orders == (RestartCause("a"), Stop("c"))
    machine, orders = machine.stop(0.0)
    assert orders == ()
    machine, orders = machine.stopped("c", 0.0)
    assert orders == (Stop("b"),)
    machine, orders = machine.stopped("b", 0.0)
    assert orders == (Finish(),)


def test_a_stop_during_a_start_stops_what_is_starting():
    machine, _ = Machine(Rules(), (ChildRecord("a"), ChildRecord("b"))).begin()
    machine, _ = machine.started("a", 0.0)
    machine, orders = machine.stop(0.0)
    assert orders == (Stop("b"),)
    machine, orders = machine.started("b", 0.0)
    assert orders == ()
    machine, orders = machine.stopped("b", 0.0)
    assert orders == (Stop("a"),)


def test_a_significant_child_that_waits_for_another_one_does_not_keep_the_supervisor():
    records = (
        ChildRecord("x", TRANSIENT, True),
        ChildRecord("a"),
        ChildRecord("y", TRANSIENT, True),
    )
    rules = Rules(Strategy.REST_FOR_ONE, auto_shutdown=AutoShutdown.ALL_SIGNIFICANT)
    machine, _ = Machine(rules, records).begin()
    for record in records:
        machine, _ = machine.started(record.id, 0.0)
    machine, _ = machine.ended("a", 0.0, failed=True)
    machine, _ = machine.stopped("y", 0.0)
    machine, _ = machine.start_failed("a", 0.0)
    machine, orders = machine.ended("x", 0.0, failed=False)
    assert orders == (Finish(),)
    assert machine.outcome is ChildOutcome.SIGNIFICANT
