"""A server of hidden capacity, and clients that always have more to do than fits; in no time."""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from ion_actors.adaptive import Algorithm, Bounds, Sample

__all__ = ["Phase", "simulate", "trace"]


@dataclass
class Phase:
    """What was seen in one phase, after its first 30 seconds."""

    capacity: int
    throughput: float  # of the ideal
    refused: float  # of all calls
    limit: float  # on average
    highest: float


class _World:
    def __init__(
        self, algorithm: Algorithm, queueing: bool, latency: float, jitter: float, seed: int
    ) -> None:
        self.algorithm = algorithm
        self.bounds = Bounds(1, 1000)
        self.state = algorithm.begin(10.0, self.bounds)
        self.queueing = queueing
        self.latency = latency
        self.jitter = jitter
        self.random = random.Random(seed)
        self.now = 0.0
        self.calls = 0
        self.in_flight = 0
        self.busy = 0
        self.queue: deque[tuple[int, float]] = deque()
        self.answers: list[tuple[float, int, float, bool]] = []

    def answer(self, call: int, began: float) -> None:
        """The server begins with a call."""
        self.busy += 1
        takes = self.latency * (1 + self.jitter * self.random.uniform(-1, 1))
        heapq.heappush(self.answers, (self.now + takes, call, began, True))

    def begin_calls(self, capacity: int) -> None:
        while self.in_flight < int(self.state.limit):
            self.in_flight += 1
            self.calls += 1
            if self.busy < capacity:
                self.answer(self.calls, self.now)
            elif self.queueing:
                self.queue.append((self.calls, self.now))
            else:
                soon = self.now + self.latency * 0.05 * (1 + self.random.random())
                heapq.heappush(self.answers, (soon, self.calls, self.now, False))

    def until(self, end: float, capacity: int) -> Iterator[bool]:
        """The calls that end until then: whether each succeeded."""
        while True:
            self.begin_calls(capacity)
            if self.answers[0][0] > end:
                self.now = end
                return
            self.now, _, began, succeeded = heapq.heappop(self.answers)
            sample = Sample(began, self.now, self.in_flight, not succeeded)
            self.state = self.algorithm.after(self.state, sample, self.bounds)
            self.in_flight -= 1
            self.busy -= succeeded
            while self.queue and self.busy < capacity:
                self.answer(*self.queue.popleft())
            yield succeeded


def simulate(
    algorithm: Algorithm,
    phases: list[tuple[int, float]],
    *,
    queueing: bool = False,
    latency: float = 0.1,
    jitter: float = 0.1,
    seed: int = 1,
) -> list[Phase]:
    """Phases of (capacity, seconds), one after the other."""
    world = _World(algorithm, queueing, latency, jitter, seed)
    found = []
    for capacity, seconds in phases:
        for _ in world.until(world.now + 30, capacity):
            pass
        outcomes, limits = [], []
        for succeeded in world.until(world.now + seconds - 30, capacity):
            outcomes.append(succeeded)
            limits.append(world.state.limit)
        ideal = capacity / latency * (seconds - 30)
        found.append(
            Phase(
                capacity,
                sum(outcomes) / ideal,
                1 - sum(outcomes) / len(outcomes),
                sum(limits) / len(limits),
                max(limits),
            )
        )
    return found


def trace(
    algorithm: Algorithm, phases: list[tuple[int, float]], *, queueing: bool
) -> list[tuple[float, float]]:
    """The limit over time, from 10: a point at most every fifth of a second."""
    world = _World(algorithm, queueing, latency=0.1, jitter=0.1, seed=1)
    points = [(0.0, 10.0)]
    for capacity, seconds in phases:
        for _ in world.until(world.now + seconds, capacity):
            if world.now - points[-1][0] >= 0.2:
                points.append((world.now, float(int(world.state.limit))))
    return points
