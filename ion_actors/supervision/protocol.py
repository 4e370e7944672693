"""What a supervisor needs of a child, whatever it is."""

from __future__ import annotations

import enum
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from ion_actors.supervision.report import ChildKind, StopReport
    from ion_actors.workerpool.model.reports import DrainReport

__all__ = ["LiveChild", "OnEnd", "StopMode"]

#: Told once of a child's end: what it failed with, if it did, and the report that it gave.
OnEnd = Callable[["BaseException | None", "DrainReport | StopReport | None"], object]


class StopMode(enum.Enum):
    """How a child is stopped."""

    DRAIN = "drain"  # what was accepted is finished
    CLOSE = "close"  # what has not started is cancelled


class LiveChild(Protocol):
    """A child that was made. Nothing here blocks, except :meth:`wait_ready`."""

    kind: ChildKind
    handle: Any  # what the users are given
    shutdown: float | None  # seconds to stop in, unless its specification says otherwise
    margin: float  # seconds after which it does not stop by its own deadline

    def wait_ready(self) -> None:
        """Block until it can be used. Raises what it failed with, if it did not get that far."""
        ...

    def watch(self, on_end: OnEnd) -> None:
        """Have ``on_end`` called once when it has ended; now, if it has. It must not block."""
        ...

    def stop(self, mode: StopMode, timeout: float | None) -> None:
        """Ask it to stop within so many seconds; calling again can only bring that forward."""
        ...

    def is_own_thread(self) -> bool:
        """Whether the caller runs in it, so that waiting for its end is waiting for oneself."""
        ...

    def exit_patience(self) -> float | None:
        """Seconds to stop in at the interpreter's exit, if it has any number otherwise.

        None: it has any number then, too.
        """
        ...

    def threads(self) -> list[threading.Thread]:
        """Those that are about to end, once it has."""
        ...
