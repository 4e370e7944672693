"""The thread of an actor: what ends it is known, whatever that is."""

from __future__ import annotations

import contextlib
import functools
import threading
import traceback
import weakref
from _thread import allocate_lock
from collections import deque
from collections.abc import Callable
from typing import Any

from typing_extensions import override

from ion_actors.clock import acquire
from ion_actors.raised import traceback_of

__all__ = ["ActorThread", "Flag"]


class Flag(threading.Event):
    """An event without a lock, which an exception thrown into ``set`` could leave locked."""

    def __init__(self) -> None:
        # Not the base's: that builds a lock and a condition.
        self._raised = False
        self._sleepers: deque[Any] = deque()  # a lock for each thread that waits

    @override
    def is_set(self) -> bool:
        """Whether it is set."""
        return self._raised

    @override
    def set(self) -> None:
        """Set it. If it was interrupted, it can be done again."""
        self._raised = True
        for sleeper in list(self._sleepers):
            with contextlib.suppress(RuntimeError):  # it has been woken before
                sleeper.release()

    @override
    def clear(self) -> None:
        """Take it back."""
        self._raised = False

    def _at_fork_reinit(self) -> None:
        """For threading."""
        self._sleepers = deque()

    @override
    def wait(self, timeout: float | None = None) -> bool:
        """Block until it is set, for so many seconds at most. Returns whether it is."""
        sleeper = allocate_lock()
        sleeper.acquire()
        try:
            self._sleepers.append(sleeper)
            if not self._raised:
                if timeout is None:
                    acquire(sleeper)
                else:
                    sleeper.acquire(timeout=max(0.0, min(timeout, threading.TIMEOUT_MAX)))
        finally:
            with contextlib.suppress(ValueError):
                self._sleepers.remove(sleeper)
        return self._raised


class ActorThread(threading.Thread):
    """A daemon thread whose end is told by CPython itself.

    ``on_end`` is called with one argument when CPython lets go of the thread's function, which it
    does whatever the thread was ended by. If ``on_end`` is built of C functions only
    (``functools.partial`` of ``SimpleQueue.put``), nothing that is thrown into the thread can come
    in between. It is also called if the thread could not be started. :meth:`forget` takes it back.
    """

    def __init__(
        self, target: Callable[[], object], name: str, on_end: Callable[[Any], object]
    ) -> None:
        super().__init__(target=target, name=name, daemon=True)
        self._started = Flag()  # start() waits for it, and may be interrupted there
        self._on_end: Callable[[Any], object] | None = on_end
        self._watch: weakref.ref[Any] | None = None

    @override
    def start(self) -> None:
        """Start it.

        Raises:
            RuntimeError, MemoryError, OSError: there can be no more threads.
        """
        try:
            self._arm()
            super().start()
        except BaseException as error:
            self._look_whether_it_began(error)
            raise
        finally:
            vars(self).pop("_bootstrap", None)

    def _arm(self) -> None:
        """Make what threading has CPython call. Nobody else will hold it, so it goes at the end.

        It is an attribute and no property, in which an interruption could keep it alive.
        """
        boot = functools.partial(_boot, self)
        if self._on_end is not None:
            self._watch = weakref.ref(boot, self._on_end)
        vars(self)["_bootstrap"] = boot

    def _look_whether_it_began(self, error: BaseException) -> None:
        """After an interrupted start: if it did not, forget it, and tell nobody of its end."""
        boot = None if self._watch is None else self._watch()
        probe = None if boot is None else weakref.ref(boot)
        self._watch = None  # first: what is let go of below has not ended
        del boot
        vars(self).pop("_bootstrap", None)
        traceback.clear_frames(traceback_of(error))  # they may hold it, too
        boot = None if probe is None else probe()
        if boot is not None and self._on_end is not None:
            self._watch = weakref.ref(boot, self._on_end)
        elif self.ident is None:  # threading itself does this only if the error is an Exception
            getattr(threading, "_limbo", {}).pop(self, None)

    @property
    def began(self) -> bool:
        """Whether there is or was such a thread: ``start`` may have been interrupted."""
        return self.ident is not None or (self._watch is not None and self._watch() is not None)

    @property
    def over(self) -> bool:
        """Whether it has ended: ``is_alive`` is false also of one that is just beginning."""
        return self._watch is not None and self._watch() is None

    def forget(self) -> None:
        """Its end is of no interest any more."""
        self._on_end = self._watch = None


def _boot(thread: ActorThread) -> None:
    # An interrupted start() may have struck it off, and threading would fail to find it there.
    getattr(threading, "_limbo", {}).setdefault(thread, thread)
    threading.Thread._bootstrap(thread)  # type: ignore[attr-defined]
