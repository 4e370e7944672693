"""That the benchmark works; how fast anything is, no test says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_every_contest_runs_and_is_told(tmp_path: Path) -> None:
    # In a program of its own: some of the peers leave threads and semaphores behind.
    found = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.processes", "--quick", "--write",
         tmp_path / "table.md"],
        cwd=ROOT, capture_output=True, text=True, timeout=250, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    rows = [
        "no-op tasks", "tasks that compute for 1 ms", "tasks that wait for 1 ms",
        "start of 4 workers", "map in chunks of 100",
    ]  # fmt: skip
    for row in rows:
        assert row in found.stdout
        assert f"| {row} |" in (tmp_path / "table.md").read_text()
