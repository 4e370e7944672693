"""The program whose limiter learns a server's limit."""

from __future__ import annotations

import re

import pytest

from tests.examples.programs import Refused, Start

NUMBER = r"(\d+)"


def test_the_limit_is_learnt_and_nothing_is_refused_afterwards(example: Start) -> None:
    said = example("ratelimit_pool.py", "--requests", 40, "--limit", 10, "--window", 0.5).end()
    acts = (
        "allows 10 requests per 0.5 s",
        "would send 1000/s",
        "reads the first answer",
        "refused",
    )
    at = 0
    for act in acts:
        assert act in said[at:], said
        at = said.index(act, at) + 1
    sums = re.search(f"{NUMBER} requests = {NUMBER} answered \\+ {NUMBER} refused", said)
    assert sums is not None, said
    sent, answered, refused = map(int, sums.groups())
    assert (answered, sent) == (40, answered + refused)
    assert f"{refused} refused while it learnt, 0 after" in said
    assert "the server allows 20.0/s in each full window" in said


def test_a_server_that_allows_plenty_refuses_nothing(example: Start) -> None:
    said = example("ratelimit_pool.py", "--requests", 30, "--limit", 10_000, "--window", 60).end()
    assert "30 requests = 30 answered + 0 refused" in said


def test_ctrl_c_leaves_nothing_running(example: Start) -> None:
    program = example("ratelimit_pool.py", "--limit", 1, "--window", 60)
    program.expect("reads the first answer")
    program.interrupt()
    assert "interrupted; the pool is closed, the server is stopped" in program.end(code=130)


@pytest.mark.parametrize(
    "arguments",
    [("--workers", "0"), ("--requests", "none"), ("--limit", "0"), ("--window", "nan")],
    ids=" ".join,
)
def test_wrong_arguments_are_refused(refused: Refused, arguments: tuple[str, str]) -> None:
    assert arguments[0] in refused("ratelimit_pool.py", *arguments)
