"""The exception of a future: how it is given, and that somebody should read it."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any

from ion_actors.logs import Logger, is_inside
from ion_actors.raised import is_a

__all__ = ["ExcInfo", "UnreadException", "as_exception"]

_logger = Logger("ion_actors")
_later = Logger("ion_actors", later=True)  # in finalizers, which run anywhere

ExcInfo = tuple[type[BaseException] | None, BaseException | None, TracebackType | None]


class UnreadException:
    """Is kept with an exception until somebody reads it; logs the exception if nobody ever does.

    The finalizer is not on the future itself: every future would pay for it, not only failed ones.
    """

    __slots__ = ("error", "home", "name")

    def __init__(self, name: str, error: BaseException, home: object) -> None:
        self.name = name
        self.home = home  # where its task was submitted to, if it has one
        self.error: BaseException | None = error

    def __del__(self) -> None:
        # Ctrl-C may have interrupted its constructor.
        if getattr(self, "error", None) is not None and not sys.is_finalizing():
            if getattr(self.home, "interrupted", False):
                return  # Ctrl-C has ended whoever would have read it
            out = _later if is_inside() else _logger
            out.error("the exception of %s was never read", self.name, exc_info=self.error)


def as_exception(given: BaseException | ExcInfo | None) -> BaseException:
    """The exception that ``set_exception`` is given, in any of the forms that it takes."""
    kind: Any
    value: Any
    kind, value, traceback = given if is_a(given, tuple) else (None, given, None)
    if given is None:
        value = sys.exc_info()[1]
    if value is None and kind is not None:
        value = kind()
    if is_a(value, type) and issubclass(value, BaseException):
        value = value()
    if not is_a(value, BaseException):
        raise TypeError(f"set_exception() takes an exception, not {given!r}")
    return BaseException.with_traceback(value, traceback) if traceback is not None else value
