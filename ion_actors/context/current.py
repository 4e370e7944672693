"""Which context is current, and the ``with`` blocks that set it.

It is kept in a context variable, so it flows with all others into tasks, coroutines and
``asyncio.to_thread``. Its value is a context, or an :class:`Entry` for each ``with`` block around::

    with a:                     a ◀── b          the variable holds the innermost
        with b:

Of a coroutine that a pool runs on an event loop, the value is a weak reference to its task
(:class:`Running`). The task makes its context when somebody asks for it here; most never do.

The two halves of a block may run in different copies of the variables: a web framework runs those
of a synchronous dependency in two threads, and a generator may be closed by another thread. So a
block is found by the frame of its ``with`` statement, and removes its own entry:

- where it was entered, the entry is removed from the variable. Copies of it that were made inside
  the block, for tasks that were started there, stay as they are.
- elsewhere, the entry is marked as left, so that it is not current anywhere any more.
"""

from __future__ import annotations

import contextvars
import weakref
from _thread import get_ident
from types import FrameType
from typing import Any, Protocol, cast

from ion_actors.context.tree import Node
from ion_actors.context.waiters import Interrupt

__all__ = ["CURRENT", "Block", "Entry", "Running", "current", "enter_task", "running_task"]


class Running(Protocol):
    """A task that runs as a coroutine among others, on one event loop."""

    def task_context(self) -> Any:
        """Its context; made now, if nobody has asked for it before."""
        ...

    def task_name(self) -> str:
        """Its name, for errors and logs."""
        ...

    def report_progress(self, fraction: float, message: str, /) -> None:
        """Take the progress that the task reports."""
        ...

    def helper(self) -> Any:
        """How its waits are handled: a ``Helper``, or None."""
        ...


class Entry:
    """One block, as part of the variable's value.

    Attributes:
        context: what the block made current.
        outer: the previous value of the variable, without blocks that were left since.
        inner: the entries whose ``outer`` is this one, in any copy of the variable.
        left: the block was left in another copy of the variables.
        thread: the thread that entered the block.
    """

    __slots__ = ("context", "inner", "left", "outer", "thread")

    def __init__(self, context: Node, outer: Value) -> None:
        self.context = context
        self.outer = outer
        self.inner: list[Entry] | None = None
        self.left = False
        self.thread = get_ident()

    def all_inner(self) -> list[Entry]:
        """The entries inside this one, and those inside them, and so on."""
        found = list(self.inner or ())
        for one in found:
            found.extend(one.inner or ())
        return found


Value = Entry | Node | weakref.ref[Any] | None

CURRENT: contextvars.ContextVar[Value] = contextvars.ContextVar("ion_actors_context", default=None)


def enter_task(task: Running) -> None:
    """The coroutine of this task begins here, in variables of its own."""
    CURRENT.set(weakref.ref(task))


def running_task() -> Running | None:
    """The task whose coroutine runs here, on an event loop that it shares; else None."""
    value = CURRENT.get()
    while type(value) is Entry:
        value = value.outer
    return value() if type(value) is weakref.ref else None


def current() -> Node | None:
    """The context of the innermost block, or what was set without one; else None."""
    value = CURRENT.get()
    if type(value) is not Entry:
        if type(value) is weakref.ref:
            task: Running | None = value()
            return None if task is None else cast("Node", task.task_context())
        return value  # type: ignore[return-value]  # mypy does not see that it is no Entry
    if not value.left:
        return value.context
    rest: Value = value
    while type(rest) is Entry and rest.left:
        rest = rest.outer
    CURRENT.set(rest)  # frees what was left elsewhere
    return current()


class Block:
    """A ``with`` or ``async with`` block of a context; the context keeps it while it is open.

    Every method may be called again if it was interrupted.

    Args:
        context: to be current inside.
        frame: that of the ``with`` statement.
        interrupt: interrupts the body, in an ``async with`` block.
    """

    __slots__ = ("_before", "_entry", "_frame", "_token", "context", "interrupt")

    def __init__(self, context: Node, frame: FrameType, interrupt: Interrupt | None = None) -> None:
        self.context = context
        self.interrupt = interrupt
        # Only its id, which is unique while the block is open: a frame would keep variables alive.
        self._frame = id(frame)
        self._before = before = CURRENT.get()
        self._entry = Entry(context, before)
        self._token: contextvars.Token[Any] | None = None

    @staticmethod
    def find(context: Node, frame: FrameType) -> Block | None:
        """The open block of the context that is being left in this frame; None if none can be."""
        wanted = id(frame)
        # The list itself: removals by other threads do not hide an entry that stays.
        for one in reversed(context.blocks or ()):
            if one._frame == wanted:
                return cast("Block", one)
        # It was entered by hand, or by an ExitStack.
        blocks: list[Block] = list(context.blocks or ())
        value = CURRENT.get()
        while type(value) is Entry:
            for one in blocks:
                if one._entry is value:
                    return one
            value = value.outer
        return blocks[0] if len(blocks) == 1 else None

    def enter(self) -> None:
        """Make the context current."""
        if self.context.blocks is None:
            self.context.blocks = []
        self.context.blocks.append(self)
        if self.interrupt is not None:
            self.interrupt.arm(self.context)
        if type(before := self._before) is Entry:
            if before.inner is None:
                before.inner = []
            before.inner.append(self._entry)
        self._token = CURRENT.set(self._entry)

    def abandon(self) -> None:
        """Entering was interrupted."""
        self._forget()
        if CURRENT.get() is self._entry:
            CURRENT.set(self._before)

    def leave(self) -> None:
        """Restore the previous current context."""
        entry, rest = self._entry, self._rest()
        try:
            if self._token is not None:
                CURRENT.reset(self._token)
        except ValueError:  # it was entered elsewhere
            entry.left = True
            CURRENT.set(rest)
            self._let_go([one for one in entry.all_inner() if one.thread == entry.thread])
        except RuntimeError:  # this is the second try
            CURRENT.set(rest)
        else:
            if rest is not self._before:
                CURRENT.set(rest)
            # Copies of the variable that were made inside do not need the outer entries; in a chain
            # of tasks that start their successors in such a block, they would pile up for ever.
            entry.outer = None
        self._forget()

    def _rest(self) -> Value:
        """The value of the variable, without this block."""
        entry, value = self._entry, CURRENT.get()
        if value is entry:
            return entry.outer
        above, passed = value, []
        while type(above) is Entry:
            passed.append(above)
            if above.outer is entry:
                self._let_go(passed)
                above.outer = entry.outer
                break
            above = above.outer
        return value

    def _let_go(self, others: list[Entry]) -> None:
        # They were entered later and are still open, so they are not inside this block: this is a
        # generator, closed by the code that drives it. Its end does not end those blocks.
        for one in others:
            one.context.step_over(self.context)

    def _forget(self) -> None:
        if self.interrupt is not None:
            self.interrupt.disarm()
        blocks = self.context.blocks
        if blocks is not None and self in blocks:
            blocks.remove(self)
        if type(before := self._before) is Entry and before.inner and self._entry in before.inner:
            before.inner.remove(self._entry)
