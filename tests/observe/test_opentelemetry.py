"""The OpenTelemetry adapters, seen through the SDK's exporters that keep everything in memory."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from opentelemetry import baggage, context, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from ion_actors import Context, DeadlineExceeded, Pool, TaskAbandoned, current_context
from ion_actors.observe.opentelemetry import OtelMetrics, OtelTracer
from ion_actors.testing import VirtualClock
from tests.workerpool.helpers import await_threads

PATIENCE = 30.0  # seconds


class Spans:
    """A tracer of the SDK, and what it has exported."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self._provider = TracerProvider(resource=Resource.get_empty(), shutdown_on_exit=False)
        self._provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer = self._provider.get_tracer("test")

    def all(self) -> list[ReadableSpan]:
        return list(self._exporter.get_finished_spans())

    def tasks(self) -> list[ReadableSpan]:
        return self.named("ion_workerpool_task")

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.all() if span.name == name]

    def task(self) -> ReadableSpan:
        (span,) = self.tasks()
        return span


@pytest.fixture
def spans() -> Spans:
    return Spans()


def attribute(span: ReadableSpan, name: str) -> Any:
    return (span.attributes or {}).get(name)


def context_of(span: ReadableSpan) -> trace.SpanContext:
    found = span.get_span_context()
    assert found is not None
    return found


def id_of(span: ReadableSpan) -> int:
    return context_of(span).span_id


# -- traces --------------------------------------------------------------------------------


def test_a_task_is_a_child_of_its_submitters_span_and_linked_to_it(spans: Spans) -> None:
    with Pool(2, name="p", tracer=OtelTracer(spans.tracer)) as pool:
        with spans.tracer.start_as_current_span("request") as request:
            future = pool.options(name="double").submit(pow, 2, 2)
        future.result(PATIENCE)
    span, mine = spans.task(), request.get_span_context()
    assert span.parent is not None
    assert span.parent.span_id == mine.span_id
    assert [link.context.span_id for link in span.links] == [mine.span_id]
    assert context_of(span).trace_id == mine.trace_id
    assert attribute(span, "ion_actors.pool") == "p"
    assert attribute(span, "ion_actors.task") == "double"
    assert attribute(span, "ion_actors.worker") in {"p-0", "p-1"}
    assert span.status.status_code is StatusCode.UNSET


def test_each_of_many_submitters_has_its_own_tasks(
    spans: Spans, threads: ThreadPoolExecutor
) -> None:
    together = threading.Barrier(8)

    def request(pool: Pool) -> int:
        with spans.tracer.start_as_current_span("request") as span:
            together.wait(PATIENCE)
            for future in [pool.submit(pow, 2, 2) for _ in range(50)]:
                future.result(PATIENCE)
            return span.get_span_context().span_id

    with Pool(4, queue_size=20, tracer=OtelTracer(spans.tracer)) as pool:
        requests = [threads.submit(request, pool) for _ in range(8)]
        expected = {one.result(PATIENCE): 50 for one in requests}
    assert Counter(span.parent.span_id for span in spans.tasks() if span.parent) == expected


def test_without_a_submitters_span_a_task_begins_a_trace(spans: Spans) -> None:
    with Pool(1, tracer=OtelTracer(spans.tracer)) as pool:
        pool.submit(pow, 2, 2).result(PATIENCE)
    assert (spans.task().parent, list(spans.task().links)) == (None, [])


def test_a_task_may_be_linked_only(spans: Spans) -> None:
    tracer = OtelTracer(spans.tracer, parent=False)
    with Pool(1, tracer=tracer) as pool, spans.tracer.start_as_current_span("request") as request:
        context.attach(baggage.set_baggage("user", "ann"))
        seen = pool.submit(baggage.get_baggage, "user").result(PATIENCE)
    span = spans.task()
    assert span.parent is None
    assert [link.context.span_id for link in span.links] == [request.get_span_context().span_id]
    assert context_of(span).trace_id != request.get_span_context().trace_id
    assert seen == "ann", "what else the submitter has in its context is still the task's"


def test_the_time_in_the_queue_is_an_attribute(spans: Spans) -> None:
    clock, entered, gate = VirtualClock(), threading.Event(), threading.Event()

    def first() -> None:
        entered.set()
        assert gate.wait(PATIENCE)

    with Pool(1, context=Context(clock=clock), tracer=OtelTracer(spans.tracer)) as pool:
        pool.options(name="first").submit(first)
        assert entered.wait(PATIENCE)
        second = pool.options(name="second").submit(pow, 2, 2)
        clock.advance(3)
        gate.set()
        second.result(PATIENCE)
    waited = {attribute(span, "ion_actors.task"): span for span in spans.tasks()}
    assert attribute(waited["second"], "ion_actors.queue_seconds") == 3.0


