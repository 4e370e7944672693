"""Reports of a supervisor on its children, now and at the end."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ion_actors.supervision.states import ChildState, Restart

if TYPE_CHECKING:
    from ion_actors.workerpool.model.reports import DrainReport

__all__ = ["ChildEnd", "ChildInfo", "ChildKind", "StopReport"]


class ChildKind(enum.Enum):
    """The kinds of children."""

    POOL = "pool"
    ACTOR = "actor"
    SUPERVISOR = "supervisor"


@dataclass(frozen=True, slots=True)
class ChildInfo:
    """One child at one moment."""

    id: str  #: its name among its siblings
    state: ChildState  #: its state
    kind: ChildKind | None  #: its kind; None before it was first made
    child: Any  #: the live ``Pool``, ``pykka.ActorRef`` or ``Supervisor``; None if there is none
    restart: Restart  #: whether it is restarted
    restarts: int  #: how often it was started again
    error: BaseException | None  #: its last error


@dataclass(frozen=True, slots=True)
class ChildEnd:
    """How one child was stopped."""

    id: str  #: its name among its siblings
    abandoned: bool  #: it did not stop in time, and its threads go on alone
    elapsed: float  #: seconds that it took
    report: DrainReport | StopReport | None  #: of a pool or a supervisor, if it has ended
    error: BaseException | None  #: the error that it failed with while it stopped


@dataclass(frozen=True, slots=True)
class StopReport:
    """How the end of a supervisor went."""

    children: tuple[ChildEnd, ...]  #: in the order in which they were stopped
    failure: BaseException | None  #: the reason for its end, if it was not requested
    elapsed: float  #: seconds from the first request, or the failure, to the end

    @property
    def abandoned(self) -> tuple[str, ...]:
        """The children that did not stop in time, also those of supervisors: ``io/socket``."""
        found: list[str] = []
        for end in self.children:
            if end.abandoned:
                found.append(end.id)
            if isinstance(end.report, StopReport):
                found += [f"{end.id}/{one}" for one in end.report.abandoned]
        return tuple(found)
