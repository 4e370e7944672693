"""A supervisor as a child of another one."""

from __future__ import annotations

import threading

from ion_actors.context import background
from ion_actors.supervision.core import Face
from ion_actors.supervision.living import OnEnd, StopMode
from ion_actors.supervision.report import ChildKind
from ion_actors.supervision.words import SupervisorState
from ion_actors.workerpool.messages import Close, Drain

__all__ = ["LivingTree"]


class LivingTree:
    """See the module. One that has not been started is started here."""

    kind = ChildKind.SUPERVISOR
    shutdown: float | None = None  # as in OTP: its children have deadlines
    margin = 1.0  # it ends by its own deadline: this is for one that has lost its actor

    def __init__(self, face: Face) -> None:
        self.handle = face
        self._core = face._core
        self._core.nested = True
        if self._core.state is SupervisorState.NEW:
            face._launch()

    def wait_ready(self) -> None:
        """Block until all its children have started."""
        background().wait(self._core.begun)
        self.handle._check_start()

    def watch(self, on_end: OnEnd) -> None:
        """See :class:`Living`."""
        self._core.ended.add_done_callback(lambda ended: on_end(self._core.failure, ended.result()))

    def stop(self, mode: StopMode, timeout: float | None) -> None:
        """See :class:`Living`."""
        self._core.tell(Drain(timeout) if mode is StopMode.DRAIN else Close(timeout))

    def is_own_thread(self) -> bool:
        """See :class:`Living`."""
        return self._core.owns_thread()

    def exit_patience(self) -> float | None:
        """See :class:`Living`."""
        return self._core.patience()

    def threads(self) -> list[threading.Thread]:
        """See :class:`Living`."""
        return list(self._core.threads)
