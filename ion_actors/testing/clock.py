"""A clock that stands still until a test moves it."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import threading
from collections.abc import Callable

from ion_actors._arguments import duration as checked_duration
from ion_actors.clock import Timer, acquire, system_clock

__all__ = ["VirtualClock"]


class VirtualClock:
    """Time for tests: it stands still until :meth:`advance` moves it.

    ::

        clock = VirtualClock()
        context = Context(timeout=3600, clock=clock)
        clock.advance(3600)
        assert context.cancelled

    Give it to a pool by ``Pool(context=Context(clock=clock))``. It is a
    :class:`ion_actors.clock.Clock`.

    Timers fire in the thread that advances the clock, in order of time; those for the same moment,
    in the order in which they were added. A timer for now or earlier fires at once, in the thread
    that adds it. Threads that a timer wakes run on by themselves: to continue when they wait again,
    use :meth:`wait_for_timers`.

    Args:
        start: the initial value of :meth:`monotonic`, in seconds.
    """

    def __init__(self, start: float = 0.0) -> None:
        # Guards the time and the heap. Reentrant: a finalizer may add a timer at any point.
        self._changed = threading.RLock()
        # Locks that are released when the number of timers changes. (Not a Condition: Ctrl-C may
        # leave that locked.)
        self._sleepers: list[threading.Lock] = []
        self._moving = threading.RLock()  # held by the thread that moves the time
        self._now = float(start)
        self._heap: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()

    # -- what the library asks -------------------------------------------------------------

    def monotonic(self) -> float:
        """Now, in seconds."""
        return self._now

    def call_at(self, when: float, call: Callable[[], object]) -> Timer:
        """Make ``call()`` at the moment ``when``; now, if that is not in the future."""
        timer = Timer(when, call, self._note_change)
        with self._changed:
            due = when <= self._now
            if not due:
                heapq.heappush(self._heap, (when, next(self._order), timer))
        self._note_change()
        if due:
            timer.fire()
        return timer

    def park(self, signal: threading.Lock, deadline: float | None) -> bool:
        """Block until ``signal`` can be acquired (True), or this clock reaches the deadline."""
        if deadline is None:
            return acquire(signal)
        if signal.acquire(blocking=False):
            return True
        expired = False

        def expire() -> None:
            nonlocal expired
            expired = True
            try:
                signal.release()  # a thread cannot wait for two locks, so this ends its wait
            except RuntimeError:
                return  # it was released just now

        timer = self.call_at(deadline, expire)
        try:
            acquire(signal)
        finally:
            timer.cancel()
        return not expired

    def _note_change(self) -> None:
        for sleeper in list(self._sleepers):
            with contextlib.suppress(RuntimeError):  # it was woken before, and has not run yet
                sleeper.release()

    # -- what the test asks ----------------------------------------------------------------

    @property
    def timers(self) -> int:
        """How many calls are pending; each thread that sleeps by this clock counts as one."""
        with self._changed:
            return sum(timer.pending for _, _, timer in self._heap)

    @property
    def moments(self) -> list[float]:
        """When the pending calls are due, the earliest first."""
        with self._changed:
            return sorted(when for when, _, timer in self._heap if timer.pending)

    def wait_for_timers(self, count: int = 1, *, patience: float = 20.0) -> None:
        """Block until at least so many calls are pending, so until a thread waits.

        Args:
            count: of timers.
            patience: seconds of real time.

        Raises:
            AssertionError: there were fewer for all that time.
        """
        woken = threading.Lock()
        self._sleepers.append(woken)
        try:
            until = system_clock.monotonic() + patience
            while self.timers < count:
                if not system_clock.park(woken, until):
                    raise AssertionError(
                        f"waited {patience} s for {count} timers, there are {self.timers}"
                    )
        finally:
            self._sleepers.remove(woken)

    def advance(self, duration: float) -> None:
        """Advance the time by so many seconds, and fire the timers that become due.

        Timers that these calls add fire as well, if they become due.

        Raises:
            BaseException: an interruption, such as Ctrl-C, during a call; all others were made.
        """
        step = checked_duration("duration", duration)
        with self._moving:
            self._fire_until(self._now + step)

    def advance_to_next(self) -> float:
        """Advance the time to the earliest timer, and fire it and all others of that moment.

        Returns:
            The number of seconds.

        Raises:
            AssertionError: there is no timer.
        """
        with self._moving:
            moments = self.moments
            if not moments:
                raise AssertionError("there is no timer to advance to")
            before = self._now
            self._fire_until(moments[0])
            return self._now - before

    def lag(self, duration: float) -> None:
        """Advance the time by so many seconds, but fire no timer, as if they were late.

        The next call of :meth:`advance` fires what has become due.
        """
        step = checked_duration("duration", duration)
        with self._moving, self._changed:
            self._now += step

    def _fire_until(self, end: float) -> None:
        interruption: BaseException | None = None
        while (timer := self._next_due(end)) is not None:
            try:
                timer.fire()
            except BaseException as error:
                interruption = error if interruption is None else interruption
                timer.fire()  # unless it has begun
        if interruption is not None:
            raise interruption

    def _next_due(self, end: float) -> Timer | None:
        """Remove the next timer due by ``end``, and set the time to it, or else to ``end``."""
        with self._changed:
            while self._heap and self._heap[0][0] <= end:
                when, _, timer = heapq.heappop(self._heap)
                if timer.pending:
                    self._now = max(self._now, when)
                    return timer
            # Under the same lock: timers that are added after this see the new time.
            self._now = max(self._now, end)
            return None
