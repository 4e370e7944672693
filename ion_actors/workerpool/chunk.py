"""Several calls of a map as one task.

The results are in a list of the task's own, so those that came before an error are kept. In another
process, they are sent back, with the error if there is one.
"""

from __future__ import annotations

import functools
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


@named_after_func
class Chunk(Generic[T]):
    """Several calls as one task, with their results as they come."""

    __slots__ = ("_refuses", "func", "items", "results")

    def __init__(
        self, func: Callable[..., T], items: list[tuple[Any, ...]], refuses: bool = True
    ) -> None:
        self.func = func
        self.items = items
        self._refuses = refuses
        self.results: list[T] = []

    def __call__(self, *first: Any) -> Coroutine[Any, Any, None] | None:
        """Call them, each with these arguments before its own. A coroutine is the rest of it."""
        self.results.clear()  # of a try before, which took its worker down
        return _call_each(self.func, first, self.items, self.results, self._refuses)

    def __reduce__(self) -> tuple[Any, ...]:
        return RemoteChunk, (self.func, self.items)


class RemoteChunk(Generic[T]):
    """A chunk in another process, from where the results have to be sent back."""

    def __init__(self, func: Callable[..., T], items: list[tuple[Any, ...]]) -> None:
        self._func = func
        self._items = items

    def __call__(self, *first: Any) -> list[T] | Broken | Coroutine[Any, Any, list[T] | Broken]:
        results: list[T] = []
        try:
            rest = _call_each(self._func, first, self._items, results)
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


def _call_each(
    func: Callable[..., T],
    first: tuple[Any, ...],
    items: list[tuple[Any, ...]],
    results: list[T],
    refuses: bool = True,
) -> Coroutine[Any, Any, None] | None:
    """Call for one item after the other. The results come one by one: those before an error stay.

    Args:
        func: what to call.
        first: arguments of every call, before the item.
        items: the arguments of each call.
        results: where the results go.
        refuses: whether a generator is an error, see ``Dialect``.

    Returns:
        A coroutine that goes on, as soon as a call returns one.
    """
    rest = iter(items)
    for item in rest:
        value: Any = func(*first, *item)
        if type(value) not in PLAIN_TYPES:
            if is_coroutine(value):
                return _await_each(value, functools.partial(func, *first), rest, results)
            if refuses:
                refuse_generators(value, func)
        results.append(value)
    return None


async def _await_each(
    value: Any, func: Callable[..., T], rest: Iterator[tuple[Any, ...]], results: list[T]
) -> None:
    results.append(await value)
    for item in rest:
        value = func(*item)
        results.append(await value if is_coroutine(value) else value)


def results_of(future: Future[Any], here: list[Any], error: BaseException | None) -> list[Any]:
    """The results of a chunk, which may have been made in another process."""
    if here:
        return here
    if error is None:
        return future.result() or []
    if type(error) is TaskPanicked and error.__cause__ is not None:
        error = error.__cause__
    return take_results(error)
