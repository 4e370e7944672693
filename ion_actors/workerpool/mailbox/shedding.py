"""A mailbox that sheds tasks that waited too long: :mod:`ion_actors.workerpool.model.overflow`."""

from __future__ import annotations

from typing import Any

from typing_extensions import override

from ion_actors.context import Context
from ion_actors.errors import TaskDropped
from ion_actors.workerpool.mailbox.mailbox import Mailbox, OnDropped
from ion_actors.workerpool.mailbox.protocols import PARKED, Order, Taker
from ion_actors.workerpool.mailbox.task import TaskFuture, run_callbacks_in_thread
from ion_actors.workerpool.model.outcomes import DropReason
from ion_actors.workerpool.model.overflow import CoDel, Delays

__all__ = ["SheddingMailbox"]


class SheddingMailbox(Mailbox):
    """A ``Mailbox`` with a ``CoDel`` in front of its workers.

    A task that is left out has been taken from the queue already, so it is fenced: ended before its
    worker begins it.
    """

    sheds = True

    def __init__(
        self,
        name: str,
        limit: int,
        size: int,
        context: Context,
        on_dropped: OnDropped | None,
        policy: CoDel,
    ) -> None:
        super().__init__(name, limit, size, context, on_dropped)
        self._policy = policy
        self._delays = Delays()  # the lane's lock
        self._now = context.clock.monotonic

    @override
    def take(self, worker: Taker) -> TaskFuture[Any] | Order | None:
        while True:
            found = super().take(worker)
            if isinstance(found, TaskFuture):
                if not self._is_late(found):
                    return found
                worker.current = None  # it never begins: nobody is at it
                self._shed(found)
            else:
                if found is PARKED:
                    with self._lock:
                        self._delays = self._delays.idle(self._policy, self._now())
                return found

    def _is_late(self, task: TaskFuture[Any]) -> bool:
        with self._lock:
            now = self._now()
            delay = now - task.accepted_at
            self._delays, late = self._delays.waited(self._policy, now, delay)
        return late

    def _shed(self, task: TaskFuture[Any]) -> None:
        name = task.task_name()
        waited = self._now() - task.accepted_at
        with self._lock:
            wait = self._time_to_retry()
        error = TaskDropped(
            f"task {name!r} was shed: it had waited for {waited:.3g} s, and pool {self.name!r} is "
            "overloaded",
            task=name, why=DropReason.SHED, retry_after=wait,
        )  # fmt: skip
        callbacks = self.fence(task, error, task.release_call())
        if task.key is not None:
            self.release(task)
        run_callbacks_in_thread([(task, callbacks)])
