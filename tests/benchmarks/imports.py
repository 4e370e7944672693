"""What a program pays before its first task: ``python -m tests.benchmarks.imports``.

Each program runs in a fresh interpreter, with all modules compiled before, and tells how long it
took and how much more memory the process has afterwards (on Linux; elsewhere, how much it ever
had). They take turns. The interpreter's own start is not counted, since it is the same for all.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

from tests.benchmarks.command import run_contests
from tests.benchmarks.measure import Contest, Line, Target

__all__ = ["contests", "main", "measured"]

TABLE = Path(__file__).parents[2] / "docs" / "explanation" / "import-table.md"
ROOT = Path(__file__).parents[2]

STANDARD = "threads and asyncio"
THREADS = "ThreadPoolExecutor"
PROCESSES = "ProcessPoolExecutor"

MODULES = "import concurrent.futures.thread, asyncio"

EXECUTOR = """
from concurrent.futures import ThreadPoolExecutor
executor = ThreadPoolExecutor(1)
executor.submit(pow, 2, 3).result()
"""

POOL = """
from ion_actors import Pool
pool = Pool(1)
pool.submit(pow, 2, 3).result()
"""

PROCESS_EXECUTOR = """
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
executor = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("forkserver"))
executor.submit(pow, 2, 3).result()
"""

PROCESS_POOL = """
from ion_actors import Pool
pool = Pool(1, backend="process")
pool.submit(pow, 2, 3).result()
"""

_AROUND = """
import sys
from time import perf_counter

def memory():
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * {page}
    except OSError:
        import resource
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

if __name__ == "__main__":
    memory()
    before, began = memory(), perf_counter()
{program}
    took = perf_counter() - began
    print(took * 1e3, (memory() - before) / 2**20)
"""

_compiled = tempfile.TemporaryDirectory(prefix="compiled-")  # for all programs of this run


def measured(program: str) -> tuple[float, float]:
    """Milliseconds and MiB that a program takes, in a fresh interpreter."""
    _compile(program)
    return _run(program)


@functools.cache
def _compile(program: str) -> None:
    _run(program)


def _run(program: str) -> tuple[float, float]:
    code = _AROUND.format(page=os.sysconf("SC_PAGESIZE"), program=textwrap.indent(program, "    "))
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": _compiled.name}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, check=True, capture_output=True,
        text=True, timeout=60,
    )  # fmt: skip
    took, memory = map(float, done.stdout.split())
    return took, memory


def more_memory(program: str, other: str) -> tuple[float]:
    """MiB that one program takes more than another one."""
    return (measured(program)[1] - measured(other)[1],)


def contests(scale: float = 1.0) -> list[Contest]:
    """All of them, which have no size."""
    del scale
    return [
        _contest("import", "`import ion_actors`", "import ion_actors", (1.5, 1.3), MODULES),
        _contest("pool", "`from ion_actors import Pool`", POOL.split("\n")[1], None, MODULES),
        _contest("task", "a pool, and one task", POOL, None, MODULES),
        Contest(
            "parent",
            (Line("a pool of processes, and one task: the parent's memory, beyond that of "
                  "`ProcessPoolExecutor`", "MiB", (Target(8, at_least=False),)),),
            functools.partial(more_memory, PROCESS_POOL, PROCESS_EXECUTOR),
            {},
        ),
    ]  # fmt: skip


def _contest(
    key: str, title: str, program: str, bounds: tuple[float, float] | None, other: str
) -> Contest:
    time, memory = bounds or (None, None)
    lines = (
        Line(f"{title}: time", "ms", _targets(time)),
        Line(f"{title}: memory", "MiB", _targets(memory)),
    )
    peers = {
        STANDARD: functools.partial(measured, other),
        THREADS: functools.partial(measured, EXECUTOR),
    }
    return Contest(key, lines, functools.partial(measured, program), peers)


def _targets(bound: float | None) -> tuple[Target, ...]:
    return () if bound is None else (Target(bound, at_least=False, peer=STANDARD),)


def main(arguments: list[str] | None = None) -> None:
    """Run the contests, print the results, and write the table if told to."""
    run_contests("tests.benchmarks.imports", contests, rounds=21, arguments=arguments, place=TABLE)


if __name__ == "__main__":
    main()
