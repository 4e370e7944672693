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
_SHORTEST = 0.05  # ms; nothing shorter has a place on a logarithmic axis
_COLOURS = ("#2f86d6", "#dd7527", "#2f9e58", "#9868cf")
_STYLE = {
    "svg.fonttype": "none",  # text stays text, in the reader's font
    "svg.hashsalt": "ion_actors",  # the ids in the file do not change from run to run
    "font.size": 10,
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
            figure = Figure(figsize=(7.6, 3.3), layout="constrained")
            axes = figure.subplots(1, len(measured), sharey=True, squeeze=False)[0]
            for one, ax in zip(measured, axes, strict=True):
                ax.set_title(one.interpreter)
                panel(ax, one)
            for ax in axes[1:]:
                ax.set_ylabel("")
            path = folder / f"{name}.svg"
            figure.savefig(path, format="svg", transparent=True, metadata={"Date": None})
            written.append(path)
    return written


def _lines(ax: Any, measured: Measured, sweep: str, *series: str) -> None:
    for one in series:
        ax.plot(*measured.line(sweep, one), label=one)


def _limit(ax: Any, value: float, label: str) -> None:
    """What does not depend on the setting."""
    ax.axhline(value, label=label, color=_COLOURS[2], linestyle="--", marker="")


def _settings(ax: Any, measured: Measured, sweep: str, label: str) -> None:
    """An axis of settings: as many marks as fit, in plain numbers."""
    settings, _ = measured.line(sweep, next(iter(measured.sweeps[sweep])))
    # On a symmetric logarithmic axis zero has a place.
    ax.set_xscale("symlog", linthresh=1) if 0 in settings else ax.set_xscale("log")
    ax.set_xticks(settings, [_spaced(one) for one in settings])
    ax.set_xlabel(label)
    ax.minorticks_off()


def _spaced(number: float) -> str:
    return f"{number:,g}".replace(",", "\N{THIN SPACE}")


def _grain(ax: Any, measured: Measured) -> None:
    _lines(ax, measured, "grain", "Pool", "ThreadPoolExecutor")
    _settings(ax, measured, "grain", "length of a task in µs")
    ax.set_ylabel("% of the time spent in tasks")
    ax.set_ylim(0, 105)
    ax.legend()


def _workers(ax: Any, measured: Measured) -> None:
    for kind in measured.sweeps["workers"]:
        settings, speeds = measured.line("workers", kind)
        ax.plot(settings, [speed / speeds[0] for speed in speeds], label=kind)
    _settings(ax, measured, "workers", "size")
    ax.set_ylabel("speed, 1 worker = 1")
    _logarithmic(ax, (0.5, 1, 2, 4, 8, 16, 32))
    ax.legend()


def _queue_speed(ax: Any, measured: Measured) -> None:
    ax.plot(*measured.line("queue", "tasks/s"), label="Pool")
    _limit(ax, measured.median("queue", "ThreadPoolExecutor, tasks/s"), "ThreadPoolExecutor")
    _settings(ax, measured, "queue", "queue_size")
    ax.set_ylabel("thousand no-op tasks per second")
    ax.yaxis.set_major_formatter(lambda value, _: f"{value / 1e3:g}")
    ax.set_ylim(bottom=0)
    ax.legend()


def _queue_wait(ax: Any, measured: Measured) -> None:
    for one in ("median wait", "99th percentile"):
        settings, waits = measured.line("queue", one)
        ax.plot(settings, [max(wait, _SHORTEST) for wait in waits], label=f"Pool, {one}")
    reference = "ThreadPoolExecutor, median wait"
    _limit(ax, measured.median("queue", reference), reference)
    _settings(ax, measured, "queue", "queue_size")
    ax.set_ylabel("ms in the queue")
    _logarithmic(ax, (0.1, 1, 10, 100, 1_000))
    ax.set_ylim(bottom=_SHORTEST)
    ax.legend()


def _chunks(ax: Any, measured: Measured) -> None:
    _lines(ax, measured, "chunks", "Pool.map", "ThreadPoolExecutor.map")
    _settings(ax, measured, "chunks", "calls in one task")
    ax.set_ylabel("thousand items per second")
    _logarithmic(ax, (10_000, 100_000, 1_000_000, 10_000_000), unit=1e3)
    ax.legend()


def _logarithmic(ax: Any, marks: tuple[float, ...], unit: float = 1) -> None:
    low, high = ax.dataLim.intervaly
    ax.set_yscale("log")
    ax.set_ylim(low * 0.8, high * 1.25)
    shown = [mark for mark in marks if low * 0.8 <= mark <= high * 1.25]
    ax.set_yticks(shown, [_spaced(mark / unit) for mark in shown])
    ax.minorticks_off()


FIGURES: dict[str, Panel] = {
    "grain": _grain,
    "workers": _workers,
    "queue-speed": _queue_speed,
    "queue-wait": _queue_wait,
    "chunks": _chunks,
}
