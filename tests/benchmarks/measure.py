"""Contests: the pool and its peers take turns, and each round gives one ratio.

Whatever else the machine does in a round hits all who take part in it, so the ratio of one round
means more than the ratio of two medians. What is at the mercy of chance in a short while (on which
CPU the system wakes a thread) is measured in many short parts, of which a round is the median.
"""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

__all__ = ["LIMIT", "Contest", "Line", "Result", "Spread", "Target", "run"]

#: A peer of this name is no pool, but as fast as one could be: work without any handing over.
LIMIT = "the limit"

#: One run of one contestant: a number for each line of the contest.
Measure = Callable[[], tuple[float, ...]]


@dataclass(frozen=True, slots=True)
class Target:
    """What the pool is to reach: a ratio to a peer or, without one, a number of its own."""

    bound: float
    at_least: bool  # else: at most
    peer: str | None = None
    even: bool = False  # it is about being no worse, so that a draw is worth telling from a loss


@dataclass(frozen=True, slots=True)
class Line:
    """One number that a contest is about."""

    title: str
    unit: str
    targets: tuple[Target, ...] = ()


@dataclass(frozen=True, slots=True)
class Contest:
    """What is measured of whom, and how many rounds are enough if it takes long.

    A round has so many ``parts``; each begins with another one of those who take part, and every
    other one is in reverse order.
    """

    key: str
    lines: tuple[Line, ...]
    pool: Measure
    peers: Mapping[str, Measure]
    max_rounds: int | None = None
    parts: int = 1


@dataclass(frozen=True, slots=True)
class Spread:
    """A median and its range."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        return cls(statistics.median(values), min(values), max(values))


@dataclass(frozen=True, slots=True)
class Result:
    """A line with the numbers of all rounds."""

    line: Line
    pool: list[float] = field(default_factory=list)
    peers: dict[str, list[float]] = field(default_factory=dict)

    def ratio(self, peer: str) -> Spread:
        """The pool's number divided by the peer's, round by round."""
        return _ratio(self.pool, self.peers[peer])

    def verdict(self, target: Target) -> str:
        """Whether this target of the line is met."""
        reached = Spread.of(self.pool) if target.peer is None else self.ratio(target.peer)
        if _holds(target, reached.median):
            return "met"
        best = reached.high if target.at_least else reached.low
        if target.even and _holds(target, best):
            return "missed, but within the noise"
        if target.peer is not None and LIMIT in self.peers:
            limit = _ratio(self.peers[LIMIT], self.peers[target.peer]).median
            if not _holds(target, limit):
                return f"**missed**; {limit:.2f} would be the limit"
        return "**missed**"


def _ratio(ours: list[float], theirs: list[float]) -> Spread:
    return Spread.of([one / other for one, other in zip(ours, theirs, strict=True)])


def _holds(target: Target, value: float) -> bool:
    return value >= target.bound if target.at_least else value <= target.bound


def run(contest: Contest, rounds: int) -> list[Result]:
    """Have them take turns for that many rounds. Returns a result for each line."""
    results = [Result(line) for line in contest.lines]
    for _ in range(min(rounds, contest.max_rounds or rounds)):
        ours, theirs = _round(contest)
        for result, value in zip(results, ours, strict=True):
            result.pool.append(value)
        for name, values in theirs.items():
            for result, value in zip(results, values, strict=True):
                result.peers.setdefault(name, []).append(value)
    return results


def _round(contest: Contest) -> tuple[list[float], dict[str, list[float]]]:
    """The pool's number for each line, and those of each peer."""
    measures = [contest.pool, *contest.peers.values()]
    parts: list[list[tuple[float, ...]]] = [[] for _ in measures]
    for part in range(contest.parts):
        first = part // 2 % len(measures)
        places = [*range(first, len(measures)), *range(first)]
        for place in reversed(places) if part % 2 else places:
            parts[place].append(_once(measures[place]))
    ours, *theirs = [list(map(statistics.median, zip(*one, strict=True))) for one in parts]
    return ours, dict(zip(contest.peers, theirs, strict=True))


def _once(measure: Measure) -> tuple[float, ...]:
    gc.collect()  # nobody pays for what the one before has left behind
    return measure()
