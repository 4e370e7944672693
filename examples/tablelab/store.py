"""Where the rows go: one table of a SQLite database, and beside it one of the bad rows.

Everything that a :class:`Store` writes is one transaction: until :meth:`Store.commit`, nobody else
sees anything of it, and if that is never called, the database stays as it was.
"""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tablelab.schema import Batch, Schema

__all__ = ["Store", "StoreError", "ask"]

StoreError = sqlite3.Error


class Store:
    """A transaction on a database that replaces ``table``. To be used by one thread at a time."""

    def __init__(self, path: Path, table: str, schema: Schema) -> None:
        # Which thread that is may change: it is opened by one, written to by another.
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            self._begin(table, schema)
        except BaseException:
            self._db.close()
            raise

    def _begin(self, table: str, schema: Schema) -> None:
        rows, bad = _quoted(table), _quoted(f"{table}_bad_rows")
        columns = ", ".join(f"{_quoted(one.name)} {one.kind}" for one in schema.columns)
        self._db.execute("BEGIN IMMEDIATE")
        self._db.execute(f"DROP TABLE IF EXISTS {rows}")
        self._db.execute(f"DROP TABLE IF EXISTS {bad}")
        self._db.execute(f"CREATE TABLE {rows} ({columns})")
        self._db.execute(f"CREATE TABLE {bad} (line INTEGER, reason TEXT, text TEXT)")
        self._insert = f"INSERT INTO {rows} VALUES ({', '.join('?' * len(schema.columns))})"
        self._insert_bad = f"INSERT INTO {bad} VALUES (?, ?, ?)"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._db.close()  # which takes back what was not committed

    def write(self, batch: Batch) -> Batch:
        """Insert a batch."""
        self._db.executemany(self._insert, batch.rows)
        bad = [(one.line, one.reason, one.text) for one in batch.bad]
        self._db.executemany(self._insert_bad, bad)
        return batch

    def commit(self) -> None:
        """Make all of it visible, at once."""
        self._db.execute("COMMIT")


def ask(path: Path, query: str) -> list[tuple[Any, ...]]:
    """The rows of a database's answer."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        return db.execute(query).fetchall()


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
