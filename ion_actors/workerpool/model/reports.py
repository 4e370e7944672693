"""What a pool tells of itself: at its end, after a panic, and while it works.

A dump is for debugging, and to find tasks that are stuck.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import FunctionType
from typing import Any, NamedTuple

from ion_actors.naming import name_of, printable, unwrapped
from ion_actors.workerpool.model.metrics import PoolState
from ion_actors.workerpool.model.outcomes import Directive

__all__ = [
    "DrainReport",
    "Panic",
    "PoolDump",
    "StuckTask",
    "TaskState",
    "UnfinishedTask",
    "WorkerDeath",
    "WorkerDump",
    "Wrapping",
    "describe",
]


class TaskState(enum.Enum):
    """How far an unfinished task had come."""

    QUEUED = "queued"
    RUNNING = "running"
    LEFT_BEHIND = "left behind"  #: it has ended, but not a call that it made in a thread


class Wrapping:
    """A callable of this library's own around a user's ``func``, after which its task is called."""

    __slots__ = ("func",)

    func: Any


def describe(fn: Any, name: str | None = None) -> str:
    """The name of a task: the one it was given, else its function's. Runs no code of the user's."""
    if name is not None:
        return name
    while type(fn) is not FunctionType:
        if (inner := fn.func if issubclass(type(fn), Wrapping) else unwrapped(fn)) is None:
            return name_of(fn)
        fn = inner
    return fn.__qualname__


class UnfinishedTask(NamedTuple):
    """A task that drain or close did not finish, with what it takes to run it elsewhere."""

    fn: Callable[..., Any] | None  #: None in a pickled copy, and of what an ended task left behind
    args: tuple[Any, ...]  #: its positional arguments; empty in a pickled copy
    kwargs: Mapping[str, Any]  #: its keyword arguments; empty in a pickled copy
    state: TaskState  #: whether it had begun, or even ended
    given_name: str | None = None  #: what the pool called it; None: its function's name
    worker: str | None = None  #: the worker's name, if it was running
    age: float | None = None  #: seconds it had been running
    stack: str = ""  #: where its thread was, if it was still running at the end

    @property
    def name(self) -> str:
        """The name given by ``options(name=...)``, else the function's."""
        return describe(self.fn, self.given_name)

    def __reduce__(self) -> tuple[Any, ...]:
        facts = (self.state, self.name, self.worker, self.age, self.stack)
        return UnfinishedTask, (None, (), {}, *facts)


@dataclass(frozen=True, slots=True, weakref_slot=True)
class DrainReport:
    """How a drain or a close went."""

    completed: int  #: tasks that returned since it began
    failed: int  #: tasks that raised since it began
    panicked: int  #: tasks that took their worker down since it began
    cancelled: tuple[UnfinishedTask, ...]  #: never started, or stopped when they were asked to
    running: tuple[UnfinishedTask, ...]  #: still running at the end, and abandoned or left behind
    elapsed: float  #: seconds it took

    @property
    def unfinished(self) -> tuple[UnfinishedTask, ...]:
        """Everything that was accepted and not finished."""
        return self.cancelled + self.running

    def __str__(self) -> str:
        stuck = ", ".join(printable(f"{task.name} ({task.worker})") for task in self.running)
        return (
            f"{self.completed} completed, {self.failed} failed, {self.panicked} panicked, "
            f"{len(self.cancelled)} cancelled, {len(self.running)} still running"
            + (f": {stuck}" if stuck else "")
            + f" after {self.elapsed:.3f} s"
        )


@dataclass(frozen=True, slots=True)
class Panic:
    """What a panic handler is told."""

    pool: str  #: the pool's name
    worker: str  #: the name of the worker that the task took down
    task: str  #: the task's name
    error: BaseException  #: what the task raised, with its traceback
    restarts: int  #: workers this pool has replaced so far, this one included
    directive: Directive = Directive.RESTART  #: what becomes of the worker


@dataclass(frozen=True, slots=True)
class WorkerDeath:
    """One worker that a task took down."""

    worker: str  #: the worker's name
    error: BaseException  #: what the task raised, or how its worker was lost
    at: float  #: when: a moment of the pool's clock
    age: float  #: seconds that the task had been running


@dataclass(frozen=True, slots=True)
class StuckTask:
    """A task that has been running for longer than ``stuck_after``."""

    pool: str  #: the pool's name
    worker: str  #: the worker's name
    task: str  #: the task's name
    age: float  #: seconds that it has been running
    stack: str  #: where its thread is, as in a traceback; empty if it could not be seen
    replaced: bool  #: another worker has taken its worker's place


@dataclass(frozen=True, slots=True)
class WorkerDump:
    """One worker of a :class:`PoolDump`."""

    name: str
    task: str | None  #: what it is at; None if it is idle, or has not begun
    age: float | None  #: seconds that it has been at it
    interrupted: tuple[str, ...]  #: the tasks that wait below that one, the outermost first
    stack: str  #: where its thread is, as in a traceback; empty without a task, or if unseen


@dataclass(frozen=True, slots=True)
class PoolDump:
    """What a pool is at. ``str()`` makes a text for people of it."""

    name: str
    state: PoolState
    size: int  #: workers that there are to be
    queued: int  #: tasks that wait
    queue_size: int  #: tasks that may wait
    waiting: int  #: submitters that wait for room
    workers: tuple[WorkerDump, ...]  #: every one there is, also those that have not begun
    #: Tasks that have ended, but not a call that they made in a thread
    left_behind: tuple[str, ...] = ()

    def __str__(self) -> str:
        head = (
            f"pool {self.name!r} is {self.state.value}: {self.size} workers, "
            f"{self.queued} of {self.queue_size} tasks queued, {self.waiting} submitters waiting"
        )
        left = [f"  {name!r} has ended, and left a call running" for name in self.left_behind]
        return "\n".join([head, *map(_in_words, self.workers), *left])


def _in_words(worker: WorkerDump) -> str:
    if worker.task is None:
        return f"  {worker.name}: idle"
    below = "".join(f", on top of {name!r}" for name in reversed(worker.interrupted))
    stack = "\n".join(f"    {line}" for line in worker.stack.splitlines())
    return f"  {worker.name}: {worker.task!r} for {worker.age:.3f} s{below}\n{stack}".rstrip()
