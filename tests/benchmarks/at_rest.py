"""What pools cost that do nothing: ``python -m tests.benchmarks.at_rest``.

Many small pools are made, each in turn is given tasks, and all are closed: the pool, and the
standard library's executor for comparison, each in a process of its own. After each step it tells
how long that took, how many threads there are, and how much memory the process has (Linux only).
"""

from __future__ import annotations

import argparse
import gc
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from time import perf_counter

from ion_actors import Pool

__all__ = ["MAKERS", "Step", "main", "measure"]

#: What a step took: its name, seconds, threads there are after it, bytes of memory after it.
Step = tuple[str, float, int, int]

MAKERS: dict[str, Callable[[int], Executor]] = {
    "Pool": Pool,
    "Pool with an initializer": lambda size: Pool(size, initializer=_nothing),
    "ThreadPoolExecutor": ThreadPoolExecutor,
}


def main() -> None:
    """Measure each in a process of its own, and print the steps."""
    options = _parser().parse_args()
    if options.alone is None:
        for name in MAKERS:
            command = [sys.executable, "-m", "tests.benchmarks.at_rest", *sys.argv[1:]]
            subprocess.run([*command, "--alone", name], check=True)
        return
    print(f"{options.alone}: {options.pools} of {options.size} workers, {options.tasks} tasks each")
    for step in measure(MAKERS[options.alone], options.pools, options.size, options.tasks):
        print(_text(step, options.pools), flush=True)


def measure(make: Callable[[int], Executor], pools: int, size: int, tasks: int) -> Iterator[Step]:
    """The steps of one life: made, one task each, many tasks each, closed."""
    gc.collect()
    before = _memory()
    made: list[Executor] = []

    def make_all() -> None:
        made.extend(make(size) for _ in range(pools))

    def close_all() -> None:
        for executor in made:
            executor.shutdown()

    def work(count: int) -> None:
        for executor in made:
            last = [executor.submit(_nothing) for _ in range(count)]
            for future in last:
                future.result()

    yield _step("made", make_all, before)
    yield _step("one task each, one after the other", lambda: work(1), before)
    yield _step(f"{tasks} tasks each", lambda: work(tasks), before)
    yield _step("closed", close_all, before)


def _step(name: str, act: Callable[[], object], before: int) -> Step:
    began = perf_counter()
    act()
    took = perf_counter() - began
    gc.collect()
    return name, took, threading.active_count() - 1, _memory() - before


def _text(step: Step, pools: int) -> str:
    name, took, threads, memory = step
    each = f"{took / pools * 1e6:.0f} µs and {memory / pools / 1024:.1f} KiB for each"
    return f"  {name}: {took:.3f} s, {threads} threads, {memory / 2**20:.1f} MiB more ({each})"


def _memory() -> int:
    """Bytes of memory that the process has, as far as the system tells."""
    path = Path("/proc/self/statm")
    if not path.exists():
        return 0
    return int(path.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGESIZE")


def _nothing() -> None:
    pass


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.at_rest", description=__doc__)
    parser.add_argument("--pools", type=int, default=1000)
    parser.add_argument("--size", type=int, default=4, help="workers of each")
    parser.add_argument("--tasks", type=int, default=10_000, help="for each pool")
    parser.add_argument("--alone", choices=MAKERS, help="measure this one, in this process")
    return parser


if __name__ == "__main__":
    main()
