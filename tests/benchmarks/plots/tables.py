"""The numbers as Markdown, for the page to include."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from tests.benchmarks.plots import trials
from tests.benchmarks.plots.sweeps import Measured

__all__ = ["TABLES", "write"]

_TIMES = "\N{MULTIPLICATION SIGN}"
_POOL = "`pool.submit(fn)`"


def write(folder: Path, measured: list[Measured]) -> list[Path]:
    """Write one file for each table, and one with what was measured where."""
    written = []
    for name, table in TABLES.items():
        path = folder / f"{name}.md"
        path.write_text("\n".join(table(measured)) + "\n", encoding="utf-8")
        written.append(path)
    return written


def _conditions(measured: list[Measured]) -> Iterable[str]:
    return [f"- {one.conditions}" for one in measured]


def _table(head: list[str], rows: Iterable[list[str]]) -> list[str]:
    lines = [head, [":---", *["---:"] * (len(head) - 1)], *rows]
    return [f"| {' | '.join(line)} |" for line in lines]


def _by_setting(
    sweep: str, first: str, columns: dict[str, Callable[[Measured, int], str]]
) -> Callable[[list[Measured]], list[str]]:
    """A row for each setting, and a group of columns for each interpreter."""

    def table(measured: list[Measured]) -> list[str]:
        head = [first, *(f"{name}, {one.interpreter}" for one in measured for name in columns)]
        series = next(iter(measured[0].sweeps[sweep].values()))
        rows = [
            [
                f"{int(setting):,}".replace(",", "\N{NO-BREAK SPACE}"),
                *(cell(one, int(setting)) for one in measured for cell in columns.values()),
            ]
            for setting in series
        ]
        return _table(head, rows)

    return table


def _ratio(sweep: str, ours: str, theirs: str) -> Callable[[Measured, int], str]:
    def cell(measured: Measured, setting: int) -> str:
        found = measured.ratios(sweep, ours, theirs, setting)
        return f"{_middle(found):.2f} {_TIMES} ({found[0]:.2f}\N{EN DASH}{found[-1]:.2f})"

    return cell


def _speedup(kind: str) -> Callable[[Measured, int], str]:
    def cell(measured: Measured, size: int) -> str:
        one, many = (measured.sweeps["workers"][kind][str(at)] for at in (1, size))
        return f"{_middle(sorted(b / a for a, b in zip(one, many, strict=True))):.1f} {_TIMES}"

    return cell


def _wait(series: str) -> Callable[[Measured, int], str]:
    def cell(measured: Measured, queue_size: int) -> str:
        return f"{measured.median('queue', series, queue_size):.3g} ms"

    return cell


def _middle(values: list[float]) -> float:
    return (values[(len(values) - 1) // 2] + values[len(values) // 2]) / 2


def _features(measured: list[Measured]) -> list[str]:
    head = ["", *(title for one in measured for title in (one.interpreter, "next to the first"))]
    rows = [
        [name, *(cell for one in measured for cell in _cost(one, name))]
        for name in measured[0].sweeps["features"]
    ]
    return _table(head, rows)


def _cost(measured: Measured, name: str) -> tuple[str, str]:
    ratio = _middle(measured.ratios("features", name, _POOL))
    return f"{measured.median('features', name):.1f} µs", f"{ratio:.2f} {_TIMES}"


TABLES: dict[str, Callable[[list[Measured]], Iterable[str]]] = {
    "conditions": _conditions,
    "grain": _by_setting(
        "grain",
        "µs",
        {"Pool / ThreadPoolExecutor": _ratio("grain", "Pool", "ThreadPoolExecutor")},
    ),
    "workers": _by_setting(
        "workers",
        "size",
        {kind: _speedup(kind) for kind in trials.kinds},
    ),
    "queue": _by_setting(
        "queue",
        "queue_size",
        {"median": _wait("median wait"), "99th percentile": _wait("99th percentile")},
    ),
    "chunks": _by_setting(
        "chunks",
        "chunksize",
        {
            f"Pool.map / {who}": _ratio("chunks", "Pool.map", f"ThreadPoolExecutor, {who}")
            for who in ("lists", "ranges")
        },
    ),
    "features": _features,
}