def test_what_a_task_traces_belongs_to_the_tasks_span(spans: Spans) -> None:
    def work() -> None:
        with spans.tracer.start_as_current_span("inner"):
            pass

    async def awaitable() -> None:
        await asyncio.to_thread(work)

    with Pool(1, tracer=OtelTracer(spans.tracer)) as pool:
        pool.submit(work).result(PATIENCE)
        pool.submit(awaitable).result(PATIENCE)
    parents = {span.parent.span_id for span in spans.named("inner") if span.parent}
    assert parents == {id_of(span) for span in spans.tasks()}
    assert len(parents) == 2


def test_a_task_of_a_task_is_its_child(spans: Spans) -> None:
    with Pool(1, tracer=OtelTracer(spans.tracer)) as pool:
        inner = pool.options(name="outer").submit(
            lambda: pool.options(name="inner").submit(pow, 2, 2)
        )
        inner.result(PATIENCE).result(PATIENCE)
    by_task = {attribute(span, "ion_actors.task"): span for span in spans.tasks()}
    parent = by_task["inner"].parent
    assert parent is not None
    assert parent.span_id == id_of(by_task["outer"])


def test_nothing_of_a_task_is_left_in_its_worker(spans: Spans) -> None:
    seen: list[trace.Span] = []

    def callback(_future: object) -> None:
        seen.append(trace.get_current_span())

    with Pool(1, tracer=OtelTracer(spans.tracer)) as pool:
        release = threading.Event()
        with spans.tracer.start_as_current_span("request"):
            blocked = pool.submit(release.wait, PATIENCE)
            blocked.add_done_callback(callback)
        release.set()
        blocked.result(PATIENCE)
        pool.submit(callback, None).result(PATIENCE)
    first, second = spans.tasks()
    assert seen[0] is trace.INVALID_SPAN, "a callback is not the task"
    assert id_of(second) == seen[1].get_span_context().span_id
    assert (second.parent, len(second.links)) == (None, 0)
    assert first.parent is not None


def exit_with(code: int) -> None:
    raise SystemExit(code)


class OwnError(Exception):
    pass


def raise_own() -> None:
    raise OwnError("broken")


