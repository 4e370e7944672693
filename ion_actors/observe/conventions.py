"""Conventions that the adapters share: which metrics are times, and how errors are reported."""

from __future__ import annotations

from ion_actors.errors import Cancelled, TaskAbandoned
from ion_actors.naming import printable
from ion_actors.raised import is_a, is_asyncio_cancellation

__all__ = ["SECONDS", "error_type", "is_in_seconds", "was_wanted"]

#: Upper bounds of histogram buckets. Tasks and waits take from microseconds to minutes.
SECONDS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0,
)  # fmt: skip


def is_in_seconds(name: str) -> bool:
    """Whether the metric of that name measures time. All times of this library are in seconds."""
    return name.endswith(("_seconds", "_duration"))


def error_type(error: BaseException) -> str:
    """The full name of an exception's class; of a built-in one, just the name."""
    kind = type(error)
    if kind.__module__ == "builtins":
        return kind.__qualname__
    return printable(f"{kind.__module__}.{kind.__qualname__}")


def was_wanted(error: BaseException) -> bool:
    """Whether it is only a requested cancellation, and not a failure."""
    if is_a(error, TaskAbandoned):
        return False
    return is_a(error, Cancelled) or is_asyncio_cancellation(error)
