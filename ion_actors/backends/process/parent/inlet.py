"""Where what a child sends during a task arrives: the thread of its worker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

from ion_actors.backends.process.transport.log_relay import Settings, settings_here, show
from ion_actors.backends.process.transport.messages import open_item, raise_error
from ion_actors.backends.protocol import Task
from ion_actors.backends.stream.conduit import Conduit
from ion_actors.errors import TaskNotPicklable

__all__ = ["Inlet", "Reception"]


class Reception(NamedTuple):
    """What becomes of what children tell. By default, it is as if this process had made it."""

    settings: Callable[[], Settings] = settings_here  # what a child has to relay
    show: Callable[[bytes | bytearray], object] = show  # handles a piece of news
    open_item: Callable[..., Any] = open_item  # rebuilds an item of a stream
    raise_error: Callable[..., NoReturn] = raise_error  # for an initializer that has failed


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
