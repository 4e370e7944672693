"""A pool without its face: what the face, the exit hook and the fork hook all hold on to.

The face (``Pool``) is what users hold. Nothing here refers to it, so that a pool that is forgotten
can be collected, and be drained by those who are left.
"""

from __future__ import annotations

import functools
import itertools
import threading
import weakref
from concurrent.futures._base import RUNNING
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from ion_actors.actors import Envelope, Flag
from ion_actors.backends.loop_threads import left_behind
from ion_actors.backends.protocol import LoopSite
from ion_actors.backends.stacks import Seen, Stack, stack_of
from ion_actors.clock import system_clock
from ion_actors.context import background, running_task
from ion_actors.delivery import PATIENCE, is_kept_free
from ion_actors.errors import IonError, PoolClosed
from ion_actors.forking import check
from ion_actors.futures import Future
from ion_actors.keys import Keys
from ion_actors.logs import LOGS, flush
from ion_actors.observe import HOOKS
from ion_actors.workerpool.mailbox.dead_letters import KeptLetters
from ion_actors.workerpool.mailbox.mailbox import Mailbox
from ion_actors.workerpool.mailbox.protocols import NOT_BEGUN, Performer
from ion_actors.workerpool.mailbox.task import TaskFuture
from ion_actors.workerpool.messages import Drain
from ion_actors.workerpool.model.metrics import PoolMetrics, PoolState
from ion_actors.workerpool.model.reports import (
    DelayedTask,
    DrainReport,
    PoolDump,
    TaskState,
    UnfinishedTask,
    WorkerDump,
)
from ion_actors.workerpool.spec import PoolSpec
from ion_actors.workerpool.worker.inbox import SupervisorInbox
from ion_actors.workerpool.worker.worker import current_worker

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["PoolCore", "answers_until", "closed", "until_over", "work_of"]

# How often a coroutine looks whether a thread is gone without a pause, and then the pause in s.
_GLANCES = 20
_PAUSE = 0.001

# Seconds that a dump waits for child processes to say where their tasks are.
_PATIENCE = 1.0


class _EndReply(Future[DrainReport]):
    """How the pool ends. An end that is asked for twice need not be waited for.

    So an error that nobody reads is not logged. (A callback could read it, too, but a supervisor
    has callbacks run by a thread of their own.)
    """

    @override
    def set_exception(self, *args: Any, **kwargs: Any) -> None:
        """Set it, and read it."""
        super().set_exception(*args, **kwargs)
        self.exception(0)


