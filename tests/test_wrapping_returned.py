"""A wrapper covers what a call returned as long as that runs, whatever the function looks like."""

# ruff: noqa: PLW0108 - lambdas around functions are what this is about

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import inspect
import threading
import types
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from typing import Any

import pytest

from ion_actors import CircuitOpen
from ion_actors.circuit import CircuitBreaker
from ion_actors.ratelimit import TokenBucket, per_second
from ion_actors.semaphore import WeightedSemaphore
from ion_actors.testing import RecordingMetrics
from ion_actors.wrapping import Wrapper
from tests.coroutines import ByHand, Client, Iterating
from tests.test_wrapping import recorder

Fn = Callable[..., Any]


async def work(seen: list[Any]) -> int:
    seen.append("begin")
    await asyncio.sleep(0)
    seen.append("end")
    return 1


def decorated(fn: Fn) -> Fn:
    @functools.wraps(fn)
    def wrapper(*args: Any) -> Any:
        return fn(*args)

    return wrapper


class Service:
    async def work(self, seen: list[Any]) -> int:
        return await work(seen)

    def get(self, seen: list[Any]) -> Any:
        return self.work(seen)


@types.coroutine
def by_types(seen: list[Any]) -> Generator[Any, Any, int]:
    return (yield from work(seen).__await__())


WAYS: dict[str, Fn] = {
    "plain": work,
    "lambda": lambda seen: work(seen),
    "decorated": decorated(work),
    "partial": functools.partial(lambda some, seen: work(seen), 1),
    "by hand": lambda seen: ByHand(work(seen)),
    "types": by_types,
    "types in a lambda": lambda seen: by_types(seen),
    "method": Service().get,
    "class": lambda seen: Service().get(seen),
}
every_way = pytest.mark.parametrize("way", WAYS)


@every_way
def test_the_scope_lasts_until_the_coroutine_ends(way: str) -> None:
    seen: list[Any] = []
    wrapped = recorder("s", seen)(WAYS[way])
    coroutine = wrapped(seen)
    del seen[:]
    assert asyncio.run(coroutine) == 1
    assert seen == ["s in, async", "begin", "end", "s out, async"]


@every_way
def test_a_semaphore_lets_in_as_many_as_it_says_on_one_loop(way: str) -> None:
    semaphore = WeightedSemaphore(1)
    running, most = 0, 0

    async def main() -> None:
        await asyncio.gather(*(semaphore.wrap(call)() for _ in range(4)))

    class Counting(list[Any]):
        def append(self, event: Any) -> None:
            nonlocal running, most
            running += 1 if event == "begin" else -1
            most = max(most, running)

    call = functools.partial(WAYS[way], Counting())
    asyncio.run(asyncio.wait_for(main(), 30))
    assert (most, semaphore.available) == (1, 1)


@every_way
def test_one_wrapped_function_called_many_times_on_one_loop(way: str) -> None:
    semaphore = WeightedSemaphore(2)
    wrapped = semaphore.wrap(WAYS[way])

    async def main() -> list[int]:
        async with semaphore.hold(2):
            waiting = [asyncio.ensure_future(wrapped([])) for _ in range(2)]
            await asyncio.sleep(0)
        first, second = wrapped([]), wrapped([])
        return [*await asyncio.gather(*waiting), await second, await first]

    assert asyncio.run(asyncio.wait_for(main(), 30)) == [1, 1, 1, 1]
    assert semaphore.available == 2


@every_way
def test_a_coroutine_that_nobody_awaits_holds_nothing(way: str) -> None:
    semaphore, breaker = WeightedSemaphore(1), CircuitBreaker("b")
    for wrapper in (semaphore.wrap, breaker.wrap, semaphore.wrap | breaker.wrap):
        seen: list[Any] = []
        wrapped = wrapper(WAYS[way])(seen)
        assert semaphore.available == 1
        wrapped.close()
        del wrapped
        gc.collect()
        assert semaphore.available == 1
        assert breaker.metrics().running == 0
        assert seen == []


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
def test_a_coroutine_that_is_garbage_says_so_once() -> None:
    breaker = CircuitBreaker("b")
    with pytest.warns(RuntimeWarning, match="'work' was never awaited") as warned:
        breaker.wrap(lambda: work([]))()
    assert len(warned) == 1
    warned.clear()  # a warning holds the coroutine that it is about
    gc.collect()
    assert (breaker.metrics().running, breaker.metrics().cancelled) == (0, 1)


async def fails() -> None:
    await asyncio.sleep(0)
    raise ConnectionError


