"""Every error: what it derives from, and that it survives copying and pickling."""

from __future__ import annotations

import concurrent.futures
import copy
import inspect
import pickle
import queue

import pytest

import ion_actors
from ion_actors import (
    AcquireTimeout,
    BrokenPool,
    Cancelled,
    ChildStartFailed,
    ChildUnavailable,
    CircuitOpen,
    ContextEnded,
    DeadlineExceeded,
    DeadlockError,
    DrainReport,
    DrainTimeout,
    DropReason,
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
    WorkerDeath,
    WorkerDied,
    errors,
)
from ion_actors.circuit import CircuitState
from ion_actors.supervision import ChildState


class Alike(ValueError):
    """A copy is equal to it."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Alike) and other.args == self.args

    __hash__ = None  # type: ignore[assignment]


DEATH = WorkerDeath("p-0", Alike("it"), at=1.5, age=0.5)
REPORT = DrainReport(1, 2, 3, cancelled=(), running=(), elapsed=0.5)

EXAMPLES = [
    IonError("it"),
    ContextEnded("it", task="job"),
    Cancelled("it", task="job"),
    Cancelled(),
    TaskAbandoned("it", task="job", age=1.5, stack="File ..."),
    TaskDropped("it", task="job", why=DropReason.OLDEST),
    TaskExpired("it", task="job", why=DropReason.EXPIRED, ttl=1.5),
    DeadlineExceeded("it", task="job"),
    DeadlineExceeded(),
    QueueFull("pool-1", 64),
    QueueFull("pool-1", 64, retry_after=1.5),
    PoolClosed("it", pool="pool-1"),
    PoolForked("it", pool="pool-1"),
    BrokenPool("it", pool="pool-1"),
    TaskPanicked("it", task="job", worker="pool-1-0"),
    TaskOutOfMemory("it", task="job", worker="pool-1-0", limit=1000, peak=1500),
    TaskQuarantined("it", task="job", worker="p-0", history=(DEATH,)),
    TaskNotPicklable("it", task="job", what="argument 2", shown="<lock>"),
    RemoteError("it", type_name="shop.Sold"),
    DeadlockError("they wait for each other", tasks=("a", "b")),
    DrainTimeout("it", report=REPORT),
    SupervisorFailed("it", supervisor="app", child="db"),
    SupervisorForked("it", supervisor="app"),
    ChildStartFailed("it", supervisor="app", child="db"),
    ChildUnavailable("it", supervisor="app", child="db", state=ChildState.RESTARTING),
    FutureAlreadySet("it"),
    AcquireTimeout("it", semaphore="s", permits=3, timeout=0.5),
    WeightExceedsCapacity("s", 9, 8),
    WorkerDied("it", worker="w", pid=7, exitcode=-11, signal="SIGSEGV", last_words="at line 3"),
    OverReleased("s", 3, 2),
    RateLimited("it", limiter="api", retry_after=1.5, is_global=True, remaining=0, limit=5),
    RateLimitedPastDeadline("it", limiter="api", retry_after=1.5, bucket="GET /users"),
    StorageUnavailable("it", key="api"),
    CircuitOpen("payments", CircuitState.OPEN, 29.5),
    RemotePanic("enough", type_name="app.Abort"),
]

every_error = pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)


def test_no_error_is_missing_here():
    defined = {
        one
        for _, one in inspect.getmembers(errors, inspect.isclass)
        if issubclass(one, BaseException) and one.__module__ == errors.__name__
    }
    assert {type(error) for error in EXAMPLES} == defined
    assert {one.__name__ for one in defined} == set(errors.__all__)
    assert set(errors.__all__) <= set(ion_actors.__all__)


@pytest.mark.parametrize(
    ("error", "caught_by"),
    [
        (Cancelled, concurrent.futures.CancelledError),
        (Cancelled, ContextEnded),
        (TaskAbandoned, Cancelled),
        (TaskDropped, Cancelled),
        (TaskExpired, TaskDropped),
        (TaskExpired, TimeoutError),
        (DeadlineExceeded, TimeoutError),
        (DeadlineExceeded, ContextEnded),
        (QueueFull, queue.Full),
        (PoolClosed, RuntimeError),
        (PoolForked, PoolClosed),
        (BrokenPool, concurrent.futures.BrokenExecutor),
        (BrokenPool, RuntimeError),
        (TaskPanicked, RuntimeError),
        (TaskOutOfMemory, TaskPanicked),
        (TaskOutOfMemory, MemoryError),
        (TaskQuarantined, TaskPanicked),
        (TaskNotPicklable, TypeError),
        (TaskNotPicklable, pickle.PicklingError),
        (RemoteError, RuntimeError),
        (DeadlockError, RuntimeError),
        (DrainTimeout, TimeoutError),
        (SupervisorFailed, RuntimeError),
        (SupervisorForked, RuntimeError),
        (ChildStartFailed, RuntimeError),
        (ChildUnavailable, LookupError),
        (CircuitOpen, RuntimeError),
        (AcquireTimeout, DeadlineExceeded),
        (AcquireTimeout, TimeoutError),
        (WeightExceedsCapacity, ValueError),
        (WorkerDied, ChildProcessError),
        (OverReleased, ValueError),
        (RateLimited, TimeoutError),
        (RateLimitedPastDeadline, RateLimited),
        (RateLimitedPastDeadline, DeadlineExceeded),
        (StorageUnavailable, ConnectionError),
        (FutureAlreadySet, concurrent.futures.InvalidStateError),
        (FutureAlreadySet, queue.Full),
    ],
)
def test_an_error_is_caught_by_what_programs_already_catch(error, caught_by):
    assert issubclass(error, caught_by)


@every_error
def test_every_error_is_caught_by_the_root(error):
    assert isinstance(error, IonError) or not isinstance(error, Exception)


@every_error
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_an_error_survives_pickling_with_its_attributes(error, protocol):
    again = pickle.loads(pickle.dumps(error, protocol))
    assert_same(again, error)


@every_error
@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy])
def test_an_error_survives_copying_with_its_attributes(error, again):
    assert_same(again(error), error)


@every_error
def test_a_note_survives_pickling(error):
    noted = copy.copy(error)
    noted.add_note("by the way")
    assert pickle.loads(pickle.dumps(noted)).__notes__ == ["by the way"]


def assert_same(again, error):
    assert type(again) is type(error)
    assert again is not error
    assert again.args == error.args
    assert str(again) == str(error)
    assert vars(again) == vars(error)


class OfAUser(PoolClosed):
    """With a constructor that the machinery of pickling knows nothing about."""

    def __init__(self, *, code):
        super().__init__("of a user", pool="p")
        self.code = code


def test_an_error_of_a_users_own_pickles_without_further_ado():
    assert_same(pickle.loads(pickle.dumps(OfAUser(code=7))), OfAUser(code=7))


def test_queue_full_says_whose_and_how_many_and_what_to_do():
    error = QueueFull("thumbs", 64)
    assert (error.pool, error.queue_size) == ("thumbs", 64)
    for fact in ("'thumbs'", "64", "submit()"):
        assert fact in str(error)


def test_an_abandoned_task_shows_where_it_was():
    assert str(TaskAbandoned("why", task="t", age=1.0, stack="where")) == "why\nwhere"
    assert str(TaskAbandoned("why", task="t", age=1.0)) == "why"


def test_a_cancelled_task_names_itself():
    assert Cancelled("why", task="job").task == "job"
    assert Cancelled().reason == str(Cancelled()) == "the context was cancelled"
    assert DeadlineExceeded().reason == "the deadline has passed"
