"""Why a pool did not do what it was asked to."""

from __future__ import annotations

import enum

from ion_actors.errors import BrokenPool, TaskAbandoned, TaskDropped, TaskQuarantined
from ion_actors.raised import is_a

__all__ = ["DropReason", "reason_of"]


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
