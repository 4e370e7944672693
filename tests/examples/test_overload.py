"""The login service that is overrun."""

from __future__ import annotations

import re

import pytest

from tests.examples.programs import Refused, Start

POLICIES = ["block", "reject", "drop_newest", "drop_oldest", "caller_runs", "codel", "ttl"]


def rows_of(said: str) -> dict[str, list[str]]:
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in said.splitlines()]
    return {row[0]: row[1:] for row in cells if row and row[0] in POLICIES}


def test_each_policy_is_told_with_its_numbers(example: Start) -> None:
    said = example("overload.py", "--seconds", 0.5).end()
    rows = rows_of(said)
    assert list(rows) == POLICIES
    for name, (came, in_time, late, refused, _, guest, staff) in rows.items():
        assert int(in_time) + int(late) > 0, name
        assert int(came) >= int(in_time) + int(late) + int(refused), name
        assert re.fullmatch(r"\d+\.\d\d s", guest)
        assert re.fullmatch(r"\d+\.\d\d s", staff)
    assert "oldest" in said
    assert "newest" in said
    assert int(rows["reject"][3]) > 0
    assert int(rows["block"][3]) == int(rows["drop_newest"][3]) == 0


def test_ctrl_c_ends_it_with_what_is_known(example: Start) -> None:
    program = example("overload.py", "--seconds", 600, "--only", "reject")
    program.expect("reject")
    program.interrupt()
    assert "Interrupted" in program.end(code=130)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--only", "hope"), "'hope' is not one of block, reject"),
        (("--load", "0"), "0 is not in 1..100"),
        (("--patience", "-1"), "-1 is not more than 0"),
    ],
)
def test_wrong_arguments_are_named(
    refused: Refused, arguments: tuple[str, ...], complaint: str
) -> None:
    assert complaint in refused("overload.py", *arguments)
