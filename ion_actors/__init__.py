"""ion_actors: a supervised pool of actors behind the futures API.

Start at :class:`Pool`.

Packages and modules, from the top down::

    __main__       python -m ion_actors
    dashboard/     look inside a running program
    testing/       tools for tests of concurrent code, for users' tests as well
    executors/     the executors of concurrent.futures, as pools: a change of one import
    supervision/   trees of pools, actors and supervisors
    pipeline/      chains of stages that are worked by pools
    workerpool/    the pool
    backends/      where a worker runs its tasks
    adaptive/      limits that find themselves
    semaphore/     limits what is used at the same time
    ratelimit/     limits how fast calls are made
    circuit/       stops calling what keeps failing
    timers/        messages to actors that are sent later
    observe/       hooks: logs, metrics, traces
    futures/       the future: of concurrent.futures and of pykka at once
    context/       contexts: cancellation and deadlines
    actors/        the one place that knows pykka's internals
    wrapping       wrappers around any kind of function, as for tasks
    clock          time and timers, replaceable in tests
    errors         every error that the library raises
    facts          what errors carry: states, reasons, reports
    keys           keys from users, whose comparison may take any time
    logs           the library's log records
    delivery       calls that another thread makes later, where they may block
    standby        has waiting threads do the library's work where no thread can be started
    forking        hooks that run in forked children
    interruption   exceptions that are thrown into a thread from outside
    awaitables     whether a call returned a result, or something that has yet to run
    own_variables  which context variables tasks and threads begin with
    raised         reading exceptions without running their code
    naming         safe names of users' objects, for logs and errors
    _arguments     checks of arguments
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ion_actors.actors.stateful import Worker
    from ion_actors.backends.asyncio import AsyncioBackend
    from ion_actors.backends.process import ProcessBackend
    from ion_actors.backends.ray import RayBackend
    from ion_actors.context import Context, background, current_context
    from ion_actors.dashboard.overview import Snapshot, snapshot
    from ion_actors.errors import (
        AcquireTimeout,
        BrokenPool,
        Cancelled,
        ChildStartFailed,
        ChildUnavailable,
        CircuitOpen,
        ContextEnded,
        DeadlineExceeded,
        DeadlockError,
        DrainTimeout,
        FutureAlreadySet,
        IonError,
        OverReleased,
        PoolClosed,
        PoolForked,
        QueueFull,
        RateLimited,
        RateLimitedPastDeadline,
        RemoteError,
        RemotePanic,
        StorageUnavailable,
        SupervisorFailed,
        SupervisorForked,
        TaskAbandoned,
        TaskDropped,
        TaskExpired,
        TaskNotPicklable,
        TaskOutOfMemory,
        TaskPanicked,
        TaskQuarantined,
        WeightExceedsCapacity,
        WorkerDied,
    )
    from ion_actors.futures import Future, Output, Progress, report_progress
    from ion_actors.timers import Reminder, tell_after
    from ion_actors.workerpool.mailbox.dead_letters import DeadLetter, DeadLetters
    from ion_actors.workerpool.messages import (
        Broadcast,
        Close,
        Drain,
        GetMetrics,
        GetState,
        Resize,
        Submit,
        TrySubmit,
    )
    from ion_actors.workerpool.model.backoff import Backoff
    from ion_actors.workerpool.model.metrics import PoolMetrics, PoolState
    from ion_actors.workerpool.model.outcomes import Directive, DropReason
    from ion_actors.workerpool.model.overflow import CoDel, Overflow
    from ion_actors.workerpool.model.recovery import PanicRecovery
    from ion_actors.workerpool.model.reports import (
        DelayedTask,
        DrainReport,
        Panic,
        PoolDump,
        QueuedTask,
        StuckTask,
        TaskState,
        UnfinishedTask,
        WorkerDeath,
        WorkerDump,
    )
    from ion_actors.workerpool.model.retry import Retry
    from ion_actors.workerpool.pool import Pool
    from ion_actors.workerpool.proxy import WorkerProxy, worker_method
    from ion_actors.workerpool.snapshot import PoolSnapshot
    from ion_actors.workerpool.submission.stream import Stream
    from ion_actors.workerpool.submission.submitter import Submitter

__all__ = [
    "AcquireTimeout",
    "AsyncioBackend",
    "Backoff",
    "Broadcast",
    "BrokenPool",
    "Cancelled",
    "ChildStartFailed",
    "ChildUnavailable",
    "CircuitOpen",
    "Close",
    "CoDel",
    "Context",
    "ContextEnded",
    "DeadLetter",
    "DeadLetters",
    "DeadlineExceeded",
    "DeadlockError",
    "DelayedTask",
    "Directive",
    "Drain",
    "DrainReport",
    "DrainTimeout",
    "DropReason",
    "Future",
    "FutureAlreadySet",
    "GetMetrics",
    "GetState",
    "IonError",
    "Output",
    "OverReleased",
    "Overflow",
    "Panic",
    "PanicRecovery",
    "Pool",
    "PoolClosed",
    "PoolDump",
    "PoolForked",
    "PoolMetrics",
    "PoolSnapshot",
    "PoolState",
    "ProcessBackend",
    "Progress",
    "QueueFull",
    "QueuedTask",
    "RateLimited",
    "RateLimitedPastDeadline",
    "RayBackend",
    "Reminder",
    "RemoteError",
    "RemotePanic",
    "Resize",
    "Retry",
    "Snapshot",
    "StorageUnavailable",
    "Stream",
    "StuckTask",
    "Submit",
    "Submitter",
    "SupervisorFailed",
    "SupervisorForked",
    "TaskAbandoned",
    "TaskDropped",
    "TaskExpired",
    "TaskNotPicklable",
    "TaskOutOfMemory",
    "TaskPanicked",
    "TaskQuarantined",
    "TaskState",
    "TrySubmit",
    "UnfinishedTask",
    "WeightExceedsCapacity",
    "Worker",
    "WorkerDeath",
    "WorkerDied",
    "WorkerDump",
    "WorkerProxy",
    "background",
    "current_context",
    "report_progress",
    "snapshot",
    "tell_after",
    "worker_method",
]

#: The version of this library, as installers know it.
__version__ = "0.1.0"

# Each name is imported when it is first used: a program that uses a rate limiter does not load
# the pool. The table is what type checkers see above; a test compares them.
_HOMES = {
    "AcquireTimeout": "errors",
    "AsyncioBackend": "backends.asyncio",
    "Backoff": "workerpool.model.backoff",
    "Broadcast": "workerpool.messages",
    "BrokenPool": "errors",
    "Cancelled": "errors",
    "ChildStartFailed": "errors",
    "ChildUnavailable": "errors",
    "CircuitOpen": "errors",
    "Close": "workerpool.messages",
    "CoDel": "workerpool.model.overflow",
    "Context": "context",
    "ContextEnded": "errors",
    "DeadLetter": "workerpool.mailbox.dead_letters",
    "DeadLetters": "workerpool.mailbox.dead_letters",
    "DeadlineExceeded": "errors",
    "DeadlockError": "errors",
    "DelayedTask": "workerpool.model.reports",
    "Directive": "workerpool.model.outcomes",
    "Drain": "workerpool.messages",
    "DrainReport": "workerpool.model.reports",
    "DrainTimeout": "errors",
    "DropReason": "workerpool.model.outcomes",
    "Future": "futures",
    "FutureAlreadySet": "errors",
    "GetMetrics": "workerpool.messages",
    "GetState": "workerpool.messages",
    "IonError": "errors",
    "Output": "futures",
    "OverReleased": "errors",
    "Overflow": "workerpool.model.overflow",
    "Panic": "workerpool.model.reports",
    "PanicRecovery": "workerpool.model.recovery",
    "Pool": "workerpool.pool",
    "PoolClosed": "errors",
    "PoolDump": "workerpool.model.reports",
    "PoolForked": "errors",
    "PoolMetrics": "workerpool.model.metrics",
    "PoolSnapshot": "workerpool.snapshot",
    "PoolState": "workerpool.model.metrics",
    "ProcessBackend": "backends.process",
    "Progress": "futures",
    "QueueFull": "errors",
    "QueuedTask": "workerpool.model.reports",
    "RateLimited": "errors",
    "RateLimitedPastDeadline": "errors",
    "RayBackend": "backends.ray",
    "Reminder": "timers",
    "RemoteError": "errors",
    "RemotePanic": "errors",
    "Resize": "workerpool.messages",
    "Retry": "workerpool.model.retry",
    "Snapshot": "dashboard.overview",
    "StorageUnavailable": "errors",
    "Stream": "workerpool.submission.stream",
    "StuckTask": "workerpool.model.reports",
    "Submit": "workerpool.messages",
    "Submitter": "workerpool.submission.submitter",
    "SupervisorFailed": "errors",
    "SupervisorForked": "errors",
    "TaskAbandoned": "errors",
    "TaskDropped": "errors",
    "TaskExpired": "errors",
    "TaskNotPicklable": "errors",
    "TaskOutOfMemory": "errors",
    "TaskPanicked": "errors",
    "TaskQuarantined": "errors",
    "TaskState": "workerpool.model.reports",
    "TrySubmit": "workerpool.messages",
    "UnfinishedTask": "workerpool.model.reports",
    "WeightExceedsCapacity": "errors",
    "Worker": "actors.stateful",
    "WorkerDeath": "workerpool.model.reports",
    "WorkerDied": "errors",
    "WorkerDump": "workerpool.model.reports",
    "WorkerProxy": "workerpool.proxy",
    "background": "context",
    "current_context": "context",
    "report_progress": "futures",
    "snapshot": "dashboard.overview",
    "tell_after": "timers",
    "worker_method": "workerpool.proxy",
}


if not TYPE_CHECKING:  # or type checkers would take any name for a name of this module

    def __getattr__(name: str) -> object:
        if (home := _HOMES.get(name)) is not None:
            value = getattr(importlib.import_module(f"{__name__}.{home}"), name)
            globals()[name] = value
            return value
        if name.isidentifier() and not name.startswith("_"):
            try:  # a package or a module, such as ion_actors.testing
                return importlib.import_module(f"{__name__}.{name}")
            except ModuleNotFoundError as error:
                if error.name != f"{__name__}.{name}":
                    raise
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
