"""What a pool does with a task when no worker is idle and the mailbox is full."""

from __future__ import annotations

import enum
from typing import Literal

from ion_actors.workerpool.codel import CoDel

__all__ = ["Overflow", "OverflowPolicy", "checked_overflow"]


class Overflow(enum.Enum):
    """The policies that need no numbers; ``Pool(overflow=...)`` also takes their values.

    ``try_submit`` never waits and runs nothing itself: where the policy would have it do so, it
    raises ``QueueFull``. ``asubmit`` never blocks the event loop: it awaits room where ``submit``
    would run the task itself.
    """

    BLOCK = "block"  #: ``submit`` waits for room
    REJECT = "reject"  #: it is refused with ``QueueFull``
    DROP_NEWEST = "drop_newest"  #: it is dropped: its future raises ``TaskDropped``
    DROP_OLDEST = "drop_oldest"  #: the task that was accepted first of those that wait is dropped
    CALLER_RUNS = "caller_runs"  #: ``submit`` runs it, in the thread of its caller


OverflowPolicy = (
    Overflow
    | CoDel
    | Literal["block", "reject", "drop_newest", "drop_oldest", "caller_runs"]
)  # fmt: skip


def checked_overflow(given: object) -> Overflow | CoDel:
    """The policy that was meant.

    Raises:
        TypeError, ValueError: there is none like that.
    """
    if isinstance(given, Overflow | CoDel):
        return given
    names = ", ".join(repr(one.value) for one in Overflow)
    if not isinstance(given, str):
        raise TypeError(f"overflow must be an Overflow, a CoDel or one of {names}, not {given!r}")
    try:
        return Overflow(given)
    except ValueError:
        raise ValueError(f"overflow must be one of {names} or a CoDel, not {given!r}") from None
