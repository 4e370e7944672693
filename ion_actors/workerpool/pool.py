"""The pool: the face of a supervisor, its mailbox and its workers.

``Pool`` is a ``concurrent.futures.Executor``. Every verb is a message: submissions go to the
mailbox's task lane in the caller's thread, everything about life and death goes to the supervisor.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import copy
import functools
import logging
import threading
import warnings
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import pykka

from ion_actors._arguments import seconds
from ion_actors.context import Context, background
from ion_actors.futures import Future
from ion_actors.observe import Metrics, Tracer
from ion_actors.workerpool import process
from ion_actors.workerpool.core import Core
from ion_actors.workerpool.inbox import Envelope, refuse
from ion_actors.workerpool.mailbox import Mailbox
from ion_actors.workerpool.messages import Close, Drain, Submit, TrySubmit
from ion_actors.workerpool.metrics import PoolMetrics, PoolState
from ion_actors.workerpool.recovery import PanicRecovery
from ion_actors.workerpool.report import DrainReport, Panic
from ion_actors.workerpool.spec import PoolSpec, TaskWrapper
from ion_actors.workerpool.submitter import Submitter
from ion_actors.workerpool.supervisor import Forgotten, Supervisor
from ion_actors.workerpool.worker import current_worker

__all__ = ["Pool"]

# Seconds to wait for a thread that has said goodbye to be gone.
_JOIN_PATIENCE = 1.0


class Pool(Submitter, concurrent.futures.Executor):
    """A supervised pool of worker actors.

    Args:
        size: how many workers; by default one for each CPU that this process may use.
        queue_size: how many tasks may wait for a worker; by default 10 000. With 0, a task is only
            accepted by a worker that is idle.
        name: for threads, errors, logs and metrics; by default ``pool-1``, ``pool-2``, …
        context: when it ends, the pool closes. By default none does.
        drain_timeout: seconds that a drain or close may take when it is not told otherwise (at the
            end of a ``with`` block, by :meth:`shutdown`, at interpreter exit); None for any time.
        logger: gets what happens to workers and to the pool, with the facts in ``extra``; by
            default the logger ``ion_actors.pool``.
        metrics: gets counters, gauges and histograms: see :mod:`ion_actors.observe`.
        tracer: gets a span for each task.
        panic_recovery: the policy for panics, or just a callable that is told of them.
        task_wrapper: called with each task (a callable without arguments) in its worker; returns
            what to call instead.
        initializer: called in each worker before its first task, and again in each replacement.
        initargs: its arguments.

    Raises:
        TypeError, ValueError: an argument makes no sense; the message names it.

    As a ``with`` block it drains when the block is left normally, and closes when it is left by an
    exception. As an ``async with`` block it does the same without blocking the event loop.
    """

    def __init__(
        self,
        size: int | None = None,
        queue_size: int | None = None,
        *,
        name: str | None = None,
        context: Context | None = None,
        drain_timeout: float | None = 30.0,
        logger: logging.Logger | None = None,
        metrics: Metrics | None = None,
        tracer: Tracer | None = None,
        panic_recovery: PanicRecovery | Callable[[Panic], object] | None = None,
        task_wrapper: TaskWrapper | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
    ) -> None:
        spec = PoolSpec.checked(
            size, queue_size, name, context, drain_timeout, logger, metrics, tracer,
            panic_recovery, task_wrapper, initializer, initargs,
        )  # fmt: skip
        if process.is_exiting():
            raise RuntimeError("cannot start a pool at interpreter exit")
        on_dropped = None if spec.hooks is None else spec.hooks.dropped
        core = Core(spec, Mailbox(spec.name, spec.queue_size, spec.context, on_dropped))
        super().__init__(core)
        self._ref = Supervisor.start(core)
        core.inbox.accept = _acceptor(Submitter(core))
        process.register(core)
        # The pool's context ends with the given one; closing in turn ends the pool's context.
        spec.context.add_callback(functools.partial(_on_context_end, core))

    # -- facts -----------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The pool's name."""
        return self._core.spec.name

    @property
    def size(self) -> int:
        """The number of workers."""
        return self._core.spec.size

    @property
    def queue_size(self) -> int:
        """The number of tasks that may wait."""
        return self._core.spec.queue_size

    @property
    def state(self) -> PoolState:
        """RUNNING, DRAINING or CLOSED."""
        return self._core.phase

    @property
    def is_draining(self) -> bool:
        """Whether it accepts nothing more and has not ended yet."""
        return self._core.phase is PoolState.DRAINING

    @property
    def is_closed(self) -> bool:
        """Whether it has ended: no worker is left and every future has its outcome."""
        return self._core.state is PoolState.CLOSED

    def metrics(self) -> PoolMetrics:
        """The numbers of this moment."""
        return self._core.metrics()

    @property
    def actor_ref(self) -> pykka.ActorRef[Supervisor]:
        """The supervisor, for programs made of actors: see :mod:`ion_actors.workerpool.messages`.

        As long as somebody holds this reference, the pool is not taken for forgotten.
        """
        ref = copy.copy(self._ref)
        ref._pool = self  # type: ignore[attr-defined]
        return ref

    # De facto attributes of the standard executors, which their clients read.

    @property
    def _max_workers(self) -> int:
        return self._core.spec.size

    @property
    def _broken(self) -> str | bool:
        return str(self._core.broken) if self._core.broken is not None else False

    @property
    def _shutdown(self) -> bool:
        return self._core.phase is not PoolState.RUNNING

    def __repr__(self) -> str:
        numbers = self.metrics()
        return (
            f"<Pool {self.name!r} {self.state.value}, size={self.size}, "
            f"running={numbers.running}, queued={numbers.queued}/{self.queue_size}>"
        )

    # -- the end ---------------------------------------------------------------------------

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

    def _patience(self, timeout: float | None) -> float | None:
        return self._core.spec.drain_timeout if timeout is None else seconds("timeout", timeout)

    def _check_fork(self) -> None:
        if self._core.forked:
            raise process.forked(self.name)

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
            raise RuntimeError(f"pool {self.name!r} has lost its supervisor")
        return report

    def _is_own_thread(self) -> bool:
        """Whether waiting for the pool's end here would be waiting for oneself."""
        worker = current_worker()
        if worker is not None and worker.inbox.mailbox is self._mailbox:
            return True
        return threading.current_thread() in self._core.threads[:1]

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
                self._core.join(_JOIN_PATIENCE)  # they have said goodbye: this is short
        return report

    # -- blocks ----------------------------------------------------------------------------

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        if exc_type is not None:
            self.close()
            return
        try:
            self.drain()
        except Exception:
            raise
        except BaseException:  # Ctrl-C while it drains
            self.close()
            raise

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        if exc_type is not None:
            await self.aclose()
            return
        try:
            await self.adrain()
        except asyncio.CancelledError:
            self._core.tell(Close(self._core.spec.drain_timeout))
            raise

    def __del__(self) -> None:
        core: Core | None = getattr(self, "_core", None)
        # `ended` first: at exit every pool has, and then the module's globals may be gone.
        if core is None or core.ended.is_set() or core.phase is not PoolState.RUNNING:
            return
        # First the message, which cannot fail: a warning can be an error.
        core.tell(Forgotten())
        warnings.warn(
            f"pool {core.spec.name!r} was never closed; use it as a with block, or call drain() "
            "or close()",
            ResourceWarning,
            source=self,
            stacklevel=1,
        )


def _acceptor(submitter: Submitter) -> Callable[[Envelope[Any]], bool]:
    """What takes the task messages out of the supervisor's mail, in their senders' threads.

    It must not refer to the pool's face, which can be forgotten.
    """

    def accept(envelope: Envelope[Any]) -> bool:
        message = envelope.message
        if not isinstance(message, Submit):
            return False
        try:
            options = submitter.options(
                context=message.context, timeout=message.timeout, name=message.name
            )
            verb = options.try_submit if isinstance(message, TrySubmit) else options.submit
            task = verb(message.fn, *message.args, **message.kwargs)
        except Exception as error:
            refuse(envelope, error)
        else:
            if envelope.reply_to is not None:
                envelope.reply_to.set(task)
        return True

    return accept


def _on_context_end(core: Core) -> None:
    core.ask_for_end(Close(core.spec.drain_timeout))
