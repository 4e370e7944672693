"""Has the size of a pool follow its work: see :mod:`ion_actors.adaptive.sizing`, which decides."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ion_actors.clock import Timer
from ion_actors.workerpool.core import PoolCore
from ion_actors.workerpool.messages import Measure
from ion_actors.workerpool.model.lifecycle import Phase
from ion_actors.workerpool.supervisor.roster import Authority, Roster
from ion_actors.workerpool.worker.inbox import SupervisorInbox

if TYPE_CHECKING:
    from ion_actors.adaptive.sizing import PoolLoad

__all__ = ["Sizer"]


class Sizer:
    """Looks at the pool's numbers now and then, and resizes it, on the supervisor's thread.

    Args:
        core: the pool.
        inbox: the supervisor's, which gets the ``Measure`` messages.
        roster: resizes the pool.
        authority: knows where the pool is in its life.
    """

    def __init__(
        self, core: PoolCore, inbox: SupervisorInbox, roster: Roster, authority: Authority
    ) -> None:
        self._core = core
        self._clock = core.spec.context.clock
        self._inbox = inbox
        self._roster = roster
        self._authority = authority
        adaptive = core.spec.adaptive
        self._sizing = None if adaptive is None else adaptive.begin()
        self._next_look: Timer | None = None

    def plan(self) -> None:
        """Have the next look come in time, as long as the pool runs."""
        self.stop()
        if self._sizing is not None and self._authority.phase is Phase.RUNNING:
            due = self._clock.monotonic() + self._sizing.bounds.interval
            self._next_look = self._inbox.remind(self._clock, due, Measure())

    def stop(self) -> None:
        """Look no more."""
        if self._next_look is not None:
            self._next_look.cancel()
            self._next_look = None

    def look(self, _: Measure) -> None:
        """Give the pool the size that suits it, and plan the next look."""
        mailbox = self._core.mailbox
        if self._sizing is not None and not mailbox.refuses:
            self._sizing = self._sizing.after(self._load())
            if self._sizing.size != mailbox.size:
                self._roster.resize(self._sizing.size)
        self.plan()

    def _load(self) -> PoolLoad:
        from ion_actors.adaptive.sizing import PoolLoad  # noqa: PLC0415 - seldom wanted

        numbers = self._core.metrics()
        return PoolLoad(
            now=self._clock.monotonic(),
            size=numbers.size,
            running=numbers.running,
            backlog=numbers.queued - numbers.delayed + self._core.mailbox.waiting,
            ended=numbers.completed + numbers.failed + numbers.panicked,
        )
