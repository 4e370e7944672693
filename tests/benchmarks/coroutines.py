"""Coroutines on one event loop, 50 at a time, next to what else limits them.

::

    python -m tests.benchmarks.coroutines

``aiojobs`` and ``aiometer`` take part if they are installed (the extra ``bench``). All run the same
coroutine, which does nothing, so what is measured is the work around it.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import importlib.util
import tracemalloc
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import perf_counter

from ion_actors import Pool
from tests.benchmarks.command import run_contests
from tests.benchmarks.measure import Contest, Line, Target

__all__ = ["contests", "main"]

TABLE = Path(__file__).parents[2] / "docs" / "explanation" / "coroutine-table.md"

STANDARD = "Semaphore and TaskGroup"
AIOJOBS = "aiojobs"
AIOMETER = "aiometer"
TASK = "asyncio.Task"

LESS = Target(1.0, at_least=False, peer=TASK)

_AT_ONCE = 50
_QUEUE = 1000

#: Runs so many coroutines, and returns when all have ended.
Runs = Callable[[int], Awaitable[object]]


async def nothing() -> None:
    """The task."""


# -- who takes part ----------------------------------------------------------------------------


async def submitted(count: int) -> None:
    """Ours: all are submitted, and then awaited."""
    async with Pool(_AT_ONCE, count, backend="asyncio") as pool:
        futures = [pool.submit(nothing) for _ in range(count)]
        for future in futures:
            await future


async def fed(count: int) -> None:
    """Ours with a bound: who submits waits for room."""
    async with Pool(_AT_ONCE, _QUEUE, backend="asyncio") as pool:
        for _ in range(count):
            await pool.asubmit(nothing)


async def mapped(count: int) -> None:
    """Ours, by ``amap``."""
    async with Pool(_AT_ONCE, _QUEUE, backend="asyncio") as pool:
        async for _ in pool.amap(_ignore, range(count)):
            pass


async def _ignore(_: int) -> None:
    pass


async def standard(count: int) -> None:
    """What the standard library's documentation leads to."""
    free = asyncio.Semaphore(_AT_ONCE)

    async def limited() -> None:
        async with free:
            await nothing()

    async with asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(limited())


async def aiojobs(count: int) -> None:
    """The scheduler of aiojobs."""
    import aiojobs as module

    async with module.Scheduler(limit=_AT_ONCE, pending_limit=_QUEUE) as scheduler:
        for _ in range(count):
            await scheduler.spawn(nothing())
        await scheduler.wait_and_close()


async def aiometer(count: int) -> None:
    """``aiometer.run_on_each``."""
    import aiometer as module

    await module.run_on_each(_ignore, list(range(count)), max_at_once=_AT_ONCE)


# -- measures ----------------------------------------------------------------------------------


def rate(run: Runs, count: int) -> tuple[float]:
    """Tasks per second."""

    async def timed() -> float:
        gc.collect()
        began = perf_counter()
        await run(count)
        return count / (perf_counter() - began)

    return (asyncio.run(timed()),)


async def _bytes_queued(count: int) -> float:
    async with Pool(1, count, backend="asyncio") as pool:
        over = asyncio.Event()
        pool.submit(over.wait)
        await asyncio.sleep(0)
        before = tracemalloc.get_traced_memory()[0]
        kept = [pool.submit(nothing) for _ in range(count)]
        used = tracemalloc.get_traced_memory()[0] - before
        over.set()
        await kept[-1]
        return used / count


async def _bytes_of_tasks(count: int) -> float:
    free = asyncio.Semaphore(0)

    async def limited() -> None:
        async with free:
            await nothing()

    before = tracemalloc.get_traced_memory()[0]
    kept = [asyncio.ensure_future(limited()) for _ in range(count)]
    await asyncio.sleep(0)  # each of them waits now
    used = tracemalloc.get_traced_memory()[0] - before
    for task in kept:
        task.cancel()
    await asyncio.wait(kept)
    return used / count


def memory(run: Callable[[int], Awaitable[float]], count: int) -> tuple[float]:
    """Bytes of a task that waits for its turn."""
    tracemalloc.start()
    try:
        return (asyncio.run(_awaited(run(count))),)
    finally:
        tracemalloc.stop()


async def _awaited(one: Awaitable[float]) -> float:
    return await one


def contests(scale: float = 1.0) -> list[Contest]:
    """All of them; the sizes are for a few seconds in all."""
    count = max(100, int(20_000 * scale))
    peers: dict[str, Runs] = {STANDARD: standard}
    targets = [Target(0.8, at_least=True, peer=STANDARD)]
    for name, peer in ((AIOJOBS, aiojobs), (AIOMETER, aiometer)):
        if importlib.util.find_spec(name) is not None:
            peers[name] = peer
            targets.append(Target(1.5, at_least=True, peer=name))
    rivals = {name: functools.partial(rate, peer, count) for name, peer in peers.items()}
    lines = {
        "submit": (f"{count} no-ops, submitted and then awaited", submitted),
        "asubmit": (f"the same by asubmit, {_QUEUE} queued at most", fed),
        "amap": ("the same by amap", mapped),
    }
    return [
        Contest(
            key,
            (Line(title, "tasks/s", tuple(targets)),),
            functools.partial(rate, run, count),
            rivals,
        )
        for key, (title, run) in lines.items()
    ] + [
        Contest(
            f"memory-{number}",
            (
                Line(
                    f"memory of a waiting task ({number} are)",
                    "B",
                    (Target(1.0, at_least=False, peer=TASK),),
                ),
            ),
            functools.partial(memory, _bytes_queued, number),
            {TASK: functools.partial(memory, _bytes_of_tasks, number)},
            max_rounds=2,
        )
        for number in (max(50, int(1_000 * scale)), max(60, int(100_000 * scale)))
    ]


def main(arguments: list[str] | None = None) -> None:
    """Run the contests, print the results, and write the table if told to."""
    run_contests(
        "tests.benchmarks.coroutines", contests, rounds=7, arguments=arguments, place=TABLE
    )


if __name__ == "__main__":
    main()
