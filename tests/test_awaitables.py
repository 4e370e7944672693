"""What a call returned is judged by its type and the protocols, in one place."""

from __future__ import annotations

import asyncio
import collections.abc
import concurrent.futures
import types
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from typing import Any
from unittest import mock

import pykka
import pytest

from ion_actors import Future
from ion_actors.awaitables import PLAIN_TYPES, Kind, is_awaitable, is_coroutine, kind_of
from tests.coroutines import ByHand, Client, Duck, Iterating


async def one() -> int:
    return 1


@types.coroutine
def by_decorator() -> Generator[Any, Any, int]:
    yield from asyncio.sleep(0).__await__()
    return 1


COROUTINES: dict[str, Callable[[], Any]] = {
    "async def": one,
    "types.coroutine": by_decorator,
    "by hand": lambda: ByHand(one()),
    "duck": lambda: Duck(one()),
}


def not_a_generator_function() -> Iterating:
    return Iterating()


COROUTINES["types.coroutine of another"] = types.coroutine(not_a_generator_function)


@pytest.mark.parametrize("name", COROUTINES)
def test_coroutines(name: str) -> None:
    coroutine = COROUTINES[name]()
    assert is_coroutine(coroutine)
    assert is_awaitable(coroutine)
    assert kind_of(coroutine) is Kind.COROUTINE
    coroutine.close()


def plain_generator() -> Iterator[int]:
    yield 1


async def async_generator() -> AsyncIterator[int]:
    yield 1


@pytest.mark.parametrize("generator", [plain_generator(), Iterating(), (n for n in [1])])
def test_generators(generator: Any) -> None:
    assert kind_of(generator) is Kind.GENERATOR
    assert not is_awaitable(generator)


def test_asynchronous_generators() -> None:
    assert kind_of(async_generator()) is Kind.ASYNC_GENERATOR


class Liar:
    """It answers to everything, and says that it is a coroutine."""

    @property
    def __class__(self) -> type:  # type: ignore[override]
        return types.CoroutineType

    def __getattr__(self, name: str) -> Any:
        return self


class Raiser:
    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)


class BrokenMeta(type):
    def __getattribute__(cls, name: str) -> Any:
        raise RuntimeError(name)


class OfBrokenMeta(metaclass=BrokenMeta):
    pass


RESULTS: dict[str, Callable[[], Any]] = {
    "None": lambda: None,
    "a number": lambda: 1,
    "a list": lambda: [1],
    "an object": object,
    "a class": lambda: ByHand,
    "a generator function": lambda: plain_generator,
    "a coroutine function": lambda: one,
    "an iterator": lambda: iter([1]),
    "what says that it is one": Liar,
    "what raises": Raiser,
    "what has a class that raises": OfBrokenMeta,
    "a mock": mock.Mock,
    "a magic mock": mock.MagicMock,
    "an asynchronous mock": mock.AsyncMock,
    "a mock of one": lambda: mock.Mock(spec=collections.abc.Coroutine),
    "a client": Client,
    "a future": Future,
    "the library's future": concurrent.futures.Future,
    "pykka's future": pykka.ThreadingFuture,
}


@pytest.mark.parametrize("name", RESULTS)
def test_results(name: str) -> None:
    value = RESULTS[name]()
    assert not is_coroutine(value)
    assert kind_of(value) is Kind.RESULT


def test_futures_and_handles_can_be_awaited_and_are_results() -> None:
    loop = asyncio.new_event_loop()
    try:
        for value in (Client(), Future[int](), loop.create_future()):
            assert is_awaitable(value)
            assert kind_of(value) is Kind.RESULT
    finally:
        loop.close()


class Lasting:
    pass


def test_what_is_found_out_about_a_lasting_class_is_kept_and_about_others_is_not() -> None:
    class Passing:
        pass

    for one in (Lasting(), Passing(), mock.MagicMock(), Iterating(), plain_generator()):
        assert not is_coroutine(one)
    for one in (Lasting(), Iterating()):
        assert kind_of(one) is (Kind.RESULT if type(one) is Lasting else Kind.GENERATOR)
    assert Lasting in PLAIN_TYPES
    assert not {Passing, Iterating, types.GeneratorType} & PLAIN_TYPES
    assert not any(issubclass(one, mock.MagicMock) for one in PLAIN_TYPES)
