"""What a task prints, sent line by line, besides going where it went before."""

from __future__ import annotations

import io
import sys
import threading
from collections.abc import Callable

from ion_actors.backends.process.transport.log_relay import relay_output

__all__ = ["PrintRelay"]


class PrintRelay:
    """From now on, sends what is printed, besides writing it where it went before."""

    def __init__(self, send: Callable[[bytes], object]) -> None:
        self._streams = [_Relayed(name, getattr(sys, name), send) for name in ("stdout", "stderr")]
        sys.stdout, sys.stderr = self._streams

    def take(self) -> None:
        """A task has ended: what it has begun to print in its thread is sent, too."""
        for stream in self._streams:
            stream.flush_begun()


class _Relayed(io.TextIOBase):
    """A stream of which each line is sent, too."""

    def __init__(self, name: str, below: object, send: Callable[[bytes], object]) -> None:
        self._name = name
        self._below: io.TextIOBase = below  # type: ignore[assignment]
        self._send = send
        # What each thread has begun. No lock: a task may be interrupted anywhere in here.
        self._of_thread = threading.local()

    def write(self, text: str, /) -> int:
        """Write some text. What ends in the middle of a line waits for the rest."""
        self._below.write(text)
        lines = getattr(self._of_thread, "begun", "") + text
        whole, newline, rest = lines.rpartition("\n")
        self._of_thread.begun = rest
        if newline:
            relay_output(self._send, self._name, whole + newline)
        return len(text)

    def flush(self) -> None:
        """Send what this thread has begun."""
        self._below.flush()
        self.flush_begun()

    def flush_begun(self) -> None:
        """The same, and no more."""
        rest: str = getattr(self._of_thread, "begun", "")
        if rest:
            self._of_thread.begun = ""
            relay_output(self._send, self._name, rest)

    def writable(self) -> bool:
        """True."""
        return True

    def fileno(self) -> int:
        """That of the stream below."""
        return self._below.fileno()
