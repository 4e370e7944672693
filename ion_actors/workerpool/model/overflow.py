"""What a pool does with a task when the mailbox is full, or when tasks wait for too long.

Shedding goes by measured delay. The idea is CoDel's ("controlled delay", K. Nichols and V.
Jacobson, RFC 8289): what tells a queue that absorbs a burst from one that merely delays everything
is the *smallest* delay seen in a while. A burst drains, and then somebody waited hardly at all; if
all of them waited long, the queue stands still and is of no use. What follows from that is not
CoDel's law for packets, whose senders slow down when they lose some, but that of request queues (B.
Maurer, "Fail at Scale", ACM Queue, 2015): while the queue stands, whatever has waited for more than
twice the target is left out, so that what is done at all is done in time.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Literal, NamedTuple

from ion_actors._arguments import make_plain, seconds

__all__ = ["CoDel", "Delays", "Overflow", "OverflowPolicy", "checked_overflow"]

_PATIENCE = 2.0  # times the target: between the two, a queue that is recovering loses nothing


@dataclass(frozen=True, slots=True)
class CoDel:
    """Shed tasks that waited too long, while all tasks do. For ``Pool(overflow=CoDel())``.

    The delay of each task is measured when a worker takes it from the queue. If no task of a whole
    ``interval`` waited for less than ``target``, the pool is overloaded. As long as it is, tasks
    that have waited for more than twice ``target`` are dropped and end with ``TaskDropped``. A task
    that runs has waited for less than ``target + 2 * interval``, and, once the overload is known,
    for less than ``2 * target``. When the mailbox is full nevertheless, submissions are refused
    with ``QueueFull``.

    Args:
        target: seconds of waiting that are no matter for concern.
        interval: seconds of overload that are forgiven as a burst; 10 to 20 times the target.
    """

    target: float = 0.05
    interval: float = 0.5

    def __post_init__(self) -> None:
        for name in ("target", "interval"):
            if not seconds(name, getattr(self, name)):
                given = getattr(self, name)
                raise ValueError(f"{name} must be a positive number of seconds, not {given!r}")
        make_plain(self, "target", "interval")


class Delays(NamedTuple):
    """What has been measured: pure, and a new one after each task."""

    smallest: float = 0.0  # in the interval that is going on
    ends_at: float = 0.0  # when that is over
    overloaded: bool = False  # all waited too long in the one before

    def waited(self, policy: CoDel, now: float, delay: float) -> tuple[Delays, bool]:
        """A task is taken at ``now`` that has waited for ``delay``: the new state, and whether to
        leave it out."""
        after = self._at(policy, now, delay)
        return after, after.overloaded and delay > _PATIENCE * policy.target

    def idle(self, policy: CoDel, now: float) -> Delays:
        """A worker finds nothing to do."""
        return Delays(0.0, now + policy.interval, overloaded=False)

    def _at(self, policy: CoDel, now: float, delay: float) -> Delays:
        if now < self.ends_at:
            return Delays(min(self.smallest, delay), self.ends_at, self.overloaded)
        # After a pause it is not known what happened meanwhile: nobody had to wait.
        paused = now >= self.ends_at + policy.interval
        overloaded = not paused and self.smallest > policy.target
        return Delays(delay, now + policy.interval, overloaded)


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
