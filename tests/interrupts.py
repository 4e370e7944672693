"""Ctrl-C at every point at which CPython lets it in."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import ion_actors
from ion_actors import IonError
from ion_actors.testing import VirtualClock

__all__ = ["LIBRARY", "Helped", "Interrupted", "every_point", "interrupt"]

LIBRARY = Path(ion_actors.__file__).parent
#: Where nothing is interrupted: with a virtual clock, timers fire in the thread under test.
CLOCKS = (str(LIBRARY / "testing"), str(LIBRARY / "clock.py"))


class Interrupted(KeyboardInterrupt):
    """As by Ctrl-C, but ours."""


class Interrupter:
    """Raises at the n-th point at which an asynchronous exception may come, inside the library.

    CPython looks for signals when a Python function begins and after a call of a C function (and at
    jumps backwards, which no profiler sees). Between those points nothing can come in.
    """

    def __init__(self, point: int) -> None:
        self.left = point
        self.where = ""

    def __call__(self, frame: FrameType, event: str, arg: object) -> None:
        code = frame.f_code
        if event not in ("call", "c_return") or not code.co_filename.startswith(str(LIBRARY)):
            return
        if code.co_filename.startswith(CLOCKS):
            return
        if event == "call" and code.co_name == "<genexpr>":
            return  # it may be about to be closed, and what is raised there is lost
        self.left -= 1
        if self.left < 0:
            sys.setprofile(None)
            self.where = f"{event} in {code.co_qualname}:{frame.f_lineno}"
            raise Interrupted


def interrupt(point: int, call: Callable[[], Any]) -> tuple[str, Any]:
    """Make the call and interrupt it there.

    Returns:
        Where it was, and what the call returned or raised; nowhere, if it has not so many points.
    """
    interrupter = Interrupter(point)
    try:
        sys.setprofile(interrupter)
        try:
            outcome = call()
        finally:
            sys.setprofile(None)
    except (Interrupted, IonError) as error:
        return interrupter.where, error
    return interrupter.where, outcome


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
