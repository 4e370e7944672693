"""``map`` over a pool: a window of tasks that moves along the input.

The window bounds what is under way, so the input may be endless and the results are never heaped
up.
"""

from __future__ import annotations

import concurrent.futures
import functools
import itertools
from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Generator,
    Iterable,
    Iterator,
    Sequence,
)
from dataclasses import dataclass
from types import GeneratorType
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, cast

from ion_actors._arguments import seconds, whole_number
from ion_actors.clock import Clock, system_clock
from ion_actors.context import Context, Signal, current_context, helper_here
from ion_actors.futures import Future
from ion_actors.futures.callbacks import quick
from ion_actors.naming import describe
from ion_actors.workerpool.chunk import Chunk, Results, results_of

if TYPE_CHECKING:
    from ion_actors.workerpool.progress.displays import MapProgress
    from ion_actors.workerpool.progress.tracker import Tracker

__all__ = ["Plan", "as_they_come", "in_order", "in_order_async"]

T = TypeVar("T")
R = TypeVar("R")


class _Submits(Protocol):
    def submit(self, fn: Callable[..., R], /, *args: Any) -> Future[R]: ...
    async def asubmit(self, fn: Callable[..., R], /, *args: Any) -> Future[R]: ...


@dataclass(slots=True, eq=False, repr=False)
class Plan(Generic[T]):
    """The checked arguments of a map."""

    fn: Callable[..., T]
    iterables: tuple[Iterable[Any] | AsyncIterable[Any], ...]
    timeout: float | None
    deadline: float | None
    chunksize: int
    window: int
    clock: Clock
    tracker: Tracker | None  # of the progress, if that is to be shown
    refuses_generators: bool  # see Dialect

    @classmethod
    def checked(
        cls,
        fn: Callable[..., T],
        iterables: tuple[Iterable[Any] | AsyncIterable[Any], ...],
        timeout: float | None,
        chunksize: int,
        buffersize: int | None,
        size: int,
        clock: Clock,
        progress: MapProgress,
        name: str | None,
        refuses_generators: bool,
    ) -> Plan[T]:
        """The plan for these arguments on a pool of ``size`` workers that goes by this clock.

        The ``name`` is what the options say, or None.

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
            None if limit is None else clock.monotonic() + limit,
            whole_number("chunksize", chunksize, minimum=1),
            _window(buffersize, size),
            clock,
            (
                None
                if progress is None or progress is False
                else _tracker(progress, iterables, describe(fn, name), clock)
            ),
            refuses_generators,
        )

    def left(self) -> float | None:
        """Seconds until the deadline."""
        return None if self.deadline is None else max(0.0, self.deadline - self.clock.monotonic())

    def context(self) -> Context:
        """The current context, to wait by this map's clock."""
        current = current_context()
        return current if current.clock is self.clock else Context(current, clock=self.clock)

    def through(self, submitter: _Submits) -> _Submits:
        """What the tasks are to be submitted by, so that they are tracked if they have to be."""
        return submitter if self.tracker is None else _Tracked(submitter, self.tracker)

    def too_late(self) -> TimeoutError:
        """What to raise if a wait for what was left was in vain."""
        return TimeoutError(f"not all results of the map had come within {self.timeout:g} seconds")


def _window(buffersize: int | None, size: int) -> int:
    """How many tasks may be under way, with that many workers."""
    if buffersize is None:
        return max(64, 4 * size)
    # In the words of concurrent.futures.
    if isinstance(buffersize, bool) or not isinstance(buffersize, int):
        raise TypeError(f"buffersize must be an integer or None, not {buffersize!r}")
    if buffersize < 1:
        raise ValueError(f"buffersize must be None or > 0, not {buffersize!r}")
    return int.__int__(buffersize)


def _tracker(
    progress: MapProgress, iterables: Iterable[object], name: str, clock: Clock
) -> Tracker | None:
    from ion_actors.workerpool.progress import displays, tracker  # noqa: PLC0415 - seldom needed

    display = displays.checked_display(progress, displays.total_of(iterables), name, clock)
    return None if display is None else tracker.Tracker(display)


