"""The running children of a supervisor, and the messages, events and snapshots about them.

The supervisor's actor has a :class:`ChildRun` for each running child, and gets a message about each
change of it.
Only the actor uses the :class:`ChildTable`. Others read the snapshots that it writes to the core,
and get events by the bus.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ion_actors.context import make_current
from ion_actors.naming import as_repr, printable
from ion_actors.own_variables import daemon_thread
from ion_actors.standby import NO_MORE_THREADS
from ion_actors.supervision.children import open_child
from ion_actors.supervision.events import Lifecycle, LifecycleEvent
from ion_actors.supervision.protocol import LiveChild, StopMode
from ion_actors.supervision.report import ChildInfo, ChildKind
from ion_actors.supervision.spec import WORKER_SHUTDOWN, ChildSpec
from ion_actors.supervision.states import ChildRecord, SupervisorState

if TYPE_CHECKING:
    from ion_actors.clock import Timer
    from ion_actors.supervision.core import TreeCore
    from ion_actors.supervision.machine import Machine
    from ion_actors.supervision.report import StopReport
    from ion_actors.workerpool.model.reports import DrainReport

__all__ = [
    "Begin",
    "ChildNotStarted",
    "ChildReady",
    "ChildRun",
    "ChildTable",
    "Ended",
    "Opened",
    "Overdue",
    "TryAgain",
]


@dataclass(slots=True, eq=False)
class ChildRun:
    """One run of one child, from its start to its end. Only the actor changes it."""

    spec: ChildSpec
    restarts: int  # how often the child had been started before
    live: LiveChild | None = None  # once it is made
    ready: bool = False  # it has started
    ended: Ended | None = None
    stop_began: float | None = None  # when it was asked to stop
    timer: Timer | None = field(default=None)  # for the end of its time to stop

    def cancel_timer(self) -> None:
        """Cancel the timer of its time to stop."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


@dataclass(frozen=True, slots=True)
class Begin:
    """Start all children."""


@dataclass(frozen=True, slots=True)
class Opened:
    """The child was made."""

    run: ChildRun
    live: LiveChild


@dataclass(frozen=True, slots=True)
class ChildReady:
    """The child has started."""

    run: ChildRun


@dataclass(frozen=True, slots=True)
class ChildNotStarted:
    """The child could not be made, or could not start."""

    run: ChildRun
    error: BaseException
    shown: str = ""  # its repr, which is made on the thread where it was raised

    def __post_init__(self) -> None:
        object.__setattr__(self, "shown", as_repr(self.error))


@dataclass(frozen=True, slots=True)
class Ended:
    """The child has ended, with the error that it failed with, if it did."""

    run: ChildRun
    error: BaseException | None
    report: DrainReport | StopReport | None


@dataclass(frozen=True, slots=True)
class Overdue:
    """The child's time to stop is up."""

    run: ChildRun


@dataclass(frozen=True, slots=True)
class TryAgain:
    """Try again to start this child now."""

    id: str


def start_in_thread(core: TreeCore, run: ChildRun) -> None:
    """Start the child in a thread of its own, since that may take any time."""
    call = core.spec.variables.copy().run
    name = printable(f"{core.spec.name}-starts-{run.spec.id}")
    thread = daemon_thread(call, name, (_start, core, run))
    try:
        thread.start()
    except NO_MORE_THREADS as error:  # there can be no more threads
        core.tell(ChildNotStarted(run, error))


def _start(core: TreeCore, run: ChildRun) -> None:
    make_current(core.spec.context)
    try:
        live = open_child(run.spec, core)
        if not core.tell(Opened(run, live)):  # the tree has ended, and this one was abandoned
            live.stop(StopMode.CLOSE, WORKER_SHUTDOWN)
            return
        live.wait_ready()
    except BaseException as error:
        core.tell(ChildNotStarted(run, error))
    else:
        core.tell(ChildReady(run))


class ChildTable:
    """See the module."""

    def __init__(self, core: TreeCore) -> None:
        self.runs: dict[str, ChildRun] = {}  # of the running children
        self.errors: dict[str, BaseException | None] = {}  # the last error of each
        self._core = core
        self._now = core.spec.context.clock.monotonic
        self._specs = {one.id: one for one in core.spec.children}
        self._lives: dict[str, int] = {}  # how often each was started
        self._kinds: dict[str, ChildKind] = {}
        self._news: list[LifecycleEvent] = []  # to be published once the snapshot is written

    # -- who is there ----------------------------------------------------------------------

    def begin(self, child: str) -> ChildRun:
        """The run of a child that is about to be started."""
        lives = self._lives[child] = self._lives.get(child, 0) + 1
        run = self.runs[child] = ChildRun(self._specs[child], lives - 1)
        return run

    def opened(self, run: ChildRun, live: LiveChild) -> None:
        """The child was made."""
        run.live = live
        self._kinds[run.spec.id] = live.kind

    def leave(self, run: ChildRun) -> None:
        """The child has ended."""
        del self.runs[run.spec.id]

    def is_stale(self, run: ChildRun) -> bool:
        """Whether it is over: the child was abandoned."""
        return self.runs.get(run.spec.id) is not run

    # -- what is told ----------------------------------------------------------------------

    def note(
        self,
        kind: Lifecycle,
        run: ChildRun | None,
        error: BaseException | None = None,
        because: str | None = None,
    ) -> None:
        """Note an event of a child, or of the supervisor itself.

        Args:
            kind: the kind of event.
            run: the child's; None for the supervisor.
            error: the error that it failed with.
            because: the id of the child whose restart caused this.
        """
        path = (self._core.spec.name,) if run is None else (self._core.spec.name, run.spec.id)
        because = None if run is not None and because == run.spec.id else because
        restarts = 0 if run is None else run.restarts
        self._news.append(LifecycleEvent(kind, path, self._now(), restarts, because, error))

    def tell_news(self) -> None:
        """Publish the noted events."""
        news, self._news = self._news, []
        for event in news:
            self._core.bus.publish(event)

    def show(self, machine: Machine) -> None:
        """Write the snapshot that others read."""
        self._core.infos = tuple(self._info(record) for record in machine.records)
        self._core.live = {
            name: run.live for name, run in self.runs.items() if run.live is not None
        }
        if machine.state is not SupervisorState.STOPPED:  # _finish() sets that last
            self._core.state = machine.state

    def _info(self, record: ChildRecord) -> ChildInfo:
        run = self.runs.get(record.id)
        handle = run.live.handle if run is not None and run.live is not None else None
        return ChildInfo(
            id=record.id,
            state=record.state,
            kind=self._kinds.get(record.id),
            child=handle,
            restart=record.restart,
            restarts=max(0, self._lives.get(record.id, 0) - 1),
            error=self.errors.get(record.id),
        )
