"""That the benchmark works; how fast anything is, no test says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="Ray is not installed: it is the extra 'ray'")

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.cluster
def test_every_contest_runs_and_is_told() -> None:
    found = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.on_ray", "--quick"],
        cwd=ROOT, capture_output=True, text=True, timeout=250, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    rows = [
        "no-op tasks", "tasks that wait for 1 ms", "map in chunks of 100", "arrays of 10 MB",
        "start of 4 workers",
    ]  # fmt: skip
    for row in rows:
        assert row in found.stdout
