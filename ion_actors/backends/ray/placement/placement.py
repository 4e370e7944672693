"""What both placements have in common, and what both do."""

from __future__ import annotations

from typing import Any, Protocol

from ion_actors.backends.process.transport.messages import Cancel
from ion_actors.backends.process.transport.pickling import Packed
from ion_actors.backends.ray.wire import ActorStart, Call
from ion_actors.errors import ContextEnded

__all__ = ["CurrentTask", "Placement", "Refused"]


class Refused(Exception):
    """An initializer has failed, in a child. Its error is still packed."""

    def __init__(self, packed: Packed) -> None:
        super().__init__("the initializer failed")
        self.packed = packed


class CurrentTask(Protocol):
    """A task that an actor has begun."""

    @property
    def number(self) -> int:
        """Its number in the line."""
        ...

    def cancel(self, cancel: Cancel, /) -> None:
        """End its context."""
        ...

    def error(self) -> ContextEnded:
        """The error for its end."""
        ...


class Placement(Protocol):
    """Runs the tasks of one worker. One thread uses it, except where it says otherwise."""

    @property
    def child_pid(self) -> int | None:
        """The process id of the child in which tasks run; None if they do not run in one."""
        ...

    def start(self, start: ActorStart, packed: Packed, /) -> None:
        """Get ready, and run the initializer.

        Raises:
            Refused: the initializer failed in another process.
            BaseException: it is not ready.
        """
        ...

    def make_task(self, number: int, /) -> Any:
        """A :class:`CurrentTask`, which :meth:`perform` is called with."""
        ...

    def perform(self, task: Any, call: Call, /) -> tuple[bool, Packed]:
        """Run a task. Returns whether there is a result, and that or else the error."""
        ...

    def cancel(self, task: Any, cancel: Cancel, /) -> None:
        """The current task must end. Any thread may call this, perhaps too late."""
        ...

    def grant(self, task: Any, granted: int, /) -> None:
        """There is room for so many items of its stream in all. Any thread may call this."""
        ...

    def locate(self) -> Any:
        """Where its task is: the parts of a ``TaskStack``, or text. Any thread may call this."""
        ...

    def stop(self, failure: bytes | None, /) -> None:
        """Leave. A resident actor is told of the failure."""
        ...
