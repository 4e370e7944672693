"""Whether a child that has a task still answers.

It is asked at each beat, over the control channel, and the thread that watches there answers; so a
process that is stopped or frozen is found out, and native code that never lets go of Python's lock.
A beat that comes late says nothing: this process was held up itself, perhaps together with the
child, as by Ctrl-Z.
"""

from __future__ import annotations

import threading
from typing import NamedTuple, Protocol

from ion_actors.clock import Clock, Timer

__all__ = ["Heartbeat", "Question", "judge"]


class Question(NamedTuple):
    """What was asked last: for which task; and whether an answer may be expected by now."""

    task: int
    lost: bool = False


def judge(
    asked: Question | None, task: int | None, heard: bool, late: bool
) -> Question | None:  # fmt: skip
    """What a beat has found.

    Args:
        asked: what the last one did.
        task: the number of the task that the child has now, if any.
        heard: the child has answered since.
        late: this beat is.

    Returns:
        What to ask now; None for nothing. It may be that it is lost: then there is nothing to ask.
    """
    if task is None:
        return None
    silent = asked is not None and asked.task == task and not heard
    return Question(task, lost=silent and not late)


class Watched(Protocol):
    """Who is asked; what the methods do must be short."""

    def task_under_way(self) -> int | None:
        """The number of its task, if it has one."""
        ...

    def has_answered(self) -> bool:
        """Whether an answer has come since this was called last."""
        ...

    def ask(self) -> None:
        """Ask it."""
        ...

    def give_up(self, task: int, /) -> None:
        """It has not answered. It may just have ended this task."""
        ...


class Heartbeat:
    """Beats until it is ended.

    Args:
        clock: what tells the time.
        interval: seconds from one beat to the next.
        watched: who is asked.
    """

    def __init__(self, clock: Clock, interval: float, watched: Watched) -> None:
        self._clock = clock
        self._interval = interval
        self._watched = watched
        self._asked: Question | None = None
        self._due = 0.0
        self._timer: Timer | None = None
        self._ended = False
        # Guards all of the above. Reentrant: see Escalation.
        self._lock = threading.RLock()

    def begin(self) -> None:
        """Have the first beat an interval from now."""
        with self._lock:
            if not self._ended:
                self._due = self._clock.monotonic() + self._interval
                self._timer = self._clock.call_at(self._due, self._beat)

    def end(self) -> None:
        """No beat comes, or goes on, after this."""
        with self._lock:
            self._ended = True
            if self._timer is not None:
                self._timer.cancel()

    def _beat(self) -> None:
        with self._lock:
            if self._ended:
                return
            watched = self._watched
            late = self._clock.monotonic() - self._due > self._interval / 2
            task, heard = watched.task_under_way(), watched.has_answered()
            self._asked = asked = judge(self._asked, task, heard, late)
            if asked is not None:
                if asked.lost:
                    watched.give_up(asked.task)
                else:
                    watched.ask()
            self.begin()
