"""What a chunk of a map makes of calls that return, or raise, this or that in turn."""

from __future__ import annotations

import gc
import itertools
import warnings
from collections.abc import Callable
from typing import Any

import pytest

from ion_actors import Pool

ITEMS = 350


class Odd:
    """A result of no plain type."""

    def __init__(self, number: int) -> None:
        self.number = number


async def later(number: int) -> int:
    return number


def drawn(results: Any) -> tuple[list[Any], BaseException | None]:
    found = []
    try:
        for one in results:
            found.append(one.number if isinstance(one, Odd) else one)  # noqa: PERF401
    except BaseException as error:
        return found, error
    return found, None


def every(number: int) -> Any:
    """Plain, odd and awaitable results in turn."""
    return (int, Odd, int, later)[number % 7 % 4](number)


def late_coroutine(number: int) -> Any:
    return later(number) if number in {120, 125, 349} else number


@pytest.mark.parametrize("fn", [abs, Odd, later, every, late_coroutine])
@pytest.mark.parametrize("chunksize", [1, 7, 101, 102, 1000])
def test_results_come_in_order_of_whatever_kind_they_are(
    fn: Callable[[int], Any], chunksize: int
) -> None:
    with Pool(2) as pool:
        assert drawn(pool.map(fn, range(ITEMS), chunksize=chunksize)) == (list(range(ITEMS)), None)


def test_several_arguments_go_to_each_call() -> None:
    with Pool(2) as pool:
        assert list(pool.map(pow, range(300), itertools.repeat(2), chunksize=150)) == [
            one * one for one in range(300)
        ]


@pytest.mark.parametrize("error", [ValueError, StopIteration, KeyError])
@pytest.mark.parametrize("at", [0, 1, 99, 100, 101, 149, 349])
@pytest.mark.parametrize("fn", [abs, Odd, later, every, late_coroutine])
def test_what_came_before_an_error_stays_and_the_error_is_the_one_of_its_call(
    fn: Callable[[int], Any], at: int, error: type[Exception]
) -> None:
    called = []

    def call(number: int) -> Any:
        called.append(number)
        if number == at:
            raise error
        return fn(number)

    with Pool(1) as pool, warnings.catch_warnings():
        warnings.simplefilter("error")
        found, raised = drawn(pool.map(call, range(ITEMS), chunksize=ITEMS))
        gc.collect()  # no coroutine was forgotten
    assert found == list(range(at))
    assert isinstance(raised, RuntimeError if error is StopIteration else error)
    assert called == list(range(at + 1))


def test_a_coroutine_that_fails_closes_those_that_its_chunk_has_made_already() -> None:
    async def fail() -> None:
        raise ValueError

    def call(number: int) -> Any:
        return fail() if number == 50 else later(number) if number > 20 else number

    with Pool(1) as pool, warnings.catch_warnings():
        warnings.simplefilter("error")
        found, raised = drawn(pool.map(call, range(ITEMS), chunksize=ITEMS))
        gc.collect()
    assert found == list(range(50))
    assert isinstance(raised, ValueError)


def test_a_generator_is_refused_after_the_results_before_it() -> None:
    def call(number: int) -> Any:
        return (one for one in "ab") if number == 5 else number

    with Pool(1) as pool:
        found, raised = drawn(pool.map(call, range(20), chunksize=20))
    assert found == list(range(5))
    assert isinstance(raised, TypeError)
