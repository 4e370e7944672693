"""What to write instead: hints for futures that are used as if they were their values."""

from __future__ import annotations

import warnings
from typing import Any, NoReturn, TypeVar

__all__ = ["refuses_operators", "warn_if_blocked"]

C = TypeVar("C", bound=type)

# Not __len__, which bool() would call.
_BINARY = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow")
_OTHERS = ("getitem", "lt", "le", "gt", "ge")


def refuses_operators(kind: C) -> C:
    """A decorator: operators of this class of futures raise an error that says what to write.

    They are not in the class itself, so that type checkers go on to refuse them.
    """
    names = [*_BINARY, *(f"r{name}" for name in _BINARY), *_OTHERS]
    for name in names:
        setattr(kind, f"__{name}__", _refuse)
    return kind


def _refuse(future: object, *_: Any) -> NoReturn:
    raise TypeError(
        f"a {type(future).__name__} is not its value: await it, or call its result(); after "
        "`future = await pool.asubmit(...)`, write `await future`"
    )


def warn_if_blocked(future: Any, *, of_task: bool) -> None:
    """This thread is about to wait for a future, and its event loop too: warn in its debug mode.

    Args:
        future: which one.
        of_task: whether it is that of a task. The library itself waits for others.
    """
    import asyncio  # noqa: PLC0415 - there is a loop, so it was imported

    if of_task and asyncio.get_running_loop().get_debug():
        warnings.warn(
            f"the event loop is blocked until {future!r} is done: write `await future`, and not "
            "`future.result()`",
            RuntimeWarning,
            stacklevel=4,
        )
