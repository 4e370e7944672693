"""The one place where tests look behind the public face; each function says why it has to.

Look here only for what no metric, dump, future, event or message shows. ``tests/house`` counts the
underscore names that tests use elsewhere.
"""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable, Sized
from contextlib import AbstractContextManager
from typing import Any, overload

from ion_actors import Pool
from ion_actors.backends.process.parent.child_process import Child
from ion_actors.backends.process.parent.escalation import Escalation
from ion_actors.backends.process.parent.runner import ProcessRunner
from ion_actors.circuit import CircuitBreaker
from ion_actors.circuit.core import BreakerCore
from ion_actors.clock import SystemClock
from ion_actors.context import Context, Turn
from ion_actors.futures import Future
from ion_actors.ratelimit.claims import Claim
from ion_actors.ratelimit.limiter import Limiter
from ion_actors.ratelimit.scheduler import Scheduler
from ion_actors.supervision import Supervisor
from ion_actors.supervision.core import TreeCore
from ion_actors.workerpool.core import PoolCore


@overload
def core_of(one: Pool) -> PoolCore: ...
@overload
def core_of(one: CircuitBreaker) -> BreakerCore: ...
@overload
def core_of(one: Supervisor) -> TreeCore: ...
def core_of(one: Any) -> Any:
    """The parts of a pool (its mailbox, workers, keys), a breaker or a tree, by public names.

    A mailbox and a worker cannot be made alone as their pool makes them; a breaker's lock is held
    by a thread while another one forks; the end of a tree that was forgotten outlives the tree.
    """
    return one._core


def resting(pool: Pool) -> int:
    """How many of its workers sleep.

    A worker that has settled its task shows none, and counts as running none, a moment before it
    is back at the mailbox.
    """
    return len(core_of(pool).mailbox._parked)


def first_child(pool: Pool) -> Child | None:
    """The process of the pool's first worker, if it has one: not even a dump names its parts."""
    runner = core_of(pool).workers[0].runner  # type: ignore[attr-defined]
    assert isinstance(runner, ProcessRunner)
    return runner._child


def child_of(pool: Pool) -> Child:
    """The same where there must be one."""
    child = first_child(pool)
    assert child is not None
    return child


def tasks_to(child: Child) -> int:
    """The descriptor of the socket where it reads its tasks."""
    return child._tasks.fileno()


def control_of(child: Child) -> socket.socket:
    """Where it is told of cancellations, and answers signs of life."""
    return child._control._sock


def kill(child: Child) -> None:
    """As somebody else would, but never another process that has got its number meanwhile."""
    escalation = child._escalation
    with lock_of(escalation):
        if not escalation._ended:
            child._handle.send_signal(signal.SIGKILL)


def callbacks_on(context: Context) -> list[Any]:
    """The registrations of callbacks, of which a program sees nothing until the context ends."""
    return list(context._callbacks or ())


def places_on(context: Context) -> int:
    """How many registrations it has, and has with its parents and its clock."""
    return len(callbacks_on(context)) + len(context._links or ())


def ancestors_of(context: Context) -> int:
    """How long a chain of contexts is: it costs memory, and time for each question."""
    depth, one = 0, context
    while one._parents:
        depth, one = depth + 1, one._parents[0]  # type: ignore[assignment]
    return depth


def lock_of(one: Context | Future[Any] | Escalation) -> AbstractContextManager[object]:
    """Held by a thread that a signal handler interrupts, or another one meets, in a change."""
    lock: AbstractContextManager[object] = one._lock
    return lock


def timers_held_back(clock: SystemClock) -> AbstractContextManager[object]:
    """The clock's thread calls none inside this block: it guards the timers."""
    return clock._changed


def places_in(pool: Pool) -> Sized:
    """The queue itself: a task that was cancelled may leave its place in there, uncounted."""
    return core_of(pool).mailbox._queue


def heap_of(one: Any) -> Sized:
    """The heap of a clock or a queue: what was removed from it must not pile up there."""
    heap: Sized = one._heap
    return heap


def scheduler_of(limiter: Limiter) -> Scheduler:
    """Who waits at a limiter, and its lock: for turns that no thread waits for."""
    return limiter._scheduler


def turn_at(
    limiter: Limiter, n: int, wake: Callable[[], object], timeout: float | None = None
) -> Turn[Claim]:
    """A turn as that of a thread which waits for tokens, but without the thread."""
    return Turn(Claim(n, limiter._find, timeout, False), wake)
