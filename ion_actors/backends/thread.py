"""Where a task runs: here, in its worker's own thread, or on that thread's event loop."""

from __future__ import annotations

import asyncio
import contextvars
import types
from collections.abc import Coroutine
from typing import Any

from ion_actors.context import Context, call_in_loop, make_current

__all__ = ["ThreadBackend"]


class ThreadBackend:
    """Runs calls in the calling thread. Belongs to one worker.

    A call that gives a coroutine is run to its end on an event loop that the worker keeps; when the
    task's context ends, the coroutine is cancelled. What it leaves running on the loop is cancelled
    too: one task's leftovers are no business of the next.
    """

    def __init__(self) -> None:
        self._runner: asyncio.Runner | None = None

    def finish(self, value: Any, context: Context, variables: contextvars.Context) -> Any:
        """What a call gave, or, if that is a coroutine, what the coroutine gives."""
        if type(value) is not types.CoroutineType:
            return value
        # The coroutine may go to other threads (asyncio.to_thread), where its context must go, too.
        variables.run(make_current, context)
        return self._run(value, context, variables)

    def stop(self) -> None:
        """Close the event loop, if there ever was one. Called by the worker's thread."""
        if self._runner is not None:
            self._runner.close()
            self._runner = None

    def _run(
        self, coroutine: Coroutine[Any, Any, Any], context: Context, variables: contextvars.Context
    ) -> Any:
        if asyncio._get_running_loop() is not None:
            return self._run_on_top(coroutine, context, variables)
        if self._runner is None:
            self._runner = asyncio.Runner()
        return _finish_on(self._runner, coroutine, context, variables)

    def _run_on_top(
        self, coroutine: Coroutine[Any, Any, Any], context: Context, variables: contextvars.Context
    ) -> Any:
        """Run it in the middle of another coroutine, which waits for it, on a loop of its own."""
        below = asyncio._get_running_loop()
        asyncio._set_running_loop(None)
        try:
            with asyncio.Runner() as runner:
                return _finish_on(runner, coroutine, context, variables)
        finally:
            asyncio._set_running_loop(below)


def _finish_on(
    runner: asyncio.Runner,
    coroutine: Coroutine[Any, Any, Any],
    context: Context,
    variables: contextvars.Context,
) -> Any:
    loop = runner.get_loop()
    try:
        return runner.run(_cancellable(coroutine, context), context=variables)
    finally:
        if leftovers := asyncio.all_tasks(loop):
            runner.run(_cancel(leftovers))


async def _cancellable(coroutine: Coroutine[Any, Any, Any], context: Context) -> Any:
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    registration = context.add_callback(lambda: call_in_loop(loop, task.cancel))
    try:
        return await coroutine
    finally:
        registration.remove()


async def _cancel(tasks: set[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
