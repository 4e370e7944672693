"""Sweeps: one number for each setting and each contestant, in rounds.

In each round everybody has a turn at every setting, so whatever else the machine does for a while
hits all of them.
"""

from __future__ import annotations

import functools
import gc
import importlib.util
import json
import statistics
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from time import process_time

from ion_actors import Pool
from tests.benchmarks import peers, tasks
from tests.benchmarks.plots import trials

__all__ = [
    "FULL",
    "QUICK",
    "Measured",
    "Sizes",
    "Sweep",
    "kept",
    "load",
    "measure",
    "save",
    "sweeps",
]

#: One number (or several, for series that are measured together) for one setting.
Trial = Callable[[int], float | tuple[float, ...]]

#: The numbers of all rounds: series, setting, round.
Numbers = dict[str, dict[str, list[float]]]

NO_SETTING = 0


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of everything there is."""

    total: float = 0.1  # seconds of work
    tasks: int = 128
    burst: int = 5_000
    waits: int = 2_000
    items: int = 40_000
    grains: tuple[int, ...] = (1, 3, 10, 30, 100, 300, 1_000)
    workers: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    queues: tuple[int, ...] = (0, 1, 4, 16, 64, 256, 1_024, 10_000)
    chunks: tuple[int, ...] = (1, 4, 16, 64, 256, 1_024)
    producers: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    queued: tuple[int, ...] = (1_000, 10_000, 100_000, 1_000_000)
    sizes: tuple[int, ...] = (1, 1_000, 100_000, 1_000_000, 10_000_000, 100_000_000)


FULL = Sizes()
#: Only shows that everything works.
QUICK = Sizes(
    0.001, 4, 50, 20, 64, (1, 100), (1, 2), (0, 16), (1, 16), (1, 2), (10, 20), (1,)
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Sweep:
    """What is tried, and by whom. A trial of several series has their names in its key."""

    key: str
    settings: tuple[int, ...]
    trials: dict[tuple[str, ...], Trial]
    references: dict[tuple[str, ...], Trial] = field(default_factory=dict)  # without a setting


@dataclass(frozen=True, slots=True)
class Measured:
    """The results of one interpreter."""

    interpreter: str
    conditions: str
    sweeps: dict[str, Numbers]

    def median(self, sweep: str, series: str, setting: int = NO_SETTING) -> float:
        """The middle of all rounds."""
        return statistics.median(self.sweeps[sweep][series][str(setting)])

    def line(self, sweep: str, series: str) -> tuple[list[int], list[float]]:
        """Settings and medians."""
        settings = [int(setting) for setting in self.sweeps[sweep][series]]
        return settings, [self.median(sweep, series, setting) for setting in settings]

    def ratios(self, sweep: str, series: str, to: str, setting: int = NO_SETTING) -> list[float]:
        """One series divided by another, round by round, in increasing order."""
        found = self.sweeps[sweep]
        pairs = zip(found[series][str(setting)], found[to][str(setting)], strict=True)
        return sorted(ours / theirs for ours, theirs in pairs)


def sweeps(sizes: Sizes) -> list[Sweep]:
    """All of them."""
    bind = functools.partial
    return [
        Sweep(
            "grain",
            sizes.grains,
            {
                ("Pool",): bind(trials.grain, Pool, total=sizes.total),
                ("ThreadPoolExecutor",): bind(trials.grain, ThreadPoolExecutor, total=sizes.total),
            },
        ),
        Sweep(
            "workers",
            sizes.workers,
            {(kind,): bind(trials.workers, kind, count=sizes.tasks) for kind in trials.kinds},
        ),
        Sweep(
            "queue",
            sizes.queues,
            {
                ("tasks/s",): lambda queue_size: trials.no_ops(
                    _pool_with(queue_size), count=sizes.burst
                ),
                ("median wait", "99th percentile"): lambda queue_size: trials.queue_wait(
                    _pool_with(queue_size), count=sizes.waits
                ),
            },
            {
                ("ThreadPoolExecutor, tasks/s",): lambda _: trials.no_ops(
                    ThreadPoolExecutor, count=sizes.burst
                ),
                ("ThreadPoolExecutor, median wait", "ThreadPoolExecutor, 99th percentile"): (
                    lambda _: trials.queue_wait(ThreadPoolExecutor, count=sizes.waits)
                ),
            },
        ),
        Sweep(
            "chunks",
            sizes.chunks,
            {
                ("Pool.map",): lambda chunk: tasks.map_of_pool(4, sizes.items, chunk, process_time),
                ("ThreadPoolExecutor, lists",): bind(trials.map_of_lists, count=sizes.items),
                ("ThreadPoolExecutor, ranges",): lambda chunk: tasks.map_of_threads(
                    4, sizes.items, chunk, process_time
                ),
            },
        ),
        *_growing(sizes),
        *_of_sizes(sizes),
        Sweep(
            "features",
            (),
            {},
            {
                (name,): functools.partial(_ignoring, trial, sizes.burst)
                for name, trial in trials.FEATURES.items()
            },
        ),
    ]


def _growing(sizes: Sizes) -> list[Sweep]:
    """Tasks per second of CPU time, which hardly depends on what else the machine does."""

    def burst(make: peers.MakePeer, size: int) -> float:
        return tasks.burst(make, size, sizes.burst, process_time)[0]

    def producers(make: peers.MakePeer, number: int) -> float:
        return tasks.producers(make, 4, sizes.burst, number, process_time)[0]

    def queued(make: peers.MakePeer, count: int) -> float:
        return tasks.queued(make, count, process_time)[0]

    return [
        _of_peers("burst", sizes.workers, burst),
        _of_peers("producers", sizes.producers, producers),
        _of_peers("queued", sizes.queued, queued, room=2 * sizes.queued[-1]),
    ]


def _of_peers(
    key: str,
    settings: tuple[int, ...],
    trial: Callable[[peers.MakePeer, int], float],
    room: int | None = None,
) -> Sweep:
    made = {"Pool": lambda size: peers.pool(size, room), "ThreadPoolExecutor": peers.threads}
    return Sweep(
        key, settings, {(name,): functools.partial(trial, make) for name, make in made.items()}
    )


def _of_sizes(sizes: Sizes) -> list[Sweep]:
    if importlib.util.find_spec("numpy") is None:
        return []
    return [
        Sweep(
            "sizes",
            sizes.sizes,
            {
                ("Pool",): functools.partial(
                    trials.there_and_back, lambda: Pool(1, backend="process")
                ),
                ("ProcessPoolExecutor",): functools.partial(
                    trials.there_and_back, lambda: ProcessPoolExecutor(1, get_context("forkserver"))
                ),
            },
        ),
    ]


def _pool_with(queue_size: int) -> Callable[[int], Pool]:
    return lambda size: Pool(size, queue_size)


def _ignoring(trial: Callable[[int], float], count: int, _: int) -> float:
    return trial(count)


def measure(sweep: Sweep, rounds: int) -> Numbers:
    """Have everybody take turns."""
    numbers: Numbers = {}
    for _ in range(rounds):
        for setting in sweep.settings:
            _one_turn(numbers, sweep.trials, setting)
        _one_turn(numbers, sweep.references, NO_SETTING)
    return numbers


def _one_turn(numbers: Numbers, of: dict[tuple[str, ...], Trial], setting: int) -> None:
    for names, trial in of.items():
        gc.collect()  # nobody pays for what the one before has left behind
        values = trial(setting)
        together = values if isinstance(values, tuple) else (values,)
        for name, value in zip(names, together, strict=True):
            numbers.setdefault(name, {}).setdefault(str(setting), []).append(value)


# -- kept as JSON --------------------------------------------------------------------------


def _tag() -> str:
    return "gil" if getattr(sys, "_is_gil_enabled", lambda: True)() else "nogil"


def kept(folder: Path) -> Measured | None:
    """What was written for an interpreter like this one, with or without the GIL."""
    path = folder / f"{_tag()}.json"
    return Measured(**json.loads(path.read_text("utf-8"))) if path.exists() else None


def save(folder: Path, measured: Measured) -> Path:
    """Write the numbers of this interpreter, with or without the GIL."""
    path = folder / f"{_tag()}.json"
    rounded = {
        sweep: {
            series: {setting: [_short(one) for one in values] for setting, values in line.items()}
            for series, line in numbers.items()
        }
        for sweep, numbers in measured.sweeps.items()
    }
    text = json.dumps(
        {
            "interpreter": measured.interpreter,
            "conditions": measured.conditions,
            "sweeps": rounded,
        },
        indent=1,
    )
    path.write_text(text + "\n", encoding="utf-8")
    return path


def _short(value: float) -> float:
    return float(f"{value:.4g}")


def load(folder: Path) -> list[Measured]:
    """What was measured so far: first with the GIL, then without."""
    return [Measured(**json.loads(path.read_text("utf-8"))) for path in _files(folder)]


def _files(folder: Path) -> Iterable[Path]:
    return [path for tag in ("gil", "nogil") if (path := folder / f"{tag}.json").exists()]
