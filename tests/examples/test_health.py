"""The checksums of a folder, while one task is stuck."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import pytest

from tests.examples.programs import Program, Refused, Start


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Sixty files, in three folders."""
    root = tmp_path / "tree"
    for number in range(60):
        file = root / f"folder {number % 3}" / f"file {number:02}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(bytes([number]) * 1000 * number)
    return root


def stuck(program: Program) -> None:
    program.expect(r"STUCK for .* s: 'the pipe' on sums-0, which is replaced; it is at")
    program.expect("file.read")
    program.expect(r"pool 'sums' is running: \d workers, \d+ of 32 tasks queued")
    program.expect(r"  sums-0: 'the pipe' for ")


def test_what_is_stuck_is_found_and_all_the_rest_is_done(
    example: Start, tree: Path, tmp_path: Path
) -> None:
    arguments = ["--stuck-after", 0.05, "--sums", tmp_path / "sums"]
    program = example("health.py", tree, *arguments)
    stuck(program)
    assert "the pipe has ended after all: e3b0c44298fc1c14..." in program.end()
    lines = (tmp_path / "sums").read_text().splitlines()
    files = sorted(one for one in tree.rglob("*") if one.is_file())
    assert lines == [f"{hashlib.sha256(one.read_bytes()).hexdigest()}  {one}" for one in files]


def test_it_grows_under_load(example: Start, tree: Path) -> None:
    program = example("health.py", tree, "--rounds", 100_000, "--most", 3)
    program.expect("has 2 workers now, and had 1")
    program.expect("has 3 workers now, and had 2")
    program.interrupt()
    assert "interrupted" in program.end(code=130)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGTERM here")
def test_sigterm_drains_and_names_what_did_not_end(example: Start, tree: Path) -> None:
    arguments = ["--rounds", 100_000, "--stuck-after", 0.05, "--patience", 0.2]
    program = example("health.py", tree, *arguments)
    stuck(program)
    program.terminate()
    program.expect("SIGTERM: draining")
    program.expect("task 'the pipe' is abandoned on worker sums-0")
    assert "was not drained in time" in program.end(code=143)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["/no/such/folder"], "no folder '/no/such/folder'"),
        (["--most", "0"], "at least 1 worker"),
        (["--stuck-after", "0"], "more than 0 seconds"),
    ],
)
def test_a_wrong_argument_is_named(refused: Refused, arguments: list[str], message: str) -> None:
    assert message in refused("health.py", *arguments)
