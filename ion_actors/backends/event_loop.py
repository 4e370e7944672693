"""How coroutines run to their end on the event loop that a worker keeps.

Imported with the first coroutine: ``asyncio`` is large, and most pools run plain functions.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections.abc import Coroutine, Iterator
from typing import Any

from ion_actors.backends.loop_threads import LoopThreads
from ion_actors.context import Context, call_in_loop

__all__ = ["finish_on", "hidden", "make_runner"]


def make_runner(threads: LoopThreads) -> asyncio.Runner:
    """A runner whose loop makes blocking calls in these threads."""
    runner = asyncio.Runner()
    runner.get_loop().set_default_executor(threads)
    return runner


@contextlib.contextmanager
def hidden(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """The block in which this loop, which runs in this thread, seems not to run."""
    coroutine = _swap_current(loop, None)
    asyncio._set_running_loop(None)
    try:
        yield
    finally:
        asyncio._set_running_loop(loop)
        _swap_current(loop, coroutine)


def _swap_current(loop: asyncio.AbstractEventLoop, task: Any) -> Any:
    """Set the loop's current task, in Pythons where a thread has only one. Returns it."""
    swap = getattr(asyncio.tasks, "_swap_current_task", None)  # from 3.12 on
    return None if swap is None else swap(loop, task)


def finish_on(
    runner: asyncio.Runner,
    coroutine: Coroutine[Any, Any, Any],
    context: Context,
    variables: contextvars.Context,
) -> Any:
    """The result of this coroutine; whatever it leaves running on the loop is cancelled."""
    loop = runner.get_loop()
    try:
        value, error = runner.run(_cancellable(coroutine, context), context=variables)
    finally:
        if leftovers := asyncio.all_tasks(loop):
            runner.run(_cancel(leftovers))
    if error is None:
        return value
    try:
        raise error
    finally:
        del error


async def _cancellable(
    coroutine: Coroutine[Any, Any, Any], context: Context
) -> tuple[Any, Exception | None]:
    """Its result, or its error as a value: asyncio reads an error's ``__class__``, which may raise.

    Its loop would then never end.
    """
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    registration = context.add_callback(lambda: call_in_loop(loop, task.cancel))
    try:
        return await coroutine, None
    except Exception as error:
        return None, error
    finally:
        registration.remove()


async def _cancel(tasks: set[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
