"""What is to be told of a snapshot: sections of rows, without a word on how they are drawn.

What is wrong comes first, and what there is none of is left out. All texts are clean: see
:func:`ion_actors.dashboard.terminal.words.clean`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from ion_actors.dashboard.terminal.words import age, clean, count, lines, place

__all__ = ["SORTS", "Row", "Section", "Snippet", "View", "report", "summary", "who_is_there"]

_NO_PLURAL = ("stuck", "broken")

_FEW = 10  # rows of a section, unless all are wanted

Facts = Mapping[str, Any]


class Snippet(NamedTuple):
    """A text, and how it is meant: "bad", "odd", "dim", "title", or nothing."""

    text: str
    meant: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a section, and the lines below it."""

    cells: tuple[Snippet, ...]
    below: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Section:
    """A table with a title. Columns with a ``>`` in front of their name stand at the right."""

    title: Snippet
    head: tuple[str, ...]
    rows: tuple[Row, ...]
    note: str = ""  # a line below


@dataclass(frozen=True, slots=True)
class View:
    """What is wanted of a snapshot."""

    sort: str = "trouble"  # how pools are sorted: a key of SORTS
    stacks: bool = False  # whole stacks, and all rows
    before: Facts | None = None  # an earlier snapshot, for rates


def _trouble(pool: Facts) -> tuple[Any, ...]:
    size = pool["queue_size"] or 0
    full = pool["queued"] / size if size else 0.0
    return not pool["broken"], -len(pool["stuck"]), -full, -pool["queued"], -pool["running"]


#: The orders of pools: the first one comes first.
SORTS: dict[str, Callable[[Facts], Any]] = {
    "trouble": _trouble,
    "name": lambda pool: pool["name"],
    "queued": lambda pool: -pool["queued"],
    "running": lambda pool: -pool["running"],
    "age": lambda pool: -(pool["run_time"] or 0.0),
}


def summary(facts: Facts) -> list[Snippet]:
    """The process, and its trouble, in two lines."""
    up = age(facts["time"] - facts["since"])
    at = time.strftime("%H:%M:%S", time.localtime(facts["time"]))
    head = (
        f"{clean(facts['program'])}  process {facts['pid']}  up {up}  {at}  "
        f"Python {clean(facts['python'])}  ion_actors {clean(facts['version'])}"
    )
    pools = facts["pools"]
    counts = [
        _plural(len(pools), "pool"),
        f"{sum(one['running'] for one in pools):,} running",
        f"{sum(one['queued'] for one in pools):,} queued",
    ]
    wrong = [
        (sum(len(one["stuck"]) for one in pools), "stuck"),
        (sum(bool(one["broken"]) for one in pools), "broken"),
        (sum(one["state"] == "open" for one in facts["breakers"]), "open circuit"),
    ]
    counts += [_plural(number, what) for number, what in wrong if number]
    return [
        Snippet(head, "title"),
        Snippet(", ".join(counts), "bad" if any(one for one, _ in wrong) else ""),
    ]


def report(facts: Facts, view: View = View()) -> list[Section]:  # it is frozen
    """All that is to be told."""
    sections = [
        _stuck(facts, view), _pools(facts, view), _running(facts, view), _waiting(facts, view),
        _dead_letters(facts, view), _supervisors(facts), _limits(facts),
    ]  # fmt: skip
    return [one for one in sections if one.rows]


def who_is_there(found: Iterable[Facts]) -> Section:
    """The processes that publish."""
    rows = []
    for one in found:
        if "error" in one:
            rows.append(_row(str(one["pid"]), "", "", "", Snippet(clean(one["error"]), "bad")))
            continue
        stuck = Snippet(f"{one['stuck']} stuck", "bad") if one["stuck"] else Snippet("")
        pools = ", ".join(map(clean, one["pools"]))
        up = age(time.time() - one["since"])
        rows.append(_row(str(one["pid"]), clean(one["program"]), up, stuck, pools))
    return Section(Snippet(""), (">PID", "PROGRAM", ">UP", "TROUBLE", "POOLS"), tuple(rows))


# -- sections ----------------------------------------------------------------------------------


def _stuck(facts: Facts, view: View) -> Section:
    found = [(pool, one) for pool in facts["pools"] for one in pool["stuck"]]
    found.sort(key=lambda one: -one[1]["age"])
    rows = [
        Row(
            (
                Snippet(clean(one["task"]), "bad"), Snippet(age(one["age"]), "bad"),
                Snippet(clean(one["worker"])), Snippet(place(one["stack"])),
            ),
            tuple(lines(one["stack"])) if view.stacks else (),
        )
        for _, one in found
    ]  # fmt: skip
    return _cut("STUCK", ("TASK", ">FOR", "WORKER", "WHERE"), rows, view, meant="bad")


