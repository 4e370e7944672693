"""What tasks print in an actor, kept for the future of each task.

Ray's own way to show it is to have the driver read the log files of all workers. So where Ray has
not been asked for that, and nothing is kept, the lines come with the log records, from Python's
streams only. What is kept is all that the process writes.
"""

from __future__ import annotations

import contextlib
import sys
from typing import NamedTuple

from ion_actors.backends.process.transport.output_capture import OutputCapture

__all__ = ["Keeps", "Printed"]


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
