"""A pool whose tasks wait for a server of hidden capacity; by the virtual clock, in no time."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from ion_actors.adaptive.sizing import Adaptive, PoolLoad
from ion_actors.testing import VirtualClock

__all__ = ["PoolPhase", "SimulatedPool"]


@dataclass
class PoolPhase:
    """What was seen in the second half of a phase."""

    capacity: int
    throughput: float  # of the ideal
    sizes: list[int]  # after each look

    @property
    def changes(self) -> int:
        """How often the pool was resized."""
        return sum(one != other for one, other in zip(self.sizes, self.sizes[1:], strict=False))


class SimulatedPool:
    """There are always more tasks than workers, except in :meth:`rest`.

    Args:
        bounds: of its size.
        seed: of how long the tasks take.
        latency: seconds that the server takes for a task, on average.
        jitter: by which part of it that differs, evenly; or None for any time, exponentially.
    """

    def __init__(
        self, bounds: Adaptive, seed: int, *, latency: float = 0.1, jitter: float | None = 0.5
    ) -> None:
        self.clock = VirtualClock()
        self.sizing = bounds.begin()
        self.random = random.Random(seed)
        self.latency = latency
        self.jitter = jitter
        self.capacity = 1
        self.size = self.sizing.size
        self.running = self.served = self.ended = 0  # tasks: begun, at the server, ended
        self.sizes: list[int] = []
        self._look_later()

    def phase(self, capacity: int, seconds: float) -> PoolPhase:
        """The server has this capacity from now on, for so long."""
        self.capacity = capacity
        self._begin()
        self.clock.advance(seconds / 2)
        ended, looks = self.ended, len(self.sizes)
        self.clock.advance(seconds / 2)
        ideal = capacity / self.latency * seconds / 2
        return PoolPhase(capacity, (self.ended - ended) / ideal, self.sizes[looks:])

    def rest(self, seconds: float) -> list[int]:
        """There is nothing to do. The sizes after each look."""
        begin, looks = self._begin, len(self.sizes)
        self._begin: Callable[[], None] = self._serve
        self.clock.advance(seconds)
        self._begin = begin
        return self.sizes[looks:]

    def _begin(self) -> None:
        self.running = max(self.running, self.size)
        self._serve()

    def _serve(self) -> None:
        while self.served < min(self.running, self.capacity):
            self.served += 1
            if self.jitter is None:
                takes = self.latency * self.random.expovariate(1)
            else:
                takes = self.latency * (1 + self.jitter * self.random.uniform(-1, 1))
            self.clock.call_at(self.clock.monotonic() + takes, self._end)

    def _end(self) -> None:
        self.served -= 1
        self.running -= 1
        self.ended += 1
        self._begin()

    def _look_later(self) -> None:
        due = self.clock.monotonic() + self.sizing.bounds.interval
        self.clock.call_at(due, self._look)

    def _look(self) -> None:
        backlog = 0 if self._begin == self._serve else 100
        now = self.clock.monotonic()
        self.sizing = self.sizing.after(PoolLoad(now, self.size, self.running, backlog, self.ended))
        self.size = self.sizing.size
        self.sizes.append(self.size)
        self._begin()
        self._look_later()
