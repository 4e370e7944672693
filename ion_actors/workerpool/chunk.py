"""Several calls of a map as one task.

The results are in a list of the task's own, so those that came before an error are kept. In another
process, they are sent back, with the error if there is one.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Generic, TypeVar

from ion_actors.awaitables import PLAIN_TYPES, is_coroutine
from ion_actors.backends.protocol import Broken, give_results, take_results
from ion_actors.backends.stream.producer import refuse_generators
from ion_actors.errors import TaskPanicked
from ion_actors.futures import Future
from ion_actors.naming import named_after_func

__all__ = ["Chunk", "results_of"]

T = TypeVar("T")

_AT_ONCE = 100  # calls that are made before their results are looked at


@named_after_func
class Chunk(Generic[T]):
    """Several calls as one task, with their results as they come.

    Args:
        func: what to call.
        items: for each call, its arguments.
        refuses: whether a generator is an error, see ``Dialect``.
        packed: whether an item is a tuple of arguments; else it is the only one.
    """

    __slots__ = ("_packed", "_refuses", "func", "items", "results")

    def __init__(
        self, func: Callable[..., T], items: list[Any], refuses: bool = True, packed: bool = True
    ) -> None:
        self.func = func
        self.items = items
        self._refuses = refuses
        self._packed = packed
        self.results: list[T] = []

    def __call__(self, *first: Any) -> Coroutine[Any, Any, None] | None:
        """Call them, each with these arguments before its own. A coroutine is the rest of it."""
        self.results.clear()  # of a try before, which took its worker down
        calls = _calls(self.func, first, self.items, self._packed)
        return _call_each(self.func, calls, len(self.items), self.results, self._refuses)

    def __reduce__(self) -> tuple[Any, ...]:
        return RemoteChunk, (self.func, self.items, self._packed)


class RemoteChunk(Generic[T]):
    """A chunk in another process, from where the results have to be sent back."""

    def __init__(self, func: Callable[..., T], items: list[Any], packed: bool) -> None:
        self._func = func
        self._items = items
        self._packed = packed

    def __call__(self, *first: Any) -> list[T] | Broken | Coroutine[Any, Any, list[T] | Broken]:
        results: list[T] = []
        try:
            calls = _calls(self._func, first, self._items, self._packed)
            rest = _call_each(self._func, calls, len(self._items), results)
        except Exception as error:
            return Broken(results, error)
        except BaseException as error:  # the end of this worker, which others see to
            give_results(error, results)
            raise
        return results if rest is None else self._await(rest, results)

    async def _await(self, rest: Coroutine[Any, Any, None], results: list[T]) -> list[T] | Broken:
        try:
            await rest
        except Exception as error:
            return Broken(results, error)
        except BaseException as error:  # as above
            give_results(error, results)
            raise
        return results


def _calls(
    func: Callable[..., T], first: tuple[Any, ...], items: list[Any], packed: bool
) -> Iterator[T]:
    """Makes the next call for each item, with these arguments before its own."""
    call = functools.partial(func, *first) if first else func
    return itertools.starmap(call, items) if packed else map(call, items)


def _call_each(
    func: Callable[..., T],
    calls: Iterator[T],
    count: int,
    results: list[T],
    refuses: bool = True,
) -> Coroutine[Any, Any, None] | None:
    """Make one call after the other. The results come one by one: those before an error stay.

    Args:
        func: what is called.
        calls: makes the next call.
        count: how many there are.
        results: where the results go.
        refuses: whether a generator is an error, see ``Dialect``.

    Returns:
        A coroutine that goes on, as soon as a call returns one.
    """
    error: BaseException | None = None
    try:
        for value in calls:
            found = [value]
            if type(value) in PLAIN_TYPES:  # the next ones are likely to be plain, too
                error = _make_some(calls, count - len(results), found)
                if PLAIN_TYPES.issuperset(map(type, found)):
                    results += found
                    found.clear()
            for place, one in enumerate(found):
                if is_coroutine(one):
                    return _await_each(found[place:], error, calls, count, results)
                if refuses:
                    refuse_generators(one, func)
                results.append(one)
            if error is not None:
                raise error
        _check(count, results)
        return None
    finally:
        error = None  # its traceback has this frame


def _make_some(calls: Iterator[T], most: int, found: list[T]) -> BaseException | None:
    """Make more calls, so that most of them are found. Returns what one of them has raised."""
    try:
        found.extend(itertools.islice(calls, _AT_ONCE))
    except BaseException as error:
        return error
    # If there are less, a call has raised this, which is no end of ours.
    return StopIteration() if len(found) < min(1 + _AT_ONCE, most) else None


async def _await_each(
    found: list[Any],
    error: BaseException | None,
    calls: Iterator[Any],
    count: int,
    results: list[Any],
) -> None:
    """Await what calls have returned, unless it is a result; then make the others."""
    try:
        while found:
            results.append(await found[0] if is_coroutine(found[0]) else found[0])
            del found[0]
        if error is not None:
            raise error
        for value in calls:
            results.append(await value if is_coroutine(value) else value)  # noqa: PERF401
        _check(count, results)
    finally:
        for one in found[1:]:
            if is_coroutine(one):
                one.close()
        error = None  # its traceback has this frame


def _check(count: int, results: list[Any]) -> None:
    """What ends before its time was ended by a call that raised ``StopIteration``."""
    if len(results) < count:
        raise StopIteration


def results_of(future: Future[Any], here: list[Any], error: BaseException | None) -> list[Any]:
    """The results of a chunk, which may have been made in another process."""
    if here:
        return here
    if error is None:
        return future.result() or []
    if type(error) is TaskPanicked and error.__cause__ is not None:
        error = error.__cause__
    return take_results(error)
