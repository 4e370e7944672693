"""That the benchmarks work; how fast anything is, no test says."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks.at_rest import MAKERS
from tests.benchmarks.features import FEATURES

ROOT = Path(__file__).parents[2]
PATIENCE = 250  # seconds


def bench(*arguments: str, module: str = "tests.benchmarks") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", module, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def test_the_whole_benchmark_runs_and_writes_its_table(tmp_path: Path) -> None:
    table = tmp_path / "table.md"

    done = bench("--quick", "--write", str(table))

    assert done.returncode == 0, done.stderr
    assert not done.stderr
    rows = [line for line in table.read_text(encoding="utf-8").splitlines() if line[:1] == "|"]
    assert len(rows) == 2 + 17
    assert all(row.count("|") == 8 for row in rows)


def test_rows_can_be_chosen_and_then_the_docs_keep_their_table() -> None:
    before = (ROOT / "docs/explanation/benchmark-table.md").read_bytes()

    done = bench("--quick", "--only", "start,map", "--write")

    assert done.returncode == 0, done.stderr
    lines = done.stdout.replace("\N{NO-BREAK SPACE}", " ").splitlines()
    assert [line.split(":")[0] for line in lines if " 4 workers:" in line] == [
        "starting and stopping 4 workers",
        "map over 2 500 items, chunks of 1 000, 4 workers",
    ]
    assert "not written" in done.stdout
    assert (ROOT / "docs/explanation/benchmark-table.md").read_bytes() == before


@pytest.mark.parametrize("arguments", [("--rounds", "0"), ("--only", "nonsense")])
def test_senseless_arguments_are_refused(arguments: tuple[str, ...]) -> None:
    done = bench(*arguments)

    assert done.returncode == 2
    assert arguments[0] in done.stderr or "no such row" in done.stderr


def test_the_benchmark_of_the_features_writes_its_table(tmp_path: Path) -> None:
    table = tmp_path / "table.md"
    done = bench("--quick", "--write", str(table), module="tests.benchmarks.features")
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    rows = [line for line in table.read_text(encoding="utf-8").splitlines() if line[:1] == "|"]
    assert len(rows) == 2 + 1 + 2 + len(FEATURES)
    assert all(row.count("|") == 4 for row in rows)


def test_the_steps_of_pools_at_rest_are_told() -> None:
    done = bench("--pools", "3", "--tasks", "5", module="tests.benchmarks.at_rest")
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    assert done.stdout.count("made: ") == done.stdout.count("closed: ") == len(MAKERS)


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a checkout")
def test_this_version_can_be_compared_with_another_one() -> None:
    sizes = ("--rounds", "3", "--count", "50", "--sizes", "0,1,2")
    done = bench("HEAD", *sizes, module="tests.benchmarks.before")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("times as many as then") == 2
    assert done.stdout.count("times as much as then") == 2


def plots(*arguments: str) -> subprocess.CompletedProcess[str]:
    return bench(*arguments, module="tests.benchmarks.plots")


def test_the_sweeps_run_and_write_their_numbers_and_tables(tmp_path: Path) -> None:
    done = plots("--quick", "--rounds", "1", "--no-figures", "--into", str(tmp_path))

    assert done.returncode == 0, done.stderr
    assert not done.stderr
    assert len(list(tmp_path.glob("*gil.json"))) == 1
    tables = {path.stem: path.read_text("utf-8") for path in tmp_path.glob("*.md")}
    assert tables.keys() == {"conditions", "grain", "workers", "queue", "chunks", "features"}
    assert len(tables["workers"].splitlines()) == 2 + 2
    assert "ThreadPoolExecutor" in tables["features"]
    before = next(tmp_path.glob("*gil.json")).read_text("utf-8")
    few = plots(
        "--quick", "--rounds", "2", "--no-figures", "--into", str(tmp_path), "--only", "burst"
    )
    assert few.returncode == 0, few.stderr
    now = json.loads(next(tmp_path.glob("*gil.json")).read_text("utf-8"))["sweeps"]
    assert len(now.pop("burst")["Pool"]["1"]) == 2
    assert now == {k: v for k, v in json.loads(before)["sweeps"].items() if k != "burst"}


def test_what_it_costs_to_be_looked_at_is_told() -> None:
    few = ("--pools", "3", "--tasks", "10", "--viewers", "2", "--rounds", "2", "--seconds", "0.1")
    done = bench(*few, module="tests.benchmarks.viewers")
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    assert (
        len(re.findall(r"^(tasks per .*|the dashboard's share .*): ", done.stdout, re.MULTILINE))
        == 3
    )


def test_the_numbers_of_both_interpreters_are_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the extra `bench` is not installed")
    shutil.copy(ROOT / "docs/explanation/performance/gil.json", tmp_path / "gil.json")
    shutil.copy(ROOT / "docs/explanation/performance/gil.json", tmp_path / "nogil.json")

    # matplotlib's own warnings are none of our business.
    command = [sys.executable, "-m", "tests.benchmarks.plots", "--draw-only", "--into", tmp_path]
    subprocess.run(command, cwd=ROOT, check=True, timeout=PATIENCE, capture_output=True)
    drawn = {path.name: path.read_bytes() for path in tmp_path.glob("*.svg")}
    subprocess.run(command, cwd=ROOT, check=True, timeout=PATIENCE, capture_output=True)

    assert len(drawn) == 9
    for name, svg in drawn.items():
        assert svg.count(b"CPython 3") == 2, f"{name} has a panel for each"
        assert svg == (tmp_path / name).read_bytes(), f"{name} is the same for the same numbers"
        assert len(svg) < 100_000
