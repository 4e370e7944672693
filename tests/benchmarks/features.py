"""What each feature of a pool costs for each task: ``python -m tests.benchmarks.features``.

Two questions: what a task costs that does not use a feature which its pool has, and what it costs
to use it. A burst of no-op tasks on one worker, with room for all, from the first submission until
the last is done: the CPU time of all threads, since that hardly depends on what else the machine
does. The plain pool and the others take turns, in many short parts.

What a *plain* pool costs now and cost before some commit: ``python -m tests.benchmarks.before``.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from ion_actors import CoDel, Pool, Worker
from ion_actors.supervision import Supervisor, child
from tests.benchmarks import table
from tests.benchmarks.measure import Contest, Line, Measure, Result, Spread, run

__all__ = [
    "PLAIN",
    "Setting",
    "contest",
    "kept_keys",
    "markdown",
    "measure",
    "plain",
    "with_options",
]

TABLE = Path(__file__).parents[2] / "docs" / "explanation" / "feature-table.md"
PLAIN = "a plain pool"

_PARTS = 9  # of each round
_HEADS = {
    "idle": "the pool has it, and the task has nothing to do with it",
    "used": "each task uses it",
}

#: Makes a pool with room for so many tasks, for the time of a block, and what to submit with.
Setting = Callable[[int], AbstractContextManager[Callable[..., Any]]]


def _nothing() -> None:
    pass


class _Resident(Worker):
    """A worker with a state, and with a method that does nothing."""

    def nothing(self) -> None: ...


@contextmanager
def plain(count: int, /, **settings: Any) -> Iterator[Callable[..., Any]]:
    """A pool, with these settings if there are any."""
    with Pool(1, count, **settings) as pool:
        yield pool.submit


@contextmanager
def with_options(count: int, /, **options: Any) -> Iterator[Callable[..., Any]]:
    """A plain pool, and a submitter with options that is kept."""
    with Pool(1, count) as pool:
        yield pool.options(**options).submit


@contextmanager
def _keys(count: int) -> Iterator[Callable[..., Any]]:
    with Pool(1, count) as pool:
        numbers = itertools.count()
        yield lambda fn: pool.options(key=next(numbers) % 100).submit(fn)


@contextmanager
def kept_keys(count: int) -> Iterator[Callable[..., Any]]:
    """A hundred keys in turn, each with a submitter that is kept."""
    with Pool(1, count) as pool:
        turns = itertools.cycle([pool.options(key=key).submit for key in range(100)])
        yield lambda fn: next(turns)(fn)  # noqa: PLW0108 - another one each time


@contextmanager
def _supervised(count: int) -> Iterator[Callable[..., Any]]:
    tree = Supervisor([child(Pool, id="pool", args=(1, count))], name="benchmark")
    with tree:
        yield tree["pool"].submit


@contextmanager
def _subscribed(count: int) -> Iterator[Callable[..., Any]]:
    with Pool(1, count) as pool:
        pool.dead_letters.subscribe(lambda letter: None)
        yield pool.submit


@contextmanager
def _signalled(count: int) -> Iterator[Callable[..., Any]]:
    with Pool(1, count) as pool, pool.drain_on_signal():
        yield pool.submit


@contextmanager
def _proxy(count: int) -> Iterator[Callable[..., Any]]:
    with Pool(1, count, worker=_Resident) as pool:
        nothing = pool.proxy().nothing
        yield lambda fn: nothing()


_bind = functools.partial

#: By whether the tasks use it, and by the name that the table shows.
FEATURES: dict[tuple[str, str], Setting] = {
    ("idle", "nothing: the plain pool once more"): plain,
    ("idle", "`helping=False`"): _bind(plain, helping=False),
    ("idle", '`overflow="reject"`'): _bind(plain, overflow="reject"),
    ("idle", '`overflow="drop_oldest"`'): _bind(plain, overflow="drop_oldest"),
    ("idle", "`worker=`, for plain functions"): _bind(plain, worker=_Resident),
    ("idle", "in a supervision tree"): _supervised,
    ("idle", "`stuck_after=60`"): _bind(plain, stuck_after=60.0),
    ("idle", "`drain_on_signal()`"): _signalled,
    ("idle", "`dead_letters.subscribe()`"): _subscribed,
    ("used", "`overflow=CoDel()`"): _bind(plain, overflow=CoDel(target=60.0, interval=60.0)),
    ("used", "`options(priority=1)`"): _bind(with_options, priority=1),
    ("used", "`options(key=...)`, 100 keys in turn"): _keys,
    ("used", "`options(ttl=60)`"): _bind(with_options, ttl=60.0),
    ("used", "`options(retry_on_worker_death=1)`"): _bind(with_options, retry_on_worker_death=1),
    ("used", "`options(timeout=60)`"): _bind(with_options, timeout=60.0),
    ("used", "`proxy().method()`"): _proxy,
}


def measure(setting: Setting, count: int) -> tuple[float]:
    """Microseconds for each task."""
    with setting(count) as submit:
        submit(_nothing).result()
        began = time.process_time()
        for future in [submit(_nothing) for _ in range(count)]:
            future.result()
        return ((time.process_time() - began) / count * 1e6,)


def contest(count: int, parts: int = _PARTS) -> Contest:
    """The plain pool against those with a feature."""

    def timed(setting: Setting) -> Measure:
        return lambda: measure(setting, count)

    peers = {f"{kind} {title}": timed(setting) for (kind, title), setting in FEATURES.items()}
    return Contest("features", (Line("a task", "µs"),), timed(plain), peers, parts=parts)


def markdown(result: Result, conditions: str) -> str:
    """The table."""
    rows = ["|  | a task | times the plain pool |", "| :--- | ---: | ---: |"]
    rows.append(f"| {PLAIN} | {Spread.of(result.pool).median:.1f} µs | 1 |")
    for kind, head in _HEADS.items():
        rows.append(f"| *{head}* |  |  |")
        rows += [_row(result, name, kind) for name in result.peers if name.startswith(kind)]
    return "\n".join([f"{conditions}.", "", *rows, "", _LEGEND])


def _row(result: Result, name: str, kind: str) -> str:
    values = result.peers[name]
    pairs = zip(values, result.pool, strict=True)
    ratio = Spread.of([theirs / ours for theirs, ours in pairs])
    return (
        f"| {name.removeprefix(kind).strip()} | {Spread.of(values).median:.1f} µs "
        f"| {ratio.median:.2f} ({ratio.low:.2f} to {ratio.high:.2f}) |"
    )


_LEGEND = f"""\
A burst of no-op tasks on one worker, from the first submission until the last is done, in CPU time
of all threads together: medians of all rounds, and the range of the ratios of each round, which in
turn is the median of {_PARTS} parts. The parts alternate. A task that does something makes all
ratios smaller.
"""


def main() -> None:
    """Measure, print the table, and write it if told to."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.features", description=__doc__
    )
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does it work?")
    parser.add_argument("--rounds", type=int, help="by default 7, or 1 if quick")
    parser.add_argument(
        "--write", type=Path, nargs="?", const=TABLE, metavar="FILE", help="by default in the docs"
    )
    options = parser.parse_args()
    rounds = options.rounds or (1 if options.quick else 7)
    conditions = table.conditions(rounds)
    asked = contest(200, parts=1) if options.quick else contest(5_000)
    (result,) = run(asked, rounds)
    text = markdown(result, conditions)
    print(text)
    if options.write is not None and not (options.quick and options.write == TABLE):
        options.write.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
