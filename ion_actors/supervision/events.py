"""Lifecycle events, and who is told of them.

What a supervisor tells, its parent tells as well, so a subscription at the root hears the whole
tree. How subscribers are told: :mod:`ion_actors.observe.bus`.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

from typing_extensions import override

from ion_actors.naming import printable, shown
from ion_actors.observe.bus import Bus

__all__ = ["Lifecycle", "LifecycleBus", "LifecycleEvent"]


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


class LifecycleBus(Bus[LifecycleEvent]):
    """Takes events from one supervisor, and gives them to its subscribers and its parent's."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name}-events")
        self._name = name
        self._parent: tuple[LifecycleBus, str] | None = None

    def tell_parent(self, parent: LifecycleBus, child: str) -> None:
        """Pass everything on, as what happens below the parent's child of that id."""
        with self._lock:
            self._parent = parent, child

    @override
    def publish(self, event: LifecycleEvent) -> None:
        """Have everybody told. Never blocks."""
        with self._lock:
            parent = self._parent
            super().publish(event)
        if parent is not None:
            bus, child = parent
            bus.publish(replace(event, path=(bus._name, child, *event.path[1:])))
