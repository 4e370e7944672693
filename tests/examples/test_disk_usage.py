"""The directory walk, as a user runs it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.examples.programs import Refused, Start


@pytest.mark.parametrize("workers", [1, 3])
def test_it_adds_up_a_tree(example: Start, tmp_path: Path, workers: int) -> None:
    for depth in range(1, 5):
        folder = tmp_path.joinpath("tree", *"abcd"[:depth])
        (folder / "empty").mkdir(parents=True)
        (folder / "file").write_bytes(b"x" * 1000)
    program = example("disk_usage.py", tmp_path / "tree", "--workers", workers, "--queue", 0)
    first, *_, last = program.end().strip().splitlines()
    assert first.split() == ["0.00", "MB", "4", "files", "tree/"]
    assert last.startswith("9 folders = 9 tasks")


def test_without_arguments_it_walks_the_standard_library(example: Start) -> None:
    said = example("disk_usage.py", "--depth", "0").end()
    assert "on 1 worker(s) and 1 place(s)" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["/no/such/folder"], "no folder '/no/such/folder'"), (["--workers", "0"], "at least 1 work")],
)
def test_a_wrong_argument_is_named(refused: Refused, arguments: list[str], message: str) -> None:
    assert message in refused("disk_usage.py", *arguments)
