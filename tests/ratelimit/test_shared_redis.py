"""Limits that processes share, in a real Redis."""

from __future__ import annotations

import asyncio
import multiprocessing
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from itertools import count
from typing import Any

import pytest
from limits.storage import RedisStorage
from redis.backoff import NoBackoff
from redis.retry import Retry

from ion_actors import RateLimited, StorageUnavailable
from ion_actors.ratelimit import SharedLimiter, WindowStrategy, per
from ion_actors.ratelimit.store import open_storage

LIMIT, WINDOW, ROUNDS = 10, 1, 3
RATE = per(LIMIT, WINDOW)

numbers = count()


class RecordingStorage(RedisStorage):
    """Notes when each grant was asked for, and when it was there."""

    STORAGE_SCHEME = None  # type: ignore[assignment]  # nothing that an address leads to

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.grants: list[tuple[float, float]] = []

    def acquire_entry(self, *args: Any, **kwargs: Any) -> bool:
        before = time.time()
        taken = super().acquire_entry(*args, **kwargs)
        if taken:
            self.grants.append((before, time.time()))
        return taken


@pytest.fixture
def key() -> str:
    return f"test-{next(numbers)}"


@pytest.fixture
def storage(redis_url: str) -> Iterator[RecordingStorage]:
    storage = RecordingStorage(redis_url)
    yield storage
    storage.get_connection().close()


def meet(barrier: threading.Barrier) -> None:
    """Begin together: a process may start much later than another."""
    barrier.wait(60)


def wait_in_threads(url: str, key: str, number: int) -> list[tuple[float, float]]:
    """To be run in a process of its own: wait so many times, four threads together."""
    storage = RecordingStorage(url)
    limiter = SharedLimiter(RATE, storage=storage, key=key)
    with ThreadPoolExecutor(4) as threads:
        for waited in [threads.submit(limiter.wait) for _ in range(number)]:
            waited.result()
    return storage.grants


def wait_in_coroutines(url: str, key: str, number: int) -> list[tuple[float, float]]:
    """The same with coroutines."""
    storage = RecordingStorage(url)
    limiter = SharedLimiter(RATE, storage=storage, key=key)

    async def main() -> None:
        await asyncio.gather(*(limiter.awaits() for _ in range(number)))

    asyncio.run(main())
    return storage.grants


def test_two_processes_together_never_exceed_the_limit(redis_url: str, key: str) -> None:
    number = LIMIT * ROUNDS // 2
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        2, mp_context=spawn, initializer=meet, initargs=(spawn.Barrier(2),)
    ) as processes:
        halves = [
            processes.submit(wait, redis_url, key, number)
            for wait in (wait_in_threads, wait_in_coroutines)
        ]
        grants = [grant for half in halves for grant in half.result(60)]
    assert len(grants) == LIMIT * ROUNDS
    # When a token was taken is only known to lie between two moments. In order of time, the n-th
    # was taken no earlier than the n-th of the earlier ones and no later than that of the later.
    earliest = sorted(before for before, _ in grants)
    latest = sorted(after for _, after in grants)
    for first, beyond in zip(earliest, latest[LIMIT:], strict=False):
        assert beyond - first > WINDOW, "more than the limit in one window"


@pytest.mark.parametrize("strategy", WindowStrategy)
def test_each_strategy_counts_for_all_who_share(
    redis_url: str, storage: RecordingStorage, key: str, strategy: WindowStrategy
) -> None:
    rate = per(5, 3600)
    opened = open_storage(redis_url)
    one = SharedLimiter(rate, storage=opened, key=key, strategy=strategy)
    two = SharedLimiter(rate, storage=storage, key=key, strategy=strategy)
    assert one.allow(3)
    assert two.tokens == 2
    assert not two.allow(3)
    assert two.allow(2)
    assert not one.allow()
    with pytest.raises(RateLimited) as caught:
        one.wait(timeout=60)
    assert 60 < caught.value.retry_after <= 3600
    one.reset()
    assert two.allow(5)
    opened.get_connection().close()


@pytest.mark.parametrize("strategy", WindowStrategy)
def test_each_strategy_lets_in_who_waits(
    storage: RecordingStorage, key: str, strategy: WindowStrategy
) -> None:
    limiter = SharedLimiter(per(3, 1), storage=storage, key=key, strategy=strategy)
    assert limiter.allow(3)
    limiter.wait(timeout=10)


def test_a_redis_that_is_not_there_is_an_error_or_let_through(key: str) -> None:
    nobody = RedisStorage("redis://127.0.0.1:1", retry=Retry(NoBackoff(), 0))  # type: ignore[arg-type]
    with pytest.raises(StorageUnavailable, match=r"Connection refused"):
        SharedLimiter(RATE, storage=nobody, key=key).wait()
    assert SharedLimiter(RATE, storage=nobody, key=key, fail_open=True).allow()
