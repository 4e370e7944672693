"""A task that turns out to be a coroutine is run, and its wrapper covers that, wherever it runs."""

# ruff: noqa: PLW0108 - lambdas around functions are what this is about

from __future__ import annotations

import asyncio
import collections.abc
import contextvars
import functools
import types
import weakref
from collections.abc import Callable, Generator, Iterator
from typing import Any

import pytest

from ion_actors import Cancelled, DeadlineExceeded, Future, Pool, Worker
from ion_actors.backends.process import ProcessBackend
from ion_actors.circuit import CircuitBreaker, CircuitState
from ion_actors.executors import ThreadPoolExecutor
from ion_actors.ratelimit import TokenBucket, per_second
from ion_actors.semaphore import WeightedSemaphore
from tests.coroutines import ByHand, Client
from tests.workerpool.helpers import PATIENCE, busy, eventually

Task = Callable[..., Any]


async def give(value: int = 1) -> int:
    await asyncio.sleep(0)
    return value


async def fails(value: int = 1) -> int:
    await asyncio.sleep(0)
    raise ConnectionError(value)


def decorated(fn: Task) -> Task:
    @functools.wraps(fn)
    def wrapper(*args: Any) -> Any:
        return fn(*args)

    return wrapper


@types.coroutine
def by_types(fn: Task, value: int = 1) -> Generator[Any, Any, int]:
    return (yield from fn(value).__await__())


def by_hand(fn: Task, value: int = 1) -> ByHand:
    return ByHand(fn(value))


class Callee:
    def __init__(self, fn: Task) -> None:
        self._fn = fn

    def __call__(self, *args: Any) -> Any:
        return self._fn(*args)


class Host(Worker):
    async def give(self, value: int = 1) -> int:
        return await give(value)

    async def fails(self, value: int = 1) -> int:
        return await fails(value)

    def hidden(self, name: str) -> Any:
        return getattr(self, name)()


#: How a coroutine function is hidden in what is submitted: pool and function to future.
WAYS: dict[str, Callable[[Pool, Task], Future[Any]]] = {
    "plain": lambda pool, fn: pool.submit(fn),
    "lambda": lambda pool, fn: pool.submit(lambda: fn()),
    "partial of lambda": lambda pool, fn: pool.submit(functools.partial(lambda n: fn(n), 1)),
    "decorated": lambda pool, fn: pool.submit(decorated(fn)),
    "object": lambda pool, fn: pool.submit(Callee(fn)),
    "context": lambda pool, fn: pool.options(pass_context=True).submit(lambda context: fn()),
    "types": lambda pool, fn: pool.submit(by_types, fn),
    "by hand": lambda pool, fn: pool.submit(by_hand, fn),
    "method": lambda pool, fn: getattr(pool.proxy(), fn.__name__)(),
    "method that calls one": lambda pool, fn: pool.proxy().hidden(fn.__name__),
    "call": lambda pool, fn: pool.call(getattr(Host, fn.__name__), 1),
}
METHODS = {"method", "method that calls one", "call"}
PLACES = ["thread", "process", "caller"]
MATRIX = [
    (place, way) for place in PLACES for way in WAYS if not (place == "caller" and way in METHODS)
]


def make(place: str, way: str, **settings: Any) -> Pool:
    if way in METHODS:
        settings["worker"] = Host
    if place == "process":
        settings["backend"] = ProcessBackend()
    if place == "caller":
        return Pool(1, 0, overflow="caller_runs", **settings)
    return Pool(1, **settings)


def run(pool: Pool, place: str, way: str, fn: Task) -> Future[Any]:
    """Submit it, and wait for it; in this thread if the policy is to have the caller run it."""
    if place != "caller":
        future = WAYS[way](pool, fn)
    else:
        with busy(pool):
            future = WAYS[way](pool, fn)
            assert future.done()
    future.exception(PATIENCE)
    return future


@pytest.mark.parametrize(("place", "way"), MATRIX)
def test_it_is_run(place: str, way: str) -> None:
    with make(place, way) as pool:
        assert run(pool, place, way, give).result() == 1


@pytest.mark.parametrize(("place", "way"), MATRIX)
def test_a_breaker_sees_how_it_ends(place: str, way: str) -> None:
    breaker = CircuitBreaker("b", failure_threshold=3)
    with make(place, way, task_wrapper=breaker.wrap) as pool:
        for _ in range(2):
            error = run(pool, place, way, fails).exception()
            assert type(error) is ConnectionError
        numbers = breaker.metrics()
        assert (numbers.failed, numbers.running) == (2, 0)
        assert run(pool, place, way, give).result() == 1
        if place == "caller":  # what keeps the worker busy meanwhile succeeds
            return
        for _ in range(5):
            run(pool, place, way, fails)
        assert (breaker.metrics().failed, breaker.state) == (5, CircuitState.OPEN)


@pytest.mark.parametrize(
    ("place", "way"),
    # What a child sees of a semaphore is a copy.
    [one for one in MATRIX if one[0] != "process" and one[1] not in METHODS],
)
def test_a_semaphore_is_held_until_it_ends(place: str, way: str) -> None:
    semaphore = WeightedSemaphore(2)
    held: list[int] = []

    async def look(_: int = 1) -> int:
        held.append(semaphore.available)
        await asyncio.sleep(0)
        held.append(semaphore.available)
        return 1

    with make(place, way, task_wrapper=semaphore.wrap) as pool:
        # The caller finds a worker that is busy, and holds a permit, too.
        free = 0 if place == "caller" else 1
        assert run(pool, place, way, look).result() == 1
        assert held == [free, free]
    assert semaphore.available == 2


