"""``concurrent.futures.thread``, with a pool as the executor."""

from __future__ import annotations

import concurrent.futures.thread as standard
import itertools
import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

from typing_extensions import override

from ion_actors.errors import BrokenPool
from ion_actors.executors.stand_in import PoolOptions, StandIn, cpus
from ion_actors.workerpool.spec import Dialect

if TYPE_CHECKING:
    from ion_actors.workerpool.progress.displays import MapProgress

__all__ = ["BrokenThreadPool", "ThreadPoolExecutor"]

T = TypeVar("T")

_numbers = itertools.count()


class BrokenThreadPool(BrokenPool, standard.BrokenThreadPool):
    """An initializer has failed in a thread; the executor is not usable any more."""


class ThreadPoolExecutor(StandIn, standard.ThreadPoolExecutor):  # type: ignore[misc, override]
    """``concurrent.futures.ThreadPoolExecutor``, as a :class:`~ion_actors.Pool`.

    Args:
        max_workers: how many threads; by default four more than CPUs, and at most 32.
        thread_name_prefix: threads are named after it; by default ``ThreadPoolExecutor-0``, …
        initializer: called in each thread before its first task.
        initargs: its arguments.
        queue_size: how many tasks may wait for a thread; None for any number.
        options: any others of :class:`~ion_actors.Pool`; see :class:`.PoolOptions`.

    Raises:
        TypeError, ValueError: an argument makes no sense.

    It behaves as its namesake, unless an option says otherwise: nothing is bounded, ``shutdown``
    and the end of a ``with`` block wait for all that was accepted, and so does the interpreter's
    exit. What differs: see "Coming from ThreadPoolExecutor".
    """

    _dialect = Dialect(
        broken=BrokenThreadPool,
        numbered="{}_{}",
        warns=False,
        alarm=logging.DEBUG,
        refuses_generators=False,
    )

    def __init__(
        self,
        max_workers: int | None = None,
        thread_name_prefix: str = "",
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        queue_size: int | None = None,
        **options: Unpack[PoolOptions],
    ) -> None:
        given = thread_name_prefix or options.get("name")
        options["name"] = given or f"ThreadPoolExecutor-{next(_numbers)}"
        size = min(32, cpus() + 4) if max_workers is None else max_workers
        super().__init__(size, initializer, initargs, queue_size, "thread", **options)
        self._thread_name_prefix = self.name

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
        """``Executor.map``: ``chunksize`` is for processes, and is ignored here."""
        return super().map(
            fn, *iterables, timeout=timeout, buffersize=buffersize, progress=progress
        )

    @property
    def _threads(self) -> set[threading.Thread]:  # type: ignore[override]
        return self._core.worker_threads()
