"""ion_actors: a supervised pool of actors behind the futures API.

Start at :class:`Pool`.

The rooms, from the top down::

    testing/       what tests of concurrent code need, for users' tests as well
    supervision/   trees of pools, actors and supervisors
    workerpool/    the pool
    backends/      where a worker runs its tasks
    semaphore/     limits what is used at the same time
    ratelimit/     limits how fast calls go
    circuit/       stops calling what keeps failing
    observe/       hooks: logs, metrics, traces
    futures/       the future, with two faces
    context/       who still wants this work, and until when
    actors/        the one place that knows pykka's internals
    stateful       the actor that lives in a worker: the public Worker
    wrapping       wrappers of tasks: around any function
    clock          time, behind a seam
    errors         every error of the library's own
    facts          what errors carry: states, reasons, reports
    keys           keys that users give, compared where it may take any time
    logs           the library's log records
    delivery       calls that are made later, by a thread that may block
    standby        what no thread could be started for
    forking        what a forked child must put right
    interruption   exceptions that come from outside, at any point of a thread
    awaitables     what a call returned: a result, or something that has yet to run
    own_variables  context variables that hold something that is changed in place
    raised         what an exception is and says
    naming         how users' objects are named, safely
    _arguments     checks of what users pass in
"""

from ion_actors.backends.process import ProcessBackend
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
from ion_actors.stateful import Worker
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
from ion_actors.workerpool.model.metrics import PoolMetrics, PoolState
from ion_actors.workerpool.model.outcomes import Directive, DropReason
from ion_actors.workerpool.model.overflow import CoDel, Overflow
from ion_actors.workerpool.model.recovery import Backoff, PanicRecovery
from ion_actors.workerpool.model.reports import (
    DrainReport,
    Panic,
    PoolDump,
    StuckTask,
    TaskState,
    UnfinishedTask,
    WorkerDeath,
    WorkerDump,
)
from ion_actors.workerpool.pool import Pool
from ion_actors.workerpool.proxy import WorkerProxy
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
