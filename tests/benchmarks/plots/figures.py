"""The numbers as SVG: small, the same for the same numbers, legible on light and on dark."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from tests.benchmarks.plots.sweeps import Measured

__all__ = ["FIGURES", "draw"]

# In the middle between white and black, since the page may be either.
_INK = "#7d7d7d"
_SHORTEST = 0.05  # ms; a logarithmic axis has no place for zero
_COLOURS = ("#2f86d6", "#dd7527", "#2f9e58", "#9868cf")
_STYLE = {
    "svg.fonttype": "none",  # text stays text, in the reader's font
    "svg.hashsalt": "ion_actors",  # the ids in the file do not change from run to run
    "font.size": 10,
    "legend.fontsize": 9,
    "xtick.labelsize": 9,
    "text.color": _INK,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "axes.titlecolor": _INK,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": mpl.cycler(color=_COLOURS),
    "axes.grid": True,
    "grid.color": _INK,
    "grid.alpha": 0.25,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "legend.frameon": False,
    "lines.marker": "o",
    "lines.markersize": 4,
}

Panel = Callable[[Any, Measured], None]


def draw(folder: Path, measured: list[Measured]) -> list[Path]:
    """Write one file for each figure, with one panel for each interpreter."""
    written = []
    with mpl.rc_context(_STYLE):
        for name, panel in FIGURES.items():
            having = [one for one in measured if name.partition("-")[0] in one.sweeps]
            if not having:
                continue
            figure = Figure(figsize=(7.6, 3.3), layout="constrained")
            axes = figure.subplots(1, len(having), sharey=True, squeeze=False)[0]
            for one, ax in zip(having, axes, strict=True):
                ax.set_title(one.interpreter)
                panel(ax, one)
            for ax in axes[1:]:
                ax.set_ylabel("")
            path = folder / f"{name}.svg"
            figure.savefig(path, format="svg", transparent=True, metadata={"Date": None})
            written.append(path)
    return written


def _line(ax: Any, label: str, values: list[float]) -> None:
    # The settings stand side by side, at equal distances: they are chosen to be read like that.
    ax.plot(range(len(values)), values, label=label)


def _limit(ax: Any, label: str, value: float) -> None:
    """What does not depend on the setting."""
    ax.axhline(value, label=label, color=_COLOURS[2], linestyle="--", marker="")


def _settings(ax: Any, measured: Measured, sweep: str, label: str) -> None:
    settings, _ = measured.line(sweep, next(iter(measured.sweeps[sweep])))
    ax.set_xticks(range(len(settings)), [_spaced(one) for one in settings])
    ax.set_xlabel(label)
    ax.legend()


def _spaced(number: float) -> str:
    return f"{number:,g}".replace(",", "\N{THIN SPACE}")


def _grain(ax: Any, measured: Measured) -> None:
    for who in ("Pool", "ThreadPoolExecutor"):
        _line(ax, who, measured.line("grain", who)[1])
    ax.set_ylabel("% of the time spent in tasks")
    ax.set_ylim(0, 105)
    _settings(ax, measured, "grain", "length of a task in µs")


def _workers(ax: Any, measured: Measured) -> None:
    for kind in measured.sweeps["workers"]:
        _, speeds = measured.line("workers", kind)
        _line(ax, kind, [speed / speeds[0] for speed in speeds])
    ax.set_ylabel("speed, 1 worker = 1")
    _logarithmic(ax, (0.5, 1, 2, 4, 8, 16, 32))
    _settings(ax, measured, "workers", "size")


def _queue_speed(ax: Any, measured: Measured) -> None:
    _line(ax, "Pool", [speed / 1e3 for speed in measured.line("queue", "tasks/s")[1]])
    reference = measured.median("queue", "ThreadPoolExecutor, tasks/s")
    _limit(ax, "ThreadPoolExecutor", reference / 1e3)
    ax.set_ylabel("thousand no-op tasks per second")
    ax.set_ylim(bottom=0)
    _settings(ax, measured, "queue", "queue_size")


def _queue_wait(ax: Any, measured: Measured) -> None:
    for one in ("median wait", "99th percentile"):
        _, waits = measured.line("queue", one)
        _line(ax, f"Pool, {one}", [max(wait, _SHORTEST) for wait in waits])
    reference = "ThreadPoolExecutor, median wait"
    _limit(ax, reference, measured.median("queue", reference))
    ax.set_ylabel("ms in the queue")
    _logarithmic(ax, (0.1, 1, 10, 100, 1_000))
    _settings(ax, measured, "queue", "queue_size")


def _chunks(ax: Any, measured: Measured) -> None:
    for who in measured.sweeps["chunks"]:
        _line(ax, who, [speed / 1e3 for speed in measured.line("chunks", who)[1]])
    ax.set_ylabel("thousand items per second of CPU time")
    _logarithmic(ax, (10, 100, 1_000, 10_000))
    _settings(ax, measured, "chunks", "calls in one task")


def _tasks_per_second(sweep: str, setting: str) -> Panel:
    what, marks = "thousand tasks per second of CPU time", (5, 10, 20, 50, 100, 200, 500)
    return _growth(sweep, what, setting, 1e3, marks)


def _growth(sweep: str, what: str, setting: str, scale: float, marks: tuple[float, ...]) -> Panel:
    """How something grows, for each of those who take part."""

    def panel(ax: Any, measured: Measured) -> None:
        for who in measured.sweeps[sweep]:
            _line(ax, who, [one / scale for one in measured.line(sweep, who)[1]])
        ax.set_ylabel(what)
        _logarithmic(ax, marks)
        _settings(ax, measured, sweep, setting)

    return panel


def _logarithmic(ax: Any, marks: tuple[float, ...]) -> None:
    """All panels share this axis, so it is made for all those drawn so far."""
    limits = [one.dataLim.intervaly for one in ax.figure.axes if one.has_data()]
    low, high = min(low for low, _ in limits) * 0.8, max(high for _, high in limits) * 1.25
    ax.set_yscale("log")
    ax.set_ylim(low, high)
    shown = [mark for mark in marks if low <= mark <= high]
    ax.set_yticks(shown, [_spaced(mark) for mark in shown])
    ax.minorticks_off()


FIGURES: dict[str, Panel] = {
    "grain": _grain,
    "workers": _workers,
    "queue-speed": _queue_speed,
    "queue-wait": _queue_wait,
    "chunks": _chunks,
    "burst": _tasks_per_second("burst", "workers"),
    "producers": _tasks_per_second("producers", "producers"),
    "queued": _tasks_per_second("queued", "tasks in the queue"),
    "sizes": _growth(
        "sizes", "ms there and back", "bytes of an array", 1, (0.1, 0.3, 1, 3, 10, 30, 100, 300)
    ),
}
