"""Whether a call returned a result, or something that has yet to run.

This is the one place that decides it: by the protocols of ``collections.abc`` and by what the
interpreter itself accepts in ``await``, never by what the called function looks like. So these are
coroutines: those of ``async def``, those that Cython compiles, generators of
``types.coroutine``, and instances of any class with the methods of ``collections.abc.Coroutine``.

A future is a *result*, and so is any other object that only has ``__await__``: its work runs
elsewhere, or it is a handle (many clients of databases have ``__await__``), and the receiver may
await it. A coroutine does nothing until somebody runs it.

Only the type of an object counts. An object that has every attribute (a mock), or a ``__class__``
of its own, is what its type says.
"""

from __future__ import annotations

import enum
import inspect
import sys
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Coroutine,
    Generator,
    Iterator,
)
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import TYPE_CHECKING, Any, TypeGuard

if TYPE_CHECKING:
    import asyncio

__all__ = [
    "PLAIN_TYPES",
    "Kind",
    "is_async_iterator",
    "is_awaitable",
    "is_coroutine",
    "is_iterator",
    "kind_of",
    "running_loop",
]


class Kind(enum.Enum):
    """What a call returned."""

    RESULT = "result"  #: a value like any other
    COROUTINE = "coroutine"  #: to be awaited once
    GENERATOR = "generator"  #: to be iterated
    ASYNC_GENERATOR = "asynchronous generator"  #: to be iterated by ``async for``


#: Types of plain results. Checking here first saves most calls the question. Further classes are
#: added as they are found out, if they are permanent.
PLAIN_TYPES: set[type] = {
    type(None), bool, int, float, complex, str, bytes, bytearray, memoryview, list, tuple,
    dict, set, frozenset, range, slice, object, type,
}  # fmt: skip

_MOST_TYPES = 10_000  # in that set: programs that make and replace classes must not fill it


def kind_of(value: object) -> Kind:
    """The kind of this object, which a call returned."""
    found = type(value)
    if is_coroutine(value):
        return Kind.COROUTINE
    if found in PLAIN_TYPES:
        return Kind.RESULT
    if found is GeneratorType or _has_protocol(found, Generator):
        return Kind.GENERATOR
    if found is AsyncGeneratorType or _has_protocol(found, AsyncGenerator):
        return Kind.ASYNC_GENERATOR
    return Kind.RESULT


def is_coroutine(value: object) -> TypeGuard[Coroutine[Any, Any, Any]]:
    """Whether this is a coroutine: it has yet to run, and can be awaited once."""
    found = type(value)
    if found is CoroutineType:
        return True
    if found in PLAIN_TYPES:
        return False
    if found is GeneratorType:
        return bool(value.gi_code.co_flags & inspect.CO_ITERABLE_COROUTINE)  # type: ignore[attr-defined]
    if _has_protocol(found, Coroutine):
        return True
    _learn(found)
    return False


def _learn(found: type) -> None:
    """Remember that objects of this type are results, if its class is a permanent one."""
    try:
        module = sys.modules[found.__module__]
        if vars(module).get(found.__qualname__) is not found or len(PLAIN_TYPES) >= _MOST_TYPES:
            return
    except Exception:  # a class may do anything when asked for an attribute
        return
    if not (_has_protocol(found, Generator) or _has_protocol(found, AsyncGenerator)):
        PLAIN_TYPES.add(found)


def is_awaitable(value: object) -> TypeGuard[Awaitable[Any]]:
    """Whether ``await`` accepts this: a coroutine, a future, or any object with ``__await__``."""
    return is_coroutine(value) or _has_protocol(type(value), Awaitable)


def is_iterator(value: object) -> TypeGuard[Iterator[Any]]:
    """Whether ``next`` accepts this: a generator, or another iterator. No list is one."""
    return _has_protocol(type(value), Iterator)


def is_async_iterator(value: object) -> TypeGuard[AsyncIterator[Any]]:
    """Whether ``anext`` accepts this: an asynchronous generator, or another such iterator."""
    return _has_protocol(type(value), AsyncIterator)


def _has_protocol(found: type, protocol: type) -> bool:
    # The abstract class caches the answer, by weak references.
    try:
        return issubclass(found, protocol)
    except Exception:  # a metaclass may fail at anything, and then its instances are results
        return False


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The event loop that runs in this thread, if one does.

    A program that has not imported ``asyncio`` has none, and need not import it for this.
    """
    get = getattr(sys.modules.get("asyncio.events"), "_get_running_loop", None)
    return None if get is None else get()
