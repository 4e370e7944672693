"""Several calls of a map as one task.

The results are in a list of the task's own, so those that came before an error are kept. In another
process, they are sent back, with the error if there is one.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any, Generic, TypeVar

from ion_actors.awaitables import PLAIN_TYPES, is_coroutine
from ion_actors.backends.protocol import Broken, give_results, take_results
from ion_actors.backends.stream.producer import refuse_generators
from ion_actors.clock import system_clock
from ion_actors.context import current_context
from ion_actors.errors import TaskPanicked
from ion_actors.futures import Future
from ion_actors.naming import named_after_func

__all__ = ["Chunk", "Results", "results_of"]

T = TypeVar("T")

_SHORT = 0.001  # seconds without a look at the context
_MOST = 1000  # calls without one
_STEP = 32  # times as many the next time, or as few

#: Types whose objects nobody misses: how long they live can only be seen by the memory they take.
_LIGHT = frozenset((type(None), bool, int, float, complex, str, bytes))


class Results(list[T]):
    """The results of a chunk.

    Attributes:
        light: all of them may be held for a while after they were handed on.
    """

    __slots__ = ("light",)

    def __init__(self) -> None:
        super().__init__()
        self.light = False


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
        self,
        func: Callable[..., T],
        items: Sequence[Any],
        refuses: bool = True,
        packed: bool = True,
    ) -> None:
        self.func = func
        self.items = items
        self._refuses = refuses
        self._packed = packed
        self.results: Results[T] = Results()

    def __call__(self, *first: Any) -> Coroutine[Any, Any, None] | None:
        """Call them, each with these arguments before its own. A coroutine is the rest of it."""
        self.results.clear()  # of a try before, which took its worker down
        calls = _calls(self.func, first, self.items, self._packed)
        return _call_each(self.func, calls, len(self.items), self.results, self._refuses)

    def __reduce__(self) -> tuple[Any, ...]:
        return RemoteChunk, (self.func, self.items, self._packed)


class RemoteChunk(Generic[T]):
    """A chunk in another process, from where the results have to be sent back."""

    def __init__(self, func: Callable[..., T], items: Sequence[Any], packed: bool) -> None:
        self._func = func
        self._items = items
        self._packed = packed

    def __call__(self, *first: Any) -> list[T] | Broken | Coroutine[Any, Any, list[T] | Broken]:
        results: Results[T] = Results()
        try:
            calls = _calls(self._func, first, self._items, self._packed)
            rest = _call_each(self._func, calls, len(self._items), results)
        except Exception as error:
            return Broken(results, error)
        except BaseException as error:  # the end of this worker, which others see to
            give_results(error, results)
            raise
        return list(results) if rest is None else self._await(rest, results)

    async def _await(
        self, rest: Coroutine[Any, Any, None], results: Results[T]
    ) -> list[T] | Broken:
        try:
            await rest
        except Exception as error:
            return Broken(results, error)
        except BaseException as error:  # as above
            give_results(error, results)
            raise
        return list(results)


def _calls(
    func: Callable[..., T], first: tuple[Any, ...], items: Sequence[Any], packed: bool
) -> Iterator[T]:
    """Makes the next call for each item, with these arguments before its own."""
    call = functools.partial(func, *first) if first else func
    return itertools.starmap(call, items) if packed else map(call, items)


def _call_each(
    func: Callable[..., T],
    calls: Iterator[T],
    count: int,
    results: Results[T],
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

    Raises:
        Cancelled, DeadlineExceeded: the current context ended in between.
    """
    kinds: set[type] = set()
    pace = _Pace()
    while len(results) < count:
        if results:
            pace.look()
        end = min(len(results) + pace.calls, count)
        some = itertools.islice(calls, end - len(results))
        # This looks at each type in C, while the object is at hand: to go through all of them once
        # more would take twice as long.
        for kind, group in itertools.groupby(some, type):
            kinds.add(kind)
            if kind in PLAIN_TYPES:
                results += group
                continue
            for one in group:
                if is_coroutine(one):
                    return _await_each(one, calls, count, results)
                if refuses:
                    refuse_generators(one, func)
                results.append(one)
        _check(end, results)
    results.light = kinds <= _LIGHT
    return None


class _Pace:
    """How many calls to make before a look at the context: more and more, unless they take long."""

    __slots__ = ("_looked", "calls")

    def __init__(self) -> None:
        self.calls = 1
        self._looked = system_clock.monotonic()

    def look(self) -> None:
        """Some calls were made.

        Raises:
            Cancelled, DeadlineExceeded: the current context has ended.
        """
        before, self._looked = self._looked, system_clock.monotonic()
        if self._looked - before < _SHORT:
            self.calls = min(self.calls * _STEP, _MOST)
        else:
            self.calls = max(self.calls // _STEP, 1)
            current_context().check()


async def _await_each(
    coroutine: Coroutine[Any, Any, Any], calls: Iterator[Any], count: int, results: list[Any]
) -> None:
    """Await what a call has returned; then make the others."""
    results.append(await coroutine)
    for value in calls:
        results.append(await value if is_coroutine(value) else value)  # noqa: PERF401
    _check(count, results)


def _check(count: int, results: list[Any]) -> None:
    """What ends before its time was ended by a call that raised ``StopIteration``."""
    if len(results) < count:
        raise StopIteration


def results_of(future: Future[Any], here: list[Any], error: BaseException | None) -> list[Any]:
    """The results of a chunk, which may have been made in another process."""
    if here:
        return here if error is None else here.copy()  # it may go on, if it was given up
    if error is None:
        return future.result() or []
    if type(error) is TaskPanicked and error.__cause__ is not None:
        error = error.__cause__
    return take_results(error)
