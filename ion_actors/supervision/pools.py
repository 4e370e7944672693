"""A pool as a child.

A pool tells nobody that it broke, but its context ends when it closes for whatever reason. From
then on all there is to do is to ask when it is over. A broken one is closed within its child's
deadline, and not within its own, so that its successor need not wait for it.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from ion_actors.errors import DrainTimeout
from ion_actors.supervision.living import OnEnd, StopMode
from ion_actors.supervision.report import ChildKind
from ion_actors.supervision.spec import WORKER_SHUTDOWN
from ion_actors.workerpool.messages import Close, Drain

if TYPE_CHECKING:
    import concurrent.futures

    from ion_actors.workerpool.pool import Pool
    from ion_actors.workerpool.report import DrainReport

__all__ = ["LivingPool"]


class LivingPool:
    """See the module."""

    kind = ChildKind.POOL
    shutdown: float | None = WORKER_SHUTDOWN
    margin = 1.0  # a pool ends by its own deadline: this is for one that has lost its supervisor

    def __init__(self, pool: Pool, shutdown: float | None) -> None:
        self.handle = pool
        self._core = pool._core
        self._patience = shutdown
        self._on_end: OnEnd | None = None
        self._report: DrainReport | None = None  # the pool keeps none with the tasks in it

    def wait_ready(self) -> None:
        """A pool takes tasks from the start; its initializers have retries of their own."""

    def watch(self, on_end: OnEnd) -> None:
        """See :class:`Living`."""
        self._on_end = on_end
        self._core.spec.context.add_callback(self._ending)

    def _ending(self) -> None:
        # A drain without a deadline only asks: the pool is past where it would change anything.
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
        """See :class:`Living`."""
        message = Drain(timeout) if mode is StopMode.DRAIN else Close(timeout)
        self._core.ask_for_end(message).add_done_callback(self._keep_report)

    def is_own_thread(self) -> bool:
        """See :class:`Living`."""
        return self.handle._is_own_thread()

    def exit_patience(self) -> float | None:
        """See :class:`Living`."""
        return self._core.spec.drain_timeout

    def threads(self) -> list[threading.Thread]:
        """See :class:`Living`."""
        return list(self._core.threads)
