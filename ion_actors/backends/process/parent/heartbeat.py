"""Whether a child that has a task still answers.

At each beat, the parent asks it over the control channel, and the child's watching thread answers.
So a process is detected that is stopped or frozen, or whose native code never releases the GIL. A
late beat is ignored: this process was stopped itself, perhaps together with the child, as by
Ctrl-Z.
"""

from __future__ import annotations

import threading
from typing import NamedTuple, Protocol

from ion_actors.clock import Clock, Timer

__all__ = ["Heartbeat", "Question", "judge"]


class Question(NamedTuple):
    """The last question: for which task; and whether the child counts as lost."""

    task: int
    lost: bool = False


def judge(
    asked: Question | None, task: int | None, heard: bool, late: bool
) -> Question | None:  # fmt: skip
    """Decide at a beat.

    Args:
        asked: the question of the last beat.
        task: the number of the child's current task, if any.
        heard: whether the child has answered since.
        late: whether this beat is late.

    Returns:
        The question to ask now; None for none. If it says that the child is lost, do not ask.
    """
    if task is None:
        return None
    silent = asked is not None and asked.task == task and not heard
    return Question(task, lost=silent and not late)


class Watched(Protocol):
    """The child that is asked. The methods must be quick."""

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
        """It has not answered during this task, which may just have ended."""
        ...


class Heartbeat:
    """Beats until it is ended.

    Args:
        clock: the clock to use.
        interval: seconds from one beat to the next.
        watched: the child that is asked.
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
        """Beat for the first time an interval from now."""
        with self._lock:
            if not self._ended:
                self._due = self._clock.monotonic() + self._interval
                self._timer = self._clock.call_at(self._due, self._beat)

    def end(self) -> None:
        """Stop. No beat begins or is running after this."""
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
