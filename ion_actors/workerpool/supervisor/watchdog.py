"""The part of the supervisor that tends a working pool: its size, and tasks that are stuck.

Growing appoints workers to the first free seats. Shrinking takes the last ones away: whoever sat
there stops once its task is over, and what it was handed and has not begun goes to another one. So
no task is lost either way.

A task is stuck when it has been running for longer than ``stuck_after``. It is reported once, to
the log and to ``on_stuck``. If the policy allows, its worker gives up its seat as in a shrinking,
and a successor takes it; the thread goes on alone until its task ends, if it ever does.
"""

from __future__ import annotations

import itertools
import logging
from typing import TYPE_CHECKING, Any

from ion_actors.clock import Timer
from ion_actors.delivery import run_elsewhere
from ion_actors.futures import Future
from ion_actors.naming import Lines
from ion_actors.own_variables import own_values
from ion_actors.workerpool.core import PoolCore
from ion_actors.workerpool.mailbox.task import TaskFuture
from ion_actors.workerpool.messages import Broadcast, Look, Resize
from ion_actors.workerpool.model.lifecycle import Phase
from ion_actors.workerpool.model.reports import StuckTask
from ion_actors.workerpool.proxy import no_worker_class
from ion_actors.workerpool.stacks import stack_of
from ion_actors.workerpool.supervisor.roster import Roster
from ion_actors.workerpool.worker.inbox import Answer, Envelope, Letter, Request
from ion_actors.workerpool.worker.worker import PoolWorker

if TYPE_CHECKING:
    from ion_actors.workerpool.caller_runs import Caller

__all__ = ["Watchdog"]


class Watchdog(Roster):
    """See the module. A part of ``Supervisor``."""

    def __init__(self, core: PoolCore) -> None:
        super().__init__(core)
        self._reported: set[TaskFuture[Any]] = set()  # as stuck; those that still run
        self._replaced: set[PoolWorker] = set()  # because they were; those that still run
        self._next_look: Timer | None = None

    # -- size ------------------------------------------------------------------------------

    def _on_resize_request(self, request: Request, message: Resize) -> None:
        refusal = self._core.mailbox.refusal()
        if refusal is not None:
            request.fail(refusal)
            return
        self._resize(message)
        request.reply(None)

    def _resize(self, message: Resize) -> None:
        before = len(self._seats)
        for index in sorted(self._seats)[message.size :]:
            self._part_with(self._seats.pop(index))
            self._failures.pop(index, None)
        # Not before they are doomed: if they wait, all that are left would seem to wait.
        self._core.mailbox.size = message.size
        free = (index for index in itertools.count() if index not in self._seats)
        for index in itertools.islice(free, max(0, message.size - before)):
            self._start(self._appoint(index))
        self._log(
            logging.INFO, "pool %r has %d workers now, and had %d",
            self._spec.name, message.size, before, size=message.size,
        )  # fmt: skip

    # -- workers with state ----------------------------------------------------------------

    def _on_broadcast(self, request: Request, message: Broadcast) -> None:
        """Write to every worker that has a seat: no more and no less, since seats change here."""
        refusal: Exception | None = self._core.mailbox.refusal()
        if refusal is None and self._spec.residence is None:
            refusal = no_worker_class(self._spec.name)
        if refusal is not None:
            request.fail(refusal)
            return
        seated = [worker for worker in self._seats.values() if worker is not None]
        request.reply([_write_to(worker, message) for worker in seated])

    # -- stuck tasks -----------------------------------------------------------------------

    def _plan_look(self) -> None:
        """Look twice in the time after which a task counts as stuck."""
        if self._next_look is not None:
            self._next_look.cancel()
        if self._spec.stuck_after is not None and self._life.phase is not Phase.CLOSED:
            due = self._clock.monotonic() + self._spec.stuck_after / 2
            self._next_look = self._inbox.remind(self._clock, due, Look())

    def _stop_looking(self) -> None:
        if self._next_look is not None:
            self._next_look.cancel()
        self._reported, self._replaced = set(), set()

    def _on_look(self, _: Look) -> None:
        running = self._core.at_work()
        self._reported &= {task for _, task, _ in running}
        self._replaced &= set(self._core.workers)
        for worker, task, began in running:
            if task not in self._reported:
                self._look_at(worker, task, self._clock.monotonic() - began)
        self._plan_look()

    def _look_at(self, worker: PoolWorker | Caller, task: TaskFuture[Any], age: float) -> None:
        limit = self._spec.stuck_after
        if limit is None or age < limit:
            return
        stuck = StuckTask(
            pool=self._spec.name,
            worker=worker.name,
            task=task.task_name(),
            age=age,
            stack=stack_of(worker.thread),
            replaced=self._replace_stuck(worker),
        )
        self._log(
            logging.WARNING, "task %r has been running for %.3f s on worker %s:\n%s",
            stuck.task, age, stuck.worker, Lines(stuck.stack),
            task=stuck.task, worker=stuck.worker, age=age,
        )  # fmt: skip
        self._tell_of(stuck)
        self._reported.add(task)  # last: should this fail halfway, it is told twice, not never

    def _replace_stuck(self, worker: PoolWorker | Caller) -> bool:
        """Seat a successor, if there may be one more thread."""
        if len(self._replaced) >= self._spec.replace_stuck or not self._wanted():
            return False
        if not isinstance(worker, PoolWorker) or self._seats.get(worker.index) is not worker:
            return False
        self._replaced.add(worker)
        worker.retire()
        self._core.mailbox.count_restart()
        self._start(self._appoint(worker.index))
        return True

    def _tell_of(self, stuck: StuckTask) -> None:
        handler = self._spec.on_stuck
        if handler is None:
            return

        def tell() -> None:
            try:
                handler(stuck)
            except BaseException as error:
                self._log(logging.ERROR, "on_stuck failed", error=error)

        # Not on the supervisor's thread, which must never block.
        run_elsewhere(tell)


def _write_to(worker: PoolWorker, message: Broadcast) -> Future[Any]:
    answer: Future[Any] = Answer(worker, worker.name)
    worker.inbox.put(
        Envelope(Letter(message.message, answer, own_values(message.variables.copy())))
    )
    return answer
