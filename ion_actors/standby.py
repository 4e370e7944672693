"""Work for which no thread could be started, and the threads that do it instead.

Timers, callbacks and log records need a thread of their own, which the operating system may refuse.
Then they leave a *job* here, a short function that tries again, or does what is due. Threads that
wait anyway do the jobs, so trying again needs no new thread::

    call_at, run_elsewhere, …  ──ask(job)──▶ jobs ◀──attend()── supervisors, waits, event loops

Supervisors *join*: they are woken when there is a job. A thread that waits by a clock does jobs
until its wait is over, and so does an event loop on which a job was left. Without jobs, all this
costs one check.
"""

from __future__ import annotations

import queue
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ion_actors.awaitables import running_loop
from ion_actors.forking import on_fork

if TYPE_CHECKING:
    import asyncio

__all__ = ["NO_MORE_THREADS", "RETRY", "STANDBY", "Job", "Standby"]

#: The errors that the start of a thread raises if there can be no more threads.
NO_MORE_THREADS = (RuntimeError, MemoryError, OSError)

#: Seconds until a job that could not start its thread tries again.
RETRY = 0.1

#: Does what is due. Returns the seconds until the next call of it; None if nothing is left.
Job = Callable[[], float | None]


class Standby:
    """See the module. Each field changes in single steps, so there is no lock."""

    def __init__(self) -> None:
        self._reset()
        on_fork(self._reset)

    def _reset(self) -> None:
        # A forked child may be able to start threads.
        self._jobs: dict[Job, None] = {}
        self._bells: dict[queue.SimpleQueue[Any], None] = {}
        self._loops: weakref.WeakSet[asyncio.AbstractEventLoop] = weakref.WeakSet()

    @property
    def busy(self) -> bool:
        """Whether there are jobs."""
        return bool(self._jobs)

    def has_supervisors(self) -> bool:
        """Whether a supervisor has joined."""
        return bool(self._bells)

    @property
    def neglected(self) -> bool:
        """Whether there are jobs, but neither supervisors nor an event loop to do them."""
        return bool(self._jobs) and not (self._bells or running_loop())

    def join(self, bell: queue.SimpleQueue[Any]) -> None:
        """Do jobs from now on: when there is a job, None is put into this queue."""
        self._bells[bell] = None

    def leave(self, bell: queue.SimpleQueue[Any]) -> None:
        """Do no more jobs."""
        self._bells.pop(bell, None)

    def ask(self, job: Job) -> None:
        """Leave a job, to be done until it returns None. Asking twice does no harm."""
        self._jobs[job] = None
        for bell in list(self._bells):
            bell.put(None)
        loop = running_loop()
        if loop is not None and loop not in self._loops:
            self._loops.add(loop)
            loop.call_soon(self._attend_in, loop)

    def _attend_in(self, loop: asyncio.AbstractEventLoop) -> None:
        delay = self.attend()
        if delay is None:
            self._loops.discard(loop)
        else:  # a job that is left meanwhile may be due earlier
            loop.call_later(min(delay, RETRY), self._attend_in, loop)

    def attend(self) -> float | None:
        """Do the jobs; to be called before a wait.

        Returns:
            Seconds after which to call this again; None if there are no jobs.
        """
        if not self._jobs:
            return None
        delays = [self._do(job) for job in list(self._jobs)]
        return min((delay for delay in delays if delay is not None), default=None)

    def _do(self, job: Job) -> float | None:
        delay = job()
        if delay is None:
            self._jobs.pop(job, None)
            delay = job()  # it may have been left again just before it was removed
            if delay is not None:
                self._jobs[job] = None
        return delay


#: The instance that the library uses.
STANDBY = Standby()
