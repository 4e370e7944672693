"""A large CSV file into SQLite, through a supervised pool.

::

    pip install '.[examples]'
    python examples/csv_to_sqlite.py                    # 336 776 flights
    python examples/csv_to_sqlite.py my.csv --require id --database my.db

Three stages work at the same time, each on another chunk of rows::

    this thread reads ──chunks──▶ pool "convert" ──batches──▶ pool "write", of one worker

What to look for:

- *Backpressure*: each stage is a ``map()`` over the one before, and a map pulls its input only as
  its results are taken. So a slow disk slows down the reader, and however long the file is, only a
  few chunks of it are in memory: the report says how many rows at most.
- *Bad rows*: one that has too few fields, or a value that is not of its column's type, or none
  where there must be one, is left out and reported with the number of its line and the reason. All
  of them are in a table of their own. The program plants three among the flights; the others are
  real: flights that were cancelled or diverted have no time in the air.
- *One writer*: only one worker has the connection, so nothing locks. All of it is one transaction:
  after an error or Ctrl-C the database is as it was before.
- *Order*: ``map`` keeps the order of the file; with ``--unordered``, ``map_unordered`` writes what
  is ready first.

With the GIL, the pools do not make Python code run in parallel; what overlaps is the reading, the
writing and the conversion. A build without the GIL converts in parallel, too.

Exit code: 0, or 1 if the file or the database could not be used to the end, 2 for wrong arguments,
130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import collections
import functools
import itertools
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from extras import require

require("rich", extra="examples", about=__doc__)

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from ion_actors import Pool, current_context
from support import between, folder, metrics_sum, metrics_table
from tablelab.schema import BadRow, Batch, Schema, SchemaError
from tablelab.source import CREDIT, Chunk, Reader, Source, SourceError, sample
from tablelab.store import Store, StoreError, ask

CHUNK = 2_000  # rows
DELAYS = """
    SELECT carrier, count(*), avg(arr_delay), max(arr_delay)
    FROM flights GROUP BY carrier ORDER BY avg(arr_delay) DESC LIMIT 5
"""


@dataclass(slots=True)
class Flow:
    """What has come and gone. Only the thread that reads counts."""

    console: Console
    read: int = 0  # rows, as all numbers here
    written: int = 0
    bad: int = 0
    most_under_way: int = 0
    reasons: collections.Counter[str] = field(default_factory=collections.Counter)
    first: dict[str, BadRow] = field(default_factory=dict)  # of each reason

    def reading(self, chunks: Iterator[Chunk]) -> Iterator[Chunk]:
        """The same chunks, counted when they are pulled."""
        for chunk in chunks:
            self.read += len(chunk)
            self.most_under_way = max(self.most_under_way, self.under_way)
            yield chunk

    @property
    def under_way(self) -> int:
        """How many were read and are not in the database yet."""
        return self.read - self.written - self.bad

    def count(self, batch: Batch) -> None:
        """A batch was written."""
        for one in batch.bad:
            if one.reason not in self.first:
                line = f"[yellow]bad row[/] line {one.line}: {escape(one.reason)}"
                self.console.print(line, highlight=False, soft_wrap=True)
            self.first.setdefault(one.reason, one)
        self.reasons.update(one.reason for one in batch.bad)
        self.written += len(batch.rows)
        self.bad += len(batch.bad)


@dataclass(frozen=True, slots=True)
class Load:
    """What is to be loaded, and how."""

    source: Source
    database: Path
    required: Sequence[str]
    workers: int
    ordered: bool

    @property
    def table(self) -> str:
        """The table's name: ``flights.csv.zip`` becomes ``flights``."""
        return self.source.path.name.split(".")[0] or "rows"

    @property
    def most_rows(self) -> int:
        """How many rows can be under way: two windows, and the chunk that is on its way between."""
        return CHUNK * (self.window + WRITES + 1)

    @property
    def window(self) -> int:
        """Chunks that are being converted, or wait for it, or for the writer."""
        return self.workers + 2


WRITES = 2  # batches at the writer: one that is written, one that waits


# --- the run ------------------------------------------------------------------------------------


def convert(schema: Schema, chunk: Chunk) -> Batch:
    """A task: the rows of a chunk as values. It ends early if its context has ended."""
    return schema.convert(chunk, checkpoint=current_context().check)


def run(load: Load, reader: Reader, flow: Flow) -> tuple[Pool, Pool]:
    """Load all of it; returns the pools, drained."""
    chunks = reader.chunks(CHUNK)
    first = next(chunks, [])
    schema = Schema.guess(reader.header, first, load.required)
    converting = Pool(load.workers, load.window, name="convert")
    writing = Pool(1, WRITES, name="write")
    with (
        Store(load.database, load.table, schema) as store,
        progress_bar(flow.console) as bar,
        converting,
        writing,
    ):
        row = bar.add_task("rows", total=reader.size, flow=flow)
        texts = flow.reading(itertools.chain([first], chunks))
        spread = converting.map if load.ordered else converting.map_unordered
        batches = spread(functools.partial(convert, schema), texts, buffersize=load.window)
        for batch in writing.map(store.write, batches, buffersize=WRITES):
            flow.count(batch)
            bar.update(row, completed=reader.position)
        store.commit()
    return converting, writing