@dataclass(slots=True, eq=False, repr=False, weakref_slot=True)
class PoolCore:
    """The parts of one pool, and what has become of it. Its life is the supervisor's to write."""

    spec: PoolSpec
    mailbox: Mailbox
    site: LoopSite | None = None  # the event loop that all workers share, if they do
    inbox: SupervisorInbox = field(default_factory=SupervisorInbox)  # until there is a supervisor
    # Every one that is not gone, and callers that stand in.
    workers: list[Performer] = field(default_factory=list)
    threads: list[threading.Thread] = field(default_factory=list)  # to be joined at the end
    state: PoolState = PoolState.RUNNING
    broken: BaseException | None = None
    cancels: bool = False  # it ends its own context
    forked: bool = False  # this process is a child, and the threads stayed in the parent
    dropped: list[UnfinishedTask] = field(default_factory=list)  # not started, until reported
    counts: DrainReport | None = None  # how it ended, without the tasks
    undelivered: DrainReport | None = None  # the same with the tasks, until somebody asks
    delivered: weakref.ref[DrainReport] | None = None  # and then as long as somebody has it
    ended: Flag = field(default_factory=Flag)
    keys: Keys = field(default_factory=Keys)  # that tasks have
    number: int = field(default_factory=itertools.count(1).__next__)  # among those of the process
    kept: KeptLetters | None = None  # the latest dead letters, while somebody may look at them

    def metrics(self) -> PoolMetrics:
        """The numbers of this moment."""
        check()
        return self.mailbox.snapshot()

    @property
    def phase(self) -> PoolState:
        """Where the pool is in its life, as its users see it: once it refuses tasks, it drains."""
        check()
        if self.state is PoolState.RUNNING and self.mailbox.refuses:
            return PoolState.DRAINING
        return self.state

    def ask_for_end(self, message: object) -> Future[DrainReport]:
        """Send the supervisor a Drain or Close; accept nothing from now on. Never blocks."""
        reply = _EndReply()
        self.inbox.put(Envelope(message, reply))  # first: else a worker that is refused seems lost
        make_error = functools.partial(closed, self.spec.name)
        self.mailbox.refuse(make_error, resume=isinstance(message, Drain))
        return reply

    def keep_report(self, report: DrainReport, *, asked_for: bool) -> None:
        """Remember how the pool ended.

        Tasks that were dropped are reported to whoever asks first, so that nothing is lost in
        silence; after that the pool itself holds on to none of them.
        """
        self.counts = replace(report, cancelled=(), running=())
        self.undelivered = None if asked_for else report
        self.delivered = weakref.ref(report)
        self.dropped = []

    def last_report(self) -> DrainReport | None:
        """How the pool ended; None if it has not."""
        full = self.delivered() if self.delivered is not None else None
        self.undelivered = None
        return full or self.counts

    def drop_queue(
        self, make_error: Callable[[TaskFuture[Any]], IonError] | None = None
    ) -> list[tuple[TaskFuture[Any], Any]]:
        """End what is queued. Returns the tasks that have callbacks, which are to be run.

        Args:
            make_error: the error of each task. By default the pool was closed, or broke.
        """
        if make_error is None and self.broken is not None:
            make_error = self._broken_error  # they were on their way to a worker then
        dropped = self.mailbox.drop_queue(make_error)
        self.dropped += [
            UnfinishedTask(fn, args, kwargs or {}, _state_of(task), task.given_name)
            for task, (fn, args, kwargs, _), _ in dropped
        ]
        return [(task, callbacks) for task, _, callbacks in dropped if callbacks]

    def _broken_error(self, task: TaskFuture[Any]) -> IonError:
        return self.mailbox.refusal() or task.closed_error()

    def ask(self, message: object) -> Future[DrainReport]:
        """Send the supervisor a message; the reply comes later. Never blocks."""
        reply: Future[DrainReport] = Future()
        self.inbox.put(Envelope(message, reply))
        return reply

    def tell(self, message: object) -> None:
        """Send the supervisor a message. Never blocks, and is safe in a finalizer."""
        self.inbox.put(Envelope(message))

    def owns_thread(self) -> bool:
        """Whether to wait for the pool's end here would be to wait for the caller's own end."""
        task = running_task()
        if isinstance(task, TaskFuture) and task.mailbox is self.mailbox and not task.done():
            return True
        if self.site is not None and self.site.own and self.site.is_here():
            return True
        worker = current_worker()
        if worker is not None and worker.inbox.mailbox is self.mailbox:
            return True
        current = threading.current_thread()
        if any(one.thread is current for one in list(self.workers)):
            return True  # a submitter that runs its task itself
        return current in self.threads[:1]

    def needs_this_loop(self) -> bool:
        """Whether the pool can only end if the event loop of this thread goes on."""
        if self.site is None or not self.site.is_held_up():
            return False
        return bool(self.mailbox.backlog) or any(
            one.current is not None or one.starting or self.spec.residence is not None
            for one in list(self.workers)
        )

    def worker_threads(self) -> set[threading.Thread]:
        """The threads of the workers, and of those of them that have ended lately."""
        known = {*self.threads[1:], *(one.thread for one in list(self.workers))}
        return {thread for thread in known if thread is not None}

    def join(self, patience: float) -> None:
        """Wait for the threads that are about to end, so that the caller finds none left."""
        for thread in self.threads:
            if thread is not threading.current_thread():
                thread.join(patience)
        HOOKS.flush()  # what they have told
        flush()  # what they have logged

    async def ajoin(self, patience: float) -> None:
        """:meth:`join` for coroutines."""
        await until_over(self.threads, patience)

    def whereabouts(self) -> dict[Performer, Stack]:
        """Ask where each worker is, all at once; nothing is waited for."""
        return {worker: worker.where() for worker in list(self.workers)}

    def running(
        self, where: Mapping[Performer, Stack] | None = None
    ) -> list[tuple[TaskFuture[Any], UnfinishedTask]]:
        """The tasks that run now, and what a report would say of each.

        Args:
            where: where their workers are. By default that is asked, and not waited for.
        """
        found = []
        asked = self.whereabouts() if where is None else where
        now = self.spec.context.clock.monotonic()
        for worker, task, began in self.at_work():
            # A fenced one has ended for its submitter, but its worker is still at it.
            if not (task._state is RUNNING or task.fenced):
                continue
            # Copied before the second look: once its worker is done with it, the call is dropped.
            unfinished = UnfinishedTask(
                task.fn, task.args, task.kwargs or {}, TaskState.RUNNING,
                task.given_name, worker.name, max(0.0, now - began),
                asked[worker].text(0.0) if worker in asked and began != NOT_BEGUN else "",
                None if task.stream is None else task.stream.put_so_far,
            )  # fmt: skip
            if not task.released:
                found.append((task, unfinished))
        return found

    def left_behind(self) -> tuple[UnfinishedTask, ...]:
        """The calls that still run in threads, though the tasks that made them have ended."""
        now = self.spec.context.clock.monotonic()
        return tuple(
            UnfinishedTask(
                None, (), {}, TaskState.LEFT_BEHIND,
                one.task, one.worker, max(0.0, now - one.began), stack_of(one.thread),
            )
            for one in left_behind(self.spec.context)
        )  # fmt: skip

    def at_work(self) -> list[tuple[Performer, TaskFuture[Any], float]]:
        """The tasks that run, who runs each, and since when; those that are interrupted as well."""
        found: dict[TaskFuture[Any], tuple[Performer, TaskFuture[Any], float]] = {}
        for worker in list(self.workers):
            for task, began in work_of(worker):
                if task is not None:
                    found[task] = (worker, task, began)
            for task in worker.sent_ahead():
                found.setdefault(task, (worker, task, NOT_BEGUN))
        return list(found.values())

    def dump(self) -> PoolDump:
        """What each part of the pool does now. Waits for the answers of child processes."""
        check()
        asked = [self._dump_worker(worker) for worker in list(self.workers)]
        until = answers_until()
        return PoolDump(
            name=self.spec.name,
            state=self.phase,
            size=self.mailbox.size,
            queued=self.mailbox.backlog,
            queue_size=self.mailbox.limit,
            waiting=self.mailbox.waiting,
            workers=tuple(replace(dump, stack=stack.text(until)) for dump, stack in asked),
            left_behind=tuple(one.task for one in left_behind(self.spec.context)),
            paused=self.mailbox.paused,
            delayed=tuple(map(self._dump_delayed, self.mailbox.delayed())),
        )

    def _dump_delayed(self, task: TaskFuture[Any]) -> DelayedTask:
        now, failures = self.spec.context.clock.monotonic(), task.past_tries
        return DelayedTask(
            name=task.task_name(),
            due_in=max(0.0, (task.due or now) - now),
            tries=0 if failures is None else failures.count,
            error="" if failures is None else failures.last,
        )

    def _dump_worker(self, worker: Performer) -> tuple[WorkerDump, Stack]:
        """What can be said of it at once, and where it is."""
        task, began, starting = worker.current, worker.started_at, worker.starting
        below = [one.task_name() for one, _ in worker.interrupted if one is not None]
        dump = WorkerDump(
            name=worker.name,
            task=None if task is None else task.task_name(),
            age=None if task is None else max(0.0, self.spec.context.clock.monotonic() - began),
            interrupted=tuple(below),
            stack="",
            starting=starting,
            pid=worker.pid,
        )
        return dump, Seen() if task is None and not starting else worker.where()

    def interim_report(self) -> DrainReport:
        """What can be said of the end by one who cannot wait for it."""
        running = tuple(unfinished for _, unfinished in self.running())
        running += self.left_behind()
        return DrainReport(0, 0, 0, cancelled=(), running=running, elapsed=0.0)


