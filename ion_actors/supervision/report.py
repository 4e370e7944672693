"""What a supervisor tells of its children, now and at the end."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ion_actors.supervision.states import ChildState, Restart

if TYPE_CHECKING:
    from ion_actors.workerpool.model.reports import DrainReport

__all__ = ["ChildEnd", "ChildInfo", "ChildKind", "StopReport"]


class ChildKind(enum.Enum):
    """What a child is."""

    POOL = "pool"
    ACTOR = "actor"
    SUPERVISOR = "supervisor"


@dataclass(frozen=True, slots=True)
class ChildInfo:
    """One child at one moment."""

    id: str  #: its name among its siblings
    state: ChildState  #: where it is in its life
    kind: ChildKind | None  #: what it is; None before it was first made
    child: Any  #: the live ``Pool``, ``pykka.ActorRef`` or ``Supervisor``; None if there is none
    restart: Restart  #: whether it is restarted
    restarts: int  #: how often it was started again
    error: BaseException | None  #: what it last failed with


@dataclass(frozen=True, slots=True)
class ChildEnd:
    """How one child was stopped."""

    id: str  #: its name among its siblings
    abandoned: bool  #: it did not stop in time and was left alone
    elapsed: float  #: seconds it took
    report: DrainReport | StopReport | None  #: of a pool or a supervisor, if it has ended
    error: BaseException | None  #: what it failed with while it stopped


@dataclass(frozen=True, slots=True)
class StopReport:
    """How the end of a supervisor went."""

    children: tuple[ChildEnd, ...]  #: in the order in which they were stopped
    failure: BaseException | None  #: why it had to end, if nobody had asked it to
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
