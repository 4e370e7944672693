"""Calls that say something else than what is meant: the error says what to write."""

from __future__ import annotations

import asyncio
import threading
import warnings
from collections.abc import Callable
from typing import Any

import pytest

from ion_actors import Future, Pool


async def coroutine(value: int) -> int:
    return value


def plain(value: int) -> int:
    return value


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("max_workers", "write size="),
        ("thread_name_prefix", "write name="),
        ("processes", "write size="),
        ("max_tasks_per_child", "ProcessBackend(max_tasks_per_child=...)"),
        ("queue_sise", "did you mean queue_size="),
        ("xyzzy", "no keyword argument 'xyzzy'"),
    ],
)
def test_a_keyword_that_a_pool_does_not_have(name: str, hint: str) -> None:
    with pytest.raises(TypeError) as caught:
        Pool(**{name: 4})
    assert hint in str(caught.value)
    assert str(caught.value).startswith("Pool() has no keyword argument")


def test_an_option_that_is_misspelt() -> None:
    with Pool(1) as pool, pytest.raises(TypeError, match="did you mean timeout="):
        pool.options(timeuot=5)  # type: ignore[arg-type]


def _submits() -> list[Callable[[Pool, Any], Any]]:
    return [
        lambda pool, given: pool.submit(given),
        lambda pool, given: pool.try_submit(given),
        lambda pool, given: asyncio.run(pool.asubmit(given)),
    ]


@pytest.mark.parametrize("submit", _submits())
def test_what_is_submitted_is_no_function(submit: Callable[[Pool, Any], Any]) -> None:
    with Pool(1) as pool:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # also one of a coroutine that nobody awaited
            with pytest.raises(TypeError, match=r"submit\(coroutine, \.\.\.\)"):
                submit(pool, coroutine(1))
        with pytest.raises(TypeError, match=r"not 5: .* submit\(f, x\) and not submit\(f\(x\)\)"):
            submit(pool, plain(5))
        future: Future[int] = pool.submit(plain, 1)
        with pytest.raises(TypeError, match="under way already"):
            submit(pool, future)
        assert future.result() == 1
        assert pool.metrics().submitted == 1


@pytest.mark.parametrize("backend", ["thread", "process"])
def test_an_option_of_the_pool_that_was_given_to_the_function(backend: str) -> None:
    with Pool(1, backend=backend) as pool:
        error = pool.submit(plain, 1, timeout=5).exception()  # type: ignore[call-arg]
        assert type(error) is TypeError
        assert any("pool.options(timeout=...)" in note for note in error.__notes__)
        other = pool.submit(plain, 1, colour=5).exception()  # type: ignore[call-arg]
        assert not any("options" in note for note in getattr(other, "__notes__", ()))


@pytest.mark.parametrize(
    "operation",
    [
        lambda future: future + 1,
        lambda future: 1 + future,
        lambda future: future * 2,
        lambda future: future["key"],
        lambda future: future < 1,
        lambda future: 2**future,
    ],
)
def test_a_future_is_used_as_its_value(operation: Callable[[Any], object]) -> None:
    async def main() -> None:
        async with Pool(1) as pool:
            future = await pool.asubmit(plain, 1)
            with pytest.raises(TypeError, match="is not its value: await it"):
                operation(future)
            assert bool(future)
            assert await future == 1

    asyncio.run(main())


def test_a_blocking_wait_on_an_event_loop_is_a_warning_in_its_debug_mode() -> None:
    def waits(gate: threading.Event) -> None:
        gate.wait()

    async def main() -> None:
        gate = threading.Event()
        async with Pool(1) as pool:
            future = pool.submit(waits, gate)
            threading.Timer(0.01, gate.set).start()
            future.result()
            assert future.result() is None  # it is done: nothing is blocked

    with pytest.warns(RuntimeWarning, match="event loop is blocked until .*waits") as caught:
        asyncio.run(main(), debug=True)
    assert [one.filename for one in caught] == [__file__]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        asyncio.run(main())


def test_a_pool_in_a_coroutine_is_no_such_wait() -> None:
    async def main() -> None:
        with Pool(1) as pool:
            await pool.submit(plain, 1)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        asyncio.run(main(), debug=True)
