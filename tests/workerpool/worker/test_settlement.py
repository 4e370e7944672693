"""What a raised exception leads to, for anybody who runs anything: without threads."""

from __future__ import annotations

import contextvars
import logging
from typing import Any

import pytest

from ion_actors import Context, Directive, PanicRecovery, TaskPanicked
from ion_actors.errors import Cancelled
from ion_actors.workerpool.model.metrics import Tally
from ion_actors.workerpool.model.outcomes import Outcome
from ion_actors.workerpool.model.reports import Panic
from ion_actors.workerpool.spec import PoolSpec
from ion_actors.workerpool.worker.failure import Failure
from ion_actors.workerpool.worker.settlement import Settlement


def spec_for(recovery: PanicRecovery | None = None) -> PoolSpec:
    logger = logging.getLogger("unheard")
    logger.setLevel(logging.CRITICAL + 1)
    return PoolSpec.checked(
        1, 1, "p", Context(), None, logger, None, None, recovery, None, None, (),
        True, None, None, 0, "block", None, "thread",
    )  # fmt: skip


class Runner:
    """Who runs what raises; notes the steps."""

    name, started_at, returning = "w", 0.0, None
    current = put_back = None

    def __init__(self) -> None:
        self.tally = Tally()
        self.steps: list[object] = []
        self.panic: Panic | None = None

    def doom(self) -> None:
        self.steps.append("doom")

    def report(self, name: str, error: BaseException, directive: Directive) -> Panic | None:
        self.steps.append(("report", name, directive))
        return self.panic

    def run_callbacks(self, task: Any, callbacks: Any) -> None:
        raise AssertionError("it ran no task")


class Thing:
    """What is run."""

    variables = contextvars.Context()

    def __init__(self, runner: Runner, *, again: bool = False) -> None:
        self.context = Context()
        self.steps = runner.steps
        self.again = again
        self.shown: BaseException | None = None

    def task_context(self) -> Context:
        return self.context

    def task_name(self) -> str:
        return "thing"

    def concerned(self) -> str | None:
        return None

    def try_again(self, failure: Failure) -> Failure | None:
        self.steps.append("try_again")
        return None if self.again else failure

    def stopped(self, failure: Failure, error: BaseException) -> None:
        self.steps.append("stopped")

    def end(self, failure: Failure, shown: BaseException) -> None:
        self.steps.append(failure.outcome)
        self.shown = shown


def test_a_failure_ends_it_and_nothing_else() -> None:
    who = Runner()
    thing, error = Thing(who), ValueError("no")
    Settlement(spec_for(), who).settle(thing, error)
    assert who.steps == ["try_again", "stopped", Outcome.FAILED]
    assert thing.shown is error


def test_a_failure_that_is_tried_again_does_not_end_it_nor_its_worker() -> None:
    who = Runner()
    Settlement(spec_for(), who).settle(Thing(who, again=True), ValueError("no"))
    assert who.steps == ["try_again"]


def test_a_panic_is_reported_before_it_is_seen() -> None:
    who = Runner()
    thing, error = Thing(who), SystemExit(1)
    Settlement(spec_for(), who).settle(thing, error)
    report = ("report", "thing", Directive.RESTART)
    assert who.steps == ["doom", "try_again", "stopped", report, Outcome.PANICKED]
    assert isinstance(thing.shown, TaskPanicked)
    assert thing.shown.__cause__ is error


def test_what_is_tried_again_is_reported_and_does_not_end() -> None:
    who = Runner()
    Settlement(spec_for(), who).settle(Thing(who, again=True), SystemExit(1))
    assert who.steps == ["doom", "try_again", ("report", "thing", Directive.RESTART)]


def test_the_end_of_its_context_is_no_failure() -> None:
    who = Runner()
    thing, error = Thing(who), Cancelled("enough")
    thing.context.cancel("enough")
    Settlement(spec_for(), who).settle(thing, error)
    assert who.steps == ["stopped", Outcome.CANCELLED]
    assert thing.shown is error


@pytest.mark.parametrize("reported", [False, True])
def test_the_handler_is_told_of_what_the_report_returns(reported: bool) -> None:
    told: list[Panic] = []
    who = Runner()
    panic = Panic("p", "w", "thing", SystemExit(), 1)
    who.panic = panic if reported else None
    Settlement(spec_for(PanicRecovery(handler=told.append)), who).settle(Thing(who), SystemExit())
    assert told == ([panic] if reported else [])
