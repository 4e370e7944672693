"""A pool at one moment, for those who look at it from outside: one structure that JSON can hold.

The facts are those of ``metrics()``, ``dump()`` and ``queued()``; nothing is measured here. All
texts are in one line, except for stacks, and are made without running the user's code: a name, a
key or an error may be anything.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ion_actors.backends.loop_threads import left_behind
from ion_actors.backends.stacks import Seen, Stack
from ion_actors.keys import Key
from ion_actors.naming import describe, printable
from ion_actors.raised import in_a_line, name_of
from ion_actors.workerpool.core import PoolCore, answers_until, work_of
from ion_actors.workerpool.mailbox.dead_letters import KeptLetter
from ion_actors.workerpool.mailbox.protocols import Performer
from ion_actors.workerpool.mailbox.task import TaskFuture
from ion_actors.workerpool.model.metrics import PoolState
from ion_actors.workerpool.spec import UNBOUNDED

__all__ = [
    "MOST_WAITING",
    "LostTask",
    "PoolSnapshot",
    "StuckWorker",
    "WaitingTask",
    "WorkerSnapshot",
    "as_json",
    "begin_snapshot",
    "in_short",
    "pool_id",
    "pool_snapshot",
]

MOST_WAITING = 50  #: tasks that are told one by one
_MOST_WORKERS = 250
_LONGEST = 300  # characters of a name or an error

# What may be shown by its repr. That of anything else may be the user's code.
_PLAIN = (str, int, float, bool, bytes, type(None))


@dataclass(frozen=True, slots=True)
class WorkerSnapshot:
    """A worker of a :class:`PoolSnapshot`."""

    name: str
    state: str  #: "idle", "busy", "starting", or "stuck": busy for longer than ``stuck_after``
    task: str | None  #: the name of its current task; None if it has none
    task_id: str | None  #: for the cancelling of that task; it stays the same while it lives
    age: float | None  #: seconds that it has been running that task
    interrupted: tuple[str, ...]  #: the tasks that wait below that one, the outermost first
    pid: int | None  #: its child process; None if its tasks run in this one
    stack: str  #: where the task is, as in a traceback, or why that is not known; empty if idle


@dataclass(frozen=True, slots=True)
class StuckWorker:
    """A worker of a :class:`PoolSnapshot` whose task runs for longer than ``stuck_after``."""

    worker: str
    task: str
    task_id: str
    age: float  #: seconds that it has been running
    stack: str


@dataclass(frozen=True, slots=True)
class WaitingTask:
    """A task of a :class:`PoolSnapshot` that waits in the queue."""

    id: str
    name: str
    age: float  #: seconds since it was accepted: see :attr:`QueuedTask.age`
    key: str | None  #: its key, if that is made of numbers and texts; else the name of its class
    priority: int
    due_in: float | None  #: seconds until its time comes; None if it may begin now
    tries: int  #: how often it has failed
    error: str  #: what it raised the last time; empty if it has not begun


@dataclass(frozen=True, slots=True)
class LostTask:
    """A dead letter of a :class:`PoolSnapshot`."""

    id: str
    name: str
    reason: str  #: a value of :class:`DropReason`
    age: float  #: seconds since it was given up
    error: str  #: what its future raises, in a line
    deaths: int  #: how many workers it took down


@dataclass(frozen=True, slots=True)
class PoolSnapshot:
    """A pool at one moment. Counts are in tasks, unless said otherwise.

    ``submitted = queued + running + completed + failed + panicked + cancelled``, always.
    """

    name: str
    id: str  #: of this pool among all of the process: names may be used twice
    state: str  #: "running", "draining" or "closed"
    paused: bool  #: no queued task begins
    broken: str  #: why it was given up, in a line; empty if it was not
    backend: str  #: where its tasks run: "thread", "process", or the name of a class
    size: int  #: workers that there are to be
    queue_size: int | None  #: that may wait; None for any number
    queued: int  #: waiting now, also those whose time has not come
    delayed: int  #: of those: waiting for their time, or for another try
    running: int
    waiting: int  #: submitters that wait for room
    submitted: int  #: accepted since the pool began
    completed: int  #: returned
    failed: int  #: raised an ``Exception``
    panicked: int  #: took their worker down
    cancelled: int  #: cancelled, timed out, dropped at the end, or abandoned
    rejected: int  #: refused submissions
    restarts: int  #: workers replaced
    retries: int  #: tries that were repeated
    dropped: Mapping[str, int] = field(hash=False)  #: how many the pool has given up, by reason
    stuck_after: float | None  #: seconds after which a task counts as stuck; None: none does
    queue_time: float | None  #: seconds that the oldest waiting task has waited; None if none does
    run_time: float | None  #: seconds that the oldest running task has run; None if none does
    workers: tuple[WorkerSnapshot, ...]  #: those that exist, the busy ones first; at most 250
    more_workers: int  #: how many are left out of ``workers``
    waiting_tasks: tuple[WaitingTask, ...]  #: the 50 oldest
    #: The latest 100, the oldest first. They are kept only while the program is published or
    #: served: see :mod:`ion_actors.dashboard`.
    dead_letters: tuple[LostTask, ...]
    stuck: tuple[StuckWorker, ...]  #: the workers whose state is "stuck", the longest first
    #: Tasks that have ended, and left a call running in a thread
    left_behind: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """The same as dicts, lists, texts and numbers."""
        found: dict[str, Any] = as_json(self)
        return found


def pool_snapshot(core: PoolCore, *, stacks: bool) -> PoolSnapshot:
    """The pool at this moment. It waits for the answers of child processes, if it has to."""
    return begin_snapshot(core, stacks=stacks)(answers_until() if stacks else 0.0)


def begin_snapshot(
    core: PoolCore, *, stacks: bool, waiting: int = MOST_WAITING
) -> Callable[[float], PoolSnapshot]:
    """Look at the pool now, and ask where its workers are; tell so many waiting tasks one by one.

    Returns:
        What makes the snapshot: it waits for answers until a moment of the system's clock.
    """
    numbers, state, now = core.metrics(), core.phase, core.spec.context.clock.monotonic()
    present = [] if core.forked else [(one, *work_of(one)[-1]) for one in list(core.workers)]
    present.sort(key=lambda one: math.inf if one[1] is None else one[2])
    asked = [(one, _stack(one, stacks)) for one in present[:_MOST_WORKERS]]
    queued = [] if core.forked else core.mailbox.map_queued(_copy_of, waiting)
    left = [] if core.forked else left_behind(core.spec.context)
    kept = [] if core.kept is None or core.forked else core.kept.all()

    def finish(until: float) -> PoolSnapshot:
        workers = [_worker(core, one, now, stack.text(until)) for one, stack in asked]
        tasks = [_waiting(one, now) for one in queued]
        return PoolSnapshot(
            name=in_short(core.spec.name),
            id=pool_id(core),
            state=state.value,
            paused=numbers.paused,
            broken=_why_broken(core),
            backend=_backend(core),
            size=numbers.size,
            queue_size=None if numbers.queue_size == UNBOUNDED else numbers.queue_size,
            queued=numbers.queued,
            delayed=numbers.delayed,
            running=numbers.running,
            waiting=0 if state is PoolState.CLOSED else core.mailbox.waiting,
            submitted=numbers.submitted,
            completed=numbers.completed,
            failed=numbers.failed,
            panicked=numbers.panicked,
            cancelled=numbers.cancelled,
            rejected=numbers.rejected,
            restarts=numbers.restarts,
            retries=numbers.retries,
            dropped={reason.value: count for reason, count in numbers.dropped.items()},
            stuck_after=core.spec.stuck_after,
            queue_time=max((one.age for one in tasks if one.due_in is None), default=None),
            run_time=max((one.age for one in workers if one.age is not None), default=None),
            workers=tuple(workers),
            more_workers=len(present) - len(workers),
            waiting_tasks=tuple(tasks),
            dead_letters=tuple(_lost(one, now) for one in kept),
            stuck=tuple(_stuck(one) for one in workers if one.state == "stuck"),
            left_behind=tuple(in_short(one.task) for one in left),
        )

    return finish


_Present = tuple[Performer, TaskFuture[Any] | None, float]


def _stack(present: _Present, wanted: bool) -> Stack:
    worker, task, _ = present
    return worker.where() if wanted and (task is not None or worker.starting) else Seen()


def _worker(core: PoolCore, present: _Present, now: float, stack: str) -> WorkerSnapshot:
    worker, task, began = present
    age = None if task is None else max(0.0, now - began)
    return WorkerSnapshot(
        name=in_short(worker.name),
        state=_state(worker, age, core.spec.stuck_after),
        task=None if task is None else in_short(task.task_name()),
        task_id=None if task is None else str(task.ticket),
        age=age,
        interrupted=tuple(
            in_short(one.task_name()) for one, _ in [*worker.interrupted] if one is not None
        ),
        pid=worker.pid,
        stack=stack,
    )


def _state(worker: Performer, age: float | None, stuck_after: float | None) -> str:
    if age is not None and stuck_after is not None and age >= stuck_after:
        return "stuck"
    if worker.starting:
        return "starting"
    return "idle" if age is None else "busy"


def _stuck(one: WorkerSnapshot) -> StuckWorker:
    return StuckWorker(one.name, one.task or "", one.task_id or "", one.age or 0.0, one.stack)


def _copy_of(task: TaskFuture[Any]) -> tuple[Any, ...]:
    # Under the mailbox's lock: as little as possible.
    return task, task.given_name, task.fn, task.key, task.queued_at, task.due


def _waiting(copied: tuple[Any, ...], now: float) -> WaitingTask:
    task, name, fn, key, queued_at, due = copied
    past = task.past_tries
    return WaitingTask(
        id=str(task.ticket),
        name=in_short(describe(fn, name)),
        age=0.0 if queued_at is None else max(0.0, now - queued_at),
        key=_shown_key(key.value) if type(key) is Key else None,
        priority=task.priority,
        due_in=None if due is None else max(0.0, due - now),
        tries=0 if past is None else past.count,
        error="" if past is None else in_short(past.last),
    )


def _lost(one: KeptLetter, now: float) -> LostTask:
    letter = one.letter
    return LostTask(
        id=str(one.number),
        name=in_short(letter.task),
        reason=letter.reason.value,
        age=max(0.0, now - letter.at),
        error=in_short(one.error),
        deaths=len(letter.history),
    )


def _why_broken(core: PoolCore) -> str:
    return "" if core.broken is None else in_short(in_a_line(core.broken))


def _backend(core: PoolCore) -> str:
    kind = name_of(type(core.spec.backend))
    return kind.removesuffix("Backend").lower() or kind


def pool_id(core: PoolCore) -> str:
    """What the pool is called among all of the process."""
    return f"@{core.number}"


def _shown_key(key: object) -> str:
    parts = key if type(key) is tuple else (key,)
    plain = (*_PLAIN, getattr(sys.modules.get("uuid"), "UUID", None))
    if all(type(one) in plain for one in parts):
        return in_short(repr(key))
    return f"<{in_short(name_of(type(key)))}>"


def in_short(text: str) -> str:
    """A text of anybody's, in one line and not too long."""
    if len(text) > _LONGEST:
        text = f"{str.__str__(text)[:_LONGEST]}..."
    return printable(text)


def as_json(value: Any) -> Any:
    """Dicts and lists for what is in a snapshot. Numbers that JSON does not have are None."""
    kind = type(value)
    if kind is str or kind is int or value is None:  # most are
        return value
    if kind is float:
        return value if math.isfinite(value) else None
    if kind is tuple:
        return [as_json(one) for one in value]
    if kind is dict:
        return {name: as_json(one) for name, one in value.items()}
    if (names := getattr(kind, "__dataclass_fields__", None)) is not None:
        return {name: as_json(getattr(value, name)) for name in names}
    return value
