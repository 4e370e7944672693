"""Wrappers: how a limiter, a breaker or a semaphore wraps any kind of function.

What a call returned decides what the scope covers, not what the function looks like:

::

    a value              the scope is left before the call returns
    a coroutine          the scope is held while it runs: from its first step to its end
    a generator          the same
    a future, a handle   a value: its work is not part of the call

A function that returns a coroutine cannot be told from others before it has returned one, so it is
called inside the scope. If it returns a coroutine, that scope is left, and entered again when the
coroutine begins: so one that nobody awaits holds nothing.

A scope may have a method ``keep``: then it is kept for the coroutine instead, so that both are one
call. After ``keep()``, the next ``__exit__`` does nothing, and the one after that leaves the scope.
Such a scope must not wait for anything. If the coroutine is never awaited, the scope is left as by
a ``GeneratorExit`` as soon as the coroutine is garbage.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from types import CodeType, FunctionType, MethodType
from typing import Any, ParamSpec, TypeVar, cast

from ion_actors.awaitables import PLAIN_TYPES, Kind, is_awaitable, kind_of, running_loop

__all__ = ["Wrapper"]

P = ParamSpec("P")
T = TypeVar("T")

_Scope = Callable[[], AbstractContextManager[Any]]
_Ascope = Callable[[], AbstractAsyncContextManager[Any]]

_MOST_DECORATORS = 100  # around each other: more than that must be a circle


class Wrapper:
    """A decorator that runs every call of a function inside a scope.

    The wrapped function keeps name, signature and type. A coroutine function stays one, and its
    scope is entered without blocking the event loop. A generator function stays one, too, and its
    scope is held from the first ``next()`` until the generator ends or is closed. Whatever else
    returns a coroutine or a generator (a lambda, a decorated function) returns one that holds the
    scope while it runs. ``a | b`` is one wrapper of two, with ``a`` on the outside: a call passes
    ``a``, then ``b``, then runs.

    Args:
        scope: makes the scope of one call, in a thread.
        ascope: makes it for a coroutine.
        entry_only: nothing is held inside the scope; to have entered it once is enough.
        would_wait: whether entering the scope now would have to wait. Then a call on an event loop
            is postponed, if the function is known to return coroutines. None: it never would.
    """

    def __init__(
        self,
        scope: _Scope,
        ascope: _Ascope,
        *,
        entry_only: bool = False,
        would_wait: Callable[[], bool] | None = None,
    ) -> None:
        self._scope = scope
        self._ascope = ascope
        self._entry_only = entry_only
        self._would_wait = would_wait

    def __call__(self, fn: Callable[P, T], /) -> Callable[P, T]:
        """``fn``, with every call of it inside the scope."""
        if not callable(fn):
            raise TypeError(f"what is wrapped must be callable, not {fn!r}")
        kind = _declared(fn)
        wrapped = self._around_function(fn) if kind is None else self._around(kind, fn, None)
        return cast("Callable[P, T]", _like(wrapped, fn))

    def _around_function(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        new_scope, would_wait = self._scope, self._would_wait

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            if would_wait is not None and running_loop() is not None and would_wait():
                # Entering the scope now would block the loop. That can be postponed only if it is
                # known what ``fn`` returns. Otherwise it is called like any function.
                kind = _guess(fn)
                if kind is not None:
                    return self._around(kind, fn, None)(*args, **kwargs)
            scope = new_scope()
            with scope:
                value = fn(*args, **kwargs)
                if type(value) in PLAIN_TYPES or (kind := kind_of(value)) is Kind.RESULT:
                    return value
                _note(fn, kind)
                if self._entry_only:
                    return value
                held = _Held(value, kind, scope)
            return self._cover(held, kind)

        return wrapped

    def _cover(self, held: _Held, kind: Kind) -> Any:
        """The result of a call, as an object that runs inside the scope."""
        covered = self._around(kind, held.take, held if held.is_kept else None)()
        _name_like(covered, held.value)
        return covered

    def _around(self, kind: Kind, fn: Callable[..., Any], kept: _Held | None) -> Callable[..., Any]:
        """Calls ``fn``, which returns this kind, and runs the result in the scope."""
        if kind is Kind.GENERATOR:
            return _around_generator(self._scope if kept is None else kept.again, fn)
        ascope = self._ascope if kept is None else kept.again
        if kind is Kind.COROUTINE:
            return _around_coroutine(ascope, fn)
        return _around_async_generator(ascope, fn)

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


# -- what runs inside a scope ----------------------------------------------------------------


def _around_coroutine(ascope: _Ascope, fn: Callable[..., Any]) -> Callable[..., Any]:
    async def wrapped(*args: Any, **kwargs: Any) -> Any:
        async with ascope():
            value = fn(*args, **kwargs)
            return await value if is_awaitable(value) else value

    return wrapped


def _around_generator(scope: _Scope, fn: Callable[..., Any]) -> Callable[..., Any]:
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        with scope():
            return (yield from fn(*args, **kwargs))

    return wrapped


def _around_async_generator(ascope: _Ascope, fn: Callable[..., Any]) -> Callable[..., Any]:
    async def wrapped(*args: Any, **kwargs: Any) -> Any:
        # What ``yield from`` does for other generators.
        async with ascope():
            items = fn(*args, **kwargs)
            step = items.asend(None)
            while True:
                try:
                    value = await step
                except StopAsyncIteration:
                    return
                try:
                    sent = yield value
                except GeneratorExit:
                    await items.aclose()
                    raise
                except BaseException as error:
                    step = items.athrow(error)
                else:
                    step = items.asend(sent)

    return wrapped


class _Held:
    """The result of a call, and the scope that is kept for it, until it runs.

    If it never runs, nothing stays: the coroutine does not warn that nobody awaited it (its wrapper
    does), and the scope is left.
    """

    def __init__(self, value: Any, kind: Kind, scope: Any) -> None:
        self.value = value
        self._kind = kind
        self._scope: Any = None
        self._taken = False
        if (keep := getattr(scope, "keep", None)) is not None:
            self._scope = scope
            keep()

    @property
    def is_kept(self) -> bool:
        """Whether its scope was entered already."""
        return self._scope is not None

    def again(self) -> _Held:
        """The kept scope, instead of a new one."""
        return self

    def take(self) -> Any:
        """The object to run now."""
        self._taken = True
        return self.value

    def __enter__(self) -> None:
        self._taken = True

    def __exit__(self, *error: Any) -> Any:
        return self._scope.__exit__(*error)

    async def __aenter__(self) -> None:
        self._taken = True

    async def __aexit__(self, *error: Any) -> Any:
        return self._scope.__exit__(*error)

    def __del__(self) -> None:
        if self._taken:
            return
        if self._kind is Kind.COROUTINE:
            self.value.close()
        if self._scope is not None:
            self._scope.__exit__(GeneratorExit, GeneratorExit(), None)


# -- what functions look like: for names and flags, and where nothing else is known ----------


def _declared(fn: Any) -> Kind | None:
    """The kind that ``fn`` declares to return, also as a partial or an object; None if unknown."""
    try:
        while isinstance(fn, functools.partial):
            fn = fn.func
        # Of its type: calling a class with such a method makes an instance, not a coroutine.
        return _flagged(fn) or _flagged(getattr(type(fn), "__call__", None))  # noqa: B004
    except Exception:  # an object may do anything when asked for an attribute
        return None


def _flagged(fn: Any) -> Kind | None:
    if inspect.iscoroutinefunction(fn):
        return Kind.COROUTINE
    if inspect.isgeneratorfunction(fn):
        flags = getattr(fn, "__code__").co_flags  # noqa: B009  # of a method, too
        return Kind.COROUTINE if flags & inspect.CO_ITERABLE_COROUTINE else Kind.GENERATOR
    return Kind.ASYNC_GENERATOR if inspect.isasyncgenfunction(fn) else None


#: The kinds that functions with this code have returned.
_seen: weakref.WeakKeyDictionary[CodeType, Kind] = weakref.WeakKeyDictionary()

#: A function that calls one of these may make a coroutine without returning it.
_RUNNERS = frozenset(
    {
        "create_task", "ensure_future", "run", "run_coroutine_threadsafe", "run_until_complete",
        "start_soon", "submit",
    }
)  # fmt: skip

_DEEPEST = 3  # functions that call each other


def _note(fn: Callable[..., Any], kind: Kind) -> None:
    inner, _ = _innermost(fn)
    if type(inner) is FunctionType:
        _seen[inner.__code__] = kind


def _guess(fn: Any, owner: Any = None, depth: int = _DEEPEST) -> Kind | None:
    """The kind that ``fn`` returns, if calling it would block an event loop.

    Found without running anything: by what it returned before, or by the functions that it
    decorates or names.
    """
    inner, owner = _innermost(fn, owner)
    if type(inner) is not FunctionType:
        return None
    found = _flagged(inner) or _seen.get(inner.__code__)
    if found is not None or depth == 0 or not _RUNNERS.isdisjoint(inner.__code__.co_names):
        return found
    for one, its_owner in _named_in(inner, owner):
        if (found := _guess(one, its_owner, depth - 1)) is not None:
            return found
    return None


def _innermost(fn: Any, owner: Any = None) -> tuple[Any, Any]:
    """The function behind partials, methods and decorators, and the object that it belongs to."""
    for _ in range(_MOST_DECORATORS):
        if isinstance(fn, functools.partial):
            fn = fn.func
        elif type(fn) is MethodType:
            fn, owner = fn.__func__, fn.__self__
        elif isinstance(fn, staticmethod | classmethod):
            fn = fn.__func__
        elif type(fn) is FunctionType and "__wrapped__" in vars(fn):
            fn = vars(fn)["__wrapped__"]
        else:
            break
    return fn, owner


def _named_in(fn: FunctionType, owner: Any) -> Iterator[tuple[Any, Any]]:
    """The objects that the code of a function refers to by name, and their named attributes."""
    names = fn.__code__.co_names
    found = [fn.__globals__[name] for name in names if name in fn.__globals__]
    for cell in fn.__closure__ or ():
        with contextlib.suppress(ValueError):  # it is empty
            found.append(cell.cell_contents)
    for one in found:
        yield one, None
    for one in [*found, owner]:
        for name in names:
            yield inspect.getattr_static(one, name, None), one


def _like(wrapped: Callable[..., Any], fn: Callable[..., Any]) -> Callable[..., Any]:
    """Name and signature of the original; a partial has no name, so its function's is taken."""
    try:
        functools.update_wrapper(wrapped, fn)
        if isinstance(fn, functools.partial):
            inner = fn.func
            wrapped.__name__ = getattr(inner, "__name__", type(inner).__name__)
            wrapped.__qualname__ = getattr(inner, "__qualname__", wrapped.__name__)
            wrapped.__doc__ = inner.__doc__
    except Exception:  # as above
        wrapped.__name__ = wrapped.__qualname__ = type(fn).__name__
    return wrapped


def _name_like(covered: Any, value: Any) -> None:
    for name in ("__name__", "__qualname__"):
        try:
            found = getattr(value, name, None)
        except Exception:  # as above
            return
        if isinstance(found, str):
            setattr(covered, name, found)