def answers_until() -> float:
    """The moment of the system's clock until which a look waits for child processes."""
    return 0.0 if is_kept_free() else system_clock.monotonic() + _PATIENCE


def _state_of(task: TaskFuture[Any]) -> TaskState:
    return TaskState.QUEUED if task.due is None else TaskState.DELAYED


def work_of(worker: Performer) -> list[tuple[TaskFuture[Any] | None, float]]:
    """What a worker has interrupted, and last its current task; each with its beginning."""
    while True:
        current, began = worker.current, worker.started_at
        below = [*worker.interrupted]
        if worker.current is current:  # else a task may have been on its way between the two
            return [*below, (current, began)]


async def until_over(threads: Sequence[threading.Thread], patience: float) -> None:
    """Wait until these threads are gone and what they have told is delivered. The loop goes on.

    No other thread waits for them: they are about to end, so this is short.
    """
    import asyncio  # noqa: PLC0415 - it is large, and imported already where a loop runs

    own, end = threading.current_thread(), system_clock.monotonic() + patience
    glances = 0
    while any(one.is_alive() for one in threads if one is not own):
        if system_clock.monotonic() >= end:
            break
        glances += 1
        if glances < _GLANCES:
            await asyncio.sleep(0)
        else:
            await background().await_(timeout=_PAUSE)
    for delivery in (HOOKS, LOGS):
        if not (delivery.is_idle() or delivery.is_stuck(PATIENCE)):
            told: Future[None] = Future()
            delivery.post(functools.partial(told.set, None))
            await background().await_(told, PATIENCE)


def closed(name: str) -> PoolClosed:
    """The error of a submission that comes too late."""
    # The wording that clients of concurrent.futures may look for.
    return PoolClosed(
        f"pool {name!r} is closed: cannot schedule new futures after shutdown", pool=name
    )
