"""The two drivers of a run: for threads, and for coroutines.

Both pull the source as long as there is room and no output is ready; then, once for each output, so
that the workers stay busy while the consumer is, too.
"""

from __future__ import annotations

import contextlib
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Generator,
    Iterable,
    Iterator,
)
from typing import TYPE_CHECKING, Any, Final

from ion_actors.awaitables import Kind, kind_of
from ion_actors.clock import Timer
from ion_actors.context import Signal, Waker, call_in_loop, current_context
from ion_actors.delivery import is_kept_free, run_elsewhere
from ion_actors.logs import Logger
from ion_actors.pipeline.run import Run
from ion_actors.raised import add_note

if TYPE_CHECKING:
    import asyncio

__all__ = ["outputs", "outputs_async"]

logger = Logger("ion_actors")

_END: Final = object()

# A plain source that is pulled by a coroutine lets other coroutines run after so many items.
_BREATH = 32


def outputs(run: Run, source: Iterable[Any]) -> Generator[Any, None, None]:
    """The outputs of a run, for threads."""
    items: Iterator[Any] | None = None
    failed = False
    try:
        run.begin()
        items = iter(source)
        while _forward(run, items):
            yield run.flow.take()
    except GeneratorExit:
        raise
    except BaseException:
        failed = True
        raise
    finally:
        run.end()
        _close(items, quietly=failed)


def _forward(run: Run, items: Iterator[Any]) -> bool:
    """Go on until there is an output. Returns whether there is one."""
    before = run.flow.pulled
    while True:
        run.advance()
        if run.closed:
            return False
        if run.flow.ready and (run.flow.pulled > before or not run.flow.wants):
            return True
        if run.flow.wants:
            _pull(run, items)
        elif run.flow.over:
            return False
        else:
            _wait(run)


def _pull(run: Run, items: Iterator[Any]) -> None:
    try:
        item = next(items, _END)
    except Exception as error:
        add_note(error, "in the source of the pipeline")
        raise
    if item is _END:
        run.flow.exhaust()
    else:
        run.flow.pull(item)


def _wait(run: Run) -> None:
    run.help()
    signal = Signal()
    run.wake = signal.set
    try:
        registration = current_context().add_callback(Waker(signal.set))
        try:
            if not run.news:
                signal.wait(run.clock, run.flow.due)
        finally:
            registration.remove()
    finally:
        run.wake = None


def _close(items: Iterator[Any] | None, *, quietly: bool) -> None:
    """End the source, if it is a generator. An error of its own must not hide the first one."""
    if kind_of(items) is not Kind.GENERATOR:
        return
    if is_kept_free():  # the run was garbage, and was found on a thread of the library
        run_elsewhere(items.close)  # type: ignore[union-attr]
        return
    try:
        items.close()  # type: ignore[union-attr]
    except Exception:
        if not quietly:
            raise
        logger.exception("the source of a pipeline failed when it was closed")


# -- coroutines --------------------------------------------------------------------------------


async def outputs_async(
    run: Run, source: Iterable[Any] | AsyncIterable[Any]
) -> AsyncGenerator[Any, None]:
    """The outputs of a run, for coroutines. An asynchronous source is pulled in its own task."""
    feed: _Feed | None = None
    failed = False
    try:
        run.begin()
        feed = _Feed(run, source)
        while await _forward_async(run, feed):
            yield run.flow.take()
    except GeneratorExit:
        raise
    except BaseException:
        failed = True
        raise
    finally:
        run.end()
        if feed is not None:
            await feed.close(quietly=failed)


async def _forward_async(run: Run, feed: _Feed) -> bool:
    before = run.flow.pulled
    while True:
        run.advance()
        pulled = run.flow.pulled > before
        if run.closed:
            return False
        if feed.take():
            continue
        if run.flow.ready and (pulled or feed.pending or not run.flow.wants):
            return True
        if run.flow.wants and not feed.pending:
            await feed.pull()
        elif run.flow.over:
            return False
        else:
            await _await(run)


class _Feed:
    """The source of a run on an event loop."""

    def __init__(self, run: Run, source: Iterable[Any] | AsyncIterable[Any]) -> None:
        self._run = run
        self._items: Iterator[Any] | AsyncIterator[Any] = (
            source.__aiter__() if isinstance(source, AsyncIterable) else iter(source)
        )
        self._pull: asyncio.Task[Any] | None = None

    @property
    def pending(self) -> bool:
        """Whether an item has been asked for."""
        return self._pull is not None

    async def pull(self) -> None:
        """Ask for an item."""
        import asyncio  # noqa: PLC0415 - it is large, and imported already where a loop runs

        if not isinstance(self._items, AsyncIterator):
            _pull(self._run, self._items)
            if self._run.flow.pulled % _BREATH == 0:
                await asyncio.sleep(0)
            return
        self._pull = asyncio.ensure_future(_next(self._items))
        self._pull.add_done_callback(lambda _: self._run.arrive(None))

    def take(self) -> bool:
        """Put the item in that was asked for. Returns whether it was there."""
        if self._pull is None or not self._pull.done():
            return False
        pull, self._pull = self._pull, None
        try:
            item = pull.result()
        except Exception as error:
            add_note(error, "in the source of the pipeline")
            raise
        if item is _END:
            self._run.flow.exhaust()
        else:
            self._run.flow.pull(item)
        return True

    async def close(self, *, quietly: bool) -> None:
        """End the source, if it is a generator."""
        import asyncio  # noqa: PLC0415 - see above

        if self._pull is not None and not self._pull.done():
            self._pull.cancel()
            await asyncio.wait([self._pull])
        if self._pull is not None and not self._pull.cancelled():
            self._pull.exception()  # nobody else asks for it
        if not isinstance(self._items, AsyncIterator):
            _close(self._items, quietly=quietly)
        elif kind_of(self._items) is Kind.ASYNC_GENERATOR:
            try:
                await self._items.aclose()  # type: ignore[attr-defined]
            except Exception:
                if not quietly:
                    raise
                logger.exception("the source of a pipeline failed when it was closed")


async def _next(items: AsyncIterator[Any]) -> Any:
    return await anext(items, _END)


async def _await(run: Run) -> None:
    import asyncio  # noqa: PLC0415 - see above

    run.help()
    loop = asyncio.get_running_loop()
    woken = asyncio.Event()

    def wake() -> None:
        call_in_loop(loop, woken.set)

    timer: Timer | None = None
    run.wake = wake
    try:
        with _told(wake):
            if (due := run.flow.due) is not None:
                timer = run.clock.call_at(due, wake)
            if not run.news:
                await woken.wait()
    finally:
        run.wake = None
        if timer is not None:
            timer.cancel()


@contextlib.contextmanager
def _told(wake: Callable[[], object]) -> Iterator[None]:
    """Have the end of the current context wake the driver, inside the block."""
    registration = current_context().add_callback(Waker(wake))
    try:
        yield
    finally:
        registration.remove()
