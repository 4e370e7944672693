"""The supervisor: the actor that owns a pool's mailbox and its workers.

Everything about life and death is a message to it; it keeps no lock and never blocks. The
decisions are pure (:mod:`~ion_actors.workerpool.lifecycle` and
:mod:`~ion_actors.workerpool.recovery`); here they are carried out::

    Panicked ─▶ RestartWindow ─▶ replace the worker │ break the pool
    StartFailed ─▶ Backoff ─▶ try again later │ break the pool
    Stopped ─▶ was it to stop? no: replace it; the last one at the end: finish
    Drain, Close, pykka's stop, the pool's context ─▶ Life ─▶ STOP_ACCEPTING, CANCEL_ALL, …

The first three are in :mod:`~ion_actors.workerpool.staff`; what concerns a pool that works (its
size, stuck tasks) is in :mod:`~ion_actors.workerpool.tending`; the rest is here.

Users' code is never run on this thread: done-callbacks of what is dropped run on a thread of their
own, panic handlers on the thread of the worker that goes.
"""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable
from typing import Any, cast

from pykka.messages import _ActorStop
from typing_extensions import override

from ion_actors.clock import Timer
from ion_actors.errors import (
    BrokenPool,
    ContextEnded,
    DrainTimeout,
    IonError,
    TaskAbandoned,
)
from ion_actors.futures import Future
from ion_actors.workerpool.core import Core, closed
from ion_actors.workerpool.inbox import Request, SupervisorInbox
from ion_actors.workerpool.lifecycle import Action, Life, Phase
from ion_actors.workerpool.messages import Broadcast, Close, Drain, GetMetrics, GetState, Resize
from ion_actors.workerpool.metrics import PoolState
from ion_actors.workerpool.news import (
    Forgotten,
    Look,
    Needed,
    Panicked,
    Ready,
    Retry,
    StartFailed,
    Stopped,
    Tick,
)
from ion_actors.workerpool.report import DrainReport, UnfinishedTask
from ion_actors.workerpool.task import TaskFuture, run_callbacks_in_thread
from ion_actors.workerpool.tending import Tending
from ion_actors.workerpool.worker import Worker

__all__ = ["Supervisor"]


