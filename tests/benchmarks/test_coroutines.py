"""That the benchmark works; how fast anything is, no test says."""

from __future__ import annotations

import pytest

from tests.benchmarks import coroutines


def test_every_contest_runs_and_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    coroutines.main(["--quick"])
    said = capsys.readouterr().out
    assert said.count("Semaphore and TaskGroup") >= 3
    assert said.count("memory of a waiting task") == 2
