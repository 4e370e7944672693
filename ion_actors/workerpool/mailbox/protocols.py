"""What passes between the mailbox, its workers and its waiters."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from ion_actors.backends.stacks import Stack
from ion_actors.context import Turn
from ion_actors.workerpool.mailbox.task import TaskFuture
from ion_actors.workerpool.model.metrics import Tally

__all__ = [
    "NOT_BEGUN",
    "PARKED",
    "RETIRE",
    "Dropped",
    "Helping",
    "HelpsOnLoop",
    "Order",
    "Performer",
    "Returning",
    "Sending",
    "Taker",
    "Waiter",
]

#: When a task began that was handed to a worker and has not begun: no time has passed since.
NOT_BEGUN = math.inf

#: A submitter that waits for room for its task.
Waiter = Turn[TaskFuture[Any]]

#: A task that was dropped: itself, its call (function, arguments, keywords, variables), callbacks.
Dropped = tuple[TaskFuture[Any], tuple[Any, ...], Any]


class Order:
    """What a worker is given where there is no task for it."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name


PARKED = Order("PARKED")  #: there is nothing; the worker counts as idle and will be woken
RETIRE = Order("RETIRE")  #: there will be nothing more


class Taker(Protocol):
    """What the mailbox needs of a worker."""

    slot: TaskFuture[Any] | None
    current: TaskFuture[Any] | None
    has_control: bool

    def wake(self) -> None:
        """Make it look at its slot. May be called by any thread, and once too often."""
        ...


class Helping(Taker, Protocol):
    """A worker that may run a task in the middle of another."""

    started_at: float  # when the current task began, or NOT_BEGUN
    # Below the current one, with their beginnings. Grows under the mailbox's lock.
    interrupted: list[tuple[TaskFuture[Any] | None, float]]

    @property
    def doomed(self) -> bool:
        """Whether it will take no further task."""
        ...


class Sending(Helping, Protocol):
    """A worker that is handed tasks before their turn: see ``SendsAhead`` of the backends."""

    ahead: deque[TaskFuture[Any]]  # those, in order. Grows under the mailbox's lock.


class HelpsOnLoop(Protocol):
    """How tasks wait for tasks of their own pool, if all of these share an event loop: a
    :class:`~ion_actors.context.Helper`, and more."""

    def help(self, future: Any, /) -> None:
        """Before a wait for this future: make sure that the wait can end."""
        ...

    def wait(self, future: Any, timeout: float | None, /) -> bool:
        """Wait, in a thread. Returns whether the future was done within ``timeout`` seconds."""
        ...

    async def run_new(
        self, task: TaskFuture[Any], accepted: Callable[[TaskFuture[Any]], object], /
    ) -> bool:
        """Run a task now that the caller submits, and for which there is no room; wait for it.

        Returns:
            Whether it might begin.
        """
        ...


class Performer(Helping, Protocol):
    """Who runs tasks of a pool: a worker, or a caller that stands in for one."""

    name: str
    appointed: bool  # by the supervisor: it is no caller
    index: int  # of its seat; who stands in has none, and a number below zero
    tally: Tally
    thread: threading.Thread | None  # None before it has one, and once nobody is to wait for it

    @property
    def starting(self) -> bool:
        """Whether it is getting ready for tasks, or for the next one."""
        ...

    @property
    def pid(self) -> int | None:
        """The process in which its tasks run; None for this one, or if there is none now."""
        ...

    @property
    def keeps_others(self) -> bool:
        """Whether its task keeps those of other workers from going on, at this moment."""
        ...

    def where(self) -> Stack:
        """Where it is. Nothing is waited for."""
        ...

    def sent_ahead(self) -> Sequence[TaskFuture[Any]]:
        """The tasks that it has besides the current one, and that were sent before their turn."""
        ...


class Returning(Protocol):
    """A worker that puts a task back."""

    current: TaskFuture[Any] | None
    put_back: TaskFuture[Any] | None  # queued again, no longer this worker's
