"""What is timed. Each function makes its workers, measures, and ends them."""

from __future__ import annotations

import itertools
import threading
import tracemalloc
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from time import perf_counter
from typing import Any

from tests.benchmarks import peers
from tests.benchmarks.peers import Executing, MakePeer, Peer

__all__ = [
    "burst",
    "close",
    "growth",
    "map_of_builtin",
    "map_of_pool",
    "map_of_threads",
    "memory",
    "producers",
    "queued",
    "round_trips",
    "start",
]

_PRODUCERS = 8
_CHUNK = 1000
_REPEATS = 50  # of the burst that is too short to be timed once


def _nothing() -> None:
    pass


def _cheap(number: int) -> int:
    return number + 1


@contextmanager
def _working(make: MakePeer, size: int) -> Iterator[Peer]:
    peer = make(size)
    try:
        yield peer
    finally:
        peer.close()


class _Gate:
    """A task that keeps its worker busy until it is let go."""

    def __init__(self) -> None:
        self._entered = threading.Event()
        self._open = threading.Event()
        self.open = self._open.set

    def __call__(self) -> None:
        self._entered.set()
        self._open.wait()

    def block(self, submit: Callable[[Callable[[], object]], Any]) -> None:
        """Have a worker enter it."""
        submit(self)
        self._entered.wait()


def burst(
    make: MakePeer, size: int, count: int, clock: Callable[[], float] = perf_counter
) -> tuple[float]:
    """Tasks per second of that clock, from the first submission until all are done."""
    with _working(make, size) as peer:
        submit = peer.submitter()
        began = clock()
        peer.finish([submit(_nothing) for _ in range(count)])
        return (count / (clock() - began),)


def round_trips(make: MakePeer, size: int, count: int) -> tuple[float]:
    """Tasks per second when each is waited for before the next, after some that do not count."""
    with _working(make, size) as peer:
        for _ in range(count // 10):
            peer.call(_nothing)
        began = perf_counter()
        for _ in range(count):
            peer.call(_nothing)
        return (count / (perf_counter() - began),)


def producers(
    make: MakePeer,
    size: int,
    count: int,
    threads: int = _PRODUCERS,
    clock: Callable[[], float] = perf_counter,
) -> tuple[float]:
    """Tasks per second when so many threads submit, each waiting for its own at the end."""
    with _working(make, size) as peer:
        ready = threading.Barrier(threads + 1)

        def produce() -> None:
            submit = peer.submitter()
            ready.wait()
            peer.finish([submit(_nothing) for _ in range(count // threads)])

        crew = [threading.Thread(target=produce) for _ in range(threads)]
        for thread in crew:
            thread.start()
        ready.wait()
        began = clock()
        for thread in crew:
            thread.join()
        return (count // threads * threads / (clock() - began),)


def memory(make: MakePeer, count: int) -> tuple[float]:
    """Bytes for each task that waits behind a blocked worker, by tracemalloc."""
    with _working(make, 1) as peer:
        gate, submit = _Gate(), peer.submitter()
        gate.block(submit)
        tracemalloc.start()
        try:
            for _ in range(count):
                submit(_nothing)
            return (tracemalloc.get_traced_memory()[0] / count,)
        finally:
            tracemalloc.stop()
            gate.open()


def close(peer: Executing, end: Callable[[], object], count: int) -> tuple[float]:
    """Milliseconds to end it, for good, with that many tasks queued behind a blocked worker."""
    gate, submit = _Gate(), peer.submitter()
    gate.block(submit)
    for _ in range(count - 1):
        submit(_nothing)
    # The last one to be cancelled lets the worker go.
    submit(_nothing).add_done_callback(lambda _: gate.open())
    began = perf_counter()
    end()
    return ((perf_counter() - began) * 1e3,)


def start(make: MakePeer, size: int) -> tuple[float]:
    """Milliseconds to have all the workers at work, and to end them."""
    began = perf_counter()
    make(size).close()
    return ((perf_counter() - began) * 1e3,)


def growth(make: MakePeer, few: int, many: int) -> tuple[float, float, float]:
    """Microseconds for a task, to queue and to run, when few and when many are queued; their ratio.

    They are queued behind a blocked worker, and all futures are kept until all are done.
    """
    with _working(make, 1) as peer:
        first = sum(_queue_and_run(peer, few) for _ in range(_REPEATS)) / _REPEATS
        last = _queue_and_run(peer, many)
    return first * 1e6, last * 1e6, last / first


def queued(make: MakePeer, count: int, clock: Callable[[], float] = perf_counter) -> tuple[float]:
    """Tasks per second of that clock, queued and run, when so many are queued."""
    with _working(make, 1) as peer:
        return (1 / _queue_and_run(peer, count, clock),)


def _queue_and_run(peer: Peer, count: int, clock: Callable[[], float] = perf_counter) -> float:
    """Seconds for each task."""
    gate, submit = _Gate(), peer.submitter()
    gate.block(submit)
    began = clock()
    submitted = [submit(_nothing) for _ in range(count)]
    gate.open()
    peer.finish(submitted[-1:])  # there is one worker, so it is the last
    return (clock() - began) / count


def map_of_pool(
    size: int, count: int, chunk: int = _CHUNK, clock: Callable[[], float] = perf_counter
) -> tuple[float]:
    """Items per second through ``Pool.map`` in chunks."""
    with closing(peers.pool(size)) as peer:
        pool = peer.executor
        return _drawn(lambda: pool.map(_cheap, range(count), chunksize=chunk), count, clock)


def map_of_threads(
    size: int, count: int, chunk: int = _CHUNK, clock: Callable[[], float] = perf_counter
) -> tuple[float]:
    """The same with chunks made by hand, as ``ThreadPoolExecutor.map`` makes none."""
    with closing(peers.threads(size)) as peer:
        executor = peer.executor
        chunks = (range(at, min(at + chunk, count)) for at in range(0, count, chunk))
        return _drawn(
            lambda: itertools.chain.from_iterable(executor.map(_map_chunk, chunks)), count, clock
        )


def map_of_builtin(count: int) -> tuple[float]:
    """The same without anybody's help."""
    return _drawn(lambda: map(_cheap, range(count)), count)


def _map_chunk(chunk: range) -> list[int]:
    return list(map(_cheap, chunk))


def _drawn(
    begin: Callable[[], Iterator[int]], count: int, clock: Callable[[], float] = perf_counter
) -> tuple[float]:
    began = clock()
    last = deque(begin(), maxlen=1)
    took = clock() - began
    assert last.pop() == count, "a map lost something"
    return (count / took,)
