"""What to write instead: hints for calls that are meant for a pool and say something else."""

from __future__ import annotations

import dataclasses
import inspect
from concurrent.futures import Future
from typing import Any

from ion_actors.awaitables import is_awaitable, is_coroutine
from ion_actors.raised import args_of
from ion_actors.workerpool.task_options import TaskOptions

__all__ = ["hint_at_options", "not_callable"]

_OPTIONS = frozenset(one.name for one in dataclasses.fields(TaskOptions))


def not_callable(given: object, verb: str = "submit") -> TypeError:
    """The error for what was submitted, and cannot be called."""
    if is_coroutine(given):
        if inspect.iscoroutine(given) and inspect.getcoroutinestate(given) == inspect.CORO_CREATED:
            given.close()  # else there would be a warning, too, that it was never awaited
        name = getattr(given, "__name__", "f")
        return TypeError(
            f"a task must be callable, not a coroutine: write {verb}({name}, ...) with the "
            f"arguments, and not {verb}({name}(...))"
        )
    if isinstance(given, Future) or is_awaitable(given):
        return TypeError(
            f"a task must be callable, not a future: it is under way already: {given!r}"
        )
    return TypeError(
        f"a task must be callable, not {given!r}: if that is what a function has returned, write "
        f"{verb}(f, x) and not {verb}(f(x))"
    )


def hint_at_options(
    error: BaseException, kwargs: dict[str, Any] | None, verb: str = "submit"
) -> None:
    """A task has failed. Note if an option of the pool was given to the function by mistake."""
    if type(error) is not TypeError or not kwargs or _OPTIONS.isdisjoint(kwargs):
        return
    said = args_of(error)
    text = said[0] if said and type(said[0]) is str else ""
    for name in _OPTIONS.intersection(kwargs):
        if f"unexpected keyword argument '{name}'" in text:
            BaseException.add_note(
                error,
                f"{name}= was given to the function; for the pool, write "
                f"pool.options({name}=...).{verb}(...)",
            )
