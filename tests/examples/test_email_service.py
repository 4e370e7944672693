"""The e-mail service: a real SMTP server, killed by SIGKILL while letters are on their way."""

from __future__ import annotations

import importlib.util
import mailbox
import re
from collections import Counter
from pathlib import Path

import pytest

from tests.examples.programs import Refused, Start

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("aiosmtpd") is None, reason="the mail server is aiosmtpd"
)


@pytest.fixture
def mail(tmp_path: Path) -> Path:
    """The folder of the service unless it is told otherwise."""
    return tmp_path / "build" / "mail"


def arrived(mail: Path) -> Counter[str]:
    """What the server has on disk, by Message-ID."""
    return Counter(letter["Message-ID"] for letter in mailbox.Maildir(mail / "mailbox"))


def test_the_server_dies_and_nothing_is_lost(example: Start, mail: Path) -> None:
    program = example("email_service.py", "--letters", 48, "--rate", 20, "--down", 1)
    for line in (
        r"server +takes mail",
        r"server +killed",
        r"circuit +half open",  # a trial, sooner or later of a server that is back
        r"circuit +closed: letters",
        r"letters +48 of 48 delivered",
    ):
        program.expect(line)
    said = program.end()
    for line in (r"circuit +open: letters wait in the outbox", r"server +is back, as process \d+"):
        assert re.search(line, said)
    assert "48 submitted = 0 queued + 0 running + 48 completed + 0 failed" in said
    found = re.search(r"arrived: 48 of 48 by Message-ID, 0 missing, (\d+) twice", said)
    assert found
    letters = arrived(mail)
    assert len(letters) == 48
    assert sum(count > 1 for count in letters.values()) == int(found[1])  # at least once
    assert [*(mail / "outbox").iterdir()] == []
    # The rate, while the server lived: after the first four, one in a twentieth of a second.
    begun = re.search(r"([\d.]+) s  server +takes mail", said)
    third = re.search(r"([\d.]+) s  letters +16 of 48", said)
    assert begun
    assert third
    assert float(third[1]) - float(begun[1]) >= (16 - 4) / 20
    assert re.search(r"^server +─*×+─*$", said, re.MULTILINE)  # noqa: RUF001
    assert re.search(r"^circuit +─+[×?]+─+$", said, re.MULTILINE)  # noqa: RUF001


def test_what_ctrl_c_leaves_in_the_outbox_is_delivered_by_the_next_run(
    example: Start, mail: Path
) -> None:
    program = example("email_service.py", "--letters", 40, "--down", 600)
    program.expect(r"circuit +open")  # everything waits for a server that is dead
    program.interrupt()
    said = program.end(code=130)
    left = len([*(mail / "outbox").glob("*.eml")])
    assert f"Interrupted; {left} letters are in the outbox" in said
    assert 20 <= left < 40
    said = example("email_service.py", "--letters", 2, "--down", 0, "--rate", 1000).end()
    assert f"{left} letters are still in the outbox" in said
    assert f"arrived: {left + 2} of {left + 2} by Message-ID" in said
    assert len(arrived(mail)) == 42


def test_a_letter_that_nobody_will_ever_take_is_told_and_kept(example: Start, mail: Path) -> None:
    outbox = mail / "outbox"
    outbox.mkdir(parents=True)
    (outbox / "00000.eml").write_text("Message-ID: <to-nobody@example.org>\nFrom: me\n\nHello?\n")
    said = example("email_service.py", "--letters", 5, "--down", 0, "--rate", 1000).end(code=1)
    assert "failed   00000: SMTPRecipientsRefused" in said
    assert "5 completed + 1 failed" in said
    assert "arrived: 5 of 6 by Message-ID, 1 missing" in said
    assert [one.name for one in outbox.iterdir()] == ["00000.refused"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [(("--rate", 0), "0 is not in 1..10000"), (("--folder", "/dev/null/x"), "Not a directory")],
)
def test_wrong_arguments_are_named(
    refused: Refused, arguments: tuple[object, ...], complaint: str
) -> None:
    assert complaint in refused("email_service.py", *arguments)
