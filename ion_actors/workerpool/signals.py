"""A signal that drains a pool first, and then does what it would have done."""

from __future__ import annotations

import logging
import os
import signal
import threading
from types import FrameType
from typing import TYPE_CHECKING, Any

from ion_actors.errors import DrainTimeout

if TYPE_CHECKING:
    from ion_actors.workerpool.ending import Ending

__all__ = ["DrainOnSignal"]

logger = logging.getLogger("ion_actors")


class DrainOnSignal:
    """The handler of one signal, for one pool: see :meth:`ion_actors.Pool.drain_on_signal`.

    As a ``with`` block it is in force inside.
    """

    def __init__(self, pool: Ending, signum: int, timeout: float | None) -> None:
        self._pool = pool
        self._signum = signal.Signals(signum)
        self._timeout = timeout
        self._removed = False
        self._pid = os.getpid()
        self._before: Any = signal.signal(signum, self._handle)

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
        self.remove()
        if os.getpid() != self._pid:  # a forked child, perhaps one that is only being made
            signal.raise_signal(signum)
            return
        threading.Thread(
            target=self._drain, name=f"ion_actors-{self._signum.name}", daemon=True
        ).start()

    def _drain(self) -> None:
        logger.info("%s: draining %r", self._signum.name, self._pool)
        try:
            report = self._pool.drain(self._timeout)
            logger.info("%s: drained: %s", self._signum.name, report)
        except DrainTimeout as error:
            logger.warning("%s: %s", self._signum.name, error)
        except BaseException:
            logger.exception("%s: the drain failed", self._signum.name)
        if self._whose_it_was() is not signal.SIG_IGN:
            _raise_in_main_thread(self._signum)


def _raise_in_main_thread(signum: int) -> None:
    # Raised here, it would be noted, but would not wake the main thread, which alone handles it.
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident or 0, signum)
    else:
        signal.raise_signal(signum)
