"""That the comparison of breakers works; what it finds, no test says."""

from __future__ import annotations

import pytest

from tests.benchmarks import breakers


def test_the_comparison_runs(capsys: pytest.CaptureFixture[str]) -> None:
    breakers.main(["--quick"])
    said = capsys.readouterr().out
    for line in ("a call, closed: ", "a rejection, open: ", "8 threads, calls of 1 ms: "):
        assert line in said
    assert "no breaker" in said
