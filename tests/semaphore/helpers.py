"""What the semaphore's tests share."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, TypeVar

from ion_actors.semaphore import WeightedSemaphore
from tests.waiting import PATIENCE, eventually

T = TypeVar("T")


def until_waiting(semaphore: WeightedSemaphore, waiters: int) -> None:
    eventually(lambda: semaphore.waiting == waiters)


def in_thread(call: Callable[..., T], *args: Any, **kwargs: Any) -> Future[T]:
    """Call it in a thread; the future tells what came of it."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(call(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name="test-helper").start()
    return future


class Loop:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="test-loop")
        self._thread.start()

    def call(self, call: Callable[..., T], *args: Any) -> T:
        """Make a plain call in the loop's thread, and wait for it; nothing comes in between."""

        async def run() -> T:
            return call(*args)

        return self.run(run())

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(PATIENCE)

    def start(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        return self.call(lambda: asyncio.ensure_future(coroutine))

    def settle(self, task: asyncio.Task[T]) -> asyncio.Task[T]:
        """Wait until the task is done, however."""

        async def wait() -> None:
            await asyncio.wait([task])

        self.run(wait())
        return task

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        self._loop.close()


@contextmanager
def event_loop() -> Iterator[Loop]:
    loop = Loop()
    try:
        yield loop
    finally:
        loop.close()
