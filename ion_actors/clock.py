"""Clocks and timers: the library takes the time from a :class:`Clock` only.

It never calls ``time.monotonic`` or ``time.sleep`` itself. Tests replace the clock (see
``ion_actors.testing.VirtualClock``) by giving it to a context, as in
``Pool(context=Context(clock=clock))``.

The real clock fires its timers from one daemon thread, which lives only while timers are pending.
If that cannot be started, waiting threads fire the timers: see :mod:`ion_actors.standby`.
"""

from __future__ import annotations

import atexit
import functools
import heapq
import itertools
import math
import threading
import time
from _thread import get_ident, start_new_thread
from collections.abc import Callable
from types import BuiltinFunctionType
from typing import Protocol

from ion_actors.delivery import keep_free, kept_free
from ion_actors.forking import HOOKS_RAN, check, on_fork, run_hooks
from ion_actors.interruption import is_interruption
from ion_actors.logs import Logger
from ion_actors.own_variables import DAEMON, daemon_thread
from ion_actors.standby import NO_MORE_THREADS, RETRY, STANDBY

__all__ = ["Clock", "Repeatable", "SystemClock", "Timer", "acquire", "start_thread", "system_clock"]

logger = Logger("ion_actors")

# A burst of short timers (tasks with a time limit, one after the other) should not pay for a
# new thread each; after this many idle seconds the thread ends.
_LINGER = 0.1

# Seconds at most until the thread notices that the timer it waits for was cancelled. To wake it at
# each cancellation would cost every task with a time limit, and most tasks end in time.
_PATROL = 1.0

# A timer that is late by this many seconds was missed: its thread is dead, or hangs in a call.
_DEAD = 5.0

# A cancelled timer stays in the heap until its turn, or until the heap has doubled.
_MIN_SWEEP = 64


# A signal that comes just before the main thread blocks in a lock does not wake it: CPython would
# run its handler (so also that of Ctrl-C) only when the lock is released. So the main thread wakes
# after this many seconds.
_LOOK_UP = 1.0


def acquire(lock: threading.Lock) -> bool:
    """Acquire a lock, however long it takes; a signal is handled within a second."""
    if get_ident() != _main_thread:
        return lock.acquire()
    while not lock.acquire(True, _LOOK_UP):
        check()  # a fork may be visible only by the process id; there is time to ask for it here
    return True


def start_thread(thread: threading.Thread) -> None:
    """Start a thread, so that Ctrl-C meanwhile cannot prevent it.

    ``Thread.start`` waits, in Python code, for the new thread to begin. If a signal handler raises
    there, in the main thread, a lock may stay locked that the new thread needs to begin.

    Raises:
        RuntimeError: no thread can be started.
    """
    if get_ident() != _main_thread:
        thread.start()
        return
    started = threading.Lock()
    started.acquire()
    errors: list[BaseException] = []

    def start() -> None:
        try:
            thread.start()
        except BaseException as error:
            errors.append(error)
        finally:
            started.release()

    start_new_thread(start, ())
    acquire(started)
    if errors:
        raise errors[0]


def _after_fork_in_child() -> None:
    global _main_thread  # noqa: PLW0603  # whoever forked is the main thread of the child
    _main_thread = threading.main_thread().ident


_main_thread = threading.main_thread().ident  # kept, because each wait asks for it
on_fork(_after_fork_in_child)


class Repeatable(functools.partial[object]):
    """A call by a timer that is made again if it fails: it finds out itself what is left to do."""

    __slots__ = ()