# --- what the person sees -----------------------------------------------------------------------


def progress_bar(console: Console) -> Progress:
    """A bar that shows how much of the file is read, and how much of it is in memory."""
    numbers = TextColumn(
        "{task.fields[flow].written:,} rows written · {task.fields[flow].under_way:,} under way"
    )
    return Progress(
        BarColumn(20), TaskProgressColumn(), TimeElapsedColumn(), numbers, console=console
    )


def bad_rows_table(flow: Flow) -> Table:
    """The reasons, how often each, and where for the first time."""
    table = Table("bad rows", "why", "the first", title_justify="left")
    table.columns[0].justify = "right"
    for reason, count in flow.reasons.most_common():
        one = flow.first[reason]
        text = one.text if len(one.text) <= 60 else one.text[:59] + "…"
        table.add_row(f"{count:,}", escape(reason), f"line {one.line}: {escape(text)}")
    return table


def delays_table(database: Path) -> Table:
    """What the flights were loaded for: an answer of the new database."""
    table = Table("carrier", "flights", "mean delay", "longest", title="minutes late at arrival")
    for carrier, flights, mean, longest in ask(database, DELAYS):
        table.add_row(carrier, f"{flights:,}", f"{mean:.1f}", f"{longest}")
    return table


def report(load: Load, flow: Flow, pools: tuple[Pool, Pool], took: float) -> None:
    """What was done."""
    console = flow.console
    if flow.bad:
        console.print(bad_rows_table(flow))
    console.print(metrics_table(*pools))
    lines = [
        *(f"{pool.name:<8}{metrics_sum(pool)}" for pool in pools),
        f"loaded  {flow.written:,} of {flow.read:,} rows in {took:.1f} s "
        f"({flow.read / took:,.0f} rows/s), {flow.bad:,} bad",
        f"memory  at most {flow.most_under_way:,} rows at a time (the limit is {load.most_rows:,})",
        f"tables  {load.table}, {load.table}_bad_rows in {load.database}",
    ]
    for line in lines:
        console.print(escape(line), highlight=False, soft_wrap=True)


def show(load: Load, console: Console) -> int:
    """Load it, then report; returns the exit code."""
    flow = Flow(console)
    begun = time.perf_counter()
    try:
        with load.source.open() as reader:
            pools = run(load, reader, flow)
    except (SourceError, StoreError) as error:
        say = f"[red]failed[/] {escape(str(error))}; nothing of it is in {load.database}."
        console.print(say, highlight=False, soft_wrap=True)
        return 1
    report(load, flow, pools, time.perf_counter() - begun)
    if load.source.planted:
        console.print(delays_table(load.database))
    return 0


# --- the command line ---------------------------------------------------------------------------


def command_line() -> argparse.ArgumentParser:
    """The options and their defaults."""
    parser = argparse.ArgumentParser(description="A CSV file into SQLite, through a pool.")
    parser.add_argument(
        "csv", type=folder, nargs="?", help="CSV, or a zip archive with one (default: flights)"
    )
    parser.add_argument(
        "--database", type=folder, metavar="FILE", default=Path("build/csv_to_sqlite.db"),
        help="(%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--require", action="append", default=[], metavar="COLUMN",
        help="rows without a value there are bad; may be repeated",
    )  # fmt: skip
    parser.add_argument("--unordered", action="store_true", help="write what is ready first")
    parser.add_argument("--workers", type=between(1, 256), default=4, help="(%(default)s)")
    return parser


def planned(options: argparse.Namespace) -> Load:
    """The load that these options ask for.

    Raises:
        SourceError: there is no such file.
    """
    if options.csv is not None and not options.csv.is_file():
        raise SourceError(f"no such file: {options.csv}")
    source = sample() if options.csv is None else Source(options.csv)
    required = options.require or ([] if options.csv else ["air_time"])
    ordered = not options.unordered
    return Load(source, options.database, required, options.workers, ordered)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    parser = command_line()
    options = parser.parse_args(arguments)
    console = Console()
    try:
        load = planned(options)
        load.database.parent.mkdir(parents=True, exist_ok=True)
    except (SourceError, OSError) as error:
        parser.error(str(error))
    if load.source.planted:
        console.print(CREDIT, style="dim", highlight=False, soft_wrap=True)
    try:
        return show(load, console)
    except SchemaError as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        console.print(f"[yellow]Interrupted[/]; nothing of it is in {load.database}.")
        return 130


if __name__ == "__main__":
    sys.exit(main())
