"""Pools on Ray next to what comes with Ray: small tasks, chunks, large arrays, the start.

::

    python -m tests.benchmarks.on_ray

All have 2 workers (the start: 4), on one cluster on this machine, and live as long as the
measurement. ``ActorPool`` is given as many actors, each with a method that does the task; the
``Pool`` of ``ray.util.multiprocessing`` does the chunks. Pools with ``isolate=True`` are set
against those without. It needs the extra ``ray``.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
from collections.abc import Callable, Iterator
from time import perf_counter, sleep
from typing import Any

from ion_actors import Pool, RayBackend
from tests.benchmarks.command import run_contests
from tests.benchmarks.measure import Contest, Line, Target

__all__ = ["contests", "main"]

ACTOR_POOL = "ActorPool"
RAYS_POOL = "ray.util.multiprocessing"
BARE = "bare actors"
DIRECT = "the pool without isolate"

WORKERS = 2

_ARRAY = 10_000_000  # bytes


# -- what they do ------------------------------------------------------------------------------


def noop(value: int) -> int:
    """Nothing."""
    return value


def wait(value: int) -> int:
    """Wait for a millisecond."""
    sleep(0.001)
    return value


def increased(array: Any) -> Any:
    """An array of the same size."""
    return array + 1


class Does:
    """What each actor of the peers does."""

    def noop(self, value: int) -> int:
        """Nothing."""
        return value

    def wait(self, value: int) -> int:
        """Wait for a millisecond."""
        return wait(value)

    def increased(self, array: Any) -> Any:
        """An array of the same size."""
        return array + 1


@functools.cache
def ours() -> Pool:
    """Our pool."""
    return _warm(ours, Pool(WORKERS, backend="ray"))


@functools.cache
def isolated() -> Pool:
    """Our pool, with tasks in children of the actors."""
    return _warm(isolated, Pool(WORKERS, backend=RayBackend(isolate=True)))


def _warm(made: Any, pool: Pool) -> Pool:
    _end_of(made, pool.close)
    for one in [pool.submit(noop, number) for number in range(1000)]:
        one.result()
    return pool


@functools.cache
def actor_pool() -> Any:
    """The one with actors."""
    import ray
    from ray.util import ActorPool

    kind = ray.remote(num_cpus=0)(Does)
    found = ActorPool([kind.remote() for _ in range(WORKERS)])
    list(found.map(lambda actor, value: actor.noop.remote(value), range(100)))
    return found


@functools.cache
def rays_pool() -> Any:
    """The one that is like multiprocessing's."""
    from ray.util.multiprocessing import Pool as RaysPool

    found = RaysPool(WORKERS)
    _end_of(rays_pool, found.terminate)
    found.map(noop, range(1000), chunksize=100)
    return found


_ends = contextlib.ExitStack()


def _end_of(made: Any, end: Callable[[], object]) -> None:
    _ends.callback(made.cache_clear)
    _ends.callback(end)


def burst(count: int, fn: Callable[[int], int], made: Callable[[], Pool] = ours) -> tuple[float]:
    """Tasks per second, submitted at once."""
    pool = made()
    began = perf_counter()
    for one in [pool.submit(fn, number) for number in range(count)]:
        one.result()
    return (count / (perf_counter() - began),)


def burst_of_actors(count: int, method: str) -> tuple[float]:
    """The same through ActorPool."""
    pool = actor_pool()
    began = perf_counter()
    for _ in pool.map(lambda actor, value: getattr(actor, method).remote(value), range(count)):
        pass
    return (count / (perf_counter() - began),)


def arrays(count: int, made: Callable[[], Pool] = ours) -> tuple[float]:
    """Arrays of 10 MB there and back, per second."""
    pool, array = made(), _array()
    began = perf_counter()
    for found in pool.map(increased, [array] * count):
        assert found[-1] == 1
    return (count / (perf_counter() - began),)


def arrays_of_actors(count: int) -> tuple[float]:
    """The same through ActorPool."""
    pool, array = actor_pool(), _array()
    began = perf_counter()
    for found in pool.map(lambda actor, value: actor.increased.remote(value), [array] * count):
        assert found[-1] == 1
    return (count / (perf_counter() - began),)