#: A task of the window, and the list its results are in; None for a single call.
_Piece = tuple[Future[Any], "list[Any] | None"]
#: The arguments of several calls: tuples, or if each call has one, this itself.
_Rows = Sequence[Any]


def _submit(submitter: _Submits, plan: Plan[Any], rows: _Rows) -> _Piece:
    if plan.chunksize == 1:
        return submitter.submit(plan.fn, *rows[0]), None
    chunk = Chunk(plan.fn, rows, plan.refuses_generators, packed=len(plan.iterables) > 1)
    return submitter.submit(chunk), chunk.results


async def _asubmit(submitter: _Submits, plan: Plan[Any], rows: _Rows) -> _Piece:
    if plan.chunksize == 1:
        return await submitter.asubmit(plan.fn, *rows[0]), None
    chunk = Chunk(plan.fn, rows, plan.refuses_generators)
    return await submitter.asubmit(chunk), chunk.results


class _Tracked:
    """Submits as its submitter does, and has the tracker expect what it has submitted."""

    def __init__(self, submitter: _Submits, tracker: Tracker) -> None:
        self._submitter = submitter
        self._tracker = tracker

    def submit(self, fn: Callable[..., R], /, *args: Any) -> Future[R]:
        return self._expect(fn, self._submitter.submit(fn, *args))

    async def asubmit(self, fn: Callable[..., R], /, *args: Any) -> Future[R]:
        return self._expect(fn, await self._submitter.asubmit(fn, *args))

    def _expect(self, fn: object, future: Future[R]) -> Future[R]:
        try:
            self._tracker.expect(future, len(fn.items) if type(fn) is Chunk else 1)
            return future
        finally:
            del future  # as in _outcome()


def _chunks(plan: Plan[Any]) -> Iterator[_Rows]:
    if plan.chunksize > 1 and len(plan.iterables) == 1:
        items: Any = plan.iterables[0]
        if type(items) in (range, tuple, list):
            return _slices(items, plan.chunksize)
        return _pulled(iter(items), plan.chunksize)
    return _pulled(zip(*plan.iterables), plan.chunksize)  # noqa: B905  # as map() does


def _pulled(rows: Iterator[Any], size: int) -> Iterator[_Rows]:
    while chunk := list(itertools.islice(rows, size)):
        yield chunk


def _slices(items: Sequence[Any], size: int) -> Iterator[_Rows]:
    """:func:`_pulled` of such an object, of which its iterator gives the same."""
    for start in itertools.count(0, size):
        rows = items[start : start + size]
        if rows:
            yield rows
        if len(rows) < size:  # its iterator has ended, even if the list becomes longer
            return


def _outcome(piece: _Piece) -> tuple[list[Any], BaseException | None]:
    """The values of a piece, and the error that came after them, if any.

    Waits for it. An error of the task's own is never raised here.

    Raises:
        Cancelled, DeadlineExceeded: the current context ended first.
    """
    future, results = piece
    error: BaseException | None = None
    try:
        try:
            error = future.exception()
        except concurrent.futures.CancelledError as cancelled:
            error = cancelled
        if results is None:
            return ([] if error is not None else [future.result()]), error
        return results_of(future, results, error), error
    finally:
        del piece, future, error  # the error of a task that is run here holds this frame, too


#: The values of a piece, to be handed on one by one.
_Batch = Iterable[Any]


def _batch(values: list[Any]) -> _Batch:
    return values if type(values) is Results and values.light else _one_by_one(values)


def _one_by_one(values: list[Any]) -> Iterator[Any]:
    """Each is held by nobody but the one who takes it."""
    values.reverse()
    while values:
        yield values.pop()


class _MapResults(itertools.chain[T]):
    """The results of a map. It hands them on in C, which takes a fraction of a generator's time."""

    _batches: _Batches[T]

    @classmethod
    def of(cls, batches: Generator[_Batch, None, None]) -> _MapResults[T]:
        """The results in these batches; ``close()`` closes the generator."""
        source: _Batches[T] = _Batches(batches)
        made: Any = cls.from_iterable(source)
        made._batches = source
        return cast("_MapResults[T]", made)

    def close(self) -> None:
        """Leave the map: what has not come is cancelled."""
        self._batches.close()


