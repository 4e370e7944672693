"""Metrics, tracer, logger and task wrapper: what they are told, and that they harm nothing."""

from __future__ import annotations

import contextvars
import functools
import logging
from collections.abc import Callable
from typing import Any

import pytest

from ion_actors import Context, Pool, TaskAbandoned, TaskPanicked, current_context
from ion_actors.testing import RecordingMetrics, RecordingTracer, VirtualClock
from tests.workerpool.helpers import PATIENCE, Gate, await_threads, busy, run_in_thread

COMPLETED = "ion_workerpool_tasks_completed_total"


def test_metrics_have_ions_names_and_say_how_tasks_ended() -> None:
    metrics = RecordingMetrics()
    with Pool(1, 10, name="p", metrics=metrics) as pool:
        with busy(pool):
            pool.submit(pow, 2, 2).cancel()
        pool.submit(divmod, 1, 0).exception(PATIENCE)
        pool.submit(exit_with, 3).exception(PATIENCE)
    assert metrics.count("ion_workerpool_tasks_submitted_total", pool="p") == 4
    assert metrics.count("ion_workerpool_tasks_started_total", pool="p") == 3
    for status in ("success", "error", "panic", "cancelled"):
        assert metrics.count(COMPLETED, pool="p", status=status) == 1


def exit_with(code: int) -> None:
    raise SystemExit(code)


def test_the_time_in_the_queue_and_the_time_running_are_measured() -> None:
    metrics, clock, gate = RecordingMetrics(), VirtualClock(), Gate()
    with Pool(1, 10, context=Context(clock=clock), metrics=metrics, name="p") as pool:
        first = pool.submit(gate)
        gate.await_entered()
        second = pool.submit(pow, 2, 2)
        clock.advance(3)
        gate.open()
        first.result(PATIENCE)
        second.result(PATIENCE)
    assert metrics.observed("ion_workerpool_task_queue_seconds", pool="p") == [0.0, 3.0]
    assert metrics.observed("ion_workerpool_task_run_seconds", pool="p") == [3.0, 0.0]


def test_a_task_that_overran_is_counted_as_cancelled_once() -> None:
    metrics, clock, gate = RecordingMetrics(), VirtualClock(), Gate()
    with Pool(1, context=Context(clock=clock), metrics=metrics, name="p") as pool:
        future = pool.options(timeout=1).submit(gate)
        gate.await_entered()
        clock.advance(1)
        assert future.exception(PATIENCE) is not None
        gate.open()
    assert metrics.count(COMPLETED, pool="p", status="cancelled") == 1
    assert metrics.count(COMPLETED, pool="p", status="success") == 0


def test_the_span_of_a_task_that_overran_ends_when_its_future_does() -> None:
    tracer, clock, gate = RecordingTracer(), VirtualClock(), Gate()
    with Pool(1, context=Context(clock=clock), tracer=tracer) as pool:
        future = pool.options(timeout=1).submit(gate)
        gate.await_entered()
        assert tracer.unfinished()
        clock.advance(1)
        error = future.exception(PATIENCE)
        (span,) = tracer.spans()
        assert (span.finishes, span.error) == (1, error)
        gate.open()
    assert span.finishes == 1


def test_the_span_of_an_abandoned_task_ends() -> None:
    tracer, gate = RecordingTracer(), Gate()
    pool = Pool(1, tracer=tracer)
    future = pool.submit(gate)
    gate.await_entered()
    pool.close(0.0)
    (span,) = tracer.spans()
    assert isinstance(span.error, TaskAbandoned)
    assert future.exception(PATIENCE) is span.error
    gate.open()
    await_threads(pool)
    assert span.finishes == 1


def test_a_task_that_ends_while_its_span_begins_has_it_finished_once() -> None:
    metrics, clock = RecordingMetrics(), VirtualClock()

    class Slow(RecordingTracer):
        def start(self, name: str, **attributes: Any) -> Any:
            span = super().start(name, **attributes)
            clock.advance(1)
            return span

    tracer = Slow()
    context = Context(clock=clock)
    with Pool(1, name="p", context=context, tracer=tracer, metrics=metrics) as pool:
        with busy(pool):  # or it could be over before its time limit is known to anybody
            task = pool.options(timeout=1, name="late").submit(pow, 2, 2)
        error = task.exception(PATIENCE)
    (span,) = tracer.spans(task="late")
    assert (span.finishes, span.error) == (1, error)
    assert metrics.count(COMPLETED, status="cancelled") == 1
    assert metrics.count(COMPLETED) == 2  # with the one that kept the worker busy


