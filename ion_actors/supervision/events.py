"""Lifecycle events.

A supervisor passes its events on to its parent, so a subscription at the root gets those of the
whole tree. How subscribers are called: :mod:`ion_actors.observe.bus`.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

from ion_actors.naming import printable, shown
from ion_actors.observe.bus import Bus

__all__ = ["Lifecycle", "LifecycleEvent", "pass_on"]


class Lifecycle(enum.Enum):
    """The kinds of events of a child."""

    STARTED = "started"  #: for the first time
    START_FAILED = "failed to start"  #: its start raised, or its ``on_start``
    PANICKED = "panicked"  #: it failed: a pool broke, an actor died, a supervisor gave up
    ENDED = "ended"  #: without a failure, and not stopped by its supervisor
    RESTARTED = "restarted"  #: started again
    STOPPED = "stopped"  #: its supervisor has stopped it; a pool was drained or closed
    ABANDONED = "abandoned"  #: it did not stop in time, and its threads go on alone
    GAVE_UP = "gave up"  #: an event of the supervisor itself: a child had to be restarted too often


@dataclass(frozen=True, slots=True)
class LifecycleEvent:
    """One event of a child."""

    kind: Lifecycle  #: the kind of event
    path: tuple[str, ...]  #: the name of the subscribed supervisor, and the ids down to the child
    at: float  #: the moment, by the supervisor's clock
    restarts: int = 0  #: how often the child has been started again
    because: str | None = None  #: the id of the child whose restart caused it
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
    """Pass the events of a supervisor on to the subscribers of its parent.

    Args:
        bus: the bus of the supervisor.
        parent: the bus of its parent.
        name: the name of the parent.
        child: the id of the supervisor as a child of the parent.
    """
    bus.forward(lambda event: parent.publish(replace(event, path=(name, child, *event.path[1:]))))
