"""The metrics and spans of a semaphore, and their names."""

from __future__ import annotations

from ion_actors.observe import Probe, Span
from ion_actors.semaphore.permits import Permits

__all__ = ["SemaphoreHooks"]


class SemaphoreHooks:
    """The hooks of one semaphore.

    Metrics (label ``semaphore``): ``ion_semaphore_acquisitions_total`` (and label ``status``:
    success, denied, timeout, cancelled), ``ion_semaphore_current_permits`` (the free
    ones), ``ion_semaphore_waiting``, and ``ion_semaphore_acquire_duration_seconds`` (histogram of
    the granted ones, 0 for those that did not wait). Spans, for those that wait:
    ``ion_semaphore_acquire`` with ``semaphore`` and ``permits``.
    """

    def __init__(self, probe: Probe, permits: Permits) -> None:
        self._probe = probe
        self._permits = permits

    def acquired(self, waited: float) -> None:
        """Permits were granted after so many seconds."""
        self._probe.inc("ion_semaphore_acquisitions_total", status="success")
        self._probe.histogram("ion_semaphore_acquire_duration_seconds", waited)
        self.changed()

    def failed(self, status: str) -> None:
        """Permits were not granted."""
        self._probe.inc("ion_semaphore_acquisitions_total", status=status)

    def changed(self) -> None:
        """The number of free permits has changed."""
        self._probe.gauge("ion_semaphore_current_permits", self._permits.available)

    def waiting(self, more: int = 0) -> None:
        """The number of waiters has changed: those in the line, and so many about to join."""
        self._probe.gauge("ion_semaphore_waiting", self._permits.waiting + more)

    def span(self, permits: int) -> Span | None:
        """A span for a wait, if there is a tracer and it works."""
        return self._probe.start("ion_semaphore_acquire", permits=permits)

    def finish(self, span: Span | None, error: BaseException | None) -> None:
        """The wait is over."""
        self._probe.finish(span, error)
