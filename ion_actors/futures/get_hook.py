"""The get hook of a future: it is called for the value when somebody first asks for that."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Any, Protocol

import pykka

from ion_actors.clock import start_thread
from ion_actors.futures.callbacks import Callback, Callbacks
from ion_actors.own_variables import daemon_thread

__all__ = ["Derivable", "GetHook"]


class Derivable(Protocol):
    """What get hooks and derived futures need of a ``Future``, which is defined above them."""

    _state: str
    _lock: Any
    _hook: GetHook | None
    _sources: tuple[weakref.ref[Any], ...]

    def set_get_hook(self, func: Callable[[float | None], Any]) -> None:
        """Have it computed when somebody asks for it."""

    def add_done_callback(self, fn: Callback) -> None:
        """Call it once the future is done."""

    def set_running_or_notify_cancel(self) -> bool:
        """Begin, unless the future was cancelled."""
        ...

    def done(self) -> bool:
        """Whether it has its outcome."""
        ...

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Its exception, if it has one."""
        ...

    def _finish(self, result: Any, error: BaseException | None) -> Callbacks | None: ...
    def _run_callbacks(self, callbacks: Callbacks | None) -> None: ...
    def _wait(self, timeout: float | None) -> bool: ...
    def _outcome(self) -> Any: ...


class GetHook:
    """The hook of one future; an exception that it raises is not kept, and the next call asks anew.

    Args:
        func: called with the seconds to wait at most, or None; returns the value.
    """

    __slots__ = ("_lock", "func")

    def __init__(self, func: Callable[[float | None], Any]) -> None:
        self.func = func
        self._lock = threading.Lock()  # the hook runs in one thread at a time

    def ask(self, future: Derivable, timeout: float | None) -> bool:
        """Settle the future. Returns whether it is done by the timeout."""
        if not self._lock.acquire(timeout=-1 if timeout is None else max(0.0, timeout)):
            return future.done()
        try:
            if not future.done():
                try:
                    value = self.func(timeout)
                except pykka.Timeout:
                    return False
                _settle(future, value, None)
        finally:
            self._lock.release()
            del future
        return True

    def ask_in_thread(self, future: Derivable) -> None:
        """Settle the future in a thread of its own, since the hook may block."""
        start_thread(daemon_thread(self._insist, "ion_actors-hook", (future,)))

    def _insist(self, future: Derivable) -> None:
        try:
            if not self.ask(future, None):
                raise pykka.Timeout("its get hook gave up")
        except BaseException as error:
            _settle(future, None, error)
        finally:
            del future


def _settle(future: Derivable, value: Any, error: BaseException | None) -> None:
    try:
        with future._lock:
            callbacks = None if future.done() else future._finish(value, error)
        future._run_callbacks(callbacks)
    finally:
        del future, error
