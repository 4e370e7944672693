"""The program that shows what a crash takes with it."""

from __future__ import annotations

import re

import pytest

from tests.examples.programs import Refused, Start


@pytest.mark.parametrize("how", ["segfault", "exit", "kill"])
def test_one_task_is_lost_here_and_many_there(example: Start, how: str) -> None:
    said = example("crash_isolation.py", "--tasks", 60, "--crash", 10, "--how", how).end()
    theirs = re.search(r"ProcessPoolExecutor .*?(\d+) BrokenProcessPool", said)
    assert theirs is not None, said
    assert int(theirs.group(1)) > 1
    assert re.search(r"^Pool +59 done, 1 TaskPanicked$", said, re.MULTILINE), said
    assert "worked at the second try" in said
    assert re.search(r"given up after it had taken down pool-\d, pool-\d, pool-\d", said), said
    if how == "segfault":
        assert "was killed by SIGSEGV" in said
        assert "in segfault" in said


@pytest.mark.parametrize("arguments", [("--crash", "-1"), ("--workers", "0"), ("--how", "badly")])
def test_wrong_arguments(refused: Refused, arguments: tuple[str, str]) -> None:
    assert "error: " in refused("crash_isolation.py", *arguments)
