"""What a pool tells of itself: at its end, after a panic, and while it works.

A dump is for debugging, and to find tasks that are stuck.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ion_actors.facts import DrainReport, TaskState, UnfinishedTask, WorkerDeath
from ion_actors.naming import printable
from ion_actors.workerpool.model.metrics import PoolState
from ion_actors.workerpool.model.outcomes import Directive
from ion_actors.workerpool.model.tables import Cell, Folded, table

__all__ = [
    "DelayedTask",
    "DrainReport",
    "Panic",
    "PoolDump",
    "QueuedTask",
    "StuckTask",
    "TaskState",
    "UnfinishedTask",
    "WorkerDeath",
    "WorkerDump",
]


_SHOWN = 20  # delayed tasks in the text of a dump


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
class StuckTask:
    """A task that has been running for longer than ``stuck_after``."""

    pool: str  #: the pool's name
    worker: str  #: the worker's name
    task: str  #: the task's name
    age: float  #: seconds that it has been running
    stack: str  #: where it is, as in a traceback; empty if it could not be seen
    replaced: bool  #: another worker has taken its worker's place


@dataclass(frozen=True, slots=True)
class QueuedTask:
    """A task that waits in the queue: what :meth:`Pool.queued` returns."""

    name: str  #: given by ``options(name=...)``, else the function's
    #: Seconds since it was accepted. With more than 32 waiting, up to 32 share that of the first.
    age: float
    key: Hashable | None = None  #: as it was given, or an equal one
    key_limit: int | None = None  #: how many of its key may run while it does; None without a key
    priority: int = 0
    due_in: float | None = None  #: seconds until its time comes; None if that is no hindrance
    expires_in: float | None = None  #: seconds until its ``ttl`` is over; None if it has none
    deadline: float | None = None  #: the moment of the pool's clock at which it ends unstarted
    #: Its positional and keyword arguments; None unless they were asked for
    args: tuple[Any, ...] | None = field(default=None, repr=False, compare=False)
    kwargs: Mapping[str, Any] | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class WorkerDump:
    """One worker of a :class:`PoolDump`."""

    name: str
    task: str | None  #: what it is at; None if it is idle, or has not begun
    age: float | None  #: seconds that it has been at it
    interrupted: tuple[str, ...]  #: the tasks that wait below that one, the outermost first
    #: where it is, as in a traceback, or why that is not known; empty if it is idle, or not seen
    stack: str
    starting: bool = False  #: its initializer runs, or its child process is being started
    pid: int | None = None  #: its child process; None if its tasks run in this one


@dataclass(frozen=True, slots=True)
class DelayedTask:
    """A task of a :class:`PoolDump` that may not begin yet."""

    name: str
    due_in: float  #: seconds until it may
    tries: int  #: how often it has failed
    error: str  #: the last time, with this; empty if it has not begun

    def __str__(self) -> str:
        failed = f"; {self.tries} failed, the last one with {self.error}" if self.tries else ""
        return printable(f"{self.name!r} waits for {self.due_in:.3f} s{failed}")


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
    delayed: tuple[DelayedTask, ...] = ()  #: of those that are queued, in the order of their time
    paused: bool = False  #: no queued task begins

    def __str__(self) -> str:
        return "\n".join([self._head(), *map(_in_words, self.workers), *self._more()])

    def _repr_html_(self) -> str:
        head = ["worker", "task", "seconds", "where"]
        return table(self._head(), head, map(_in_cells, self.workers), map(str.strip, self._more()))

    def _head(self) -> str:
        state = "paused" if self.paused else self.state.value
        return (
            f"pool {self.name!r} is {state}: {self.size} workers, "
            f"{self.queued} of {self.queue_size} tasks queued, {self.waiting} submitters waiting"
        )

    def _more(self) -> list[str]:
        left = [f"  {name!r} has ended, and left a call running" for name in self.left_behind]
        waiting = [f"  {one}" for one in self.delayed[:_SHOWN]]
        if (more := len(self.delayed) - _SHOWN) > 0:
            waiting.append(f"  {more} more wait for their time")
        return [*left, *waiting]


def _in_cells(worker: WorkerDump) -> list[Cell]:
    if worker.task is None:
        return [worker.name, "idle", "", ""]
    tasks = ", on top of ".join([worker.task, *reversed(worker.interrupted)])
    return [worker.name, tasks, worker.age or 0.0, Folded(worker.stack)]


def _in_words(worker: WorkerDump) -> str:
    stack = "\n".join(f"    {line}" for line in worker.stack.splitlines())
    return f"  {worker.name}: {_state(worker)}\n{stack}".rstrip()


def _state(worker: WorkerDump) -> str:
    if worker.task is None:
        return "starting" if worker.starting else "idle"
    where = "" if worker.pid is None else f" in process {worker.pid}"
    below = "".join(f", on top of {name!r}" for name in reversed(worker.interrupted))
    return f"{worker.task!r} for {worker.age:.3f} s{where}{below}"
