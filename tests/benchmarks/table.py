"""The results as text and as a Markdown table."""

from __future__ import annotations

import datetime
import os
import platform
import sys
from collections.abc import Iterable

from tests.benchmarks.measure import LIMIT, Result, Spread, Target
from tests.benchmarks.rows import ACTORS, THREADS

__all__ = ["conditions", "markdown", "of_peers", "text"]

_TIMES = "\N{MULTIPLICATION SIGN}"
_COLUMNS = (THREADS, ACTORS, LIMIT)
_LEGEND = """\
Each cell of a peer shows its median, and the pool's number divided by the peer's: the median of the
ratios of all rounds, and their range. With tasks or items per second more is better, with all other
units less is. *The limit* is a bare `queue.SimpleQueue` with threads, without futures; for `map`,
the built-in `map`. Memory is what `tracemalloc` counts. The pool's `queue_size` is the default,
10\N{NO-BREAK SPACE}000, save in the rows on memory and on growth, where it has room for all.
"""
_SHORT_LEGEND = """\
Medians of all rounds, and for each peer the pool's number divided by the peer's: the median of the
ratios, and their range. With tasks or items per second more is better, with all other units less.
"""


def text(result: Result) -> str:
    """A few lines for the terminal."""
    line = result.line
    head = f"{line.title}: {_amount(Spread.of(result.pool).median, line.unit)}"
    for target in line.targets:
        head += f"; target {_goal(target, line.unit)}: {result.verdict(target)}"
    return "\n".join([head.replace("**", ""), *(_peer_line(result, one) for one in result.peers)])


def markdown(results: Iterable[Result], conditions: str) -> str:
    """The table, with what one must know to read it."""
    results = list(results)
    parts = [f"{conditions}\n", f"{_grid(results, _COLUMNS)}\n", _LEGEND]
    if notes := [note for result in results for note in _notes(result)]:
        parts.append(
            "The pool of the table next to one that never has to wait for room in its mailbox:\n\n"
            + "\n".join(notes)
            + "\n"
        )
    return "\n".join(parts)


def of_peers(results: Iterable[Result], conditions: str) -> str:
    """A table with a column for each peer that takes part."""
    results = list(results)
    peers = tuple(dict.fromkeys(peer for result in results for peer in result.peers))
    return f"{conditions}.\n\n{_grid(results, peers)}\n\n{_SHORT_LEGEND}"


def _grid(results: list[Result], columns: tuple[str, ...]) -> str:
    rows = [
        ["", "Pool", *columns, "target", ""],
        [":---", *["---:"] * (1 + len(columns)), ":---", ":---"],
        *(_row(result, columns) for result in results),
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def conditions(rounds: int) -> str:
    """Where and when; to be asked for before the first round, for the sake of the load."""
    free_threaded = not getattr(sys, "_is_gil_enabled", lambda: True)()
    today = datetime.datetime.now(datetime.UTC)
    return (
        f"{platform.python_implementation()} {platform.python_version()}"
        f"{' without the GIL' if free_threaded else ''}, {os.cpu_count()} CPUs "
        f"(load average before the run: {_load()}), "
        f"{today:%Y-%m-%d}, rounds: {rounds}"
    )


def _load() -> str:
    return f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"


def _row(result: Result, columns: tuple[str, ...]) -> list[str]:
    line = result.line
    return [
        line.title,
        _amount(Spread.of(result.pool).median, line.unit),
        *(_cell(result, peer) for peer in columns),
        "<br>".join(_goal(target, line.unit) for target in line.targets),
        "<br>".join(map(result.verdict, line.targets)),
    ]


def _cell(result: Result, peer: str) -> str:
    if peer not in result.peers:
        return ""
    median = Spread.of(result.peers[peer]).median
    return f"{_amount(median, result.line.unit)}<br>{_ratio(result.ratio(peer))}"


def _notes(result: Result) -> list[str]:
    """What is no column."""
    return [
        f"- {result.line.title}: {_ratio(result.ratio(peer))} the "
        f"{_amount(Spread.of(values).median, result.line.unit)} of {peer}"
        for peer, values in result.peers.items()
        if peer not in _COLUMNS
    ]


def _peer_line(result: Result, peer: str) -> str:
    median = _amount(Spread.of(result.peers[peer]).median, result.line.unit)
    return f"    {peer:34s} {median:>16s}   {_ratio(result.ratio(peer))}"


def _ratio(spread: Spread) -> str:
    return f"{spread.median:.2f} {_TIMES} ({spread.low:.2f}\N{EN DASH}{spread.high:.2f})"


def _goal(target: Target, unit: str) -> str:
    sign = "≥" if target.at_least else "≤"
    if target.peer is None:
        return f"{sign} {_amount(target.bound, unit)}"
    return f"{sign} {target.bound:g} {_TIMES} {target.peer}"


def _amount(value: float, unit: str) -> str:
    if value >= 1e6:
        return f"{value / 1e6:.2f} M {unit}"
    if value >= 1e4:
        return f"{value / 1e3:.0f} k {unit}"
    return f"{value:.3g} {unit}" if value < 100 else f"{value:.0f} {unit}"
