"""Supervision trees at one moment. Only imported where there are any."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ion_actors.errors import IonError
from ion_actors.raised import args_of, is_a, name_of
from ion_actors.supervision.core import TreeCore, core_of
from ion_actors.supervision.report import ChildInfo
from ion_actors.supervision.states import SupervisorState
from ion_actors.workerpool.snapshot import in_short

__all__ = ["ChildSnapshot", "SupervisorSnapshot", "tree_snapshots"]


@dataclass(frozen=True, slots=True)
class ChildSnapshot:
    """A child of a :class:`SupervisorSnapshot`."""

    id: str  #: its name among its siblings
    kind: str  #: "pool", "actor" or "supervisor"; empty before it was first made
    state: str  #: a value of :class:`~ion_actors.supervision.ChildState`
    restart: str  #: "permanent", "transient" or "temporary"
    restarts: int  #: how often it was started again
    error: str  #: its last error, in a line; empty if it has had none
    pool: str  #: the name of the pool that it is; else empty
    supervisor: SupervisorSnapshot | None  #: the supervisor that it is


@dataclass(frozen=True, slots=True)
class SupervisorSnapshot:
    """A supervision tree of a :class:`Snapshot`."""

    name: str
    state: str  #: a value of :class:`~ion_actors.supervision.SupervisorState`
    strategy: str  #: which children are restarted together
    max_restarts: int | None  #: at most so many restarts
    within: float  #: in so many seconds
    failure: str  #: why it has ended, in a line; empty if it was asked to, or has not
    children: tuple[ChildSnapshot, ...]  #: in the order of their start


def tree_snapshots(found: Iterable[TreeCore]) -> tuple[SupervisorSnapshot, ...]:
    """The trees of these that have not ended, and those that have failed."""
    roots = [core for core in found if not (core.nested or core.forked)]
    return tuple(
        _supervisor(core)
        for core in roots
        if core.state is not SupervisorState.STOPPED or core.failure is not None
    )


def _supervisor(core: TreeCore) -> SupervisorSnapshot:
    rules = core.spec.rules
    return SupervisorSnapshot(
        name=in_short(core.spec.name),
        state=core.state.value,
        strategy=rules.strategy.value,
        max_restarts=rules.limit.max_restarts,
        within=rules.limit.within,
        failure=_in_words(core.failure),
        children=tuple(map(_child, core.infos)),
    )


def _child(info: ChildInfo) -> ChildSnapshot:
    nested = core_of(info.child)
    kind = "" if info.kind is None else info.kind.value
    return ChildSnapshot(
        id=in_short(info.id),
        kind=kind,
        state=info.state.value,
        restart=info.restart.value,
        restarts=info.restarts,
        error=_in_words(info.error),
        pool=in_short(info.child.name) if kind == "pool" and info.child is not None else "",
        supervisor=None if nested is None else _supervisor(nested),
    )


def _in_words(error: BaseException | None) -> str:
    """An error in a line. Runs no code of the user's."""
    if error is None:
        return ""
    kind = name_of(type(error))
    if is_a(error, IonError):
        text = str(error)
    else:
        plain = [one for one in args_of(error) if type(one) in (str, int, float, bool)]
        text = ", ".join(map(str, plain))
    return in_short(f"{kind}: {text}" if text else kind)
