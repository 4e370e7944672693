"""Where the items of a generator in another process arrive: the thread of its worker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ion_actors.backends.protocol import Task
from ion_actors.backends.stream.conduit import Conduit
from ion_actors.errors import TaskNotPicklable

__all__ = ["Inlet"]


class Inlet:
    """Puts what a child has sent into the conduit of its task's stream, if that is one.

    Args:
        task: the task.
        opened: rebuilds an item as it was sent; it raises ``TaskNotPicklable``.
        grant: tells the child how many items it may send in all. Any thread may call it.
    """

    def __init__(
        self, task: Task, opened: Callable[[Any], Any], grant: Callable[[int], object]
    ) -> None:
        self._task = task
        self._opened = opened
        self._conduit: Conduit | None = task.stream
        self.error: TaskNotPicklable | None = None  # an item could not be rebuilt
        if self._conduit is not None:
            self._conduit.begin_elsewhere(grant)

    def take(self, sent: Any) -> None:
        """An item has come."""
        try:
            item = self._opened(sent)
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
