"""What a chunk of a map makes of calls that return, or raise, this or that in turn."""

from __future__ import annotations

import gc
import itertools
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from ion_actors import Cancelled, Context, Pool, TaskAbandoned
from ion_actors.clock import system_clock
from tests.workerpool.helpers import PATIENCE, Gate, await_threads

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


@pytest.mark.parametrize("make", [list, tuple, iter])
def test_items_are_the_same_whatever_they_come_in(make: Callable[[range], Any]) -> None:
    for count in (0, 1, 6, 7, 8):
        with Pool(2) as pool:
            assert list(pool.map(abs, make(range(count)), chunksize=3)) == list(range(count))


def test_a_list_is_read_as_it_is_when_its_turn_comes_and_ends_once() -> None:
    items = list(range(6))
    with Pool(1) as pool:
        results = pool.map(abs, items, chunksize=2, buffersize=1)
        items[2:] = [7, 8, 9]
        assert list(itertools.islice(results, 5)) == [0, 1, 7, 8, 9]
        items += [10, 11]  # an iterator of a list that has ended does not go on either
        assert list(results) == []


@pytest.mark.parametrize("verb", ["map", "map_unordered"])
@pytest.mark.parametrize("fn", [abs, Odd])
def test_a_map_that_is_closed_in_the_middle_of_a_chunk_gives_nothing_more(
    verb: str, fn: Callable[[int], Any]
) -> None:
    with Pool(1) as pool:
        results = getattr(pool, verb)(fn, itertools.count(), chunksize=10)
        next(results)
        results.close()
        assert list(results) == []
        results.close()


def spend_a_while() -> None:
    """More time than calls of a chunk may take without a look at the context."""
    until = system_clock.monotonic() + 0.002
    while system_clock.monotonic() < until:
        pass


@pytest.mark.parametrize("fn", [abs, Odd])
@pytest.mark.parametrize("slow", [False, True])
def test_a_chunk_whose_context_has_ended_stops_between_two_calls(
    fn: Callable[[int], Any], slow: bool
) -> None:
    context, called = Context(), []

    def call(number: int) -> Any:
        called.append(number)
        if slow or number == 5:
            spend_a_while()
        if number == 5:
            context.cancel()
        return fn(number)

    with Pool(1) as pool:
        results = pool.options(context=context).map(call, range(5_000), chunksize=5_000)
        found, raised = drawn(results)
        assert pool.metrics().cancelled == 1
    assert found == called
    assert isinstance(raised, Cancelled)
    assert called == list(range(6)) if slow else len(called) < 5_000


def test_a_chunk_that_is_done_when_its_context_ends_keeps_its_results() -> None:
    context = Context()

    def call(number: int) -> int:
        if number == 9:
            spend_a_while()
            context.cancel()
        return number

    with Pool(1) as pool:
        results = pool.options(context=context).map(call, range(10), chunksize=10)
        assert drawn(results) == (list(range(10)), None)


@pytest.mark.parametrize("verb", ["map", "map_unordered"])
def test_two_threads_that_take_results_at_the_same_time_are_both_told_so(verb: str) -> None:
    pulled, go_on = threading.Event(), threading.Event()

    def items() -> Iterator[int]:
        yield from range(2)
        pulled.set()
        assert go_on.wait(PATIENCE)
        yield from range(2, 4)

    with Pool(1) as pool:
        results = getattr(pool, verb)(abs, items(), chunksize=2, buffersize=1)
        with ThreadPoolExecutor(1) as other:
            first = other.submit(next, results)
            assert pulled.wait(PATIENCE)
            with pytest.raises(ValueError, match="already executing"):
                next(results)
            go_on.set()
            with pytest.raises(ValueError, match="by two threads"):
                first.result(PATIENCE)


def test_a_chunk_that_was_given_up_and_goes_on_adds_nothing_to_what_it_had() -> None:
    gate, called = Gate(), []

    def call(number: int) -> Any:
        called.append(number)
        if number == 5:
            gate()
        return number

    pool = Pool(1)
    results = pool.map(call, range(6), chunksize=6)
    gate.await_entered()
    pool.close(timeout=0.01)
    assert next(results) == 0
    gate.open()
    await_threads(pool)
    found, raised = drawn(results)
    assert found == [1, 2, 3, 4]
    assert isinstance(raised, TaskAbandoned)
