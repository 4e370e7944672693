"""A tree of children as text."""

from __future__ import annotations

from collections.abc import Iterable

from ion_actors.naming import printable, shown
from ion_actors.supervision.core import TreeCore, core_of
from ion_actors.supervision.report import ChildInfo, ChildKind
from ion_actors.supervision.states import Restart

__all__ = ["draw"]


def draw(core: TreeCore) -> str:
    """The supervisor and all below it, one line each.

    ::

        shop  supervisor  running  rest_for_one, at most 3 restarts in 60 s
        ├── db       actor       running
        ├── images   pool        running     restarts: 1
        └── reports  supervisor  running     one_for_one, at most 1 restarts in 5 s
            └── mail  actor  restarting  temporary, restarts: 2, last: OSError('gone')
    """
    head = f"{printable(core.spec.name)}  supervisor  {core.state.value}  {_rules(core)}"
    return "\n".join([head, *_below(core)])


def _below(core: TreeCore) -> Iterable[str]:
    infos = core.infos
    rows = [(printable(info.id), _kind(info), info.state.value, _facts(info)) for info in infos]
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(3)]
    for index, (info, row) in enumerate(zip(infos, rows, strict=True)):
        last = index == len(rows) - 1
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        yield "  ".join([("└── " if last else "├── ") + cells[0], *cells[1:], row[3]]).rstrip()
        if (nested := core_of(info.child)) is not None:
            for line in _below(nested):
                yield ("    " if last else "│   ") + line


def _kind(info: ChildInfo) -> str:
    return "" if info.kind is None else info.kind.value


def _facts(info: ChildInfo) -> str:
    facts = []
    if info.kind is ChildKind.SUPERVISOR and (nested := core_of(info.child)) is not None:
        facts.append(_rules(nested))
    if info.restart is not Restart.PERMANENT:
        facts.append(info.restart.value)
    if info.restarts:
        facts.append(f"restarts: {info.restarts}")
    if info.error is not None:
        facts.append(f"last: {shown(info.error)}")
    return ", ".join(facts)


def _rules(core: TreeCore) -> str:
    rules = core.spec.rules
    most, within = rules.limit.max_restarts, rules.limit.within
    limit = "any number of restarts" if most is None else f"at most {most} restarts in {within:g} s"
    return f"{rules.strategy.value}, {limit}"
