"""The program whose tasks share a budget of memory."""

from __future__ import annotations

import os
import re
import shutil
import sysconfig
from pathlib import Path

import pytest

from tests.examples.programs import Refused, Start

LIBRARY = Path(sysconfig.get_path("stdlib"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Some of the standard library's files, and one that is larger than a MiB."""
    top = tmp_path / "some of it"
    for package in ("json", "email", "asyncio"):
        shutil.copytree(LIBRARY / package, top / package)
    modules = sorted(one for one in LIBRARY.glob("*.py") if one.is_file())
    (top / "large.py").write_bytes(b"".join(one.read_bytes() for one in modules)[: 3 * 2**20])
    (top / "empty.txt").touch()
    return top


def peak_of(said: str) -> tuple[float, str]:
    found = re.search(r"peak of memory: ([\d.]+) (\w+) of [\d.]+ MiB; permits still held: 0$",
                      said, re.MULTILINE)  # fmt: skip
    assert found, said
    return float(found[1]), found[2]


def test_the_budget_holds_however_many_workers_there_are(example: Start, folder: Path) -> None:
    said = example("semaphore_pool.py", folder, "--memory", 1, "--workers", 16).end()
    files = [one for one in folder.rglob("*") if one.is_file() and one.parent.name != "__pycache__"]
    assert f"{len(files)} submitted = 0 queued + 0 running + {len(files)} completed" in said
    peak, unit = peak_of(said)
    assert unit == "MiB"
    assert peak == 1.0, "the large file takes all of it"
    sizes = sum(one.stat().st_size for one in files)
    assert re.search(rf"all +│ +{len(files)} │ +{sizes / 2**20:.1f} MiB", said)
    assert "heavy large.py has 1.0 MiB after" in said
    assert "longest wait for memory" in said


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_what_is_no_file_of_its_own_is_left_out(example: Start, tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("text" * 1000)
    (tmp_path / "link.txt").symlink_to(tmp_path / "one.txt")
    os.mkfifo(tmp_path / "pipe")  # reading it would take for ever
    said = example("semaphore_pool.py", tmp_path).end()
    assert "1 submitted = 0 queued + 0 running + 1 completed" in said


def test_a_file_that_cannot_be_read_is_named(example: Start, tmp_path: Path) -> None:
    locked = tmp_path / "locked.py"
    locked.write_text("pass")
    locked.chmod(0)
    if os.access(locked, os.R_OK):
        pytest.skip("this user may read everything")
    assert re.search(
        "failed .*locked.py .*ermission", example("semaphore_pool.py", tmp_path).end(code=1)
    )


def test_ctrl_c_ends_it_and_every_permit_is_back(example: Start) -> None:
    program = example("semaphore_pool.py", "--memory", 1)  # the whole standard library
    program.expect("^heavy ")
    program.interrupt()
    said = program.end(code=130)
    assert re.search(r"Interrupted after \d+ of \d+ files; pool closed\.", said)
    assert "permits still held: 0" in said


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("nowhere",), "nowhere"),
        (("--memory", "0"), "0 is not in 1..65536"),
        (("--workers", "some"), "invalid number value: 'some'"),
        ((".",), "no files in ."),
    ],
)
def test_wrong_arguments_are_named(
    refused: Refused, arguments: tuple[str, ...], complaint: str
) -> None:
    assert complaint in refused("semaphore_pool.py", *arguments)
