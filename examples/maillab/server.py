"""A real SMTP server (aiosmtpd) in a process of its own, which can be killed and started again.

It keeps what it accepts in a Maildir, on disk: so what it has answered for survives its death.
"""

from __future__ import annotations

import asyncio
import collections
import mailbox
import os
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

__all__ = ["HOST", "Server", "ServerError", "message_ids"]

HOST = "127.0.0.1"


class ServerError(Exception):
    """The server did not start; the message says what it said."""


class Server:
    """The server's process, seen from the program. As a ``with`` block it runs inside of it."""

    def __init__(self, maildir: Path) -> None:
        self.port = 0  # any; the first start finds one
        self._maildir = maildir
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> int:
        """Start it, on the same port as before; returns its process id once it listens.

        Raises:
            ServerError: it did not.
        """
        self._process = process = subprocess.Popen(
            [sys.executable, __file__, str(self._maildir), str(self.port)],
            stdin=subprocess.PIPE,  # when this end of it closes, the server knows that it is alone
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is meant for the program, not for its server
        )
        assert process.stdout is not None
        said = process.stdout.readline().strip()
        if not said.isdecimal():
            self.kill()
            raise ServerError(f"the mail server does not start: {said or 'see above'}")
        self.port = int(said)
        return process.pid

    def kill(self) -> None:
        """End it as a power cut does. Does nothing if it is not running."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()


def message_ids(maildir: Path) -> collections.Counter[str]:
    """The letters that arrived, by Message-ID, and how often each did."""
    with_ids = (str(letter["Message-ID"]).strip() for letter in mailbox.Maildir(maildir))
    return collections.Counter(with_ids)


async def serve(maildir: Path, port: int) -> None:
    """Accept mail, until the process ends."""
    from aiosmtpd.handlers import Mailbox  # noqa: PLC0415  # the program itself does without
    from aiosmtpd.smtp import SMTP  # noqa: PLC0415

    handler = Mailbox(maildir)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(handler, hostname="localhost"), HOST, port)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def end_with_parent() -> None:
    """Wait until the program is gone, and end this process."""
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    threading.Thread(target=end_with_parent, daemon=True).start()
    try:
        asyncio.run(serve(Path(sys.argv[1]), int(sys.argv[2])))
    except (ImportError, OSError) as error:
        print(error)
        sys.exit(1)
