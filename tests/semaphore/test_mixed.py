"""Threads and coroutines wait in one line, and any of them may be called off at any step."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from ion_actors.semaphore import Fairness
from tests import rounds
from tests.semaphore.helpers import Loop, event_loop
from tests.semaphore.stage import KINDS, Actor, Stage

# -- any order of events -----------------------------------------------------------------------


class MixedModel(RuleBasedStateMachine):
    """Random steps of the stage, which checks each against the model."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = Loop()

    @initialize(capacity=st.integers(1, 5), fairness=st.sampled_from(Fairness))
    def begin(self, capacity: int, fairness: Fairness) -> None:
        self.stage = Stage(capacity, fairness, self.loop)

    @rule(
        kind=st.sampled_from(KINDS),
        permits=st.integers(1, 5),
        timeout=st.sampled_from([None, None, 3.0, 5.0, 8.0]),
    )
    def enter(self, kind: str, permits: int, timeout: float | None) -> None:
        self.stage.enter(kind, min(permits, self.stage.semaphore.capacity), timeout)

    @rule(permits=st.integers(1, 5))
    def try_to_enter(self, permits: int) -> None:
        self.stage.try_to_enter(min(permits, self.stage.semaphore.capacity))

    @precondition(lambda self: self.stage.holding)
    @rule(data=st.data(), cancel=st.booleans())
    def release(self, data: st.DataObject, cancel: bool) -> None:
        actor = self.stage.holding[self.any_of(self.stage.holding, data)]
        (self.stage.release_and_cancel if cancel else self.stage.release)(actor)

    @precondition(lambda self: self.stage.waiting)
    @rule(data=st.data(), by_context=st.booleans())
    def call_off(self, data: st.DataObject, by_context: bool) -> None:
        actor = self.stage.waiting[self.any_of(self.stage.waiting, data)]
        self.stage.call_off(actor, by_context)

    @rule(seconds=st.sampled_from([1.0, 4.0]))
    def pass_time(self, seconds: float) -> None:
        self.stage.pass_time(seconds)

    @staticmethod
    def any_of(actors: list[Actor], data: st.DataObject) -> int:
        return data.draw(st.integers(0, len(actors) - 1), "which")

    def teardown(self) -> None:
        if hasattr(self, "stage"):
            self.stage.finish()
        self.loop.close()


TestMixedModel = MixedModel.TestCase
TestMixedModel.settings = settings(
    max_examples=rounds(30, thorough=200), stateful_step_count=30, deadline=None
)


# -- one schedule, and everybody called off at every step of it --------------------------------

CAPACITY = 4
Step = Callable[[Stage], object]


def enters(kind: str, permits: int, timeout: float | None = None) -> Step:
    return lambda stage: stage.enter(kind, permits, timeout)


def releases(which: int) -> Step:
    def release(stage: Stage) -> None:
        if stage.holding:  # with somebody called off, the course of events differs
            stage.release(stage.holding[which % len(stage.holding)])

    return release


SCHEDULE: list[Step] = [
    enters("thread", 3),
    enters("coroutine", 2),
    enters("thread", 4),
    enters("coroutine", 1),
    lambda stage: stage.try_to_enter(1),
    enters("coroutine", 4),
    enters("thread", 1),
    releases(0),
    enters("thread", 2),
    enters("coroutine", 1),
    lambda stage: stage.try_to_enter(4),
    releases(1),
    releases(0),
    releases(0),
]


def is_called_off_by_its_task(stage: Stage, victim: Actor) -> None:
    stage.call_off(victim, by_context=False)


def is_called_off_by_its_context(stage: Stage, victim: Actor) -> None:
    stage.call_off(victim, by_context=True)


@pytest.mark.parametrize("call_off", [is_called_off_by_its_task, is_called_off_by_its_context])
@pytest.mark.parametrize("fairness", Fairness)
def test_whoever_is_called_off_at_whatever_step_nothing_is_lost(
    fairness: Fairness, call_off: Callable[[Stage, Actor], None]
) -> None:
    called_off = 0
    with event_loop() as loop:
        for step in range(len(SCHEDULE) + 1):
            for victim in range(len(SCHEDULE)):  # the place in the line
                stage = Stage(CAPACITY, fairness, loop)
                for action in SCHEDULE[:step]:
                    action(stage)
                if victim < len(stage.waiting):
                    call_off(stage, stage.waiting[victim])
                    called_off += 1
                for action in SCHEDULE[step:]:
                    action(stage)
                stage.finish()
                if victim >= len(SCHEDULE[:step]):
                    break  # nobody is there
    assert called_off > 30


@pytest.mark.parametrize("fairness", Fairness)
def test_a_coroutine_called_off_in_the_moment_of_its_grant_passes_it_on(fairness: Fairness) -> None:
    with event_loop() as loop:
        for step in range(1, len(SCHEDULE) + 1):
            stage = Stage(CAPACITY, fairness, loop)
            for action in SCHEDULE[:step]:
                action(stage)
            while stage.holding:
                stage.release_and_cancel(stage.holding[0])
            stage.finish()


# -- what follows from it, in so many words ----------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_heavy_front_that_gives_up_lets_lighter_ones_in_at_once(kind: str) -> None:
    with event_loop() as loop:
        stage = Stage(4, Fairness.FIFO, loop)
        holder = stage.enter("thread", 2)
        heavy = stage.enter(kind, 4)
        light = [stage.enter("thread", 1), stage.enter("coroutine", 1)]
        assert stage.waiting == [heavy, *light]

        stage.call_off(heavy, by_context=True)

        assert stage.holding == [holder, *light]
        stage.finish()


@pytest.mark.parametrize(
    ("fairness", "order"),
    [(Fairness.FIFO, [2, 1, 2, 1]), (Fairness.LIFO, [1, 2, 1, 2]), (Fairness.NONE, [2, 1, 1, 2])],
)
def test_the_order_is_that_of_the_fairness(fairness: Fairness, order: list[int]) -> None:
    with event_loop() as loop:
        stage = Stage(2, fairness, loop)
        holder = stage.enter("thread", 2)
        for number, permits in enumerate((2, 1, 2, 1)):
            stage.enter(KINDS[number % 2], permits)
        stage.release(holder)
        stage.finish()
        assert [actor.permits for actor in stage.granted[1:]] == order
