"""Every error that ion_actors itself raises.

::

    IonError
    ├── ContextEnded                  a context has ended, and with it what ran or waited under it
    │   ├── Cancelled                 + concurrent.futures.CancelledError
    │   │   ├── TaskAbandoned         the task did not end in time; its thread goes on alone
    │   │   └── TaskDropped           the pool dropped a queued task
    │   │       └── TaskExpired       + TimeoutError; it waited longer than its ttl
    │   └── DeadlineExceeded          + TimeoutError
    │       └── AcquireTimeout        a semaphore had no free permits in time
    ├── QueueFull                     + queue.Full
    ├── PoolClosed                    + RuntimeError
    │   └── PoolForked                the pool's threads stayed behind in the parent process
    ├── BrokenPool                    + concurrent.futures.BrokenExecutor
    ├── TaskPanicked                  + RuntimeError
    │   ├── TaskOutOfMemory           + MemoryError; its child process held too much
    │   └── TaskQuarantined           it panicked on every attempt
    ├── TaskNotPicklable              + pickle.PicklingError, TypeError
    ├── RemoteError                   + RuntimeError; replaces an error that cannot be rebuilt here
    ├── WorkerDied                    + ChildProcessError; the process that ran a task has ended
    ├── DeadlockError                 + RuntimeError; tasks wait for each other in a circle
    ├── DrainTimeout                  + TimeoutError
    ├── SupervisorFailed              + RuntimeError
    ├── SupervisorForked              + RuntimeError; its threads stayed behind in the parent
    ├── ChildStartFailed              + RuntimeError
    ├── ChildUnavailable              + LookupError
    ├── CircuitOpen                   + RuntimeError
    ├── WeightExceedsCapacity         + ValueError
    ├── OverReleased                  + ValueError
    ├── StorageUnavailable            + ConnectionError
    ├── RateLimited                   + TimeoutError
    │   └── RateLimitedPastDeadline   + DeadlineExceeded
    └── FutureAlreadySet              + concurrent.futures.InvalidStateError, queue.Full

    RemotePanic                       as RemoteError, for a BaseException that is no Exception

Each derives from the exception that Python programs already catch in that situation, names the
object concerned, and can be pickled with its attributes.
"""

from __future__ import annotations

import concurrent.futures
import math
import queue
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from pickle import PicklingError

    from ion_actors.facts import (
        ChildState,
        CircuitState,
        DrainReport,
        DropReason,
        WorkerDeath,
    )
else:  # the same class; the rest of the module is not needed here, and takes a while to import
    from _pickle import PicklingError

__all__ = [
    "AcquireTimeout",
    "BrokenPool",
    "Cancelled",
    "ChildStartFailed",
    "ChildUnavailable",
    "CircuitOpen",
    "ContextEnded",
    "DeadlineExceeded",
    "DeadlockError",
    "DrainTimeout",
    "FutureAlreadySet",
    "IonError",
    "OverReleased",
    "PoolClosed",
    "PoolForked",
    "QueueFull",
    "RateLimited",
    "RateLimitedPastDeadline",
    "RemoteError",
    "RemotePanic",
    "StorageUnavailable",
    "SupervisorFailed",
    "SupervisorForked",
    "TaskAbandoned",
    "TaskDropped",
    "TaskExpired",
    "TaskNotPicklable",
    "TaskOutOfMemory",
    "TaskPanicked",
    "TaskQuarantined",
    "WeightExceedsCapacity",
    "WorkerDied",
]


def _rebuild(cls: type[IonError], args: tuple[Any, ...], state: dict[str, Any]) -> IonError:
    error: IonError = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class IonError(Exception):
    """The root of the tree: ``except IonError`` catches all of the above."""

    # Exceptions pickle by calling their class with `args`, which fails for a constructor with
    # keywords. Rebuilding without the constructor works for every subclass alike.
    def __reduce__(self) -> tuple[Callable[..., IonError], tuple[Any, ...]]:
        return _rebuild, (type(self), self.args, self.__dict__)


class ContextEnded(IonError):
    """The context of this task or wait has ended.

    Attributes:
        reason: why, in words.
        task: the name of the task; None if it was no task.
    """

    def __init__(self, reason: str = "the context was cancelled", *, task: str | None = None):
        super().__init__(reason)
        self.reason = reason
        self.task = task


class Cancelled(ContextEnded, concurrent.futures.CancelledError):
    """A future or a context was cancelled."""


