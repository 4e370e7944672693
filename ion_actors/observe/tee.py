"""Several hooks as one."""

from __future__ import annotations

from typing import Any

from ion_actors.observe.probe import Probe
from ion_actors.observe.protocols import Metrics, Span, Tracer

__all__ = ["TeeMetrics", "TeeTracer"]


class TeeMetrics:
    """Passes measurements to several metrics, in order. One that fails is logged; others go on.

    Raises:
        TypeError: one of them lacks a method.
    """

    def __init__(self, *metrics: Metrics) -> None:
        self._probes = [probe for one in metrics if (probe := Probe.checked(one, None))]

    def inc(self, name: str, **labels: str) -> None:
        """See :meth:`ion_actors.observe.Metrics.inc`."""
        for probe in self._probes:
            probe.inc(name, **labels)

    def add(self, name: str, value: float, **labels: str) -> None:
        """See :meth:`ion_actors.observe.Metrics.add`."""
        for probe in self._probes:
            probe.add(name, value, **labels)

    def gauge(self, name: str, value: float, **labels: str) -> None:
        """See :meth:`ion_actors.observe.Metrics.gauge`."""
        for probe in self._probes:
            probe.gauge(name, value, **labels)

    def histogram(self, name: str, value: float, **labels: str) -> None:
        """See :meth:`ion_actors.observe.Metrics.histogram`."""
        for probe in self._probes:
            probe.histogram(name, value, **labels)


class TeeTracer:
    """Starts spans of several tracers, in order. One that fails is logged; the others go on.

    Raises:
        TypeError: one of them lacks a method.
    """

    def __init__(self, *tracers: Tracer) -> None:
        self._probes = [probe for one in tracers if (probe := Probe.checked(None, one))]

    def start(self, name: str, **attributes: Any) -> _Spans:
        """See :meth:`ion_actors.observe.Tracer.start`."""
        return _Spans([(probe, probe.start(name, **attributes)) for probe in self._probes])


class _Spans:
    """The spans of one thing, one by each tracer."""

    def __init__(self, spans: list[tuple[Probe, Span | None]]) -> None:
        self._spans = spans

    def finish(self, error: BaseException | None = None) -> None:
        """See :meth:`ion_actors.observe.Span.finish`."""
        # In reverse order: the last one began inside the others.
        for probe, span in reversed(self._spans):
            probe.finish(span, error)
