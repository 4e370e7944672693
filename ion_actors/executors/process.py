"""``concurrent.futures.process``, with a pool as the executor."""

from __future__ import annotations

import concurrent.futures.process as standard
import itertools
import logging
import multiprocessing
import time
import warnings
import weakref
from collections.abc import Callable
from multiprocessing.context import BaseContext
from typing import Any, Unpack

from ion_actors.backends.process import ProcessBackend
from ion_actors.backends.process.parent.child_process import Child
from ion_actors.backends.process.parent.runner import ProcessRunner
from ion_actors.clock import system_clock
from ion_actors.errors import BrokenPool, TaskPanicked
from ion_actors.executors.stand_in import PoolOptions, StandIn, cpus
from ion_actors.workerpool.model.metrics import PoolState
from ion_actors.workerpool.spec import Dialect
from ion_actors.workerpool.worker.worker import PoolWorker

__all__ = ["BrokenProcessPool", "ProcessPoolExecutor", "WorkerKilled", "WorkerProcess"]

_numbers = itertools.count()

# Seconds between two looks at whether a process has ended.
_GLANCE = 0.01


class BrokenProcessPool(BrokenPool, standard.BrokenProcessPool):
    """A process has died, or an initializer has failed; the executor is not usable any more."""


class WorkerKilled(TaskPanicked, standard.BrokenProcessPool):
    """The process that ran this task has died; the cause is a :class:`~ion_actors.WorkerDied`."""


class ProcessPoolExecutor(StandIn, standard.ProcessPoolExecutor):  # type: ignore[misc]
    """``concurrent.futures.ProcessPoolExecutor``, as a :class:`~ion_actors.Pool`.

    Args:
        max_workers: how many processes; by default one for each CPU.
        mp_context: of ``multiprocessing``. Its start method is used, except for "fork", which is
            not supported: children come from a forkserver, and a warning says so.
        initializer: called in each process before its first task.
        initargs: its arguments.
        max_tasks_per_child: how many tasks a process may run before a fresh one replaces it.
        queue_size: how many tasks may wait for a process; None for any number.
        backend: a :class:`~ion_actors.ProcessBackend`, instead of ``mp_context`` and
            ``max_tasks_per_child``.
        options: any others of :class:`~ion_actors.Pool`; see :class:`.PoolOptions`.

    Raises:
        TypeError, ValueError: an argument makes no sense.
        OSError, ImportError, NotImplementedError: this system has no semaphores, as without
            ``/dev/shm``, or permits no further process.

    It behaves as its namesake, unless an option says otherwise: the first process that dies breaks
    it (``panic_recovery=PanicRecovery()`` replaces the process), and nothing is bounded.
    """

    _dialect = Dialect(
        broken=BrokenProcessPool,
        panicked=WorkerKilled,
        warns=False,
        alarm=logging.DEBUG,
        ends_running=True,
    )

    def __init__(
        self,
        max_workers: int | None = None,
        mp_context: BaseContext | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        max_tasks_per_child: int | None = None,
        queue_size: int | None = None,
        backend: ProcessBackend | None = None,
        **options: Unpack[PoolOptions],
    ) -> None:
        standard._check_system_limits()
        self._mp_context = _context(mp_context, max_tasks_per_child, backend)
        self._max_tasks_per_child = max_tasks_per_child
        self._handles: weakref.WeakKeyDictionary[Child, WorkerProcess] = weakref.WeakKeyDictionary()
        if backend is None:
            backend = _backend(self._mp_context, max_tasks_per_child)
        size = cpus() if max_workers is None else max_workers
        if size > 0:
            _check_system(backend)
        options["name"] = options.get("name") or f"ProcessPoolExecutor-{next(_numbers)}"
        super().__init__(size, initializer, initargs, queue_size, backend, **options)

    def terminate_workers(self) -> None:
        """Shut it down without waiting, and end all processes: what runs raises BrokenProcessPool.

        Children leave SIGTERM to this process, so they are killed. :meth:`close` gives tasks the
        time to clean up.
        """
        for process in self._after_shutdown():
            process.terminate()

    def kill_workers(self) -> None:
        """Shut it down without waiting, and kill all processes."""
        for process in self._after_shutdown():
            process.kill()

    def _after_shutdown(self) -> list[WorkerProcess]:
        processes = [*self._processes.values()]
        self.shutdown(wait=False, cancel_futures=True)
        return processes

    @property
    def _processes(self) -> dict[int, WorkerProcess]:  # type: ignore[override]
        # There is one once something was submitted, but it may not have been started yet.
        while not (found := self._children()) and self._is_about_to_start():
            time.sleep(_GLANCE)
        return {one.pid: self._handles.setdefault(one, WorkerProcess(one)) for one in found}

    def _children(self) -> list[Child]:
        workers = [one for one in list(self._core.workers) if isinstance(one, PoolWorker)]
        runners = [one.runner for one in workers if isinstance(one.runner, ProcessRunner)]
        return [child for one in runners for child in one.children]

    def _is_about_to_start(self) -> bool:
        return self.state is PoolState.RUNNING and self.metrics().queued > 0

    @property
    def _shutdown_thread(self) -> bool:  # type: ignore[override]
        return self._shutdown