class _Batches(Generic[T]):
    """Takes the batches from their generator, for one thread at a time."""

    def __init__(self, batches: Generator[_Batch, None, None]) -> None:
        self._generator = cast("GeneratorType[_Batch, None, None]", batches)
        self.close = batches.close
        self._shared = False

    def __iter__(self) -> Iterator[_Batch]:
        return self

    def __next__(self) -> _Batch:
        if self._generator.gi_running:
            self._shared = True  # an error ends the iteration in C, for all threads
        batch = next(self._generator)
        if self._shared:
            raise ValueError("the results of a map were taken by two threads at the same time")
        return batch


def _in_time(future: Future[Any], plan: Plan[Any]) -> bool:
    """Wait until a future is done; whether it was before the map's time was up.

    Raises:
        Cancelled, DeadlineExceeded: the current context ended first.
    """
    try:
        if plan.clock is not system_clock:
            return plan.context().wait(future, plan.left())
        future.exception(plan.left())  # the same in less time
    except concurrent.futures.CancelledError:  # this comes again when the outcome is asked for
        return True
    except TimeoutError as late:
        if type(late) is not TimeoutError:  # the end of a context
            raise
        return False
    finally:
        del future  # as in _outcome()
    return True


def _rings(bell: Future[Any], plan: Plan[Any]) -> bool:
    """:func:`_in_time` for a future that is no task: if the context ends, nothing else says so."""
    return plan.context().wait(bell, plan.left())


async def _in_time_async(future: Future[Any], plan: Plan[Any]) -> bool:
    """:func:`_in_time` for coroutines."""
    try:
        return future.done() or await plan.context().await_(future, plan.left())
    finally:
        del future  # as in _outcome()


async def _until_done(future: Future[Any], plan: Plan[Any]) -> None:
    try:
        if plan.tracker is not None:
            await plan.tracker.await_(future, functools.partial(_in_time_async, plan=plan))
        if not await _in_time_async(future, plan):
            raise plan.too_late()
    finally:
        del future


def _cancel(pieces: Iterable[_Piece]) -> None:
    for future, _ in pieces:
        future.cancel()


def _end(pieces: Iterable[_Piece], plan: Plan[Any]) -> None:
    """The results were all taken, or the map failed or was left."""
    try:
        _cancel(pieces)
    finally:
        if plan.tracker is not None:
            plan.tracker.finish()


def in_order(submitter: _Submits, plan: Plan[T]) -> Iterator[T]:
    """The results in the order of the input. The first window is submitted at once."""
    submitter = plan.through(submitter)
    chunks = _chunks(plan)
    window: deque[_Piece] = deque()
    try:
        for rows in itertools.islice(chunks, plan.window):
            window.append(_submit(submitter, plan, rows))
    except BaseException:
        _cancel(window)
        raise
    return _MapResults.of(_in_order(submitter, plan, chunks, window))


def _in_order(
    submitter: _Submits, plan: Plan[Any], chunks: Iterator[_Rows], window: deque[_Piece]
) -> Generator[_Batch, None, None]:
    values: list[Any] = []
    error: BaseException | None = None
    tracker = plan.tracker
    try:
        if tracker is not None:
            tracker.begin()
        while window:
            if tracker is not None:
                tracker.wait(window[0][0], functools.partial(_rings, plan=plan))
            if plan.deadline is not None and not _in_time(window[0][0], plan):
                raise plan.too_late()
            values, error = _outcome(window[0])
            if tracker is not None:
                tracker.take(window[0][0])
            window.popleft()
            if error is None:
                for rows in itertools.islice(chunks, 1):  # before yielding: workers stay busy
                    window.append(_submit(submitter, plan, rows))
            yield _batch(values)
            if error is not None:
                raise error
    finally:
        error = None  # its traceback holds this frame
        values.clear()  # it was left in the middle of them
        _end(window, plan)


