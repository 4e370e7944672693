"""The breaker around the tasks of a pool, in one line."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ion_actors import CircuitOpen, Context, DeadlineExceeded, Pool, TaskPanicked, current_context
from ion_actors.circuit import CircuitBreaker, CircuitState
from ion_actors.testing import VirtualClock
from ion_actors.wrapping import Wrapper


def refuse() -> None:
    raise ConnectionRefusedError("nobody there")


def test_a_pool_behind_a_breaker_fails_fast() -> None:
    breaker = CircuitBreaker("api", failure_threshold=2)
    with Pool(1, task_wrapper=breaker.wrap) as pool:
        assert pool.submit(pow, 2, 3).result() == 8
        errors = [pool.submit(refuse).exception() for _ in range(4)]
    assert [type(error) for error in errors] == [ConnectionRefusedError] * 2 + [CircuitOpen] * 2
    assert pool.metrics().failed == 4


def test_a_panic_in_a_task_counts() -> None:
    breaker = CircuitBreaker("api", failure_threshold=1)
    with Pool(1, task_wrapper=breaker.wrap) as pool:
        assert isinstance(pool.submit(exit).exception(), TaskPanicked)
    assert breaker.state is CircuitState.OPEN


def test_a_task_out_of_time_counts_and_a_cancelled_one_does_not(clock: VirtualClock) -> None:
    breaker = CircuitBreaker("api")
    begun = threading.Semaphore(0)

    def wait() -> None:
        begun.release()
        current_context().sleep(600)

    with Pool(1, task_wrapper=breaker.wrap, context=Context(clock=clock)) as pool:
        late = pool.options(timeout=1).submit(wait)
        assert begun.acquire(timeout=30)
        clock.advance(1)
        with pytest.raises(DeadlineExceeded):
            late.result(30)
        future = pool.submit(wait)
        assert begun.acquire(timeout=30)
        future.cancel()
        with contextlib.suppress(BaseException):
            future.result()
    assert (breaker.metrics().failed, breaker.metrics().cancelled) == (1, 1)


def test_coroutine_tasks_go_through_it_as_well() -> None:
    breaker = CircuitBreaker("api", failure_threshold=1)

    async def double(number: int) -> int:
        await asyncio.sleep(0)
        return 2 * number

    async def arefuse() -> None:
        await asyncio.sleep(0)
        refuse()

    with Pool(1, task_wrapper=breaker.wrap) as pool:
        assert pool.submit(double, 4).result() == 8
        assert breaker.metrics().succeeded == 1
        assert isinstance(pool.submit(arefuse).exception(), ConnectionRefusedError)
        assert isinstance(pool.submit(double, 4).exception(), CircuitOpen)


def test_it_composes_with_other_wrappers() -> None:
    seen: list[str] = []

    @contextlib.contextmanager
    def scope() -> Iterator[None]:
        seen.append("outside")
        yield

    other = Wrapper(scope, contextlib.nullcontext)
    breaker = CircuitBreaker("api", failure_threshold=1)
    wrapper: Callable[[Callable[[], Any]], Callable[[], Any]] = other | breaker.wrap
    with Pool(1, task_wrapper=wrapper) as pool:
        pool.submit(refuse).exception()
        error = pool.submit(refuse).exception()
    assert isinstance(error, CircuitOpen)
    assert seen == ["outside"] * 2
