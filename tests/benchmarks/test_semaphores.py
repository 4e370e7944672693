"""That the benchmark works; how fast anything is, no test says."""

from __future__ import annotations

import pytest

from tests.benchmarks import semaphores


def test_every_contest_runs_and_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    semaphores.main(["--quick"])
    said = capsys.readouterr().out
    for title in ("acquire and release, free", "the same in a coroutine", "8 threads, 1 permit"):
        assert f"{title}: " in said
    assert said.count("BoundedSemaphore") == 3
