"""Wrappers of tasks: what lets a limiter, a breaker or a semaphore stand around any function."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any, ParamSpec, TypeVar, cast

__all__ = ["Wrapper"]

P = ParamSpec("P")
T = TypeVar("T")


class Wrapper:
    """A decorator that runs every call of a function inside a scope.

    The wrapped function keeps name, signature and type. A coroutine function stays one, and its
    scope is entered without blocking the event loop. ``a | b`` is one wrapper of two, with ``a``
    on the outside: a call passes ``a``, then ``b``, then runs.

    A generator function is only inside the scope while it makes its generator, not while somebody
    takes from that. There, enter the scope in the function itself.

    Args:
        scope: makes the scope of one call, in a thread.
        ascope: makes it for a call of a coroutine function.
    """

    def __init__(
        self,
        scope: Callable[[], AbstractContextManager[Any]],
        ascope: Callable[[], AbstractAsyncContextManager[Any]],
    ) -> None:
        self._scope = scope
        self._ascope = ascope

    def __call__(self, fn: Callable[P, T], /) -> Callable[P, T]:
        """``fn``, with every call of it inside the scope."""
        if not callable(fn):
            raise TypeError(f"what is wrapped must be callable, not {fn!r}")
        if is_coroutine_function(fn):
            return cast("Callable[P, T]", self._around_coroutine(fn))

        def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
            with self._scope():
                return fn(*args, **kwargs)

        return _like(wrapped, fn)

    def _around_coroutine(self, fn: Callable[P, Any]) -> Callable[P, Any]:
        async def wrapped(*args: P.args, **kwargs: P.kwargs) -> Any:
            async with self._ascope():
                return await fn(*args, **kwargs)

        return _like(wrapped, fn)

    def __or__(self, inner: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Chain:
        """This wrapper around another one, or around any decorator."""
        if not callable(inner):
            return NotImplemented
        return Chain(self, inner)

    def __ror__(self, outer: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Chain:
        """Any decorator around this wrapper."""
        if not callable(outer):
            return NotImplemented
        return Chain(outer, self)


class Chain(Wrapper):
    """Several wrappers as one; the first is the outermost."""

    def __init__(self, *links: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        self._links = links

    def __call__(self, fn: Callable[P, T], /) -> Callable[P, T]:
        """``fn`` inside all of them."""
        wrapped: Callable[..., Any] = fn
        for link in reversed(self._links):
            wrapped = link(wrapped)
        return wrapped


def is_coroutine_function(fn: Callable[..., Any]) -> bool:
    """Whether what ``fn`` returns is to be awaited; looks into partials and callable objects."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(
        getattr(fn, "__call__", None)  # noqa: B004  # the method is wanted, not whether there is one
    )


def _like(wrapped: Callable[P, T], fn: Callable[..., Any]) -> Callable[P, T]:
    """Name and signature of the original; a partial has no name, so its function's is taken."""
    functools.update_wrapper(wrapped, fn)
    if isinstance(fn, functools.partial):
        inner = fn.func
        wrapped.__name__ = getattr(inner, "__name__", type(inner).__name__)
        wrapped.__qualname__ = getattr(inner, "__qualname__", wrapped.__name__)
        wrapped.__doc__ = inner.__doc__
    return wrapped