class Timer:
    """A call that is due at a moment; :meth:`cancel` cancels it."""

    __slots__ = ("_call", "_on_cancel", "when")

    def __init__(
        self, when: float, call: Callable[[], object], on_cancel: Callable[[], object] | None = None
    ):
        self.when = when
        self._call: Callable[[], object] | None = call
        self._on_cancel = on_cancel

    def cancel(self) -> None:
        """Cancel the call, if it has not begun. Calling twice does no harm."""
        if self._call is not None:
            self._call = None  # free what the call refers to now, not when it was due
            if self._on_cancel is not None:
                self._on_cancel()

    @property
    def pending(self) -> bool:
        """Whether the call is pending."""
        return self._call is not None

    def fire(self) -> None:
        """Make the call now; an error in it is logged. For clocks only.

        Raises:
            BaseException: an interruption, such as Ctrl-C, in the main thread.
        """
        call, self._call = self._call, None
        if call is None:
            return
        try:
            call()
        except BaseException as error:
            if isinstance(call, Repeatable):
                call()
            if is_interruption(error):
                raise
            logger.exception("a timer's call failed: %r", call)


class Clock(Protocol):
    """The clock that the library uses. Times are monotonic seconds."""

    def monotonic(self) -> float:
        """Now, in seconds since some fixed moment."""
        ...

    def call_at(self, when: float, call: Callable[[], object]) -> Timer:
        """Make ``call()`` at the moment ``when``. It must be short and must not block."""
        ...

    def park(self, signal: threading.Lock, deadline: float | None) -> bool:
        """Block until ``signal`` can be acquired (True) or the deadline is reached (False)."""
        ...


def _kernels_monotonic() -> Callable[[], float]:
    """The real ``time.monotonic``, even if a tool that freezes time has replaced it already."""
    if isinstance(time.monotonic, BuiltinFunctionType):
        return time.monotonic
    return functools.partial(time.clock_gettime, time.CLOCK_MONOTONIC)


