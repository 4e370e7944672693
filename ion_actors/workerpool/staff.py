"""The half of the supervisor that sees to the workers: who works at which seat, and for how long.

A seat has an index. There are as many as the pool's ``size``: resizing takes the last ones away or
fills in the first that are free, and a worker that the policy stops takes its own with it. A seat
is empty while its worker's initializer waits for another try, and at the end, when there is nothing
left to do. A worker that has nothing to initialize gets its thread when it is needed for the first
time, and if it never is, goes without ever having had one.
"""

from __future__ import annotations

import abc
import functools
import logging
from typing import TYPE_CHECKING

import pykka

from ion_actors.clock import Timer
from ion_actors.workerpool.core import Core
from ion_actors.workerpool.directive import Directive
from ion_actors.workerpool.inbox import SupervisorInbox
from ion_actors.workerpool.lifecycle import Life, Phase
from ion_actors.workerpool.news import Needed, Panicked, Ready, Retry, StartFailed, Stopped
from ion_actors.workerpool.recovery import RestartWindow
from ion_actors.workerpool.report import Panic
from ion_actors.workerpool.worker import Worker

if TYPE_CHECKING:
    from ion_actors.workerpool.caller import Caller

__all__ = ["Staff"]


class Staff(pykka.ThreadingActor):
    """Appoints, starts, replaces and discharges workers. A part of ``Supervisor``."""

    _inbox: SupervisorInbox
    _life: Life

    def __init__(self, core: Core) -> None:
        super().__init__()
        self._core = core
        self._spec = core.spec
        self._clock = core.spec.context.clock
        self._window = RestartWindow()
        self._failures: dict[int, int] = {}  # failed starts in a row, by seat
        self._seats: dict[int, Worker | None] = {}
        self._retries: list[Timer] = []

    @abc.abstractmethod
    def _break(self, why: str, cause: BaseException | None) -> None:
        """Give up the pool."""

    @abc.abstractmethod
    def _finish_if_over(self) -> None:
        """One worker less: it may have been the last."""

    def _log(self, level: int, message: str, *args: object, **extra: object) -> None:
        self._spec.log(level, message, *args, **extra)

    def _appoint(self, index: int) -> Worker:
        worker = Worker(self._spec, self._core.mailbox, self._inbox, index)
        self._seats[index] = worker
        self._core.workers.append(worker)
        return worker

    def _start(self, worker: Worker) -> None:
        """Have it begin, unless there is nothing for it yet."""
        if not worker.dormant:
            self._start_thread(worker)

    def _on_needed(self, message: Needed) -> None:
        if not message.worker.begun and message.worker in self._core.workers:
            self._start_thread(message.worker)

    def _start_thread(self, worker: Worker) -> None:
        try:
            worker.start_thread()
        except RuntimeError as error:  # there can be no more threads
            self._on_start_failed(StartFailed(worker, error))
            self._on_stopped(Stopped(worker))
        else:
            if not self._spec.must_start:  # else it may fail yet
                self._failures.pop(worker.index, None)

    def _on_ready(self, message: Ready) -> None:
        self._failures.pop(message.worker.index, None)

    def _on_start_failed(self, message: StartFailed) -> None:
        worker, error = message.worker, message.error
        index = worker.index
        if self._seats.get(index) is worker:
            self._seats[index] = None
        failures = self._failures[index] = self._failures.get(index, 0) + 1
        self._log(
            logging.CRITICAL, "Exception in initializer: worker %s failed to start (%d in a row)",
            worker.name, failures, error=error, worker=worker.name,
        )  # fmt: skip
        if self._life.phase is Phase.CANCELLING or index not in self._seats:
            return
        delay = self._spec.recovery.backoff.delay(failures)
        if delay is None:
            self._break(f"its worker {worker.name} failed to start {failures} times", error)
            return
        due = self._clock.monotonic() + delay
        self._retries.append(
            self._clock.call_at(due, functools.partial(self._core.tell, Retry(index)))
        )

    def _on_retry(self, message: Retry) -> None:
        self._retries = [timer for timer in self._retries if timer.pending]
        seat = self._seats.get(message.index, message)  # a pool that shrank has it no more
        if seat is None and self._wanted():
            self._core.mailbox.count_restart()
            self._start(self._appoint(message.index))
        self._finish_if_over()

    def _forget_retries(self) -> None:
        for timer in self._retries:
            timer.cancel()
        self._retries = []

    def _on_panicked(self, message: Panicked) -> Panic:
        worker = message.worker
        if isinstance(worker, Worker) and self._seats.get(worker.index) is worker:
            self._follow(worker, message)
        if message.directive is Directive.ESCALATE:
            self._break(f"what task {message.task!r} raised was escalated", message.error)
        return Panic(
            pool=self._spec.name,
            worker=worker.name,
            task=message.task,
            error=message.error,
            restarts=self._core.metrics().restarts,
            directive=message.directive,
        )

    def _follow(self, worker: Worker, message: Panicked) -> None:
        """Do about a worker's seat what the directive says."""
        if message.directive is Directive.STOP and len(self._seats) > 1:
            self._take_away(worker, message.error)
            return
        self._seats[worker.index] = None
        if message.directive is Directive.RESTART:
            self._replace(worker, message.error)
        elif message.directive is Directive.STOP and self._wanted():
            self._break(f"its last worker {worker.name} was stopped", message.error)

    def _take_away(self, worker: Worker, error: BaseException) -> None:
        """A worker goes, and its seat with it."""
        del self._seats[worker.index]
        self._failures.pop(worker.index, None)
        self._core.mailbox.size = len(self._seats)
        self._log(
            logging.WARNING, "worker %s was stopped and is not replaced; %d are left",
            worker.name, len(self._seats), error=error, worker=worker.name, size=len(self._seats),
        )  # fmt: skip

    def _replace(self, worker: Worker, error: BaseException | None) -> None:
        """Seat a successor, if the policy permits and there is work for it."""
        if not self._wanted():
            return
        now = self._clock.monotonic()
        self._window, allowed = self._window.allow(self._spec.recovery, now)
        if not allowed:
            policy = self._spec.recovery
            self._break(f"more than {policy.max_restarts} restarts in {policy.within} s", error)
            return
        restarts = self._core.mailbox.count_restart()
        self._log(
            logging.WARNING, "worker %s was lost and is replaced (restart %d)",
            worker.name, restarts, error=error, worker=worker.name, restarts=restarts,
        )  # fmt: skip
        self._start(self._appoint(worker.index))

    def _wanted(self) -> bool:
        """Whether a worker would still have something to do."""
        if self._life.phase is Phase.DRAINING:
            return self._core.mailbox.backlog > 0
        return self._life.phase is Phase.RUNNING

    def _dismiss(self, worker: Worker | Caller) -> bool:
        """Let a worker go that never got a thread. Returns whether it was one.

        From here on it is handed nothing: else it has been, and is about to begin.
        """
        if not isinstance(worker, Worker) or not worker.dormant:
            return False
        if not self._core.mailbox.unpark(worker):
            return False
        worker.begun = True  # and it is over: whoever still wakes it, wakes nobody
        self._core.mailbox.discharge(worker, worker.tally)
        self._core.workers.remove(worker)
        return True

    def _on_stopped(self, message: Stopped) -> None:
        worker = message.worker
        self._core.mailbox.discharge(worker, worker.tally)
        if worker in self._core.workers:
            self._core.workers.remove(worker)
            if worker.thread is not None:
                self._core.threads = [one for one in self._core.threads if one.is_alive()]
                self._core.threads.append(worker.thread)
        if isinstance(worker, Worker) and self._seats.get(worker.index) is worker:
            self._seats[worker.index] = None
            self._replace(worker, None)
        self._finish_if_over()
