"""What it costs to send an array to a child process and to get one back, next to a plain pickle.

::

    python -m tests.benchmarks.arrays

The child adds one to each item, which it would not have to touch otherwise. Both ways use the same
pipe; one of them puts large buffers on a file beside it.
"""

from __future__ import annotations

import functools
import multiprocessing
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from ion_actors.backends.process.transport.anonymous_file import new_file
from ion_actors.backends.process.transport.pickling import pack, unpack
from ion_actors.backends.process.transport.shared_buffers import SharedBuffers
from tests.benchmarks.command import run_contests
from tests.benchmarks.measure import Contest, Line, Target

__all__ = ["contests", "main"]

TABLE = Path(__file__).parents[2] / "docs" / "explanation" / "array-table.md"

PICKLED = "pickle through a pipe"

#: By the array's bytes.
_TARGETS = {
    64 * 1024: (Target(1.0, at_least=False, peer=PICKLED),),
    100 * 10**6: (Target(0.33, at_least=False, peer=PICKLED),),
}

#: An array's bytes, and how often it goes there and back in a run.
SIZES = ((64 * 1024, 100), (256 * 1024, 100), (1024**2, 50), (10 * 10**6, 10), (100 * 10**6, 4))


def _add_one_pickled(connection: Any) -> None:
    while (found := connection.recv()) is not None:
        found += 1
        connection.send(found)


def _add_one_shelved(connection: Any, out: Any, back: Any) -> None:
    shared = SharedBuffers(back, out)
    while (found := unpack(*shared.open(connection.recv_bytes()))) is not None:
        found += 1
        packed = pack(found)
        del found
        connection.send_bytes(shared.seal(packed))
        del packed


@contextmanager
def _child(target: Any, *args: Any) -> Iterator[Any]:
    context: Any = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=target, args=(there, *args))
    process.start()
    there.close()
    yield here
    process.join()
    here.close()


def pickled(size: int, count: int) -> tuple[float]:
    """Milliseconds for one array there and back, by ``Connection.send``."""
    with _child(_add_one_pickled) as connection:

        def exchange(array: Any) -> Any:
            connection.send(array)
            return connection.recv()

        found = _timed(exchange, size, count)
        connection.send(None)
    return found


def shelved(size: int, count: int) -> tuple[float]:
    """The same with what the process backend uses."""
    out, back = new_file(), new_file()
    with _child(_add_one_shelved, out, back) as connection:
        shared = SharedBuffers(out, back, private=True)

        def exchange(array: Any) -> Any:
            connection.send_bytes(shared.seal(pack(array)))
            return unpack(*shared.open(connection.recv_bytes()))

        found = _timed(exchange, size, count)
        connection.send_bytes(shared.seal(pack(None)))
    shared.close()
    return found


def _timed(exchange: Any, size: int, count: int) -> tuple[float]:
    """The median: the first ones pay for fresh memory, wherever it is."""
    array = np.zeros(size // 8)
    times = []
    for _ in range(count):
        began = perf_counter()
        found = exchange(array)
        total = found.sum()
        times.append(perf_counter() - began)
        assert total == array.size
        del found
    return (statistics.median(times) * 1e3,)


def contests(scale: float = 1.0) -> list[Contest]:
    """One for each size."""
    return [
        Contest(
            f"{size}",
            (Line(_title(size), "ms", _TARGETS.get(size, ())),),
            functools.partial(shelved, size, max(2, int(count * scale))),
            {PICKLED: functools.partial(pickled, size, max(2, int(count * scale)))},
        )
        for size, count in SIZES
        if scale >= 1 or size <= 1024**2
    ]


def _title(size: int) -> str:
    shown = f"{size // 10**6} MB" if size >= 10**6 else f"{size // 1024} KiB"
    return f"an array of {shown} there and back"


def main(arguments: list[str] | None = None) -> None:
    """Run the contests, print the results, and write the table if told to."""
    run_contests("tests.benchmarks.arrays", contests, rounds=5, arguments=arguments, place=TABLE)


if __name__ == "__main__":
    main()
