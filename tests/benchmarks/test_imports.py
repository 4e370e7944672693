"""That the benchmark works, and its programs do; how much any takes, no test says."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.benchmarks.imports import contests, main


def test_every_contest_runs_and_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--quick", "--write", str(tmp_path / "table.md")])
    said, table = capsys.readouterr().out, (tmp_path / "table.md").read_text("utf-8")
    for contest in contests():
        for line in contest.lines:
            assert f"{line.title}: " in said
            assert f"| {line.title} |" in table
