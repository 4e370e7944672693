"""Where one side of a stream waits until it may go on: threads, and coroutines of any loop."""

from __future__ import annotations

import sys
from _thread import RLock
from collections.abc import Callable

from ion_actors.clock import system_clock
from ion_actors.context import Context, Signal, Waker, call_in_loop

__all__ = ["WaitingRoom", "Wake"]

Wake = Callable[[], object]

# Seconds after which those who wait look again without the GIL; with it, they do not. There, what a
# thread has made is freed by that thread only, when it runs code again. And the last reference to
# the reader of a stream may have been released while the thread that made it waits for its end.
_GLANCE = None if getattr(sys, "_is_gil_enabled", lambda: True)() else 0.1


class WaitingRoom:
    """Waits until a condition holds. Whoever may have made it hold wakes those who wait.

    Args:
        lock: guards what the condition depends on, and who waits. Reentrant, since a stream may be
            found to be garbage in the middle of anything.
    """

    __slots__ = ("_lock", "_waiters")

    def __init__(self, lock: RLock) -> None:
        self._lock = lock
        self._waiters: list[Wake] = []

    def waiters(self) -> tuple[Wake, ...]:
        """Those who wait now, to be called without the lock. To be asked under it."""
        return tuple(self._waiters) if self._waiters else ()

    def wake(self) -> None:
        """Have those who wait look again."""
        with self._lock:
            waiting = self.waiters()
        for wake in waiting:
            wake()

    def wait(self, may_go: Callable[[], bool], context: Context) -> None:
        """Block until the condition may hold, or the context has ended. May return too early.

        Args:
            may_go: the condition; it is asked under the lock.
            context: ends the wait when it ends; that raises nothing here.
        """
        signal = Signal()
        wake = signal.set
        try:
            registration = context.add_callback(Waker(wake))
            try:
                if self._enlist(wake, may_go):
                    if _GLANCE is None:
                        signal.wait(context.clock, None)
                    else:
                        signal.wait(system_clock, system_clock.monotonic() + _GLANCE)
            finally:
                registration.remove()
        finally:
            self._discharge(wake)

    async def await_(self, may_go: Callable[[], bool], context: Context) -> None:
        """:meth:`wait` for coroutines."""
        import asyncio  # noqa: PLC0415 - it is large, and imported already where a loop runs

        loop = asyncio.get_running_loop()
        woken = asyncio.Event()
        glance = None if _GLANCE is None else loop.call_later(_GLANCE, woken.set)

        def wake() -> None:
            call_in_loop(loop, woken.set)

        try:
            registration = context.add_callback(Waker(wake))
            try:
                if self._enlist(wake, may_go):
                    await woken.wait()
            finally:
                registration.remove()
        finally:
            if glance is not None:
                glance.cancel()
            self._discharge(wake)

    def _enlist(self, wake: Wake, may_go: Callable[[], bool]) -> bool:
        with self._lock:
            if may_go():
                return False
            self._waiters.append(wake)
            return True

    def _discharge(self, wake: Wake) -> None:
        with self._lock:
            if wake in self._waiters:
                self._waiters.remove(wake)
