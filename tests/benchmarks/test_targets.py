"""That the benchmark works; how fast anything is, no test says."""

from __future__ import annotations

import pytest

from tests.benchmarks import targets


def test_chosen_contests_run_and_tell_their_targets(capsys: pytest.CaptureFixture[str]) -> None:
    targets.main(["--quick", "--only", "timeout,key"])
    said = capsys.readouterr().out
    for row in "timeout", "timeout, anew", "key", "key, 100 of them", "key, anew":
        assert f"options({row}): " in said
    assert "options(ttl)" not in said
    assert said.count("target \N{LESS-THAN OR EQUAL TO} ") == 5


def test_every_contest_has_a_target_and_the_peer_of_it() -> None:
    for contest in targets.contests(0.01):
        aims = [target for line in contest.lines for target in line.targets]
        assert any(target.peer in contest.peers for target in aims), contest.key
