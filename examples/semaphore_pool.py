"""How much a folder would shrink, found out by a pool whose tasks share a budget of memory.

::

    pip install '.[demo]'
    python examples/semaphore_pool.py                     # Python's standard library
    python examples/semaphore_pool.py ~/Documents --memory 16
    python examples/semaphore_pool.py --workers 16 --memory 1

Every file is read into memory and compressed there, one task each. How many files fit into memory
depends on which: so it is not enough to limit the workers. A ``WeightedSemaphore`` has one permit
for each KiB of the budget, and a task holds as many as its file is large. What to look for:

- *The budget holds*: the program counts for itself how much memory is in use. The peak at the end
  never exceeds the budget, however many workers there are.
- *The light do not starve the heavy*: a large file waits for its turn, and none that came later
  passes it. It is told when it has its memory, and the longest wait of all is told at the end.
- *Files larger than the budget* take all of it, and are read a piece at a time.
- *Cancellation*: Ctrl-C leaves the ``with`` block by an exception, which closes the pool. Tasks
  that wait for memory stop waiting, since ``acquire`` looks at their context.

Exit code: 0, or 1 if a file could not be read or memory was not given back, 2 for wrong arguments,
130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import sysconfig
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from pathlib import Path

from extras import require

require("rich", extra="examples", about=__doc__)

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TimeElapsedColumn,
)
from rich.table import Table
from rich.text import Text

from ion_actors import Pool, current_context
from ion_actors.semaphore import WeightedSemaphore
from support import between, folder, metrics_sum

KIB = 1024
STEP = 256 * KIB  # bytes compressed between two looks at the context
QUEUE_SIZE = 64
LEFT_OUT = {"__pycache__", "site-packages"}
KINDS_SHOWN = 8


# --- the work -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Shrunk:
    """What became of one file; sizes in bytes, times in seconds."""

    path: Path
    size: int
    compressed: int
    waited: float


class Meter:
    """Counts the bytes that are in memory, without asking the semaphore."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards both numbers
        self.held = 0
        self.peak = 0

    def add(self, size: int) -> None:
        """So many bytes more, or fewer."""
        with self._lock:
            self.held += size
            self.peak = max(self.peak, self.held)


