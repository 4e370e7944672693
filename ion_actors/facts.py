"""Facts that errors carry: why a task was dropped, how a drain went, the states of things.

The modules that these facts are about import them from here and pass them on. Here they are below
the errors, so that no import points upwards.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from ion_actors.naming import describe, printable

__all__ = [
    "ChildState",
    "CircuitState",
    "DrainReport",
    "DropReason",
    "TaskState",
    "UnfinishedTask",
    "WorkerDeath",
]


class DropReason(enum.Enum):
    """Why a task was not run, or not to its end, although its submitter did not cancel it."""

    NEWEST = "newest"  #: it was submitted when the mailbox was full
    OLDEST = "oldest"  #: it had waited longest when another task was submitted to a full mailbox
    EXPIRED = "expired"  #: it had waited longer than its ``ttl``
    SHED = "shed"  #: all tasks waited too long, and this one longer than twice the target
    REFUSED = "refused"  #: it was not accepted: the mailbox was full, or the pool had ended
    CLOSED = "closed"  #: it was still queued when the pool was closed, or broke
    STOPPED = "stopped"  #: it was running when the pool was closed, and ended when its context did
    ABANDONED = "abandoned"  #: it was still running at the deadline of a drain or a close
    PURGED = "purged"  #: ``Pool.purge`` took it out of the queue
    QUARANTINED = "quarantined"  #: it took down several workers in a row
    SKIPPED = "skipped"  #: it failed, and the pipeline that it was part of went on without it

    __hash__ = object.__hash__  # the base's is written in Python, and asked for each dropped task


class TaskState(enum.Enum):
    """The state of an unfinished task."""

    QUEUED = "queued"
    DELAYED = "delayed"  #: it waited for its time, or for another try after a failure
    RUNNING = "running"
    LEFT_BEHIND = "left behind"  #: it has ended, but a call that it made in a thread has not


class UnfinishedTask(NamedTuple):
    """A task that drain or close did not finish, with all that is needed to run it elsewhere."""

    fn: Callable[..., Any] | None  #: None in a pickled copy, and of a call left behind
    args: tuple[Any, ...]  #: its positional arguments; empty in a pickled copy
    kwargs: Mapping[str, Any]  #: its keyword arguments; empty in a pickled copy
    state: TaskState  #: whether it had begun, or even ended
    given_name: str | None = None  #: what the pool called it; None: its function's name
    worker: str | None = None  #: the worker's name, if it was running
    age: float | None = None  #: seconds it had been running
    stack: str = ""  #: the stack of its thread, if it was still running at the end
    items: int | None = None  #: of a stream: how many items it had yielded

    @property
    def name(self) -> str:
        """The name given by ``options(name=...)``, else the function's."""
        return describe(self.fn, self.given_name)

    def __reduce__(self) -> tuple[Any, ...]:
        facts = (self.state, self.name, self.worker, self.age, self.stack, self.items)
        return UnfinishedTask, (None, (), {}, *facts)


@dataclass(frozen=True, slots=True, weakref_slot=True)
class DrainReport:
    """How a drain or a close went."""

    completed: int  #: tasks that returned since it began
    failed: int  #: tasks that raised since it began
    panicked: int  #: tasks that took their worker down since it began
    cancelled: tuple[UnfinishedTask, ...]  #: never started, or ended when they were cancelled
    running: tuple[UnfinishedTask, ...]  #: still running at the end, and abandoned or left behind
    elapsed: float  #: seconds that it took

    @property
    def unfinished(self) -> tuple[UnfinishedTask, ...]:
        """Everything that was accepted and not finished."""
        return self.cancelled + self.running

    def __str__(self) -> str:
        stuck = ", ".join(printable(_in_words(task)) for task in self.running)
        return (
            f"{self.completed} completed, {self.failed} failed, {self.panicked} panicked, "
            f"{len(self.cancelled)} cancelled, {len(self.running)} still running"
            + (f": {stuck}" if stuck else "")
            + f" after {self.elapsed:.3f} s"
        )


def _in_words(task: UnfinishedTask) -> str:
    after = "" if task.items is None else f", after {task.items} items"
    return f"{task.name} ({task.worker}{after})"


@dataclass(frozen=True, slots=True)
class WorkerDeath:
    """The loss of one worker to a task."""

    worker: str  #: the worker's name
    error: BaseException  #: what the task raised, or how its worker was lost
    at: float  #: when: a moment of the pool's clock
    age: float  #: seconds that the task had been running


class CircuitState(enum.Enum):
    """The states of a circuit breaker: see :mod:`ion_actors.circuit.machine`."""

    CLOSED = "closed"  #: calls go through
    OPEN = "open"  #: calls are turned away
    HALF_OPEN = "half_open"  #: a few calls at a time go through, as trials


class ChildState(enum.Enum):
    """Where a supervised child is in its life."""

    WAITING = "waiting"  #: it is to be started, after others
    STARTING = "starting"  #: it is being started
    RUNNING = "running"  #: it has started
    DOWN = "down"  #: it has ended, and the supervisor is busy with something else
    RESTARTING = "restarting"  #: it could not be started and will be tried again
    STOPPING = "stopping"  #: it was asked to stop
    ENDED = "ended"  #: it is not running and is not restarted for its own sake
