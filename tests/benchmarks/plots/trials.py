"""What is timed. Each function makes its workers, measures once, and ends them."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import statistics
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from time import perf_counter, process_time
from typing import Any

from ion_actors import Context, Pool
from tests.benchmarks import peers

__all__ = [
    "FEATURES",
    "grain",
    "kinds",
    "map_of_lists",
    "no_ops",
    "queue_wait",
    "there_and_back",
    "workers",
]

MakeExecutor = Callable[[int], Executor]

_BLOCK = bytes(1 << 20)
_STEPS = 10_000
_WAIT = 0.005  # seconds


def _nothing() -> None:
    pass


def _spin(duration: float) -> None:
    """Be busy for so many seconds, in Python."""
    until = perf_counter() + duration
    while perf_counter() < until:
        pass


def _finish(submitted: list[Any]) -> None:
    for future in submitted:
        future.result()


def grain(make: MakeExecutor, microseconds: int, *, total: float) -> float:
    """The share of the time that one worker spends in tasks of that length, in percent.

    Args:
        make: the executor.
        microseconds: of each task.
        total: seconds that the tasks take together, about.
    """
    duration = microseconds / 1e6
    count = min(5_000, max(20, round(total / duration)))
    with make(1) as executor:
        executor.submit(_nothing).result()  # its thread has started
        began = perf_counter()
        _finish([executor.submit(_spin, duration) for _ in range(count)])
        return 100 * count * duration / (perf_counter() - began)


def _wait() -> None:
    time.sleep(_WAIT)


def _hash() -> bytes:
    return hashlib.sha256(_BLOCK).digest()


def _compute() -> int:
    total = 0
    for number in range(_STEPS):
        total += number * number
    return total


#: Work that waits; work in C that lets go of the GIL; work in Python.
kinds: dict[str, Callable[[], object]] = {
    "waiting": _wait,
    "C, releases the GIL": _hash,
    "pure Python": _compute,
}


def workers(kind: str, size: int, *, count: int) -> float:
    """Tasks of that kind per second."""
    task = kinds[kind]
    with Pool(size) as pool:
        began = perf_counter()
        _finish([pool.submit(task) for _ in range(count)])
        return count / (perf_counter() - began)


def no_ops(make: MakeExecutor, *, count: int) -> float:
    """No-op tasks per second, with 4 workers."""
    with make(4) as executor:
        began = perf_counter()
        _finish([executor.submit(_nothing) for _ in range(count)])
        return count / (perf_counter() - began)


def there_and_back(make: Callable[[], Executor], size: int) -> float:
    """Milliseconds for an array of so many bytes, to another process and back."""
    import numpy as np

    array, times = np.zeros(size, np.uint8), []
    with make() as executor:
        for _ in range(max(3, min(50, 30_000_000 // size))):
            began = perf_counter()
            executor.submit(_same, array).result()
            times.append(perf_counter() - began)
    return statistics.median(times) * 1e3


def _same(value: object) -> object:
    return value


def queue_wait(make: MakeExecutor, *, count: int) -> tuple[float, float]:
    """Milliseconds from acceptance to start, median and 99th percentile.

    4 workers, tasks that wait for 1 ms, and somebody who submits as fast as they are accepted.
    """
    started = [0.0] * count
    accepted = [0.0] * count

    def task(number: int) -> None:
        started[number] = perf_counter()
        time.sleep(0.001)

    with make(4) as executor:
        submitted = []
        for number in range(count):
            submitted.append(executor.submit(task, number))
            accepted[number] = perf_counter()
        _finish(submitted)
    # A task may begin before submit() is back.
    waits = [max(0.0, begin - at) * 1e3 for begin, at in zip(started, accepted, strict=True)]
    cuts = statistics.quantiles(waits, n=100)
    return cuts[49], cuts[98]


def map_of_lists(chunk: int, *, count: int) -> float:
    """Items per second of CPU time through ``ThreadPoolExecutor.map``, from lists of items.

    They are made of the input as it is read, which is what has to be done if it may be anything.
    """
    items = iter(range(count))
    chunks = iter(lambda: list(itertools.islice(items, chunk)), [])
    with contextlib.closing(peers.threads(4)) as peer:
        began = process_time()
        parts = peer.executor.map(_increase, chunks)
        last = deque(itertools.chain.from_iterable(parts), maxlen=1)
        took = process_time() - began
    assert last.pop() == count, "a map lost something"
    return count / took


def _increase(items: list[int]) -> list[int]:
    return [number + 1 for number in items]


# -- what each feature costs ---------------------------------------------------------------


class _Hook:
    """Metrics, tracer and span that do nothing: what is left is the price of being asked."""

    def inc(self, name: str, **labels: str) -> None: ...
    def add(self, name: str, value: float, **labels: str) -> None: ...
    def gauge(self, name: str, value: float, **labels: str) -> None: ...
    def histogram(self, name: str, value: float, **labels: str) -> None: ...
    def finish(self, error: BaseException | None = None) -> None: ...

    def start(self, name: str, **attributes: Any) -> _Hook:
        return self


def _wrapper(task: Callable[[], Any]) -> Callable[[], Any]:
    return task


async def _anothing() -> None:
    pass


def _burst(
    count: int,
    settings: dict[str, Any] | None = None,
    options: dict[str, Any] | None = None,
    task: Callable[[], Any] = _nothing,
    around: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext,
) -> float:
    """Microseconds for a task that does nothing, with one worker."""
    with Pool(1, count, **(settings or {})) as pool, around():
        submit = pool.submit if options is None else pool.options(**options).submit
        began = perf_counter()
        _finish([submit(task) for _ in range(count)])
        return (perf_counter() - began) / count * 1e6


def _of_threads(count: int) -> float:
    with ThreadPoolExecutor(1) as executor:
        began = perf_counter()
        _finish([executor.submit(_nothing) for _ in range(count)])
        return (perf_counter() - began) / count * 1e6


#: Microseconds per task with each feature, by the name that the table shows; the first is the bare
#: pool, which all others are compared with.
FEATURES: dict[str, Callable[[int], float]] = {
    "`pool.submit(fn)`": _burst,
    "`task_wrapper=`": functools.partial(_burst, settings={"task_wrapper": _wrapper}),
    "`options(name=...)`": functools.partial(_burst, options={"name": "task"}),
    "submitted inside `with Context():`": functools.partial(_burst, around=Context),
    "`options(timeout=60)`": functools.partial(_burst, options={"timeout": 60}),
    "`tracer=`": functools.partial(_burst, settings={"tracer": _Hook()}),
    "`metrics=`": functools.partial(_burst, settings={"metrics": _Hook()}),
    "a coroutine function": functools.partial(_burst, task=_anothing),
    "`ThreadPoolExecutor.submit(fn)`": _of_threads,
}