class SystemClock:
    """The real clock: ``time.monotonic``, and a timer thread that exists only when needed.

    Ctrl-C may come at any point of a method, in the main thread, and other exceptions may be thrown
    into any thread. So the lock and what wakes the thread are C objects (``threading.Condition`` is
    written in Python, and stays locked if it is interrupted at the wrong moment), and a second
    timer thread does no harm: if it is uncertain whether there is one, another is started.
    """

    def __init__(self) -> None:
        # An attribute, set once: tools that freeze or move the time replace the function in every
        # module that has it.
        self.monotonic = _kernels_monotonic()
        self._reset()
        # The timer thread stays in the parent, and so do its pending calls.
        on_fork(self._reset)

    def _reset(self) -> None:
        # Guards all below. Reentrant, since a finalizer or a signal handler may add a timer while
        # this thread is adding one.
        self._changed = threading.RLock()
        self._wake = threading.Lock()  # released to wake the timer thread; it alone acquires it
        self._wake.acquire()
        self._heap: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._pushes = 0
        self._sweep_at = _MIN_SWEEP
        self._running = False
        self._started_at = -math.inf

    def abandon(self) -> None:
        """Forget all timers, so that the timer thread ends."""
        with self._changed:
            self._heap = []
            self._rouse()

    @property
    def timers(self) -> int:
        """How many calls are pending."""
        if not HOOKS_RAN[0]:
            run_hooks()
        with self._changed:
            return sum(timer.pending for _, _, timer in self._heap)

    def call_at(self, when: float, call: Callable[[], object]) -> Timer:
        """See :meth:`Clock.call_at`. The timer thread makes the call.

        If there is none, a waiting thread makes it: a supervisor's, or one in :meth:`park`.
        """
        if not HOOKS_RAN[0]:
            run_hooks()
        timer = Timer(when, call)
        try:
            with self._changed:
                running = self._ensure_thread()
                if len(self._heap) >= self._sweep_at:
                    self._sweep()
                earliest = not self._heap or when < self._heap[0][0]
                self._push((when, next(self._order), timer))
                if earliest:
                    self._rouse()
            if not running:
                STANDBY.ask(self._stand_in)
        except BaseException:  # Ctrl-C: the caller could not cancel it
            timer.cancel()
            raise
        return timer

    def park(self, signal: threading.Lock, deadline: float | None) -> bool:
        """See :meth:`Clock.park`."""
        if deadline is None and not STANDBY.busy:
            return acquire(signal)
        end = math.inf if deadline is None else deadline
        while (remaining := end - self.monotonic()) > 0:
            pause = _LOOK_UP if (delay := STANDBY.attend()) is None else min(delay, _LOOK_UP)
            if signal.acquire(timeout=min(remaining, pause)):
                return True
            check()  # see acquire()
        return signal.acquire(False)

    def _push(self, entry: tuple[float, int, Timer]) -> None:
        self._pushes += 1
        heapq.heappush(self._heap, entry)

    def _sweep(self) -> None:
        pushes = self._pushes
        pending = [entry for entry in self._heap if entry[2].pending]
        heapq.heapify(pending)
        # A finalizer or a signal handler may have added a timer since. No interruption is possible
        # between the comparison and the assignment.
        if pushes == self._pushes:
            self._heap = pending
        self._sweep_at = max(_MIN_SWEEP, 2 * len(self._heap))

    # -- the timer thread ------------------------------------------------------------------

    def _ensure_thread(self) -> bool:
        """Make sure that there is a timer thread. Returns False if none can be started."""
        if self._running and not self._is_late():
            return True
        try:
            self._start()
        except NO_MORE_THREADS as error:
            if is_interruption(error):
                raise
            return self._running  # if there is one, it may only be slow
        return True

    def _is_late(self) -> bool:
        """Whether the timer thread seems to be dead: ended by an exception from outside."""
        if not self._heap:
            return False
        before = self.monotonic() - _DEAD
        return self._heap[0][0] < before and self._started_at < before

    def _start(self) -> None:
        self._started_at = self.monotonic()
        start_thread(daemon_thread(self._run, "ion_actors-timer"))
        self._running = True  # only now: starting a thread can fail

    def _stand_in(self) -> float | None:
        """Replace the timer thread while there is none: a job, see :mod:`ion_actors.standby`."""
        with self._changed:
            if not self._heap or self._running:
                return None
            if self.monotonic() - self._started_at >= RETRY and self._ensure_thread():
                return None
        with kept_free():
            while (due := self._take_due()) is not None:
                _fire(due)
        with self._changed:
            if not self._heap or self._running:
                return None
            return max(0.0, min(self._heap[0][0] - self.monotonic(), RETRY))

    def _rouse(self) -> None:
        try:
            self._wake.release()
        except RuntimeError:
            return  # it was woken before and has not run yet

    def _run(self) -> None:
        keep_free()
        while True:
            try:
                if not self._make_next_call():
                    return
            except BaseException:  # thrown into this thread from outside
                logger.exception("the clock's thread was interrupted, and goes on")

    def _make_next_call(self) -> bool:
        """Wait until the next timer is due, and fire it; False if there are no more timers."""
        due = None
        try:
            while (due := self._take_due()) is None:
                with self._changed:
                    self._running = True  # the starting thread may have been interrupted
                    when = self._heap[0][0] if self._heap else None
                if when is not None:
                    delay = min(when - self.monotonic(), _PATROL)
                    self._wake.acquire(True, max(0.0, delay))
                elif not self._wake.acquire(True, _LINGER) and self._end():
                    return False
            due.fire()
        except BaseException:
            if due is not None:
                due.fire()  # unless it has begun
            raise
        return True

    def _take_due(self) -> Timer | None:
        """Remove and return the next timer that is due; also remove cancelled ones before it."""
        with self._changed:
            while self._heap:
                # Removed before the check: a finalizer may have added an earlier one meanwhile.
                entry = heapq.heappop(self._heap)
                if not entry[2].pending:
                    continue
                if entry[0] <= self.monotonic():
                    return entry[2]
                self._push(entry)
                return None
        return None

    def _end(self) -> bool:
        """There was no timer for a while. Returns whether that is still so."""
        with self._changed:
            if self._heap:
                return False
            self._running = False
            return True


def _fire(timer: Timer) -> None:
    try:
        timer.fire()
    except BaseException:
        timer.fire()  # unless it has begun
        raise


#: The default clock.
system_clock = SystemClock()

if not DAEMON:  # the interpreter waits for the timer thread
    getattr(threading, "_register_atexit", atexit.register)(system_clock.abandon)
