"""Where the progress of a map is shown: a function, a bar of tqdm or of rich, or a line of text.

No library of bars is imported unless the user asks for a bar and has none. Whatever has ``update``
passes for a bar of tqdm, whatever has ``add_task`` and ``advance`` for a ``Progress`` of rich.

tqdm provides the bar for ``progress=True``: it shows the rate and the time left, it adapts to
notebooks, and it leaves a terminal as it was even if nothing closes it. (rich hides the cursor, and
has a thread that draws.)
"""

from __future__ import annotations

import functools
import importlib
import itertools
import math
import operator
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence, Sized
from typing import Any, Protocol, TextIO, TypeAlias

from ion_actors.awaitables import is_coroutine
from ion_actors.clock import Clock
from ion_actors.naming import printable, unwrapped
from ion_actors.workerpool.progress.text import ProgressText

__all__ = ["Display", "MapProgress", "checked_display", "total_of"]


_ENDLESS = (itertools.count, itertools.cycle, itertools.repeat)


class _Bar(Protocol):
    def update(self, n: int, /) -> object: ...


class _Bars(Protocol):
    def add_task(self, description: str, *, total: float | None) -> Any: ...
    def advance(self, task_id: Any, advance: float) -> object: ...


#: What ``progress=`` takes.
MapProgress: TypeAlias = (
    bool
    | Callable[[int, int | None], object]
    | _Bar
    | _Bars
    | tuple[_Bars, Any]
    | type[Any]
    | functools.partial[Any]
    | None
)


class Display(Protocol):
    """Shows how far one map is. All calls come from the thread that takes the results."""

    def begin(self) -> None:
        """The first result is asked for."""
        ...

    def show(self, ended: Sequence[int]) -> None:
        """Tasks have ended; the number of calls of each."""
        ...

    def end(self) -> None:
        """No more is shown."""
        ...


def checked_display(given: Any, total: int | None, name: str, clock: Clock) -> Display | None:
    """For the argument ``progress`` of a map: its display; None if nothing can be shown.

    Args:
        given: the argument.
        total: how many calls there will be, if that is known.
        name: of what is called.
        clock: times rate and time left, where they are computed here.

    Raises:
        TypeError, ValueError: the argument makes no sense.
    """
    name = printable(name)
    if given is True:
        return _usual(total, name, clock)
    kind = unwrapped(given) or given
    if isinstance(kind, type):
        return _of_class(given, kind, total, name)
    return _of_object(given, total, name)


def _of_object(given: Any, total: int | None, name: str) -> Display:
    """A display by what the user has made."""
    if isinstance(given, tuple):
        return _rich_task(given, total)
    if _has(given, "add_task") and _has(given, "advance"):
        return _RichTask(given, None, name, total)
    if _has(given, "update"):
        return _TqdmBar(lambda: given, total, own=False)
    if callable(given):
        return _Calls(given, total)
    raise TypeError(
        "progress must be True, a function of (done, total), a bar with an update() method, a "
        f"Progress of rich, or a tuple of one and a task id, not {given!r}"
    )


def total_of(iterables: Iterable[object]) -> int | None:
    """How many calls a map over these makes; None if one of them does not know its length."""
    lengths = [_length(one) for one in iterables]
    if None in lengths:
        return None
    finite = [one for one in lengths if one is not None and one != math.inf]
    return int(min(finite)) if finite else None


def _length(iterable: object) -> float | None:
    """How many items there are, math.inf for an endless one; None if it does not know."""
    if type(iterable) in _ENDLESS:
        hint = operator.length_hint(iterable, -1)
        return math.inf if hint < 0 else hint
    if not isinstance(iterable, Sized):
        return None
    try:
        return len(iterable)
    except TypeError:  # what wraps an iterable has the method, and not always the length
        return None


def _has(given: object, method: str) -> bool:
    """Whether its class has the method; or the object, if it is no function."""
    # A mock has every attribute, and its class does not.
    return callable(getattr(type(given), method, None)) or (
        not callable(given) and callable(getattr(given, method, None))
    )


def _of_class(given: Any, kind: type[Any], total: int | None, name: str) -> Display:
    """A display that the map makes, and closes."""
    if hasattr(kind, "add_task"):
        return _RichTask(given(), None, name, total)
    if hasattr(kind, "update"):
        return _TqdmBar(lambda: given(total=total), total, own=True)
    raise TypeError(f"progress must be a class of bars, if it is a class, not {kind!r}")


