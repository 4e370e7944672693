"""The place of one child while it lives, and what the supervisor's actor is told about it."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ion_actors._printable import printable
from ion_actors.context import make_current
from ion_actors.naming import as_repr
from ion_actors.standby import NO_MORE_THREADS
from ion_actors.supervision.living import Living, StopMode
from ion_actors.supervision.opening import open_child
from ion_actors.supervision.spec import WORKER_SHUTDOWN, ChildSpec

if TYPE_CHECKING:
    from ion_actors.clock import Timer
    from ion_actors.supervision.core import TreeCore
    from ion_actors.supervision.report import StopReport
    from ion_actors.workerpool.report import DrainReport

__all__ = ["Begin", "Ended", "Opened", "Overdue", "Ready", "Seat", "StartFailed", "TryAgain"]


@dataclass(slots=True, eq=False)
class Seat:
    """One life of one child. All but the specification is the actor's to write."""

    spec: ChildSpec
    restarts: int  # how often the child had been started before
    living: Living | None = None  # once it is made
    ready: bool = False  # it has started
    ended: Ended | None = None
    stop_began: float | None = None  # when it was asked to stop
    timer: Timer | None = field(default=None)  # for the end of its time to stop

    def cancel_timer(self) -> None:
        """Its time to stop does not matter any more."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


@dataclass(frozen=True, slots=True)
class Begin:
    """Start all children."""


@dataclass(frozen=True, slots=True)
class Opened:
    """The child was made."""

    seat: Seat
    living: Living


@dataclass(frozen=True, slots=True)
class Ready:
    """The child has started."""

    seat: Seat


@dataclass(frozen=True, slots=True)
class StartFailed:
    """The child could not be made, or could not start."""

    seat: Seat
    error: BaseException
    shown: str = ""  # its repr, which is made on the thread where it was raised

    def __post_init__(self) -> None:
        object.__setattr__(self, "shown", as_repr(self.error))


@dataclass(frozen=True, slots=True)
class Ended:
    """The child has ended, with the error that it failed with, if it did."""

    seat: Seat
    error: BaseException | None
    report: DrainReport | StopReport | None


@dataclass(frozen=True, slots=True)
class Overdue:
    """The child's time to stop is up."""

    seat: Seat


@dataclass(frozen=True, slots=True)
class TryAgain:
    """It is time to try again to start this child."""

    id: str


def start_in_thread(core: TreeCore, seat: Seat) -> None:
    """Start the child in a thread of its own, since its start may take any time."""
    run = core.spec.variables.copy().run
    name = printable(f"{core.spec.name}-starts-{seat.spec.id}")
    thread = threading.Thread(target=run, args=(_start, core, seat), name=name, daemon=True)
    try:
        thread.start()
    except NO_MORE_THREADS as error:  # there can be no more threads
        core.tell(StartFailed(seat, error))


def _start(core: TreeCore, seat: Seat) -> None:
    make_current(core.spec.context)
    try:
        living = open_child(seat.spec, core)
        if not core.tell(Opened(seat, living)):  # the tree has ended, and this one was abandoned
            living.stop(StopMode.CLOSE, WORKER_SHUTDOWN)
            return
        living.wait_ready()
    except BaseException as error:
        core.tell(StartFailed(seat, error))
    else:
        core.tell(Ready(seat))
