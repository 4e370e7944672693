"""Futures of other futures' values: what ``map``, ``filter``, ``join`` and ``reduce`` make."""

from __future__ import annotations

import functools
import threading
import weakref
from collections.abc import Callable
from concurrent.futures._base import FINISHED
from typing import TYPE_CHECKING, Any, TypeVar

import pykka

if TYPE_CHECKING:
    from ion_actors.futures.future import Future

__all__ = ["derive"]

M = TypeVar("M")


def derive(derived: Future[M], sources: list[Future[Any]], compute: Callable[..., M]) -> Future[M]:
    """Have ``compute(*values)`` settle ``derived`` as soon as all sources are done."""
    if any(source._get_hook is not None for source in sources):
        # Nobody but a caller settles such a source, so the derived one asks in its turn.
        derived.set_get_hook(functools.partial(_ask_all, compute, sources))
        return derived
    # Weakly, since a source that is pending will hold the derived one by its callback.
    derived._sources = tuple(weakref.ref(source) for source in sources)
    derivation = _Derivation(len(sources), compute, derived)
    for place, source in enumerate(sources):
        source.add_done_callback(functools.partial(derivation.one_is_done, place))
    return derived


class _Derivation:
    """What :func:`derive` keeps until it is done.

    An exception holds the frames that it passed through. None of them may hold a future that holds
    the exception, or both would wait for the garbage collector: so frames refer to this object,
    which lets go of the futures when it is done. Nor does it hold a source that is pending, since
    that holds this object.
    """

    __slots__ = ("_compute", "_derived", "_done", "_lock", "_missing")

    def __init__(self, count: int, compute: Callable[..., Any], derived: Future[Any]) -> None:
        self._compute = compute
        self._derived = derived
        self._done: list[Any] = [None] * count  # the sources, as far as they are
        self._missing = count
        self._lock = threading.Lock()  # guards both

    def one_is_done(self, place: int, source: Future[Any]) -> None:
        """To be called once for each source."""
        with self._lock:
            self._done[place] = source
            self._missing -= 1
            if self._missing:
                return
        derived, sources = self._derived, self._done
        del self._derived, self._done
        if not derived.set_running_or_notify_cancel():
            return
        one = None
        for one in sources:
            # Passed on and not raised: whoever is up the stack may hold the source.
            if one._state == FINISHED and (error := one.exception()) is not None:
                derived.set_exception(error)
                return
        compute = functools.partial(_call_with_values, self._compute, sources)
        del one, source, sources
        try:
            derived._settle_by(compute)
        finally:
            del derived, compute


def _ask_all(compute: Callable[..., M], sources: list[Future[Any]], timeout: float | None) -> M:
    """As a get hook: wait for the sources, then call."""
    source = None
    try:
        for source in sources:
            if not source._wait(timeout):
                raise pykka.Timeout(f"{timeout} seconds")
        return _call_with_values(compute, sources)
    finally:
        del sources, source


def _call_with_values(compute: Callable[..., M], sources: list[Future[Any]]) -> M:
    values = []
    source = None
    try:
        for source in sources:
            values.append(source._outcome())
        return compute(*values)
    finally:
        del sources, source, values
