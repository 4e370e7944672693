"""What a pool was asked to be: its checked arguments."""

from __future__ import annotations

import itertools
import logging
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeGuard

from ion_actors._arguments import (
    boolean,
    optional,
    optional_callable,
    positive_seconds,
    seconds,
    whole_number,
)
from ion_actors.actors.stateful import Residence
from ion_actors.backends.protocol import Backend, LoopBackend, LoopSite
from ion_actors.backends.thread import ThreadBackend
from ion_actors.context import Context, background
from ion_actors.errors import BrokenPool, TaskPanicked
from ion_actors.naming import printable
from ion_actors.observe import Log, Metrics, Probe, Tracer
from ion_actors.workerpool.hooks import PoolHooks
from ion_actors.workerpool.model.overflow import CoDel, Overflow, OverflowPolicy, checked_overflow
from ion_actors.workerpool.model.recovery import PanicRecovery
from ion_actors.workerpool.model.reports import Panic, StuckTask

if TYPE_CHECKING:
    from ion_actors.adaptive.sizing import Adaptive

__all__ = ["DEFAULT_QUEUE_SIZE", "UNBOUNDED", "Dialect", "PoolSpec", "TaskWrapper"]

#: Tasks that may wait by default: a few megabytes of them.
DEFAULT_QUEUE_SIZE = 10_000

_SLOTS = 100  # workers of a pool on an event loop, by default

#: The ``queue_size`` of a pool in which any number of tasks may wait.
UNBOUNDED = sys.maxsize

TaskWrapper = Callable[[Callable[[], Any]], Callable[[], Any]]

_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Dialect:
    """The errors and names of a pool: those of an executor that it stands in for, or its own.

    Args:
        broken: the error of a broken pool.
        panicked: the error of a task that took its worker down.
        numbered: how a worker is named after its pool.
        warns: whether somebody is told of a pool that was never closed.
        alarm: the level at which the log is told of a worker that could not start, and of a pool
            that is broken, which those who use it learn, too.
        ends_running: whether what still runs when the pool breaks ends at once, as broken. Else its
            contexts end, as in a close.
        refuses_generators: whether a task fails that returns a generator, which nobody would run.
    """

    broken: type[BrokenPool] = BrokenPool
    panicked: type[TaskPanicked] = TaskPanicked
    numbered: str = "{}-{}"
    warns: bool = True
    alarm: int = logging.CRITICAL
    ends_running: bool = False
    refuses_generators: bool = True


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class PoolSpec:
    """The arguments of a pool, checked, and with the defaults filled in."""

    name: str
    size: int  # at first
    adaptive: Adaptive | None  # how it changes by itself
    queue_size: int
    context: Context  # the pool's own: a child of the one that was given
    drain_timeout: float | None
    log: Log
    hooks: PoolHooks | None
    recovery: PanicRecovery
    task_wrapper: TaskWrapper | None
    helping: bool
    stuck_after: float | None
    on_stuck: Callable[[StuckTask], object] | None
    replace_stuck: int
    overflow: Overflow | CoDel
    initializer: Callable[..., object] | None
    initargs: tuple[Any, ...] = field(repr=False)  # there may be a password among them
    residence: Residence | None  # what lives in each worker
    backend: Backend
    dialect: Dialect

    def worker_name(self, index: int) -> str:
        """The name of the worker with that number."""
        return self.dialect.numbered.format(self.name, index)

    @property
    def must_start(self) -> bool:
        """Whether a worker has something to do before it can take a task."""
        return self.initializer is not None or self.residence is not None or self.backend.must_start

    def open_site(self) -> LoopSite | None:
        """The event loop that all workers are to share, if the backend has them do so."""
        backend = self.backend
        if not _is_on_loop(backend):
            return None
        return backend.open_site(self.name, self.context, self.log)

    @classmethod
    def checked(
        cls,
        size: int | Adaptive | None,
        queue_size: int | None,
        name: str | None,
        context: Context | None,
        drain_timeout: float | None,
        logger: logging.Logger | None,
        metrics: Metrics | None,
        tracer: Tracer | None,
        panic_recovery: PanicRecovery | Callable[[Panic], object] | None,
        task_wrapper: TaskWrapper | None,
        initializer: Callable[..., object] | None,
        initargs: tuple[Any, ...],
        helping: bool,
        stuck_after: float | None,
        on_stuck: Callable[[StuckTask], object] | None,
        replace_stuck: int,
        overflow: OverflowPolicy,
        worker: object,
        backend: Backend | str,
        dialect: Dialect = Dialect(),
    ) -> PoolSpec:
        """The spec for these arguments of ``Pool``.

        Raises:
            TypeError, ValueError: one of them makes no sense.
        """
        optional("name", name, str)
        # The names of workers and threads are made of it, and the labels of metrics.
        name = printable(name) if name else f"pool-{next(_numbers)}"
        optional("context", context, Context)
        optional_callable("task_wrapper", task_wrapper)
        optional_callable("initializer", initializer)
        optional_callable("on_stuck", on_stuck)
        _check_initargs(initargs)
        probe = Probe.checked(metrics, tracer, pool=name)
        where = _checked_backend(backend)
        first, adaptive = _checked_size(size, _default_size(where))
        return cls(
            name=name,
            size=first,
            adaptive=adaptive,
            queue_size=(
                DEFAULT_QUEUE_SIZE
                if queue_size is None
                else whole_number("queue_size", queue_size, minimum=0)
            ),
            context=Context(background() if context is None else context),
            drain_timeout=seconds("drain_timeout", drain_timeout),
            log=Log(logger, "ion_actors.pool", later=True, pool=name),
            hooks=None if probe is None else PoolHooks(probe),
            recovery=_checked_recovery(panic_recovery),
            task_wrapper=task_wrapper,
            helping=boolean("helping", helping),
            stuck_after=positive_seconds("stuck_after", stuck_after),
            on_stuck=on_stuck,
            replace_stuck=whole_number("replace_stuck", replace_stuck, minimum=0),
            overflow=_overflow_for(overflow, worker, where),
            initializer=initializer,
            initargs=tuple(initargs),
            residence=None if worker is None else Residence.checked(worker),
            backend=_shared_among(first if adaptive is None else adaptive.maximum, where),
            dialect=dialect,
        )


