"""Streams: the items of a generator that a worker runs, as its reader sees them.

::

    Pool.stream ──▶ a task: its worker runs the generator ──put──▶ Conduit ──take──▶ Stream

A stream is one task: it is accepted, counted, timed, cancelled and drained like any other. Its end
is the end of its future, whatever that came from, once the items before it are read.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import threading
import weakref
from _thread import get_ident
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, NoReturn, Self, TypeVar, cast

from ion_actors.awaitables import running_loop
from ion_actors.backends.stream.conduit import Conduit, Deferred
from ion_actors.backends.stream.transit import NOTHING
from ion_actors.context import current_context, helper_here, of_thread
from ion_actors.delivery import is_kept_free, run_elsewhere
from ion_actors.errors import DeadlockError, TaskNotPicklable
from ion_actors.futures import Future
from ion_actors.futures.mistakes import warn_if_blocked
from ion_actors.naming import printable
from ion_actors.workerpool.mailbox.task import TaskFuture
from ion_actors.workerpool.worker.nested_waits import WorkersHelp

if TYPE_CHECKING:
    import asyncio

__all__ = ["Entrance", "Stream", "leave_at_exit"]

T = TypeVar("T")

# Those that the interpreter's exit has to know.
_streams: weakref.WeakSet[Stream[Any]] = weakref.WeakSet()

# Items that a coroutine reads without waiting before it lets others run.
_BREATH = 32


class Entrance(NamedTuple):
    """How a task gets into a mailbox that was full when it was submitted on an event loop."""

    wait: Callable[[], object]  # blocks
    await_: Callable[[], Awaitable[object]]


class Stream(Generic[T]):
    """The items that a generator yields in a worker: what :meth:`Pool.stream` returns.

    Iterate it by ``for`` or ``async for``; any thread may, and several take turns. To iterate again
    goes on where the last one has stopped. After the last item, ``StopIteration`` comes again and
    again; an error of the generator comes once, after the items before it.

    Leave it by :meth:`close`, at the end of a ``with`` (or ``async with``) block, or by dropping
    it: that cancels the task, and its generator is closed where it runs. Nothing of this waits for
    the generator; its ``future`` can be waited for.
    """

    __slots__ = (
        "__weakref__", "_closed", "_conduit", "_entering", "_entrance", "_task", "_told", "reader",
    )  # fmt: skip

    def __init__(
        self, task: TaskFuture[Any], conduit: Conduit, entrance: Entrance | None = None
    ) -> None:
        self._closed = False
        self._told = False  # how the task ended
        self._entering = False
        self._entrance = entrance
        self._conduit = conduit
        self._task = task
        self.reader = get_ident()  #: the thread that has read last, or made it
        _streams.add(self)

    @property
    def future(self) -> Future[Any]:
        """The future of the task. Its result is what the generator returned; usually None."""
        return self._task

    @property
    def delivered(self) -> int:
        """How many items were read so far."""
        return self._conduit.taken

    # -- for threads -----------------------------------------------------------------------

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        """The next item; waits for it.

        Raises:
            StopIteration: there are no more.
            Cancelled, DeadlineExceeded: the current context has ended. The stream has not, unless
                its task has the same context.
            DeadlockError: to wait here, in a task, would be to wait for ever: no worker is left to
                run the generator. The stream is closed.
            BaseException: what the generator raised, or why the pool has ended the task.
        """
        conduit, error = self._conduit, None
        self.reader = get_ident()
        try:
            while (item := conduit.take()) is NOTHING:
                if conduit.over:
                    if (error := self._error()) is None:
                        raise StopIteration
                    raise error
                self._wait()
            return cast("T", self._open(item) if type(item) is Deferred else item)
        finally:
            del self, error  # the error's traceback holds this frame

    def _open(self, item: Deferred) -> Any:
        try:
            return item.open()
        except TaskNotPicklable:  # it cannot be rebuilt here
            self.close()
            raise
        finally:
            del self

    def _wait(self) -> None:
        try:
            if (loop := running_loop()) is not None:
                self._refuse_to_block(loop)
                warn_if_blocked(self._task, of_task=True)
            if (entrance := self._entrance) is not None:
                with self._enter():
                    entrance.wait()
            context, helper = current_context(), of_thread.helper
            if isinstance(helper, WorkersHelp):
                with helper.waiting_for_item(self._task, self._conduit, context):
                    self._conduit.wait_for_item(context)
            else:
                self._conduit.wait_for_item(context)
            if not self._conduit.ready:
                context.check()
        except DeadlockError:  # whoever keeps it must not keep the stream, which takes a worker
            self.close()
            raise
        finally:
            del self

    def _refuse_to_block(self, loop: asyncio.AbstractEventLoop) -> None:
        if loop is self._task.mailbox.loop:
            name = self._task.task_name()
            raise DeadlockError(
                f"stream {name!r} comes from the event loop that this wait would block: write "
                "`async for`, and not `for`",
                tasks=(name,),
            )

    @contextlib.contextmanager
    def _enter(self) -> Iterator[None]:
        """The block in which the task waits until it is accepted."""
        self._entering = True
        try:
            yield
            self._entrance = None
        finally:
            self._entering = False
            if self._closed:  # meanwhile
                self.close()
            del self

    # -- for coroutines --------------------------------------------------------------------

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        """:meth:`__next__` for coroutines; raises ``StopAsyncIteration`` at the end.

        To be cancelled here does not end the stream.
        """
        conduit, error = self._conduit, None
        self.reader = get_ident()
        try:
            if conduit.taken % _BREATH == _BREATH - 1:
                await _let_others_run()
            while (item := conduit.take()) is NOTHING:
                if conduit.over:
                    if (error := self._error()) is None:
                        raise StopAsyncIteration
                    raise error
                await self._await()
            return cast("T", self._open(item) if type(item) is Deferred else item)
        finally:
            del self, error

    async def _await(self) -> None:
        try:
            if (entrance := self._entrance) is not None:
                with self._enter():
                    await entrance.await_()
            context, helper = current_context(), of_thread.helper
            if isinstance(helper, WorkersHelp):
                with helper.awaiting_item(self._task, self._conduit, context):
                    await self._conduit.await_item(context)
            else:
                if (on_loop := helper_here()) is not None:
                    on_loop.help(self._task)
                await self._conduit.await_item(context)
            if not self._conduit.ready:
                context.check()
        except DeadlockError:  # as above
            self.close()
            raise
        finally:
            del self

    # -- the end ---------------------------------------------------------------------------

    def _error(self) -> BaseException | None:
        """What the task has ended with, if that is to be raised: once, and not to who has left."""
        if self._told or self._closed:
            return None
        self._told = True
        error: BaseException | None = None
        try:
            try:
                error = self._task.exception()
            except concurrent.futures.CancelledError as cancelled:
                error = cancelled
            if error is not None and isinstance(error, StopIteration | StopAsyncIteration):
                name = printable(self._task.task_name())
                raised = RuntimeError(f"stream {name!r} raised {type(error).__name__}")
                raised.__cause__ = error  # it would pass for the end
                return raised
            return error
        finally:
            del error

    def close(self) -> None:
        """Leave the stream: cancel its task, and drop the items that were not read.

        A generator that waits for room is closed at once, and its ``finally`` runs, in its worker.
        One that is at work is told by the end of its context, and closed at its next ``yield``; in
        a child process, it is forced after a while, see ``grace`` of :class:`ProcessBackend`.
        Calling twice does no harm; nothing is waited for.
        """
        self._closed = True
        try:
            if self._entrance is None:
                if not self._task.done():
                    self._task.cancel()
            elif not self._entering:
                Future.cancel(self._task)  # no pool knows it
        finally:
            self._conduit.leave()

    async def aclose(self) -> None:
        """:meth:`close`, for ``contextlib.aclosing`` and the like."""
        self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if not hasattr(self, "reader") or self._task.done():
            return  # its constructor was interrupted, or nothing is left to do
        if is_kept_free():
            run_elsewhere(_Garbage(self._task, self._conduit, self._entrance).close)
        else:
            self.close()

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("cannot pickle or copy a Stream: it is part of a process")

    def __repr__(self) -> str:
        name, count = printable(self._task.task_name()), self.delivered
        state = "closed" if self._closed else "ended" if self._conduit.over else "open"
        return f"<Stream {name!r} {state}, {count} item{'' if count == 1 else 's'} delivered>"


def leave_at_exit() -> None:
    """The main thread is at its end: it reads nothing any more, and no drain need wait for it."""
    main = threading.main_thread().ident
    for stream in list(_streams):
        if stream.reader == main and not stream.future.done():
            stream.close()


async def _let_others_run() -> None:
    import asyncio  # noqa: PLC0415 - it is large, and imported already where a loop runs

    await asyncio.sleep(0)


class _Garbage(NamedTuple):
    """What is left of a stream that was dropped."""

    task: TaskFuture[Any]
    conduit: Conduit
    entrance: Entrance | None

    def close(self) -> None:
        """Close it on a thread that may block."""
        Stream(self.task, self.conduit, self.entrance).close()
