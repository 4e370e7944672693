"""What a parent hands to its child at the start: the data, and the function to call with it.

A parent imports this, and not the modules that only a child needs.
"""

from __future__ import annotations

import importlib
import socket
from typing import NamedTuple

from ion_actors.backends.process.child.last_words import LastWords
from ion_actors.backends.process.transport.anonymous_file import AnonymousFile
from ion_actors.backends.process.transport.output_capture import OutputCapture

__all__ = ["Setup", "run"]


class Setup(NamedTuple):
    """The data that a child gets from its parent at its start."""

    name: str  # the worker's
    tasks: socket.socket
    replies: socket.socket
    control: socket.socket
    lifeline: socket.socket  # is closed when the parent ends; carries no data
    rights: socket.socket  # for descriptors, in both directions
    words: LastWords
    files: tuple[AnonymousFile | None, AnonymousFile | None]  # for incoming and for outgoing data
    preload: tuple[str, ...]
    max_tasks: int | None
    max_memory: int | None
    capture: OutputCapture | None  # of what it prints


def run(setup: Setup) -> None:
    """The main function of a child process. A forkserver has imported its module already."""
    importlib.import_module("ion_actors.backends.process.child.main").run(setup)