class Shrinker:
    """Compresses files within a budget of memory, for any number of threads."""

    def __init__(self, budget: int, on_heavy: Callable[[Path, int, float], object]) -> None:
        self.budget = budget  # bytes
        self._on_heavy = on_heavy  # told of each file that takes half of the budget or more
        self.memory = WeightedSemaphore(budget // KIB, name="memory")
        self.meter = Meter()

    def shrink(self, path: Path) -> Shrunk:
        """The task: compress one file, when there is room for it."""
        began = time.perf_counter()
        room = min(path.stat().st_size, self.budget)
        with self.memory.hold(max(1, -(-room // KIB))):
            waited = time.perf_counter() - began
            if room >= self.budget / 2:
                self._on_heavy(path, room, waited)
            size = compressed = 0
            packer = zlib.compressobj()
            for piece in self._read(path, max(1, room)):
                size += len(piece)
                compressed += pack(packer, piece)
            return Shrunk(path, size, compressed + len(packer.flush()), waited)

    def _read(self, path: Path, room: int) -> Iterator[memoryview]:
        """The file, in as few pieces as the room allows: mostly one."""
        buffer = bytearray(room)
        self.meter.add(room)
        try:
            with path.open("rb", buffering=0) as file:
                while count := file.readinto(buffer):
                    yield memoryview(buffer)[:count]
        finally:
            self.meter.add(-room)


def pack(packer: zlib._Compress, piece: memoryview) -> int:
    """Compress it and throw the result away; returns its size."""
    size = 0
    for at in range(0, len(piece), STEP):
        current_context().check()  # end here after Ctrl-C
        size += len(packer.compress(piece[at : at + STEP]))
    return size


def files_below(top: Path) -> Iterator[Path]:
    """All ordinary files; the folders that are generated or not the library's own are left out."""
    for path in sorted(top.iterdir()):
        if path.is_symlink() or path.name in LEFT_OUT:
            continue
        if path.is_dir():
            yield from files_below(path)
        elif path.is_file():
            yield path


# --- what the person sees -----------------------------------------------------------------------


class MemoryColumn(ProgressColumn):
    """What the semaphore says, each time the progress bar is drawn."""

    def __init__(self, memory: WeightedSemaphore) -> None:
        super().__init__()
        self._memory = memory

    def render(self, task: Task) -> Text:
        """How much is held right now, and how many wait."""
        now = self._memory.metrics()
        held = (now.capacity - now.available) * KIB
        return Text(f"{amount(held)} held · {now.waiting} wait for memory", "dim")


def amount(size: int) -> str:
    """A number of bytes for people."""
    if size < 100 * KIB:
        return f"{size / KIB:,.1f} KiB"
    return f"{size / KIB / KIB:,.1f} MiB"


@dataclass
class Kind:
    """The files of one suffix."""

    files: int = 0
    size: int = 0
    compressed: int = 0

    def add(self, one: Shrunk) -> None:
        """Count one more."""
        self.files += 1
        self.size += one.size
        self.compressed += one.compressed


def table_of(results: Iterable[Shrunk], title: str) -> Table:
    """What compression would save, by the kind of file, the largest first."""
    kinds: dict[str, Kind] = {}
    total = Kind()
    for one in results:
        kinds.setdefault(one.path.suffix or "(none)", Kind()).add(one)
        total.add(one)
    ranking = sorted(kinds.items(), key=lambda item: -item[1].size)
    rest = Kind()
    for _, kind in ranking[KINDS_SHOWN:]:
        for name, number in dataclasses.asdict(kind).items():
            setattr(rest, name, getattr(rest, name) + number)
    rows = [*ranking[:KINDS_SHOWN], *([("others", rest)] if rest.files else []), ("all", total)]
    table = Table("kind", "files", "size", "compressed", "saved", title=title, title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    for name, kind in rows:
        saved = f"{1 - kind.compressed / kind.size:.0%}" if kind.size else ""
        table.add_row(
            escape(name), str(kind.files), amount(kind.size), amount(kind.compressed), saved
        )
    return table


# --- the run ------------------------------------------------------------------------------------


def shrink_all(
    paths: Sequence[Path], shrinker: Shrinker, pool: Pool, bar: Progress
) -> list[Future[Shrunk]]:
    """Submit every file and wait for all of them."""
    row = bar.add_task("files", total=len(paths))
    futures: list[Future[Shrunk]] = []
    for path in paths:
        future = pool.options(name=str(path)).submit(shrinker.shrink, path)
        future.add_done_callback(lambda _: bar.advance(row))
        futures.append(future)
    # Waiting inside the pool's block means that Ctrl-C is an exception in it, which closes it.
    wait(futures)
    return futures


def run(paths: Sequence[Path], options: argparse.Namespace, console: Console) -> int:
    """Shrink the files, and show what was found; returns the exit code."""

    def heavy(path: Path, room: int, waited: float) -> None:
        text = f"{path.name} has {amount(room)} after {waited:.2f} s"
        console.print(f"[cyan]heavy[/] {escape(text)}", highlight=False, soft_wrap=True)

    shrinker = Shrinker(options.memory * KIB * KIB, heavy)
    pool = Pool(options.workers, QUEUE_SIZE, name="shrink")
    columns = (BarColumn(20), MofNCompleteColumn(), TimeElapsedColumn())
    try:
        with Progress(*columns, MemoryColumn(shrinker.memory), console=console) as bar, pool:
            futures = shrink_all(paths, shrinker, pool, bar)
    except KeyboardInterrupt:
        done = pool.metrics().completed
        console.print(f"[yellow]Interrupted[/] after {done} of {len(paths)} files; pool closed.")
        console.print(said_of(shrinker), highlight=False)
        raise
    return report(paths, futures, shrinker, pool, console)


def report(
    paths: Sequence[Path],
    futures: Sequence[Future[Shrunk]],
    shrinker: Shrinker,
    pool: Pool,
    console: Console,
) -> int:
    """Show what was found; returns the exit code."""
    results = [one.result() for one in futures if one.exception() is None]
    console.print(table_of(results, "What zlib would save"))
    failed = tell_failures(paths, futures, console)
    slowest = max(results, key=lambda one: one.waited, default=None)
    lines = [metrics_sum(pool), said_of(shrinker)]
    if slowest is not None:
        name, size = slowest.path.name, amount(slowest.size)
        lines.append(f"longest wait for memory: {slowest.waited:.2f} s, by {name} of {size}")
    for line in lines:
        console.print(escape(line), highlight=False, soft_wrap=True)
    all_given_back = shrinker.memory.available == shrinker.memory.capacity
    sound = all_given_back and shrinker.meter.peak <= shrinker.budget
    return 0 if sound and not failed else 1


def said_of(shrinker: Shrinker) -> str:
    """The peak, and what is still held, which must be nothing."""
    now = shrinker.memory.metrics()
    peak = f"{amount(shrinker.meter.peak)} of {amount(shrinker.budget)}"
    return f"peak of memory: {peak}; permits still held: {now.capacity - now.available}"


def tell_failures(
    paths: Sequence[Path], futures: Sequence[Future[Shrunk]], console: Console
) -> int:
    """Name the files that could not be read; returns how many there are."""
    failed = 0
    for path, future in zip(paths, futures, strict=True):
        if (error := future.exception()) is not None:
            console.print(f"[yellow]failed[/] {escape(f'{path} ({error})')}", soft_wrap=True)
            failed += 1
    return failed


# --- the command line ---------------------------------------------------------------------------


def command_line() -> argparse.ArgumentParser:
    """The options and their defaults."""
    parser = argparse.ArgumentParser(description="How much a folder would shrink.")
    parser.add_argument(
        "folder",
        type=folder,
        nargs="?",
        metavar="FOLDER",
        default=Path(sysconfig.get_path("stdlib")),
        help="what to compress (default: Python's standard library)",
    )
    parser.add_argument(
        "--memory",
        type=between(1, 65536),
        metavar="MIB",
        default=4,
        help="budget in MiB (%(default)s)",
    )
    parser.add_argument("--workers", type=between(1, 256), default=8, help="(%(default)s)")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    parser = command_line()
    options = parser.parse_args(arguments)
    try:
        paths = list(files_below(options.folder))
    except OSError as error:
        parser.error(str(error))
    if not paths:
        parser.error(f"no files in {options.folder}")
    try:
        return run(paths, options, Console())
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
