"""What the columns hold, and which rows do not hold that.

A column's type is read off the first rows: INTEGER, REAL, or TEXT if anything else occurs. An empty
value, or NA, is no value: NULL.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from tablelab.source import Chunk

__all__ = ["BadRow", "Batch", "Column", "Schema", "SchemaError", "Value"]

Value = int | float | str | None
Parse = Callable[[str], Value]

MISSING = frozenset({"", "NA"})
DIGITS = 18  # the longest whole number that always fits into SQLite's 64 bits
CHECK_EVERY = 500  # rows


class SchemaError(Exception):
    """A column that must be there is not; the message says which."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its name, its type in SQL, and whether every row must have a value there."""

    name: str
    kind: str
    required: bool = False

    def parser(self) -> Parse:
        """What makes a value of the text; it raises ValueError if the text is none."""
        parse = PARSERS[self.kind]
        return _demanding(parse) if self.required else parse


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that was left out: the number of its line, why, and what it said."""

    line: int
    reason: str
    text: str


@dataclass(frozen=True, slots=True)
class Batch:
    """A chunk after its conversion."""

    rows: list[list[Value]]
    bad: list[BadRow]


class Schema:
    """The columns of a table, and the conversion of its rows."""

    def __init__(self, columns: Sequence[Column]) -> None:
        self.columns = tuple(columns)
        self._parsers = [column.parser() for column in columns]

    @classmethod
    def guess(cls, header: Sequence[str], first: Chunk, required: Iterable[str]) -> Schema:
        """The schema of a table that begins with these rows.

        Raises:
            SchemaError: a required column is not in the header.
        """
        names = _distinct(header)
        demanded = set(required)
        if unknown := sorted(demanded - set(names)):
            raise SchemaError(f"no column {unknown[0]!r}; there are {', '.join(names)}")
        whole = [row for _, row in first if len(row) == len(names)]
        values = zip(*whole, strict=True) if whole else ([] for _ in names)
        kinds = [_kind_of(column) for column in values]
        pairs = zip(names, kinds, strict=True)
        return cls([Column(name, kind, name in demanded) for name, kind in pairs])

    def convert(self, chunk: Chunk, checkpoint: Callable[[], object]) -> Batch:
        """The values of these rows. ``checkpoint`` is called now and then."""
        batch = Batch([], [])
        for number, (line, fields) in enumerate(chunk):
            if number % CHECK_EVERY == 0:
                checkpoint()
            try:
                batch.rows.append(self._row(fields))
            except ValueError:
                batch.bad.append(BadRow(line, self._complaint(fields), _printable(fields)))
        return batch

    def _row(self, fields: list[str]) -> list[Value]:
        return [parse(text) for parse, text in zip(self._parsers, fields, strict=True)]

    def _complaint(self, fields: list[str]) -> str:
        """Why this row cannot be converted."""
        if len(fields) != len(self.columns):
            return f"{len(fields)} fields instead of {len(self.columns)}"
        for column, parse, text in zip(self.columns, self._parsers, fields, strict=True):
            try:
                parse(text)
            except ValueError as error:
                return f"{column.name} {error}"
        raise AssertionError("a row that cannot be converted has a reason")


def as_integer(text: str) -> Value:
    """A whole number."""
    digits = text.removeprefix("-")
    if digits.isdecimal() and digits.isascii():  # int() would take ' 1_000 '
        if len(digits) > DIGITS:
            raise ValueError("is too large")
        return int(text)
    if text in MISSING:
        return None
    raise ValueError("is not a whole number")


def as_real(text: str) -> Value:
    """A number."""
    if text in MISSING:
        return None
    try:
        value = float(text)
    except ValueError:
        raise ValueError("is not a number") from None
    if not math.isfinite(value) or "_" in text:
        raise ValueError("is not a number")
    return value


def as_text(text: str) -> Value:
    """Any text."""
    if text in MISSING:
        return None
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValueError("is not UTF-8") from None
    return text


PARSERS: dict[str, Parse] = {"INTEGER": as_integer, "REAL": as_real, "TEXT": as_text}


def _demanding(parse: Parse) -> Parse:
    def demand(text: str) -> Value:
        if (value := parse(text)) is None:
            raise ValueError("is missing")
        return value

    return demand


def _kind_of(values: Sequence[str]) -> str:
    present = [value for value in values if value not in MISSING]
    if not present:
        return "TEXT"
    if any(value[:1] == "0" and value[1:].isdecimal() for value in present):
        return "TEXT"  # 00501 is a code, not a number
    return next(kind for kind in PARSERS if _all_parse(PARSERS[kind], present))


def _all_parse(parse: Parse, values: Sequence[str]) -> bool:
    if parse is as_text:
        return True
    try:
        return all(parse(value) is not None for value in values)
    except ValueError:
        return False


def _distinct(header: Sequence[str]) -> list[str]:
    """The names of the columns, made different where they are not: SQL ignores case."""
    names: list[str] = []
    taken: set[str] = set()
    for number, title in enumerate(header, 1):
        name = _printable([title.strip()]) or f"column_{number}"
        if name.casefold() in taken:
            name = f"{name}_{number}"
        taken.add(name.casefold())
        names.append(name)
    return names


def _printable(fields: Sequence[str]) -> str:
    """The fields as one text, whatever they are made of."""
    return ",".join(fields).encode("utf-8", "backslashreplace").decode()