def test_a_task_that_overruns_when_it_has_been_told_of_is_not_told_of_again() -> None:
    clock = VirtualClock()

    class Slow(RecordingMetrics):
        def histogram(self, name: str, value: float, **labels: str) -> None:
            super().histogram(name, value, **labels)
            if name.endswith("run_seconds") and len(self.observed(name)) == 2:
                clock.advance(100)

    metrics = Slow()
    with Pool(1, context=Context(clock=clock), metrics=metrics) as pool:
        with busy(pool):  # or it could be over before its time limit is known to anybody
            task = pool.options(timeout=100, name="late").submit(pow, 2, 2)
        assert task.exception(PATIENCE) is not None
    assert metrics.count(COMPLETED) == 2


def test_each_task_has_a_span_in_the_submitters_context_variables() -> None:
    request: contextvars.ContextVar[str] = contextvars.ContextVar("request")
    seen: list[str] = []

    class Tracer(RecordingTracer):
        def start(self, name: str, **attributes: Any) -> Any:
            seen.append(request.get())
            return super().start(name, **attributes)

    tracer = Tracer()
    with Pool(1, name="p", tracer=tracer) as pool:
        request.set("r1")
        pool.options(name="good").submit(pow, 2, 2).result(PATIENCE)
        request.set("r2")
        pool.options(name="bad").submit(divmod, 1, 0).exception(PATIENCE)
    assert seen == ["r1", "r2"]
    good, bad = tracer.spans()
    assert (good.name, good.attributes["task"], good.attributes["pool"]) == (
        "ion_workerpool_task", "good", "p",
    )  # fmt: skip
    assert good.finishes == bad.finishes == 1
    assert good.error is None
    assert isinstance(bad.error, ZeroDivisionError)


class Broken:
    """Every hook in one, and all of them fail."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(name)

        def fails(*args: object, **kwargs: object) -> None:
            raise SystemExit(f"{name} is broken")

        return fails

    inc = add = gauge = histogram = start = log = property(lambda self: self.__getattr__("hook"))


def test_hooks_that_raise_are_logged_and_harm_nothing(caplog: pytest.LogCaptureFixture) -> None:
    broken: Any = Broken()
    with Pool(1, metrics=broken, tracer=broken, logger=broken) as pool:
        assert pool.submit(pow, 2, 2).result(PATIENCE) == 4
        assert isinstance(pool.submit(exit_with, 1).exception(PATIENCE), TaskPanicked)
        assert pool.submit(pow, 2, 3).result(PATIENCE) == 8
    assert "a hook failed in inc('ion_workerpool_tasks_submitted_total',)" in caplog.text
    assert "the logger of {'pool': " in caplog.text


def test_the_logger_gets_the_facts_in_extra(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("users.own")
    with Pool(1, name="p", logger=logger) as pool:
        pool.submit(exit_with, 1).exception(PATIENCE)
    (record,) = [one for one in caplog.records if one.name == "users.own" and one.levelno >= 30]
    assert (record.pool, record.worker, record.restarts) == ("p", "p-0", 1)  # type: ignore[attr-defined]
    assert record.exc_info is not None


def test_the_wrapper_wraps_each_task_in_its_worker_and_its_context() -> None:
    seen: list[tuple[str, bool]] = []

    def wrapper(task: Callable[[], Any]) -> Callable[[], Any]:
        @functools.wraps(task)
        def wrapped() -> Any:
            seen.append(("before", current_context().cancelled))
            try:
                return task() * 10
            finally:
                seen.append(("after", current_context().cancelled))

        return wrapped

    with Pool(1, task_wrapper=wrapper) as pool:
        assert pool.submit(pow, 2, exp=2).result(PATIENCE) == 40
    assert seen == [("before", False), ("after", False)]


def test_a_wrapper_that_fails_fails_its_task_only() -> None:
    def wrapper(task: Callable[[], Any]) -> Callable[[], Any]:
        raise LookupError("no wrapping paper")

    with Pool(1, task_wrapper=wrapper) as pool:
        for _ in range(3):
            with pytest.raises(LookupError):
                pool.submit(pow, 2, 2).result(PATIENCE)
    assert pool.metrics().failed == 3


def test_the_report_has_the_task_and_not_its_wrapping() -> None:
    gate = Gate()
    pool = Pool(1, task_wrapper=lambda task: task, metrics=RecordingMetrics())
    pool.submit(gate)
    gate.await_entered()
    closing = run_in_thread(pool.close, 0.0)
    (stuck,) = closing.result(PATIENCE).running  # type: ignore[attr-defined]
    assert stuck.fn is gate
    gate.open()
    await_threads(pool)
