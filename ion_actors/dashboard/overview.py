"""All that the library has in this process, at one moment: one structure that JSON can hold.

Facts are read from what :mod:`ion_actors.observe.living` lists. The rooms that define those objects
are not imported: a program without circuit breakers need not load them.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from ion_actors._arguments import boolean
from ion_actors.forking import check
from ion_actors.logs import Logger
from ion_actors.observe.living import (
    ADAPTIVE_LIMITS,
    BREAKERS,
    LIMITERS,
    POOLS,
    SEMAPHORES,
    SUPERVISORS,
    since,
)
from ion_actors.raised import name_of
from ion_actors.workerpool.core import PoolCore, answers_until
from ion_actors.workerpool.model.metrics import PoolState
from ion_actors.workerpool.snapshot import (
    MOST_WAITING,
    PoolSnapshot,
    as_json,
    begin_snapshot,
    in_short,
)

if TYPE_CHECKING:
    from ion_actors.dashboard.trees import SupervisorSnapshot

__all__ = [
    "AdaptiveSnapshot",
    "BreakerSnapshot",
    "LimiterSnapshot",
    "SemaphoreSnapshot",
    "Snapshot",
    "living_pools",
    "program",
    "snapshot",
    "take",
]

logger = Logger("ion_actors")

T = TypeVar("T")
S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class LimiterSnapshot:
    """A rate limiter of a :class:`Snapshot`."""

    name: str
    kind: str  #: the name of its class
    rate: str  #: as "100/s"; empty if it has several
    tokens: float | None  #: that there are now; None if another process would have to be asked
    waiting: int  #: calls that wait
    paused: bool  #: nothing is let through now


@dataclass(frozen=True, slots=True)
class BreakerSnapshot:
    """A circuit breaker of a :class:`Snapshot`."""

    name: str
    state: str  #: "closed", "open" or "half_open"
    running: int  #: calls that were let through, and are not over
    succeeded: int
    failed: int
    rejected: int
    consecutive_failures: int
    failure_rate: float | None  #: 0 to 1; None while it has no calls
    retry_after: float | None  #: seconds until a call makes sense; None: not before a ``reset()``


@dataclass(frozen=True, slots=True)
class SemaphoreSnapshot:
    """A semaphore of a :class:`Snapshot`."""

    name: str
    limit: int  #: all permits
    available: int  #: free permits
    waiting: int  #: callers that wait


@dataclass(frozen=True, slots=True)
class AdaptiveSnapshot:
    """An adaptive limit of a :class:`Snapshot`."""

    name: str
    limit: int  #: calls that may be under way
    in_flight: int  #: calls that are
    waiting: int  #: callers that wait
    paused: bool  #: the other side has said when to come again


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that the library has in this process at one moment: what ``ion_actors.snapshot()`` gives.

    It never has a task's arguments. All texts are in one line, except for stacks.
    """

    time: float  #: seconds since 1970
    since: float  #: when the process began to use the library, or was forked, in the same seconds
    pid: int
    program: str  #: the name of the module or the file that was started
    python: str  #: its version, as "3.13.1"
    version: str  #: the library's
    pools: tuple[PoolSnapshot, ...]  #: that have not ended, or were broken; the oldest first
    supervisors: tuple[SupervisorSnapshot, ...]  #: that have no parent
    limiters: tuple[LimiterSnapshot, ...]
    breakers: tuple[BreakerSnapshot, ...]
    semaphores: tuple[SemaphoreSnapshot, ...]
    adaptive: tuple[AdaptiveSnapshot, ...]  #: adaptive limits

    def as_dict(self) -> dict[str, Any]:
        """The same as dicts, lists, texts and numbers."""
        found: dict[str, Any] = as_json(self)
        return found


