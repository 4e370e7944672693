"""A task that is submitted without blocking, and may wait in line for room meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ion_actors.context import Turn
from ion_actors.errors import Cancelled
from ion_actors.workerpool.mailbox.mailbox import Mailbox
from ion_actors.workerpool.mailbox.task import TaskFuture

__all__ = ["Place"]


class Place:
    """A task's place in the mailbox, or in the line before it.

    Args:
        mailbox: whose.
        future: the task.
        turn: its wait for room; None if it was accepted at once.
        accepted: called with the task when it is let in after a wait.

    Attributes:
        future: the task. Until it is let in, nobody else knows it.
    """

    __slots__ = ("_accepted", "_mailbox", "_turn", "future")

    def __init__(
        self,
        mailbox: Mailbox,
        future: TaskFuture[Any],
        turn: Turn[TaskFuture[Any]] | None,
        accepted: Callable[[TaskFuture[Any]], object],
    ) -> None:
        self.future = future
        self._mailbox = mailbox
        self._turn = turn
        self._accepted = accepted

    def enter(self) -> bool:
        """Whether the task is accepted. To be asked by the one who submits, and by nobody else.

        Raises:
            PoolClosed, BrokenPool: the wait for room was in vain.
            Cancelled: it was given up by :meth:`cancel`.
        """
        turn = self._turn
        if turn is None:
            return True
        if not turn.over:
            return False
        self._turn = None
        if turn.error is not None:
            raise turn.error
        if self.future.special:
            self._accepted(self.future)
        return True

    def cancel(self) -> None:
        """Leave the line, or cancel the task. Any thread may call it, and more than once."""
        turn = self._turn
        if turn is not None and not turn.over:
            self._mailbox.give_up(turn, Cancelled("the wait for room was given up"))
        if turn is None or turn.error is None:  # it was let in
            self.future.cancel()
