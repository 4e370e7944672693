"""That the benchmark of the hooks works; what anything costs, no test says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_benchmark_of_the_hooks_writes_its_table(tmp_path: Path) -> None:
    table = tmp_path / "table.md"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.benchmarks.hooks", "--quick", "--write",
         str(table)],
        cwd=ROOT, capture_output=True, text=True, timeout=250, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = [line for line in table.read_text(encoding="utf-8").splitlines() if line[:1] == "|"]
    assert len(rows) == 2 + 10
    assert all(row.count("|") == 5 for row in rows)
