"""Interruptions: exceptions that come from outside, at any point of a thread.

A signal handler that raises (Ctrl-C, a soft time limit) interrupts the main thread wherever it is,
also in the middle of somebody else's callback. What a callback raises is logged, so that the others
are called all the same; an interruption is not the callback's own, and must reach the program.
"""

from __future__ import annotations

import dis
import importlib
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from types import CodeType, FrameType
from typing import Any

from ion_actors.raised import traceback_of

__all__ = ["is_interruption"]

_SIGNALS = tuple(map(int, signal.valid_signals()))
# The function below signal.getsignal(), which makes an enumeration's member of each answer.
_handler_of: Callable[[int], Any] = importlib.import_module("_signal").getsignal
_RAISE = dis.opmap["RAISE_VARARGS"]
_MESSENGER = "asyncio.runners"  # cancels what it runs at Ctrl-C, and raises that afterwards


def is_interruption(error: BaseException) -> bool:
    """Whether the error that a callback raised is to reach whoever runs the callbacks.

    It is in the main thread, if a signal handler or a tracing tool has raised it. A
    ``KeyboardInterrupt`` that the callback raises by itself is the callback's own. Other threads
    get no signals; many of them are the library's own.
    """
    if threading.current_thread() is not threading.main_thread():
        return False
    handlers = set(_codes(map(_handler_of, _SIGNALS)))
    outer, traceback = None, traceback_of(error)
    raised = False
    while traceback is not None:
        inner = traceback.tb_frame
        if inner.f_code in handlers or (outer is not None and _was_given(inner, outer)):
            return True
        raised = (
            inner.f_code.co_code[traceback.tb_lasti] == _RAISE
            and inner.f_globals.get("__name__") != _MESSENGER
        )
        outer, traceback = inner, traceback.tb_next
    # Python's own handler of SIGINT is written in C, and has no frame.
    return not raised and issubclass(type(error), KeyboardInterrupt)


def _was_given(inner: FrameType, outer: FrameType) -> bool:
    """Whether a function got the frame that it runs on top of: signal handlers and tracers do."""
    for value in inner.f_locals.values():
        if value is outer or (type(value) is tuple and any(one is outer for one in value)):
            return True
    return False


def _codes(handlers: Iterable[Any]) -> Iterator[CodeType]:
    """The code of the functions, methods, partials and callable objects among them."""
    for handler in handlers:
        function = getattr(handler, "func", handler)
        for one in (function, getattr(function, "__call__", None)):  # noqa: B004  # the method
            if isinstance(code := getattr(one, "__code__", None), CodeType):
                yield code