class TaskAbandoned(Cancelled):
    """A task was still running at the deadline of a drain or a close.

    Its thread goes on, and its result is ignored.

    Attributes:
        age: seconds that the task had been running.
        stack: the stack of its thread, formatted as a traceback; empty if it could not be read.
    """

    def __init__(self, reason: str, *, task: str, age: float, stack: str = ""):
        super().__init__(reason, task=task)
        self.age = age
        self.stack = stack

    def __str__(self) -> str:
        return f"{self.reason}\n{self.stack}" if self.stack else self.reason


class TaskDropped(Cancelled):
    """The pool dropped a task from its mailbox: for lack of room or time, or at the pool's end.

    Attributes:
        why: the rule that applied.
        retry_after: as in :class:`QueueFull`, if the task was dropped because of overload.
    """

    def __init__(
        self, reason: str, *, task: str, why: DropReason, retry_after: float | None = None
    ):
        super().__init__(reason, task=task)
        self.why = why
        self.retry_after = retry_after


class TaskExpired(TaskDropped, TimeoutError):
    """The task waited in the mailbox longer than its ``ttl``, so it was not run.

    Attributes:
        ttl: the seconds that it was allowed to wait.
    """

    def __init__(self, reason: str, *, task: str, why: DropReason, ttl: float):
        super().__init__(reason, task=task, why=why)
        self.ttl = ttl


class DeadlineExceeded(ContextEnded, TimeoutError):
    """The deadline of a context, or the time limit of a task, has passed."""

    def __init__(self, reason: str = "the deadline has passed", *, task: str | None = None):
        super().__init__(reason, task=task)


class AcquireTimeout(DeadlineExceeded):
    """A semaphore had no free permits within the caller's timeout.

    Attributes:
        semaphore: the semaphore's name.
        permits: how many were requested.
        timeout: the seconds that the caller waited.
    """

    def __init__(self, reason: str, *, semaphore: str, permits: int, timeout: float):
        super().__init__(reason)
        self.semaphore = semaphore
        self.permits = permits
        self.timeout = timeout


class QueueFull(IonError, queue.Full):
    """The mailbox is full, and the caller did not want to wait.

    Attributes:
        pool: the pool's name.
        queue_size: how many tasks may wait there.
        retry_after: seconds until the tasks that are queued now will have begun, at the pool's
            recent pace while it was full; None if it has not been full for long enough to know.
            The first place comes free earlier, but every refused caller competes for it.
    """

    def __init__(self, pool: str, queue_size: int, *, retry_after: float | None = None):
        super().__init__(
            f"pool {pool!r} is full: {queue_size} tasks are waiting and no worker is idle; "
            "use submit() to wait for room, or try again later"
        )
        self.pool = pool
        self.queue_size = queue_size
        self.retry_after = retry_after


class PoolClosed(IonError, RuntimeError):
    """The pool no longer accepts tasks.

    Attributes:
        pool: the pool's name.
    """

    def __init__(self, message: str, *, pool: str):
        super().__init__(message)
        self.pool = pool


class PoolForked(PoolClosed):
    """This process is a fork: the pool and its threads belong to the parent process."""


class BrokenPool(IonError, concurrent.futures.BrokenExecutor):
    """The pool gave up on its workers; the chained cause is the error that they failed with.

    Attributes:
        pool: the pool's name.
    """

    def __init__(self, message: str, *, pool: str):
        super().__init__(message)
        self.pool = pool


class TaskPanicked(IonError, RuntimeError):
    """A task took its worker down; the original error is the ``__cause__``.

    Attributes:
        task: the task's name.
        worker: the name of the worker that was replaced.
    """

    def __init__(self, message: str, *, task: str, worker: str):
        super().__init__(message)
        self.task = task
        self.worker = worker


class TaskOutOfMemory(TaskPanicked, MemoryError):
    """A task was ended, since its child process held more than ``max_memory_per_child``.

    It is not tried again, unless ``options(retry=Retry(on=TaskOutOfMemory))`` says so.

    Attributes:
        limit: how many bytes of resident memory the child may hold.
        peak: how many it held, at most. What earlier tasks have left there counts.
    """

    def __init__(self, message: str, *, task: str, worker: str, limit: int, peak: int):
        super().__init__(message, task=task, worker=worker)
        self.limit = limit
        self.peak = peak


class TaskNotPicklable(IonError, PicklingError, TypeError):
    """Part of a task cannot be pickled for the worker's process, or back; only that task failed.

    Attributes:
        task: the task's name.
        what: the part: "the function", "argument 2", "argument 'key'", "the result".
        shown: the repr of that part, shortened; may be empty.
    """

    def __init__(self, message: str, *, task: str, what: str, shown: str = ""):
        super().__init__(message)
        self.task = task
        self.what = what
        self.shown = shown


