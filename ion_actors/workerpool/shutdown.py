"""How a pool is ended: each verb is a message to its supervisor, and a wait for the answer."""

from __future__ import annotations

import sys
from types import FrameType

import pykka

from ion_actors._arguments import seconds
from ion_actors.context import background
from ion_actors.errors import DeadlockError, PoolClosed
from ion_actors.forking import check
from ion_actors.futures import Future
from ion_actors.raised import is_a
from ion_actors.workerpool import exit_hooks
from ion_actors.workerpool.core import PoolCore
from ion_actors.workerpool.messages import Close, Drain
from ion_actors.workerpool.model.metrics import PoolState
from ion_actors.workerpool.model.reports import DrainReport

__all__ = ["Shutdown"]

# Seconds to wait for a thread that is about to end.
_JOIN_PATIENCE = 1.0


class Shutdown:
    """Asks a pool's supervisor for the end, and waits for it. Each pool has one.

    Args:
        core: the pool.
    """

    def __init__(self, core: PoolCore) -> None:
        self._core = core

    def patience(self, timeout: float | None) -> float | None:
        """The seconds that an end may take: those given, or the pool's ``drain_timeout``.

        Raises:
            TypeError, ValueError: they make no sense.
        """
        return self._core.spec.drain_timeout if timeout is None else seconds("timeout", timeout)

    def check_fork(self) -> None:
        """Raises ``PoolForked`` in a process that is not the pool's."""
        check()
        if self._core.forked:
            raise exit_hooks.forked(self._core.spec.name)

    def begin(self, *, wait: bool, cancel_futures: bool) -> Future[DrainReport]:
        """Ask for the end as ``Pool.shutdown`` does."""
        self.check_fork()
        patience = self._core.spec.drain_timeout if wait else None
        if _is_left_by_interrupt():
            return self._core.ask_for_end(Close(patience, interrupted=True))
        if cancel_futures and self._core.mailbox.paused:
            self._cancel_queue()  # first: a drain has what is queued begin
        reply = self._core.ask_for_end(Drain(patience))
        if cancel_futures:
            self._cancel_queue()
        return reply

    def _cancel_queue(self) -> None:
        # As in the standard executors, callbacks run here: in the thread that cancels.
        for task, callbacks in self._core.drop_queue():
            task._run_callbacks(callbacks)

    def call_off(self, error: BaseException | None) -> None:
        """End what a block that is left by this error has begun."""
        interrupted = is_a(error, KeyboardInterrupt)
        try:
            self.end(Close(self._core.spec.drain_timeout, interrupted=interrupted))
        finally:
            del error

    def end(self, message: Drain | Close) -> DrainReport:
        """Ask for the end, and wait for it; one of the pool's own threads only asks."""
        self.check_fork()
        reply = self._core.ask_for_end(message)
        if self._core.owns_thread():
            return self._core.interim_report()
        return self.report(reply)

    def report(self, reply: Future[DrainReport]) -> DrainReport:
        """Wait for the end and its report, and until the threads are gone.

        Raises:
            DeadlockError: the tasks need the event loop that this would block.
        """
        if self._core.needs_this_loop() and not reply.done():
            raise DeadlockError(
                f"pool {self._core.spec.name!r} ends, but to wait for that here would block the "
                "event loop that its tasks need: use it as an `async with` block, or have the loop "
                "run `await pool.adrain()` or `await pool.aclose()`",
                tasks=(),
            )
        try:
            # Not bound to the current context: the end has deadlines of its own, and is most
            # needed when everything else has ended.
            with background():
                return reply.result()
        except pykka.ActorDeadError:
            return self._past_report()
        except KeyboardInterrupt:
            if self._core.mailbox.interrupted:  # it is the second Ctrl-C, and nobody is to wait
                self._core.ask_for_end(Close(0.0, interrupted=True))
            raise
        finally:
            if reply.done():
                self._core.join(_JOIN_PATIENCE)

    async def aend(self, message: Drain | Close) -> DrainReport:
        """:meth:`end` for coroutines."""
        self.check_fork()
        reply = self._core.ask_for_end(message)
        if self._core.owns_thread():
            return self._core.interim_report()
        return await self.areport(reply)

    async def areport(self, reply: Future[DrainReport]) -> DrainReport:
        """:meth:`report` for coroutines."""
        try:
            report = await reply
        except pykka.ActorDeadError:
            report = self._past_report()
        finally:
            if reply.done():
                await self._core.ajoin(_JOIN_PATIENCE)
        return report

    def _past_report(self) -> DrainReport:
        report = self._core.last_report()
        if report is None:
            lost = RuntimeError(f"pool {self._core.spec.name!r} has lost its supervisor")
            raise self._core.broken or lost
        return report

    def is_by_another(self, error: BaseException | None) -> bool:
        """Whether a block only failed to submit to its pool, since another drains that already."""
        own = is_a(error, PoolClosed) and error.pool == self._core.spec.name
        return own and self._core.phase is PoolState.DRAINING


def _is_left_by_interrupt() -> bool:
    """Whether Ctrl-C leaves a block at this moment, in whose ``__exit__`` a pool is shut down."""
    if not is_a(sys.exception(), KeyboardInterrupt):
        return False
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name in ("__exit__", "__aexit__"):
            return True
        frame = frame.f_back
    return False
