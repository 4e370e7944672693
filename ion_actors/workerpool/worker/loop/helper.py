"""How tasks on an event loop wait for tasks of their own pool.

A task that awaits a queued task of its own pool, while all workers are taken, would wait for itself
if nobody else went on. So the one that is awaited begins at once, on a worker that stands in for as
long as it takes: no more tasks make progress by that than there are workers, since one waits. A
task that blocks the loop for one of them would wait for ever, and gets an error.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ion_actors.awaitables import running_loop
from ion_actors.context import current_context
from ion_actors.errors import DeadlockError
from ion_actors.futures import Future
from ion_actors.workerpool.mailbox.task import TaskFuture
from ion_actors.workerpool.worker.nested_waits import tasks_behind

if TYPE_CHECKING:
    from ion_actors.workerpool.mailbox.mailbox import Mailbox
    from ion_actors.workerpool.mailbox.protocols import Helping

__all__ = ["LoopHelper"]


class LoopHelper:
    """What the tasks of one pool on a loop do when they wait: see ``ion_actors.context.Helper``.

    Args:
        mailbox: the pool's.
        helping: whether the pool's tasks may wait for each other.
        stand_in: makes a worker that the pool knows, and that is to be handed one task.
    """

    def __init__(self, mailbox: Mailbox, helping: bool, stand_in: Callable[[], Helping]) -> None:
        self._mailbox = mailbox
        self._helping = helping
        self._stand_in = stand_in

    def help(self, future: object) -> None:
        """Have begin what is waited for, if it is queued in this pool."""
        try:
            if not self._helping:
                return
            for task in tasks_behind(future):
                if task.mailbox is not self._mailbox or task.running():
                    continue
                if not current_context().cancelled:
                    self._begin(functools.partial(self._mailbox.claim, task))
        finally:
            future = task = None  # type: ignore[assignment]

    def _begin(self, claim: Callable[[Helping], bool]) -> bool:
        worker = self._stand_in()
        begun = False
        try:
            begun = claim(worker)
        finally:
            if begun:
                worker.slot = worker.current
            worker.wake()  # without a task it leaves
        return begun

    def wait(self, future: Future[Any], timeout: float | None) -> bool:
        """Block the calling thread, if it is not the loop's.

        Raises:
            DeadlockError: it is.
        """
        try:
            behind = [one for one in tasks_behind(future) if one.mailbox is self._mailbox]
            if timeout != 0 and running_loop() is self._mailbox.loop and behind:
                name = behind[0].task_name()
                raise DeadlockError(
                    f"this wait would block the event loop that task {name!r} needs: write "
                    "`await future`, and not `future.result()`",
                    tasks=(name,),
                )
            self.help(future)
            return future._block(timeout)
        finally:
            future = behind = None  # type: ignore[assignment]

    async def run_new(
        self, task: TaskFuture[Any], accepted: Callable[[TaskFuture[Any]], object]
    ) -> bool:
        """There is no room for a new task of this pool: run it now, and wait for it.

        Returns:
            Whether it might begin.
        """

        def claim(worker: Helping) -> bool:
            claimed = self._mailbox.claim_new(task, worker)
            if claimed and task.special:
                accepted(task)
            return claimed

        if task.due is not None or not self._helping or not self._begin(claim):
            return False
        await current_context().await_(task)
        return True

    def serves(self, mailbox: Mailbox) -> bool:
        """Whether it is that pool's."""
        return mailbox is self._mailbox
