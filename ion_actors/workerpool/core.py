"""A pool without its face: what the face, the exit hook and the fork hook all hold on to.

The face (``Pool``) is what users hold. Nothing here refers to it, so that a pool that is forgotten
can be collected, and be drained by those who are left.
"""

from __future__ import annotations

import sys
import threading
import traceback
import weakref
from concurrent.futures._base import RUNNING
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any


from ion_actors.futures import Future
from ion_actors.workerpool.inbox import Envelope, SupervisorInbox
from ion_actors.workerpool.mailbox import Mailbox
from ion_actors.workerpool.metrics import PoolMetrics, PoolState
from ion_actors.workerpool.report import DrainReport, TaskState, UnfinishedTask
from ion_actors.workerpool.spec import PoolSpec
from ion_actors.workerpool.task import TaskFuture

if TYPE_CHECKING:
    from ion_actors.workerpool.worker import Worker

__all__ = ["Core"]


@dataclass(slots=True, eq=False)
class Core:
    """The parts of one pool. The supervisor alone writes to the fields that have a default."""

    spec: PoolSpec
    mailbox: Mailbox
    inbox: SupervisorInbox = field(default_factory=SupervisorInbox)  # until there is a supervisor
    workers: list[Worker] = field(default_factory=list)  # every one whose thread may be alive
    threads: list[threading.Thread] = field(default_factory=list)  # to be joined at the end
    state: PoolState = PoolState.RUNNING
    broken: BaseException | None = None
    forked: bool = False  # this process is a child, and the threads stayed in the parent
    report: DrainReport | None = None  # the counts of how it ended
    full_report: weakref.ref[DrainReport] | None = None  # with the tasks, while somebody has it
    ended: threading.Event = field(default_factory=threading.Event)

    def metrics(self) -> PoolMetrics:
        """The numbers of this moment."""
        return self.mailbox.snapshot(self.spec.size)

    def last_report(self) -> DrainReport | None:
        """How the pool ended, with the tasks if somebody still holds that report; None if it has
        not. (The pool itself keeps no task that has an outcome.)"""
        full = self.full_report() if self.full_report is not None else None
        return full or self.report

    def ask(self, message: object) -> Future[DrainReport]:
        """Send the supervisor a message; the reply comes later. Never blocks."""
        reply: Future[DrainReport] = Future()
        self.inbox.put(Envelope(message, reply))
        return reply

    def tell(self, message: object) -> None:
        """Send the supervisor a message. Never blocks, and is safe in a finalizer."""
        self.inbox.put(Envelope(message))

    def join(self, patience: float) -> None:
        """Wait for the threads that are about to end, so that the caller finds none left."""
        for thread in self.threads:
            if thread is not threading.current_thread():
                thread.join(patience)



    def running(self) -> list[tuple[TaskFuture[Any], UnfinishedTask]]:
        """The tasks that run now, and what a report would say of each."""
        found = []
        now = self.spec.context.clock.monotonic()
        for worker in list(self.workers):
            task = worker.current
            if task is None or task._state is not RUNNING:
                continue
            # Copied before the second look: once a task has ended, its call is dropped.
            unfinished = UnfinishedTask(
                task._fn, task._args, task._kwargs or {}, TaskState.RUNNING,
                task._task_name(), worker.name, max(0.0, now - worker.started_at),
                _stack(worker.thread),
            )  # fmt: skip
            if task._state is RUNNING:
                found.append((task, unfinished))
        return found

    def interim_report(self) -> DrainReport:
        """What can be said of the end by one who cannot wait for it."""
        running = tuple(unfinished for _, unfinished in self.running())
        return DrainReport(0, 0, 0, cancelled=(), running=running, elapsed=0.0)


def _stack(thread: threading.Thread | None) -> str:
    """Where a thread is, as in a traceback; empty if it cannot be seen."""
    frame = None if thread is None else sys._current_frames().get(thread.ident or 0)
    return "" if frame is None else "".join(traceback.format_stack(frame))
