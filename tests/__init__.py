"""The tests lie as the library does: one folder for each package; see docs/contributing.md."""

from __future__ import annotations

import gc
import itertools
import os
import sys
from collections.abc import Iterator, Sequence

import pytest

__all__ = ["THOROUGH", "collect_garbage", "needs_threads_at_exit", "rounds", "slow_first"]

#: Marks tests in which a thread is started once the exit has begun.
needs_threads_at_exit = pytest.mark.skipif(
    (3, 12) <= sys.version_info < (3, 12, 2),
    reason="CPython 3.12.0 and 3.12.1 start no thread then (issue 113964)",
)

#: Whether time does not matter: ``make soak-tests``, where all is repeated more often.
THOROUGH = os.environ.get("HYPOTHESIS_PROFILE") == "thorough"


def rounds(usual: int, thorough: int) -> int:
    """How often a test repeats what it leaves to chance, or how much of it there is."""
    return thorough if THOROUGH else usual


def collect_garbage() -> None:
    """Collect it, and have what is left never be looked through again.

    That is what pytest and modules keep until the end. There is more of it with each test, and
    many tests collect garbage. Not for use while a test has objects that are to be collected later.
    """
    gc.collect()
    gc.freeze()


def slow_first(slow: Sequence[bool], processes: int) -> Iterator[int]:
    """In which order so many processes begin the tests, given which of them are slow.

    pytest-xdist gives each process an equal part of the list. Each part begins with its slow tests.
    """
    tardy = [number for number, is_slow in enumerate(slow) if is_slow]
    quick = iter([number for number, is_slow in enumerate(slow) if not is_slow])
    left = len(slow)
    for process in range(processes):
        mine, size = tardy[process::processes], left // (processes - process)
        yield from mine
        yield from itertools.islice(quick, max(0, size - len(mine)))
        left -= size
    yield from quick
