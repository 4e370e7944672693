"""Where the items of a generator in a child process arrive: the thread of its worker."""

from __future__ import annotations

from collections.abc import Callable

from ion_actors.backends.process.transport.messages import open_item
from ion_actors.backends.process.transport.shared_buffers import SharedBuffers
from ion_actors.backends.protocol import Task
from ion_actors.backends.stream.conduit import Conduit
from ion_actors.errors import TaskNotPicklable

__all__ = ["Inlet"]


class Inlet:
    """Puts what a child has sent into the conduit of its task's stream, if that is one.

    Args:
        task: the task.
        buffers: those of the child.
        grant: tells the child how many items it may send in all. Any thread may call it.
    """

    def __init__(self, task: Task, buffers: SharedBuffers, grant: Callable[[int], object]) -> None:
        self._task = task
        self._buffers = buffers
        self._conduit: Conduit | None = task.stream
        self.error: TaskNotPicklable | None = None  # an item could not be rebuilt
        if self._conduit is not None:
            self._conduit.begin_elsewhere(grant)

    def take(self, body: bytes | bytearray) -> None:
        """An item has come."""
        try:
            item = open_item(self._buffers, body, self._task.task_name)
        except TaskNotPicklable as error:
            if self.error is None:
                self.error = error
                self._task.task_context().cancel("an item of the stream cannot be rebuilt")
            return
        if self._conduit is not None and self.error is None:
            self._conduit.put(item)

    def close(self) -> None:
        """No more come."""
        if self._conduit is not None:
            self._conduit.end_elsewhere()
