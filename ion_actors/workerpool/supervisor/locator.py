"""Where the tasks are that are about to be abandoned.

A child process has to be asked, and the supervisor cannot wait for the answer. So it asks before
the deadline, more than once: the last answer that has come by then is shown. Pools whose tasks run
in this process ask nobody.
"""

from __future__ import annotations

from ion_actors.backends.stacks import Seen, Stack
from ion_actors.clock import Timer
from ion_actors.workerpool.core import PoolCore
from ion_actors.workerpool.mailbox.protocols import Performer
from ion_actors.workerpool.messages import Locate
from ion_actors.workerpool.worker.inbox import SupervisorInbox

__all__ = ["Locator"]

# Seconds before the deadline at which all are asked.
_LEADS = (1.0, 0.1)


class Locator:
    """Asks where tasks are, on the supervisor's thread.

    Args:
        core: the pool.
        inbox: the supervisor's, which gets the ``Locate`` messages.
    """

    def __init__(self, core: PoolCore, inbox: SupervisorInbox) -> None:
        self._core = core
        self._clock = core.spec.context.clock
        self._inbox = inbox
        self._deadline: float | None = None
        self._asked: list[dict[Performer, Stack]] = []  # the last ones first
        self._timer: Timer | None = None

    def plan(self, deadline: float | None) -> None:
        """Ask before this moment of the pool's clock: in good time, or now if it is close."""
        if deadline != self._deadline:
            self._deadline = deadline
            if deadline is not None and deadline - self._clock.monotonic() <= _LEADS[0]:
                self.locate(Locate())
            else:
                self._plan_next()

    def locate(self, _: Locate) -> None:
        """Ask those whose tasks run in another process. They answer later."""
        workers = [one for one in list(self._core.workers) if one.pid is not None]
        asked = {worker: worker.where() for worker in workers}
        self._asked = [asked, *self._asked[: len(_LEADS)]]
        self._plan_next()

    def _plan_next(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._deadline is None or all(one.pid is None for one in list(self._core.workers)):
            return
        now = self._clock.monotonic()
        moments = [self._deadline - lead for lead in _LEADS if self._deadline - lead > now]
        if moments:
            self._timer = self._inbox.remind(self._clock, moments[0], Locate())

    def whereabouts(self) -> dict[Performer, Stack]:
        """Where all workers are, as far as is known now."""
        return {worker: self._last_known(worker) for worker in list(self._core.workers)}

    def _last_known(self, worker: Performer) -> Stack:
        stacks = [asked[worker].text(0.0) for asked in self._asked if worker in asked]
        known = [stack for stack in stacks if not stack.startswith("(child process")]
        if known or stacks:
            return Seen((known or stacks)[0])
        return worker.where()

    def stop(self) -> None:
        """Forget what was planned, and what was asked."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._asked, self._deadline = [], None
