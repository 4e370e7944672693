"""Looks after the event loop on which a pool's tasks run, if they do.

A loop that is not the pool's own may end before the pool. Mostly it tells
(:mod:`ion_actors.backends.asyncio`); one that is only closed does not, so it is looked at, once a
second. The end of the loop is the end of the pool.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from ion_actors.clock import Timer, system_clock
from ion_actors.workerpool.core import PoolCore
from ion_actors.workerpool.messages import LookAtLoop, LoopEnded
from ion_actors.workerpool.worker.inbox import SupervisorInbox

__all__ = ["LoopWatch"]

# Seconds between two looks; and those that the tasks have on a loop that is about to end.
_INTERVAL = 1.0
_GRACE = 1.0


class LoopWatch:
    """Ends the pool with its loop, on the supervisor's thread. Without a loop it does nothing.

    Args:
        core: the pool.
        inbox: the supervisor's, which gets the ``LookAtLoop`` messages.
        close: ends the pool within so many seconds.
    """

    def __init__(
        self, core: PoolCore, inbox: SupervisorInbox, close: Callable[[float], None]
    ) -> None:
        self._core = core
        self._site = core.site
        self._inbox = inbox
        self._close = close
        self._timer: Timer | None = None

    def plan(self) -> None:
        """Look again after a while; nobody else ends a loop of the pool's own."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._site is not None and not self._site.own:
            due = system_clock.monotonic() + _INTERVAL
            self._timer = self._inbox.remind(system_clock, due, LookAtLoop())

    def look(self, _: LookAtLoop) -> None:
        """See whether the loop is still there; if it is not, :class:`LoopEnded` comes."""
        if self._site is not None and not self._site.is_lost():
            self.plan()

    def ended(self, _: LoopEnded) -> None:
        """The loop has ended, or does so in a moment."""
        if self._site is None or self._core.ended.is_set():
            return
        name = self._core.spec.name
        self._core.spec.log(
            logging.WARNING,
            "the event loop of pool %r ends before it, and ends it; use the pool as an "
            "`async with` block, or await its adrain() or aclose()", name,
        )  # fmt: skip
        self._close(_GRACE if self._site.loop.is_running() else 0.0)

    def stop(self) -> None:
        """The pool has ended: so does a loop of its own."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._site is not None:
            self._site.close()
