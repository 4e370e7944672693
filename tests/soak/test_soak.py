"""The soak itself: that it runs, and that it would notice."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.house.code import ROOT
from tests.soak import errands, submitting
from tests.soak.__main__ import LOOPS
from tests.soak.plan import Ending, Job, Lot, Round
from tests.soak.play import play

PATIENCE = 120.0


def a_round(*jobs: Job, ending: Ending = Ending.DRAIN) -> Round:
    return Round(0, "thread", 2, 8, "block", True, False, False, (jobs, jobs), ending)


@pytest.mark.filterwarnings("ignore:pool .*:ResourceWarning")  # one of them is forgotten
@pytest.mark.parametrize("ending", Ending)
def test_a_round_is_played_to_its_end(ending: Ending) -> None:
    lots = [Lot.WELL, Lot.FAIL, Lot.PANIC, Lot.PAUSES, Lot.NESTED, Lot.BURST, Lot.STREAM]
    lots += [Lot.FLOCK] if LOOPS else []
    played = play(a_round(*[Job(lot, size=3) for lot in lots], ending=ending))
    assert played.faults == []
    assert sum(played.outcomes.values()) == 2 * 5


def test_a_task_that_ends_otherwise_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(submitting.ERRANDS, Lot.WELL, (errands.fail,))
    played = play(a_round(Job(Lot.WELL)))
    assert len(played.faults) == 2
    assert all("failed" in fault for fault in played.faults)


def test_the_program_runs_and_says_what_came_out(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.soak", "--seconds", "1", "--seed", "7"]
    command += ["--backends", "thread", "--into", str(tmp_path)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "seed 7" in done.stdout
    assert done.stdout.endswith("nothing was wrong\n")
    assert (tmp_path / "soak.csv").read_text().count("\n") > 1
    assert (tmp_path / "rounds.txt").read_text().startswith("7/0 thread")
