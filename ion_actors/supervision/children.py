"""Pools and supervisors as children, and how any child is made.

A pool does not report that it broke, but its context ends when it closes for whatever reason. After
that, its supervisor only has to ask when the end is over. A broken pool is closed within the
child's deadline, not within its own, so that its replacement does not wait for it.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pykka

from ion_actors.actors import start_watched
from ion_actors.context import background
from ion_actors.errors import DrainTimeout
from ion_actors.supervision.core import TreeCore, core_of
from ion_actors.supervision.events import pass_on
from ion_actors.supervision.protocol import LiveChild, OnEnd, StopMode
from ion_actors.supervision.report import ChildKind
from ion_actors.supervision.spec import WORKER_SHUTDOWN, ChildSpec
from ion_actors.supervision.states import SupervisorState
from ion_actors.supervision.watched_actor import LiveActor
from ion_actors.workerpool.messages import Close, Drain
from ion_actors.workerpool.pool import Pool

if TYPE_CHECKING:
    import concurrent.futures

    from ion_actors.workerpool.model.reports import DrainReport

__all__ = ["LivePool", "LiveTree", "open_child"]


class LiveTree:
    """A supervisor as a child of another one. One that has not been started is started here."""

    kind = ChildKind.SUPERVISOR
    shutdown: float | None = None  # as in OTP: its children have deadlines
    margin = 1.0  # it ends by its own deadline; this is for one that has lost its actor

    def __init__(self, supervisor: Any, core: TreeCore) -> None:
        self.handle = supervisor
        self._core = core
        core.nested = True
        if core.state is SupervisorState.NEW:
            core.start(core)

    def wait_ready(self) -> None:
        """Block until all its children have started."""
        background().wait(self._core.begun)
        self._core.check_start()

    def watch(self, on_end: OnEnd) -> None:
        """See :class:`LiveChild`."""
        self._core.ended.add_done_callback(lambda ended: on_end(self._core.failure, ended.result()))

    def stop(self, mode: StopMode, timeout: float | None) -> None:
        """See :class:`LiveChild`."""
        self._core.tell(Drain(timeout) if mode is StopMode.DRAIN else Close(timeout))

    def is_own_thread(self) -> bool:
        """See :class:`LiveChild`."""
        return self._core.owns_thread()

    def exit_patience(self) -> float | None:
        """See :class:`LiveChild`."""
        return self._core.patience()

    def threads(self) -> list[threading.Thread]:
        """See :class:`LiveChild`."""
        return list(self._core.threads)


class LivePool:
    """A pool as a child: see the module."""

    kind = ChildKind.POOL
    shutdown: float | None = WORKER_SHUTDOWN
    margin = 1.0  # a pool ends by its own deadline; this is for one that has lost its supervisor

    def __init__(self, pool: Pool, shutdown: float | None) -> None:
        self.handle = pool
        self._core = pool._core
        self._patience = shutdown
        self._on_end: OnEnd | None = None
        self._report: DrainReport | None = None  # the pool's own report is kept without the tasks

    def wait_ready(self) -> None:
        """Nothing to wait for: a pool takes tasks at once, and retries its initializers itself."""

    def watch(self, on_end: OnEnd) -> None:
        """See :class:`LiveChild`."""
        self._on_end = on_end
        self._core.spec.context.add_callback(self._ending)

    def _ending(self) -> None:
        # A drain without a deadline only waits for the end, which has begun already.
        broken = self._core.broken is not None
        end = self._core.ask(Close(self._patience) if broken else Drain(None))
        end.add_done_callback(self._ended)

    def _ended(self, end: concurrent.futures.Future[Any]) -> None:
        self._keep_report(end)
        on_end, self._on_end = self._on_end, None
        if on_end is not None:
            on_end(self._core.broken, self._report or self._core.last_report())

    def _keep_report(self, end: concurrent.futures.Future[Any]) -> None:
        error = end.exception()
        if isinstance(error, DrainTimeout):
            self._report = error.report
        elif error is None:
            self._report = self._report or end.result()

    def stop(self, mode: StopMode, timeout: float | None) -> None:
        """See :class:`LiveChild`."""
        message = Drain(timeout) if mode is StopMode.DRAIN else Close(timeout)
        self._core.ask_for_end(message).add_done_callback(self._keep_report)

    def is_own_thread(self) -> bool:
        """See :class:`LiveChild`."""
        return self._core.owns_thread()

    def exit_patience(self) -> float | None:
        """See :class:`LiveChild`."""
        return self._core.spec.drain_timeout

    def threads(self) -> list[threading.Thread]:
        """See :class:`LiveChild`."""
        return list(self._core.threads)


def open_child(spec: ChildSpec, parent: TreeCore) -> LiveChild:
    """Make a child. Raises what its start raises.

    Raises:
        TypeError: its start returned an object that cannot be a child.
    """
    start = spec.start
    if isinstance(start, type) and issubclass(start, pykka.ThreadingActor):
        return LiveActor(*start_watched(start, spec.args, dict(spec.kwargs)))
    made = start(*spec.args, **spec.kwargs)
    if isinstance(made, Pool):
        return LivePool(made, WORKER_SHUTDOWN if spec.shutdown == "default" else spec.shutdown)
    if (core := core_of(made)) is not None:
        pass_on(core.bus, parent.bus, parent.spec.name, spec.id)
        return LiveTree(made, core)
    raise TypeError(_why_not(spec, made))


def _why_not(spec: ChildSpec, made: Any) -> str:
    if isinstance(made, pykka.ActorRef):
        made.stop(block=False)
        return (
            f"child {spec.id!r} is an actor that was started before its supervisor could watch "
            "it; give its class as the start"
        )
    return f"child {spec.id!r} must be a Pool, a Supervisor or an actor class, not {made!r}"
