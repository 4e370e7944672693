"""What tasks print in an actor: relayed as it comes, or kept for the future of each task.

Ray's own way to show it is to have the driver read the log files of all workers. So where Ray has
not been asked for that, the lines come with the log records, from Python's streams only. What is
kept is all that the process writes.
"""

from __future__ import annotations

import contextlib
import io
import sys
import threading
from collections.abc import Callable
from typing import NamedTuple

from ion_actors.backends.process.transport.log_relay import relay_output
from ion_actors.backends.process.transport.output_capture import OutputCapture

__all__ = ["Keeps", "Printed", "Relays"]


class Printed(NamedTuple):
    """What a task has printed."""

    stdout: str
    stderr: str


class Keeps:
    """Keeps what the process writes."""

    def __init__(self) -> None:
        self._capture = OutputCapture()
        self._capture.redirect(keep=True)

    def take(self) -> Printed | None:
        """What was written since the last call, if anything was."""
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):  # a task may have put anything there
                stream.flush()
        found = self._capture.take()
        return Printed(found.stdout, found.stderr) if found.stdout or found.stderr else None


class Relays:
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
