"""A program in trouble, seen from outside."""

from __future__ import annotations

import http.client
import json
import time
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.examples.programs import PATIENCE, Program, Refused, Start


def look(address: str) -> dict[str, Any]:
    """Its pools, by name."""
    parts = urlsplit(address)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=PATIENCE)
    token = parts.query.partition("=")[2]
    connection.request("GET", "/api/snapshot", headers={"Authorization": f"Bearer {token}"})
    with connection.getresponse() as answer:
        found = json.loads(answer.read())
    connection.close()
    return {pool["name"]: pool for pool in found["pools"]} | {"all": found}


def address_of(program: Program) -> str:
    return program.expect(r"Look inside: (http://127.0.0.1:\d+/\?token=\S+)\n")[1]


def test_what_is_wrong_can_be_seen(example: Start) -> None:
    program = example("look_inside.py")
    address = address_of(program)
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        found = look(address)
        stuck, lost = found["thumbnails"]["stuck"], found["parser"]["dead_letters"]
        if stuck and lost and found["mails"]["queued"] == found["mails"]["queue_size"]:
            break
        time.sleep(0.1)
    (one,) = stuck
    assert one["task"] == "resize holiday.jpg"
    assert "in read_slowly" in one["stack"]
    assert [(letter["name"], letter["reason"]) for letter in lost] == [
        ("parse invoice-13.pdf", "quarantined")
    ]
    assert found["mails"]["waiting"] == 1
    assert [breaker["state"] for breaker in found["all"]["breakers"]] == ["open"]
    program.interrupt()
    assert "interrupted" in program.end(code=130)


@pytest.mark.parametrize("port", ["-1", "70000", "any"])
def test_wrong_arguments_are_refused(refused: Refused, port: str) -> None:
    assert "--port" in refused("look_inside.py", "--port", port)
