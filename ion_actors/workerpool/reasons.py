"""Why a pool did not do what it was asked to."""

from __future__ import annotations

import enum

__all__ = ["DropReason"]


class DropReason(enum.Enum):
    """Why a task was not run, or not to its end, other than by its submitter's wish."""

    NEWEST = "newest"  #: it came when the mailbox was full
    OLDEST = "oldest"  #: it had waited longest when another one came to a full mailbox
    EXPIRED = "expired"  #: it had waited for longer than its ``ttl``
    SHED = "shed"  #: tasks waited too long on the average, so it was left out
    REFUSED = "refused"  #: it was not accepted: the mailbox was full, or the pool had ended
    CLOSED = "closed"  #: it was still queued when the pool was closed, or broke
    ABANDONED = "abandoned"  #: it was still running when the time to drain or close was up
    QUARANTINED = "quarantined"  #: it took down one worker after the other
