"""Samples the process once a second, in a thread of its own, for all viewers together.

The thread exists while somebody looks, or all the time if the history is to be kept from the start.
It takes a snapshot, adds it to the history, and makes the text that is sent to every viewer. So the
program's event loop does no more than to send it.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from ion_actors.clock import system_clock
from ion_actors.dashboard.history import SERIES, History
from ion_actors.forking import check, renew_after_fork
from ion_actors.logs import Logger
from ion_actors.own_variables import daemon_thread

__all__ = ["INTERVAL", "Feed", "Frame"]

#: Seconds between two samples.
INTERVAL = 1.0

# Of the time of one CPU, the thread takes at most one part in so many: a program with a thousand
# pools is looked at less often.
_PARTS = 100

logger = Logger("ion_actors.dashboard", later=True)


class Frame(NamedTuple):
    """What viewers get of one moment."""

    number: int
    data: bytes  #: JSON, as UTF-8; empty if there is none yet


class Feed:
    """Frames for viewers.

    Args:
        look: returns a snapshot of this process, as a dictionary for JSON. It is called in the
            feed's thread.
        glance: the same, with no more than the numbers of pools; called while nobody looks.
        always: sample from now on, and not only while somebody looks.
        interval: seconds between two samples.
    """

    def __init__(
        self,
        look: Callable[[], Mapping[str, Any]],
        glance: Callable[[], Mapping[str, Any]],
        *,
        always: bool = False,
        interval: float = INTERVAL,
    ) -> None:
        self.closed = False
        self._look = look
        self._glance = glance
        self._always = always
        self._interval = interval
        self._works = True  # the last sample could be taken
        self._begin()
        renew_after_fork(self)
        if always:
            with self._lock:
                self._start()

    def _begin(self) -> None:
        self.frame = Frame(0, b"")  # the newest; it is replaced and never changed
        self._history = History()
        self._lock = threading.Lock()  # guards the viewers, the thread, and the history
        self._wake = threading.Event()
        self._viewers = 0
        self._thread: threading.Thread | None = None

    def after_fork(self) -> None:
        """In a forked child: the thread and the viewers stayed in the parent."""
        self._begin()

    @contextlib.contextmanager
    def viewer(self) -> Iterator[None]:
        """A block during which there are new frames.

        Raises:
            RuntimeError: no thread can be started.
        """
        check()
        with self._lock:
            self._start()
            if not self._viewers:
                self.frame = Frame(self.frame.number, b"")  # the old one may be very old
            self._viewers += 1
        try:
            yield
        finally:
            with self._lock:
                self._viewers -= 1
                if not (self._viewers or self._always):
                    self._wake.set()  # there is no reason to wait for the next sample

    def history(self) -> dict[str, Any]:
        """The last minutes, as a dictionary for JSON."""
        with self._lock:
            return self._history.as_dict()

    def close(self) -> None:
        """End the thread, and the streams of all viewers."""
        self.closed = True
        self._wake.set()
        if (thread := self._thread) is not None:
            thread.join(self._interval)

    def sample(self) -> None:
        """Take a sample now."""
        watched = self._viewers > 0
        snapshot = self._look() if watched else self._glance()
        moment = system_clock.monotonic()
        with self._lock:
            self._history.add(time.time(), moment, snapshot["pools"])
            points = {"series": SERIES, "pools": self._history.last()}
        if watched:
            found = {"snapshot": snapshot, "points": points}
            data = json.dumps(found, separators=(",", ":")).encode()
            self.frame = Frame(self.frame.number + 1, data)

    def _start(self) -> None:
        if not self._viewers:
            self._wake.set()  # the first one need not wait for the next sample
        if self._thread is None and not self.closed:
            thread = daemon_thread(self._run, "ion_actors-dashboard")
            thread.start()
            self._thread = thread

    def _run(self) -> None:
        while not self._is_over():
            self._wake.clear()
            began = time.thread_time()
            self._try_to_sample()
            self._wake.wait(max(self._interval, (time.thread_time() - began) * _PARTS))

    def _is_over(self) -> bool:
        with self._lock:
            if self.closed or not (self._always or self._viewers):
                self._thread = None
                return True
        return False

    def _try_to_sample(self) -> None:
        try:
            self.sample()
            self._works = True
        except Exception as error:  # a bug; the next sample may be possible
            if self._works:
                logger.error("the dashboard could not look: %s", error, exc_info=error)
            self._works = False
