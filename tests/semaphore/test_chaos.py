"""Many threads and coroutines, each with whims of its own; in the end nothing is missing."""

from __future__ import annotations

import asyncio
import random
import threading
from concurrent.futures import Future
from typing import Any

import pytest

from ion_actors import AcquireTimeout, Cancelled, Context, Pool
from ion_actors.semaphore import Fairness, WeightedSemaphore
from tests.semaphore.helpers import PATIENCE, in_thread

CAPACITY = 7


class Guarded:
    """A resource that notices when more of it is in use than there is."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards both
        self._used = 0
        self.peak = 0

    def use(self, permits: int) -> None:
        with self._lock:
            self._used += permits
            self.peak = max(self.peak, self._used)

    def leave(self, permits: int) -> None:
        with self._lock:
            self._used -= permits


def thread(one: WeightedSemaphore, resource: Guarded, seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(150):
        permits = chance.randint(1, CAPACITY)
        try:
            if chance.random() < 0.2:
                if not one.try_acquire(permits):
                    continue
            else:
                one.acquire(permits, timeout=chance.choice([None, 0.0005, 0.002]))
        except AcquireTimeout:
            continue
        resource.use(permits)
        if chance.random() < 0.3:
            threading.Event().wait(0.0002)
        resource.leave(permits)
        one.release(permits)


async def coroutines(one: WeightedSemaphore, resource: Guarded, seed: int) -> None:
    chance = random.Random(seed)

    async def work(permits: int) -> None:
        async with one.hold(permits):
            resource.use(permits)
            try:
                await asyncio.sleep(0)
            finally:
                resource.leave(permits)

    async def cancel_some(tasks: list[asyncio.Task[None]]) -> None:
        for task in chance.sample(tasks, len(tasks) // 3):
            await asyncio.sleep(0)
            task.cancel()

    for _ in range(15):
        tasks = [asyncio.create_task(work(chance.randint(1, CAPACITY))) for _ in range(12)]
        await cancel_some(tasks)
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            assert outcome is None or isinstance(outcome, asyncio.CancelledError)


def contexts(one: WeightedSemaphore, resource: Guarded, seed: int) -> None:
    """Waits that are ended from another thread."""
    chance = random.Random(seed)
    for _ in range(60):
        with Context() as context:
            permits = chance.randint(1, CAPACITY)
            killer = threading.Timer(chance.random() * 0.001, context.cancel)
            killer.start()
            try:
                with one.hold(permits):
                    resource.use(permits)
                    resource.leave(permits)
            except Cancelled:
                assert context.cancelled
            finally:
                killer.join()


@pytest.mark.parametrize("fairness", Fairness)
def test_in_the_end_every_permit_is_back(fairness: Fairness) -> None:
    one = WeightedSemaphore(CAPACITY, fairness=fairness)
    resource = Guarded()
    crew: list[Future[Any]] = [
        *(in_thread(thread, one, resource, seed) for seed in range(6)),
        *(in_thread(asyncio.run, coroutines(one, resource, seed)) for seed in range(2)),
        in_thread(contexts, one, resource, 1),
    ]
    for each in crew:
        each.result(PATIENCE * 3)
    assert one.available == CAPACITY
    assert one.waiting == 0
    assert 1 < resource.peak <= CAPACITY


def test_a_pool_with_tasks_that_are_cancelled_leaves_every_permit() -> None:
    one = WeightedSemaphore(2)
    chance = random.Random(1)
    with Pool(6, task_wrapper=one.wrap) as pool:
        futures = [pool.submit(threading.Event().wait, 0.0005) for _ in range(200)]
        for future in chance.sample(futures, 100):
            future.cancel()
    assert (one.available, one.waiting) == (2, 0)
