"""Word counts over a corpus of real text, on all cores, with a crash in the middle.

::

    pip install .                             # nothing else is needed
    python examples/word_counts.py
    python examples/word_counts.py --folder ~/texts --pattern '*.txt' --workers 8

The corpus is the source code of Python's standard library, with its comments and docstrings, unless
you name another. Each task reads some files, splits them into words and counts them: pure Python,
so that threads have to take turns. What to look for:

- *Speed*: the same tasks in threads and in child processes (``backend="process"``).
- *Chunks*: a task gets several files at a time, so that the way there and back is worth it.
- *Tolerance*: with ``--crash`` one task reads an address that is not there, as a faulty extension
  module would. Its process dies, and nothing else: the counts are the same, since the task says
  that it may be tried again.

Exit code: 0, or 1 if threads and processes do not count the same, 2 for wrong arguments or an empty
corpus, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import ctypes
import fnmatch
import logging
import os
import re
import sys
import sysconfig
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from ion_actors import Pool

WORD = re.compile(r"[a-z]{3,}")
CHUNK = 40  # files


@dataclass(frozen=True)
class Job:
    """Some files to count the words of."""

    files: tuple[Path, ...]
    crash: Path | None = None  # crash unless this is there


def count(job: Job) -> Counter[str]:
    """The words of some files, and how often they occur."""
    if job.crash is not None and not job.crash.exists():
        job.crash.touch()
        ctypes.string_at(0)
    found: Counter[str] = Counter()
    for file in job.files:
        text = file.read_text(encoding="utf-8", errors="replace").lower()
        found.update(match.group() for match in WORD.finditer(text))
    return found


def corpus(folder: Path, pattern: str) -> list[Path]:
    """All files of that name in the folder and below."""
    return sorted(
        Path(place, name)
        for place, _, names in os.walk(folder)
        for name in fnmatch.filter(names, pattern)
    )


def jobs(files: Sequence[Path], crash: Path | None) -> Iterator[Job]:
    """All files in chunks. The middle one crashes, if any."""
    rest = iter(files)
    number = len(files) // CHUNK // 2
    while chunk := tuple(islice(rest, CHUNK)):
        yield Job(chunk, crash if number == 0 else None)
        number -= 1


def total(pool: Pool, files: Sequence[Path], crash: Path | None = None) -> Counter[str]:
    """The words of all files."""
    found: Counter[str] = Counter()
    patient = pool.options(retry_on_worker_death=1)
    for one in patient.map_unordered(count, jobs(files, crash)):
        found.update(one)
    return found


def timed(
    backend: str, workers: int, files: Sequence[Path], crash: Path | None = None
) -> tuple[Counter[str], float, int]:
    """The words, the seconds that it took, and how many workers were lost."""
    with Pool(workers, backend=backend) as pool:
        for future in [pool.submit(os.getpid) for _ in range(workers)]:
            future.result()  # the workers are there: their start is not measured
        began = time.perf_counter()
        found = total(pool, files, crash)
        return found, time.perf_counter() - began, pool.metrics().restarts


def main(argv: Sequence[str] | None = None) -> int:
    """Run it."""
    args = parse(argv)
    logging.getLogger("ion_actors").setLevel(logging.ERROR)  # a lost worker is a warning there
    files = corpus(args.folder, args.pattern)[: args.files]
    if not files:
        print(f"no file in {args.folder} is called {args.pattern}", file=sys.stderr)
        return 2
    size = sum(file.stat().st_size for file in files) / 1e6
    print(f"{len(files)} files, {size:.1f} MB, {args.workers} workers")
    words, in_threads, _ = timed("thread", args.workers, files)
    print(f"threads:    {in_threads:.2f} s")
    with tempfile.TemporaryDirectory() as folder:
        crash = Path(folder, "crashed") if args.crash else None
        found, in_processes, lost = timed("process", args.workers, files, crash)
    print(f"processes:  {in_processes:.2f} s, {in_threads / in_processes:.2f} times as fast")
    if args.crash:
        print(f"{lost} process crashed, and no word was lost")
    print("most used: ", ", ".join(f"{word} {times}" for word, times in found.most_common(8)))
    return 0 if found == words and lost == (1 if args.crash else 0) else 1


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The arguments."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    library = Path(sysconfig.get_path("stdlib"))
    parser.add_argument(
        "--folder", type=Path, default=library, help="the corpus (default: Python's library)"
    )
    parser.add_argument("--pattern", default="*.py", help="which files (default: *.py)")
    parser.add_argument("--files", type=int, default=1500, help="at most (default: 1500)")
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 2, help="(default: one for each CPU)"
    )
    parser.add_argument(
        "--crash", action=argparse.BooleanOptionalAction, default=True, help="(default: yes)"
    )
    args = parser.parse_args(argv)
    if args.workers < 1 or args.files < 1:
        parser.error("--workers and --files must be at least 1")
    return args


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
