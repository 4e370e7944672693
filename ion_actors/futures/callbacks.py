"""How the done-callbacks of futures are called, also along chains of futures."""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable
from types import CodeType, FunctionType, MethodType
from typing import Any, Protocol, TypeVar

from ion_actors.interruption import is_interruption
from ion_actors.logs import Logger
from ion_actors.raised import is_a

__all__ = [
    "Callback",
    "Callbacks",
    "Derivation",
    "Link",
    "are_quick",
    "call_all",
    "in_main_thread",
    "quick",
]

logger = Logger("ion_actors")

F = TypeVar("F", bound=Callable[..., object])

Callback = Callable[[Any], object]
Callbacks = list[Callback]  # what is called is taken out


class Derivation(Protocol):
    """Settles a future as soon as all its sources are done."""

    def one_is_done(self, place: int, source: Any, /) -> tuple[Any, Callbacks] | None:
        """The source at this place is done."""
        ...


class Link:
    """A done-callback on a source of another future, which it may settle.

    It returns that future and its callbacks, and the caller goes on with those: if it called them
    itself, the stack would grow with the length of a chain of futures. A second call does only what
    an interrupted first one has not done, and returns the same.
    """

    __slots__ = ("_derivation", "_place")

    def __init__(self, derivation: Derivation, place: int) -> None:
        self._derivation = derivation
        self._place = place

    def __call__(self, source: Any, /) -> tuple[Any, Callbacks] | None:
        """The source is done."""
        return self._derivation.one_is_done(self._place, source)


_quick: set[CodeType] = set()


def quick(fn: F) -> F:
    """Mark a callback of the library's own, which never blocks, and runs no code of users."""
    _quick.add(fn.__code__)
    return fn


def are_quick(callbacks: Callbacks) -> bool:
    """Whether all of these are known not to block."""
    return all(map(_is_quick, callbacks.copy()))


def _is_quick(callback: Callback) -> bool:
    fn: Any = callback
    if type(fn) is functools.partial:
        fn = fn.func
    elif type(fn) is MethodType:
        fn = fn.__func__
    if type(fn) is not FunctionType:
        return False
    # asyncio's own ones, too: not by the name of their module, which a decorator may copy.
    asyncio = sys.modules.get("asyncio.futures")
    return fn.__code__ in _quick or (asyncio is not None and fn.__globals__ is vars(asyncio))


def call_all(first: Any, its_callbacks: Callbacks, further: list[tuple[Any, Callbacks]]) -> None:
    """Call the callbacks of a future, and those of the futures that they settle, depth first.

    Each is removed once it was called, so this can be called again if it is interrupted.

    Args:
        first: the future.
        its_callbacks: of this future.
        further: other futures that were settled meanwhile, the innermost last; initially empty.
    """
    interruption: BaseException | None = None
    future, callbacks = first, its_callbacks
    following: Any = None
    while True:
        if further:
            future, callbacks = further[-1]
        while callbacks:
            callback = callbacks[0]
            links = issubclass(
                type(callback), Link
            )  # here: below, an interruption could come between
            try:
                following = callback(future)
            except BaseException as error:
                if _is_not_its_own(error):
                    interruption = error if interruption is None else interruption
                else:
                    logger.exception("exception calling callback for %r", future)
                if links:
                    following = callback(future)  # what it has not done yet
            del callbacks[0]
            if links and following is not None:
                further.append(following)
                break
        else:
            if not further:
                break
            del further[-1]
            future, callbacks = first, its_callbacks
    if interruption is None:
        return
    try:
        raise interruption
    finally:
        # The exceptions of futures that were settled here keep this frame.
        del first, future, its_callbacks, callbacks, following, further, interruption


def _is_not_its_own(error: BaseException) -> bool:
    """Whether to raise what a callback raised: Ctrl-C, or an exit in the user's own thread."""
    if not is_a(error, Exception) and in_main_thread():
        return True
    return is_interruption(error)


def in_main_thread() -> bool:
    """Whether this is the main thread, which Ctrl-C interrupts."""
    return threading.current_thread() is threading.main_thread()
