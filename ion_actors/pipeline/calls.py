"""What a stage has its workers call: the user's function, with its time taken.

The items of a ``flat_map`` are taken in the worker, since a generator runs where it is iterated.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncIterable, Callable, Coroutine
from typing import Any

from ion_actors.awaitables import Kind, is_coroutine, kind_of
from ion_actors.clock import Clock, system_clock
from ion_actors.naming import describe, named_after_func

__all__ = ["StageCall", "Verb"]

#: The seconds that a call took, and what came of it: the outputs, or whether to keep the item.
_Outcome = tuple[float, Any]


class Verb(enum.Enum):
    """What becomes of what a function returns."""

    MAP = "map"  #: it is the output
    FLAT_MAP = "flat_map"  #: its items are
    FILTER = "filter"  #: it says whether the item goes on


@named_after_func
class StageCall:
    """The task of a stage, for any item. It can be sent to another process if its function can."""

    __slots__ = ("_clock", "_verb", "func")

    def __init__(self, func: Callable[..., Any], verb: Verb, clock: Clock = system_clock) -> None:
        self.func = func
        self._verb = verb
        self._clock = clock

    @property
    def keeps_count(self) -> bool:
        """Whether one output comes of each item."""
        return self._verb is Verb.MAP

    def __call__(self, *args: Any) -> _Outcome | Coroutine[Any, Any, _Outcome]:
        """Call the function with these arguments, of which the last is the item."""
        began = self._clock.monotonic()
        value = self.func(*args)
        if is_coroutine(value):
            return self._await(value, began)
        if self._verb is Verb.FLAT_MAP and isinstance(value, AsyncIterable):
            return self._gather(value, began)
        return self._outcome(value, began)

    async def _await(self, value: Coroutine[Any, Any, Any], began: float) -> _Outcome:
        found = await value
        if self._verb is Verb.FLAT_MAP and isinstance(found, AsyncIterable):
            return await self._gather(found, began)
        return self._outcome(found, began)

    async def _gather(self, value: AsyncIterable[Any], began: float) -> _Outcome:
        return self._outcome([one async for one in value], began)

    def _outcome(self, value: Any, began: float) -> _Outcome:
        if self._verb is Verb.FLAT_MAP:
            outputs: Any = list(value)
        elif self._verb is Verb.FILTER:
            outputs = bool(value)
        elif kind_of(value) in (Kind.GENERATOR, Kind.ASYNC_GENERATOR):
            raise TypeError(
                f"{describe(self.func)} returned a {kind_of(value).value}: use flat_map"
            )
        else:
            outputs = [value]
        return self._clock.monotonic() - began, outputs

    def __reduce__(self) -> tuple[Any, ...]:
        return StageCall, (self.func, self._verb)  # the clock of tests stays here