def _checked_size(given: Any, default: int) -> tuple[int, Adaptive | None]:
    """The first size, and how it changes by itself if it does."""
    if given is None:
        return default, None
    if not isinstance(given, int):
        from ion_actors.adaptive.sizing import Adaptive  # noqa: PLC0415 - seldom wanted

        if isinstance(given, Adaptive):
            return given.minimum, given
        if given is Adaptive:
            raise TypeError(f"size must be an instance of {given!r}: write Adaptive(2, 64)")
    return whole_number("size", given, minimum=1), None


def available_cpus() -> int:
    """How many CPUs this process may use."""
    if sys.version_info >= (3, 13):
        return os.process_cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0)) or 1
    return os.cpu_count() or 1


def _check_initargs(initargs: object) -> None:
    if isinstance(initargs, str) or not isinstance(initargs, Iterable):
        raise TypeError(f"initargs must be a tuple of arguments, not a {type(initargs).__name__}")


def _overflow_for(given: object, worker: object, backend: object) -> Overflow | CoDel:
    policy = checked_overflow(given)
    if policy is Overflow.CALLER_RUNS:
        if worker is not None:
            raise ValueError(f"overflow {policy.value!r} is not for worker=: callers have none")
        if isinstance(backend, LoopBackend):
            raise ValueError(
                f"overflow {policy.value!r} is not for an event loop: callers have none, or it "
                "would be blocked"
            )
        if not isinstance(backend, ThreadBackend):
            raise ValueError(
                f"overflow {policy.value!r} is not for backend {backend!r}: callers run their "
                "tasks in this process, where nothing isolates them"
            )
    return policy


def _default_size(backend: Backend) -> int:
    return _SLOTS if _is_on_loop(backend) else available_cpus()


def _is_on_loop(backend: Backend) -> TypeGuard[LoopBackend]:
    # To ask a protocol takes some microseconds if the answer is no.
    return type(backend) is not ThreadBackend and isinstance(backend, LoopBackend)


def _checked_backend(given: object) -> Backend:
    if given == "thread":
        return ThreadBackend()
    if given == "process":
        from ion_actors.backends.process import ProcessBackend  # noqa: PLC0415 - seldom wanted

        return ProcessBackend()
    if given == "asyncio":
        from ion_actors.backends.asyncio import AsyncioBackend  # noqa: PLC0415 - it imports asyncio

        return AsyncioBackend()
    if given == "ray":
        from ion_actors.backends.ray import RayBackend  # noqa: PLC0415 - seldom wanted

        return RayBackend()
    if isinstance(given, str):
        raise ValueError(
            f"backend must be 'thread', 'process', 'asyncio', 'ray' or a Backend, not {given!r}"
        )
    if isinstance(given, type) or not isinstance(given, Backend):
        hint = f": did you mean {given.__name__}()?" if isinstance(given, type) else ""
        raise TypeError(
            "backend must be 'thread', 'process', 'asyncio', 'ray' or a Backend, "
            f"not {given!r}{hint}"
        )
    return given


def _shared_among(workers: int, backend: Backend) -> Backend:
    """The backend, which may have to know how many of its workers share the CPUs."""
    among: Callable[[int, int], Backend] | None = getattr(backend, "among", None)
    return backend if among is None else among(workers, available_cpus())


def _checked_recovery(given: object) -> PanicRecovery:
    if given is None:
        return PanicRecovery()
    if isinstance(given, PanicRecovery):
        return given
    if callable(given):
        return PanicRecovery(handler=given)
    raise TypeError(f"panic_recovery must be a PanicRecovery or a callable, not {given!r}")
