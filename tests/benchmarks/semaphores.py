"""What acquiring and releasing costs, next to the same with the peers.

::

    pip install aiologic
    python -m tests.benchmarks.semaphores

A peer that is not installed is left out. As everywhere here, all take turns, and the ratios are
those of one round.
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import importlib.util
import threading
from collections.abc import Awaitable, Callable, Mapping
from time import perf_counter
from typing import Any

from ion_actors import Context
from ion_actors.semaphore import WeightedSemaphore
from ion_actors.testing import RecordingMetrics
from tests.benchmarks.command import run_contests
from tests.benchmarks.measure import Contest, Line, Measure

__all__ = ["contests", "main"]

_THREADS = 8
_FREE = 4  # permits: more than are ever wanted at once, or for the queue fewer

#: How to take a permit, and how to give it back.
Verbs = tuple[Callable[[], object], Callable[[], object]]
AsyncVerbs = tuple[Callable[[], Awaitable[object]], Callable[[], object]]


def ours(permits: int = _FREE) -> Verbs:
    """With everything as it is by default."""
    one = WeightedSemaphore(permits)
    return one.acquire, one.release


def ours_async(permits: int = _FREE) -> AsyncVerbs:
    """The same for coroutines."""
    one = WeightedSemaphore(permits)
    return one.aacquire, one.release


def ours_observed(permits: int = _FREE) -> Verbs:
    """With a metrics hook, which only remembers."""
    one = WeightedSemaphore(permits, metrics=RecordingMetrics())
    return one.acquire, one.release


def stdlib(permits: int = _FREE) -> Verbs:
    """What knows when too many are released, as ours does."""
    one = threading.BoundedSemaphore(permits)
    return one.acquire, one.release


def stdlib_async(permits: int = _FREE) -> AsyncVerbs:
    """The same of asyncio."""
    one = asyncio.BoundedSemaphore(permits)
    return one.acquire, one.release


def aiologic(permits: int = _FREE) -> Verbs:
    """The package aiologic."""
    one: Any = importlib.import_module("aiologic").BoundedSemaphore(permits)
    return one.green_acquire, one.green_release


def aiologic_async(permits: int = _FREE) -> AsyncVerbs:
    """The same for coroutines."""
    one: Any = importlib.import_module("aiologic").BoundedSemaphore(permits)
    return one.async_acquire, one.async_release


def free(make: Callable[[], Verbs], count: int) -> tuple[float]:
    """Microseconds to take a free permit and to give it back."""
    acquire, release = make()
    began = perf_counter()
    for _ in range(count):
        acquire()
        release()
    return ((perf_counter() - began) / count * 1e6,)


def free_in_context(count: int) -> tuple[float]:
    """The same of ours under a context, which it looks at each time."""
    with Context():
        return free(ours, count)


def free_async(make: Callable[[], AsyncVerbs], count: int) -> tuple[float]:
    """The same in a coroutine."""

    async def work() -> float:
        acquire, release = make()
        began = perf_counter()
        for _ in range(count):
            await acquire()
            release()
        return (perf_counter() - began) / count * 1e6

    return (asyncio.run(work()),)


def queue(make: Callable[[int], Verbs], count: int) -> tuple[float]:
    """Times per second that a single permit goes round among 8 threads."""
    acquire, release = make(1)
    ready = threading.Barrier(_THREADS + 1)

    def work() -> None:
        ready.wait()
        for _ in range(count):
            acquire()
            release()

    crew = [threading.Thread(target=work) for _ in range(_THREADS)]
    for thread in crew:
        thread.start()
    ready.wait()
    began = perf_counter()
    for thread in crew:
        thread.join()
    return (_THREADS * count / (perf_counter() - began),)


def contests(scale: float = 1.0) -> list[Contest]:
    """All of them; the sizes are for a few seconds in all."""
    count, few = int(50_000 * scale), int(500 * scale)
    installed = importlib.util.find_spec("aiologic") is not None
    threads: dict[str, Callable[..., Verbs]] = {"threading.BoundedSemaphore": stdlib}
    loops: dict[str, Callable[..., AsyncVerbs]] = {"asyncio.BoundedSemaphore": stdlib_async}
    if installed:
        threads["aiologic"], loops["aiologic"] = aiologic, aiologic_async
    variants = {
        "ours, under a context": functools.partial(free_in_context, count),
        "ours, with a metrics hook": functools.partial(free, ours_observed, count),
    }
    return [
        _contest("free", Line("acquire and release, free", "µs"), free, ours, threads, count,
                 variants),
        _contest("async", Line("the same in a coroutine", "µs"), free_async, ours_async, loops,
                 count),
        _contest("queue", Line("8 threads, 1 permit", "grants/s"), queue, ours, threads, few),
    ]  # fmt: skip


def _contest(
    key: str,
    line: Line,
    measure: Callable[[Any, int], tuple[float, ...]],
    make: Callable[..., object],
    peers: Mapping[str, Callable[..., object]],
    count: int,
    more: Mapping[str, Measure] | None = None,
) -> Contest:
    rivals = {name: functools.partial(measure, peer, count) for name, peer in peers.items()}
    return Contest(
        key, (line,), functools.partial(measure, make, count), {**rivals, **(more or {})}
    )


def main(arguments: list[str] | None = None) -> None:
    """Run the contests and print the results."""
    run_contests("tests.benchmarks.semaphores", contests, rounds=7, arguments=arguments)


if __name__ == "__main__":
    main()
