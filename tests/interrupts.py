"""Ctrl-C, and every other exception that a signal handler may raise, at every point of a call."""

from __future__ import annotations

import functools
import gc
import inspect
import signal
import sys
import sysconfig
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import ion_actors
from ion_actors import IonError
from ion_actors.testing import VirtualClock

__all__ = [
    "CLOCKS",
    "KINDS",
    "LIBRARY",
    "Helped",
    "Interrupted",
    "SoftLimit",
    "TimedOut",
    "every_point",
    "interrupt",
    "is_between_lock_and_block",
]

LIBRARY = Path(ion_actors.__file__).parent
STANDARD_LIBRARY = sysconfig.get_path("stdlib")
#: Where nothing is interrupted: with a virtual clock, timers fire in the thread under test.
CLOCKS = (str(LIBRARY / "testing"), str(LIBRARY / "clock.py"))
# Not ours to mend: a log handler is locked in Python code, and an event loop is its thread's own.
# And what is raised in the callback of a weak reference is lost.
_FOREIGN = ("logging/", "traceback.py", "linecache.py", "tokenize.py", "asyncio/", "weakref")
_CALLED_BY_THE_COLLECTOR = ("__del__", "Keys._forget", "_let_through", "._unmapped")


class Interrupted(KeyboardInterrupt):
    """As by Ctrl-C, but ours."""


class SoftLimit(Exception):
    """As raised by a handler of SIGALRM or SIGUSR1 for a time limit."""


class TimedOut(TimeoutError):
    """The same, by a program that raises what the library raises, too."""


#: What signal handlers raise.
KINDS: tuple[type[BaseException], ...] = (Interrupted, SoftLimit, TimedOut)


class Interrupter:
    """Raises at the n-th point at which an asynchronous exception may come.

    CPython looks for signals when a Python function begins and after a call of a C function (and at
    jumps backwards, which no profiler sees). Between those points nothing can come in. The points
    are those of the library, and of the Python code of the standard library that it calls.
    """

    def __init__(
        self,
        point: int,
        kind: type[BaseException] = Interrupted,
        spared: tuple[str, ...] = CLOCKS,
    ) -> None:
        self.left = point
        self.where = ""
        self._kind = kind
        self._spared = spared

    def __call__(self, frame: FrameType, event: str, arg: object) -> None:
        code = frame.f_code
        if event not in ("call", "c_return") or is_between_lock_and_block(event, arg):
            return
        if not self._is_reached(frame):
            return
        if event == "call" and _may_be_about_to_be_closed(frame):
            return
        if _is_lost_in(frame) or isinstance(sys.exception(), GeneratorExit):
            return
        self.left -= 1
        if self.left < 0:
            sys.setprofile(None)
            self.where = f"{event} in {code.co_qualname}:{frame.f_lineno}"
            handle_signal(self._kind)

    def _is_reached(self, frame: FrameType) -> bool:
        """Whether it is the library's own frame, or the standard library's below one of those."""
        found: FrameType | None = frame
        while found is not None and (where := _whose(found.f_code.co_filename)) == "standard":
            found = found.f_back
        if found is None or where != "ours":
            return False
        return not found.f_code.co_filename.startswith(self._spared or ("\0",))


def is_between_lock_and_block(event: str, arg: object) -> bool:
    """Whether a profiler is told that the `__enter__` of an object written in C has returned.

    It is told so from Python 3.14 on. What is raised there keeps the lock locked, and no code can
    mend that. No signal comes in there, except on 3.14 (CPython issue 148874).
    """
    return event == "c_return" and getattr(arg, "__name__", "") == "__enter__"


@functools.cache
def _whose(file: str) -> str:
    """Whose code is in this file. It is asked at each point, for each frame."""
    if file.startswith(STANDARD_LIBRARY):
        return "foreign" if any(name in file for name in _FOREIGN) else "standard"
    return "ours" if file.startswith(str(LIBRARY)) else "others'"


def _may_be_about_to_be_closed(frame: FrameType) -> bool:
    """A generator that nobody has any more, so that what is raised there is lost."""
    if not frame.f_code.co_flags & inspect.CO_GENERATOR:
        return False
    caller = frame.f_back  # as a block, it is wanted
    return caller is None or not caller.f_code.co_filename.endswith("contextlib.py")


def _is_lost_in(frame: FrameType | None) -> bool:
    """Whether CPython would only print what is raised there, and go on.

    So it is in destructors, in the callbacks of weak references, and in generators that are closed
    because nobody has them any more.
    """
    while frame is not None and frame.f_code is not interrupt.__code__:
        if frame.f_code.co_qualname.endswith(_CALLED_BY_THE_COLLECTOR):
            return True
        frame = frame.f_back
    return False


def handle_signal(kind: type[BaseException]) -> None:
    """Stands for a signal handler; :func:`interrupt` installs one with the same code."""
    raise kind


def interrupt(
    point: int,
    call: Callable[[], Any],
    kind: type[BaseException] = Interrupted,
    spared: tuple[str, ...] = CLOCKS,
) -> tuple[str, Any]:
    """Make the call and interrupt it there.

    Returns:
        Where it was, and what the call returned or raised; nowhere, if it has not so many points.
    """
    interrupter = Interrupter(point, kind, spared)
    before = _install_handler()
    gc.disable()  # it would close what earlier interruptions have left suspended
    try:
        sys.setprofile(interrupter)
        try:
            outcome = call()
        finally:
            sys.setprofile(None)
    except (kind, IonError) as error:
        return interrupter.where, error
    finally:
        gc.enable()
        if before is not None:
            signal.signal(signal.SIGUSR2, before)
    return interrupter.where, outcome


def _install_handler() -> Any:
    """Make :func:`handle_signal` known as a signal handler. Returns what was there before."""
    if threading.current_thread() is threading.main_thread() and hasattr(signal, "SIGUSR2"):
        return signal.signal(signal.SIGUSR2, handle_signal)  # type: ignore[arg-type]
    return None


def every_point(make: Callable[[int], str]) -> list[str]:
    """Run it with an interruption at the first point, the second, and so on: until none is left."""
    found: list[str] = []
    while True:
        where = make(len(found))
        if not where:
            return found
        found.append(where)


class Helped(VirtualClock):
    """A clock on which the world goes on when somebody begins to wait."""

    def __init__(self, happens: Callable[[], object]) -> None:
        super().__init__()
        self._happens = happens

    def park(self, signal: threading.Lock, deadline: float | None) -> bool:
        profile = sys.getprofile()
        sys.setprofile(None)  # what others do is not interrupted here
        self._happens()
        sys.setprofile(profile)
        return super().park(signal, deadline)
