"""A child process and what it shares with its parent, as the parent has it."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

from ion_actors.backends.process import main
from ion_actors.backends.process.arrays import Parcels, new_shelf
from ion_actors.backends.process.capture import Capture
from ion_actors.backends.process.channel import Channel
from ion_actors.backends.process.handle import Handle
from ion_actors.backends.process.launch import LastWords, launch

if TYPE_CHECKING:
    from ion_actors.backends.process.options import ProcessBackend

__all__ = ["Equipment"]


class Equipment:
    """Starts a process, and has the parent's ends of all that leads there.

    Args:
        worker: the name of the worker that it runs the tasks of.
        backend: the settings.

    Attributes:
        handle: the process.
        tasks: where tasks go and results come from.
        control: for what cannot wait until the task is over. It never blocks.
        words: what the child says when it dies.
        parcels: for what is large.
        capture: what it prints, if that is wanted.

    Raises:
        Exception: it cannot be started. Then nothing is left of it.
    """

    def __init__(self, worker: str, backend: ProcessBackend) -> None:
        with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
            tasks, tasks_there = _pair(ours, theirs)
            control, control_there = _pair(ours, theirs)
            self.words = LastWords()
            ours.callback(self.words.close)
            shelves = new_shelf(), new_shelf()
            # What comes from there may well be seen by forks of this process.
            self.parcels = Parcels(*shelves, private=True)
            ours.callback(self.parcels.close)
            self.capture = Capture() if backend.capture_output else None
            if self.capture is not None:
                ours.callback(self.capture.close)
            setup = main.Setup(
                worker, tasks_there, control_there, self.words, shelves,
                backend.preload, backend.nice, dict(backend.env),
                backend.max_tasks_per_child, backend.max_memory_per_child, self.capture,
            )  # fmt: skip
            method = backend.start_method or "spawn"
            self.handle = Handle(launch(method, worker, backend.preload, main.run, setup))
            self.tasks = Channel(tasks, self.handle.has_ended)
            self.control = Channel(control)
            control.setblocking(False)
            self._ours = ours.pop_all()

    def hang_up(self) -> None:
        """Close what tells the child that its parent is there."""
        self.tasks.close()
        self.control.close()

    def close(self) -> None:
        """Let go of all but the process."""
        self._ours.close()


def _pair(
    ours: contextlib.ExitStack, theirs: contextlib.ExitStack
) -> tuple[socket.socket, socket.socket]:
    here, there = socket.socketpair()
    ours.callback(here.close)
    theirs.callback(there.close)
    return here, there
