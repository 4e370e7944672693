"""Metrics that record their calls."""

from __future__ import annotations

import threading

__all__ = ["RecordingMetrics"]

_Labels = dict[str, str]


class RecordingMetrics:
    """An :class:`ion_actors.observe.Metrics` that keeps everything; any thread may use it.

    The queries take labels, and count the series that have at least these.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards the lists
        self._counters: list[tuple[str, float, _Labels]] = []
        self._gauges: list[tuple[str, float, _Labels]] = []
        self._histograms: list[tuple[str, float, _Labels]] = []

    def inc(self, name: str, **labels: str) -> None:
        """See :meth:`ion_actors.observe.Metrics.inc`."""
        self.add(name, 1, **labels)

    def add(self, name: str, value: float, **labels: str) -> None:
        """See :meth:`ion_actors.observe.Metrics.add`."""
        with self._lock:
            self._counters.append((name, value, labels))

    def gauge(self, name: str, value: float, **labels: str) -> None:
        """See :meth:`ion_actors.observe.Metrics.gauge`."""
        with self._lock:
            self._gauges.append((name, value, labels))

    def histogram(self, name: str, value: float, **labels: str) -> None:
        """See :meth:`ion_actors.observe.Metrics.histogram`."""
        with self._lock:
            self._histograms.append((name, value, labels))

    def count(self, name: str, **labels: str) -> float:
        """The value of a counter: the sum over all series with these labels."""
        return sum(self._found(self._counters, name, labels))

    def last(self, name: str, **labels: str) -> float | None:
        """The last value of a gauge, or None."""
        found = self._found(self._gauges, name, labels)
        return found[-1] if found else None

    def observed(self, name: str, **labels: str) -> list[float]:
        """The values of a histogram, in order."""
        return self._found(self._histograms, name, labels)

    def names(self) -> set[str]:
        """The names of all metrics so far."""
        with self._lock:
            return {name for name, _, _ in self._counters + self._gauges + self._histograms}

    def _found(
        self, entries: list[tuple[str, float, _Labels]], name: str, labels: _Labels
    ) -> list[float]:
        with self._lock:
            return [
                value
                for one, value, given in entries
                if one == name and labels.items() <= given.items()
            ]