def _pools(facts: Facts, view: View) -> Section:
    pools = sorted(facts["pools"], key=SORTS[view.sort])
    rates = _rates(facts, view.before)
    head = (
        "POOL", "STATE", ">BUSY", ">QUEUED", ">OLDEST", ">LONGEST", *([">DONE/S"] if rates else []),
        ">DONE", ">FAILED", ">PANICS", ">LOST", ">REFUSED", ">RESTARTS",
    )  # fmt: skip
    rows = [_pool(one, rates) for one in pools]
    # What has not gone wrong in any of them is left out.
    head, rows = _without_empty(head, rows, kept=head.index(">DONE") + 1)
    return Section(Snippet("POOLS", "title"), head, tuple(rows))


def _pool(pool: Facts, rates: Mapping[str, float]) -> Row:
    state = "broken" if pool["broken"] else "paused" if pool["paused"] else pool["state"]
    meant = {"running": "", "broken": "bad"}.get(state, "odd")
    size = pool["queue_size"]
    queued = count(pool["queued"]) + ("" if size is None else f"/{size:,}")
    crowded = size is not None and pool["queued"] >= 0.8 * max(size, 1)
    full = size is not None and pool["queued"] >= size > 0
    rate = [Snippet(_per_second(rates.get(pool["id"])))] if rates else []
    lost = sum(pool["dropped"].values())
    cells = (
        Snippet(clean(pool["name"])), Snippet(state, meant),
        Snippet(f"{pool['running']}/{pool['size']}"),
        Snippet(queued, "bad" if full else "odd" if crowded else ""),
        Snippet(age(pool["queue_time"])), Snippet(age(pool["run_time"])), *rate,
        Snippet(count(pool["completed"])), _odd(pool["failed"]), _odd(pool["panicked"]), _odd(lost),
        _odd(pool["rejected"]), _odd(pool["restarts"]),
    )  # fmt: skip
    return Row(cells, (clean(pool["broken"]),) if pool["broken"] else ())


def _rates(now: Facts, before: Facts | None) -> dict[str, float]:
    """Tasks that each pool has completed in a second."""
    if before is None or (took := now["time"] - before["time"]) <= 0:
        return {}
    past = {one["id"]: one["completed"] for one in before["pools"]}
    return {
        one["id"]: max(0, one["completed"] - past[one["id"]]) / took
        for one in now["pools"]
        if one["id"] in past
    }


def _running(facts: Facts, view: View) -> Section:
    found = [
        one
        for pool in facts["pools"]
        for one in pool["workers"]
        if one["state"] not in ("idle", "stuck")
    ]
    found.sort(key=lambda one: -(one["age"] or 0.0))
    rows = []
    for one in found:
        below = "".join(f", on top of {clean(name)}" for name in reversed(one["interrupted"]))
        task = clean(one["task"] or "") + below
        mark = "odd" if one["state"] == "starting" else ""
        pid = "" if one["pid"] is None else str(one["pid"])
        cells = (
            Snippet(clean(one["name"])), Snippet(task or "starting", mark),
            Snippet(age(one["age"]), mark), Snippet(pid), Snippet(place(one["stack"])),
        )  # fmt: skip
        rows.append(Row(cells, tuple(lines(one["stack"])) if view.stacks else ()))
    return _cut("RUNNING", ("WORKER", "TASK", ">FOR", ">PID", "WHERE"), rows, view)


def _waiting(facts: Facts, view: View) -> Section:
    found = [(one["age"], pool, one) for pool in facts["pools"] for one in pool["waiting_tasks"]]
    found.sort(key=lambda one: -one[0])
    rows = [
        _row(
            clean(one["name"]), age(waited), clean(pool["name"]), clean(one["key"] or ""),
            str(one["priority"] or ""), age(one["due_in"]),
            clean(f"{one['tries']} failed: {one['error']}") if one["tries"] else "",
        )
        for waited, pool, one in found
    ]  # fmt: skip
    columns = ("TASK", ">SINCE", "POOL", "KEY", ">PRIORITY", ">DUE IN", "TRIES")
    head, rows = _without_empty(columns, rows)
    total = sum(pool["queued"] for pool in facts["pools"])
    return _cut("WAITING, the oldest first", head, rows, view, total)


def _dead_letters(facts: Facts, view: View) -> Section:
    found = [(one["age"], pool, one) for pool in facts["pools"] for one in pool["dead_letters"]]
    found.sort(key=lambda one: one[0])
    rows = [
        _row(
            clean(one["name"]), f"{age(given_up)} ago", clean(pool["name"]),
            Snippet(clean(one["reason"]), "odd"), clean(one["error"]),
        )
        for given_up, pool, one in found
    ]  # fmt: skip
    return _cut(
        "DEAD LETTERS, the newest first",
        ("TASK", ">GIVEN UP", "POOL", "REASON", "ERROR"),
        rows,
        view,
    )


