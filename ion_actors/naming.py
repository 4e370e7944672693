"""Safe names of users' objects, for logs, errors and reports: in one line, without running code.

Errors and reports name tasks, also under a lock and on threads that must not block. But
``__qualname__``, ``__dict__``, ``__class__`` and ``__repr__`` may be the user's code, which may
block, raise, or call the pool. So a name is read from where CPython stores it.

The name of a task, a key or the message of an exception may contain untrusted text. In a log or a
report it must not begin a new line, move the cursor, reverse the text, or contain characters that
no encoding can write.
"""

from __future__ import annotations

import functools
import types
from typing import Any, TypeVar

__all__ = [
    "Lines",
    "OneLine",
    "as_repr",
    "describe",
    "for_log",
    "indented",
    "is_own",
    "name_of",
    "named_after_func",
    "printable",
    "shown",
    "unwrapped",
    "words",
]

# Attributes that C code stores, and reads without calling anything else.
_KEPT = (types.GetSetDescriptorType, types.MemberDescriptorType)

_qualname_of_type = type.__dict__["__qualname__"].__get__
_dict_of_type = type.__dict__["__dict__"].__get__
_mro_of_type = type.__dict__["__mro__"].__get__
_wrapped_by_partial = functools.partial.__dict__["func"]


def name_of(fn: object) -> str:
    """The qualified name of a callable; that of its class, if it has none of its own.

    A name that would have to be computed by the user's code counts as none.
    """
    kind = type(fn)
    if kind is types.MethodType:
        return name_of(fn.__func__)  # type: ignore[attr-defined]
    if issubclass(kind, type):
        return str(_qualname_of_type(fn))
    found = _kept(fn, kind, "__qualname__")
    if found is None:
        own = _kept(fn, kind, "__dict__")
        found = dict.get(own, "__qualname__") if issubclass(type(own), dict) else None
    if type(found) is str and found:
        return found
    return str(_qualname_of_type(kind))


Kind = TypeVar("Kind", bound=type)

_named_after_func: set[type] = set()


def named_after_func(kind: Kind) -> Kind:
    """Decorate a class of ours: a task that calls such an object is named after its ``func``."""
    _named_after_func.add(kind)
    return kind


def describe(fn: Any, name: str | None = None) -> str:
    """The name of a task: the one it was given, else its function's. Runs no code of the user's."""
    if name is not None:
        return name
    while (kind := type(fn)) is not types.FunctionType:
        if (inner := fn.func if kind in _named_after_func else unwrapped(fn)) is None:
            return name_of(fn)
        fn = inner
    return fn.__qualname__  # type: ignore[no-any-return]


def unwrapped(fn: Any) -> Any:
    """The function of a ``functools.partial``; None of anything else."""
    return _wrapped_by_partial.__get__(fn) if issubclass(type(fn), functools.partial) else None


def is_own(fn: Any) -> bool:
    """Whether calling this runs a function of this library, or a method or partial of one."""
    while type(fn) is not types.FunctionType:
        fn = fn.__func__ if type(fn) is types.MethodType else unwrapped(fn)
        if fn is None:
            return False
    module = fn.__globals__.get("__name__")
    return type(module) is str and module.partition(".")[0] == "ion_actors"


def as_repr(error: BaseException) -> str:
    """Its repr in one line, or its class if the repr fails. Runs the user's code."""
    return shown(error)


def _kept(thing: object, kind: type, name: str) -> Any:
    """An attribute of this object that C code stores; None if there is none."""
    for base in _mro_of_type(kind):
        if name in (names := _dict_of_type(base)):
            found = names[name]
            return found.__get__(thing) if type(found) in _KEPT else None
    return None


class Lines(str):
    """Text for a log that may have several lines, such as a stack; only the library makes it."""

    __slots__ = ()


class OneLine:
    """Wraps an argument of a log message, and shows it in one line, whatever its class does.

    The text is made when the message is formatted, not before.
    """

    __slots__ = ("_value",)

    def __init__(self, value: object) -> None:
        self._value = value

    def __str__(self) -> str:
        return words(self._value)

    def __repr__(self) -> str:
        return shown(self._value)


_PLAIN = (int, float, Lines, type(None))


def for_log(value: object) -> object:
    """An argument of a log message that cannot begin another line of the log."""
    kind = type(value)  # not isinstance(), which may run the user's code
    if issubclass(kind, _PLAIN) or (issubclass(kind, str) and str.isprintable(value)):  # type: ignore[arg-type]
        return value
    return OneLine(value)


def printable(text: str) -> str:
    """The text in one line: unprintable characters are escaped as in a Python literal.

    These are the ones that :meth:`str.isprintable` rejects: control characters, line ends, marks
    that change the direction of text, halves of surrogate pairs, and spaces other than the usual
    one. Backslashes stay as they are.
    """
    if type(text) is not str:
        text = str.__str__(text)  # a subclass may override anything
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else _escaped(one) for one in text)


def shown(value: object) -> str:
    """``repr(value)`` in one line, whatever its class does."""
    try:
        return printable(repr(value))
    except BaseException:
        return f"<{type(value).__name__} without a repr>"


def words(value: object) -> str:
    """``str(value)`` in one line, whatever its class does."""
    try:
        return printable(str(value))
    except BaseException:
        return f"<{type(value).__name__} without a str>"


def indented(text: str) -> str:
    """Untrusted text of several lines, indented: so no line looks like the start of a record."""
    return "\n".join(f"    {printable(line.expandtabs())}" for line in text.splitlines())


def _escaped(one: str) -> str:
    return one.encode("unicode_escape").decode("ascii")
