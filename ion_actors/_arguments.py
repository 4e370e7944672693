"""Checks of what users pass in. An error names the argument, the value, and what would do."""

from __future__ import annotations

import math

__all__ = ["moment", "number", "optional_callable", "seconds", "whole_number"]


def whole_number(name: str, value: object, *, minimum: int) -> int:
    """An int (but not a bool) of at least ``minimum``."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number, not {value!r}")
    if value < minimum:
        raise ValueError(f"{name} must be at least {minimum}, not {value!r}")
    return value


def number(name: str, value: object, *, minimum: float, maximum: float = math.inf) -> float:
    """A finite number (but not a bool) from ``minimum`` to ``maximum``."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number, not {value!r}")
    if not minimum <= value <= maximum or math.isinf(value):
        limit = "finite" if math.isinf(maximum) else f"at most {maximum}"
        raise ValueError(f"{name} must be at least {minimum} and {limit}, not {value!r}")
    return float(value)


def seconds(name: str, value: object) -> float | None:
    """A number of seconds that is zero or more, or None. Infinity counts as None: no limit."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number of seconds or None, not {value!r}")
    if math.isnan(value) or value < 0:
        raise ValueError(f"{name} must be zero or more seconds, or None, not {value!r}")
    return None if math.isinf(value) else float(value)


def moment(name: str, value: object) -> float | None:
    """A moment of a monotonic clock, or None for never."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a moment of the clock or None, not {value!r}")
    if math.isnan(value):
        raise ValueError(f"{name} must be a moment of the clock or None, not {value!r}")
    return None if value == math.inf else float(value)


def optional_callable(name: str, value: object) -> None:
    """A callable or None."""
    if value is not None and not callable(value):
        raise TypeError(f"{name} must be callable or None, not {value!r}")