def _rich_task(given: tuple[Any, ...], total: int | None) -> Display:
    bars: Any
    bars, task_id = given if len(given) == 2 else (None, None)
    if not (_has(bars, "add_task") and _has(bars, "advance")):
        raise TypeError(f"progress must be a Progress of rich and a task id, not {given!r}")
    if all(one.id != task_id for one in bars.tasks):
        raise ValueError(f"progress must be a task id of that Progress, not {task_id!r}")
    return _RichTask(bars, task_id, "", total)


def _usual(total: int | None, name: str, clock: Clock) -> Display | None:
    """What fits to where the program runs: a bar, or lines of text on the standard error."""
    stream = sys.stderr
    if stream is None:
        return None
    if not (_is_terminal(stream) or _in_notebook()):
        return ProgressText(stream, total, name, clock, terminal=False)
    try:
        bars: Any = importlib.import_module("tqdm.auto")
    except ImportError:
        return ProgressText(stream, total, name, clock, terminal=_is_terminal(stream))
    # Its thread looks after bars that are told of every nth step only.
    kind = type(bars.tqdm.__name__, (bars.tqdm,), {"monitor_interval": 0})
    options = {"total": total, "desc": name, "miniters": 1, **_width(stream)}
    return _TqdmBar(lambda: kind(**options), total, own=True)


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except (AttributeError, ValueError):  # what stands in for a stream, or a closed one
        return False


def _width(stream: TextIO) -> dict[str, Any]:
    """For the size of the bar. tqdm shows nothing on a terminal that does not know its own size."""
    try:
        known = os.get_terminal_size(stream.fileno()).columns > 0
    except (AttributeError, OSError, ValueError):  # a notebook, which has a layout of its own
        known = True
    columns, rows = shutil.get_terminal_size()
    return {"dynamic_ncols": True} if known else {"ncols": columns, "nrows": rows}


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return getattr(shell, "kernel", None) is not None


class _Calls:
    """Calls a function with how many calls have ended, and how many there will be."""

    def __init__(self, function: Callable[[int, int | None], object], total: int | None) -> None:
        self._function = function
        self._total = total
        self._done = 0

    def begin(self) -> None: ...

    def show(self, ended: Sequence[int]) -> None:
        for calls in ended:
            self._done += calls
            returned = self._function(self._done, self._total)
            if is_coroutine(returned):
                returned.close()
                raise TypeError("progress must be a plain function: nothing awaits its coroutine")

    def end(self) -> None: ...


class _TqdmBar:
    """A bar with ``update(n)``. One that the map made is closed, the user's one is not."""

    def __init__(self, make: Callable[[], Any], total: int | None, *, own: bool) -> None:
        self._make = make
        self._total = total
        self._own = own
        self._bar: Any = None

    def begin(self) -> None:
        self._bar = bar = self._make()
        if self._total is not None and getattr(bar, "total", 0) is None:
            bar.total = self._total

    def show(self, ended: Sequence[int]) -> None:
        self._bar.update(sum(ended))

    def end(self) -> None:
        last = getattr(self._bar, "close" if self._own else "refresh", None)
        if last is not None:
            last()


class _RichTask:
    """A task of rich's ``Progress``: a new one, or the user's. It is started unless it was."""

    def __init__(self, bars: Any, task_id: Any, name: str, total: int | None) -> None:
        self._bars = bars
        self._task_id = task_id
        self._name = name
        self._total = total
        self._made = self._started = False
        self._done = 0

    def begin(self) -> None:
        live = getattr(self._bars, "live", None)
        if live is not None and not live.is_started:
            self._bars.start()
            self._started = True
        if self._task_id is None:
            self._task_id = self._bars.add_task(self._name, total=self._total)
            self._made = True
        elif self._total is not None and self._task().total is None:
            self._bars.update(self._task_id, total=self._total)

    def _task(self) -> Any:
        return next(one for one in self._bars.tasks if one.id == self._task_id)

    def show(self, ended: Sequence[int]) -> None:
        self._done += sum(ended)
        self._bars.advance(self._task_id, sum(ended))

    def end(self) -> None:
        try:
            if self._made:
                if self._total is None:  # else its bar would go on moving
                    self._bars.update(self._task_id, total=self._done)
                self._bars.stop_task(self._task_id)
        finally:
            if self._started:
                self._bars.stop()
