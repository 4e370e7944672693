"""Single keys of a terminal, without a line end."""

from __future__ import annotations

import os
import re
import select
import sys
import termios
import tty
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Keyboard", "keyboard"]

_NAMES = {
    b"\x1b[A": "up", b"\x1bOA": "up", b"k": "up",
    b"\x1b[B": "down", b"\x1bOB": "down", b"j": "down",
    b"\x1b[5~": "page up", b"\x1b[6~": "page down", b" ": "page down",
    b"\x1b[H": "home", b"g": "home", b"\x1b[F": "end", b"G": "end",
    b"\x1b": "q", b"\x04": "q", b"": "q",
}  # fmt: skip


_KEY = re.compile(rb"\x1b(?:\[[0-9;]*[~A-Za-z]|O[A-Z])?|.", re.DOTALL)


class Keyboard:
    """The keys that are pressed."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._pressed: deque[bytes] = deque()

    def key(self, patience: float) -> str | None:
        """The next key: a letter or a name; None if none is pressed in so many seconds."""
        if not self._pressed:
            ready, _, _ = select.select([self._fd], [], [], max(0.0, patience))
            if not ready:
                return None
            # Several keys may have been pressed; nothing at all says that the terminal is gone.
            self._pressed += _KEY.findall(os.read(self._fd, 1024)) or [b""]
        one = self._pressed.popleft()
        return _NAMES.get(one) or one[:1].decode("ascii", "replace")


@contextmanager
def keyboard() -> Iterator[Keyboard]:
    """A block in which keys are read one by one, and are not shown."""
    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    try:
        tty.setcbreak(fd)
        yield Keyboard(fd)
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)
