"""States, rules and orders: the inputs and outputs of a supervisor's decisions."""

from __future__ import annotations

import enum
import random
from collections.abc import Callable
from dataclasses import dataclass

from ion_actors.facts import ChildState
from ion_actors.workerpool.model.backoff import Backoff
from ion_actors.workerpool.model.recovery import PanicRecovery

__all__ = [
    "AutoShutdown",
    "ChildOutcome",
    "ChildRecord",
    "ChildState",
    "Finish",
    "GaveUp",
    "Order",
    "Restart",
    "RestartCause",
    "Retry",
    "Rules",
    "Start",
    "Stop",
    "Strategy",
    "SupervisorState",
]


class Strategy(enum.Enum):
    """Which children are restarted when one has to be."""

    ONE_FOR_ONE = "one_for_one"  #: only that child
    ONE_FOR_ALL = "one_for_all"  #: all children
    REST_FOR_ONE = "rest_for_one"  #: that child and those that were started after it


class Restart(enum.Enum):
    """Whether a child that has ended is restarted."""

    PERMANENT = "permanent"  #: always
    TRANSIENT = "transient"  #: if it failed
    TEMPORARY = "temporary"  #: never; it is forgotten


class AutoShutdown(enum.Enum):
    """Whether a supervisor ends by itself when its significant children have ended."""

    NEVER = "never"
    ANY_SIGNIFICANT = "any_significant"  #: when one of them has ended
    ALL_SIGNIFICANT = "all_significant"  #: when the last of them has ended


class SupervisorState(enum.Enum):
    """The state of a supervisor."""

    NEW = "new"  #: it was not started yet
    STARTING = "starting"  #: its children are being started
    RUNNING = "running"  #: it manages its children
    STOPPING = "stopping"  #: its children are being stopped
    STOPPED = "stopped"  #: it has ended


class ChildOutcome(enum.Enum):
    """Why a supervisor ends."""

    ASKED = "it was asked to"
    GAVE_UP = "too many restarts"
    START_FAILED = "a child could not be started"
    SIGNIFICANT = "its significant children have ended"


@dataclass(frozen=True, slots=True)
class Start:
    """Start this child."""

    id: str


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop this child."""

    id: str


@dataclass(frozen=True, slots=True)
class Retry:
    """Call :meth:`Machine.retry` for this child in so many seconds."""

    id: str
    delay: float


@dataclass(frozen=True, slots=True)
class GaveUp:
    """Report that the supervisor gives up: this child would have to be restarted too often."""

    id: str


@dataclass(frozen=True, slots=True)
class Finish:
    """No child is left: end."""


@dataclass(frozen=True, slots=True)
class RestartCause:
    """The following stops and starts are caused by this child."""

    id: str


Order = Start | Stop | Retry | RestartCause | GaveUp | Finish

#: The default restart intensity of OTP: once in five seconds.
OTP_LIMIT = PanicRecovery(max_restarts=1, within=5.0)


@dataclass(frozen=True, slots=True)
class Rules:
    """The settings of a supervisor for its decisions."""

    strategy: Strategy = Strategy.ONE_FOR_ONE
    limit: PanicRecovery = OTP_LIMIT
    backoff: Backoff | None = None
    auto_shutdown: AutoShutdown = AutoShutdown.NEVER
    chance: Callable[[], float] = random.random

    def delay(self, failures: int) -> float | None:
        """Seconds until the next try after so many failed starts in a row; None to give up."""
        return 0.0 if self.backoff is None else self.backoff.delay(failures, self.chance)


@dataclass(frozen=True, slots=True)
class ChildRecord:
    """One child, as far as the decisions depend on it."""

    id: str
    restart: Restart = Restart.PERMANENT
    significant: bool = False
    state: ChildState = ChildState.WAITING
    failures: int = 0  # starts that failed, in a row
    failed: bool = False  # how it went DOWN

    @property
    def alive(self) -> bool:
        """Whether there is something to stop."""
        return self.state in (ChildState.STARTING, ChildState.RUNNING)

    @property
    def comes_back(self) -> bool:
        """Whether it is restarted, now that it is DOWN."""
        if self.restart is Restart.TRANSIENT:
            return self.failed
        return self.restart is Restart.PERMANENT
