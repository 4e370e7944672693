"""The pool: the face of a supervisor, its mailbox and its workers.

``Pool`` is a ``concurrent.futures.Executor``. Every verb is a message: submissions go to the
mailbox's queue in the caller's thread, everything about life and death goes to the supervisor.
"""

from __future__ import annotations

import concurrent.futures
import copy
import functools
import logging
import signal
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Never, NoReturn, Self, cast

import pykka

from ion_actors._arguments import boolean, optional_callable, unexpected_keyword
from ion_actors.actors import NO_MORE_THREADS, Envelope, refuse
from ion_actors.backends.protocol import Backend
from ion_actors.context import Context, background
from ion_actors.errors import BrokenPool
from ion_actors.forking import check
from ion_actors.futures import Future
from ion_actors.logs import warn_in_finalizer
from ion_actors.observe import Metrics, Tracer
from ion_actors.observe.living import POOLS
from ion_actors.workerpool import exit_hooks
from ion_actors.workerpool.core import PoolCore, closed
from ion_actors.workerpool.mailbox.dead_letters import DeadLetters
from ion_actors.workerpool.mailbox.inspection import purge, waiting_tasks
from ion_actors.workerpool.mailbox.mailbox import Mailbox, SheddingMailbox
from ion_actors.workerpool.messages import (
    Broadcast,
    Close,
    Drain,
    Forgotten,
    LoopEnded,
    Resize,
    Submit,
    TrySubmit,
)
from ion_actors.workerpool.model.metrics import PoolMetrics, PoolState, numbers_table
from ion_actors.workerpool.model.overflow import CoDel, Overflow, OverflowPolicy
from ion_actors.workerpool.model.recovery import PanicRecovery
from ion_actors.workerpool.model.reports import DrainReport, Panic, PoolDump, QueuedTask, StuckTask
from ion_actors.workerpool.shutdown import Shutdown
from ion_actors.workerpool.spec import UNBOUNDED, Dialect, PoolSpec, TaskWrapper
from ion_actors.workerpool.submission.submitter import Submitter, letters_of
from ion_actors.workerpool.supervisor.supervisor import PoolSupervisor

if TYPE_CHECKING:
    from ion_actors.adaptive.sizing import Adaptive
    from ion_actors.workerpool.signals import DrainOnSignal
    from ion_actors.workerpool.snapshot import PoolSnapshot

__all__ = ["Pool"]


# What other pools call the arguments, and what to write here.
_INSTEAD = {
    "max_workers": "size=",
    "processes": "size=",
    "workers": "size=",
    "thread_name_prefix": "name=",
    "maxsize": "queue_size=",
    "mp_context": 'backend=ProcessBackend(start_method="spawn")',
    "max_tasks_per_child": "backend=ProcessBackend(max_tasks_per_child=...)",
    "maxtasksperchild": "backend=ProcessBackend(max_tasks_per_child=...)",
    "timeout": "drain_timeout=, or options(timeout=...) for tasks",
}


