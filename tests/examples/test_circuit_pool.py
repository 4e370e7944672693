"""The program with the server that dies and comes back."""

from __future__ import annotations

import re

import pytest

from tests.examples.programs import Refused, Start

NUMBER = r"(\d+)"


def test_the_breaker_opens_fails_a_trial_and_recovers(example: Start) -> None:
    said = example("circuit_pool.py", "--requests", 20, "--recovery", 0.3).end()
    acts = (
        "server   listens on",
        "server   STOPPED",
        "closed -> open",
        "open -> half-open",
        "half-open -> open",
        "server   STARTED again",
        "open -> half-open",
        "half-open -> closed",
        "20 more answered",
    )
    at = 0
    for act in acts:
        assert act in said[at:], said
        at = said.index(act, at) + 1
    assert re.search(r"request  \d+ failed: Connection\w+Error", said)


def test_the_sums_are_right_and_the_dead_server_is_spared(example: Start) -> None:
    said = example("circuit_pool.py", "--requests", 20, "--recovery", 0.3).end()
    sums = re.search(
        f"{NUMBER} requests = {NUMBER} answered \\+ {NUMBER} failed \\+ {NUMBER} rejected", said
    )
    assert sums is not None, said
    submitted, answered, failed, rejected = map(int, sums.groups())
    assert submitted == answered + failed + rejected
    assert answered >= 40
    assert failed >= 4  # three to open it, and the trial
    assert rejected >= 1
    assert f"{answered + failed} were let through by the breaker, {rejected} turned away" in said
    for row in ("server", "breaker", "answered", "failed", "rejected"):
        assert re.search(f"^{row} +[^ ].*$", said, re.MULTILINE), said


def test_ctrl_c_leaves_nothing_running(example: Start) -> None:
    program = example("circuit_pool.py", "--recovery", 30)
    program.expect("closed -> open")
    program.interrupt()
    assert "interrupted; the pool is closed, the server is stopped" in program.end(code=130)


@pytest.mark.parametrize(
    "arguments",
    [("--workers", "0"), ("--requests", "none"), ("--recovery", "0"), ("--recovery", "nan")],
    ids=" ".join,
)
def test_wrong_arguments_are_refused(refused: Refused, arguments: tuple[str, str]) -> None:
    assert arguments[0] in refused("circuit_pool.py", *arguments)
