"""What a call through a circuit breaker costs, next to the same with its peers.

::

    pip install pybreaker circuitbreaker
    python -m tests.benchmarks.breakers

A peer that is not installed is left out. As everywhere here, all take turns, and the ratios are
those of one round.
"""

from __future__ import annotations

import functools
import importlib
import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from time import perf_counter, thread_time
from typing import Any, cast

from ion_actors.circuit import CircuitBreaker, FailureRate
from tests.benchmarks.command import run_contests
from tests.benchmarks.measure import Contest, Line

__all__ = ["contests", "main"]

_THREADS = 8
_WAIT = 0.001  # seconds
_QUIET = logging.getLogger("tests.benchmarks.breakers")
_QUIET.setLevel(logging.CRITICAL)  # else it says that circuits open

#: Calls a function through a breaker.
Through = Callable[[Callable[[], object]], object]


def _nothing() -> None:
    pass


def _refused() -> None:
    raise ConnectionError


def _call(fn: Callable[[], object]) -> object:
    return fn()


# Each as a decorator: the one way that all of them have.


def ours() -> Through:
    """With everything as it is by default."""
    return CircuitBreaker("benchmark", logger=_QUIET)(_call)


def pybreaker() -> Through:
    """The package pybreaker."""
    decorate: Any = importlib.import_module("pybreaker").CircuitBreaker()
    return cast("Through", decorate(_call))


def circuitbreaker() -> Through:
    """The package circuitbreaker."""
    decorate: Any = importlib.import_module("circuitbreaker").CircuitBreaker(name="benchmark")
    return cast("Through", decorate(_call))


def bare() -> Through:
    """No breaker at all."""
    return _call


def calls(make: Callable[[], Through], count: int) -> tuple[float]:
    """Microseconds of CPU for a call of a function that does nothing, while closed."""
    through = make()
    began = thread_time()
    for _ in range(count):
        through(_nothing)
    return ((thread_time() - began) / count * 1e6,)


def rejections(make: Callable[[], Through], count: int) -> tuple[float]:
    """Microseconds of CPU for a call that is turned away, while open."""
    through = make()
    for _ in range(10):  # more than the threshold of any
        with suppress(Exception):
            through(_refused)
    began = thread_time()
    for _ in range(count):
        try:
            through(_refused)
        except ConnectionError:
            raise AssertionError("it is not open") from None
        except Exception:
            continue
    return ((thread_time() - began) / count * 1e6,)


def together(make: Callable[[], Through], count: int) -> tuple[float]:
    """Calls per second by 8 threads, when each call waits for a millisecond, as for a network."""
    through = make()
    ready = threading.Barrier(_THREADS + 1)

    def work() -> None:
        ready.wait()
        for _ in range(count):
            through(functools.partial(time.sleep, _WAIT))

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
    peers = {
        name: make
        for name, make in {"pybreaker": pybreaker, "circuitbreaker": circuitbreaker}.items()
        if _installed(name)
    }
    windows = {
        f"ours, with {text}": functools.partial(_windowed, window)
        for text, window in {
            "FailureRate(calls=)": FailureRate(0.5, calls=100),
            "FailureRate(seconds=)": FailureRate(0.5, seconds=60),
        }.items()
    }
    return [
        _contest("closed", Line("a call, closed", "µs"), calls, int(20_000 * scale),
                 {**peers, **windows, "no breaker": bare}),
        _contest("open", Line("a rejection, open", "µs"), rejections, int(10_000 * scale), peers),
        _contest("threads", Line("8 threads, calls of 1 ms", "calls/s"), together,
                 int(100 * scale), {**peers, "no breaker": bare}),
    ]  # fmt: skip


def _contest(
    key: str,
    line: Line,
    measure: Callable[[Callable[[], Through], int], tuple[float, ...]],
    count: int,
    peers: Mapping[str, Callable[[], Through]],
) -> Contest:
    rivals = {name: functools.partial(measure, make, count) for name, make in peers.items()}
    return Contest(key, (line,), functools.partial(measure, ours, count), rivals)


def _windowed(window: FailureRate) -> Through:
    return CircuitBreaker("benchmark", window=window, logger=_QUIET)(_call)


def _installed(name: str) -> bool:
    try:
        importlib.import_module(name)
    except ImportError:
        return False
    return True


def main(arguments: list[str] | None = None) -> None:
    """Run the contests and print the results."""
    run_contests("tests.benchmarks.breakers", contests, rounds=7, arguments=arguments)


if __name__ == "__main__":
    main()
