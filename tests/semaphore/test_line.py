"""Whose turn it is, against a naive model: no threads, every order of events."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ion_actors.semaphore import Fairness
from ion_actors.semaphore.line import PermitLine, Waiter
from tests import rounds


def waiter(permits: int) -> Waiter:
    return Waiter(permits, lambda: None)


def serve_all(line: PermitLine) -> list[Waiter]:
    served = []
    while (turn := line.serve()) is not None:
        served.append(turn)
    return served


class Model:
    """The same in the words of the documentation, and slowly: a list, searched from its start."""

    def __init__(self, capacity: int, fairness: Fairness) -> None:
        self.free = self.capacity = capacity
        self.fairness = fairness
        self.line: list[Waiter] = []  # the oldest first

    def may_pass(self, permits: int) -> bool:
        blocked = self.fairness is Fairness.FIFO and bool(self.line)
        return permits <= self.free and not blocked

    def served(self) -> list[Waiter]:
        """Take out of the line whose turn it is, one after the other."""
        served: list[Waiter] = []
        while candidates := [one for one in self.next_ones() if one.item <= self.free]:
            self.line.remove(candidates[0])
            self.free -= candidates[0].item
            served.append(candidates[0])
        return served

    def next_ones(self) -> list[Waiter]:
        """Who may be served at all, first choice first."""
        choices = {
            Fairness.FIFO: self.line[:1],
            Fairness.LIFO: self.line[-1:],
            Fairness.NONE: self.line,
        }
        return choices[self.fairness]


class LineModel(RuleBasedStateMachine):
    """Joins, departures, tries and releases in any order, also senseless releases."""

    @initialize(capacity=st.integers(1, 6), fairness=st.sampled_from(Fairness))
    def begin(self, capacity: int, fairness: Fairness) -> None:
        self.line = PermitLine(capacity, fairness)
        self.model = Model(capacity, fairness)
        self.held: list[int] = []
        self.acquisitions = self.given_up = 0
        self.over: list[Waiter] = []

    def weight(self, data: st.DataObject) -> int:
        return data.draw(st.integers(1, self.model.capacity), "permits")

    def compare(self) -> None:
        expected = self.model.served()
        assert serve_all(self.line) == expected
        self.hold(expected)

    def hold(self, served: list[Waiter]) -> None:
        for turn in served:
            assert turn.over
            assert turn.error is None
            self.held.append(turn.item)
            self.over.append(turn)
            self.acquisitions += 1

    @rule(data=st.data())
    def take(self, data: st.DataObject) -> None:
        permits = self.weight(data)
        expected = self.model.may_pass(permits)
        assert self.line.take(permits) == expected
        if expected:
            self.model.free -= permits
            self.held.append(permits)
            self.acquisitions += 1

    @rule(data=st.data())
    def join(self, data: st.DataObject) -> None:
        turn = waiter(self.weight(data))
        self.line.join(turn)
        self.model.line.append(turn)
        self.compare()

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        permits = self.held.pop(data.draw(st.integers(0, len(self.held) - 1), "which"))
        assert self.line.give_back(permits)
        self.model.free += permits
        self.compare()

    @rule(more=st.integers(1, 3))
    def give_back_too_many(self, more: int) -> None:
        assert not self.line.give_back(sum(self.held) + more)

    @precondition(lambda self: self.model.line)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        turn = data.draw(st.sampled_from(self.model.line), "who leaves")
        error = TimeoutError()
        assert self.line.leave(turn, error)
        assert turn.error is error
        self.model.line.remove(turn)
        self.over.append(turn)
        self.given_up += 1
        self.compare()

    @precondition(lambda self: self.over)
    @rule(data=st.data())
    def leave_again(self, data: st.DataObject) -> None:
        turn = data.draw(st.sampled_from(self.over), "who leaves")
        error = turn.error
        assert not self.line.leave(turn, LookupError())
        assert turn.error is error

    @invariant()
    def the_numbers_are_the_models(self) -> None:
        now = self.line.snapshot()
        assert now.available == self.model.free == now.capacity - sum(self.held)
        assert now.waiting == len(self.model.line)
        assert (now.acquisitions, now.given_up) == (self.acquisitions, self.given_up)

    @invariant()
    def nobody_waits_whose_turn_it_is(self) -> None:
        assert all(one.item > self.model.free for one in self.model.next_ones())

    @invariant()
    def no_turn_that_is_over_refers_to_others(self) -> None:
        assert all(one.ahead is one.behind is None for one in self.over)


TestLineModel = LineModel.TestCase
TestLineModel.settings = settings(
    max_examples=rounds(50, thorough=400), stateful_step_count=40, deadline=None
)


# -- what a signal handler or a finalizer may do in between ----------------------------------


class Meddled(PermitLine):
    """A line to which something happens while it looks whose turn it is."""

    __slots__ = ("meddle",)

    def _next(self) -> Waiter | None:
        found = super()._next()
        meddle, self.meddle = getattr(self, "meddle", None), None
        if meddle is not None and found is not None:
            meddle(found)
        return found


@pytest.mark.parametrize("fairness", Fairness)
def test_one_who_leaves_while_it_is_looked_at_is_not_served(fairness: Fairness) -> None:
    line = Meddled(2, fairness)
    line.take(2)
    first, second = waiter(1), waiter(1)
    line.join(first)
    line.join(second)
    line.give_back(2)
    gone = []
    line.meddle = lambda turn: gone.append(turn) or line.leave(turn, TimeoutError())

    assert serve_all(line) == [one for one in (first, second) if one is not gone[0]]
    assert (line.available, line.waiting) == (1, 0)


@pytest.mark.parametrize("fairness", Fairness)
def test_permits_taken_while_they_are_counted_are_not_granted_twice(fairness: Fairness) -> None:
    line = Meddled(2, fairness)
    line.take(2)
    turn = waiter(2)
    line.join(turn)
    line.give_back(2)

    def take_one(_: Waiter) -> None:
        line.available -= 1

    line.meddle = take_one
    assert serve_all(line) == []
    assert (line.available, line.waiting, turn.over) == (1, 1, False)