class Pool(Submitter, concurrent.futures.Executor):
    """A supervised pool of worker actors.

    Args:
        size: how many workers; by default one for each CPU that this process may use, and 100 on
            an event loop. An :class:`~ion_actors.adaptive.Adaptive` has their number follow the
            work.
        queue_size: how many tasks may wait for a worker; by default 10 000. With 0, a task is only
            accepted by a worker that is idle.
        name: for threads, errors, logs and metrics; by default ``pool-1``, ``pool-2``, …
        context: when it ends, the pool closes. By default none does.
        drain_timeout: seconds that a drain or close may take by default (at the
            end of a ``with`` block, by :meth:`shutdown`, at interpreter exit); None for any time.
        logger: gets what happens to workers and to the pool, with the facts in ``extra``; by
            default the logger ``ion_actors.pool``.
        metrics: gets counters, gauges and histograms: see :mod:`ion_actors.observe`.
        tracer: gets a span for each task.
        panic_recovery: the policy for panics, or just a callable that is told of them.
        task_wrapper: called with each task (a callable without arguments) in its worker; returns
            what to call instead.
        initializer: called in each worker before its first task, and again in each replacement.
            With one, all workers begin at once, so that it is known early if it fails; without, a
            worker begins, and has a thread, when there is something for it.
        initargs: its arguments.
        worker: a class whose instances are the workers: a subclass of :class:`Worker`, any other
            pykka actor class, or a ``functools.partial`` of one with the arguments. Tasks can then
            be calls of its methods, see :meth:`proxy`. Each worker makes an instance, after its
            ``initializer``, and so does each replacement.
        helping: a task may wait for tasks of its own pool. Its worker runs the one that is waited
            for itself if that is still queued, and a task for which there is no room when another
            one submits it. False: such waits take up the worker, and may raise ``DeadlockError``.

        stuck_after: seconds after which a running task is reported as stuck, with the stack of its
            thread, at level WARNING. It is noticed after at most half as much again. None: never.
        on_stuck: called with each :class:`StuckTask`, in a thread of its own.
        replace_stuck: how many workers that are stuck at a time may be replaced. Their threads go
            on alone, so there may be as many more than ``size``.
        backend: where tasks run: ``"thread"``, in the workers' threads; ``"process"``, in a child
            process for each worker; ``"asyncio"``, as coroutines of the event loop that runs here
            (or else of one of the pool's own); ``"ray"``, in an actor on a Ray cluster for each
            worker; or a :class:`ProcessBackend`, :class:`AsyncioBackend` or :class:`RayBackend`
            with settings of its own. What is called *in each worker* runs there, except for the
            ``task_wrapper``.

        overflow: what becomes of a task when no worker is idle and the mailbox is full: an
            :class:`Overflow` or its value ("block", "reject", "drop_newest", "drop_oldest",
            "caller_runs"), or a :class:`CoDel`, which sheds tasks before it comes to that.

    Raises:
        TypeError, ValueError: an argument makes no sense; the message names it.

    As a ``with`` block it drains when the block is left normally, and closes when it is left by an
    exception (other than its own ``PoolClosed`` while somebody else drains it). As an
    ``async with`` block it does the same without blocking the event loop. Ctrl-C is quiet: the log
    gets one line about what it has called off; a second one does not wait.
    """

    _dialect: ClassVar[Dialect] = Dialect()  # what stands in for another executor has its own

    def __init__(
        self,
        size: int | Adaptive | None = None,
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
        helping: bool = True,
        stuck_after: float | None = None,
        on_stuck: Callable[[StuckTask], object] | None = None,
        replace_stuck: int = 0,
        overflow: OverflowPolicy = Overflow.BLOCK,
        worker: type[pykka.Actor] | functools.partial[Any] | None = None,
        backend: Backend | str = "thread",
        **unknown: Never,
    ) -> None:
        check()
        if unknown:
            raise unexpected_keyword(type(self), unknown, Pool.__init__, _INSTEAD)
        spec = PoolSpec.checked(
            size, queue_size, name, context, drain_timeout, logger, metrics, tracer,
            panic_recovery, task_wrapper, initializer, initargs, helping,
            stuck_after, on_stuck, replace_stuck, overflow, worker, backend, self._dialect,
        )  # fmt: skip
        if exit_hooks.is_exiting():
            raise RuntimeError("cannot start a pool at interpreter exit")
        site = spec.open_site()
        core = PoolCore(spec, _mailbox(spec), site)
        super().__init__(core)
        self._ending = Shutdown(core)
        try:
            self._ref = PoolSupervisor.start(core)
        except NO_MORE_THREADS:
            core.ended.set()  # there is nobody to be told that it was forgotten
            if site is not None:
                site.close()
            raise
        if site is not None:
            site.begin(functools.partial(core.tell, LoopEnded()), core.ended.is_set)
        core.inbox.accept = _acceptor(Submitter(core))
        exit_hooks.register(core)
        POOLS.add(core)
        # The pool's context ends with the given one; closing in turn ends the pool's context.
        spec.context.add_callback(functools.partial(_on_context_end, core))

    # -- facts -----------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The pool's name."""
        return self._core.spec.name

    @property
    def queue_size(self) -> int:
        """The number of tasks that may wait."""
        return self._core.mailbox.limit

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
        check()
        return self._core.state is PoolState.CLOSED

    @property
    def is_paused(self) -> bool:
        """Whether no queued task begins: see :meth:`pause`."""
        check()
        return self._core.mailbox.paused

    def metrics(self) -> PoolMetrics:
        """The numbers of this moment."""
        return self._core.metrics()

    def dump(self) -> PoolDump:
        """Each worker's current task, its age, and where its thread is. For debugging: print it."""
        return self._core.dump()

    def snapshot(self, *, stacks: bool = True) -> PoolSnapshot:
        """What the pool does now, as one frozen structure that JSON can hold.

        It has the facts of :meth:`metrics` and :meth:`dump`, the oldest tasks that wait, and which
        tasks are stuck; never the arguments of a task. Nothing is measured for it between calls.

        Args:
            stacks: whether to tell where each running task is. Child processes are asked then, and
                waited for as :meth:`dump` does: up to a second. Without, it never waits.

        Raises:
            TypeError: ``stacks`` is not True or False.
        """
        from ion_actors.workerpool.snapshot import pool_snapshot  # noqa: PLC0415 - seldom wanted

        return pool_snapshot(self._core, stacks=boolean("stacks", stacks))

    @property
    def dead_letters(self) -> DeadLetters:
        """The tasks that the pool gives up, to be subscribed to; also after it has ended."""
        return letters_of(self._core)

    # -- the queue -------------------------------------------------------------------------

    def pause(self) -> None:
        """Let no queued task begin until :meth:`resume`. To call it twice does no harm.

        What has begun goes on, and so does what a running task waits for: its worker runs that
        itself, see ``helping``. Tasks are accepted as long as there is room; then ``submit``
        waits, also with the policy "caller_runs". Time limits and ``ttl`` count on. A
        :meth:`drain` resumes the pool, since it is to finish what was accepted; so do the end of
        the ``with`` block and of the interpreter. A :meth:`close` drops the queue as it is.

        Raises:
            PoolClosed, BrokenPool: the pool is at its end.
        """
        self._ending.check_fork()
        if self._core.mailbox.pause():
            self._core.spec.log(logging.INFO, "pool %r is paused", self.name)

    def resume(self) -> None:
        """Let queued tasks begin again after :meth:`pause`. Does nothing to a pool that runs."""
        self._ending.check_fork()
        if self._core.mailbox.resume():
            self._core.spec.log(logging.INFO, "pool %r was resumed", self.name)

    def queued(self, *, arguments: bool = False) -> list[QueuedTask]:
        """The tasks that wait in the queue now, in the order in which they were accepted.

        Those that have a delay, or wait for another try, come last, in the order of their time.
        What runs is not in it, nor are submitters that wait for room. For that moment nobody else
        uses the queue: some milliseconds for ten thousand tasks.

        Args:
            arguments: also those of the tasks. They are not in the ``repr``.

        Raises:
            TypeError: ``arguments`` is not True or False.
        """
        self._ending.check_fork()
        boolean("arguments", arguments)
        return [facts for _, facts in waiting_tasks(self._core.mailbox, arguments=arguments)]

    def purge(
        self,
        predicate: Callable[[QueuedTask], object] | None = None,
        *,
        arguments: bool = False,
    ) -> int:
        """Give up tasks that wait in the queue; they become dead letters.

        Their futures raise ``TaskDropped`` with the reason ``DropReason.PURGED``, and are
        cancelled. Their callbacks run here.

        Args:
            predicate: is called here with each queued task, and returns whether to give it up. By
                default all are. If it raises, none is.
            arguments: whether the predicate sees the arguments of the tasks.

        Returns:
            How many were given up. Tasks that began meanwhile, and those that were accepted
            meanwhile, are not among them.

        Raises:
            TypeError: an argument makes no sense.
        """
        self._ending.check_fork()
        optional_callable("predicate", predicate)
        boolean("arguments", arguments)
        return purge(self._core.mailbox, predicate, arguments=arguments)

    # -- size ------------------------------------------------------------------------------

    def broadcast(self, message: Any, /) -> list[Future[Any]]:
        """Have the ``on_receive`` of each worker answer a message, between its tasks.

        It reaches every worker that there is now exactly once, and is no task in the metrics. One
        that replaces another one later begins anew, and is not told.

        Returns:
            The future answers, in no particular order. Each raises what ``on_receive`` raised, or
            ``pykka.ActorDeadError`` if that worker ended before it came to it. A task that waits
            for the answer of its own worker gets a ``DeadlockError``.

        Raises:
            PoolClosed, BrokenPool: the pool is at its end.
            TypeError: it has no worker class.
        """
        return cast("list[Future[Any]]", self._ask(Broadcast(message)))

    def resize(self, size: int) -> None:
        """Have ``size`` workers from now on.

        New workers begin as they do in a new pool. An :class:`~ion_actors.adaptive.Adaptive` size
        goes on from there, within its bounds. Those who are too many stop when their task is
        over, and are not waited for. No task is lost. The bound of the queue stays as it is.

        Raises:
            PoolClosed, BrokenPool: the pool is at its end.
            TypeError, ValueError: ``size`` is no whole number of at least 1.
        """
        self._ask(Resize(size))

    def _ask(self, message: Broadcast | Resize) -> Any:
        self._ending.check_fork()
        try:
            with background():  # the supervisor answers at once, whatever has ended
                return self._ref.ask(message)
        except pykka.ActorDeadError:
            raise self._core.mailbox.refusal() or closed(self.name) from None

    @property
    def actor_ref(self) -> pykka.ActorRef[PoolSupervisor]:
        """The supervisor, for programs made of actors: see :mod:`ion_actors.workerpool.messages`.

        As long as somebody holds this reference, the pool is not taken for forgotten.
        """
        ref = copy.copy(self._ref)
        ref._pool = self  # type: ignore[attr-defined]
        return ref

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
        return self._ending.end(Drain(self._ending.patience(timeout)))

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
        return self._ending.end(Close(self._ending.patience(timeout)))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the pool as ``concurrent.futures`` does, by :meth:`drain`.

        Args:
            wait: wait for the end, at most for the pool's ``drain_timeout``. Without, there is no
                deadline: nobody is waiting.
            cancel_futures: cancel what has not started.

        Raises:
            DrainTimeout: as :meth:`drain`.

        In the ``__exit__`` of a block that Ctrl-C leaves, it is a :meth:`close`.
        """
        reply = self._ending.begin(wait=wait, cancel_futures=cancel_futures)
        if wait and not self._core.owns_thread():
            self._ending.report(reply)

    def begin_drain(self, timeout: float | None) -> Future[DrainReport]:
        """Have a drain begin. Never blocks; the future is done when the drain is."""
        return self._core.ask_for_end(Drain(timeout))

    # -- the end, without blocking an event loop -------------------------------------------

    async def adrain(self, timeout: float | None = None) -> DrainReport:
        """:meth:`drain` for coroutines."""
        return await self._ending.aend(Drain(self._ending.patience(timeout)))

    async def aclose(self, timeout: float | None = None) -> DrainReport:
        """:meth:`close` for coroutines."""
        return await self._ending.aend(Close(self._ending.patience(timeout)))

    async def ashutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """:meth:`shutdown` for coroutines."""
        reply = self._ending.begin(wait=wait, cancel_futures=cancel_futures)
        if wait and not self._core.owns_thread():
            await self._ending.areport(reply)

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
        from ion_actors.workerpool.signals import DrainOnSignal  # noqa: PLC0415 - seldom wanted

        return DrainOnSignal(self, signum, self._ending.patience(timeout))

    # -- blocks ----------------------------------------------------------------------------

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        if exc_type is not None and not self._ending.is_by_another(exc_val):
            self._ending.call_off(exc_val)
            return
        try:
            self.drain()
        except Exception:
            raise
        except BaseException as error:  # Ctrl-C while it drains
            self._ending.call_off(error)
            raise

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        import asyncio  # noqa: PLC0415 - it is large, and imported already where a loop runs

        if exc_type is not None and not self._ending.is_by_another(exc_val):
            await self.aclose()
            return
        try:
            await self.adrain()
        except asyncio.CancelledError:
            self._core.tell(Close(self._core.spec.drain_timeout))
            raise

    # De facto attributes of the standard executors, which their clients read.

    @property
    def _max_workers(self) -> int:
        return self._core.mailbox.size

    @property
    def _broken(self) -> str | bool:
        # Submissions are refused first: whoever has met that must find it so here.
        broken = self._core.broken or self._core.mailbox.refusal()
        return str(broken) if isinstance(broken, BrokenPool) else False

    @property
    def _shutdown(self) -> bool:
        return self._core.phase is not PoolState.RUNNING

    def __repr__(self) -> str:
        numbers = self.metrics()
        limit = "" if self.queue_size == UNBOUNDED else f"/{self.queue_size}"
        return (
            f"<{type(self).__name__} {self.name!r} {self._shown_state()}, size={self.size}, "
            f"running={numbers.running}, queued={numbers.queued}{limit}>"
        )

    def _repr_html_(self) -> str:
        return numbers_table(self.metrics(), f"pool {self.name!r} is {self._shown_state()}")

    def _shown_state(self) -> str:
        return "paused" if self.is_paused else self.state.value

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"pool {self.name!r} lives in this process, and cannot be pickled; a task in another "
            "process can make a pool of its own"
        )

    # -- forgotten -------------------------------------------------------------------------

    def __del__(self) -> None:
        core: PoolCore | None = getattr(self, "_core", None)
        # `ended` first: at exit every pool has, and then the module's globals may be gone.
        if core is None or core.ended.is_set() or core.phase is not PoolState.RUNNING:
            return
        if not core.inbox.understood:
            return  # its constructor was interrupted before there was a supervisor
        # First the message, which cannot fail: a warning can be an error.
        core.tell(Forgotten())
        if core.spec.dialect.warns:
            warn_in_finalizer(
                f"pool {core.spec.name!r} was never closed; use it as a with block, or call "
                "drain() or close()",
                ResourceWarning,
                source=self,
            )


def _mailbox(spec: PoolSpec) -> Mailbox:
    on_dropped = None if spec.hooks is None else spec.hooks.dropped
    facts = spec.name, spec.queue_size, spec.size, spec.context, on_dropped
    if isinstance(spec.overflow, CoDel):
        return SheddingMailbox(*facts, spec.overflow)
    return Mailbox(*facts)


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
                context=message.context, timeout=message.timeout, name=message.name,
                ttl=message.ttl, priority=message.priority, key=message.key,
                key_limit=message.key_limit, retry_on_worker_death=message.retry_on_worker_death,
                retry=message.retry, delay=message.delay,
            )  # fmt: skip
            verb = options.try_submit if isinstance(message, TrySubmit) else options.submit
            task = verb(message.fn, *message.args, **message.kwargs)
        except Exception as error:
            refuse(envelope, error)
        else:
            if envelope.reply_to is not None:
                envelope.reply_to.set(task)
        return True

    return accept


def _on_context_end(core: PoolCore) -> None:
    if not core.cancels:  # else the pool is being closed, with a deadline of its own
        core.ask_for_end(Close(core.spec.drain_timeout))