def snapshot(*, stacks: bool = True) -> Snapshot:
    """All pools, supervisors, limiters, breakers and semaphores of this process, now.

    What nobody refers to any more is not in it, nor are pools and supervisors that have ended as
    they were asked to.

    Args:
        stacks: whether to tell where each running task is. Child processes are asked then, all at
            once, and waited for up to a second. Without, it never waits.

    Raises:
        TypeError: ``stacks`` is not True or False.
    """
    return take(stacks=boolean("stacks", stacks))


def take(*, stacks: bool = True, waiting: int = MOST_WAITING) -> Snapshot:
    """The same, with so many waiting tasks of each pool."""
    check()
    asked = [begin_snapshot(core, stacks=stacks, waiting=waiting) for core in living_pools()]
    until = answers_until() if stacks else 0.0
    return Snapshot(
        time=time.time(),
        since=since(),
        pid=os.getpid(),
        program=program(),
        python=sys.version.split()[0],
        version=_version(),
        pools=tuple(finish(until) for finish in asked),
        supervisors=_supervisors(),
        limiters=_each(LIMITERS.all(), _limiter),
        breakers=_each(BREAKERS.all(), _breaker),
        semaphores=_each(SEMAPHORES.all(), _semaphore),
        adaptive=_each(ADAPTIVE_LIMITS.all(), _adaptive),
    )


def living_pools() -> list[PoolCore]:
    """The pools of this process that have not ended, and those that were given up."""
    return [core for core in POOLS.all() if _is_of_interest(core)]


def _is_of_interest(core: PoolCore) -> bool:
    return not core.forked and (core.phase is not PoolState.CLOSED or core.broken is not None)


def _supervisors() -> tuple[SupervisorSnapshot, ...]:
    if not (found := SUPERVISORS.all()):
        return ()
    from ion_actors.dashboard.trees import tree_snapshots  # noqa: PLC0415 - imports what they use

    return tree_snapshots(found)


def _version() -> str:
    # Not imported: the package's face imports from here.
    return str(getattr(sys.modules.get(__name__.partition(".")[0]), "__version__", ""))


def program() -> str:
    """The name of what was started: a module, a file, or "python"."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    if (name := getattr(spec, "name", None)) is not None:
        return in_short(str(name).removesuffix(".__main__"))
    name = os.path.basename(next(iter(sys.argv), ""))  # noqa: PTH119
    return in_short("python -c" if name == "-c" else name or "python")


def _each(found: Iterable[T], describe: Callable[[T], S]) -> tuple[S, ...]:
    """What is to be said of each; one whose class was changed by its user may be left out."""
    described = []
    for one in found:
        try:
            described.append(describe(one))
        except Exception:
            logger.debug("%s could not be looked at", name_of(type(one)), exc_info=True)
    return tuple(described)


# -- limits and breakers -----------------------------------------------------------------------


def _limiter(one: Any) -> LimiterSnapshot:
    kind, rate = name_of(type(one)), getattr(one, "rate", None)
    shared = not hasattr(one, "is_paused")  # by several processes
    return LimiterSnapshot(
        name=in_short(one.name),
        kind=in_short(kind),
        rate="" if rate is None else in_short(str(rate)),
        tokens=None if shared else float(one.tokens),
        waiting=one.waiting,
        paused=False if shared else one.is_paused,
    )


def _breaker(one: Any) -> BreakerSnapshot:
    now = one.metrics()
    return BreakerSnapshot(
        name=in_short(now.name),
        state=now.state.value,
        running=now.running,
        succeeded=now.succeeded,
        failed=now.failed,
        rejected=now.rejected,
        consecutive_failures=now.consecutive_failures,
        failure_rate=now.failure_rate,
        retry_after=None if math.isinf(now.retry_after) else now.retry_after,
    )


def _semaphore(one: Any) -> SemaphoreSnapshot:
    now = one.metrics()
    return SemaphoreSnapshot(in_short(one.name), now.capacity, now.available, now.waiting)


def _adaptive(one: Any) -> AdaptiveSnapshot:
    now = one.metrics()
    return AdaptiveSnapshot(in_short(one.name), now.limit, now.in_flight, now.waiting, now.paused)
