"""What one run leaves undone, the next one does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.examples.programs import Refused, Start


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_all_is_done_in_the_end_and_nothing_twice(example: Start, tmp_path: Path) -> None:
    first = example("dead_letters.py", "--tasks", 40, "--time", 1, "--takes", 0.25)
    said = first.end(code=3)
    assert "0 calls were left by the last run, 40 are new" in said
    assert "the time is up" in said
    left = lines(tmp_path / "build" / "letters" / "left.jsonl")
    assert left
    assert {one["reason"] for one in left} <= {"closed", "stopped"}
    said = example("dead_letters.py", "--time", 60).end()
    assert f"{len(left)} calls were left by the last run, 0 are new" in said
    assert lines(tmp_path / "build" / "letters" / "left.jsonl") == []
    done = [one["args"][0] for one in lines(tmp_path / "build" / "letters" / "done.jsonl")]  # type: ignore[index]
    poison = lines(tmp_path / "build" / "letters" / "poison.jsonl")
    assert sorted(done) == [number for number in range(40) if number % 10 != 9]
    assert sorted(one["args"][0] for one in poison) == [9, 19, 29, 39]  # type: ignore[index]
    assert {len(one["history"]) for one in poison} == {2}  # type: ignore[arg-type]


def test_ctrl_c_leaves_the_rest_for_the_next_run(example: Start, tmp_path: Path) -> None:
    program = example("dead_letters.py", "--tasks", 100, "--time", 60, "--takes", 30)
    program.expect("100 are new")
    program.interrupt()
    assert "what was not done is left for the next run" in program.end(code=130)


@pytest.mark.parametrize(
    "arguments", [("--tasks", "-1"), ("--time", "0"), ("--takes", "soon")], ids=" ".join
)
def test_wrong_arguments_are_refused(refused: Refused, arguments: tuple[str, str]) -> None:
    assert arguments[0] in refused("dead_letters.py", *arguments)
