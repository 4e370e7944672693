"""ion_actors: a supervised pool of actors behind the futures API.

Start at :class:`Pool`.
"""

from ion_actors.backends.process import ProcessBackend
from ion_actors.backends.resident import Worker
from ion_actors.context import Context, background, current_context
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
    TaskPanicked,
    TaskQuarantined,
    WeightExceedsCapacity,
    WorkerDied,
)
from ion_actors.futures import Future, Output, Progress, report_progress
from ion_actors.workerpool.codel import CoDel
from ion_actors.workerpool.directive import Directive
from ion_actors.workerpool.health import PoolDump, StuckTask, WorkerDump
from ion_actors.workerpool.letters import DeadLetter, DeadLetters
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
from ion_actors.workerpool.metrics import PoolMetrics, PoolState
from ion_actors.workerpool.overflow import Overflow
from ion_actors.workerpool.pool import Pool
from ion_actors.workerpool.proxy import WorkerProxy
from ion_actors.workerpool.reasons import DropReason
from ion_actors.workerpool.recovery import Backoff, PanicRecovery
from ion_actors.workerpool.report import DrainReport, Panic, TaskState, UnfinishedTask, WorkerDeath
from ion_actors.workerpool.submitter import Submitter

__all__ = [
    "AcquireTimeout",
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
    "PoolState",
    "ProcessBackend",
    "Progress",
    "QueueFull",
    "RateLimited",
    "RateLimitedPastDeadline",
    "RemoteError",
    "RemotePanic",
    "Resize",
    "StorageUnavailable",
    "StuckTask",
    "Submit",
    "Submitter",
    "SupervisorFailed",
    "SupervisorForked",
    "TaskAbandoned",
    "TaskDropped",
    "TaskExpired",
    "TaskNotPicklable",
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
]
