"""The public context: waiting under it, and making it the current one."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, Self, cast

from ion_actors._arguments import duration as checked_duration
from ion_actors._arguments import moment, seconds
from ion_actors.clock import Clock
from ion_actors.context.current import CURRENT, Block, current, running_task
from ion_actors.context.tree import Node, Registration, Waker
from ion_actors.context.waiters import Interrupt, Signal, call_in_loop, forget_done_callback
from ion_actors.naming import words

if TYPE_CHECKING:
    import concurrent.futures
    from types import TracebackType

__all__ = [
    "Context",
    "Helper",
    "background",
    "current_context",
    "helper_here",
    "make_current",
    "of_thread",
]


class Context(Node):
    """A scope of work that can be cancelled, with an optional deadline.

    Args:
        parent: ends this one when it ends; by default the current context.
        timeout: seconds from now until the deadline; None for none of its own.
        deadline: the same as a moment of the clock (monotonic seconds). Give at most one of both.
        clock: what tells the time; by default the parent's.

    Raises:
        TypeError, ValueError: an argument makes no sense.

    The earlier of its own and its parents' deadlines counts. As a ``with`` block it is the current
    context inside; leaving the block by an exception cancels it, since nobody waits for its work
    any more, and leaving it normally does not. As an ``async with`` block it also interrupts the
    body when it ends: the block then raises :class:`Cancelled` or :class:`DeadlineExceeded`.
    """

    def __init__(
        self,
        parent: Context | None = None,
        *,
        timeout: float | None = None,
        deadline: float | None = None,
        clock: Clock | None = None,
    ) -> None:
        parent = current_context() if parent is None else parent
        if not isinstance(parent, Context):
            raise TypeError(f"parent must be a Context or None, not {parent!r}")
        if timeout is not None and deadline is not None:
            raise TypeError(f"give timeout or deadline, not both: {timeout!r} and {deadline!r}")
        self._clock = parent._clock if clock is None else clock
        if timeout is not None and (limit := seconds("timeout", timeout)) is not None:
            deadline = self._clock.monotonic() + limit
        self._inherit((parent,), None if deadline is None else moment("deadline", deadline))

    # -- waiting ---------------------------------------------------------------------------

    def sleep(self, duration: float) -> None:
        """Sleep for so many seconds.

        Raises:
            Cancelled, DeadlineExceeded: the context ended; the call raises at that moment.
        """
        if self.wait(timeout=checked_duration("duration", duration)):
            raise self._error()

    def wait(
        self,
        future: concurrent.futures.Future[Any] | None = None,
        timeout: float | None = None,
    ) -> bool:
        """Block until ``future`` is done or, without one, until the context ends.

        Args:
            future: the future to wait for.
            timeout: seconds to wait at most.

        Returns:
            True if that happened, False if the timeout passed first.

        Raises:
            Cancelled, DeadlineExceeded: the context ended before the future was done.
        """
        limit = seconds("timeout", timeout)
        signal = Signal()
        wake = signal.set  # the one object by which it is taken back
        if future is not None:
            _help(future)
            future.add_done_callback(wake)
        registration = self.add_callback(Waker(wake))
        try:
            until = None if limit is None else self._clock.monotonic() + limit
            signal.wait(self._clock, until)
            registration.remove()
            forget_done_callback(future, wake)
        except BaseException:  # Ctrl-C, perhaps just before they were removed
            registration.remove()
            forget_done_callback(future, wake)
            raise
        try:
            return self._waited_for(future)
        finally:
            del future  # see _help()

    async def asleep(self, duration: float) -> None:
        """:meth:`sleep` for coroutines."""
        if await self.await_(timeout=checked_duration("duration", duration)):
            raise self._error()

    async def await_(
        self,
        future: concurrent.futures.Future[Any] | None = None,
        timeout: float | None = None,
    ) -> bool:
        """:meth:`wait` for coroutines."""
        import asyncio  # noqa: PLC0415 - it is large, and imported already where a loop runs

        limit = seconds("timeout", timeout)
        loop = asyncio.get_running_loop()
        woken = asyncio.Event()

        def wake(_: object = None) -> None:
            call_in_loop(loop, woken.set)

        if future is not None:
            _help(future)
            future.add_done_callback(wake)
        registration = self.add_callback(Waker(wake))
        timer = None
        if limit is not None:
            timer = self._clock.call_at(self._clock.monotonic() + limit, wake)
        try:
            await woken.wait()
        finally:
            registration.remove()
            forget_done_callback(future, wake)
            if timer is not None:
                timer.cancel()
        try:
            return self._waited_for(future)
        finally:
            del future  # see _help()

    def _waited_for(self, future: concurrent.futures.Future[Any] | None) -> bool:
        if future is None:
            return self.cancelled
        if future.done():
            return True
        self.check()
        return False

    # -- being the current one -------------------------------------------------------------

    def __enter__(self) -> Self:
        block = Block(self, sys._getframe(1))
        try:
            block.enter()
            return self
        except BaseException:  # Ctrl-C: the block does not begin, so it is never left
            block.abandon()
            raise

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        block = None
        try:
            block = Block.find(self, sys._getframe(1))
            self._leave(block, exc)
        except BaseException:  # Ctrl-C
            self._leave(block or Block.find(self, sys._getframe(1)), exc)
            raise

    async def __aenter__(self) -> Self:
        block = Block(self, sys._getframe(1), Interrupt())
        try:
            block.enter()
            return self
        except BaseException:  # see __enter__
            block.abandon()
            raise

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        block = None
        try:
            block = Block.find(self, sys._getframe(1))
            self._leave(block, exc)
        except BaseException:
            self._leave(block or Block.find(self, sys._getframe(1)), exc)
            raise
        if block is not None and block.interrupt is not None and block.interrupt.settle(exc):
            raise self._error() from exc

    def _leave(self, block: Block | None, exc: BaseException | None) -> None:
        if block is not None:
            block.leave()
        if exc is not None:
            self._left_by(exc)

    def _left_by(self, exc: BaseException) -> None:
        self.cancel(f"its block was left by {type(exc).__name__}")

    def __repr__(self) -> str:
        if self.cancelled:
            return f"<{type(self).__name__} at {id(self):#x} ended: {words(self._reason)}>"
        remaining = self.remaining()
        left = "" if remaining is None else f" {remaining:.3f} s left"
        return f"<{type(self).__name__} at {id(self):#x} alive{left}>"


class _Background(Context):
    """The root: it never ends."""

    _endless = True

    def __init__(self) -> None:
        # No parent to inherit from.
        return

    def cancel(self, reason: str = "") -> bool:
        raise RuntimeError("the background context cannot be cancelled; make a Context() of it")

    def _left_by(self, exc: BaseException) -> None:
        """Its blocks shield the code inside from the contexts around; it does not end itself."""

    def add_callback(self, callback: Callable[[], object]) -> Registration:
        return Registration(self, callback)  # not kept: it would never run


_BACKGROUND = _Background()


def background() -> Context:
    """The context that never ends: the root of all others, and the default current one."""
    return _BACKGROUND


class Helper(Protocol):
    """How a worker's thread handles a wait inside a task: it may have to run other tasks."""

    def help(self, future: concurrent.futures.Future[Any], /) -> None:
        """Before a wait for this future: make sure that the wait can end."""
        ...

    def wait(self, future: Any, timeout: float | None, /) -> bool:
        """Wait. Returns whether the future was done within ``timeout`` seconds."""
        ...


