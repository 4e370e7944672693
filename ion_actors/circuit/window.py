"""Counts of the latest results, for the failure rate. No threads, no clock."""

from __future__ import annotations

from collections import deque
from typing import Protocol

from ion_actors.circuit.rules import FailureRate

__all__ = ["CallWindow", "TimeWindow", "Window", "window_of"]

_BUCKETS = 60  # a window of seconds counts in so many parts, so its size is fixed


class Window(Protocol):
    """Counts the latest results."""

    def add(self, now: float, failed: bool) -> None:
        """A call ended."""
        ...

    def counts(self, now: float) -> tuple[int, int]:
        """How many results there are, and how many of them are failures."""
        ...


def window_of(policy: FailureRate) -> Window:
    """An empty window for the policy."""
    if policy.seconds is not None:
        return TimeWindow(policy.seconds)
    assert policy.calls is not None, "a FailureRate has either"
    return CallWindow(policy.calls)


class CallWindow:
    """The results of the last so many calls."""

    __slots__ = ("_failures", "_results")

    def __init__(self, calls: int) -> None:
        self._results: deque[bool] = deque(maxlen=calls)
        self._failures = 0

    def add(self, now: float, failed: bool) -> None:
        """See :meth:`Window.add`."""
        results = self._results
        if len(results) == results.maxlen:
            self._failures -= results[0]
        results.append(failed)
        self._failures += failed

    def counts(self, now: float) -> tuple[int, int]:
        """See :meth:`Window.counts`."""
        return len(self._results), self._failures


class TimeWindow:
    """The results of the last so many seconds, in buckets of a sixtieth of that."""

    __slots__ = ("_failures", "_total", "_width", "buckets")

    def __init__(self, seconds: float) -> None:
        self._width = seconds / _BUCKETS
        self.buckets: deque[list[int]] = deque()  # number of the bucket, results, failures
        self._total = 0
        self._failures = 0

    def add(self, now: float, failed: bool) -> None:
        """See :meth:`Window.add`."""
        number = self._forget(now)
        if not self.buckets or self.buckets[-1][0] < number:
            self.buckets.append([number, 0, 0])
        bucket = self.buckets[-1]
        bucket[1] += 1
        bucket[2] += failed
        self._total += 1
        self._failures += failed

    def counts(self, now: float) -> tuple[int, int]:
        """See :meth:`Window.counts`."""
        self._forget(now)
        return self._total, self._failures

    def _forget(self, now: float) -> int:
        """Drop old buckets. Returns the number of the current bucket."""
        number = int(now // self._width)
        buckets = self.buckets
        while buckets and buckets[0][0] <= number - _BUCKETS:
            _, total, failures = buckets.popleft()
            self._total -= total
            self._failures -= failures
        return number
