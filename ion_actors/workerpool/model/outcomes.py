"""How a task ends, why a pool gave it up, and what becomes of its worker."""

from __future__ import annotations

import enum

from ion_actors.errors import (
    BrokenPool,
    TaskAbandoned,
    TaskDropped,
    TaskQuarantined,
    WorkerDied,
)
from ion_actors.facts import DropReason
from ion_actors.raised import is_a

__all__ = ["Directive", "DropReason", "Outcome", "excess_of", "reason_of"]


def excess_of(error: BaseException) -> tuple[int, int] | None:
    """The limit and the peak in bytes, if a child was ended for its memory; else None."""
    if type(error) is not WorkerDied or error.memory_limit is None or error.memory_peak is None:
        return None
    return error.memory_limit, error.memory_peak


def reason_of(error: BaseException) -> DropReason | None:
    """Why a pool gave up the task that it ended with this error; None if it did not."""
    if is_a(error, TaskDropped):
        return error.why
    if is_a(error, TaskAbandoned):
        return DropReason.ABANDONED
    if is_a(error, TaskQuarantined):
        return DropReason.QUARANTINED
    if is_a(error, BrokenPool):
        return DropReason.CLOSED
    return None


class Directive(enum.Enum):
    """What a pool does about an exception. The words are Akka's.

    With any but RESUME the task panics: its future raises ``TaskPanicked``, whose cause is the
    exception.
    """

    RESUME = "resume"  #: the future raises it; the worker goes on, and keeps its state
    RESTART = "restart"  #: the worker is replaced by a fresh one, with a state of its own
    STOP = "stop"  #: the worker goes and is not replaced: the pool has one fewer from now on
    ESCALATE = "escalate"  #: the pool breaks, which whoever supervises it is told


class Outcome(enum.Enum):
    """How a task ended: exactly once, as one of these."""

    COMPLETED = "completed"  #: it returned
    FAILED = "failed"  #: it raised an ``Exception``
    PANICKED = "panicked"  #: it raised anything else, or what the policy calls a panic
    CANCELLED = "cancelled"  #: it was cancelled, timed out, dropped at the end, or abandoned

    @property
    def status(self) -> str:
        """The word for it in metrics: ion's where ion has one."""
        return _STATUS[self]


_STATUS = {
    Outcome.COMPLETED: "success",
    Outcome.FAILED: "error",
    Outcome.PANICKED: "panic",
    Outcome.CANCELLED: "cancelled",
}