@pytest.mark.parametrize(("place", "way"), MATRIX)
def test_one_token_is_taken(place: str, way: str) -> None:
    limiter = TokenBucket(per_second(0.001), 3)
    with make(place, way, task_wrapper=limiter.wrap) as pool:
        run(pool, place, way, give)
    assert int(limiter.tokens) == (1 if place == "caller" else 2)


@pytest.mark.parametrize(("place", "way"), MATRIX)
def test_any_wrapper_covers_it(place: str, way: str) -> None:
    seen: list[Any] = []

    def wrapper(task: Callable[[], Any]) -> Callable[[], Any]:
        def wrapped() -> Any:
            try:
                seen.append(task())
            except ConnectionError:
                seen.append("failed")
                raise

        return wrapped

    with make(place, way, task_wrapper=wrapper) as pool:
        run(pool, place, way, give)
        assert seen[0] == 1
        seen.clear()
        run(pool, place, way, fails)
        assert seen[0] == "failed"


def test_a_wrapper_that_is_a_coroutine_awaits_the_task() -> None:
    def wrapper(task: Callable[[], Any]) -> Callable[[], Any]:
        async def wrapped() -> Any:
            return 10 * await task()

        return wrapped

    with Pool(1, task_wrapper=wrapper) as pool:
        assert pool.submit(give, 2).result(PATIENCE) == 20
        assert pool.submit(lambda: give(3)).result(PATIENCE) == 30


def test_what_a_coroutine_sets_its_wrapper_sees() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("v", default="unset")
    seen: list[str] = []

    async def task() -> None:
        variable.set("set in the coroutine")

    def wrapper(call: Callable[[], Any]) -> Callable[[], Any]:
        def wrapped() -> None:
            token = variable.set("set outside")
            call()
            seen.append(variable.get())
            variable.reset(token)
            seen.append(variable.get())

        return wrapped

    with Pool(1, task_wrapper=wrapper) as pool:
        pool.submit(lambda: task()).result(PATIENCE)
    assert seen == ["set in the coroutine", "unset"]


@pytest.mark.parametrize("hidden", [False, True])
def test_a_covered_coroutine_ends_with_its_context(hidden: bool) -> None:
    semaphore = WeightedSemaphore(1)

    async def forever() -> None:
        await asyncio.Event().wait()

    task = (lambda: forever()) if hidden else forever
    with Pool(1, task_wrapper=semaphore.wrap) as pool:
        with pytest.raises(DeadlineExceeded):
            pool.options(timeout=0.01).submit(task).result(PATIENCE)
        eventually(lambda: semaphore.available == 1)
        future = pool.submit(task)
        eventually(lambda: semaphore.available == 0)
        future.cancel()
        with pytest.raises(Cancelled):
            future.result(PATIENCE)
    assert semaphore.available == 1


def test_a_future_or_a_handle_is_a_result() -> None:
    with Pool(1) as pool:
        for value in (Future[int](), Client()):
            assert pool.submit(lambda value=value: value).result(PATIENCE) is value

        async def gives_a_future() -> Future[int]:
            return value

        value = Future[int]()
        assert pool.submit(gives_a_future).result(PATIENCE) is value


def test_a_generator_holds_its_permit_where_it_is_taken_from() -> None:
    semaphore = WeightedSemaphore(1)

    def numbers() -> Iterator[int]:
        yield from range(3)

    with ThreadPoolExecutor(1, task_wrapper=semaphore.wrap) as pool:  # a pool refuses generators
        for task in (numbers, lambda: numbers()):
            given = pool.submit(task).result(PATIENCE)
            assert semaphore.available == 1
            assert next(given) == 0
            assert semaphore.available == 0
            assert list(given) == [1, 2]
            assert semaphore.available == 1


class Messenger(Worker):
    def on_receive(self, message: Any) -> Any:
        return by_hand(give, message)


def test_messages_may_be_answered_by_any_coroutine() -> None:
    with Pool(1, worker=Messenger) as pool:
        assert pool.ask(5).result(PATIENCE) == 5
        assert [one.result(PATIENCE) for one in pool.broadcast(6)] == [6]


ready: list[int] = []


async def prepare(value: int) -> None:
    await asyncio.sleep(0)
    ready.append(value)


def what_is_ready() -> list[int]:
    return ready


class Plain(Worker):
    def ready(self) -> list[int]:
        return ready


@pytest.mark.parametrize("place", ["thread", "process"])
def test_an_initializer_may_be_a_coroutine(place: str) -> None:
    ready.clear()
    backend: Any = ProcessBackend() if place == "process" else "thread"
    with Pool(1, initializer=prepare, initargs=(7,), backend=backend) as pool:
        assert pool.submit(what_is_ready).result(PATIENCE) == [7]


def test_an_initializer_of_workers_with_state_may_be_a_coroutine() -> None:
    ready.clear()
    with Pool(1, initializer=prepare, initargs=(7,), worker=Plain) as pool:
        assert pool.proxy().ready().result(PATIENCE) == [7]


def test_a_covered_task_that_failed_is_not_kept_by_its_wrapper(without_gc: None) -> None:
    class Argument(collections.abc.Sized):
        def __len__(self) -> int:
            return 0

    argument = Argument()
    watch = weakref.ref(argument)
    semaphore = WeightedSemaphore(1)

    def task(_: Argument) -> None:
        raise ValueError

    with Pool(1, task_wrapper=semaphore.wrap) as pool:
        future = pool.submit(task, argument)
        assert isinstance(future.exception(PATIENCE), ValueError)
        del argument, future
    assert watch() is None
