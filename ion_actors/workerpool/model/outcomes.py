"""How a task ends, why a pool gave it up, and what becomes of its worker."""

from __future__ import annotations

import enum

from ion_actors.errors import BrokenPool, TaskAbandoned, TaskDropped, TaskQuarantined
from ion_actors.raised import is_a

__all__ = ["Directive", "DropReason", "Outcome", "reason_of"]


class DropReason(enum.Enum):
    """Why a task was not run, or not to its end, other than by its submitter's wish."""

    NEWEST = "newest"  #: it came when the mailbox was full
    OLDEST = "oldest"  #: it had waited longest when another one came to a full mailbox
    EXPIRED = "expired"  #: it had waited for longer than its ``ttl``
    SHED = "shed"  #: tasks waited too long on the average, so it was left out
    REFUSED = "refused"  #: it was not accepted: the mailbox was full, or the pool had ended
    CLOSED = "closed"  #: it was still queued when the pool was closed, or broke
    STOPPED = "stopped"  #: it was running when the pool was closed, and stopped when asked to
    ABANDONED = "abandoned"  #: it was still running when the time to drain or close was up
    QUARANTINED = "quarantined"  #: it took down one worker after the other


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
