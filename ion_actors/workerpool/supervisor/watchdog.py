"""Looks for tasks that are stuck.

A task is stuck when it has been running for longer than ``stuck_after``. It is reported once, to
the log and to ``on_stuck``. If the policy allows, its worker gives up its seat, and a successor
takes it; the thread goes on alone until its task ends, if it ever does.
"""

from __future__ import annotations

import functools
import logging
import math
from dataclasses import replace
from typing import Any

from ion_actors.backends.stacks import Seen, Stack
from ion_actors.clock import Timer
from ion_actors.delivery import is_kept_free, run_elsewhere
from ion_actors.naming import Lines
from ion_actors.workerpool.core import PoolCore
from ion_actors.workerpool.mailbox.protocols import Performer
from ion_actors.workerpool.mailbox.task import TaskFuture
from ion_actors.workerpool.messages import Look
from ion_actors.workerpool.model.lifecycle import Phase
from ion_actors.workerpool.model.reports import StuckTask
from ion_actors.workerpool.supervisor.roster import Authority, Roster
from ion_actors.workerpool.worker.inbox import SupervisorInbox

__all__ = ["Watchdog"]


class Watchdog:
    """Reports stuck tasks, and has their workers replaced, on the supervisor's thread.

    Args:
        core: the pool.
        inbox: the supervisor's, which gets the ``Look`` messages.
        roster: replaces workers.
        authority: knows where the pool is in its life.
    """

    def __init__(
        self, core: PoolCore, inbox: SupervisorInbox, roster: Roster, authority: Authority
    ) -> None:
        self._core = core
        self._spec = core.spec
        self._clock = core.spec.context.clock
        self._inbox = inbox
        self._roster = roster
        self._authority = authority
        self._reported: set[TaskFuture[Any]] = set()  # as stuck; those that still run
        self._replaced: set[Performer] = set()  # because they were; those that still run
        self._next_look: Timer | None = None

    def plan(self) -> None:
        """Look twice in the time after which a task counts as stuck."""
        if self._next_look is not None:
            self._next_look.cancel()
        if self._spec.stuck_after is not None and self._authority.phase is not Phase.CLOSED:
            due = self._clock.monotonic() + self._spec.stuck_after / 2
            self._next_look = self._inbox.remind(self._clock, due, Look())

    def stop(self) -> None:
        """Look no more."""
        if self._next_look is not None:
            self._next_look.cancel()
        self._reported, self._replaced = set(), set()

    def look(self, _: Look) -> None:
        """See which tasks have been running for too long, and plan the next look."""
        running = self._core.at_work()
        self._reported &= {task for _, task, _ in running}
        self._replaced &= set(self._core.workers)
        # On an event loop, who keeps it is stuck, and the others only wait for that one.
        limit = self._spec.stuck_after or math.inf
        now = self._clock.monotonic()
        keepers = [one for one in running if one[0].keeps_others and now - one[2] >= limit]
        for worker, task, began in keepers or running:
            if task not in self._reported:
                self._look_at(worker, task, self._clock.monotonic() - began)
        self.plan()

    def _look_at(self, worker: Performer, task: TaskFuture[Any], age: float) -> None:
        limit = self._spec.stuck_after
        if limit is None or age < limit:
            return
        if task.stream is not None and task.stream.full:
            return  # it waits for its reader
        where = worker.where()
        stuck = StuckTask(
            pool=self._spec.name,
            worker=worker.name,
            task=task.task_name(),
            age=age,
            stack=where if type(where) is Seen else "",
            replaced=self._replace_stuck(worker),
        )
        if type(where) is Seen:
            self._log(stuck)
            self._tell_of(stuck)
        else:  # the answer is waited for on a thread that may block
            run_elsewhere(functools.partial(self._tell_when_known, stuck, where))
        self._reported.add(task)  # last: should this fail halfway, it is told twice, not never

    def _tell_when_known(self, stuck: StuckTask, where: Stack) -> None:
        until = 0.0 if is_kept_free() else math.inf
        stuck = replace(stuck, stack=where.text(until))
        self._log(stuck)
        self._call_handler(stuck)

    def _log(self, stuck: StuckTask) -> None:
        self._spec.log(
            logging.WARNING, "task %r has been running for %.3f s on worker %s:\n%s",
            stuck.task, stuck.age, stuck.worker, Lines(stuck.stack),
            task=stuck.task, worker=stuck.worker, age=stuck.age,
        )  # fmt: skip

    def _replace_stuck(self, worker: Performer) -> bool:
        """Seat a successor, if there may be one more thread."""
        if len(self._replaced) >= self._spec.replace_stuck or not self._roster.wanted():
            return False
        if not self._roster.has_seat(worker):
            return False
        self._replaced.add(worker)
        self._roster.supersede(worker)
        return True

    def _tell_of(self, stuck: StuckTask) -> None:
        if self._spec.on_stuck is not None:
            # Not on the supervisor's thread, which must never block.
            run_elsewhere(functools.partial(self._call_handler, stuck))

    def _call_handler(self, stuck: StuckTask) -> None:
        handler = self._spec.on_stuck
        try:
            if handler is not None:
                handler(stuck)
        except BaseException as error:
            self._spec.log(logging.ERROR, "on_stuck failed", error=error)
