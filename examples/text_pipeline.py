"""A folder of text through a pipeline into SQLite, and where its bottleneck is.

::

    pip install .                             # nothing else is needed
    python examples/text_pipeline.py
    python examples/text_pipeline.py --folder ~/texts --pattern '*.txt' --parsers 4

Files are read in threads, parsed in child processes, gathered, and written by one worker that owns
the connection: read → parse → batch → write. The corpus is the source code of Python's standard
library, unless you name another. What to look for:

- *The bottleneck*: with one parser, the table shows that ``parse`` is busy all the time, and the
  others wait for it.
- *The mend*: one argument. The second run has more parsers, and takes less time.
- *The bounds*: however large the corpus is, only as many files are in memory as the windows allow.

Exit code: 0, 2 for wrong arguments or an empty corpus, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import fnmatch
import os
import re
import sqlite3
import sys
import sysconfig
import tempfile
from collections import Counter
from collections.abc import Iterator
from functools import partial
from itertools import islice, pairwise
from pathlib import Path
from typing import NamedTuple

from ion_actors import Pool, Worker
from ion_actors.pipeline import Pipeline, PipelineMetrics

WORD = re.compile(r"[a-z]{3,}")
MOST = 20  # words of a file


class Text(NamedTuple):
    """A file, and what is in it."""

    file: str
    text: str


class Words(NamedTuple):
    """A file, and its most frequent words and pairs of words."""

    file: str
    counts: list[tuple[str, int]]


def read(file: Path) -> Text:
    """The text of a file."""
    return Text(str(file), file.read_text(encoding="utf-8", errors="replace"))


def parse(given: Text) -> Words:
    """Its words and pairs: pure Python, so that threads would take turns."""
    words = WORD.findall(given.text.lower())
    counts = Counter(words)
    counts.update(map(" ".join, pairwise(words)))
    return Words(given.file, counts.most_common(MOST))


class Store(Worker):
    """Owns the connection, which belongs to one thread."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def on_start(self) -> None:
        """Open the database anew."""
        self._path.unlink(missing_ok=True)
        self._connection = sqlite3.connect(self._path)
        self._connection.execute("CREATE TABLE words (file TEXT, word TEXT, times INTEGER)")

    def add(self, batch: list[Words]) -> int:
        """Write the words of some files in one transaction; return how many rows that were."""
        rows = [(one.file, word, times) for one in batch for word, times in one.counts]
        with self._connection:
            self._connection.executemany("INSERT INTO words VALUES (?, ?, ?)", rows)
        return len(rows)

    def on_stop(self) -> None:
        """Close it."""
        self._connection.close()


def corpus(folder: Path, pattern: str) -> Iterator[Path]:
    """All files of that name in the folder and below."""
    for place, _, names in os.walk(folder):
        yield from (Path(place, name) for name in fnmatch.filter(sorted(names), pattern))


def load(arguments: argparse.Namespace, database: Path, parsers: int) -> PipelineMetrics:
    """Bring the corpus into the database, with so many processes that parse."""
    files = islice(corpus(arguments.folder, arguments.pattern), arguments.files)
    with (
        Pool(4, name="readers") as readers,
        Pool(parsers, name="parsers", backend="process") as parser,
        Pool(1, name="store", worker=partial(Store, database)) as store,
        Pipeline(files)
        .map(read, pool=readers)
        .map(parse, pool=parser)
        .batch(20)
        .map(store.method(Store.add), pool=store, name="write") as pipeline,
    ):
        return pipeline.run()


def main() -> int:
    """Run it with one parser, and then with more."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path(sysconfig.get_path("stdlib")))
    parser.add_argument("--pattern", default="*.py", help="of file names (default: %(default)s)")
    parser.add_argument("--files", type=int, default=500, help="at most (default: %(default)s)")
    parser.add_argument("--parsers", type=int, default=max(2, os.cpu_count() or 2))
    arguments = parser.parse_args()
    if arguments.parsers < 1:
        parser.error("--parsers must be at least 1")
    if arguments.files < 1 or next(corpus(arguments.folder, arguments.pattern), None) is None:
        parser.error(f"no file in {arguments.folder} is called {arguments.pattern}")
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder, "words.sqlite")
        for parsers in (1, arguments.parsers):
            numbers = load(arguments, database, parsers)
            slowest = numbers.bottleneck
            print(f"with {parsers} in parse: {numbers.pulled} files in {numbers.seconds:.2f} s")
            print(numbers)
            print(f"the bottleneck is {slowest.name if slowest else 'nowhere'}\n")
        connection = sqlite3.connect(database)
        most = "SELECT word, SUM(times) FROM words GROUP BY word ORDER BY 2 DESC, 1 LIMIT 3"
        print(
            "most used:", ", ".join(f"{word} {times}" for word, times in connection.execute(most))
        )
        connection.close()
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
