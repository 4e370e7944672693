"""How a supervisor survives its own faults, without a supervisor."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from ion_actors import Context, Future
from ion_actors.actors import Request
from ion_actors.testing import VirtualClock
from ion_actors.workerpool.messages import Broadcast
from ion_actors.workerpool.spec import PoolSpec
from ion_actors.workerpool.supervisor.resilience import Resilience, insist


class Fault(Exception):
    """What the handler raises."""


class Supervisor:
    """Notes what is asked of it."""

    def __init__(self, clock: VirtualClock) -> None:
        self.steps: list[object] = []
        logger = logging.getLogger("unheard")
        logger.setLevel(logging.CRITICAL + 1)
        spec = PoolSpec.checked(
            1, 1, "p", Context(clock=clock), None, logger, None, None, None, None, None, (),
            True, None, None, 0, "block", None, "thread",
        )  # fmt: skip
        self.resilience = Resilience(
            spec,
            lambda: self.steps.append("reconcile"),
            lambda message, error: self.steps.append(("give up", message, type(error))),
        )

    def fails(self, times: int) -> Any:
        """A handler that fails so often."""
        left = [times]

        def handle(message: object) -> object:
            self.steps.append(message)
            left[0] -= 1
            if left[0] >= 0:
                raise Fault
            return "reply"

        return handle


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


def test_a_handler_that_fails_is_run_again_after_the_view_was_made_anew(
    clock: VirtualClock,
) -> None:
    boss = Supervisor(clock)
    assert boss.resilience.attempt(boss.fails(1), "m") == "reply"
    assert boss.steps == ["m", "reconcile", "m"]


def test_it_gives_up_at_the_fourth_fault_in_a_minute(clock: VirtualClock) -> None:
    boss = Supervisor(clock)
    assert boss.resilience.attempt(boss.fails(100), "m") is None
    assert boss.steps == ["m", *["reconcile", "m"] * 3, ("give up", "m", Fault)]


def test_faults_of_the_minute_before_are_forgiven(clock: VirtualClock) -> None:
    boss = Supervisor(clock)
    for _ in range(5):
        assert boss.resilience.attempt(boss.fails(3), "m") == "reply"
        clock.advance(61)


def test_a_broadcast_is_failed_before_it_is_handled_again(clock: VirtualClock) -> None:
    boss, reply = Supervisor(clock), Future[Any]()
    request = Request(Broadcast("hello"), reply)
    boss.resilience.attempt(boss.fails(1), request)
    assert isinstance(reply.exception(0), Fault)


def test_a_last_resort_is_tried_again() -> None:
    calls: list[int] = []

    def step() -> None:
        calls.append(1)
        if len(calls) < 10:
            raise Fault

    assert insist(step)
    assert len(calls) == 10
