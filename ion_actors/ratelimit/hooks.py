"""The metrics and spans of a limiter, and their names."""

from __future__ import annotations

from ion_actors.observe import Probe, Span

__all__ = ["LimiterHooks"]


class LimiterHooks:
    """The hooks of one limiter.

    Metrics (label ``limiter``): ``ion_ratelimit_requests_total`` (and label ``result``: allowed,
    denied, cancelled), ``ion_ratelimit_wait_duration_seconds`` (a histogram of the waits that were
    served, without calls that did not wait), and a gauge of what is left, as
    ``ion_ratelimit_tokens_available`` or ``ion_ratelimit_bucket_level``.
    Spans: ``ion_ratelimit_wait`` with ``limiter`` and ``tokens``, for each wait in line.
    """

    def __init__(self, probe: Probe, gauge: str) -> None:
        self._probe = probe
        self._gauge = gauge

    def answered(self, result: str, level: float) -> None:
        """A request was allowed, denied or cancelled; ``level`` is the new value of the gauge."""
        self._probe.inc("ion_ratelimit_requests_total", result=result)
        self._probe.gauge(self._gauge, level)

    def waited(self, took: float) -> None:
        """A wait in line was served after so many seconds."""
        self._probe.histogram("ion_ratelimit_wait_duration_seconds", took)

    def span(self, n: int) -> Span | None:
        """A span for a wait in line, if there is a tracer and it works."""
        return self._probe.start("ion_ratelimit_wait", tokens=n)

    def finish(self, span: Span | None, error: BaseException | None) -> None:
        """The wait is over."""
        self._probe.finish(span, error)
