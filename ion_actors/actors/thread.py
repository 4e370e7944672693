"""The thread of an actor, whose end is always reported."""

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
from ion_actors.own_variables import DAEMON, no_variables
from ion_actors.raised import traceback_of

__all__ = ["ActorThread", "Flag"]


# Seconds after which those who wait for a flag ask whether it can still be set.
_LOOK = 0.5


class Flag(threading.Event):
    """An event without a lock, which an exception thrown into ``set`` could leave locked.

    Args:
        hopeless: whether nobody is left to set it: then those who wait go on.
    """

    def __init__(self, hopeless: Callable[[], bool] | None = None) -> None:
        # The base's constructor would build a lock and a condition.
        self._hopeless = hopeless
        self._raised = False
        self._sleepers: deque[Any] = deque()  # a lock for each thread that waits

    @override
    def is_set(self) -> bool:
        """Whether it is set."""
        return self._raised

    @override
    def set(self) -> None:
        """Set it. May be called again if it was interrupted."""
        self._raised = True
        for sleeper in list(self._sleepers):
            with contextlib.suppress(RuntimeError):  # it was woken before
                sleeper.release()

    @override
    def clear(self) -> None:
        """Unset it."""
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
                if self._hopeless is not None and timeout is None:
                    while not (sleeper.acquire(timeout=_LOOK) or self._hopeless()):
                        pass
                elif timeout is None:
                    acquire(sleeper)
                else:
                    sleeper.acquire(timeout=max(0.0, min(timeout, threading.TIMEOUT_MAX)))
        finally:
            with contextlib.suppress(ValueError):
                self._sleepers.remove(sleeper)
        return self._raised


class ActorThread(threading.Thread):
    """A daemon thread whose end CPython itself reports.

    CPython calls ``on_end`` with one argument when it frees the thread's function, which it does
    however the thread ended. If ``on_end`` consists of C functions only (``functools.partial`` of
    ``SimpleQueue.put``), no exception that is thrown into the thread can prevent it. It is also
    called if the thread could not be started, and if it died before it began, for want of memory.
    :meth:`forget` removes it.
    """

    def __init__(
        self, target: Callable[[], object], name: str, on_end: Callable[[Any], object]
    ) -> None:
        super().__init__(target=target, name=name, daemon=DAEMON, **no_variables())
        # start() waits for it, and may be interrupted there.
        self._started = Flag(functools.partial(_died_at_birth, weakref.ref(self)))
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
        """Make the function that CPython calls. Nothing else refers to it: it is freed at the end.

        It is an attribute and not a property, in which an interruption could keep it alive.
        """
        boot = functools.partial(_boot, self)
        if self._on_end is not None:
            self._watch = weakref.ref(boot, self._on_end)
        vars(self)["_bootstrap"] = boot

    def _look_whether_it_began(self, error: BaseException) -> None:
        """After an interrupted start: if the thread did not begin, forget it, and report no end."""
        boot = None if self._watch is None else self._watch()
        probe = None if boot is None else weakref.ref(boot)
        self._watch = None  # first: what is freed below is not the end of the thread
        del boot
        vars(self).pop("_bootstrap", None)
        traceback.clear_frames(traceback_of(error))  # they may refer to it, too
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
        """Whether it has ended: ``is_alive`` is also false of one that is just beginning."""
        return self._watch is not None and self._watch() is None

    def forget(self) -> None:
        """Do not report its end."""
        self._on_end = self._watch = None


def _died_at_birth(ref: weakref.ref[ActorThread]) -> bool:
    """Whether the thread that was started ended before it could say that it has begun."""
    thread = ref()
    if thread is None:
        return True
    vars(thread).pop("_bootstrap", None)  # CPython has it: the last reference is the thread's own
    if not thread.over:
        return False
    getattr(threading, "_limbo", {}).pop(thread, None)
    return True


def _boot(thread: ActorThread) -> None:
    # An interrupted start() may have removed it, and threading would fail to find it there.
    limbo = getattr(threading, "_limbo", {})
    limbo.setdefault(thread, thread)
    try:
        threading.Thread._bootstrap(thread)  # type: ignore[attr-defined]
    except KeyError:
        if not hasattr(thread, "_target"):  # it has run
            raise
        limbo[thread] = thread  # it was removed in between, and nobody removes it again
        threading.Thread._bootstrap(thread)  # type: ignore[attr-defined]
