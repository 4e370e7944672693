"""A drain on a signal.

A signal drains the pool first, and then does what it would have done::

    signal ──▶ main thread: the handler gives way ──▶ a thread drains the pool
                                                            │ over, or out of time
               main thread: what had the signal before ◀────┘ the signal, once more

The kernel takes no default action on the first process of a container (PID 1). There, a handler
stands in for the default: it ends the process by ``SystemExit``, with the status that shells give
to a process that was ended by that signal.
"""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any, Protocol

from ion_actors.errors import DrainTimeout
from ion_actors.futures import Future
from ion_actors.logs import Logger, flush
from ion_actors.own_variables import daemon_thread
from ion_actors.standby import NO_MORE_THREADS, RETRY, STANDBY
from ion_actors.workerpool import exit_hooks
from ion_actors.workerpool.model.reports import DrainReport

__all__ = ["DrainOnSignal"]

logger = Logger("ion_actors", later=True)


class Drains(Protocol):
    """A pool, as far as a signal is concerned."""

    def drain(self, timeout: float | None) -> DrainReport:
        """Finish what was accepted, and end."""
        ...

    def begin_drain(self, timeout: float | None) -> Future[DrainReport]:
        """Have a drain begin. Never blocks; the future is done when the drain is."""
        ...


# So many seconds the main thread of a PID 1 has to notice that it is to end; one that is in foreign
# code may never do so. Elsewhere the kernel would end it at once.
_NOTICE = 5.0

# A signal that comes just before the main thread blocks in a lock does not wake it.
_NUDGE = 0.5

_HARMLESS = frozenset(  # by default they do not end a process
    getattr(signal, name, None)
    for name in ("SIGCHLD", "SIGCONT", "SIGURG", "SIGWINCH", "SIGTSTP", "SIGTTIN", "SIGTTOU")
)


class DrainOnSignal:
    """The handler of one signal, for one pool: see :meth:`ion_actors.Pool.drain_on_signal`.

    As a ``with`` block it is in force inside.
    """

    def __init__(self, pool: Drains, signum: int, timeout: float | None) -> None:
        self._pool = pool
        self._signum = signal.Signals(signum)
        self._timeout = timeout
        self._removed = False
        self._begun = False
        self._pid = os.getpid()
        self._stand_in = _Default(self._signum)
        # The signal may come before signal() has returned.
        self._before: Any = signal.getsignal(signum)
        signal.signal(signum, self._handle)

    def remove(self) -> None:
        """Give the signal back to whoever had it before. To be called in the main thread."""
        self._removed = True
        if signal.getsignal(self._signum) == self._handle:
            # None: what had it was not set by Python, which cannot give it back.
            before = self._whose_it_was()
            signal.signal(self._signum, signal.SIG_DFL if before is None else before)

    def _whose_it_was(self) -> Any:
        """Who had the signal before, without those of ours that were removed since."""
        before = self._before
        while isinstance(one := getattr(before, "__self__", None), DrainOnSignal) and one._removed:
            before = one._before
        return before

    def __enter__(self) -> DrainOnSignal:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        # In the main thread, between any two steps of it: so nothing may wait here. From now on
        # the signal is what it was before: a second one does not wait for the drain.
        again, self._begun = self._begun, True
        self.remove()
        if self._stand_in.is_needed():
            signal.signal(signum, self._stand_in.handle)
        if again:
            return  # it came twice before the line above
        if os.getpid() != self._pid:  # a forked child, perhaps one that is only being made
            self._stand_in.drained = True
            signal.raise_signal(signum)
            return
        if not self.start():
            STANDBY.ask(_Follower(self._pool.begin_drain(self._timeout), self).look)

    def start(self) -> bool:
        """Have a thread drain the pool. Returns False if there can be none."""
        name = f"ion_actors-{self._signum.name}"
        try:
            daemon_thread(self._drain, name).start()
        except NO_MORE_THREADS:
            return False
        return True

    def _drain(self) -> None:
        logger.info("%s: draining %r", self._signum.name, self._pool)
        try:
            report = self._pool.drain(self._timeout)
            logger.info("%s: drained: %s", self._signum.name, report)
        except DrainTimeout as error:
            logger.warning("%s: %s", self._signum.name, error)
        except BaseException:
            logger.exception("%s: the drain failed", self._signum.name)
        self.pass_on()

    def pass_on(self) -> None:
        """The signal does now what it would have done."""
        flush()  # the signal may end the process
        handler = signal.getsignal(self._signum)
        if handler == self._stand_in.handle:
            self._stand_in.end_process()
        elif self._whose_it_was() is not signal.SIG_IGN:
            _raise_in_main_thread(self._signum)


class _Follower:
    """Sees a drain out for which no thread could be started.

    Args:
        reply: the drain's.
        signal: whose drain it is.
    """

    def __init__(self, reply: Future[DrainReport], signal: DrainOnSignal) -> None:
        self._reply = reply
        self._signal: DrainOnSignal | None = signal

    def look(self) -> float | None:
        """A job: see :mod:`ion_actors.standby`."""
        signal, self._signal = self._signal, None  # once, whoever looks
        if signal is None or self._reply.done():
            if signal is not None:
                signal.pass_on()
            return None
        if signal.start():
            return None
        self._signal = signal
        return RETRY


class _Default:
    """Stands in for the default action of a signal where the kernel takes none.

    Attributes:
        drained: the signal that comes now is the one that was put off. Before, it is a second one.
    """

    def __init__(self, signum: signal.Signals) -> None:
        self._signum = signum
        self.drained = False
        self._noticed = False
        self._on_notice = threading.Lock()  # acquired until then; an Event could block a handler
        self._on_notice.acquire()
        self._nudged = False  # a second signal may be our own

    def is_needed(self) -> bool:
        """Whether the signal is left to the kernel now, which would ignore it. Main thread only."""
        ends = self._signum not in _HARMLESS
        return ends and os.getpid() == 1 and signal.getsignal(self._signum) is signal.SIG_DFL

    def handle(self, signum: int, frame: FrameType | None) -> None:
        """The handler. In the main thread."""
        if self._noticed and self._nudged:
            self._nudged = False
        elif self._noticed or not self.drained:
            os._exit(128 + signum)  # who sends it a second time does not want to wait
        else:
            self._noticed = True
            self._on_notice.release()
            if not exit_hooks.is_exiting():
                raise SystemExit(128 + signum)

    def end_process(self) -> None:
        """Have the main thread end the process, or do so if that cannot be reached."""
        self.drained = True
        for _ in range(int(_NOTICE / _NUDGE)):
            _raise_in_main_thread(self._signum)
            if self._on_notice.acquire(timeout=_NUDGE):
                return
            self._nudged = True
        logger.warning("%s: the main thread does not end, so the process does", self._signum.name)
        flush()
        os._exit(128 + self._signum)


def _raise_in_main_thread(signum: int) -> None:
    # Raised here, it would be noted, but would not wake the main thread, which alone handles it.
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident or 0, signum)
    else:
        signal.raise_signal(signum)
