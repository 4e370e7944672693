"""Time, behind a seam: everything that waits for a moment asks a :class:`Clock`.

The library never calls ``time.monotonic`` or sleeps on its own. Tests replace the clock (see
``ion_actors.testing.VirtualClock``) by giving it to a context, as in
``Pool(context=Context(clock=clock))``.

The real clock fires its timers from one daemon thread, which lives only while timers are pending.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from _thread import get_ident
from collections.abc import Callable
from typing import Protocol

from ion_actors.forking import HOOKS_RAN, check, on_fork, run_hooks

__all__ = ["Clock", "SystemClock", "Timer", "acquire", "system_clock"]

logger = logging.getLogger("ion_actors")

# A burst of short timers (tasks with a time limit, one after the other) should not pay for a
# new thread each; after this many idle seconds the thread goes.
_LINGER = 0.1

# So many seconds at most until the thread finds out that the timer it waits for was cancelled. To
# wake it at each cancellation would cost every task with a time limit, which mostly is in time.
_PATROL = 1.0

# A cancelled timer stays in the heap until its turn, or until the heap has doubled.
_MIN_SWEEP = 64


# A signal that comes just before the main thread blocks in a lock is noted, but does not wake it:
# CPython would run its handler, and Ctrl-C would be heard, only when the lock is released. So the
# main thread looks up after so many seconds.
_LOOK_UP = 1.0


def acquire(lock: threading.Lock) -> bool:
    """Acquire a lock, however long it takes; a signal is handled within a second."""
    if get_ident() != _main_thread:
        return lock.acquire()
    while not lock.acquire(True, _LOOK_UP):
        check()  # where only the process id tells of a fork, there is time for it here
    return True


def _after_fork_in_child() -> None:
    global _main_thread  # noqa: PLW0603  # whoever forked is the main thread of the child
    _main_thread = threading.main_thread().ident


_main_thread = threading.main_thread().ident  # asked for in each wait, so it is kept
on_fork(_after_fork_in_child)


class Timer:
    """A call planned for a moment; :meth:`cancel` takes it back."""

    __slots__ = ("_call", "_on_cancel", "when")

    def __init__(
        self, when: float, call: Callable[[], object], on_cancel: Callable[[], object] | None = None
    ):
        self.when = when
        self._call: Callable[[], object] | None = call
        self._on_cancel = on_cancel

    def cancel(self) -> None:
        """Forget the call, if it has not begun. Calling twice does no harm."""
        if self._call is not None:
            self._call = None  # drop what the call refers to now, not at its moment
            if self._on_cancel is not None:
                self._on_cancel()

    @property
    def pending(self) -> bool:
        """Whether the call is still to come."""
        return self._call is not None

    def fire(self) -> None:
        """Make the call now; an error in it is logged. For clocks only."""
        call, self._call = self._call, None
        if call is None:
            return
        try:
            call()
        except BaseException:
            logger.exception("a timer's call failed: %r", call)


class Clock(Protocol):
    """What the library needs of time. Times are monotonic seconds."""

    def monotonic(self) -> float:
        """Now, in seconds since some fixed moment."""
        ...

    def call_at(self, when: float, call: Callable[[], object]) -> Timer:
        """Plan ``call()`` for the moment ``when``. It must be short and must not block."""
        ...

    def park(self, signal: threading.Lock, deadline: float | None) -> bool:
        """Block until ``signal`` can be acquired (True) or the deadline is reached (False)."""
        ...


class SystemClock:
    """The real one: ``time.monotonic`` and a timer thread that exists only when needed."""

    def __init__(self) -> None:
        self.monotonic = time.monotonic
        self._reset()
        # The timer thread stays in the parent, and so do the calls it was to make.
        on_fork(self._reset)

    def _reset(self) -> None:
        # Guards all below. Reentrant, since a finalizer or a signal handler may plan a call while
        # this thread is planning one.
        self._changed = threading.Condition(threading.RLock())
        self._heap: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._sweep_at = _MIN_SWEEP
        self._running = False

    @property
    def timers(self) -> int:
        """How many calls are still to come."""
        if not HOOKS_RAN[0]:
            run_hooks()
        with self._changed:
            return sum(timer.pending for _, _, timer in self._heap)

    def call_at(self, when: float, call: Callable[[], object]) -> Timer:
        """See :meth:`Clock.call_at`. The call is made by the timer thread."""
        if not HOOKS_RAN[0]:
            run_hooks()
        timer = Timer(when, call)
        with self._changed:
            if not self._running:
                threading.Thread(target=self._run, name="ion_actors-timer", daemon=True).start()
                self._running = True  # only once it is: starting a thread can fail
            if len(self._heap) >= self._sweep_at:
                self._sweep()
            earliest = not self._heap or when < self._heap[0][0]
            heapq.heappush(self._heap, (when, next(self._order), timer))
            if earliest:
                self._changed.notify()
        return timer

    def park(self, signal: threading.Lock, deadline: float | None) -> bool:
        """See :meth:`Clock.park`."""
        if deadline is None:
            return acquire(signal)
        while (remaining := deadline - time.monotonic()) > 0:
            if signal.acquire(timeout=min(remaining, _LOOK_UP)):
                return True
            check()  # see acquire()
        return signal.acquire(False)

    def _sweep(self) -> None:
        self._heap[:] = [entry for entry in self._heap if entry[2].pending]
        heapq.heapify(self._heap)
        self._sweep_at = max(_MIN_SWEEP, 2 * len(self._heap))

    def _run(self) -> None:
        while (timer := self._next_due()) is not None:
            timer.fire()
            del timer  # what it refers to must not live until the next one is due

    def _next_due(self) -> Timer | None:
        """Wait for the next timer that is due; None when there has been none for a while."""
        with self._changed:
            while True:
                if not self._heap:
                    if self._changed.wait(_LINGER) or self._heap:
                        continue
                    self._running = False
                    return None
                # Taken out before it is judged: by then, a finalizer may have planned an earlier.
                entry = heapq.heappop(self._heap)
                if not entry[2].pending:
                    continue
                if entry[0] <= time.monotonic():
                    return entry[2]
                heapq.heappush(self._heap, entry)
                del entry
                self._changed.wait(min(self._heap[0][0] - time.monotonic(), _PATROL))


#: The clock that everything uses unless it is told otherwise.
system_clock = SystemClock()
