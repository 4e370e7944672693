"""Lifecycle events, and who is told of them.

What a supervisor tells, its parent tells as well, so a subscription at the root hears the whole
tree. How subscribers are told: :mod:`ion_actors.observe.bus`.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

from ion_actors.naming import printable, shown
from ion_actors.observe.bus import Bus

__all__ = ["Lifecycle", "LifecycleEvent", "pass_on"]


class Lifecycle(enum.Enum):
    """What can happen to a child."""

    STARTED = "started"  #: for the first time
    START_FAILED = "failed to start"  #: its start raised, or its ``on_start``
    PANICKED = "panicked"  #: it failed: a pool broke, an actor died, a supervisor gave up
    ENDED = "ended"  #: by itself or by somebody else, without a failure
    RESTARTED = "restarted"  #: started again
    STOPPED = "stopped"  #: its supervisor has stopped it; a pool was drained or closed
    ABANDONED = "abandoned"  #: it did not stop in time and was left alone
    GAVE_UP = "gave up"  #: it is the supervisor itself: a child had to be restarted once too often


@dataclass(frozen=True, slots=True)
class LifecycleEvent:
    """Something that happened to a child."""

    kind: Lifecycle  #: what
    path: tuple[str, ...]  #: to whom: the name of the supervisor asked, and the ids below it
    at: float  #: when: a moment of the supervisor's clock
    restarts: int = 0  #: how often the child has been started again
    because: str | None = None  #: the id of the sibling that had to be restarted; of the last straw
    error: BaseException | None = None  #: what it failed with

    @property
    def child(self) -> str:
        """The child's id; of GAVE_UP, the supervisor's own."""
        return self.path[-1]

    def __str__(self) -> str:
        because = f" because of {self.because}" if self.because else ""
        error = f": {shown(self.error)}" if self.error is not None else ""
        return printable(f"{'/'.join(self.path)} {self.kind.value}{because}{error}")


def pass_on(bus: Bus[LifecycleEvent], parent: Bus[LifecycleEvent], name: str, child: str) -> None:
    """Tell a parent's subscribers, too, what happens below it.

    Args:
        bus: of a supervisor that is a child.
        parent: of the supervisor above it.
        name: that one's.
        child: the child's id there.
    """
    bus.forward(lambda event: parent.publish(replace(event, path=(name, child, *event.path[1:]))))
