"""The numbers of a multi-tier limiter."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["MultiTierMetrics", "Tally"]


@dataclass(frozen=True, slots=True)
class MultiTierMetrics:
    """One moment of a multi-tier limiter, with the numbers since it was made or reset.

    A call that was not let through at once is a hit of one tier: the first one that lacked tokens,
    of everything, the route, the resource. So is one behind others that wait.
    """

    total_requests: int  #: let through; a call for ``n`` tokens counts as ``n``
    global_limit_hits: int  #: calls that the limit for everything held up, or a pause of everything
    route_limit_hits: int  #: calls that the limit of their route held up
    resource_limit_hits: int  #: calls that the limit of their resource or sub-resource held up
    queued_requests: int  #: calls that wait now
    dropped_requests: int  #: calls whose wait ended without tokens: refused, cancelled, too late
    avg_wait_time: float  #: seconds, of the calls that were let through after a wait; 0 without any
    max_wait_time: float  #: seconds, the longest of these waits
    buckets_active: int  #: buckets of routes and resources


class Tally:
    """Counts for :class:`MultiTierMetrics`. Its limiter's scheduler guards it."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin anew."""
        self._granted = 0
        self._hits: dict[str, int] = {"everything": 0, "route": 0, "resource": 0}
        self._dropped = 0
        self._waits = 0
        self._waited = self._longest = 0.0

    def granted(self, n: int) -> None:
        """A call got its ``n`` tokens."""
        self._granted += n

    def hit(self, tier: str) -> None:
        """A call was held up by this tier."""
        self._hits[tier] += 1

    def dropped(self) -> None:
        """A wait ended without tokens."""
        self._dropped += 1

    def waited(self, took: float) -> None:
        """A wait was served after so many seconds."""
        self._waits += 1
        self._waited += took
        self._longest = max(self._longest, took)

    def metrics(self, *, waiting: int, buckets: int) -> MultiTierMetrics:
        """The numbers of now."""
        return MultiTierMetrics(
            total_requests=self._granted,
            global_limit_hits=self._hits["everything"],
            route_limit_hits=self._hits["route"],
            resource_limit_hits=self._hits["resource"],
            queued_requests=waiting,
            dropped_requests=self._dropped,
            avg_wait_time=self._waited / self._waits if self._waits else 0.0,
            max_wait_time=self._longest,
            buckets_active=buckets,
        )
