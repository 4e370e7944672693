"""Waiting for the end of a context, in a thread or on an event loop."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ion_actors.awaitables import running_loop
from ion_actors.clock import Clock
from ion_actors.context.tree import Node, Registration, Waker
from ion_actors.logs import Logger
from ion_actors.raised import is_asyncio_cancellation

if TYPE_CHECKING:
    import asyncio
    import concurrent.futures

__all__ = ["Interrupt", "Signal", "call_in_loop", "forget_done_callback"]

logger = Logger("ion_actors", later=True)


class Signal:
    """An event for the library's own waits: set once and waited for once.

    Unlike ``threading.Event``, it measures time by a clock of the library.
    """

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def set(self, _: object = None) -> None:
        """Wake the waiter; calling twice does no harm."""
        try:
            self._lock.release()
        except RuntimeError:
            return  # released already: it was set twice

    def wait(self, clock: Clock, deadline: float | None) -> bool:
        """Block until it is set (True) or the deadline is reached (False)."""
        return clock.park(self._lock, deadline)


class Interrupt:
    """Cancels the current asyncio task when a context ends, in an ``async with`` block of it."""

    __slots__ = ("_before", "_fired", "_loop", "_ours", "_registration", "_task")

    def __init__(self) -> None:
        import asyncio  # noqa: PLC0415 - it is large, and imported already where a loop runs

        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        # As asyncio.timeout() does: a cancellation by somebody else must not pass for ours.
        self._before = 0 if self._task is None else self._task.cancelling()
        self._fired = self._ours = False
        self._registration: Registration | None = None

    def arm(self, context: Node) -> None:
        """The block is about to begin."""
        wake = Waker(lambda: call_in_loop(self._loop, self._fire))
        self._registration = context.add_callback(wake)

    def _fire(self) -> None:
        if self._task is not None:
            self._fired = True
            self._task.cancel()

    def disarm(self) -> None:
        """The block is left. Calling twice does no harm."""
        if self._registration is not None:
            self._registration.remove()
        task, self._task = self._task, None  # a late _fire() finds nothing to cancel
        if self._fired and task is not None:
            self._ours = task.uncancel() <= self._before

    def settle(self, exc: BaseException | None) -> bool:
        """Whether the block ended because of this interrupt."""
        return self._ours and is_asyncio_cancellation(exc)


def forget_done_callback(
    future: concurrent.futures.Future[Any] | None, callback: Callable[[Any], object]
) -> None:
    """Remove this very done-callback, unless the future is done."""
    # There is no public way to remove one, and code that polls a future would pile them up.
    if future is not None and not future.done():
        # The condition's own lock: entering a condition is Python code, and may be interrupted.
        with future._condition._lock:  # type: ignore[attr-defined]
            callbacks: list[Callable[[Any], object]] = future._done_callbacks  # type: ignore[attr-defined]
            # By identity: the others are users' objects, whose __eq__ would run under the lock.
            for place, one in enumerate(callbacks):
                if one is callback:
                    del callbacks[place]
                    break


def call_in_loop(loop: asyncio.AbstractEventLoop, call: Callable[[], object]) -> None:
    """Call this in the loop; if the loop is closed, nobody waits there any more."""
    try:
        if running_loop() is loop:  # where it need not be woken
            loop.call_soon(call)
        else:
            loop.call_soon_threadsafe(call)
    except RuntimeError:
        logger.debug("the event loop was closed before it could be woken", exc_info=True)
