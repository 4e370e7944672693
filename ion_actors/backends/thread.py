"""The backend that runs tasks in their worker's own thread, or on that thread's event loop."""

from __future__ import annotations

import contextlib
import contextvars
import threading
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from ion_actors.awaitables import is_coroutine, running_loop
from ion_actors.backends.loop_threads import LoopThreads, Owner
from ion_actors.backends.protocol import Task
from ion_actors.backends.stacks import Seen, TaskStack, look_at, stack_of
from ion_actors.context import Context, background, make_current
from ion_actors.observe import Log

if TYPE_CHECKING:
    import asyncio

__all__ = ["ThreadBackend", "ThreadRunner"]


@dataclass(frozen=True, slots=True)
class ThreadBackend:
    """Tasks run in their workers' threads."""

    @property
    def must_start(self) -> bool:
        """False: the thread needs no preparation."""
        return False

    def make_runner(self, worker: str, context: Context, log: Log) -> ThreadRunner:
        """A runner for the worker of that name."""
        return ThreadRunner(context)


class ThreadRunner:
    """Runs calls in the calling thread. Belongs to one worker.

    If a call returns a coroutine, it is run to its end on an event loop that the worker keeps; when
    the task's context ends, the coroutine is cancelled. Whatever it leaves running on the loop is
    cancelled, too, so that it cannot disturb the next task. (For what it leaves running in a
    thread, as with ``asyncio.to_thread``, see :mod:`ion_actors.backends.loop_threads`.)

    Args:
        pool: the context of the pool that it belongs to; None if it belongs to none.
    """

    inline = True
    pid = None  # this process
    starting = False

    def __init__(self, pool: Context | None = None) -> None:
        self._pool = pool
        self._runner: asyncio.Runner | None = None
        self._threads: LoopThreads | None = None  # of the runner's loop
        self._coroutine: Coroutine[Any, Any, Any] | None = None  # that runs now

    def start(self, initializer: Callable[..., object] | None, initargs: tuple[Any, ...]) -> None:
        """Call the initializer, and run it to its end if it is a coroutine."""
        if initializer is not None:
            self.finish(initializer(*initargs), background(), contextvars.copy_context())

    def call(self, task: Task) -> NoReturn:
        """True: the worker makes the call itself, which is fastest."""
        raise AssertionError("a task was given to a runner that is inline")

    def kill(self) -> bool:
        """A thread cannot be ended from outside."""
        return False

    def where(self, thread: threading.Thread | None) -> Seen:
        """Where the task is that runs in this thread, which is the runner's."""
        return stack_of(thread, self._coroutine)

    def look(self, thread: threading.Thread) -> TaskStack:
        """The same, before it is text."""
        return look_at(thread, self._coroutine)

    def finish(self, value: Any, context: Context, variables: contextvars.Context) -> Any:
        """The result of a call or, if that is a coroutine, the coroutine's result."""
        if not is_coroutine(value):
            return value
        # The coroutine may go to other threads (asyncio.to_thread), where its context must go, too.
        variables.run(make_current, context)
        return self._run(value, context, variables)

    def stop(self, failure: BaseException | None = None) -> None:
        """Close the event loop, if there ever was one. Called by the worker's thread."""
        if self._runner is not None:
            loop = self._runner.get_loop()
            try:
                self._runner.close()
            except RuntimeError:
                # A loop that was interrupted may stop too early, before its threads have ended;
                # nobody waits for them then. It is closed nevertheless.
                if not loop.is_closed():
                    raise
            self._runner = None

    def _run(
        self, coroutine: Coroutine[Any, Any, Any], context: Context, variables: contextvars.Context
    ) -> Any:
        from ion_actors.backends import event_loop  # noqa: PLC0415 - it imports asyncio

        if self._runner is None:
            self._threads = LoopThreads(self._pool)
            self._runner = event_loop.make_runner(self._threads)
        assert self._threads is not None
        owner = self._threads.owner = Owner()
        self._coroutine = coroutine
        try:
            return event_loop.finish_on(self._runner, coroutine, context, variables)
        finally:
            owner.over = True
            self._coroutine = None

    @contextlib.contextmanager
    def on_top(self) -> Iterator[None]:
        """The block in which a task runs in the middle of another one.

        If the other one is a coroutine, its event loop is paused, and hidden from the new task.
        """
        below = running_loop()
        if below is None:
            yield
            return
        from ion_actors.backends import event_loop  # noqa: PLC0415 - it imports asyncio

        runner, self._runner = self._runner, None
        threads, self._threads = self._threads, None
        own, self._coroutine = self._coroutine, None
        with event_loop.hidden(below):
            try:
                yield
            finally:
                try:
                    self.stop()
                finally:
                    self._runner, self._threads, self._coroutine = runner, threads, own