def as_they_come(submitter: _Submits, plan: Plan[T]) -> Iterator[T]:
    """The results as the tasks finish. The first window is submitted at once."""
    submitter = plan.through(submitter)
    chunks = _chunks(plan)
    arrivals = _Arrivals()
    try:
        for rows in itertools.islice(chunks, plan.window):
            arrivals.expect(_submit(submitter, plan, rows))
    except BaseException:
        _cancel(arrivals.expected.items())
        raise
    return _MapResults.of(_as_they_come(submitter, plan, chunks, arrivals))


def _as_they_come(
    submitter: _Submits, plan: Plan[Any], chunks: Iterator[_Rows], arrivals: _Arrivals
) -> Generator[_Batch, None, None]:
    values: list[Any] = []
    error: BaseException | None = None
    tracker = plan.tracker
    try:
        if tracker is not None:
            tracker.begin()
        while arrivals.expected:
            if (piece := arrivals.next(plan)) is None:
                raise plan.too_late()
            values, error = _outcome(piece)
            if tracker is not None:
                tracker.take(piece[0])
            del piece  # it holds its task
            if error is None:
                for rows in itertools.islice(chunks, 1):
                    arrivals.expect(_submit(submitter, plan, rows))
            yield _batch(values)
            if error is not None:
                raise error
    finally:
        error = None
        values.clear()
        _end(arrivals.expected.items(), plan)


class _Arrivals:
    """Tasks under way, and those of them that are done, in the order in which they were."""

    def __init__(self) -> None:
        self.expected: dict[Future[Any], list[Any] | None] = {}
        self._done: deque[Future[Any]] = deque()
        self._signal: Signal | None = None  # of the one who waits, while nothing is done

    def expect(self, piece: _Piece) -> None:
        """Await one more."""
        future, results = piece
        self.expected[future] = results
        future.add_done_callback(self._arrived)

    @quick
    def _arrived(self, future: Future[Any]) -> None:
        self._done.append(future)  # first: who waits looks for it after giving its signal
        if (signal := self._signal) is not None:
            signal.set()

    def next(self, plan: Plan[Any]) -> _Piece | None:
        """Wait for the next one to be done; None if none was, in time.

        Raises:
            Cancelled, DeadlineExceeded: the current context ended first.
        """
        self._help()
        if not self._done:
            self._wait(plan)
        if not self._done:
            return None
        future = self._done.popleft()
        try:
            return future, self.expected.pop(future)
        finally:
            del self, future  # as in _outcome()

    def _wait(self, plan: Plan[Any]) -> None:
        context = plan.context()
        self._signal = signal = Signal()
        registration = context.add_callback(signal.set)
        try:
            if not self._done:
                signal.wait(plan.clock, plan.deadline)
        finally:
            registration.remove()
            self._signal = None
        if not self._done:
            context.check()

    def _help(self) -> None:
        """Inside a task of the same pool: run what is queued, as long as nothing is done."""
        if (helper := helper_here()) is None:
            return
        future = None
        try:
            for future in list(self.expected):
                if self._done:
                    return
                helper.help(future)
        finally:
            del self, future  # as in _outcome()


async def in_order_async(submitter: _Submits, plan: Plan[T]) -> AsyncIterator[T]:
    """The results in the order of the input, without blocking the event loop."""
    submitter = plan.through(submitter)
    tracker = plan.tracker
    window: deque[_Piece] = deque()
    error: BaseException | None = None
    chunks = _achunks(plan)
    try:
        if tracker is not None:
            tracker.begin()
        async for rows in chunks:
            window.append(await _asubmit(submitter, plan, rows))
            if len(window) >= plan.window:
                break
        while window:
            # To cancel this wait leaves the task alone; the rest is cancelled below.
            await _until_done(window[0][0], plan)
            values, error = _outcome(window[0])
            if tracker is not None:
                tracker.take(window[0][0])
            window.popleft()
            if error is None:
                async for rows in chunks:
                    window.append(await _asubmit(submitter, plan, rows))
                    break
            values.reverse()
            while values:
                yield values.pop()
            if error is not None:
                raise error
    finally:
        error = None
        _end(window, plan)
        await chunks.aclose()


async def _achunks(plan: Plan[Any]) -> AsyncGenerator[_Rows, None]:
    chunk: list[Any] = []
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
