"""Objects that can be run or awaited, and are none of ``async def``."""

from __future__ import annotations

import asyncio
import collections.abc
from collections.abc import Generator
from typing import Any


class ByHand(collections.abc.Coroutine[Any, Any, int]):
    """A coroutine that is no coroutine of ``async def``: what compilers and clients make."""

    def __init__(self, inner: collections.abc.Coroutine[Any, Any, int]) -> None:
        self._inner = inner

    def send(self, value: Any) -> Any:
        return self._inner.send(value)

    def throw(self, *args: Any) -> Any:
        return self._inner.throw(*args)

    def close(self) -> None:
        self._inner.close()

    def __await__(self) -> Generator[Any, Any, int]:
        return self._inner.__await__()


class Duck:
    """The same, and it derives from nothing."""

    __init__ = ByHand.__init__
    send, throw, close, __await__ = ByHand.send, ByHand.throw, ByHand.close, ByHand.__await__


class Iterating(Generator[Any, Any, int]):
    """A generator by hand."""

    def __init__(self) -> None:
        self._inner = (n for n in (1, 2))

    def send(self, value: Any) -> Any:
        return self._inner.send(value)

    def throw(self, *args: Any) -> Any:
        return self._inner.throw(*args)


class Client:
    """A handle that may be awaited, as clients of databases may."""

    def __await__(self) -> Generator[Any, Any, Client]:
        yield from asyncio.sleep(0).__await__()
        return self
