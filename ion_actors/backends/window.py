"""How many tasks a worker has under way elsewhere: decisions, as pure functions.

A child process that has the next task already need not wait for it. A call of Ray's takes about as
long as a hundred small tasks; so these are sent in batches, and the next batch while the first one
runs. How small tasks are is measured: what is under way should take no more than ``WORK``, so that
a crash, a cancellation or a long task has to do with few others. It begins with one task, and grows
with each that is answered.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

__all__ = ["CALLS", "LONG", "WORK", "SendWindow"]

#: Seconds that all that is under way should take.
WORK = 0.01

#: Seconds without an answer after which what has not begun is taken back.
LONG = 0.03

#: Batches that are under way at a time: one runs, the next is there when it ends.
CALLS = 2

_WEIGHT = 0.25  # of the last task in the average
_LONGEST = 10 * WORK  # what takes longer counts as this, so that it is forgotten in time


@dataclass(frozen=True, slots=True)
class SendWindow:
    """What is known of a worker's tasks, and what follows from it.

    Args:
        most: tasks that may be under way.
        batch: tasks that may be in one call.
    """

    most: int
    batch: int
    pace: float = 0.0  # seconds that a task takes, of late
    size: int = 1  # tasks that may be under way now

    def answered(self, seconds: float) -> SendWindow:
        """A task took so long."""
        known = min(seconds, _LONGEST)
        pace = known if self.size == 1 and not self.pace else _average(self.pace, known)
        fitting = self.most if pace * self.most <= WORK else int(WORK / pace)
        return replace(self, pace=pace, size=max(1, min(self.size + 1, fitting, self.most)))

    def closed(self) -> SendWindow:
        """What was under way took longer than was thought, or is large, or was lost."""
        return replace(self, size=1)

    def room(self, under_way: int, calls: int) -> int:
        """How many more tasks should be sent now, in one call.

        Args:
            under_way: tasks that are.
            calls: that they are in.
        """
        if calls >= CALLS:
            return 0
        whole = min(self.batch, -(-self.size // CALLS))
        room = min(whole, self.size - under_way)
        # A call that is nearly empty costs as much as a full one, and there is time to fill it.
        return room if room == whole or not calls else 0


def _average(before: float, last: float) -> float:
    return before + _WEIGHT * (last - before)
