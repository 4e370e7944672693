"""What no thread could be started for, and those who look after it meanwhile.

Timers, callbacks and log records need a thread of their own, which the operating system may refuse.
Then there is a *job*: it tries again, or does what is due, and takes no longer than that. Those who
wait anyway do the jobs, so that to try again needs no new thread::

    call_at, run_elsewhere, …  ──ask(job)──▶ jobs ◀──attend()── supervisors, waits, event loops

Supervisors *join*: they are woken when there is a job. A thread that waits by a clock attends until
its wait is over, and so does an event loop on which somebody has asked. As long as there is no job,
all this costs one look.
"""

from __future__ import annotations

import asyncio
import queue
import weakref
from collections.abc import Callable
from typing import Any

from ion_actors.forking import on_fork

__all__ = ["NO_MORE_THREADS", "RETRY", "STANDBY", "Job", "Standby"]

#: What the start of a thread raises where there can be no more threads.
NO_MORE_THREADS = (RuntimeError, MemoryError, OSError)

#: Seconds until a job that could not start its thread tries again.
RETRY = 0.1

#: Does what is due. Returns the seconds until it is to be called again; None if nothing is left.
Job = Callable[[], float | None]


class Standby:
    """See the module. Each field changes in single steps, so there is no lock."""

    def __init__(self) -> None:
        self._reset()
        on_fork(self._reset)

    def _reset(self) -> None:
        # In a forked child there are other threads, and they may be had.
        self._jobs: dict[Job, None] = {}
        self._bells: dict[queue.SimpleQueue[Any], None] = {}
        self._loops: weakref.WeakSet[asyncio.AbstractEventLoop] = weakref.WeakSet()

    @property
    def busy(self) -> bool:
        """Whether there are jobs."""
        return bool(self._jobs)

    def has_supervisors(self) -> bool:
        """Whether somebody has joined."""
        return bool(self._bells)

    @property
    def neglected(self) -> bool:
        """Whether there are jobs, and nobody for them but threads that happen to wait."""
        return bool(self._jobs) and not (self._bells or asyncio._get_running_loop())

    def join(self, bell: queue.SimpleQueue[Any]) -> None:
        """Attend from now on: whoever waits at this bell is woken by None when there is a job."""
        self._bells[bell] = None

    def leave(self, bell: queue.SimpleQueue[Any]) -> None:
        """Attend no more."""
        self._bells.pop(bell, None)

    def ask(self, job: Job) -> None:
        """Have a job done until it says that nothing is left. Asking twice does no harm."""
        self._jobs[job] = None
        for bell in list(self._bells):
            bell.put(None)
        loop = asyncio._get_running_loop()
        if loop is not None and loop not in self._loops:
            self._loops.add(loop)
            loop.call_soon(self._attend_in, loop)

    def _attend_in(self, loop: asyncio.AbstractEventLoop) -> None:
        delay = self.attend()
        if delay is None:
            self._loops.discard(loop)
        else:  # a job that is asked for meanwhile may be due earlier
            loop.call_later(min(delay, RETRY), self._attend_in, loop)

    def attend(self) -> float | None:
        """Do the jobs, for one who is about to wait.

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
            delay = job()  # it may have been asked for just before it was taken out
            if delay is not None:
                self._jobs[job] = None
        return delay


#: Where everybody asks.
STANDBY = Standby()
