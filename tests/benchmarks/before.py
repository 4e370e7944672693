"""What a plain pool costs now, and cost before: ``python -m tests.benchmarks.before COMMIT``.

The other version is checked out beside this one. Each has a process of its own, and both live as
long as the measurement, so that they can take turns: one burst each, in alternating order. Who does
not use what was added since should not pay for it.

In a burst, submitter and workers contend for the GIL, and that is noisy. The steps alone are
compared, too: all tasks are submitted while the worker is kept busy, and then it runs them all.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.benchmarks import table

__all__ = ["Times", "main", "measure"]

ROOT = Path(__file__).parents[2]

#: Seconds for one burst: on the clock, and of CPU time. Without contention: both of CPU time, to
#: submit all the tasks, and then to run them.
Times = tuple[float, float]

# Only what every version has. Workers are started beforehand: when they start is not the question.
_BURSTS = """
import sys, threading, time
from ion_actors import Pool

def nothing():
    pass

pools = {}
def alone(count):
    entered, let_go = threading.Event(), threading.Event()
    with Pool(1, count) as pool:
        pool.submit(lambda: (entered.set(), let_go.wait()))
        entered.wait()
        began = time.process_time()
        futures = [pool.submit(nothing) for _ in range(count)]
        submitted = time.process_time()
        let_go.set()
        futures[-1].result()
        print(submitted - began, time.process_time() - submitted, flush=True)

for line in sys.stdin:
    size, count = map(int, line.split())
    if size == 0:
        alone(count)
        continue
    if size not in pools:
        pools[size] = Pool(size)
        together = threading.Barrier(size)
        for future in [pools[size].submit(together.wait) for _ in range(size)]:
            future.result()
    submit = pools[size].submit
    wall, cpu = time.perf_counter(), time.process_time()
    for future in [submit(nothing) for _ in range(count)]:
        future.result()
    print(time.perf_counter() - wall, time.process_time() - cpu, flush=True)
for pool in pools.values():
    pool.close()
"""


class Version:
    """A process that runs bursts on the pool of one version."""

    def __init__(self, tree: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _BURSTS],
            env={**os.environ, "PYTHONPATH": str(tree)},
            cwd=tree,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def burst(self, size: int, count: int) -> Times:
        """So many no-op tasks on so many workers, from the first submission until all are done.

        No worker at all stands for one without contention.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{size} {count}\n")
        self._process.stdin.flush()
        wall, cpu = map(float, self._process.stdout.readline().split())
        return wall, cpu

    def end(self) -> None:
        """End the process."""
        with self._process:
            assert self._process.stdin is not None
            self._process.stdin.close()


def measure(
    now: Version, then: Version, size: int, count: int, rounds: int
) -> list[tuple[Times, Times]]:
    """The times of each round, of this version and of the other one."""
    for one in now, then:  # warm
        one.burst(size, count)
    found = []
    for number in range(rounds):
        order = (now, then) if number % 2 else (then, now)
        times = {one: one.burst(size, count) for one in order}
        found.append((times[now], times[then]))
    return found


def _steps(count: int, found: Sequence[tuple[Times, Times]]) -> str:
    said = []
    for step, name in enumerate(("submit", "run")):
        now = statistics.median(now[step] for now, _ in found) / count
        ratio = statistics.median(now[step] / then[step] for now, then in found)
        said.append(f"to {name} a task {now * 1e6:.2f} µs now, {ratio:.3f} times as much as then")
    return f"without contention: {'; '.join(said)}"


def _line(size: int, count: int, found: Sequence[tuple[Times, Times]]) -> str:
    rate = count / statistics.median(now[0] for now, _ in found)
    clock = statistics.median(then[0] / now[0] for now, then in found)
    cpu = sorted(then[1] / now[1] for now, then in found)
    low, high = cpu[len(cpu) // 4], cpu[len(cpu) * 3 // 4]
    return (
        f"{size:3} workers: {rate / 1e3:.0f} k tasks/s now, {clock:.3f} times as many as then; by "
        f"CPU time {statistics.median(cpu):.3f} (half of all rounds: {low:.3f} to {high:.3f})"
    )


@contextlib.contextmanager
def _checked_out(commit: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "then"
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", str(tree), commit], check=True)
        try:
            yield tree
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], check=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.before", description=__doc__)
    parser.add_argument("commit", help="what to compare with; anything that git knows")
    parser.add_argument("--rounds", type=int, default=41)
    parser.add_argument("--count", type=int, default=10_000, help="tasks of a burst")
    parser.add_argument("--sizes", default="0,1,4,16", help="numbers of workers; 0: no contention")
    options = parser.parse_args()
    print(f"{table.conditions(options.rounds)}; bursts of {options.count}")
    with _checked_out(options.commit) as tree:
        now, then = Version(ROOT), Version(tree)
        try:
            for size in map(int, options.sizes.split(",")):
                found = measure(now, then, size, options.count, options.rounds)
                line = _line(size, options.count, found) if size else _steps(options.count, found)
                print(line, flush=True)
        finally:
            now.end()
            then.end()


if __name__ == "__main__":
    main()
