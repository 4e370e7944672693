"""Pools of processes next to each other: bursts, tasks of a millisecond, maps, the start.

::

    python -m tests.benchmarks.processes

All have 4 workers, are warm, and use the forkserver where they can be told to. ``loky`` and
``pebble`` take part if they are installed (the extra ``bench``).

A task of a millisecond either keeps a CPU busy for so long, by the clock on the wall, or waits. The
limit is what as many processes do that have been told all of it at once, so that nothing is handed
over while they are at it.
"""

from __future__ import annotations

import concurrent.futures
import functools
import importlib.util
import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from time import perf_counter, sleep
from typing import Any

from ion_actors import Pool
from tests.benchmarks.command import run_contests
from tests.benchmarks.measure import LIMIT, Contest, Line, Target

__all__ = ["contests", "main"]

TABLE = Path(__file__).parents[2] / "docs" / "explanation" / "process-table.md"

STANDARD = "ProcessPoolExecutor"
LOKY = "loky"
PEBBLE = "pebble"
UNCHUNKED = "unchunked"

WORKERS = 4

Submit = Callable[..., Any]


# -- who takes part ----------------------------------------------------------------------------


@contextmanager
def pool() -> Iterator[Submit]:
    """Ours."""
    with Pool(WORKERS, backend="process") as ours:
        yield ours.submit


@contextmanager
def standard() -> Iterator[Submit]:
    """CPython's."""
    context = multiprocessing.get_context("forkserver")
    with concurrent.futures.ProcessPoolExecutor(WORKERS, mp_context=context) as theirs:
        yield theirs.submit


@contextmanager
def loky() -> Iterator[Submit]:
    """joblib's."""
    import loky as module

    with module.ProcessPoolExecutor(WORKERS) as theirs:
        yield theirs.submit


@contextmanager
def pebble() -> Iterator[Submit]:
    """The one that can kill a task."""
    import pebble as module

    theirs = module.ProcessPool(WORKERS, context=multiprocessing.get_context("forkserver"))
    yield theirs.submit
    theirs.close()
    theirs.join()


Peer = Callable[[], Any]


def _peers() -> dict[str, Peer]:
    found: dict[str, Peer] = {STANDARD: standard}
    if importlib.util.find_spec("loky"):
        found[LOKY] = loky
    if importlib.util.find_spec("pebble"):
        found[PEBBLE] = _pebble_as_others
    return found


@contextmanager
def _pebble_as_others() -> Iterator[Submit]:
    with pebble() as submit:
        # Its second argument is a time limit.
        yield lambda fn, *args: submit(fn, None, *args)


# -- what they do ------------------------------------------------------------------------------


def noop(value: int) -> int:
    """Nothing."""
    return value


def spin(duration: float) -> None:
    """Keep a CPU busy for so many seconds."""
    until = perf_counter() + duration
    while perf_counter() < until:
        pass


def burst(count: int, fn: Callable[..., Any], argument: Any, peer: Peer) -> tuple[float]:
    """Tasks per second, submitted at once."""
    with peer() as submit:
        _wait([submit(noop, number) for number in range(20 * WORKERS)])
        began = perf_counter()
        _wait([submit(fn, argument) for _ in range(count)])
        return (count / (perf_counter() - began),)


def told_at_once(count: int, fn: Callable[..., Any], argument: Any) -> tuple[float]:
    """The same, if each process is told all that it has to do by one message."""
    with standard() as submit:
        _wait([submit(noop, number) for number in range(20 * WORKERS)])
        began = perf_counter()
        _wait([submit(_repeat, count // WORKERS, fn, argument) for _ in range(WORKERS)])
        return (count // WORKERS * WORKERS / (perf_counter() - began),)


def _repeat(count: int, fn: Callable[..., Any], argument: Any) -> None:
    for _ in range(count):
        fn(argument)


def start(peer: Peer) -> tuple[float]:
    """Milliseconds until each worker may have done a task; the forkserver runs already."""
    began = perf_counter()
    with peer() as submit:
        _wait([submit(spin, 0.005) for _ in range(WORKERS)])
        return ((perf_counter() - began) * 1e3,)


def mapped(count: int, chunksize: int) -> tuple[float]:
    """Items per second through our map."""
    with Pool(WORKERS, backend="process") as ours:
        list(ours.map(noop, range(WORKERS)))
        began = perf_counter()
        for _ in ours.map(noop, range(count), chunksize=chunksize):
            pass
        return (count / (perf_counter() - began),)


def _wait(futures: list[Any]) -> None:
    for future in futures:
        future.result()


def contests(scale: float = 1.0) -> list[Contest]:
    """All of them."""
    many, some, items = (max(20, int(count * scale)) for count in (5_000, 1_000, 20_000))
    return [
        _contest("noop", "no-op tasks", "tasks/s", 2.0, functools.partial(burst, many, noop, 1)),
        _of_a_millisecond("spin", "tasks that compute for 1 ms", some, spin, 1.3),
        _of_a_millisecond("wait", "tasks that wait for 1 ms", some, sleep, 1.1),
        _contest("start", f"start of {WORKERS} workers", "ms", 1.0, start),
        Contest(
            "map",
            (Line("map in chunks of 100", "items/s",
                  (Target(5.0, at_least=True, peer=UNCHUNKED),)),),
            functools.partial(mapped, items, 100),
            {UNCHUNKED: functools.partial(mapped, items, 1)},
        ),
    ]  # fmt: skip


def _contest(
    key: str, title: str, unit: str, bound: float, measure: Callable[[Peer], Any]
) -> Contest:
    """One against all peers: so many times as good as the standard's, and no worse than any."""
    peers = _peers()
    more = unit != "ms"
    targets = [Target(bound, more, STANDARD, even=bound == 1)]
    targets += [Target(1.0, more, name, even=True) for name in peers if name != STANDARD]
    theirs = {name: functools.partial(measure, peer) for name, peer in peers.items()}
    line = Line(title, unit, tuple(targets))
    return Contest(key, (line,), functools.partial(measure, pool), theirs)


def _of_a_millisecond(
    key: str, title: str, count: int, fn: Callable[[float], Any], bound: float
) -> Contest:
    measure = functools.partial(burst, count, fn, 0.001)
    found = _contest(key, title, "tasks/s", bound, measure)
    limit = functools.partial(told_at_once, count, fn, 0.001)
    return replace(found, peers={**found.peers, LIMIT: limit})


def main(arguments: list[str] | None = None) -> None:
    """Run the contests, print the results, and write the table if told to."""
    run_contests("tests.benchmarks.processes", contests, rounds=9, arguments=arguments, place=TABLE)


if __name__ == "__main__":
    main()
