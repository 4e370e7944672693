"""The letters that are to be delivered, each a file until somebody has answered for it."""

from __future__ import annotations

import email
import email.policy
import uuid
from email.message import EmailMessage
from pathlib import Path

__all__ = ["Outbox"]


class Outbox:
    """A folder of letters. What is in it was not delivered yet, whatever happened."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def letters(self) -> list[Path]:
        """All of them, in the order in which they were written."""
        return sorted(self._folder.glob("*.eml"))

    def write(self, count: int) -> None:
        """So many new ones. Each has a Message-ID of its own, by which it is known for ever."""
        first = len(self.letters()) + 1
        for number in range(first, first + count):
            letter = EmailMessage(email.policy.SMTP)
            unique = uuid.uuid4().hex
            letter["Message-ID"] = f"<{number:05}.{unique}@example.org>"
            letter["From"] = "ion_actors <service@example.org>"
            letter["To"] = f"user{number}@example.com"
            letter["Subject"] = f"Invoice {number}"
            letter.set_content(f"Dear user {number},\n\nyour invoice comes to {number}.00 €.\n")
            aside = self._folder / f".{unique}"
            aside.write_bytes(letter.as_bytes())
            aside.replace(self._folder / f"{number:05}.{unique}.eml")

    @staticmethod
    def read(letter: Path) -> EmailMessage:
        """The letter itself."""
        return email.message_from_bytes(letter.read_bytes(), policy=email.policy.SMTP)

    @staticmethod
    def delivered(letter: Path) -> None:
        """Somebody has answered for it."""
        letter.unlink()

    @staticmethod
    def refused(letter: Path) -> None:
        """Nobody will ever take it. It is kept, but not sent again."""
        letter.replace(letter.with_suffix(".refused"))
