"""Signals to what must end: after a delay, each stronger than the last.

The plan is a tuple of steps; an :class:`Escalation` carries it out by the clock's timers. After
:meth:`Escalation.end` it never sends a signal.
"""

from __future__ import annotations

import functools
import signal
import threading
from collections.abc import Callable
from typing import NamedTuple

from ion_actors.clock import Clock, Timer

__all__ = ["ABORT", "KILL", "TERMINATE", "Escalation", "Step", "plan"]

#: A child that gets this writes its stacks into its last words.
ABORT = signal.SIGABRT
TERMINATE = signal.SIGTERM
#: Where there is no SIGKILL, any signal ends a process in the same way.
KILL = getattr(signal, "SIGKILL", signal.SIGTERM)


class Step(NamedTuple):
    """A signal, and the seconds to wait before it is sent."""

    delay: float
    signum: signal.Signals


def plan(grace: float | None, kill_after: float) -> tuple[Step, ...]:
    """The steps for a task or a process that is expected to end by itself.

    Args:
        grace: seconds until the first signal; None for no signal at all.
        kill_after: seconds from then until it is killed.
    """
    if grace is None:
        return ()
    return Step(grace, TERMINATE), Step(kill_after, KILL)


class Escalation:
    """Sends the signals of a plan, one after the other, until it is paused.

    Args:
        clock: the clock to use.
        send: sends a signal; any thread may call it.
    """

    def __init__(self, clock: Clock, send: Callable[[signal.Signals], object]) -> None:
        self._clock = clock
        self._send = send
        self._steps: tuple[Step, ...] = ()
        self._timer: Timer | None = None
        self._ended = False
        self.sent: signal.Signals | None = None  # the last one
        # Guards all of the above. Held while a signal is sent, so that none comes after pause().
        # Reentrant: a clock fires a due timer at once, in the thread that adds it.
        self._lock = threading.RLock()

    @property
    def idle(self) -> bool:
        """Whether no plan is running, and nothing was sent."""
        return self._timer is None and self.sent is None

    def begin(self, steps: tuple[Step, ...]) -> None:
        """Begin these steps, instead of what is left of others."""
        with self._lock:
            if not self._ended:
                self._plan(steps)

    def send_now(self, signum: signal.Signals) -> None:
        """Send this signal now."""
        with self._lock:
            if not self._ended:
                self.sent = signum
                self._send(signum)

    def pause(self) -> None:
        """Send nothing more, until it begins again: the task is over.

        After SIGTERM the task has ended; any other signal was for the process.
        """
        if self._timer is None and not self._steps:
            return  # no other thread can begin it now: see Child._leave()
        with self._lock:
            self._plan(())
            if self.sent is TERMINATE:
                self.sent = None

    def end(self) -> None:
        """Send nothing more, ever."""
        with self._lock:
            self._ended = True
            self._plan(())

    def _plan(self, steps: tuple[Step, ...]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._steps, self._timer = steps, None
        if steps:
            due = self._clock.monotonic() + steps[0].delay
            timer = self._clock.call_at(due, functools.partial(self._step, steps))
            if timer.pending:  # else it has fired already, and added the next
                self._timer = timer

    def _step(self, steps: tuple[Step, ...]) -> None:
        with self._lock:
            if steps is self._steps:  # else it was paused, or begun again, meanwhile
                self.send_now(steps[0].signum)
                self._plan(steps[1:])
