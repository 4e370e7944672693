"""The backend that runs tasks as coroutines of one event loop, many at a time.

A worker is no thread here but a slot: ``size`` of them share the loop that runs where the pool is
made, so that tasks can use its sessions, locks and connections. A pool that is made where no loop
runs gets one of its own, on one thread.

A loop that is not the pool's own may end first, as when its ``asyncio.run`` returns. The pool
learns of it in two ways. ``asyncio.run`` closes the asynchronous generators of its loop, and one of
them is the pool's *sentinel*; there, the loop still runs for a moment, in which tasks can end. Who
only closes a loop tells nobody: that is found out when something is posted to it, or
asked by :meth:`Site.is_lost`.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import sys
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, NoReturn

from typing_extensions import override

from ion_actors.backends.loop_threads import LoopThreads
from ion_actors.backends.stacks import Seen, stack_on_loop
from ion_actors.clock import start_thread, system_clock
from ion_actors.context import Context
from ion_actors.logs import Logger
from ion_actors.observe import Log
from ion_actors.own_variables import daemon_thread

__all__ = ["AsyncioBackend", "Site"]

logger = Logger("ion_actors", later=True)

# Seconds that a loop which ends first waits for its pool, and how often it looks.
_GRACE = 2.0
_GLANCE = 0.005


@dataclass(frozen=True, slots=True)
class AsyncioBackend:
    """Tasks run as coroutines of one event loop: see the module.

    Args:
        loop: the loop; by default the one that runs where the pool is made, or else a new one on a
            thread of its own. It may run in another thread, and need not run yet.
        loop_factory: makes the pool's own loop, for instance ``uvloop.new_event_loop``. With it,
            the pool has its own loop wherever it is made.
        debug: whether its own loop is in asyncio's debug mode; by default as asyncio decides.

    Raises:
        TypeError, ValueError: an argument makes no sense.
    """

    loop: asyncio.AbstractEventLoop | None = None
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    debug: bool | None = None

    def __post_init__(self) -> None:
        if self.loop is not None and not isinstance(self.loop, asyncio.AbstractEventLoop):
            raise TypeError(f"loop must be an event loop or None, not {self.loop!r}")
        if self.loop_factory is not None and not callable(self.loop_factory):
            raise TypeError(f"loop_factory must be callable, not {self.loop_factory!r}")
        if self.debug is not None and not isinstance(self.debug, bool):
            raise TypeError(f"debug must be True, False or None, not {self.debug!r}")
        if self.loop is not None and self.loop_factory is not None:
            raise ValueError("give loop or loop_factory, not both")

    @property
    def must_start(self) -> bool:
        """False: a slot needs no preparation."""
        return False

    def make_runner(self, worker: str, context: Context, log: Log) -> NoReturn:
        """Its workers have no threads, and so no runners: see :meth:`open_site`."""
        raise AssertionError("the workers of an event loop have no runners")

    def open_site(self, pool: str, context: Context, log: Log) -> Site:
        """The site for a new pool.

        Raises:
            RuntimeError: the loop was closed.
        """
        loop = self.loop
        if loop is None and self.loop_factory is None:
            with contextlib.suppress(RuntimeError):  # there is none
                loop = asyncio.get_running_loop()
        if loop is not None and loop.is_closed():
            raise RuntimeError(f"the event loop of pool {pool!r} is closed: {loop!r}")
        own = None if loop is not None else _OwnLoop(pool, context, self.loop_factory, self.debug)
        return Site(pool, loop, own, log)


class Site:
    """The loop of one pool. See :class:`~ion_actors.backends.protocol.LoopSite`.

    Args:
        pool: the pool's name.
        loop: the loop, if it is not the pool's own.
        own: the pool's own loop, if it has one.
        log: the pool's.
    """

    def __init__(
        self, pool: str, loop: asyncio.AbstractEventLoop | None, own: _OwnLoop | None, log: Log
    ) -> None:
        self._pool = pool
        self._log = log
        self._own = own
        self._posted: deque[Callable[[], object]] = deque()
        self._ringing = False  # the loop will call what is posted
        self._closed = False  # the pool has ended
        self._lost = False  # the loop has, before it
        self._on_end: Callable[[], object] = lambda: None
        self._over: Callable[[], bool] = lambda: True
        self._sentinel: AsyncGenerator[None, None] | None = None
        self._thread: threading.Thread | None = None if own is None else own.thread
        if loop is None:
            assert own is not None
            loop = own.open()
        self.loop = loop

    @property
    def own(self) -> bool:
        """Whether the loop was made for the pool."""
        return self._own is not None

    @property
    def thread(self) -> threading.Thread | None:
        """The thread that the loop runs in, as far as is known."""
        return self._thread

    def begin(self, on_end: Callable[[], object], over: Callable[[], bool]) -> None:
        """See the protocol."""
        self._on_end, self._over = on_end, over
        if self._own is not None:
            return
        if self.is_here():
            self._watch()
        else:
            self.post(self._watch)

    def is_here(self) -> bool:
        """Whether the caller runs on the loop."""
        return asyncio._get_running_loop() is self.loop

    def is_held_up(self) -> bool:
        """Whether the loop cannot go on while the caller waits."""
        if self.is_here():
            return True
        stands = not (self.loop.is_running() or self.is_lost())
        return stands and self._thread is threading.current_thread()

    def is_lost(self) -> bool:
        """Whether the loop has ended."""
        if not (self._closed or self._lost) and self.loop.is_closed():
            self._lose()
        return self._lost

    def lose_if_it_stands(self) -> None:
        """The interpreter is about to exit: a loop that does not run now will not run again."""
        if self._own is None and not (self._closed or self.loop.is_running()):
            self._lose()

    def post(self, call: Callable[[], object]) -> None:
        """Have the loop call this soon."""
        try:
            self._posted.append(call)
            if not self._ringing:  # else whoever has rung has not been heard yet: it will be found
                self._ring()
        except BaseException:  # thrown in from outside: all who post would rely on this ring
            self._ring()  # perhaps once more
            raise

    def _ring(self) -> None:
        self._ringing = True
        try:
            if self.is_here():
                self.loop.call_soon(self._call_posted)
            else:
                self.loop.call_soon_threadsafe(self._call_posted)
        except RuntimeError:
            if not self.loop.is_closed():
                raise
            self._lose()

    def _call_posted(self) -> None:
        self._ringing = False  # first: what is posted from here on rings again
        posted = self._posted
        try:
            for _ in range(len(posted)):
                posted.popleft()()
        finally:
            if posted and not self._ringing:  # something was thrown in
                self._ring()

    def start(
        self,
        coroutine: Coroutine[Any, Any, Any],
        variables: contextvars.Context,
        on_early_cancel: Callable[[], object],
    ) -> asyncio.Task[Any]:
        """Have the loop run a coroutine. See the protocol."""
        # A loop with a factory goes on making its tasks by that.
        if self.loop.get_task_factory() is not None:
            return self._start_by_factory(coroutine, variables, on_early_cancel)
        if _EAGER:
            task = _Task(coroutine, loop=self.loop, context=variables, eager_start=True)  # type: ignore[call-arg,unused-ignore]
        else:
            task = _Task(coroutine, loop=self.loop, context=variables)
        task.on_early_cancel = on_early_cancel
        return task

    def _start_by_factory(
        self,
        coroutine: Coroutine[Any, Any, Any],
        variables: contextvars.Context,
        on_early_cancel: Callable[[], object],
    ) -> asyncio.Task[Any]:
        async def run() -> None:
            await coroutine

        def begin_if_not_begun(_: object) -> None:
            if _has_not_begun(coroutine):
                on_early_cancel()
                self._start_by_factory(coroutine, variables, on_early_cancel)

        runner = run()
        try:
            made = self.loop.create_task(runner, context=variables)
        except BaseException:
            runner.close()
            raise
        made.add_done_callback(begin_if_not_begun)
        return made

    def where(self, coroutine: object) -> Seen:
        """Where a coroutine of the loop is."""
        return stack_on_loop(self._thread, coroutine)

    def close(self) -> None:
        """The pool has ended."""
        self._closed = True
        if self._own is not None:
            self._own.close()
        elif self._sentinel is not None and not self._lost:
            self.post(self._relieve)

    # -- the sentinel ------------------------------------------------------------------------

    def _watch(self) -> None:
        """On the loop: have it tell of its end."""
        self._thread = threading.current_thread()
        if self._closed:
            return
        self._sentinel = self._stand_watch()
        _step(self._sentinel.asend(None))

    async def _stand_watch(self) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            if not self._closed:
                self._lose()
                until = system_clock.monotonic() + _GRACE
                while not self._over() and system_clock.monotonic() < until:  # noqa: ASYNC110
                    # No event: whoever sets it has no loop, and this one is about to end.
                    await asyncio.sleep(_GLANCE)

    def _relieve(self) -> None:
        sentinel, self._sentinel = self._sentinel, None
        if sentinel is not None:
            _step(sentinel.aclose())

    def _lose(self) -> None:
        if not self._lost:
            self._lost = True
            self._on_end()


# The first step is made at once, where Python can do that: it need not go through the loop.
_EAGER = sys.version_info[:2] >= (3, 12)


class _Task(asyncio.Task[Any]):
    """A task whose coroutine begins in any case.

    The coroutine of a task that is cancelled before its first step never begins, so it cannot do
    what has to be done.
    """

    __slots__ = ("on_early_cancel",)

    on_early_cancel: Callable[[], object]

    @override
    def cancel(self, msg: Any | None = None) -> bool:
        # Its end first: CPython 3.12.1 crashes if asked for the coroutine of one that has ended.
        if not self.done() and _has_not_begun(self.get_coro()):
            self.on_early_cancel()
            return True
        return super().cancel(msg)


def _has_not_begun(coroutine: Any) -> bool:
    return inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED


def _step(awaitable: Any) -> None:
    """Run to its end what does not wait."""
    with contextlib.suppress(StopIteration):
        awaitable.__await__().send(None)


class _OwnLoop:
    """A loop on a thread of its own, until it is closed."""

    def __init__(
        self,
        pool: str,
        context: Context,
        factory: Callable[[], asyncio.AbstractEventLoop] | None,
        debug: bool | None,
    ) -> None:
        self._context = context
        self._factory = factory or asyncio.new_event_loop
        self._debug = debug
        self._pool = pool
        # Daemon: what is abandoned on it must not keep the interpreter from its exit.
        self.thread = daemon_thread(self._run, f"{pool}-loop")
        self._opened = threading.Lock()  # acquired until the loop is there
        self._opened.acquire()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._error: BaseException | None = None
        self._closing: asyncio.Event | None = None
        self._closed = False

    def open(self) -> asyncio.AbstractEventLoop:
        """Start the thread.

        Returns:
            The loop.

        Raises:
            RuntimeError, MemoryError, OSError: there can be no more threads.
            BaseException: what the loop's factory raised.
        """
        start_thread(self.thread)
        self._opened.acquire()
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        assert self._loop is not None
        return self._loop

    def close(self) -> None:
        """Have the loop end, once nothing runs on it any more. Never blocks."""
        self._closed = True
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # it has ended
                self._loop.call_soon_threadsafe(self._ring)

    def _ring(self) -> None:
        if self._closing is not None:
            self._closing.set()

    def _run(self) -> None:
        try:
            runner = asyncio.Runner(debug=self._debug, loop_factory=self._factory)
            loop = runner.get_loop()
            loop.set_default_executor(LoopThreads(self._context))
            self._closing = asyncio.Event()
            self._loop = loop
        except BaseException as error:
            self._error = error
            self._opened.release()
            return
        self._opened.release()
        with runner:
            while not self._closed:
                try:
                    runner.run(self._until_closed())
                except BaseException as error:  # of a callback that is not the pool's
                    logger.error(
                        "the event loop of pool %r was interrupted, and goes on", self._pool,
                        exc_info=error,
                    )  # fmt: skip

    async def _until_closed(self) -> None:
        assert self._closing is not None
        await self._closing.wait()
