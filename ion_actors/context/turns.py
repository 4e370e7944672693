"""Waiting in a line: the part that threads and coroutines share.

A line (of submitters at a full mailbox, of acquirers at a semaphore) keeps its own order and
decides who is next. It need not know who waits: a thread blocks, a coroutine is suspended, and
either wait can be ended by its context, its deadline or an interruption. Whether a wait is over,
and what ended it, is decided in one place: under the line's lock.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, NamedTuple, Protocol, TypeVar

from ion_actors.clock import Clock, Timer
from ion_actors.context.scope import Context
from ion_actors.context.tree import Waker
from ion_actors.context.waiters import Signal, call_in_loop

__all__ = ["Line", "Terms", "Turn", "await_turn", "wait_turn"]

T = TypeVar("T")


class Turn(Generic[T]):
    """One wait in a line.

    Attributes:
        item: what is waited for: a task to be let in, a number of permits.
        over: the wait has ended. The line sets it under its lock, and then calls ``wake``.
        error: the error that ended it; None if it was served.
        wake: wakes the waiter; to be called once, though twice does no harm.
        ahead, behind: its neighbours, in a line that is a linked list; only the line uses them.
    """

    __slots__ = ("ahead", "behind", "error", "item", "over", "wake")

    def __init__(self, item: T, wake: Callable[[], object]) -> None:
        self.item = item
        self.wake = wake
        self.over = False
        self.error: BaseException | None = None
        self.ahead: Turn[T] | None = None
        self.behind: Turn[T] | None = None


class Line(Protocol[T]):
    """A line to wait in. Any thread may call its methods."""

    def join(self, turn: Turn[T], /) -> bool:
        """Serve the turn now (True), or add it to the line (False).

        If it raises, the turn neither waits nor was served.
        """
        ...

    def give_up(self, turn: Turn[T], error: BaseException | None, /) -> bool:
        """End the wait with this error, unless it is over. Returns whether this call ended it."""
        ...

    def forsake(self, turn: Turn[T], /) -> None:
        """The turn was served, but its waiter was interrupted: give what it got to the next."""
        ...


class Terms(NamedTuple):
    """How long to wait.

    Attributes:
        context: ends the wait when it ends.
        clock: the clock to use.
        deadline: the moment of the clock at which to give up, or None.
        late: makes the error to raise at the deadline.
    """

    context: Context
    clock: Clock
    deadline: float | None = None
    late: Callable[[], BaseException] = TimeoutError


def wait_turn(line: Line[T], item: T, terms: Terms) -> None:
    """Block until it is the item's turn.

    Raises:
        Cancelled, DeadlineExceeded: the context ended first.
    """
    context, clock, deadline, late = terms
    signal = Signal()
    turn = Turn(item, signal.set)
    if line.join(turn):
        return
    try:
        registration = context.add_callback(Waker(lambda: line.give_up(turn, context._error())))
        try:
            if not signal.wait(clock, deadline):
                line.give_up(turn, late())
        finally:
            registration.remove()
    except BaseException:  # Ctrl-C: the caller will not learn that it was served
        _interrupted(line, turn)
        raise
    if turn.error is not None:
        try:
            raise turn.error
        finally:
            del turn  # or error, traceback, frame and turn would keep each other alive


async def await_turn(line: Line[T], item: T, terms: Terms) -> None:
    """:func:`wait_turn` for coroutines; cancelling the coroutine gives up its place."""
    import asyncio  # noqa: PLC0415 - it is large, and imported already where a loop runs

    context, clock, deadline, late = terms
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    timer: Timer | None = None
    turn = Turn(item, lambda: call_in_loop(loop, over.set))
    if line.join(turn):
        return
    try:
        registration = context.add_callback(Waker(lambda: line.give_up(turn, context._error())))
        try:
            if deadline is not None:
                timer = clock.call_at(deadline, lambda: line.give_up(turn, late()))
            await over.wait()
        finally:
            registration.remove()
            if timer is not None:
                timer.cancel()
    except BaseException:  # cancelled, perhaps at the moment when it was served
        _interrupted(line, turn)
        raise
    if turn.error is not None:
        try:
            raise turn.error
        finally:
            del turn  # or error, traceback, frame and turn would keep each other alive


def _interrupted(line: Line[T], turn: Turn[T]) -> None:
    if not line.give_up(turn, None) and turn.error is None:
        line.forsake(turn)
