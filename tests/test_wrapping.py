"""Wrappers keep what they wrap as it was, compose from the outside in, and suit coroutines."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from ion_actors.wrapping import Wrapper


def recorder(name: str, seen: list[str]) -> Wrapper:
    @contextlib.contextmanager
    def scope() -> Iterator[None]:
        seen.append(f"{name} in")
        try:
            yield
        finally:
            seen.append(f"{name} out")

    @contextlib.asynccontextmanager
    async def ascope() -> AsyncIterator[None]:
        seen.append(f"{name} in, async")
        try:
            yield
        finally:
            seen.append(f"{name} out, async")

    return Wrapper(scope, ascope)


def add(a: int, b: int = 1) -> int:
    """The sum."""
    return a + b


def test_a_wrapped_function_looks_and_acts_like_the_original() -> None:
    seen: list[str] = []
    wrapped = recorder("s", seen)(add)
    assert (wrapped(1), wrapped(1, b=2)) == (2, 3)
    assert seen == ["s in", "s out"] * 2
    assert wrapped.__name__ == "add"
    assert wrapped.__doc__ == "The sum."
    assert inspect.signature(wrapped) == inspect.signature(add)


def test_a_wrapped_partial_has_the_name_of_its_function() -> None:
    wrapped = recorder("s", [])(functools.partial(add, 1))
    assert wrapped() == 2
    assert wrapped.__name__ == "add"
    assert wrapped.__doc__ == "The sum."


def test_the_first_of_a_chain_is_the_outermost() -> None:
    seen: list[str] = []
    chain = recorder("a", seen) | recorder("b", seen) | recorder("c", seen)
    assert chain(add)(1) == 2
    assert seen == ["a in", "b in", "c in", "c out", "b out", "a out"]


def test_any_decorator_may_be_a_link() -> None:
    seen: list[str] = []

    def plain(fn: Callable[..., Any]) -> Callable[..., Any]:
        seen.append("plain")
        return fn

    assert (plain | recorder("a", seen) | plain)(add)(1) == 2
    assert seen == ["plain", "plain", "a in", "a out"]


class Later:
    async def __call__(self) -> int:
        return 1

    async def method(self) -> int:
        return 1


async def later() -> int:
    return 1


@pytest.mark.parametrize(
    "fn", [later, functools.partial(later), Later(), Later().method], ids=lambda fn: repr(fn)[:20]
)
def test_a_coroutine_runs_inside_the_scope(fn: Callable[..., Any]) -> None:
    seen: list[str] = []
    wrapped = recorder("s", seen)(fn)
    assert asyncio.run(wrapped()) == 1
    assert seen == ["s in, async", "s out, async"]


def test_an_error_passes_through_the_scope() -> None:
    seen: list[str] = []
    with pytest.raises(ZeroDivisionError):
        recorder("s", seen)(lambda: 1 / 0)()
    assert seen == ["s in", "s out"]


def test_what_cannot_be_called_cannot_be_wrapped_or_be_a_link() -> None:
    wrapper: Any = recorder("s", [])
    with pytest.raises(TypeError, match="must be callable, not 3"):
        wrapper(3)
    with pytest.raises(TypeError, match="unsupported operand"):
        wrapper | 3
    with pytest.raises(TypeError, match="unsupported operand"):
        3 | wrapper
