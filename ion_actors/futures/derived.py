"""Futures that are computed from others: what ``map``, ``filter``, ``join``, ``reduce`` make."""

from __future__ import annotations

import threading
import weakref
from _thread import get_ident
from collections.abc import Callable
from concurrent.futures._base import CANCELLED, FINISHED, PENDING, RUNNING
from typing import Any, TypeVar

import pykka

from ion_actors.futures.callbacks import Callbacks, Link
from ion_actors.futures.get_hook import Derivable
from ion_actors.interruption import is_interruption

__all__ = ["derive"]

M = TypeVar("M")
F = TypeVar("F", bound=Derivable)


def derive(derived: F, sources: list[Any], compute: Callable[..., Any]) -> F:
    """Settle ``derived`` with ``compute(*values)`` as soon as all sources are done."""
    if any(source._hook is not None for source in sources):
        # Such a source is settled only when somebody asks for it, so the derived one asks, too.
        derived.set_get_hook(_AskAll(compute, sources))
        return derived
    # Weakly: a pending source already keeps the derived one by its callback.
    derived._sources = tuple(weakref.ref(source) for source in sources)
    derivation = _Derivation(len(sources), compute, derived)
    for place, source in enumerate(sources):
        source.add_done_callback(Link(derivation, place))
    return derived


class _Derivation:
    """The state of :func:`derive` until the derived future is done.

    An exception keeps the frames that it passed through. None of them may keep a future that keeps
    the exception, or only the garbage collector could free them: so frames refer to this object,
    which drops the futures when it is done. Nor does it keep a pending source, since that keeps
    this object.

    It may be interrupted at any point, and be called again: each step knows whether it was done.
    """

    __slots__ = (
        "_callbacks",
        "_compute",
        "_derived",
        "_interrupted",
        "_lock",
        "_missing",
        "_outcome",
        "_owner",
        "_settled",
        "_settling",
        "_sources",
    )

    def __init__(self, count: int, compute: Callable[..., Any], derived: Derivable) -> None:
        self._compute = compute
        self._derived: Derivable | None = derived
        self._sources: list[Any] = [None] * count  # as far as they are done
        self._missing = set(range(count))
        self._lock = threading.Lock()  # guards the two above, and the owner
        self._owner = 0  # the thread that settles the derived one
        self._outcome: tuple[Any, Any] | None = None  # the value, the error
        self._interrupted = False
        self._settling = self._settled = False
        self._callbacks: Callbacks | None = None  # the derived one's

    def one_is_done(self, place: int, source: Derivable) -> tuple[Any, Callbacks] | None:
        """To be called once for each source; see :class:`Link`."""
        with self._lock:
            if self._missing:
                self._sources[place] = source
                self._missing.discard(place)
            if self._missing or self._owner not in (0, get_ident()):
                return None
            self._owner = get_ident()
        del source
        if self._derived is None or not self._begins(self._derived):
            return None
        if self._outcome is None:
            self._outcome = self._computed()
        with self._derived._lock:
            if not self._settled:
                self._settling = True
                self._callbacks, self._settled = self._derived._finish(*self._outcome), True
        if self._interrupted:
            self._interrupted = False
            raise self._outcome[1]  # of the main thread, and not only of the derived one
        found = None if self._callbacks is None else (self._derived, self._callbacks)
        self._derived, self._sources, self._outcome = None, [], (None, None)
        try:
            return found
        finally:
            del found

    def _begins(self, derived: Derivable) -> bool:
        if self._settling or derived._state == RUNNING:
            return True  # the first call was interrupted
        if derived._state in (PENDING, CANCELLED):
            return derived.set_running_or_notify_cancel()
        return False  # it was settled by somebody else

    def _computed(self) -> tuple[Any, Any]:
        for one in self._sources:
            # Passed on and not raised: a frame further up may keep the source.
            if one._state == FINISHED and (error := one.exception()) is not None:
                return None, error
        one = None
        try:
            return _call_with_values(self._compute, self._sources), None
        except BaseException as error:
            self._interrupted = is_interruption(error)
            return None, error


class _AskAll:
    """As a get hook: ask the sources, then compute."""

    __slots__ = ("_compute", "_sources")

    def __init__(self, compute: Callable[..., Any], sources: list[Derivable]) -> None:
        self._compute = compute
        self._sources = sources

    def __call__(self, timeout: float | None) -> Any:
        source = None
        try:
            for source in self._unasked():
                if not source._wait(timeout):
                    raise pykka.Timeout(f"{timeout} seconds")
            return _call_with_values(self._compute, self._sources)
        finally:
            del source

    def _unasked(self) -> list[Derivable]:
        """Its sources, preceded by theirs, and so on: in this order, none has to ask another."""
        found: dict[Derivable, None] = {}
        todo = list(self._sources)
        while todo:
            one = todo.pop()
            found.pop(one, None)  # another one needs it earlier
            found[one] = None
            if (hook := one._hook) is None or one.done():
                continue
            if isinstance(hook.func, _AskAll):
                todo.extend(hook.func._sources)
        return list(reversed(found))


def _call_with_values(compute: Callable[..., M], sources: list[Derivable]) -> M:
    values = []
    source = None
    try:
        for source in sources:
            values.append(source._outcome())
        return compute(*values)
    finally:
        del sources, source, values
