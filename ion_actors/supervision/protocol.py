"""The interface of a child to its supervisor."""

from __future__ import annotations

import enum
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from ion_actors.supervision.report import ChildKind, StopReport
    from ion_actors.workerpool.model.reports import DrainReport

__all__ = ["LiveChild", "OnEnd", "StopMode"]

#: Called once at a child's end: with the error that it failed with, if any, and its report.
OnEnd = Callable[["BaseException | None", "DrainReport | StopReport | None"], object]


class StopMode(enum.Enum):
    """How a child is stopped."""

    DRAIN = "drain"  # accepted tasks are finished
    CLOSE = "close"  # tasks that have not started are cancelled


class LiveChild(Protocol):
    """A child that was made. Nothing here blocks, except :meth:`wait_ready`."""

    kind: ChildKind
    handle: Any  # the object for users
    shutdown: float | None  # its default time to stop, in seconds
    margin: float  # seconds to wait beyond its own deadline

    def wait_ready(self) -> None:
        """Block until it has started. Raises the error that it failed with before that."""
        ...

    def watch(self, on_end: OnEnd) -> None:
        """Call ``on_end`` once when it has ended; now, if it has. It must not block."""
        ...

    def stop(self, mode: StopMode, timeout: float | None) -> None:
        """Ask it to stop within so many seconds; a further call can only shorten that."""
        ...

    def is_own_thread(self) -> bool:
        """Whether the calling thread belongs to it, and so must not wait for its end."""
        ...

    def exit_patience(self) -> float | None:
        """Its time to stop at the interpreter's exit in seconds, if it has no limit otherwise.

        None: no limit at exit, either.
        """
        ...

    def threads(self) -> list[threading.Thread]:
        """Its threads that are about to end, once it has ended."""
        ...