class _Thread(threading.local):
    """What a worker's thread knows about its current task.

    Most tasks never ask for their context. So a task whose submitter had none gets one only when
    somebody asks for it here, or cancels the task.
    """

    task_context: Callable[[], Context | None] | None = None
    helper: Helper | None = None
    report: Callable[[float, str], None] | None = None  # takes the progress of its task
    task_name: Callable[[], str] | None = None


of_thread = _Thread()


def helper_here() -> Helper | None:
    """How waits are handled here: by the worker whose thread this is, or by that of the task whose
    coroutine this is; None outside of tasks."""
    if of_thread.helper is not None or CURRENT.get() is None:
        return of_thread.helper
    task = running_task()
    return None if task is None else task.helper()


def _help(future: concurrent.futures.Future[Any]) -> None:
    try:
        if (helper := helper_here()) is not None:
            helper.help(future)
    finally:
        del future  # the error of a task that is run here holds the frames below it, too


def current_context() -> Context:
    """The context of the running task, or of the innermost ``with`` block; else the background."""
    return cast("Context | None", current()) or _of_task() or _BACKGROUND


def _of_task() -> Context | None:
    ask = of_thread.task_context
    context = None if ask is None else ask()
    if context is not None:
        CURRENT.set(context)  # from here on it flows into other threads, too
    return context


def make_current(context: Context) -> None:
    """Make ``context`` current until further notice, in a copy of the context variables."""
    CURRENT.set(context)