class RemoteError(IonError, RuntimeError):
    """Replaces an exception of a worker's process that cannot be pickled, or not be rebuilt.

    Attributes:
        type_name: the name of its class, with the module.
        message: its message.
    """

    def __init__(self, message: str, *, type_name: str):
        super().__init__(f"{type_name}: {message}")
        self.type_name = type_name
        self.message = message


class RemotePanic(BaseException):
    """As :class:`RemoteError`, for what is not an ``Exception``, so that it remains a panic.

    Attributes:
        type_name: the name of its class, with the module.
        message: its message.
    """

    def __init__(self, message: str, *, type_name: str):
        super().__init__(f"{type_name}: {message}")
        self.type_name = type_name
        self.message = message

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args, vars(self))


class TaskQuarantined(TaskPanicked):
    """A task took down several workers in a row, and is not tried again.

    Attributes:
        history: one :class:`~ion_actors.WorkerDeath` for each worker, in the order of time.
    """

    def __init__(self, message: str, *, task: str, worker: str, history: tuple[WorkerDeath, ...]):
        super().__init__(message, task=task, worker=worker)
        self.history = history


class WorkerDied(IonError, ChildProcessError):
    """The child process, or the Ray actor, that ran a task died, or was killed.

    Attributes:
        worker: the name of the worker whose child it was.
        pid: the child's process id; None if it was never started.
        exitcode: its exit code; if negative, the number of the signal that killed it; None if
            unknown.
        signal: the name of that signal, such as ``"SIGSEGV"``; None if there was none.
        memory_limit: how many bytes it may hold, if it was ended since it held more; else None.
        memory_peak: how many bytes it held then, at most; else None.
        last_words: its last output, such as the stack from ``faulthandler``; may be empty. Each
            line but the first is indented, so that none looks like a line of a log.
        node: the machine that it was on, if that may be another one; else None.
        actor_id: Ray's id of the actor; None if it was none.
    """

    def __init__(
        self,
        message: str,
        *,
        worker: str,
        pid: int | None = None,
        exitcode: int | None = None,
        signal: str | None = None,
        last_words: str = "",
        memory_limit: int | None = None,
        memory_peak: int | None = None,
        node: str | None = None,
        actor_id: str | None = None,
    ):
        super().__init__(message)
        self.worker = worker
        self.node = node
        self.actor_id = actor_id
        self.pid = pid
        self.exitcode = exitcode
        self.signal = signal
        self.last_words = last_words
        self.memory_limit = memory_limit
        self.memory_peak = memory_peak

    def __str__(self) -> str:
        message = str(self.args[0])
        return f"{message}\n    {self.last_words}" if self.last_words else message


class DeadlockError(IonError, RuntimeError):
    """This wait would never end: it would close a circle of tasks that wait for each other.

    Attributes:
        tasks: the names of the waiting tasks, beginning with the one that gets this error.
    """

    def __init__(self, message: str, *, tasks: tuple[str, ...]):
        super().__init__(message)
        self.tasks = tasks


class DrainTimeout(IonError, TimeoutError):
    """The deadline of a drain passed before all tasks had ended.

    Attributes:
        report: what was done, and the unfinished tasks with their functions and arguments.
    """

    def __init__(self, message: str, *, report: DrainReport):
        super().__init__(message)
        self.report = report


class SupervisorFailed(IonError, RuntimeError):
    """A supervisor gave up: a child had to be restarted too often. The cause is its last error.

    Attributes:
        supervisor: the supervisor's name.
        child: the id of that child; None if the supervisor itself failed.
    """

    def __init__(self, message: str, *, supervisor: str, child: str | None):
        super().__init__(message)
        self.supervisor = supervisor
        self.child = child


class SupervisorForked(IonError, RuntimeError):
    """This process is a fork: the supervisor and its children belong to the parent process.

    Attributes:
        supervisor: the supervisor's name.
    """

    def __init__(self, message: str, *, supervisor: str):
        super().__init__(message)
        self.supervisor = supervisor


class ChildStartFailed(IonError, RuntimeError):
    """A supervisor could not start all its children, and has stopped those that had started.

    Attributes:
        supervisor: the supervisor's name.
        child: the id of the child that did not start; the chained cause is the reason.
    """

    def __init__(self, message: str, *, supervisor: str, child: str):
        super().__init__(message)
        self.supervisor = supervisor
        self.child = child