class Supervisor(Tending):
    """See the module. Made by ``Pool``; ``Pool.actor_ref`` refers to it."""

    use_daemon_thread = True

    def __init__(self, core: Core) -> None:
        super().__init__(core)
        self._inbox = core.inbox = cast("SupervisorInbox", self.actor_inbox)
        self._life = Life()
        self._timer: Timer | None = None  # for the life's next moment
        self._requests: list[Request] = []  # who waits for the end
        self._began = 0.0  # when the drain or close did
        self._asked_to_stop: list[tuple[TaskFuture[Any], UnfinishedTask]] = []
        self._abandoned: dict[TaskFuture[Any], UnfinishedTask] = {}
        self._handlers: dict[type, Callable[[Any], Any]] = {
            Request: self._on_request,
            StartFailed: self._on_start_failed,
            Needed: self._on_needed,
            Ready: self._on_ready,
            Stopped: self._on_stopped,
            Retry: self._on_retry,
            Look: self._on_look,
            Tick: lambda _: self._live(self._life.tick(self._clock.monotonic())),
            Forgotten: lambda _: self._drain(self._spec.drain_timeout),
            GetMetrics: lambda _: core.metrics(),
            GetState: lambda _: core.phase,
        }
        self._inbox.understood = frozenset(self._handlers)
        for index in range(core.mailbox.size):
            self._appoint(index)

    @staticmethod
    @override
    def _create_actor_inbox() -> SupervisorInbox:
        return SupervisorInbox()

    @staticmethod
    @override
    def _create_future() -> Future[Any]:
        return Future()

    @override
    def on_start(self) -> None:
        """Start the workers that have something to do, on the supervisor's thread."""
        self._core.threads.append(threading.current_thread())
        threading.current_thread().name = f"{self._spec.name}-supervisor"
        for worker in list(self._seats.values()):
            if worker is not None:
                self._start(worker)
        self._plan_look()

    @override
    def on_receive(self, message: Any) -> Any:
        """Handle a message. A fault in here must not be the end of the pool's supervision."""
        try:
            return self._handlers[type(message)](message)
        except BaseException as error:
            self._failed(message, error)
            return None

    def _failed(self, message: Any, error: BaseException) -> None:
        try:
            self._log(logging.CRITICAL, "the supervisor failed on %r", message, error=error)
            self._break("its supervisor failed", error)
        except BaseException:
            logging.getLogger("ion_actors").exception("a pool's supervisor could not break it")
        if isinstance(message, Request) and isinstance(message.message, Panicked):
            message.fail(error)  # its worker goes on without a word
        if self._life.phase is Phase.CLOSED and not self._core.ended.is_set():
            self._end_without_report(error)

    def _end_without_report(self, error: BaseException) -> None:
        """The end itself failed: at least nobody must wait for it."""
        self._plan()
        self._core.state = PoolState.CLOSED
        self._core.ended.set()
        requests, self._requests = self._requests, []
        for request in requests:
            request.fail(_broken(self._spec.name, "its supervisor failed", error))
        self._inbox.ended = True
        self.stop()

    # -- the end ---------------------------------------------------------------------------

    def _on_request(self, request: Request) -> None:
        """A message that is answered from here: pykka's loop would hold on to the answer."""
        if isinstance(request.message, Panicked):
            request.reply(self._on_panicked(request.message))
        elif isinstance(request.message, Broadcast):
            self._on_broadcast(request, request.message)
        elif isinstance(request.message, Resize):
            self._on_resize_request(request, request.message)
        else:
            self._on_end_request(request)

    def _on_end_request(self, request: Request) -> None:
        if self._life.phase is Phase.CLOSED:  # too late: it ends this moment
            request.reply(self._core.last_report())
            return
        self._requests.append(request)
        if isinstance(request.message, Drain):
            self._drain(request.message.timeout)
        elif isinstance(request.message, Close):
            self._close(request.message.timeout)
        else:
            assert isinstance(request.message, _ActorStop)
            self._close(self._spec.drain_timeout)

    def _drain(self, timeout: float | None) -> None:
        self._live(self._life.drain(self._clock.monotonic(), timeout))

    def _close(self, timeout: float | None) -> None:
        self._live(self._life.close(self._clock.monotonic(), timeout))

    @override
    def _break(self, why: str, cause: BaseException | None) -> None:
        """Give up: everybody who waits learns of it now."""
        core = self._core
        if core.broken is not None or self._life.phase is Phase.CLOSED:
            return
        make = functools.partial(_broken, self._spec.name, why, cause)
        core.broken = make()
        self._log(logging.CRITICAL, "pool %r is broken: %s", self._spec.name, why, error=cause)
        core.mailbox.refuse(make, again=True)
        self._drop_queue(lambda _: make())
        self._close(self._spec.drain_timeout)

    def _live(self, step: tuple[Life, tuple[Action, ...]]) -> None:
        """Take a step of life, and do what it says."""
        self._life, actions = step
        for action in actions:
            if action is Action.STOP_ACCEPTING:
                self._stop_accepting()
            elif action is Action.CANCEL_ALL:
                self._cancel_all()
            elif action is Action.ABANDON:
                self._abandon()
            elif action is Action.FINISH:
                self._finish()
        self._plan()
        self._finish_if_over()

    def _plan(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if (moment := self._life.next_moment()) is not None:
            self._timer = self._clock.call_at(moment, functools.partial(self._core.tell, Tick()))

    def _stop_accepting(self) -> None:
        self._began = self._clock.monotonic()
        self._core.state = PoolState.DRAINING
        name = self._spec.name
        self._core.mailbox.refuse(functools.partial(closed, name))
        for worker in list(self._core.workers):
            if not self._dismiss(worker):
                worker.wake()  # those that find nothing more to do retire

    def _cancel_all(self) -> None:
        self._drop_queue(self._core.closed_error)
        # From here on no worker takes another one, so this misses none that will be stopped.
        self._asked_to_stop = [
            (task, unfinished) for task, unfinished in self._core.running() if not task.done()
        ]
        self._spec.context.cancel(f"pool {self._spec.name!r} was closed")
        self._forget_retries()

    def _drop_queue(self, make_error: Callable[[TaskFuture[Any]], IonError]) -> None:
        run_callbacks_in_thread(self._core.drop_queue(make_error))

    def _abandon(self) -> None:
        """The time is up: what still runs goes on alone."""
        # A task may have been put back into the queue, and no worker is left that is not stuck.
        self._drop_queue(self._core.closed_error)
        ended = []
        for task, unfinished in self._core.running():
            self._abandoned[task] = unfinished
            self._log(
                logging.WARNING, "task %r is abandoned on worker %s:\n%s", unfinished.name,
                unfinished.worker, unfinished.stack, task=unfinished.name,
            )  # fmt: skip
            # None if it has ended for its submitter already: it overran its own time limit.
            callbacks = self._core.mailbox.fence(
                task, self._abandoned_error(unfinished), unfinished[:3]
            )
            ended.append((task, callbacks))
        for worker in self._core.workers:
            if isinstance(worker, Worker):
                worker.abandon()
                if worker.kill() and worker.thread is not None:
                    self._core.threads.append(worker.thread)  # whoever awaits the end sees it out
        run_callbacks_in_thread(ended)

    def _abandoned_error(self, task: UnfinishedTask) -> TaskAbandoned:
        return TaskAbandoned(
            f"task {task.name!r} was still running on worker {task.worker} after "
            f"{task.age:.3f} s when pool {self._spec.name!r} had to end",
            task=task.name, age=task.age or 0.0, stack=task.stack,
        )  # fmt: skip

    @override
    def _finish_if_over(self) -> None:
        if self._life.phase not in (Phase.DRAINING, Phase.CANCELLING):
            return
        retrying = any(timer.pending for timer in self._retries)
        if self._core.workers or (retrying and self._core.mailbox.backlog):
            return
        if self._core.mailbox.backlog:  # nobody is left to do it
            self._drop_queue(self._core.closed_error)
        self._live(self._life.all_ended())

    def _finish(self) -> None:
        core = self._core
        self._spec.context.cancel(f"pool {self._spec.name!r} was closed")
        report = self._make_report()
        core.keep_report(report, asked_for=bool(self._requests))
        core.state = PoolState.CLOSED
        core.ended.set()
        self._log(logging.DEBUG, "pool %r has ended: %s", self._spec.name, report)
        requests, self._requests = self._requests, []
        for request in requests:
            self._answer(request, report)
        self._asked_to_stop, self._abandoned = [], {}
        self._forget_retries()
        self._stop_looking()
        self._inbox.ended = True
        self.stop()

    def _make_report(self) -> DrainReport:
        after = self._core.metrics()
        before = self._core.mailbox.before_end or after
        stopped = [
            unfinished
            for task, unfinished in self._asked_to_stop
            if task not in self._abandoned
            if task.cancelled() or isinstance(task._exception, ContextEnded)
        ]
        return DrainReport(
            completed=after.completed - before.completed,
            failed=after.failed - before.failed,
            panicked=after.panicked - before.panicked,
            cancelled=(*self._core.dropped, *stopped),
            running=tuple(self._abandoned.values()),
            elapsed=self._clock.monotonic() - self._began,
        )

    def _answer(self, request: Request, report: DrainReport) -> None:
        if isinstance(request.message, _ActorStop):
            request.reply(None)
        elif isinstance(request.message, Drain) and self._life.overdue and report.unfinished:
            message = f"pool {self._spec.name!r} was not drained in time: {report}"
            request.fail(DrainTimeout(message, report=report))
        else:
            request.reply(report)


def _broken(name: str, why: str, cause: BaseException | None) -> BrokenPool:
    error = BrokenPool(f"pool {name!r} is broken and is not usable anymore: {why}", pool=name)
    error.__cause__ = cause
    return error