@pytest.mark.parametrize(
    ("task", "kind", "described"),
    [
        (raise_own, f"{__name__}.OwnError", "OwnError: broken"),
        (lambda: 1 // 0, "ZeroDivisionError", "ZeroDivisionError: "),
        (lambda: exit_with(3), "SystemExit", "SystemExit: 3"),
    ],
    ids=["error", "builtin", "panic"],
)
def test_an_exception_is_recorded_by_the_semantic_conventions(
    spans: Spans, task: Callable[[], object], kind: str, described: str
) -> None:
    with Pool(1, tracer=OtelTracer(spans.tracer)) as pool:
        assert pool.submit(task).exception(PATIENCE) is not None
    span = spans.task()
    assert span.status.status_code is StatusCode.ERROR
    assert (span.status.description or "").startswith(described)
    assert attribute(span, "error.type") == kind
    (event,) = span.events
    facts = event.attributes or {}
    assert (event.name, facts["exception.type"]) == ("exception", kind)
    assert kind.rpartition(".")[2] in str(facts["exception.stacktrace"])


async def sleep_for_ever() -> None:
    entered.release()
    await asyncio.sleep(3600)


def wait_for_ever() -> None:
    entered.release()
    current_context().sleep(3600)


entered = threading.Semaphore(0)


@pytest.mark.parametrize("task", [wait_for_ever, sleep_for_ever])
def test_being_cancelled_is_recorded_and_is_no_error(
    spans: Spans, task: Callable[[], object]
) -> None:
    with Pool(1, tracer=OtelTracer(spans.tracer)) as pool:
        future = pool.submit(task)
        assert entered.acquire(timeout=PATIENCE)
        future.cancel()
        assert future.exception(PATIENCE) is not None
    span = spans.task()
    assert span.status.status_code is StatusCode.UNSET
    assert attribute(span, "error.type") is None
    assert [event.name for event in span.events] == ["exception"]


def test_a_task_cancelled_in_the_queue_has_no_span(spans: Spans) -> None:
    gate, running = threading.Event(), threading.Event()

    def hold() -> None:
        running.set()
        gate.wait(PATIENCE)

    with Pool(1, tracer=OtelTracer(spans.tracer)) as pool:
        pool.submit(hold)
        assert running.wait(PATIENCE)
        assert pool.submit(pow, 2, 2).cancel()
        gate.set()
    assert attribute(spans.task(), "ion_actors.task").endswith("hold")


def test_a_task_that_overran_is_an_error_and_its_late_work_still_belongs_to_it(
    spans: Spans,
) -> None:
    clock, running, gate = VirtualClock(), threading.Event(), threading.Event()

    def overrun() -> None:
        running.set()
        assert gate.wait(PATIENCE)
        spans.tracer.start_span("late").end()

    with Pool(1, context=Context(clock=clock), tracer=OtelTracer(spans.tracer)) as pool:
        future = pool.options(timeout=1).submit(overrun)
        assert running.wait(PATIENCE)
        clock.advance(1)
        assert isinstance(future.exception(PATIENCE), DeadlineExceeded)
        assert attribute(spans.task(), "error.type") == "ion_actors.errors.DeadlineExceeded"
        gate.set()
        pool.submit(pow, 2, 2).result(PATIENCE)
    first, second = spans.tasks()
    (late,) = spans.named("late")
    assert late.parent is not None
    assert late.parent.span_id == id_of(first)
    assert second.parent is None


def test_an_abandoned_task_is_an_error(spans: Spans, caplog: pytest.LogCaptureFixture) -> None:
    running, gate = threading.Event(), threading.Event()

    def stuck() -> None:
        running.set()
        gate.wait(PATIENCE)

    pool = Pool(1, tracer=OtelTracer(spans.tracer))
    pool.submit(stuck)
    assert running.wait(PATIENCE)
    pool.close(0.0)
    span = spans.task()
    assert attribute(span, "error.type") == f"{TaskAbandoned.__module__}.TaskAbandoned"
    assert span.status.status_code is StatusCode.ERROR
    gate.set()
    await_threads(pool)
    assert len(spans.tasks()) == 1
    assert "Failed to detach" not in caplog.text


def test_under_load_every_task_has_its_span_and_none_is_detached_wrongly(
    spans: Spans, caplog: pytest.LogCaptureFixture
) -> None:
    def work(number: int) -> None:
        with spans.tracer.start_as_current_span(f"inner-{number}"):
            if number % 7 == 0:
                raise OwnError(number)
            if number % 31 == 0:
                raise SystemExit(number)
            if number % 11 == 0:
                current_context().cancel("enough")
                current_context().check()

    with Pool(4, tracer=OtelTracer(spans.tracer)) as pool:
        futures = [pool.options(name=str(one)).submit(work, one) for one in range(400)]
        for future in futures:
            future.exception(PATIENCE)
    tasks = {id_of(span): attribute(span, "ion_actors.task") for span in spans.tasks()}
    assert len(tasks) == 400
    for number in range(400):
        (inner,) = spans.named(f"inner-{number}")
        assert inner.parent is not None
        assert tasks[inner.parent.span_id] == str(number)
    assert "Failed to detach" not in caplog.text


def test_a_span_in_the_callers_own_context_is_left_again(spans: Spans) -> None:
    tracer = OtelTracer(spans.tracer)
    with spans.tracer.start_as_current_span("request") as request:
        span = tracer.start("ion_semaphore_acquire", semaphore="s")
        assert trace.get_current_span() is not request
        span.finish()
        assert trace.get_current_span() is request
    (acquire,) = spans.named("ion_semaphore_acquire")
    assert acquire.parent is not None
    assert not acquire.links, "nobody handed it over"


def test_a_span_finished_by_another_thread_leaves_that_threads_alone(
    spans: Spans, threads: ThreadPoolExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    def finish_in_own_span(span: Any) -> bool:
        with spans.tracer.start_as_current_span("other") as other:
            span.finish(OwnError("late"))
            return trace.get_current_span() is other

    before = context.get_current()
    span = OtelTracer(spans.tracer).start("ion_workerpool_task")
    assert threads.submit(finish_in_own_span, span).result(PATIENCE)
    context.attach(before)
    assert attribute(spans.task(), "error.type")
    assert "Failed to detach" not in caplog.text


def test_an_error_that_cannot_be_shown_does_not_keep_its_span_open(
    spans: Spans, caplog: pytest.LogCaptureFixture
) -> None:
    class Unshowable(Exception):
        def __str__(self) -> str:
            raise ValueError("no words")

    def work() -> None:
        raise Unshowable

    with Pool(1, tracer=OtelTracer(spans.tracer)) as pool:
        assert pool.submit(work).exception(PATIENCE) is not None
    assert spans.task().end_time is not None
    assert "a hook failed in finish" in caplog.text


def test_spans_may_be_named_by_the_task(spans: Spans) -> None:
    tracer = OtelTracer(spans.tracer, span_name=lambda name, facts: f"task {facts['task']}")
    with Pool(1, tracer=tracer) as pool:
        pool.options(name="double").submit(pow, 2, 2).result(PATIENCE)
    assert [span.name for span in spans.all()] == ["task double"]


def test_without_an_sdk_nothing_happens() -> None:
    with Pool(1, tracer=OtelTracer(), metrics=OtelMetrics()) as pool:
        assert pool.submit(pow, 2, 2).result(PATIENCE) == 4
        assert pool.submit(divmod, 1, 0).exception(PATIENCE) is not None


# -- metrics -------------------------------------------------------------------------------


class Measurements:
    """A meter of the SDK, and what it has read."""

    def __init__(self) -> None:
        self._reader = InMemoryMetricReader()
        self.provider = MeterProvider([self._reader], shutdown_on_exit=False)
        self.meter = self.provider.get_meter("test")

    def read(self) -> dict[str, Any]:
        data: Any = self._reader.get_metrics_data()
        return {
            metric.name: metric
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def points(self, name: str) -> dict[tuple[str, ...], Any]:
        found = self.read()[name].data.data_points
        return {tuple(v for _, v in sorted(point.attributes.items())): point for point in found}


@pytest.fixture
def measurements() -> Iterator[Measurements]:
    made = Measurements()
    yield made
    made.provider.shutdown()


def test_the_metrics_of_a_pool_with_labels_and_units(measurements: Measurements) -> None:
    with Pool(1, name="p", metrics=OtelMetrics(measurements.meter)) as pool:
        for _ in range(3):
            pool.submit(pow, 2, 2).result(PATIENCE)
        pool.submit(divmod, 1, 0).exception(PATIENCE)
        pool.submit(exit_with, 1).exception(PATIENCE)
    ended = measurements.points("ion_workerpool_tasks_completed_total")
    assert {status: point.value for (_, status), point in ended.items()} == {
        "success": 3, "error": 1, "panic": 1,
    }  # fmt: skip
    read = measurements.read()
    assert read["ion_workerpool_task_run_seconds"].unit == "s"
    assert read["ion_workerpool_queue_size"].unit == ""
    assert measurements.points("ion_workerpool_queue_size")["p",].value == 0
    run: HistogramDataPoint = measurements.points("ion_workerpool_task_run_seconds")["p",]
    assert run.count == 5
    assert (run.explicit_bounds[0], run.explicit_bounds[-1]) == (0.0001, 10.0)


def test_all_kinds_and_the_breakers_names(measurements: Measurements) -> None:
    metrics = OtelMetrics(measurements.meter)
    metrics.inc("circuit.requests_total", circuit="c")
    metrics.add("circuit.requests_total", 2, circuit="c")
    metrics.gauge("ion_ratelimit_tokens_available", 5, limiter="l")
    metrics.gauge("ion_ratelimit_tokens_available", 4.5, limiter="l")
    metrics.histogram("circuit.request_duration", 0.25, circuit="c")
    metrics.histogram("sizes", 25)
    assert measurements.points("circuit.requests_total")["c",].value == 3
    assert measurements.points("ion_ratelimit_tokens_available")["l",].value == 4.5
    assert measurements.points("circuit.request_duration")["c",].sum == 0.25
    assert measurements.read()["circuit.request_duration"].unit == "s"
    assert measurements.read()["sizes"].unit == ""


def test_an_instrument_is_made_once_even_by_many_threads(
    measurements: Measurements, threads: ThreadPoolExecutor, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    metrics, together = OtelMetrics(measurements.meter), threading.Barrier(8)
    create, made = measurements.meter.create_counter, list[str]()

    def create_slowly(name: str, unit: str) -> Any:
        made.append(name)
        time.sleep(0.01)  # the others come meanwhile
        return create(name, unit)

    monkeypatch.setattr(measurements.meter, "create_counter", create_slowly)

    def measure() -> None:
        together.wait(PATIENCE)
        for _ in range(200):
            metrics.inc("counted")
            metrics.histogram("waited_seconds", 0.1)

    for done in [threads.submit(measure) for _ in range(8)]:
        done.result(PATIENCE)
    assert made == ["counted"]
    assert measurements.points("counted")[()].value == 1600
    assert measurements.points("waited_seconds")[()].count == 1600
    assert not caplog.records


def test_no_name_and_no_message_makes_an_export_fail(spans: Spans) -> None:
    def fail() -> None:
        raise ValueError("b\ud800\nc")

    with Pool(1, name="p\udfff", tracer=OtelTracer(spans.tracer)) as pool:
        error = pool.options(name="a\ud800\n").submit(fail).exception(PATIENCE)
    assert str(error) == "b\ud800\nc"
    span = spans.task()
    assert attribute(span, "ion_actors.task") == r"a\ud800\n"
    assert attribute(span, "ion_actors.pool") == r"p\udfff"
    [event] = span.events
    told = [*(span.attributes or {}).values(), *(event.attributes or {}).values()]
    told.append(span.status.description or "")
    for text in told:
        str(text).encode()  # as an exporter does
    assert r"b\ud800\nc" in str(span.status.description)
