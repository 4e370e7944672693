"""``map`` over a pool: a window of tasks that moves along the input.

The window bounds what is under way, so the input may be endless and the results are never heaped
up. A task is one call, or a chunk of them with a list for their results, which keeps those that
came before an error.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import itertools
import queue
import time
from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Iterable,
    Iterator,
)
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from ion_actors._arguments import seconds, whole_number
from ion_actors.context import background, of_thread
from ion_actors.futures import Future
from ion_actors.workerpool.report import Wrapping

__all__ = ["Plan", "as_they_come", "in_order", "in_order_async"]

T = TypeVar("T")
R = TypeVar("R")


class _Submits(Protocol):
    def submit(self, fn: Callable[..., R], /, *args: Any) -> Future[R]: ...
    async def asubmit(self, fn: Callable[..., R], /, *args: Any) -> Future[R]: ...


@dataclass(frozen=True, slots=True)
class Plan(Generic[T]):
    """The checked arguments of a map."""

    fn: Callable[..., T]
    iterables: tuple[Iterable[Any] | AsyncIterable[Any], ...]
    timeout: float | None
    deadline: float | None
    chunksize: int
    window: int

    @classmethod
    def checked(
        cls,
        fn: Callable[..., T],
        iterables: tuple[Iterable[Any] | AsyncIterable[Any], ...],
        timeout: float | None,
        chunksize: int,
        buffersize: int | None,
        size: int,
    ) -> Plan[T]:
        """The plan for these arguments on a pool of ``size`` workers.

        Raises:
            TypeError, ValueError: one of them makes no sense.
        """
        if not callable(fn):
            raise TypeError(f"fn must be callable, not {fn!r}")
        limit = seconds("timeout", timeout)
        return cls(
            fn,
            iterables,
            limit,
            None if limit is None else time.monotonic() + limit,
            whole_number("chunksize", chunksize, minimum=1),
            (
                max(64, 4 * size)
                if buffersize is None
                else whole_number("buffersize", buffersize, minimum=1)
            ),
        )

    def left(self) -> float | None:
        """Seconds until the deadline."""
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())

    def too_late(self) -> TimeoutError:
        """What to raise if a wait for what was left was in vain."""
        return TimeoutError(f"not all results of the map had come within {self.timeout:g} seconds")


class _Chunk(Wrapping, Generic[T]):
    """Several calls as one task, with their results as they come."""

    __slots__ = ("items", "results")

    def __init__(self, func: Callable[..., T], items: list[tuple[Any, ...]]) -> None:
        self.func = func
        self.items = items
        self.results: list[T] = []

    def __call__(self) -> None:
        items, self.items = self.items, []
        # extend() takes the results one by one: those before an error stay.
        self.results.extend(itertools.starmap(self.func, items))

    def __reduce__(self) -> tuple[Any, ...]:
        return _RemoteChunk, (self.func, self.items)


class _RemoteChunk(Generic[T]):
    """A chunk in another process, from where the results have to be sent back."""

    def __init__(self, func: Callable[..., T], items: list[tuple[Any, ...]]) -> None:
        self._func = func
        self._items = items

    def __call__(self) -> list[T]:
        results: list[T] = []
        try:
            results.extend(itertools.starmap(self._func, self._items))
        except Exception as error:
            error._ion_results = results  # type: ignore[attr-defined]  # it is what goes back
            raise
        return results


#: A task of the window, and the list its results are in; None for a single call.
_Piece = tuple[Future[Any], "list[Any] | None"]
_Rows = list[tuple[Any, ...]]


def _submit(submitter: _Submits, plan: Plan[Any], rows: _Rows) -> _Piece:
    if plan.chunksize == 1:
        return submitter.submit(plan.fn, *rows[0]), None
    chunk = _Chunk(plan.fn, rows)
    return submitter.submit(chunk), chunk.results


async def _asubmit(submitter: _Submits, plan: Plan[Any], rows: _Rows) -> _Piece:
    if plan.chunksize == 1:
        return await submitter.asubmit(plan.fn, *rows[0]), None
    chunk = _Chunk(plan.fn, rows)
    return await submitter.asubmit(chunk), chunk.results


def _chunks(plan: Plan[Any]) -> Iterator[_Rows]:
    rows = zip(*plan.iterables)  # noqa: B905  # as map() does
    while chunk := list(itertools.islice(rows, plan.chunksize)):
        yield chunk


def _of_chunk(future: Future[Any], here: list[Any], error: BaseException | None) -> list[Any]:
    """The results of a chunk, which may have been made in another process."""
    if here:
        return here
    if error is None:
        return future.result() or []
    there: list[Any] = error.__dict__.pop("_ion_results", [])
    return there


def _outcome(piece: _Piece, timeout: float | None) -> tuple[list[Any], BaseException | None]:
    """The values of a piece, the last one first, and the error that came after them, if any.

    Raises:
        TimeoutError: it was not done in time. (An error of the task's own is never raised here.)
    """
    future, results = piece
    error: BaseException | None = None
    try:
        try:
            error = future.exception(timeout)
        except concurrent.futures.CancelledError as cancelled:
            error = cancelled
        if results is None:
            return ([] if error is not None else [future.result()]), error
        return _of_chunk(future, results, error)[::-1], error
    finally:
        del piece, future, error  # the error of a task that is run here holds this frame, too


def _cancel(pieces: Iterable[_Piece]) -> None:
    for future, _ in pieces:
        future.cancel()


def in_order(submitter: _Submits, plan: Plan[T]) -> Iterator[T]:
    """The results in the order of the input. The first window is submitted at once."""
    chunks = _chunks(plan)
    window: deque[_Piece] = deque()
    try:
        for rows in itertools.islice(chunks, plan.window):
            window.append(_submit(submitter, plan, rows))
    except BaseException:
        _cancel(window)
        raise
    return _in_order(submitter, plan, chunks, window)


def _in_order(
    submitter: _Submits, plan: Plan[T], chunks: Iterator[_Rows], window: deque[_Piece]
) -> Iterator[T]:
    error: BaseException | None = None
    try:
        while window:
            try:
                values, error = _outcome(window[0], plan.left())
            except TimeoutError as late:
                if type(late) is not TimeoutError:  # the end of a context
                    raise
                raise plan.too_late() from None
            window.popleft()
            if error is None:
                for rows in itertools.islice(chunks, 1):  # before yielding: workers stay busy
                    window.append(_submit(submitter, plan, rows))
            while values:
                yield values.pop()  # held by nobody but the one who takes it
            if error is not None:
                raise error
    finally:
        error = None  # its traceback holds this frame
        _cancel(window)


def as_they_come(submitter: _Submits, plan: Plan[T]) -> Iterator[T]:
    """The results as the tasks finish. The first window is submitted at once."""
    chunks = _chunks(plan)
    arrivals = _Arrivals()
    try:
        for rows in itertools.islice(chunks, plan.window):
            arrivals.expect(_submit(submitter, plan, rows))
    except BaseException:
        _cancel(arrivals.expected.items())
        raise
    return _as_they_come(submitter, plan, chunks, arrivals)


def _as_they_come(
    submitter: _Submits, plan: Plan[T], chunks: Iterator[_Rows], arrivals: _Arrivals
) -> Iterator[T]:
    error: BaseException | None = None
    try:
        while arrivals.expected:
            try:
                piece = arrivals.next(plan.left())
            except TimeoutError as late:
                if type(late) is not TimeoutError:  # the end of a context
                    raise
                raise plan.too_late() from None
            values, error = _outcome(piece, None)
            del piece  # it holds its task
            if error is None:
                for rows in itertools.islice(chunks, 1):
                    arrivals.expect(_submit(submitter, plan, rows))
            while values:
                yield values.pop()
            if error is not None:
                raise error
    finally:
        error = None
        _cancel(arrivals.expected.items())


class _Arrivals:
    """Tasks under way, and those of them that are done, in the order in which they were."""

    def __init__(self) -> None:
        self.expected: dict[Future[Any], list[Any] | None] = {}
        self._done: queue.SimpleQueue[Future[Any]] = queue.SimpleQueue()

    def expect(self, piece: _Piece) -> None:
        """Await one more."""
        future, results = piece
        self.expected[future] = results
        future.add_done_callback(self._done.put)

    def next(self, timeout: float | None) -> _Piece:
        """Wait for the next one to be done.

        Raises:
            TimeoutError: none was, in time.
        """
        self._help()
        try:
            future = self._done.get(timeout=timeout)
        except queue.Empty:
            raise TimeoutError from None
        try:
            return future, self.expected.pop(future)
        finally:
            del self, future  # as in _outcome()

    def _help(self) -> None:
        """Inside a task of the same pool: run what is queued, as long as nothing is done."""
        if (helper := of_thread.helper) is None:
            return
        future = None
        try:
            for future in list(self.expected):
                if not self._done.empty():
                    return
                helper.help(future)
        finally:
            del self, future  # as in _outcome()


async def in_order_async(submitter: _Submits, plan: Plan[T]) -> AsyncIterator[T]:
    """The results in the order of the input, without blocking the event loop."""
    window: deque[_Piece] = deque()
    error: BaseException | None = None
    chunks = _achunks(plan)
    try:
        async for rows in chunks:
            window.append(await _asubmit(submitter, plan, rows))
            if len(window) >= plan.window:
                break
        while window:
            try:
                async with asyncio.timeout(plan.left()):
                    await _done(window[0][0])
            except TimeoutError as late:
                if type(late) is not TimeoutError:  # the end of a context
                    raise
                raise plan.too_late() from None
            values, error = _outcome(window.popleft(), None)
            if error is None:
                async for rows in chunks:
                    window.append(await _asubmit(submitter, plan, rows))
                    break
            while values:
                yield values.pop()
            if error is not None:
                raise error
    finally:
        error = None
        _cancel(window)
        await chunks.aclose()


async def _done(future: Future[Any]) -> None:
    """Wait until it is done, whatever its outcome; cancelling this leaves it alone."""
    await background().await_(future)


async def _achunks(plan: Plan[Any]) -> AsyncGenerator[_Rows, None]:
    chunk: _Rows = []
    async for row in _azip(plan.iterables):
        chunk.append(row)
        if len(chunk) == plan.chunksize:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


async def _azip(
    iterables: tuple[Iterable[Any] | AsyncIterable[Any], ...],
) -> AsyncGenerator[tuple[Any, ...], None]:
    sources = [
        one.__aiter__() if isinstance(one, AsyncIterable) else iter(one) for one in iterables
    ]
    while sources:
        row = []
        for source in sources:
            try:
                row.append(
                    await anext(source) if isinstance(source, AsyncIterator) else next(source)
                )
            except (StopIteration, StopAsyncIteration):
                return
        yield tuple(row)
