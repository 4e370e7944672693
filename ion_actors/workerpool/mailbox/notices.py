"""What is told of tasks that end without their worker: to hooks, and to dead letters.

A task that the pool gives up is counted and noted under the mailbox's lock, so that whoever has
seen its end finds its letter. Hooks and subscribers are told without.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

from ion_actors.delivery import is_kept_free
from ion_actors.errors import IonError
from ion_actors.observe import HOOKS
from ion_actors.workerpool.hooks import Ending
from ion_actors.workerpool.mailbox.dead_letters import DeadLetters
from ion_actors.workerpool.mailbox.protocols import Waiter
from ion_actors.workerpool.mailbox.task import TaskFuture
from ion_actors.workerpool.model.metrics import Ledger
from ion_actors.workerpool.model.outcomes import DropReason

__all__ = ["Notices", "OnDropped"]

#: Told how a task ended that the pool dropped, and why if it gave it up.
OnDropped = Callable[[Ending, BaseException, DropReason | None], object]

_TOLD: Ending = (False, None)  # its worker has told the hooks of its end


def _tell_of(
    on_dropped: OnDropped, news: Iterable[tuple[Ending, BaseException, DropReason | None]]
) -> None:
    for one in news:
        on_dropped(*one)


class Notices:
    """See the module.

    Args:
        ledger: the mailbox's.
        on_dropped: told of each task that ends without its worker, or is given up.

    Attributes:
        letters: the pool's dead letters, once somebody has asked for them.
    """

    def __init__(self, ledger: Ledger, on_dropped: OnDropped | None) -> None:
        self.letters: DeadLetters | None = None
        self._ledger = ledger
        self._on_dropped = on_dropped

    @property
    def wanted(self) -> bool:
        """Whether anybody is told of the tasks that the pool drops."""
        return self._on_dropped is not None or self.letters is not None

    def note(
        self,
        task: TaskFuture[Any],
        call: tuple[Any, ...],
        error: BaseException,
        reason: DropReason | None,
    ) -> None:
        """The pool gives a task up, unless there is no reason; under the lock, before its end."""
        if reason is None:
            return
        self._ledger.dropped[reason] += 1
        if self.letters is not None:
            self.letters.note(task.given_name, call, reason, error, task.history)

    def tell(self, task: TaskFuture[Any], error: IonError, reason: DropReason | None) -> None:
        """Tell of a task that ended without its worker; not under the lock."""
        if self.wanted:
            self.tell_all([(task, error, reason, None)])

    def tell_all(
        self, ended: Iterable[tuple[TaskFuture[Any], IonError | None, DropReason | None, Any]]
    ) -> None:
        """:meth:`tell` of many; the last of each is not looked at, and no error was not wanted."""
        if self._on_dropped is not None:
            news = [
                (task.take_ending(), error, reason) for task, error, reason, _ in ended if error
            ]
            tell = functools.partial(_tell_of, self._on_dropped, news)
            if is_kept_free():
                HOOKS.post(tell)
            else:
                tell()
        if self.letters is not None and any(reason is not None for _, _, reason, _ in ended):
            self.letters.tell()

    def tell_given_back(self, error: BaseException, reason: DropReason) -> None:
        """Tell of a task that its worker ended, and that the pool gives up; not under the lock."""
        if self._on_dropped is not None:
            self._on_dropped(_TOLD, error, reason)
        if self.letters is not None:
            self.letters.tell()

    def report(
        self, name: str | None, call: tuple[Any, ...], reason: DropReason, error: BaseException
    ) -> None:
        """Tell of a call that its submitter has given up, and the pool has not."""
        if self.letters is not None:
            self.letters.note(name, call, reason, error, ())
            self.letters.tell()

    def tell_turned_away(self, waiters: Iterable[Waiter]) -> None:
        """Tell of those who were waiting for room when the pool began to refuse; under no lock."""
        if self.letters is None:
            return
        for waiter in waiters:
            task, error = waiter.item, waiter.error
            assert error is not None
            call = (task.fn, task.args, task.kwargs)
            self.letters.note(task.given_name, call, DropReason.REFUSED, error, ())
        self.letters.tell()

    def join(self, patience: float | None) -> None:
        """Wait for those who are told of dead letters, for so many seconds at most."""
        if self.letters is not None:
            self.letters.join(patience)
