"""The last minutes of each pool: what the plots show. Pure, and bounded.

Nothing is measured for this. Of a pool, only its numbers at each moment are known; times follow
from them by Little's law: the mean time in a queue is the mean number of those in it, divided by
how many leave it in a second.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterable, Mapping
from itertools import pairwise
from math import isnan, nan
from typing import Any, NamedTuple

__all__ = ["SERIES", "History"]

#: What is kept of each pool, a number for each moment.
SERIES = ("queued", "running", "rate", "errors", "queue_time", "run_time")


# Seconds in which nothing can be told apart.
_INSTANT = 0.001


class _Numbers(NamedTuple):
    """A pool at one moment."""

    moment: float  # seconds
    queued: float  # that wait for a worker, not for their time
    running: float
    ran: float  # have been run to their end, so far
    bad: float  # of these: failed and panicked
    gone: float  # ended in any way


class _Pool:
    """One pool's series, and the numbers that the next point is made of."""

    def __init__(self, window: int) -> None:
        self.series = {name: array("f") for name in SERIES}
        self.lately: deque[_Numbers] = deque(maxlen=window + 1)

    def add(self, now: _Numbers, length: int) -> None:
        self.lately.append(now)
        for name, value in zip(SERIES, _point(self.lately), strict=True):
            values = self.series[name]
            values.append(value)
            del values[:-length]


class History:
    """A ring of samples of all pools.

    Args:
        length: how many samples are kept.
        window: over how many of them a rate or a time is the mean.
    """

    def __init__(self, length: int = 300, window: int = 10) -> None:
        self._length = length
        self._window = window
        self._times: deque[float] = deque(maxlen=length)
        self._pools: dict[str, _Pool] = {}

    def add(self, time: float, moment: float, pools: Iterable[Mapping[str, Any]]) -> None:
        """Add a sample. A pool that is not in it is forgotten.

        Args:
            time: seconds since the epoch.
            moment: seconds of a clock that is never set.
            pools: of a snapshot.
        """
        self._times.append(time)
        kept = {}
        for one in pools:
            pool = kept[one["id"]] = self._pools.get(one["id"]) or _Pool(self._window)
            pool.add(_numbers(moment, one), self._length)
        self._pools = kept

    def last(self) -> dict[str, list[float | None]]:
        """The newest number of each series, by the pool's id."""
        return {
            key: [_json(values[-1]) for values in pool.series.values()]
            for key, pool in self._pools.items()
        }

    def as_dict(self) -> dict[str, Any]:
        """All of it. A pool's series end at the last of the times, and may begin later."""
        return {
            "times": list(self._times),
            "pools": {
                key: {name: list(map(_json, values)) for name, values in pool.series.items()}
                for key, pool in self._pools.items()
            },
        }


def _json(value: float) -> float | None:
    return None if isnan(value) else round(value, 6)


def _numbers(moment: float, pool: Mapping[str, Any]) -> _Numbers:
    bad = pool["failed"] + pool["panicked"]
    ran = pool["completed"] + bad
    waiting = max(0, pool["queued"] - pool["delayed"])
    return _Numbers(moment, waiting, pool["running"], ran, bad, ran + pool["cancelled"])


def _point(lately: deque[_Numbers]) -> tuple[float, ...]:
    first, now = lately[0], lately[-1]
    seconds = now.moment - first.moment
    if seconds < _INSTANT:
        return now.queued, now.running, nan, nan, nan, nan
    ran, gone = now.ran - first.ran, now.gone - first.gone
    left_queue = gone + now.running - first.running
    return (
        now.queued,
        now.running,
        ran / seconds,
        (now.bad - first.bad) / seconds,
        _area(lately, "queued") / left_queue if left_queue > 0 else nan,
        _area(lately, "running") / ran if ran > 0 else nan,
    )


def _area(lately: deque[_Numbers], name: str) -> float:
    """How many tasks there were, times the seconds that they were there."""
    found = [(one.moment, getattr(one, name)) for one in lately]
    return float(sum((then - moment) * (a + b) / 2 for (moment, a), (then, b) in pairwise(found)))
