"""The shop whose server dies and whose table is dropped."""

from __future__ import annotations

import re

import pytest

from tests.examples.programs import Refused, Start


def test_who_is_restarted_and_why(example: Start) -> None:
    said = example("supervision_tree.py", "--orders", 10, "--outage", 2).end()
    acts = (
        "stock            started",
        "orders           started",
        "books/journal    started",
        "books            started",
        "10 booked",
        "├── stock   actor       running\n",
        "THE SERVER       is killed",
        "books            stopped, because of stock",
        "orders           stopped, because of stock",
        "stock            failed to start: ConnectionRefusedError",
        "is turned away: child 'orders' of supervisor 'shop' is not running, it is waiting",
        "├── stock   actor       restarting  restarts: ",
        "THE SERVER       is back",
        "stock            restarted\n",
        "orders           restarted, because of stock",
        "books            restarted, because of stock",
        "10 booked",
        "THE TABLE        is dropped",
        "books/journal    restarted\n",
        "10 booked",
        "├── journal  actor  running  restarts: 1, last: OperationalError(",
        "books            stopped\n",
        "orders           stopped\n",
        "stock            stopped\n",
        "30 booked, 2 failed, 1 turned away",
    )
    at = 0
    for act in acts:
        assert act in said[at:], f"{act!r} in\n{said}"
        at = said.index(act, at) + 1
    assert re.search(r"stock +panicked: Connection\w+Error|stock +panicked: BrokenPipe", said)
    assert re.search(r"books/journal +panicked: OperationalError", said)
    assert not re.search(r"greeter +restarted", said), "it has nothing to do with it"


def test_ctrl_c_leaves_nothing_running(example: Start) -> None:
    program = example("supervision_tree.py", "--outage", 50)
    program.expect("failed to start")
    program.interrupt()
    assert "interrupted; the tree is closed, the server is stopped" in program.end(code=130)


@pytest.mark.parametrize(
    "arguments", [("--orders", "0"), ("--outage", "51"), ("--orders", "many")], ids=" ".join
)
def test_wrong_arguments_are_refused(refused: Refused, arguments: tuple[str, str]) -> None:
    assert arguments[0] in refused("supervision_tree.py", *arguments)