def _supervisors(facts: Facts) -> Section:
    rows = [row for tree in facts["supervisors"] for row in _tree(tree)]
    head = ("SUPERVISION", "KIND", "STATE", ">RESTARTS", "LAST ERROR")
    return Section(Snippet("SUPERVISORS", "title"), head, tuple(rows))


def _tree(tree: Facts) -> Iterator[Row]:
    yield _row(
        clean(tree["name"]), "supervisor", _state(tree["state"]), "",
        Snippet(clean(tree["failure"]), "bad"),
    )  # fmt: skip
    yield from _children(tree, "")


def _children(tree: Facts, indent: str) -> Iterator[Row]:
    for number, one in enumerate(tree["children"], 1):
        last = number == len(tree["children"])
        yield _row(
            f"{indent}{'└─' if last else '├─'} {clean(one['id'])}", clean(one["kind"]),
            _state(one["state"]), _odd(one["restarts"]), clean(one["error"]),
        )  # fmt: skip
        if one["supervisor"] is not None:
            yield from _children(one["supervisor"], indent + ("   " if last else "│  "))


def _state(state: str) -> Snippet:
    return Snippet(clean(state), "" if state == "running" else "odd")


def _limits(facts: Facts) -> Section:
    rows = [_row("breaker", clean(one["name"]), *_breaker(one), "") for one in facts["breakers"]]
    rows += [
        _row(
            "semaphore", clean(one["name"]), "",
            f"{one['limit'] - one['available']}/{one['limit']} held", _waits(one),
        )
        for one in facts["semaphores"]
    ]  # fmt: skip
    rows += [
        _row(
            "adaptive", clean(one["name"]), _paused(one),
            f"{one['in_flight']}/{one['limit']} in flight", _waits(one),
        )
        for one in facts["adaptive"]
    ]  # fmt: skip
    rows += [
        _row("rate", clean(one["name"]), _paused(one), _rate(one), _waits(one))
        for one in facts["limiters"]
    ]
    return Section(
        Snippet("LIMITS", "title"), ("KIND", "NAME", "STATE", "NOW", ">WAITING"), tuple(rows)
    )


def _breaker(one: Facts) -> tuple[Snippet, str]:
    state = Snippet(clean(one["state"]), {"open": "bad", "closed": ""}.get(one["state"], "odd"))
    if one["state"] == "open":
        again = age(one["retry_after"])
        return state, f"tries again in {again}" if again else "stays open until it is reset"
    return state, f"{one['failed']:,} of {one['failed'] + one['succeeded']:,} calls failed"


def _rate(one: Facts) -> str:
    tokens = "" if one["tokens"] is None else f"{one['tokens']:.0f} tokens"
    return ", ".join(part for part in (clean(one["rate"]), tokens) if part)


# -- parts -------------------------------------------------------------------------------------


def _row(*cells: Snippet | str) -> Row:
    return Row(tuple(one if isinstance(one, Snippet) else Snippet(one) for one in cells))


def _cut(
    title: str,
    head: tuple[str, ...],
    rows: list[Row],
    view: View,
    total: int | None = None,
    *,
    meant: str = "title",
) -> Section:
    shown = rows if view.stacks else rows[:_FEW]
    more = (len(rows) if total is None else total) - len(shown)
    note = f"and {more:,} more" if more > 0 and shown else ""
    return Section(Snippet(title, meant), head, tuple(shown), note)


def _without_empty(
    head: tuple[str, ...], rows: list[Row], *, kept: int = 0
) -> tuple[tuple[str, ...], list[Row]]:
    """Without the columns that no row has anything in, except for the first ones."""
    used = [at for at in range(len(head)) if at < kept or _is_used(at, rows)]
    less = [Row(tuple(row.cells[at] for at in used), row.below) for row in rows]
    return tuple(head[at] for at in used), less


def _is_used(number: int, rows: list[Row]) -> bool:
    return any(row.cells[number].text not in ("", "0") for row in rows)


def _odd(number: int) -> Snippet:
    return Snippet(count(number), "odd" if number else "dim")


def _paused(one: Facts) -> Snippet:
    return Snippet("paused", "odd") if one["paused"] else Snippet("")


def _waits(one: Facts) -> Snippet:
    return _odd(one["waiting"])


def _per_second(rate: float | None) -> str:
    return "" if rate is None else f"{rate:,.1f}" if rate < 100 else f"{rate:,.0f}"


def _plural(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 or what in _NO_PLURAL else f"{number:,} {what}s"
