"""Reading exceptions, and adding to them, without relying on their classes.

The class of a user's exception may be frozen or have slots, and its ``__getattr__``,
``__setattr__``, ``__str__``, ``__repr__``, ``__class__`` or ``__eq__`` may raise, or return
anything. So everything here uses the attributes of ``BaseException`` and never the class.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, TypeGuard, TypeVar

from ion_actors.naming import printable

__all__ = [
    "add_note",
    "args_of",
    "attributes_of",
    "cause_of",
    "context_of",
    "errno_of",
    "in_a_line",
    "is_a",
    "is_asyncio_cancellation",
    "members_of",
    "message_of",
    "name_of",
    "notes_of",
    "repr_of",
    "set_cause",
    "set_context",
    "suppresses_context",
    "traceback_of",
    "unshared",
]

Kind = TypeVar("Kind")

_CAUSE: Any = BaseException.__dict__["__cause__"]
_CONTEXT: Any = BaseException.__dict__["__context__"]
_SUPPRESSES: Any = BaseException.__dict__["__suppress_context__"]
_TRACEBACK: Any = BaseException.__dict__["__traceback__"]
_ATTRIBUTES: Any = BaseException.__dict__["__dict__"]
_ARGS: Any = BaseException.__dict__["args"]
_ERRNO: Any = OSError.__dict__["errno"]
_MEMBERS: Any = BaseExceptionGroup.__dict__["exceptions"]
_NAME: Any = type.__dict__["__name__"]

_NOTES = "__notes__"
_MORE_THAN_KEPT = 100  # objects for errors in want of memory

# The attributes of that name, called with the exception.
cause_of: Callable[[BaseException], BaseException | None] = _CAUSE.__get__
context_of: Callable[[BaseException], BaseException | None] = _CONTEXT.__get__
traceback_of: Callable[[BaseException], TracebackType | None] = _TRACEBACK.__get__
args_of: Callable[[BaseException], tuple[Any, ...]] = _ARGS.__get__


def is_a(error: object, kinds: type[Kind] | tuple[type[Kind], ...]) -> TypeGuard[Kind]:
    """Whether it is of one of these classes; ``isinstance`` would also ask its ``__class__``."""
    return issubclass(type(error), kinds)


def is_asyncio_cancellation(error: object) -> bool:
    """Whether it is ``asyncio.CancelledError``; without an import of ``asyncio``, which is large.

    A program that has not imported it has no such error.
    """
    kind = getattr(sys.modules.get("asyncio.exceptions"), "CancelledError", None)
    return kind is not None and is_a(error, kind)


def name_of(kind: type) -> str:
    """The name of a class, without its module."""
    found: str = _NAME.__get__(kind)
    return found


def set_cause(error: BaseException, cause: BaseException | None) -> None:
    """Set its ``__cause__``, as ``raise ... from`` does."""
    _CAUSE.__set__(error, cause)


def set_context(error: BaseException, context: BaseException | None, *, suppress: bool) -> None:
    """Set its ``__context__``, and whether that is left out when it is shown."""
    _CONTEXT.__set__(error, context)
    _SUPPRESSES.__set__(error, suppress)


def suppresses_context(error: BaseException) -> bool:
    """Its ``__suppress_context__``."""
    return bool(_SUPPRESSES.__get__(error))


def errno_of(error: OSError) -> object:
    """Its ``errno``, which may be any object."""
    return _ERRNO.__get__(error)


def members_of(error: BaseException) -> Sequence[BaseException] | None:
    """Its ``exceptions``, if it is a group."""
    if not is_a(error, BaseExceptionGroup):
        return None
    found: Sequence[BaseException] = _MEMBERS.__get__(error)
    return found


def attributes_of(error: BaseException) -> dict[str, Any]:
    """Its ``__dict__`` itself: what is changed there is changed in the exception."""
    found: dict[str, Any] = _ATTRIBUTES.__get__(error)
    return found


def notes_of(error: BaseException) -> list[str]:
    """The notes that were added to it."""
    found: Any = attributes_of(error).get(_NOTES)
    return [_try(str, note, "<a note>") for note in found] if type(found) in (list, tuple) else []


def add_note(error: BaseException, note: str) -> None:
    """Add a note, as ``add_note`` does."""
    attributes = attributes_of(error)
    if type(attributes.get(_NOTES)) is list:
        attributes[_NOTES].append(note)
    else:
        attributes[_NOTES] = [*notes_of(error), note]


def message_of(error: BaseException) -> str:
    """Its message: its ``str`` or, if that fails, its arguments as far as they can be shown."""
    try:
        return str(error)
    except BaseException:
        args = args_of(error)
        shown = [_try(str if len(args) == 1 else repr, one, _nameless(one)) for one in args]
        return shown[0] if len(shown) == 1 else f"({', '.join(shown)})" if shown else ""


def repr_of(error: BaseException) -> str:
    """Its ``repr`` in one line or, if that fails, its class and its message."""
    try:
        return printable(repr(error))
    except BaseException:
        return f"<{in_a_line(error)}>"


def in_a_line(error: BaseException) -> str:
    """Its class and its message, in one line."""
    name, message = name_of(type(error)), message_of(error)
    return printable(f"{name}: {message}" if message else name)


def _try(show: Callable[[object], str], value: object, otherwise: str) -> str:
    try:
        return show(value)
    except BaseException:
        return otherwise


def _nameless(value: object) -> str:
    return f"<{name_of(type(value))}>"


def unshared(error: BaseException) -> BaseException:
    """The error; or if it is the ``MemoryError`` that CPython shares, one with its traceback.

    CPython keeps 16 of them, for when there is no memory to make one. While all are in use, it
    raises one and the same object for each further want (from 3.12 on). The traceback of that
    becomes longer with each, and keeps all their frames for as long as the program runs. Here it
    lets go of them.
    """
    if type(error) is not MemoryError:
        return error
    traceback = error.__traceback__  # before the shared one is looked for, which raises it
    if error is not _shared():
        return error
    error.__traceback__ = error.__context__ = None
    return MemoryError().with_traceback(traceback)


@functools.cache
def _shared() -> MemoryError | None:
    held: list[MemoryError] = []
    while len(held) < _MORE_THAN_KEPT:
        try:
            bytearray(sys.maxsize)
        except MemoryError as error:
            if any(error is one for one in held):
                error.__traceback__ = None
                return error
            held.append(error)
    return None
