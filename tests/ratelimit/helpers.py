"""What several of these tests need."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from ion_actors.ratelimit import Limiter
from tests.waiting import PATIENCE, eventually

__all__ = ["PATIENCE", "eventually", "queue_up"]


def queue_up(
    limiter: Limiter, threads: ThreadPoolExecutor, *amounts: int, **options: Any
) -> list[Future[None]]:
    """Threads that wait for so many tokens each, in this order."""
    futures = []
    for n in amounts:
        behind = limiter.waiting
        futures.append(threads.submit(limiter.wait, n, **options))
        eventually(lambda: limiter.waiting > behind or futures[-1].done())
    return futures
