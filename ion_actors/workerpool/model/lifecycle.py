"""The life of a pool as a pure state machine.

::

    RUNNING ──drain──▶ DRAINING ──time to cancel──▶ CANCELLING ──deadline──▶ CLOSED
       │                  │                              ▲                     ▲
       └──────close───────┴────────────close─────────────┘                     │
                          └────────────every worker has ended──────────────────┘

Drain lets the queue run and cancels the contexts a little before its deadline, so that tasks which
listen can still end by themselves and be told apart from those that are stuck. Close cancels at
once. Whatever is asked again can bring the deadline forward and never push it back.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

__all__ = ["Action", "Life", "Phase", "cancel_lead"]


class Phase(enum.Enum):
    """The phases of the diagram above."""

    RUNNING = "running"
    DRAINING = "draining"
    CANCELLING = "cancelling"
    CLOSED = "closed"


class Action(enum.Enum):
    """What the supervisor does about a transition, in the order given."""

    STOP_ACCEPTING = "stop accepting"
    CANCEL_ALL = "drop what is queued, cancel the contexts of what runs"
    ABANDON = "abandon what still runs"
    FINISH = "report, and stop"


def cancel_lead(timeout: float) -> float:
    """Seconds before a drain's deadline at which contexts are cancelled: a tenth, at most 0.1."""
    return min(0.1, timeout / 10)


_Step = tuple["Life", tuple[Action, ...]]


class Life(NamedTuple):
    """Where a pool is, and what it has planned. Times are the clock's seconds, None is never."""

    phase: Phase = Phase.RUNNING
    cancel_at: float | None = None  # while DRAINING
    deadline: float | None = None
    overdue: bool = False  # a drain's time was up before it was over

    def drain(self, now: float, timeout: float | None) -> _Step:
        """Somebody asks for a drain with so many seconds to go."""
        if self.phase is Phase.CLOSED:
            return self, ()
        deadline = None if timeout is None else now + timeout
        if self.phase is Phase.CANCELLING:
            return self._replace(deadline=_earlier(self.deadline, deadline)), ()
        cancel_at = None if timeout is None or deadline is None else deadline - cancel_lead(timeout)
        planned = Life(
            Phase.DRAINING,
            _earlier(self.cancel_at, cancel_at),
            _earlier(self.deadline, deadline),
        )
        actions = (Action.STOP_ACCEPTING,) if self.phase is Phase.RUNNING else ()
        return planned._after(now, actions)

    def close(self, now: float, timeout: float | None) -> _Step:
        """Somebody asks for the end, or the pool broke, or its context ended."""
        if self.phase is Phase.CLOSED:
            return self, ()
        deadline = _earlier(self.deadline, None if timeout is None else now + timeout)
        closing = Life(Phase.CANCELLING, None, deadline, self.overdue)
        if self.phase is Phase.CANCELLING:
            return closing._after(now, ())
        first = (Action.STOP_ACCEPTING,) if self.phase is Phase.RUNNING else ()
        return closing._after(now, (*first, Action.CANCEL_ALL))

    def tick(self, now: float) -> _Step:
        """Time has passed."""
        return self._after(now, ())

    def all_ended(self) -> _Step:
        """No task is queued and no worker is left."""
        if self.phase in (Phase.RUNNING, Phase.CLOSED):
            return self, ()
        return Life(Phase.CLOSED, overdue=self.overdue), (Action.FINISH,)

    def next_moment(self) -> float | None:
        """When to :meth:`tick`."""
        return self.cancel_at if self.phase is Phase.DRAINING else self.deadline

    def _after(self, now: float, actions: tuple[Action, ...]) -> _Step:
        """This life with what is due by now, after the given actions."""
        life = self
        if life.phase is Phase.DRAINING and _due(life.cancel_at, now):
            life = Life(Phase.CANCELLING, None, life.deadline, overdue=True)
            actions = (*actions, Action.CANCEL_ALL)
        if life.phase is Phase.CANCELLING and _due(life.deadline, now):
            life = Life(Phase.CLOSED, overdue=life.overdue)
            actions = (*actions, Action.ABANDON, Action.FINISH)
        return life, actions


def _earlier(one: float | None, other: float | None) -> float | None:
    if one is None or other is None:
        return one if other is None else other
    return min(one, other)


def _due(moment: float | None, now: float) -> bool:
    return moment is not None and now >= moment
