"""Which exceptions mean that there was too much for the other side, and when to come again."""

from __future__ import annotations

import queue
from collections.abc import Callable
from typing import Any

from ion_actors.errors import QueueFull, RateLimited
from ion_actors.raised import is_a

__all__ = ["IsOverload", "is_overload", "retry_after_of"]

#: Types of exceptions, or a predicate.
IsOverload = type[BaseException] | tuple[type[BaseException], ...] | Callable[[Exception], bool]

_TOO_MUCH = (429, 503)


def is_overload(error: BaseException) -> bool:
    """The default: a refusal of this library, a timeout, or an HTTP error with status 429 or 503.

    The status is looked for as ``status_code``, ``status`` or ``code`` of the exception or of its
    ``response``, as httpx, requests, aiohttp and urllib have it.
    """
    if is_a(error, (RateLimited, QueueFull, queue.Full, TimeoutError)):
        return True
    return any(_status(one) in _TOO_MUCH for one in (error, _get(error, "response")))


def retry_after_of(error: BaseException) -> float | None:
    """Seconds after which the other side wants to be asked again: its ``retry_after``, if any."""
    found = _get(error, "retry_after")
    if type(found) not in (int, float) or not 0 < found < float("inf"):
        return None
    return float(found)


def _status(holder: object) -> object:
    for name in ("status_code", "status", "code"):
        found = _get(holder, name)
        if type(found) is int:
            return found
    return None


def _get(holder: object, name: str) -> Any:
    """An attribute of a user's object, which may raise anything."""
    try:
        return getattr(holder, name, None)
    except Exception:
        return None
