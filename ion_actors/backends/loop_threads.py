"""The threads in which a worker's event loop makes blocking calls, also after their tasks.

``asyncio.to_thread``, ``run_in_executor`` and name resolution make their calls in the default
executor of a loop. A task may end before such a call does: by its time limit, or because it did not
await the call. A stuck call cannot be ended. The executors of the standard library wait for it,
which would keep a worker from stopping, and the interpreter from exiting. Here,

- the threads are daemons, and not among those that Python joins at exit;
- the end of a loop waits for its calls only for a moment;
- a call whose task has ended is *left behind*: :func:`left_behind` lists it until it is over.
"""

from __future__ import annotations

import concurrent.futures
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any, TypeVar

from typing_extensions import override

from ion_actors.clock import system_clock
from ion_actors.context import Context, of_thread
from ion_actors.forking import on_fork
from ion_actors.own_variables import daemon_thread
from ion_actors.standby import NO_MORE_THREADS

__all__ = ["LeftBehind", "LoopThreads", "Owner", "left_behind"]

T = TypeVar("T")

# Seconds that the end of a loop waits for its running calls.
_GRACE = 0.5

_numbers = iter(range(1, 1 << 62))


class Owner:
    """The task that an event loop runs now.

    Attributes:
        over: whether it has ended.
    """

    __slots__ = ("over",)

    def __init__(self) -> None:
        self.over = False


@dataclass(slots=True, eq=False)
class LeftBehind:
    """A call in a thread, of a task of some pool."""

    task: str  #: the task's name
    worker: str  #: the worker that ran the task
    began: float  #: when the call was requested, by its pool's clock
    pool: Context | None = field(repr=False)  #: the pool's context
    owner: Owner = field(repr=False)
    thread: threading.Thread | None = None  #: the thread that runs it; None while it waits for one


# All calls that run now. Each change is one step, so there is no lock.
_running: dict[LeftBehind, None] = {}
on_fork(_running.clear)  # a forked child does not have their threads


def left_behind(pool: Context) -> list[LeftBehind]:
    """The calls of a pool's tasks that are still running although the tasks have ended.

    Args:
        pool: the pool's context.
    """
    return [one for one in list(_running) if one.pool is pool and one.owner.over]


@dataclass(slots=True, eq=False, repr=False)
class _Call:
    future: concurrent.futures.Future[Any]
    make: Callable[[], Any]
    facts: LeftBehind


class LoopThreads(ThreadPoolExecutor):
    """The default executor of one event loop. See the module.

    Args:
        pool: the context of the pool that the loop belongs to; None if it belongs to none.
    """

    # ThreadPoolExecutor is the base because event loops accept nothing else; all methods that
    # matter are replaced.

    def __init__(self, pool: Context | None) -> None:
        super().__init__(max_workers=min(32, (os.cpu_count() or 1) + 4))
        self.owner = Owner()  # the owner of new calls
        self._pool = pool
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._own: list[threading.Thread] = []
        self._guard = threading.Lock()  # guards the list above and what follows
        self._idle = 0  # threads that wait for a call
        self._over = False

    @override
    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Any:
        """Call it in a thread. Returns the future of the result.

        Raises:
            RuntimeError: the loop is closed, or no thread can be started.
        """
        future: concurrent.futures.Future[T] = concurrent.futures.Future()
        call = _Call(future, lambda: fn(*args, **kwargs), self._facts())
        with self._guard:
            if self._over:
                raise RuntimeError("cannot schedule new futures after shutdown")
            if self._idle:
                self._idle -= 1
            elif len(self._own) < self._max_workers:
                self._start_one()
            self._calls.put(call)
        return future

    def _facts(self) -> LeftBehind:
        name = of_thread.task_name
        clock = system_clock.monotonic if self._pool is None else self._pool.clock.monotonic
        return LeftBehind(
            task="" if name is None else name(),
            worker=threading.current_thread().name,
            began=clock(),
            pool=self._pool,
            owner=self.owner,
        )

    def _start_one(self) -> None:
        name = f"{threading.current_thread().name}-loop-{next(_numbers)}"
        thread = daemon_thread(self._work, name)
        try:
            thread.start()
        except NO_MORE_THREADS:
            if not self._own:
                raise
            return  # another thread will take the call
        self._own.append(thread)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            self._make(call)
            del call  # what it refers to must not stay alive until the next call
            with self._guard:
                if self._calls.empty():
                    self._idle += 1

    def _make(self, call: _Call) -> None:
        if not call.future.set_running_or_notify_cancel():
            return
        call.facts.thread = threading.current_thread()
        _running[call.facts] = None
        try:
            value = call.make()
        except BaseException as error:
            del _running[call.facts]
            call.future.set_exception(error)
        else:
            del _running[call.facts]
            call.future.set_result(value)
        finally:
            value = None
            del call

    @override
    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Accept no more calls.

        Args:
            wait: wait for running calls, but only for a moment.
            cancel_futures: cancel calls that have not begun.
        """
        with self._guard:
            first, self._over = not self._over, True
        while cancel_futures and not self._calls.empty():
            if (call := self._calls.get_nowait()) is not None:
                call.future.cancel()
        if first:
            for _ in self._own:
                self._calls.put(None)
        until = system_clock.monotonic() + _GRACE
        for thread in self._own if wait else ():
            thread.join(max(0.0, until - system_clock.monotonic()))
