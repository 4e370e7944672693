"""Full-text search in source code, by workers that hold a database connection each.

::

    python examples/search_library.py                         # in Python's standard library
    python examples/search_library.py ~/project --for "socket OR pipe" --for "dead lock"
    python examples/search_library.py --workers 8

What to look for:

- *A connection for each worker.* SQLite's connections must stay in the thread that opened them.
  Here each worker opens one when it starts, and closes it at its end.
- *A question that is none* (``AND AND``) fails, and its worker goes on with its connection.
- *A connection that is lost* (the program sees to that in the middle) takes its worker down, since
  the policy says so of that error. The next worker opens a new one, and no other question is lost.
- *The writer* is a pool of one worker, whose state is a transaction: threads do not wait for each
  other's locks, and if anything goes wrong before the last task, there is no index.
- *A broadcast* asks every worker at the end how many questions it has answered.

Exit code: 0, 2 for wrong arguments, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import functools
import logging
import sqlite3
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ion_actors import Directive, PanicRecovery, Pool, Worker

QUESTIONS = (
    "semaphore",
    "deadlock",
    '"race condition"',
    "NEAR(thread safe)",
    "elephant",
    "AND AND",
    "backpressure OR watermark",
)


class Hit(NamedTuple):
    """A file in which something was found."""

    path: str
    excerpt: str


class Writer(Worker):
    """Fills the index, in one transaction."""

    def __init__(self, database: Path) -> None:
        super().__init__()
        self.database = database

    def on_start(self) -> None:
        """Begin."""
        self.connection = sqlite3.connect(self.database, isolation_level=None)
        self.connection.execute("BEGIN")
        self.connection.execute("CREATE VIRTUAL TABLE files USING fts5(path UNINDEXED, text)")

    def add(self, path: Path) -> int:
        """Add a file. Returns its length in characters."""
        text = path.read_text(encoding="utf-8", errors="replace")
        self.connection.execute("INSERT INTO files VALUES (?, ?)", (str(path), text))
        return len(text)

    def commit(self) -> None:
        """All of it is there."""
        self.connection.execute("COMMIT")

    def on_stop(self) -> None:
        """Forget what was not committed."""
        self.connection.close()


class Searcher(Worker):
    """Answers questions, from a connection that only reads."""

    answered: int

    def __init__(self, database: Path) -> None:
        super().__init__()
        self.database = database
        self.answered = 0

    def on_start(self) -> None:
        """Open the connection."""
        self.connection = sqlite3.connect(f"{self.database.as_uri()}?mode=ro", uri=True)

    def on_stop(self) -> None:
        """Close it."""
        self.connection.close()

    def on_failure(self, exception_type: Any, exception_value: Any, traceback: Any) -> None:
        """Close it; it may be closed already, which does no harm."""
        self.connection.close()

    def find(self, question: str) -> list[Hit]:
        """The best three files for a question in SQLite's own language for that."""
        found = self.connection.execute(
            "SELECT path, snippet(files, 1, '[', ']', '…', 8) FROM files(?) ORDER BY rank LIMIT 3",
            [question],
        ).fetchall()
        self.answered += 1
        return [Hit(path, " ".join(excerpt.split())) for path, excerpt in found]

    def lose_connection(self) -> None:
        """Stands for whatever may happen to a connection."""
        self.connection.close()

    def on_receive(self, message: Any) -> int:
        """How many questions it has answered."""
        return self.answered


# What a closed connection raises. Its worker is of no more use; a question that SQLite cannot read
# is an OperationalError, and says nothing about the connection.
RECONNECT = PanicRecovery(decide={sqlite3.ProgrammingError: Directive.RESTART})


def build(database: Path, files: Sequence[Path]) -> int:
    """Index the files. Returns how many characters they have."""
    with Pool(1, 10, name="writer", worker=functools.partial(Writer, database)) as writer:
        length = sum(writer.map(writer.method(Writer.add), files))
        writer.call(Writer.commit).result()
        return length


def ask(pool: Pool, questions: Sequence[str]) -> Iterator[tuple[str, list[Hit] | BaseException]]:
    """Ask all of them, with an accident in the middle."""
    searcher = pool.proxy()
    half = len(questions) // 2
    asked = [(question, searcher.find(question)) for question in questions[:half]]
    searcher.lose_connection()
    asked += [(question, searcher.find(question)) for question in questions[half:]]
    for question, future in asked:
        error = future.exception()
        yield question, future.result() if error is None else error


def show(question: str, answer: list[Hit] | BaseException, folder: Path) -> None:
    """Print one answer."""
    if isinstance(answer, BaseException):
        print(f"{question!r}: {type(answer).__name__}: {answer.__cause__ or answer}")
        return
    print(f"{question!r}: {'nothing' if not answer else ''}")
    for hit in answer:
        print(f"    {Path(hit.path).relative_to(folder)}: {hit.excerpt}")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Search source code, a connection per worker.")
    standard_library = Path(sysconfig.get_path("stdlib"))
    parser.add_argument("folder", type=Path, nargs="?", default=standard_library)
    parser.add_argument("--for", dest="questions", action="append", metavar="QUESTION")
    parser.add_argument("--workers", type=int, default=2, help="default: 2")
    options = parser.parse_args(arguments)
    options.files = sorted(one for one in options.folder.glob("*.py") if one.is_file())
    if not options.files:
        parser.error(f"there are no Python files in {str(options.folder)!r}")
    if options.workers < 1:
        parser.error("it takes at least 1 worker")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program."""
    options = parse(arguments)
    logging.getLogger("ion_actors.pool").setLevel(logging.ERROR)  # it shows what happens itself
    try:
        with tempfile.TemporaryDirectory() as folder:
            search(options, Path(folder).resolve() / "index.db")
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


def search(options: argparse.Namespace, database: Path) -> None:
    """Build the index, ask, and say who has answered."""
    length = build(database, options.files)
    print(f"{len(options.files)} files, {length / 1e6:.1f} million characters\n")
    worker = functools.partial(Searcher, database)
    with Pool(options.workers, name="searchers", worker=worker, panic_recovery=RECONNECT) as pool:
        for question, answer in ask(pool, options.questions or QUESTIONS):
            show(question, answer, options.folder)
        counts = [answer.result() for answer in pool.broadcast("how many?")]
    numbers = pool.metrics()
    print(
        f"\n{numbers.completed} tasks done, {numbers.failed} failed, {numbers.panicked} lost with "
        f"their connection; {numbers.restarts} worker(s) replaced"
    )
    print(f"questions answered by those who are here now: {counts}")


if __name__ == "__main__":
    sys.exit(main())
