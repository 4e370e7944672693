"""The numbers of a pool: per-worker tallies, and the frozen snapshot made of them.

Invariant of every snapshot: ``submitted = queued + running + completed + failed + panicked +
cancelled``. It holds because ``submitted`` and ``running`` are not counted but derived, under the
mailbox's lock, from a started count that only changes under that lock and from tallies that have
one writer each: whatever a worker adds while the sums are taken moves one task from running to
ended, and the derivation sees it in exactly one of the two.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from ion_actors.workerpool.model.outcomes import DropReason, Outcome
from ion_actors.workerpool.model.tables import table

__all__ = ["Ledger", "PoolMetrics", "PoolState", "SharedTally", "Tally", "numbers_table"]


class PoolState(enum.Enum):
    """Where a pool is in its life."""

    RUNNING = "running"  #: accepts tasks
    DRAINING = "draining"  #: accepts none; what it has is being finished or cancelled
    CLOSED = "closed"  #: no worker is left, every future has its outcome


class Tally:
    """What one worker has ended. Only that worker writes to it, so it needs no lock."""

    __slots__ = ("cancelled", "completed", "failed", "panicked")

    shared = False  # by several workers, of which one may go

    def __init__(self) -> None:
        self.completed = 0
        self.failed = 0
        self.panicked = 0
        self.cancelled = 0

    def count(self, outcome: Outcome) -> None:
        """Add one ended task."""
        if outcome is Outcome.COMPLETED:
            self.completed += 1
        elif outcome is Outcome.FAILED:
            self.failed += 1
        elif outcome is Outcome.PANICKED:
            self.panicked += 1
        else:
            self.cancelled += 1

    def add(self, other: Tally) -> None:
        """Take over the counts of another, which nobody writes to any more."""
        self.completed += other.completed
        self.failed += other.failed
        self.panicked += other.panicked
        self.cancelled += other.cancelled


class SharedTally(Tally):
    """What all workers of a pool have ended that share one thread. It stays open to the end."""

    __slots__ = ()

    shared = True


@dataclass(frozen=True, slots=True)
class PoolMetrics:
    """One moment of a pool, in tasks unless said otherwise.

    ``submitted = queued + running + completed + failed + panicked + cancelled``, always.
    """

    size: int  #: workers
    queue_size: int  #: tasks that may wait
    queued: int  #: waiting now
    running: int  #: handed to a worker that has not stopped running them
    submitted: int  #: accepted since the pool began
    completed: int  #: returned
    failed: int  #: raised an ``Exception``
    panicked: int  #: took their worker down
    cancelled: int  #: cancelled, timed out, dropped at the end, or abandoned
    rejected: int  #: refused submissions: full, closed, broken, or the submitter gave up waiting
    restarts: int  #: workers replaced
    #: Of the cancelled, rejected and panicked: how many the pool has given up, by reason
    dropped: Mapping[DropReason, int] = field(default_factory=dict, hash=False)
    delayed: int = 0  #: of those that are queued: waiting for their time, or for another try
    retries: int = 0  #: tries that were repeated: of tasks that failed, or took their worker down
    paused: bool = False  #: no queued task begins

    def _repr_html_(self) -> str:
        return numbers_table(self)


def numbers_table(numbers: PoolMetrics, caption: str = "") -> str:
    """The numbers as notebooks show them: a table in HTML.

    Args:
        numbers: of one moment.
        caption: what stands above them.
    """
    names = [one for one in numbers.__slots__ if one not in ("dropped", "paused")]
    row = [getattr(numbers, one) for one in names]
    dropped = ", ".join(f"{count:,} {why.value}" for why, count in numbers.dropped.items())
    notes = [f"dropped: {dropped}"] if dropped else []
    return table(caption, [one.replace("_", " ") for one in names], [row], notes)


class Ledger:
    """The counts of a pool's tasks. All but the tallies change under the mailbox's lock only."""

    __slots__ = (
        "_past", "_tallies", "dropped", "fenced", "rejected", "restarts", "retries", "started",
        "withdrawn",
    )  # fmt: skip

    def __init__(self) -> None:
        self.started = 0  # handed to a worker
        self.withdrawn = 0  # ended in the queue
        self.fenced = 0  # ended while running, by another than the worker
        self.rejected = 0
        self.restarts = 0
        self.retries = 0
        self.dropped: Counter[DropReason] = Counter()  # by reason
        self._tallies: dict[Tally, None] = {}
        self._past = Tally()  # of workers that are gone

    def open(self, tally: Tally) -> None:
        """Count what a new worker ends."""
        self._tallies[tally] = None

    def close(self, tally: Tally) -> None:
        """A worker is gone: what it has ended stays counted."""
        if tally in self._tallies and not tally.shared:
            past = self._past
            # Not add(): nothing can be thrown in between these.
            past.completed += tally.completed
            past.failed += tally.failed
            past.panicked += tally.panicked
            past.cancelled += tally.cancelled
            del self._tallies[tally]

    def ended(self) -> int:
        """How many tasks the workers have ended."""
        tallies = (self._past, *self._tallies)
        return sum(one.completed + one.failed + one.panicked + one.cancelled for one in tallies)

    def snapshot(
        self,
        size: int,
        queue_size: int,
        waiting: int,
        delayed: int = 0,
        *,
        paused: bool = False,
    ) -> PoolMetrics:
        """The numbers of this moment, of which some are the mailbox's to know.

        Args:
            size: workers.
            queue_size: tasks that may wait.
            waiting: tasks that wait for a worker.
            delayed: tasks that wait for their time.
            paused: whether no queued task begins.
        """
        queued = waiting + delayed
        ended = Tally()
        for tally in (self._past, *self._tallies):
            ended.add(tally)
        by_workers = ended.completed + ended.failed + ended.panicked + ended.cancelled
        return PoolMetrics(
            size=size,
            queue_size=queue_size,
            queued=queued,
            running=self.started - by_workers - self.fenced,
            submitted=self.started + queued + self.withdrawn,
            completed=ended.completed,
            failed=ended.failed,
            panicked=ended.panicked,
            cancelled=ended.cancelled + self.withdrawn + self.fenced,
            rejected=self.rejected,
            restarts=self.restarts,
            delayed=delayed,
            retries=self.retries,
            dropped=dict(self.dropped),
            paused=paused,
        )
