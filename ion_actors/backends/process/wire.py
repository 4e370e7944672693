"""What a request and a reply say, in bytes."""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

from ion_actors.clock import system_clock
from ion_actors.context import Context

__all__ = [
    "Request",
    "Start",
    "pack_cancel",
    "pack_error",
    "pack_request",
    "pack_result",
    "pack_start",
    "raise_error",
    "unpack",
    "unpack_cancel",
]

_PROTOCOL = 5
_MOST_WORDS = 2000  # of a reason; it must go through in one piece


class Start(NamedTuple):
    """What a child is to do first."""

    initializer: Callable[..., object] | None
    initargs: tuple[Any, ...]


class Request(NamedTuple):
    """A task to run."""

    fn: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any] | None
    remaining: float | None  # seconds until its deadline


def pack_start(start: Start) -> bytes:
    """What a START message says."""
    return pickle.dumps(tuple(start), _PROTOCOL)


def pack_request(task: Any, context: Context) -> bytes:
    """What a TASK message says."""
    return pickle.dumps((task._fn, task._args, task._kwargs, remaining(context)), _PROTOCOL)


def remaining(context: Context) -> float | None:
    """Seconds to the deadline for one who goes by the real time; None if there is none.

    The end of a context that goes by another clock is announced, and cannot be foreseen.
    """
    if context.deadline is None or context.clock is not system_clock:
        return None
    return context.remaining()


def pack_result(value: object) -> bytes:
    """What a RESULT message says."""
    return pickle.dumps(value, _PROTOCOL)


def pack_error(error: BaseException) -> bytes:
    """What an ERROR message says. It cannot fail."""
    text = "".join(traceback.format_exception(error))
    try:
        packed = pickle.dumps((error, text), _PROTOCOL)
        pickle.loads(packed)
    except BaseException:
        return pickle.dumps((RuntimeError(f"{type(error).__name__}: {error}"), text), _PROTOCOL)
    return packed


def unpack(body: bytes | bytearray) -> Any:
    """What was packed."""
    return pickle.loads(body)


def raise_error(body: bytes | bytearray) -> NoReturn:
    """Raise what was packed."""
    error, text = pickle.loads(body)
    error.__cause__ = RuntimeError(f"\n{text}")
    try:
        raise error
    finally:
        del error


def pack_cancel(number: int, expired: bool, reason: str) -> bytes:
    """What a CANCEL message says: which task is to end, and why."""
    return pickle.dumps((number, expired, reason[:_MOST_WORDS]), _PROTOCOL)


def unpack_cancel(body: bytes | bytearray) -> tuple[int, bool, str]:
    """The number of a task, whether its deadline has passed, and why it is to end."""
    number, expired, reason = pickle.loads(body)
    return number, expired, reason
