"""Runs a generator where a task runs, and sends its items on.

What the call returned decides, see :mod:`ion_actors.awaitables`: an iterator, an asynchronous one,
or a coroutine of one of both. Room is waited for before an item is made, so no more of them exist
than may be on their way.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any

from ion_actors.awaitables import (
    Kind,
    is_async_iterator,
    is_coroutine,
    is_iterator,
    kind_of,
    running_loop,
)
from ion_actors.backends.stream.conduit import Conduit, Outlet
from ion_actors.context import Context, current_context, of_thread
from ion_actors.naming import describe, name_of, named_after_func, printable

__all__ = ["StreamCall", "refuse_generators", "serve_streams"]

#: Makes the outlet of a stream in a child process, for so many items on their way.
OpenOutlet = Callable[[int], Outlet]

_open_outlet: OpenOutlet | None = None

# Turns of an event loop in which a cancellation comes that another thread is about to send.
_GLANCES = 1000


def serve_streams(open_outlet: OpenOutlet) -> None:
    """In a child process: the items of its generators go this way."""
    global _open_outlet  # noqa: PLW0603 - there is one for the process
    _open_outlet = open_outlet


def refuse_generators(value: object, fn: object) -> None:
    """A task has returned this, and nobody would iterate it where the task has run.

    Raises:
        TypeError: it is a generator.
    """
    kind = kind_of(value)
    if kind is Kind.GENERATOR or kind is Kind.ASYNC_GENERATOR:
        name = printable(fn if type(fn) is str else describe(fn))
        article = "a" if kind is Kind.GENERATOR else "an"
        raise TypeError(
            f"{name} returned {article} {kind.value}, whose items a worker would never make: "
            f"write stream({name}, ...) on the pool to have them made there, and iterate that"
        )


@named_after_func
class StreamCall:
    """The task of a stream.

    Args:
        func: returns the generator.
        conduit: where its items go.
    """

    __slots__ = ("_conduit", "func")

    def __init__(self, func: Callable[..., Any], conduit: Conduit) -> None:
        self.func = func
        self._conduit = conduit

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Returns what the generator returned, or a coroutine of that."""
        context = current_context()
        context.check()
        if self._conduit.over:  # it is a dead letter, or from a report
            raise TypeError(
                f"the reader of this stream has gone: call stream({describe(self.func)}, ...) again"
            )
        return _produce(self.func, self.func(*args, **kwargs), self._conduit, context)

    def __reduce__(self) -> tuple[Any, ...]:
        return _RemoteCall, (self.func, self._conduit.size)


@named_after_func
class _RemoteCall:
    """The same in a child process."""

    __slots__ = ("_size", "func")

    def __init__(self, func: Callable[..., Any], size: int) -> None:
        self.func = func
        self._size = size

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if _open_outlet is None:
            raise RuntimeError("a stream was sent to a process that is no child of a pool")
        context = current_context()
        outlet = _open_outlet(self._size)
        return _produce(self.func, self.func(*args, **kwargs), outlet, context)


def _produce(fn: object, value: Any, outlet: Outlet, context: Context) -> Any:
    if is_coroutine(value):
        return _produce_later(fn, value, outlet, context)
    if is_async_iterator(value):
        return _produce_async(value, outlet, _context_of_task() or context)
    if is_iterator(value):
        if running_loop() is not None:  # which must not be blocked: it may be others' too
            return _produce_in_turns(value, outlet, _context_of_task() or context)
        return _produce_here(value, outlet, context)
    raise TypeError(
        f"stream() needs a function that returns a generator, or another iterator; "
        f"{printable(describe(fn))} returned an object of type {name_of(type(value))}"
    )


def _context_of_task() -> Context | None:
    """The context at whose end the runner cancels a coroutine."""
    return None if of_thread.task_context is None else of_thread.task_context()


async def _be_cancelled(context: Context) -> None:
    """The context has ended, so this coroutine is cancelled, once: here, and not in a ``finally``.

    Raises:
        CancelledError: it was.
        Cancelled, DeadlineExceeded: it had been before, and has gone on.
    """
    import asyncio  # noqa: PLC0415 - it is large, and imported already where a loop runs

    task = asyncio.current_task()
    for _ in range(_GLANCES):
        await asyncio.sleep(0)
        if task is None or task.cancelling():
            break
    await asyncio.sleep(0)
    context.check()


async def _produce_later(
    fn: object, coroutine: Coroutine[Any, Any, Any], outlet: Outlet, context: Context
) -> Any:
    rest = _produce(fn, await coroutine, outlet, context)
    return await rest if is_coroutine(rest) else rest


def _produce_here(items: Iterator[Any], outlet: Outlet, context: Context) -> Any:
    try:
        while outlet.wait_for_room(context):
            try:
                item = next(items)
            except StopIteration as end:
                return end.value
            outlet.put(item)
            del item  # an error's traceback would keep it
        return None
    finally:
        if kind_of(items) is Kind.GENERATOR:
            items.close()  # type: ignore[attr-defined]


async def _produce_in_turns(items: Iterator[Any], outlet: Outlet, context: Context) -> Any:
    """:func:`_produce_here`, on an event loop. Each item lets the others have a turn."""
    import asyncio  # noqa: PLC0415 - there is a loop, so it was imported

    try:
        while await outlet.await_room(context):
            try:
                item = next(items)
            except StopIteration as end:
                return end.value
            outlet.put(item)
            del item  # as above
            await asyncio.sleep(0)
        if context.cancelled:
            await _be_cancelled(context)
        return None
    finally:
        if kind_of(items) is Kind.GENERATOR:
            items.close()  # type: ignore[attr-defined]


async def _produce_async(items: AsyncIterator[Any], outlet: Outlet, context: Context) -> None:
    try:
        while await outlet.await_room(context):
            try:
                item = await anext(items)
            except StopAsyncIteration:
                return
            outlet.put(item)
            del item  # as above
        if context.cancelled:
            await _be_cancelled(context)
    finally:
        if kind_of(items) is Kind.ASYNC_GENERATOR:
            await items.aclose()  # type: ignore[attr-defined]
