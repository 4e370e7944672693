"""A pool that by default behaves as the executors of the standard library do.

Nothing is bounded: neither the queue, nor the time that the end may take. What a task raises, its
future raises, ``SystemExit`` too, and the worker goes on. The first failure of an initializer, and
the first death of a process, breaks the executor. At the interpreter's exit what was accepted is
finished first. Each of these is an argument of :class:`~ion_actors.Pool` and can be given here.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, Unpack

from typing_extensions import override

from ion_actors._arguments import whole_number
from ion_actors.errors import WorkerDied
from ion_actors.raised import is_a
from ion_actors.workerpool.model.backoff import Backoff
from ion_actors.workerpool.model.outcomes import Directive
from ion_actors.workerpool.model.recovery import PanicRecovery
from ion_actors.workerpool.pool import Pool
from ion_actors.workerpool.spec import UNBOUNDED

if TYPE_CHECKING:
    import functools

    import pykka

    from ion_actors.backends.protocol import Backend
    from ion_actors.context import Context
    from ion_actors.observe import Metrics, Tracer
    from ion_actors.workerpool.model.overflow import OverflowPolicy
    from ion_actors.workerpool.model.reports import Panic, StuckTask
    from ion_actors.workerpool.progress.displays import MapProgress
    from ion_actors.workerpool.spec import TaskWrapper

__all__ = ["PoolOptions", "StandIn", "cpus"]

T = TypeVar("T")


class PoolOptions(TypedDict, total=False):
    """What can be given to an executor besides its own arguments: see :class:`ion_actors.Pool`."""

    name: str | None
    context: Context | None
    drain_timeout: float | None
    logger: logging.Logger | None
    metrics: Metrics | None
    tracer: Tracer | None
    panic_recovery: PanicRecovery | Callable[[Panic], object] | None
    task_wrapper: TaskWrapper | None
    helping: bool
    stuck_after: float | None
    on_stuck: Callable[[StuckTask], object] | None
    replace_stuck: int
    overflow: OverflowPolicy
    worker: type[pykka.Actor] | functools.partial[Any] | None


_LOGGER = "concurrent.futures"


def _as_the_standard_library_does(error: BaseException) -> Directive:
    return Directive.ESCALATE if is_a(error, WorkerDied) else Directive.RESUME


_RECOVERY = PanicRecovery(decide=_as_the_standard_library_does, backoff=Backoff(retries=0))


def cpus() -> int:
    """How many CPUs the standard library's executors go by: newer ones by those of the process."""
    import os  # noqa: PLC0415

    count: Callable[[], int | None] = getattr(os, "process_cpu_count", os.cpu_count)
    return count() or 1


class StandIn(Pool):
    """A pool in the place of an executor: see the module.

    Args:
        max_workers: how many workers.
        initializer: called in each worker first.
        initargs: its arguments.
        queue_size: how many tasks may wait; None for any number.
        backend: where the tasks run.
        options: any others of ``Pool``.
    """

    def __init__(
        self,
        max_workers: int,
        initializer: Callable[..., object] | None,
        initargs: tuple[Any, ...],
        queue_size: int | None,
        backend: Backend | str,
        **options: Unpack[PoolOptions],
    ) -> None:
        if max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        whole_number("max_workers", max_workers)
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        given: dict[str, Any] = {
            "drain_timeout": None,
            "logger": logging.getLogger(_LOGGER),
            "panic_recovery": _RECOVERY,
            **options,
        }
        super().__init__(
            max_workers,
            UNBOUNDED if queue_size is None else queue_size,
            initializer=None if initializer is None else _Initializer(initializer),
            initargs=initargs,
            backend=backend,
            **given,
        )
        self._initializer = initializer
        self._initargs = initargs

    @override
    def map(  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]  # as the standard library types it
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
        progress: MapProgress = None,
    ) -> Iterator[T]:
        """:meth:`ion_actors.Pool.map`, which submits all at once unless there is a buffersize."""
        return super().map(
            fn,
            *iterables,
            timeout=timeout,
            chunksize=chunksize,
            buffersize=sys.maxsize if buffersize is None else buffersize,
            progress=progress,
        )

    @override
    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        """Finish what was accepted, also after an exception; after Ctrl-C only what has begun."""
        try:
            self.shutdown(wait=True)
        except KeyboardInterrupt as error:
            if not is_a(exc_val, KeyboardInterrupt):  # else it is the second one
                self._ending.call_off(error)
            raise

    # De facto attributes of the standard executors, which their clients read.

    @property
    def _work_queue(self) -> _WorkQueue:
        return _WorkQueue(self)

    @_work_queue.setter
    def _work_queue(self, queue: Any) -> None:
        # Subclasses put a bounded queue in its place.
        if (limit := getattr(queue, "maxsize", 0)) > 0:
            self._core.mailbox.bound(limit)


class _Initializer:
    """Logs what an initializer raises, where it raises it."""

    def __init__(self, function: Callable[..., object]) -> None:
        self._function = function

    def __call__(self, *args: Any) -> object:
        try:
            return self._function(*args)
        except BaseException:
            logging.getLogger(_LOGGER).critical("Exception in initializer:", exc_info=True)
            raise


class _WorkQueue:
    """How many tasks wait, where clients of the standard executors look for that."""

    def __init__(self, executor: Pool) -> None:
        self._executor = executor

    @property
    def maxsize(self) -> int:
        """How many may; 0 for any number."""
        limit = self._executor.queue_size
        return 0 if limit == UNBOUNDED else limit

    def qsize(self) -> int:
        """How many tasks wait for a worker now."""
        return self._executor.metrics().queued

    def empty(self) -> bool:
        """Whether none does."""
        return self.qsize() == 0
