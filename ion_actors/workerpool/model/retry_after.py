"""How long until a full pool has room: estimated from its pace, when it refuses a task.

Little's law: tasks leave a queue as fast as they are ended, so ``n`` tasks that wait have begun
after ``n / pace`` seconds. The pace is measured between refusals, and only over stretches in which
no worker was idle: what a pool does that has nothing to do says nothing about what it can do. So
nobody pays for it but who is refused, and the first who is refused learns nothing.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Pace", "PaceMark"]

#: Seconds over which the pace is measured, at least, once it is known. More if few tasks end.
WINDOW = 10.0

# Seconds that are too short to measure anything by.
_TICK = 1e-6


class PaceMark(NamedTuple):
    """How many tasks had ended at a moment of the clock."""

    at: float
    ended: int


class Pace(NamedTuple):
    """How fast a pool ends tasks when none of its workers is idle."""

    rate: float | None = None  # tasks per second, as measured last; more than zero
    since: PaceMark | None = None  # no worker has been idle from here on
    later: PaceMark | None = None  # and what to measure from when that is too long ago

    def seen(self, now: PaceMark, *, workers: int, rested: bool) -> Pace:
        """The pace as it is known after a refusal.

        Args:
            now: the moment of the refusal.
            workers: how many there are.
            rested: whether one of them has been idle since the refusal before.
        """
        if rested or self.since is None or self.later is None:
            return self._replace(since=now, later=now)
        rate = self._rate(now.ended - self.since.ended, now.at - self.since.at, workers)
        if now.at - self.later.at >= WINDOW and now.ended - self.later.ended > workers:
            return Pace(rate, self.later, now)
        return self._replace(rate=rate)

    def _rate(self, ended: int, took: float, workers: int) -> float | None:
        if took < _TICK:
            return self.rate
        # Fewer may all have begun before; then it was not this time that they needed.
        if ended > workers:
            return ended / took
        # But it is no faster than if all that run now were just about to end.
        return None if self.rate is None else min(self.rate, (ended + workers) / took)

    def time_for(self, tasks: int) -> float | None:
        """Seconds until so many tasks have ended; None if no pace is known."""
        return None if self.rate is None else tasks / self.rate
