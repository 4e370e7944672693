"""The verbs that end a pool: each is a message to its supervisor, and a wait for the answer."""

from __future__ import annotations

import asyncio
import signal
import threading
from types import TracebackType
from typing import Self

import pykka

from ion_actors._arguments import seconds
from ion_actors.context import background
from ion_actors.errors import PoolClosed
from ion_actors.forking import check
from ion_actors.futures import Future
from ion_actors.raised import is_a
from ion_actors.workerpool import process
from ion_actors.workerpool.core import Core
from ion_actors.workerpool.messages import Close, Drain
from ion_actors.workerpool.metrics import PoolState
from ion_actors.workerpool.report import DrainReport
from ion_actors.workerpool.signals import DrainOnSignal
from ion_actors.workerpool.worker import current_worker

__all__ = ["Ending"]

# Seconds to wait for a thread that has said goodbye to be gone.
_JOIN_PATIENCE = 1.0


class Ending:
    """Drain, close, shutdown, and the blocks that do it. A part of ``Pool``."""

    _core: Core

    def drain(self, timeout: float | None = None) -> DrainReport:
        """Accept nothing more, finish what was accepted, and end the pool.

        Args:
            timeout: seconds it may take; by default the pool's ``drain_timeout``. Shortly before
                the end of that time the contexts of running tasks are cancelled, so that those who
                listen end as cancelled; at the end of it, those who do not are abandoned.

        Returns:
            What was done since the drain began. If the pool has ended already: how that went.

        Raises:
            DrainTimeout: the time was up with work unfinished; the report is in the error.
            PoolForked: this process is a fork of the one that the pool lives in.

        Any thread may call this, any number of times; all wait for the same end, for which the
        earliest deadline counts. Called by one of the pool's own tasks, it cannot wait: the drain
        begins, and the report is an interim one.
        """
        return self._end(Drain(self._patience(timeout)))

    def close(self, timeout: float | None = None) -> DrainReport:
        """Cancel what has not started, ask what runs to stop, and end the pool.

        Args:
            timeout: seconds until what still runs is abandoned; by default the pool's
                ``drain_timeout``.

        Returns:
            What was finished and what was not; tasks that would not stop are in ``running``.

        Raises:
            PoolForked: this process is a fork of the one that the pool lives in.

        What holds for :meth:`drain` about threads and the pool's own tasks holds here.
        """
        return self._end(Close(self._patience(timeout)))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the pool as ``concurrent.futures`` does, by :meth:`drain`.

        Args:
            wait: wait for the end, at most for the pool's ``drain_timeout``. Without, there is no
                deadline: nobody is waiting.
            cancel_futures: cancel what has not started.

        Raises:
            DrainTimeout: as :meth:`drain`.
        """
        reply = self._begin_shutdown(wait, cancel_futures)
        if wait and not self._is_own_thread():
            self._report(reply)

    def _begin_shutdown(self, wait: bool, cancel_futures: bool) -> Future[DrainReport]:
        self._check_fork()
        reply = self._core.ask_for_end(Drain(self._core.spec.drain_timeout if wait else None))
        if cancel_futures:
            # As in the standard executors, callbacks run here: in the thread that cancels.
            for task, callbacks in self._core.drop_queue(self._core.closed_error):
                task._run_callbacks(callbacks)
        return reply

    def begin_drain(self, timeout: float | None) -> Future[DrainReport]:
        """Have a drain begin. Never blocks; the future is done when the drain is."""
        return self._core.ask_for_end(Drain(timeout))

    def _patience(self, timeout: float | None) -> float | None:
        return self._core.spec.drain_timeout if timeout is None else seconds("timeout", timeout)

    def _check_fork(self) -> None:
        check()
        if self._core.forked:
            raise process.forked(self._core.spec.name)

    def _end(self, message: Drain | Close) -> DrainReport:
        self._check_fork()
        reply = self._core.ask_for_end(message)
        if self._is_own_thread():
            return self._core.interim_report()
        return self._report(reply)

    def _report(self, reply: Future[DrainReport]) -> DrainReport:
        """Wait for the end and its report, and until the threads are gone."""
        try:
            # Not bound to the current context: the end has deadlines of its own, and is most
            # needed when everything else has ended.
            with background():
                return reply.result()
        except pykka.ActorDeadError:
            return self._past_report()
        finally:
            if reply.done():
                self._core.join(_JOIN_PATIENCE)

    def _past_report(self) -> DrainReport:
        report = self._core.last_report()
        if report is None:
            lost = RuntimeError(f"pool {self._core.spec.name!r} has lost its supervisor")
            raise self._core.broken or lost
        return report

    def _is_own_thread(self) -> bool:
        """Whether waiting for the pool's end here would be waiting for oneself."""
        worker = current_worker()
        if worker is not None and worker.inbox.mailbox is self._core.mailbox:
            return True
        current = threading.current_thread()
        if any(one.thread is current for one in list(self._core.workers)):
            return True  # a submitter that runs its task itself
        return current in self._core.threads[:1]

    # -- the end, without blocking an event loop -------------------------------------------

    async def adrain(self, timeout: float | None = None) -> DrainReport:
        """:meth:`drain` for coroutines."""
        return await self._aend(Drain(self._patience(timeout)))

    async def aclose(self, timeout: float | None = None) -> DrainReport:
        """:meth:`close` for coroutines."""
        return await self._aend(Close(self._patience(timeout)))

    async def ashutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """:meth:`shutdown` for coroutines."""
        reply = self._begin_shutdown(wait, cancel_futures)
        if wait and not self._is_own_thread():
            await self._areport(reply)

    async def _aend(self, message: Drain | Close) -> DrainReport:
        self._check_fork()
        reply = self._core.ask_for_end(message)
        if self._is_own_thread():
            return self._core.interim_report()
        return await self._areport(reply)

    async def _areport(self, reply: Future[DrainReport]) -> DrainReport:
        try:
            report = await reply
        except pykka.ActorDeadError:
            report = self._past_report()
        finally:
            if reply.done():
                await self._core.ajoin(_JOIN_PATIENCE)
        return report

    # -- signals ---------------------------------------------------------------------------

    def drain_on_signal(
        self, signum: int = signal.SIGTERM, timeout: float | None = None
    ) -> DrainOnSignal:
        """Have a signal drain the pool first, and then do what it would have done.

        Args:
            signum: the signal; by default SIGTERM, by which service managers stop a process.
            timeout: as for :meth:`drain`.

        Returns:
            The handler: :meth:`~DrainOnSignal.remove` gives the signal back, and so does leaving it
            as a ``with`` block.

        Raises:
            ValueError: this is not the main thread, where Python keeps its signals.

        The signal starts the drain in a thread of its own. When that is over, or its time is up,
        the signal is raised again for whoever had it before: it ends the process, if nobody did. A
        second signal does not wait. What takes the signal over later (a web server, or an event
        loop's ``add_signal_handler``) has it first; servers that raise it again at their end, as
        uvicorn does, drain the pool then.

        The kernel does not end the first process of a container (PID 1) by default. That ends by
        ``SystemExit(128 + signum)`` in the main thread, so that exit hooks run; if the main thread
        cannot be reached within five seconds (it is in foreign code), without them.
        """
        return DrainOnSignal(self, signum, self._patience(timeout))

    # -- blocks ----------------------------------------------------------------------------

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        if exc_type is not None and not self._is_drained_by_another(exc_val):
            self.close()
            return
        try:
            self.drain()
        except Exception:
            raise
        except BaseException:  # Ctrl-C while it drains
            self.close()
            raise

    def _is_drained_by_another(self, error: BaseException | None) -> bool:
        """Whether the block only failed to submit to a pool that is being drained already."""
        own = is_a(error, PoolClosed) and error.pool == self._core.spec.name
        return own and self._core.phase is PoolState.DRAINING

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        if exc_type is not None and not self._is_drained_by_another(exc_val):
            await self.aclose()
            return
        try:
            await self.adrain()
        except asyncio.CancelledError:
            self._core.tell(Close(self._core.spec.drain_timeout))
            raise