class WorkerProcess:
    """A process of an executor, with the methods of ``multiprocessing.Process`` that others call.

    Attributes:
        pid: its id.
        name: that of its worker.
    """

    def __init__(self, child: Child) -> None:
        self._child = weakref.ref(child)  # it is a key of a weak mapping, with this as the value
        self.pid = child.pid
        self.name = child.worker

    @property
    def exitcode(self) -> int | None:
        """How it has ended: below zero by a signal; None if it runs, or that is not known."""
        child = self._child()
        return None if child is None else child.exitcode

    def is_alive(self) -> bool:
        """Whether it has not ended."""
        child = self._child()
        return child is not None and not child.has_ended()

    def join(self, timeout: float | None = None) -> None:
        """Wait until it has ended, for so many seconds at most."""
        until = None if timeout is None else system_clock.monotonic() + timeout
        while self.is_alive() and (until is None or system_clock.monotonic() < until):
            time.sleep(_GLANCE)

    def kill(self) -> None:
        """End it at once. What it runs raises ``BrokenProcessPool``."""
        if (child := self._child()) is not None:
            child.kill()

    terminate = kill


def _context(
    given: BaseContext | None, max_tasks_per_child: int | None, backend: ProcessBackend | None
) -> BaseContext:
    """The context of multiprocessing that the executor goes by."""
    if max_tasks_per_child is not None:
        if not isinstance(max_tasks_per_child, int):
            raise TypeError("max_tasks_per_child must be an integer")
        if max_tasks_per_child <= 0:
            raise ValueError("max_tasks_per_child must be >= 1")
    if backend is not None:
        if given is not None or max_tasks_per_child is not None:
            raise TypeError("backend= has both a start_method and max_tasks_per_child: give these")
        return multiprocessing.get_context(backend.start_method)
    if given is None:
        return _default_context(max_tasks_per_child)
    if given.get_start_method() == "fork":
        if max_tasks_per_child is not None:
            raise ValueError(
                "max_tasks_per_child is incompatible with the 'fork' multiprocessing start method; "
                "supply a different mp_context."
            )
        warnings.warn(
            'mp_context: children come from a forkserver and not by "fork", which copies the locks '
            "of threads, but not the threads: they do not have this process's variables",
            RuntimeWarning,
            stacklevel=3,
        )
    return given


def _default_context(max_tasks_per_child: int | None) -> BaseContext:
    if max_tasks_per_child is not None:
        return multiprocessing.get_context("spawn")
    chosen = multiprocessing.get_start_method(allow_none=True)
    return multiprocessing.get_context(chosen if chosen == "spawn" else None)


def _backend(context: BaseContext, max_tasks_per_child: int | None) -> ProcessBackend:
    """The settings that make children as unbounded as those of the standard library."""
    method = context.get_start_method()
    return ProcessBackend(
        start_method=None if method == "fork" else method,
        max_tasks_per_child=max_tasks_per_child,
        native_threads=None,
        start_timeout=None,
    )


def _check_system(backend: ProcessBackend) -> None:
    """Find out now what its namesake finds out now: programs fall back to threads then.

    Raises:
        OSError: there are no semaphores, or there can be no further process.
    """
    methods = multiprocessing.get_all_start_methods()
    multiprocessing.get_context("fork" if "fork" in methods else None).Lock()
    backend.try_launch()
