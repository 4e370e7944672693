"""Submitting: from a call to a task in the mailbox, in the submitter's thread.

``submit``, ``try_submit`` and ``asubmit`` share everything but what they do when there is no room.
The non-blocking ``Mailbox.offer`` is the algorithm; the others only add the wait.
"""

from __future__ import annotations

from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Callable,
    Coroutine,
    Hashable,
    Iterable,
    Iterator,
)
from typing import Any, ParamSpec, TypeVar, overload

from ion_actors.context import Context
from ion_actors.futures import Future
from ion_actors.workerpool import mapping
from ion_actors.workerpool.admission import Admission
from ion_actors.workerpool.calling import Calls
from ion_actors.workerpool.options import TaskOptions

__all__ = ["Submitter"]

P = ParamSpec("P")
T = TypeVar("T")


class Submitter(Admission, Calls):
    """The verbs that bring tasks to a pool; ``Pool`` has them, and so has ``Pool.options(...)``."""

    def options(
        self,
        *,
        context: Context | None = None,
        timeout: float | None = None,
        name: str | None = None,
        pass_context: bool = False,
        ttl: float | None = None,
        priority: int | None = None,
        key: Hashable | None = None,
        retry_on_worker_death: int | None = None,
    ) -> Submitter:
        """The same verbs, for tasks with these properties. What is not given stays as it is.

        Args:
            context: the tasks also end with this context; by default with the current one.
            timeout: seconds from when a task is accepted until it must have ended. If it has not,
                its future raises ``DeadlineExceeded`` at once and its context ends; if it goes on
                nevertheless, its worker stays taken until it really ends.
            name: what to call the tasks in errors, logs and reports; by default their function's.
            pass_context: call the function with its context as the first argument.
            ttl: seconds that a task may wait in the queue. If it has not begun by then, it is
                dropped, and its future raises ``TaskExpired``.
            priority: the greater, the sooner; by default 0. Equals keep their order. A level of
                priority puts a task ahead of at most ``queue_size`` others that were accepted
                before it, so nobody waits for ever.
            key: anything hashable. Tasks of the same key run one at a time, in the order in which
                they were accepted, whatever their priority; those of other keys, and those without
                one, pass by. Its ``__hash__`` and ``__eq__`` run here, and may raise.
            retry_on_worker_death: how often a task that took its worker down (it *panicked*) is
                tried again, next after what runs now; by default 0. For tasks that may be run more
                than once. After that many retries its future raises ``TaskQuarantined``. The time
                limit counts on.

        Raises:
            TypeError, ValueError: an argument makes no sense.
        """
        old = self._options or TaskOptions()
        merged = TaskOptions(
            context=old.context if context is None else context,
            timeout=old.timeout if timeout is None else timeout,
            name=old.name if name is None else name,
            pass_context=old.pass_context or pass_context,
            ttl=old.ttl if ttl is None else ttl,
            priority=old.priority if priority is None else priority,
            key=old.key if key is None else key,
            retry_on_worker_death=(
                old.retry_on_worker_death
                if retry_on_worker_death is None
                else retry_on_worker_death
            ),
        )
        return Submitter(self._core, merged, self)

    # -- one task --------------------------------------------------------------------------

    @overload
    def submit(
        self, fn: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Future[T]: ...
    @overload
    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]: ...

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Have a worker call ``fn(*args, **kwargs)``; wait for room while the mailbox is full.

        A coroutine function is run to its end on the worker's event loop. Those who wait are served
        first come first served.

        Returns:
            The future of the result.

        Raises:
            TypeError: ``fn`` cannot be called.
            PoolClosed, BrokenPool: the pool accepts nothing (any more).
            Cancelled, DeadlineExceeded: the current context, or the one given by
                :meth:`options`, has ended.
        """
        task = self._new_task(fn, args, kwargs)
        if not self._offer(task):
            if self._drop_one(task) or self._run_here(task):
                try:
                    return task
                finally:
                    del task  # its error holds the frames below it, too
            self._wait_for_room(task)
        if task._special:
            self._accepted(task)
        return task

    @overload
    def try_submit(
        self, fn: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Future[T]: ...
    @overload
    def try_submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]: ...

    def try_submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """:meth:`submit` that never waits.

        Raises:
            QueueFull: no worker is idle and the mailbox is full (also a ``queue.Full``).
        """
        task = self._new_task(fn, args, kwargs)
        if not self._offer(task):
            if self._drop_one(task):
                return task
            raise self._mailbox.full()
        if task._special:
            self._accepted(task)
        return task

    @overload
    async def asubmit(
        self, fn: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Future[T]: ...
    @overload
    async def asubmit(
        self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Future[T]: ...

    async def asubmit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """:meth:`submit` that waits for room without blocking the event loop.

        Returns:
            The future; ``await`` it again for the result.
        """
        task = self._new_task(fn, args, kwargs)
        if not self._offer(task):
            if self._drop_one(task) or self._run_on_worker(task):
                try:
                    return task
                finally:
                    del task  # its error holds the frames below it, too
            await self._await_room(task)
        if task._special:
            self._accepted(task)
        return task

    # -- many tasks ------------------------------------------------------------------------

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[T]:
        """``map(fn, *iterables)`` on the pool, in order.

        The input is pulled as the results are: at most ``buffersize`` tasks are under way, so it
        may be endless. When an item raises, or the iteration is left, the rest is cancelled.

        Args:
            fn: what to call, with one argument from each iterable.
            iterables: the arguments; the shortest one ends it.
            timeout: seconds of the pool's clock from this call until the last result must have
                come.
            chunksize: how many calls make one task.
            buffersize: how many tasks may be under way; by default 4 for each worker, at least 64.

        Raises:
            TimeoutError: (from the iterator) the time was up.
            TypeError, ValueError: an argument makes no sense.
        """
        plan = self._plan(fn, iterables, timeout, chunksize, buffersize)
        return mapping.in_order(self, plan)

    def map_unordered(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[T]:
        """:meth:`map`, with the results as they come."""
        plan = self._plan(fn, iterables, timeout, chunksize, buffersize)
        return mapping.as_they_come(self, plan)

    def amap(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any] | AsyncIterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> AsyncIterator[T]:
        """:meth:`map` for ``async for``; the iterables may be asynchronous, too."""
        plan = self._plan(fn, iterables, timeout, chunksize, buffersize)
        return mapping.in_order_async(self, plan)

    def _plan(
        self,
        fn: Callable[..., T],
        iterables: tuple[Iterable[Any] | AsyncIterable[Any], ...],
        timeout: float | None,
        chunksize: int,
        buffersize: int | None,
    ) -> mapping.Plan[T]:
        return mapping.Plan.checked(
            fn, iterables, timeout, chunksize, buffersize, self._mailbox.size, self._clock
        )