def test_a_breaker_counts_one_call_by_how_its_coroutine_ended() -> None:
    metrics = RecordingMetrics()
    breaker = CircuitBreaker("b", failure_threshold=3, metrics=metrics)
    call = breaker.wrap(lambda: fails())
    for _ in range(3):
        with pytest.raises(ConnectionError):
            asyncio.run(call())
    with pytest.raises(CircuitOpen):
        call()
    numbers = breaker.metrics()
    assert (numbers.requests, numbers.failed, numbers.cancelled) == (3, 3, 0)
    assert metrics.count("circuit.requests_total", circuit="b", state="closed") == 3
    assert metrics.count("circuit.requests_failed", circuit="b") == 3


def test_execute_counts_a_coroutine_as_nothing() -> None:
    breaker = CircuitBreaker("b")
    for coroutine in (lambda: work([]), lambda: ByHand(work([]))):
        with pytest.raises(TypeError, match="use aexecute"):
            breaker.execute(coroutine)
    numbers = breaker.metrics()
    assert (numbers.succeeded, numbers.failed, numbers.running) == (0, 0, 0)


@every_way
def test_a_limiter_takes_one_token(way: str) -> None:
    limiter = TokenBucket(per_second(0.001), 5)

    async def main() -> int:  # from 3.12 on, asyncio.run() takes no generator
        return await limiter.wrap(WAYS[way])([])

    assert asyncio.run(main()) == 1
    assert int(limiter.tokens) == 4


@every_way
def test_a_limiter_holds_up_no_loop(way: str) -> None:
    limiter = TokenBucket(per_second(100), 1)
    wrapped = limiter.wrap(WAYS[way])

    async def main() -> int:
        ticks = 0
        limiter.allow()
        calls = asyncio.gather(*(wrapped([]) for _ in range(3)))
        while not calls.done():
            ticks += 1
            await asyncio.sleep(0)
        await calls
        return ticks

    assert asyncio.run(main()) > 10


def test_wrappers_in_a_chain_cover_it_all() -> None:
    for inner in ("a", "b"):
        seen: list[Any] = []
        chain = recorder("a", seen) | recorder("b", seen)
        coroutine = chain(lambda seen=seen: work(seen))()
        del seen[:]
        assert asyncio.run(coroutine) == 1, inner
        assert seen == [
            "a in, async", "b in, async", "begin", "end", "b out, async", "a out, async",
        ]  # fmt: skip


def test_a_plain_function_on_a_loop_is_plain() -> None:
    semaphore, limiter = WeightedSemaphore(1), TokenBucket(per_second(1000), 1)
    wrapped = (semaphore.wrap | limiter.wrap)(lambda: 5)

    async def main() -> list[int]:
        return [wrapped() for _ in range(3)]

    assert asyncio.run(main()) == [5, 5, 5]
    assert semaphore.available == 1


def test_a_plain_function_on_a_loop_waits_its_turn() -> None:
    semaphore = WeightedSemaphore(1)
    semaphore.acquire()
    wrapped = semaphore.wrap(lambda: semaphore.available)

    async def main() -> int:
        loop = asyncio.get_running_loop()

        def give_back() -> None:
            while not semaphore.waiting:
                pass
            semaphore.release()

        thread = threading.Thread(target=give_back)
        thread.start()
        try:
            return wrapped()
        finally:
            await loop.run_in_executor(None, thread.join)

    assert asyncio.run(main()) == 0
    assert semaphore.available == 1


def test_a_function_that_starts_a_coroutine_itself_is_not_put_off() -> None:
    limiter = TokenBucket(per_second(1000), 1)
    started: list[asyncio.Task[int]] = []

    def start() -> None:
        started.append(asyncio.create_task(work([])))

    async def main() -> int:
        limiter.allow()
        assert limiter.wrap(start)() is None
        return await started[0]

    assert asyncio.run(main()) == 1


def test_a_class_is_called_and_not_awaited() -> None:
    class Later:
        async def __call__(self) -> int:
            return 1

    assert isinstance(recorder("s", [])(Later)(), Later)


def test_futures_and_handles_are_passed_on() -> None:
    client = Client()
    assert recorder("s", [])(lambda: client)() is client

    async def main() -> None:
        future = asyncio.get_running_loop().create_future()
        assert recorder("s", [])(lambda: future)() is future

    asyncio.run(main())


class Odd:
    def __call__(self) -> int:
        return 1

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)


def test_an_object_with_odd_attributes_can_be_wrapped() -> None:
    assert recorder("s", [])(Odd())() == 1
    assert recorder("s", [])(functools.partial(Odd()))() == 1


# -- generators ------------------------------------------------------------------------------


def echo() -> Generator[Any, Any, str]:
    got = []
    while True:
        try:
            value = yield list(got)
        except KeyError:
            value = "thrown"
        if value == "stop":
            return "returned"
        got.append(value)


