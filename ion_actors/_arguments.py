"""Checks of arguments. An error names the argument, its value, and what is allowed."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping

__all__ = [
    "boolean",
    "duration",
    "exceptions_or_predicate",
    "make_plain",
    "moment",
    "number",
    "optional",
    "optional_callable",
    "positive_seconds",
    "seconds",
    "unexpected_keyword",
    "whole_number",
]


def whole_number(name: str, value: object, *, minimum: int | None = None) -> int:
    """An int (but not a bool) of at least ``minimum``, if there is one."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number, not {value!r}")
    if minimum is not None and value < minimum:
        raise ValueError(f"{name} must be at least {minimum}, not {value!r}")
    return int.__int__(value)  # no subclass: its methods would run wherever it is used


def boolean(name: str, value: object) -> bool:
    """True or False, and nothing that is only similar."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, not {value!r}")
    return value


def number(name: str, value: object, *, minimum: float, maximum: float = math.inf) -> float:
    """A finite number (but not a bool) from ``minimum`` to ``maximum``."""
    found = _float(name, value, "a number")
    if not minimum <= found <= maximum or math.isinf(found):
        limit = "finite" if math.isinf(maximum) else f"at most {maximum}"
        raise ValueError(f"{name} must be at least {minimum} and {limit}, not {value!r}")
    return found


def seconds(name: str, value: object) -> float | None:
    """A number of seconds that is zero or more, or None. Infinity counts as None: no limit."""
    if value is None:
        return None
    found = _float(name, value, "a number of seconds or None")
    if not found >= 0:
        raise ValueError(f"{name} must be zero or more seconds, or None, not {value!r}")
    return None if math.isinf(found) else found


def duration(name: str, value: object) -> float:
    """A finite number of seconds that is zero or more."""
    if (found := seconds(name, value)) is None:
        raise ValueError(f"{name} must be a finite number of seconds, not {value!r}")
    return found


def positive_seconds(name: str, value: object) -> float | None:
    """A number of seconds that is more than zero, or None. Infinity counts as None: no limit."""
    if value is None:
        return None
    found = _float(name, value, "a number of seconds or None")
    if not found > 0:
        raise ValueError(f"{name} must be more than zero seconds, or None, not {value!r}")
    return None if math.isinf(found) else found


def moment(name: str, value: object) -> float | None:
    """A moment of a monotonic clock, or None for never."""
    if value is None:
        return None
    found = _float(name, value, "a moment of the clock or None")
    if math.isnan(found):
        raise ValueError(f"{name} must be a moment of the clock or None, not {value!r}")
    return None if found == math.inf else found


def _float(name: str, value: object, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be {what}, not {value!r}")
    try:
        return float(value)
    except OverflowError:  # an int that no float can hold
        return math.inf if value > 0 else -math.inf


_PLAIN = frozenset({int, float, bool})


def make_plain(checked: object, *names: str) -> None:
    """Have these attributes of a frozen object be numbers of no subclass, where they are numbers.

    What a subclass makes of arithmetic and of comparisons would run wherever the numbers are used:
    on threads that must not block, and under locks.
    """
    for name in names:
        value = getattr(checked, name)
        if value is None or type(value) in _PLAIN:
            continue
        if isinstance(value, int):
            object.__setattr__(checked, name, int.__int__(value))
        elif isinstance(value, float):
            object.__setattr__(checked, name, float.__float__(value))


def optional(name: str, value: object, kind: type) -> None:
    """An instance of this class, or None."""
    if value is not None and not isinstance(value, kind):
        what = "string" if kind is str else kind.__name__
        raise TypeError(f"{name} must be a {what} or None, not {value!r}")


def optional_callable(name: str, value: object) -> None:
    """A callable or None."""
    if value is not None and not callable(value):
        raise TypeError(f"{name} must be callable or None, not {value!r}")


def exceptions_or_predicate(name: str, value: object) -> None:
    """An exception type, a tuple of them, a callable that is given an exception, or None."""
    if not isinstance(value, type | tuple):
        if value is not None and not callable(value):
            raise TypeError(f"{name} must be exception types or a predicate, not {value!r}")
        return
    for kind in value if isinstance(value, tuple) else (value,):
        if not (isinstance(kind, type) and issubclass(kind, BaseException)):
            raise TypeError(f"{name} must be exception types or a predicate, not {kind!r}")


def unexpected_keyword(
    whose: object,
    unknown: Collection[str],
    function: Callable[..., object],
    instead: Mapping[str, str] = {},
) -> TypeError:
    """The error for keywords that a function does not have: it says what may be meant.

    Args:
        whose: what was called: a class, or a name.
        unknown: the keywords.
        function: the function with all the keywords that there are.
        instead: what to write for names that other libraries use.
    """
    import difflib  # noqa: PLC0415 - seldom wanted

    code = function.__code__
    known = code.co_varnames[1 : code.co_argcount + code.co_kwonlyargcount]
    name = next(iter(unknown))
    hint = instead.get(name) or next(
        (f"{one}=" for one in difflib.get_close_matches(name, known)), ""
    )
    meant = f"; write {hint}" if name in instead else f"; did you mean {hint}?" if hint else ""
    called = whose.__name__ if isinstance(whose, type) else whose
    return TypeError(f"{called}() has no keyword argument {name!r}{meant}")
