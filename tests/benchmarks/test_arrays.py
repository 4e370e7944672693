"""That the benchmark works; how fast anything is, no test says."""

from __future__ import annotations

import pytest


def test_every_contest_runs_and_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("numpy")
    from tests.benchmarks import arrays

    arrays.main(["--quick"])
    said = capsys.readouterr().out
    for size in ("64 KiB", "256 KiB", "1 MB"):
        assert f"an array of {size} there and back: " in said
