"""What has to be true when a round is over, and when all are. Pure."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence

from ion_actors import (
    BrokenPool,
    ContextEnded,
    Future,
    PoolClosed,
    PoolMetrics,
    TaskPanicked,
)
from tests.soak.plan import Job, Lot, Round

__all__ = ["allowed", "balance", "blurred", "growth", "outcome", "unbalanced"]

OUTCOMES = ("completed", "failed", "panicked", "cancelled")

_NATURAL = {
    Lot.FAIL: "failed", Lot.HUNGRY: "failed", Lot.UNSENDABLE: "failed",
    Lot.PANIC: "panicked", Lot.EXIT: "panicked", Lot.KILLED: "panicked", Lot.LEAVES: "panicked",
    Lot.LATE: "cancelled", Lot.UNWANTED: "cancelled",
}  # fmt: skip


def outcome(future: Future[object]) -> str:
    """How a future has ended, as pools count it."""
    if not future.done():
        return "pending"
    if future.cancelled():
        return "cancelled"
    error = future.exception()
    if error is None:
        return "completed"
    if isinstance(error, TaskPanicked):
        return "panicked"
    return "cancelled" if isinstance(error, ContextEnded | BrokenPool | PoolClosed) else "failed"


def allowed(job: Job, drawn: Round) -> frozenset[str]:
    """How a task of this round may end."""
    if drawn.exhausts:
        return frozenset(OUTCOMES)
    found = {_NATURAL.get(job.lot, "completed")}
    if job.limited or drawn.calls_off:
        found.add("cancelled")
    if job.lot in (Lot.UNWANTED, Lot.LATE):
        found.add("completed")  # its wait was called off, and it has returned before its future was
    if drawn.kills:
        found.add("panicked")
    if drawn.interrupted and drawn.overflow == "caller_runs":
        found |= {"failed", "panicked"}  # the signal may come while the caller runs it
    return frozenset(found)


def blurred(job: Job, ended: str) -> bool:
    """Whether the pool may have counted something else than the future says.

    A panic is counted when it comes. The future is told after the supervisor and the handler, and
    the task's time, or the pool's, may be up by then.
    """
    return ended == "cancelled" and _NATURAL.get(job.lot) == "panicked"


def unbalanced(numbers: PoolMetrics) -> bool:
    """Whether a snapshot contradicts itself."""
    ended = sum(getattr(numbers, name) for name in OUTCOMES)
    whole = numbers.submitted == numbers.queued + numbers.running + ended
    return not whole or min(numbers.queued, numbers.running, ended) < 0


def balance(numbers: PoolMetrics, seen: Counter[str], *, complete: bool) -> list[str]:
    """What is wrong with the books of a pool that has ended.

    Args:
        numbers: the pool's.
        seen: the outcomes of the futures that its submitters have kept.
        complete: whether these are all that there were.
    """
    faults = []
    if unbalanced(numbers) or numbers.queued or numbers.running:
        faults.append(f"the books do not balance: {numbers}")
    for name in OUTCOMES:
        counted = getattr(numbers, name)
        if counted < seen[name] or (complete and counted != seen[name]):
            faults.append(f"{counted} {name}, but {seen[name]} futures say so")
    return faults


def growth(values: Sequence[float]) -> float:
    """By how much the last quarter is above the second one: the first is for warming up.

    Medians are compared, so that a single high value is no growth. Zero, if there are too few
    values to say.
    """
    quarter = len(values) // 4
    if quarter < 5:
        return 0.0
    return statistics.median(values[-quarter:]) - statistics.median(values[quarter : 2 * quarter])
