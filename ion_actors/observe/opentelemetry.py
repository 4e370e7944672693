"""OpenTelemetry: measurements to a meter, spans to a tracer. Needs the extra ``otel``.

It needs the API only. The program decides what happens to the data, by the SDK of its choice;
without one, nothing happens.
"""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from opentelemetry import context as otel_context
from opentelemetry import metrics, trace
from opentelemetry.trace import Link, Status, StatusCode

from ion_actors.forking import renew_after_fork
from ion_actors.naming import printable, words
from ion_actors.observe.conventions import SECONDS, error_type, is_in_seconds, was_wanted

__all__ = ["OtelMetrics", "OtelTracer"]

_SCOPE = "ion_actors"

Instrument = TypeVar("Instrument")


class OtelMetrics:
    """A :class:`~ion_actors.observe.Metrics` whose measurements go to an OpenTelemetry meter.

    Instruments have the library's names. Those that measure time have the unit ``s``, and
    histograms advise buckets from 0.1 ms to 10 s: the SDK's defaults are meant for milliseconds.

    Args:
        meter: makes the instruments; by default the global provider's meter ``ion_actors``.
    """

    def __init__(self, meter: metrics.Meter | None = None) -> None:
        self._meter = metrics.get_meter(_SCOPE) if meter is None else meter
        self._counters: dict[str, metrics.Counter] = {}
        # The API's name of the type that create_gauge() returns is private.
        self._gauges: dict[str, Any] = {}
        self._histograms: dict[str, metrics.Histogram] = {}
        self.after_fork()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """In a forked child: a thread of the parent may hold the lock."""
        self._lock = threading.Lock()  # held while an instrument is made, once

    def inc(self, name: str, **labels: str) -> None:
        """See :meth:`ion_actors.observe.Metrics.inc`."""
        self.add(name, 1, **labels)

    def add(self, name: str, value: float, **labels: str) -> None:
        """See :meth:`ion_actors.observe.Metrics.add`."""
        counter = self._counters.get(name)
        if counter is None:
            counter = self._make(self._counters, name, self._meter.create_counter)
        counter.add(value, labels)

    def gauge(self, name: str, value: float, **labels: str) -> None:
        """See :meth:`ion_actors.observe.Metrics.gauge`."""
        gauge = self._gauges.get(name)
        if gauge is None:
            gauge = self._make(self._gauges, name, self._meter.create_gauge)
        gauge.set(value, labels)

    def histogram(self, name: str, value: float, **labels: str) -> None:
        """See :meth:`ion_actors.observe.Metrics.histogram`."""
        histogram = self._histograms.get(name)
        if histogram is None:
            histogram = self._make(self._histograms, name, self._new_histogram)
        histogram.record(value, labels)

    def _new_histogram(self, name: str, unit: str) -> metrics.Histogram:
        advice = SECONDS if unit == "s" else None
        return self._meter.create_histogram(name, unit, explicit_bucket_boundaries_advisory=advice)

    def _make(
        self, known: dict[str, Instrument], name: str, create: Callable[[str, str], Instrument]
    ) -> Instrument:
        with self._lock:
            if name not in known:
                known[name] = create(name, "s" if is_in_seconds(name) else "")
            return known[name]


class OtelTracer:
    """A :class:`~ion_actors.observe.Tracer` whose spans go to an OpenTelemetry tracer.

    A task runs in a copy of its submitter's context variables, and so below the submitter's span:
    the task's span is a child of it and, as the conventions for messaging ask for, also linked to
    it. The task's span is the current one inside the task, so that what the task traces belongs
    to it. Attributes get the prefix ``ion_actors.``; the time in the queue is
    ``ion_actors.queue_seconds``.

    A span that ends with an error has the status ERROR, the attribute ``error.type`` and the
    exception as an event. Being cancelled is no error: the exception is an event, and the status
    stays unset. A task that is abandoned because it did not stop has an error.

    Args:
        tracer: makes the spans; by default the global provider's tracer ``ion_actors``.
        parent: whether a task's span is a child of its submitter's. If not, it begins a trace of
            its own and has only the link, for tasks that go on long after the submitter's span.
        span_name: makes the name of a span from the library's name for it and its attributes; by
            default the former. Backends group spans by name, so there should not be many.
    """

    def __init__(
        self,
        tracer: trace.Tracer | None = None,
        *,
        parent: bool = True,
        span_name: Callable[[str, Mapping[str, Any]], str] | None = None,
    ) -> None:
        self._tracer = trace.get_tracer(_SCOPE) if tracer is None else tracer
        self._parent = parent
        self._span_name = span_name

    def start(self, name: str, **attributes: Any) -> OtelSpan:
        """See :meth:`ion_actors.observe.Tracer.start`."""
        before = otel_context.get_current()
        shown = name if self._span_name is None else self._span_name(name, attributes)
        # Only tasks that waited in a queue were submitted by other code than runs them.
        links = _links(before) if "queue_seconds" in attributes else ()
        span = self._tracer.start_span(
            shown,
            before if self._parent or not links else otel_context.Context(),
            attributes={f"ion_actors.{key}": _sendable(one) for key, one in attributes.items()},
            links=links,
        )
        otel_context.attach(trace.set_span_in_context(span, before))
        return OtelSpan(span, before)


class OtelSpan:
    """A span of :class:`OtelTracer`; the current one until it is finished."""

    def __init__(self, span: trace.Span, before: otel_context.Context) -> None:
        self._span = span
        self._before = before

    def finish(self, error: BaseException | None = None) -> None:
        """See :meth:`ion_actors.observe.Span.finish`. Any thread may call it."""
        try:
            if error is not None and self._span.is_recording():
                _record(self._span, error)
        finally:
            self._span.end()
            # Set back, and not detached by token: that would be an error in another context, for
            # example when the supervisor's thread abandons a task.
            if trace.get_current_span() is self._span:
                otel_context.attach(self._before)


def _links(context: otel_context.Context) -> tuple[Link, ...]:
    submitter = trace.get_current_span(context).get_span_context()
    return (Link(submitter),) if submitter.is_valid else ()


def _record(span: trace.Span, error: BaseException) -> None:
    span.record_exception(error, _sendable_facts(error))
    if not was_wanted(error):
        span.set_attribute("error.type", error_type(error))
        span.set_status(Status(StatusCode.ERROR, f"{type(error).__name__}: {words(error)}"))


def _sendable(value: Any) -> Any:
    """Escape what UTF-8 cannot encode: it would fail the export of a whole batch of spans."""
    return printable(value) if isinstance(value, str) else value


def _sendable_facts(error: BaseException) -> dict[str, str] | None:
    """The exception's text, escaped if UTF-8 cannot encode it."""
    text = "".join(traceback.format_exception(error))
    try:
        text.encode()
    except UnicodeEncodeError:
        return {
            "exception.message": words(error),
            "exception.stacktrace": text.encode("utf-8", "backslashreplace").decode(),
        }
    return None
