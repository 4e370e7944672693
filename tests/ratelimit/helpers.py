"""What several of these tests need."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from ion_actors.ratelimit import Limiter

__all__ = ["PATIENCE", "queue_up", "until"]

PATIENCE = 30.0


def until(condition: Callable[[], bool]) -> None:
    """Wait for what another thread is about to do."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.0005)


def queue_up(
    limiter: Limiter, threads: ThreadPoolExecutor, *amounts: int, **options: Any
) -> list[Future[None]]:
    """Threads that wait for so many tokens each, in this order."""
    futures = []
    for n in amounts:
        behind = limiter.waiting
        futures.append(threads.submit(limiter.wait, n, **options))
        until(lambda: limiter.waiting > behind or futures[-1].done())
    return futures