GENERATORS: dict[str, Fn] = {
    "function": echo,
    "lambda": lambda: echo(),
    "decorated": decorated(echo),
    "partial": functools.partial(echo),
}
every_generator = pytest.mark.parametrize("way", GENERATORS)


@every_generator
def test_a_generator_is_covered_and_keeps_its_protocol(way: str) -> None:
    semaphore = WeightedSemaphore(1)
    generator = semaphore.wrap(GENERATORS[way])()
    assert inspect.isgenerator(generator)
    assert semaphore.available == 1
    assert next(generator) == []
    assert semaphore.available == 0
    assert generator.send(1) == [1]
    assert generator.throw(KeyError()) == [1, "thrown"]
    with pytest.raises(StopIteration) as end:
        generator.send("stop")
    assert end.value.value == "returned"
    assert semaphore.available == 1


@every_generator
def test_a_generator_that_is_left_gives_back(way: str) -> None:
    semaphore = WeightedSemaphore(1)
    for leave in (lambda one: one.close(), lambda one: None):
        generator = semaphore.wrap(GENERATORS[way])()
        next(generator)
        leave(generator)
        del generator
        gc.collect()
        assert semaphore.available == 1


@every_generator
def test_a_breaker_sees_how_a_generator_ends(way: str) -> None:
    breaker = CircuitBreaker("b", failure_threshold=2)
    wrapped = breaker.wrap(GENERATORS[way])
    for _ in range(2):
        generator = wrapped()
        next(generator)
        assert breaker.metrics().running == 1
        with pytest.raises(ConnectionError):
            generator.throw(ConnectionError())
    numbers = breaker.metrics()
    assert (numbers.requests, numbers.failed, numbers.running) == (2, 2, 0)
    with pytest.raises(CircuitOpen):
        next(wrapped())


def test_a_generator_function_stays_one() -> None:
    assert inspect.isgeneratorfunction(WeightedSemaphore(1).wrap(echo))
    assert inspect.isasyncgenfunction(WeightedSemaphore(1).wrap(aecho))
    assert inspect.iscoroutinefunction(WeightedSemaphore(1).wrap(work))


def test_a_generator_by_hand_is_covered() -> None:
    seen: list[str] = []
    wrapped = recorder("s", seen)(Iterating)()
    assert list(wrapped) == [1, 2]
    assert seen == ["s in", "s out"] * 2


async def aecho() -> AsyncIterator[Any]:
    got: list[Any] = []
    try:
        while True:
            try:
                value = yield list(got)
            except KeyError:
                value = "thrown"
            if value == "stop":
                return
            got.append(value)
    finally:
        got.append("closed")


ASYNC_GENERATORS: dict[str, Fn] = {
    "function": aecho,
    "lambda": lambda: aecho(),
    "decorated": decorated(aecho),
}
every_async_generator = pytest.mark.parametrize("way", ASYNC_GENERATORS)


@every_async_generator
def test_an_asynchronous_generator_is_covered_and_keeps_its_protocol(way: str) -> None:
    semaphore, breaker = WeightedSemaphore(1), CircuitBreaker("b")

    async def main(wrapper: Wrapper) -> None:
        items = wrapper(ASYNC_GENERATORS[way])()
        assert semaphore.available == 1
        assert await anext(items) == []
        assert semaphore.available == 0
        assert await items.asend(1) == [1]
        assert await items.athrow(KeyError()) == [1, "thrown"]
        with pytest.raises(StopAsyncIteration):
            await items.asend("stop")
        assert semaphore.available == 1
        other = wrapper(ASYNC_GENERATORS[way])()
        await anext(other)
        await other.aclose()
        assert semaphore.available == 1
        with pytest.raises(StopAsyncIteration):
            await anext(other)

    asyncio.run(main(semaphore.wrap | breaker.wrap))
    asyncio.run(main(breaker.wrap | semaphore.wrap))
    assert breaker.metrics().running == 0
    assert (breaker.metrics().succeeded, breaker.metrics().cancelled) == (2, 2)


@every_async_generator
def test_asynchronous_generators_take_turns(way: str) -> None:
    semaphore = WeightedSemaphore(1)
    held: list[int] = []

    async def take() -> None:
        async with contextlib.aclosing(semaphore.wrap(ASYNC_GENERATORS[way])()) as items:
            async for _ in items:
                held.append(semaphore.available)
                await asyncio.sleep(0)
                return

    async def main() -> None:
        await asyncio.gather(*(take() for _ in range(3)))

    asyncio.run(main())
    assert held == [0, 0, 0]
    assert semaphore.available == 1


def test_a_context_manager_is_a_value() -> None:
    @contextlib.contextmanager
    def block() -> Iterator[int]:
        yield 1

    seen: list[str] = []
    with recorder("s", seen)(block)() as one:
        assert one == 1
    assert seen == ["s in", "s out"]