class ChildUnavailable(IonError, LookupError):
    """A supervised child is not running now; it may be restarted soon.

    Attributes:
        supervisor: the supervisor's name.
        child: the child's id.
        state: the state of the child.
    """

    def __init__(self, message: str, *, supervisor: str, child: str, state: ChildState):
        super().__init__(message)
        self.supervisor = supervisor
        self.child = child
        self.state = state


class CircuitOpen(IonError, RuntimeError):
    """A circuit breaker rejected the call; nothing was attempted.

    It is not a ``ConnectionError`` on purpose: code that catches that to retry at once would do
    exactly what the breaker is there to prevent.

    Attributes:
        name: the breaker's name.
        state: OPEN, or HALF_OPEN when all its trial slots are taken.
        retry_after: seconds until a call makes sense again; ``math.inf`` if the breaker stays open
            until it is reset.
    """

    def __init__(self, name: str, state: CircuitState, retry_after: float):
        super().__init__(name, state, retry_after)
        self.name = name
        self.state = state
        self.retry_after = retry_after

    # The text is made only when somebody reads it: a rejection should cost next to nothing.
    def __str__(self) -> str:
        until = (
            "it is reset"
            if math.isinf(self.retry_after)
            else f"{self.retry_after:.3g} s have passed"
        )
        return (
            f"circuit {self.name!r} is {self.state.value.replace('_', '-')}; "
            f"calls are rejected until {until}"
        )


class WeightExceedsCapacity(IonError, ValueError):
    """More permits were requested than the semaphore has; the wait would never end.

    Attributes:
        semaphore: the semaphore's name.
        permits: how many were requested.
        capacity: how many there are.
    """

    def __init__(self, semaphore: str, permits: int, capacity: int):
        super().__init__(
            f"semaphore {semaphore!r} has {capacity} permits; {permits} can never be acquired"
        )
        self.semaphore = semaphore
        self.permits = permits
        self.capacity = capacity


class OverReleased(IonError, ValueError):
    """More permits were to be released than are held; nothing was released.

    Attributes:
        semaphore: the semaphore's name.
        permits: how many were to be released.
        held: how many were held.
    """

    def __init__(self, semaphore: str, permits: int, held: int):
        super().__init__(
            f"semaphore {semaphore!r}: {permits} permits were to be released, {held} are held"
        )
        self.semaphore = semaphore
        self.permits = permits
        self.held = held


class StorageUnavailable(IonError, ConnectionError):
    """The storage of a shared limit did not answer; the cause is chained.

    It is unknown whether the call was within the limit.

    Attributes:
        key: the key of the limit.
        kind: how it failed: "unreachable" (also: no answer in time), "authentication" (a wrong
            password, or no permission), "read_only", "out_of_memory", "script" (it cannot run the
            scripts that count), "cluster" (it is being reconfigured), "refused" (any other error
            of its own) or "other".
    """

    def __init__(self, message: str, *, key: str, kind: str = "other"):
        super().__init__(message)
        self.key = key
        self.kind = kind


class RateLimited(IonError, TimeoutError):
    """A rate limiter cannot let the call through within the time that it may wait.

    Attributes:
        limiter: the limiter's name.
        retry_after: seconds until there can be enough tokens, as far as is known; None if there
            never will be, since the rate is zero or the burst too small.
        is_global: whether the exhausted limit is the one for everything.
        bucket: the exhausted bucket, if the limiter has several.
        remaining: whole tokens in that bucket.
        limit: how many tokens that bucket holds.
    """

    def __init__(
        self,
        message: str,
        *,
        limiter: str,
        retry_after: float | None = None,
        is_global: bool = False,
        bucket: str | None = None,
        remaining: int | None = None,
        limit: int | None = None,
    ):
        super().__init__(message)
        self.limiter = limiter
        self.retry_after = retry_after
        self.is_global = is_global
        self.bucket = bucket
        self.remaining = remaining
        self.limit = limit

    @property
    def is_retryable(self) -> bool:
        """Whether a later try makes sense: False if there can never be enough tokens."""
        return self.retry_after is not None


class RateLimitedPastDeadline(RateLimited, DeadlineExceeded):
    """The same, where the deadline of the context would pass first."""


class FutureAlreadySet(IonError, concurrent.futures.InvalidStateError, queue.Full):
    """A future already has its outcome; it takes only one.

    (pykka raises ``queue.Full`` here, ``concurrent.futures`` raises ``InvalidStateError``.)
    """
