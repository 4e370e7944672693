"""Interruptions: exceptions that come from outside, at any point of a thread.

A signal handler that raises (Ctrl-C, a soft time limit) interrupts the main thread wherever it is,
also in the middle of somebody else's callback. What a callback raises is logged, so that the others
are called all the same; an interruption is not the callback's own, and must reach the program.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterable, Iterator
from types import CodeType
from typing import Any

__all__ = ["is_interruption"]


def is_interruption(error: BaseException) -> bool:
    """Whether the error that a callback raised is to reach whoever runs the callbacks.

    It is in the main thread, if it is a ``KeyboardInterrupt``, or if a signal handler has raised
    it. Other threads get no signals; many of them are the library's own.
    """
    if threading.current_thread() is not threading.main_thread():
        return False
    return issubclass(type(error), KeyboardInterrupt) or _is_of_signal_handler(error)


def _is_of_signal_handler(error: BaseException) -> bool:
    handlers = set(_codes(map(signal.getsignal, signal.valid_signals())))
    traceback = error.__traceback__
    while traceback is not None:
        if traceback.tb_frame.f_code in handlers:
            return True
        traceback = traceback.tb_next
    return False


def _codes(handlers: Iterable[Any]) -> Iterator[CodeType]:
    """The code of the functions, methods, partials and callable objects among them."""
    for handler in handlers:
        function = getattr(handler, "func", handler)
        for one in (function, getattr(function, "__call__", None)):  # noqa: B004  # the method
            if isinstance(code := getattr(one, "__code__", None), CodeType):
                yield code