def _array() -> Any:
    import numpy

    return numpy.zeros(_ARRAY // 8)


def mapped(count: int) -> tuple[float]:
    """Items per second in chunks of 100."""
    pool = ours()
    began = perf_counter()
    for _ in pool.map(noop, range(count), chunksize=100):
        pass
    return (count / (perf_counter() - began),)


def mapped_by_ray(count: int) -> tuple[float]:
    """The same through Ray's pool."""
    pool = rays_pool()
    began = perf_counter()
    pool.map(noop, range(count), chunksize=100)
    return (count / (perf_counter() - began),)


def start(isolate: bool = False) -> tuple[float]:
    """Milliseconds until each of four workers may have done a task, and the end."""
    began = perf_counter()
    with Pool(4, backend=RayBackend(isolate=isolate)) as pool:
        for one in [pool.submit(wait, 1) for _ in range(4)]:
            one.result()
        while len(pool.dump().workers) < 4 or any(one.starting for one in pool.dump().workers):
            sleep(0.005)
        took = perf_counter() - began
    return (took * 1e3,)


def start_bare() -> tuple[float]:
    """The same with four actors."""
    import ray

    kind = ray.remote(num_cpus=0)(Does)
    began = perf_counter()
    actors = [kind.remote() for _ in range(4)]
    ray.get([one.noop.remote(1) for one in actors])
    took = perf_counter() - began
    for one in actors:
        ray.kill(one)
    return (took * 1e3,)


@contextlib.contextmanager
def cluster() -> Iterator[None]:
    """While there is one, as our backend starts it."""
    from ion_actors.backends.ray.connection import connect

    # Else each of our actors would compile the library, which no installed one has to.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    before = signal.getsignal(signal.SIGTERM)
    connection = connect("local", {"num_cpus": 16, "object_store_memory": 500_000_000})
    signal.signal(signal.SIGTERM, before)
    try:
        yield
    finally:
        _ends.close()
        connection.close()
        signal.signal(signal.SIGTERM, before)


def contests(scale: float = 1.0) -> list[Contest]:
    """All of them."""
    many, some, items, few = (max(8, int(count * scale)) for count in (3_000, 1_000, 50_000, 40))
    return [
        _contest("noop", "no-op tasks", "tasks/s", 4.0,
                 functools.partial(burst, many, noop),
                 functools.partial(burst_of_actors, many, "noop")),
        _contest("wait", "tasks that wait for 1 ms", "tasks/s", 1.1,
                 functools.partial(burst, some, wait),
                 functools.partial(burst_of_actors, some, "wait")),
        _contest("map", "map in chunks of 100", "items/s", 1.2,
                 functools.partial(mapped, items),
                 functools.partial(mapped_by_ray, items), RAYS_POOL),
        _contest("arrays", "arrays of 10 MB", "tasks/s", 0.9,
                 functools.partial(arrays, few), functools.partial(arrays_of_actors, few)),
        _contest("start", "start of 4 workers", "ms", 1.2, start, start_bare, BARE),
        _contest("agent-noop", "no-op tasks, isolated", "tasks/s", 0.5,
                 functools.partial(burst, many, noop, isolated),
                 functools.partial(burst, many, noop), DIRECT),
        _contest("agent-wait", "tasks that wait for 1 ms, isolated", "tasks/s", 0.8,
                 functools.partial(burst, some, wait, isolated),
                 functools.partial(burst, some, wait), DIRECT),
        _contest("agent-arrays", "arrays of 10 MB, isolated", "tasks/s", 0.3,
                 functools.partial(arrays, few, isolated), functools.partial(arrays, few), DIRECT),
        _contest("agent-start", "start of 4 workers, isolated", "ms", 2.5,
                 functools.partial(start, True), start, DIRECT),
    ]  # fmt: skip


def _contest(
    key: str,
    title: str,
    unit: str,
    bound: float,
    pool: Callable[[], tuple[float, ...]],
    peer: Callable[[], tuple[float, ...]],
    name: str = ACTOR_POOL,
) -> Contest:
    target = Target(bound, unit != "ms", name)
    return Contest(key, (Line(title, unit, (target,)),), pool, {name: peer})


def main(arguments: list[str] | None = None) -> None:
    """Run the contests, print the results, and write the table if told to."""
    with cluster():
        run_contests("tests.benchmarks.on_ray", contests, rounds=9, arguments=arguments)


if __name__ == "__main__":
    main()
