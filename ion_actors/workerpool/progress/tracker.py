"""How far a map is: counted as its tasks end, shown by the thread that takes its results.

::

    workers                                   the thread that iterates
    a task ends ──▶ Tracker.ended: a number ──▶ Tracker.show ──▶ a display: the user's code
                                  └── rings ──▶ Tracker.wait: the next result is not there yet

A worker only counts. What is shown may take any time and may raise, so it is called where the
results are taken, between two of them and while that thread waits for one. What it raises is
logged, once, and the map goes on without it.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from ion_actors.context import of_thread
from ion_actors.delivery import is_kept_free, run_elsewhere
from ion_actors.futures import Future
from ion_actors.futures.callbacks import quick
from ion_actors.interruption import is_interruption
from ion_actors.logs import Logger
from ion_actors.workerpool.progress.displays import Display

__all__ = ["Tracker"]

logger = Logger("ion_actors")


class Tracker:
    """Counts the calls of one map that have ended, and has a display show them.

    Args:
        display: where they are shown.
    """

    def __init__(self, display: Display) -> None:
        self._display: Display | None = display
        self._expected: dict[Future[Any], int] = {}
        self._news: deque[int] = deque()  # calls that have ended and are not shown yet, by task
        self._bells: deque[Future[None]] = deque()  # whoever takes one out settles it
        # Guards that what is no longer expected is news. A signal handler may end a task, too.
        self._lock = threading.RLock()

    def expect(self, task: Future[Any], calls: int) -> None:
        """A task with so many calls was submitted."""
        self._expected[task] = calls  # first: it may have ended
        task.add_done_callback(self.ended)

    @quick
    def ended(self, task: Future[Any]) -> None:
        """A task has ended. Counted once, in whichever thread comes first; runs no user's code."""
        with self._lock:
            calls = self._expected.pop(task, 0)
            if not calls or task.cancelled():
                return
            self._news.append(calls)
        with contextlib.suppress(IndexError):
            self._bells.pop().set(None)

    # -- in the thread that takes the results -------------------------------------------------

    def begin(self) -> None:
        """The first result is asked for."""
        if self._display is not None:
            self._call(self._display.begin)

    def show(self) -> None:
        """Show what has ended since the last time."""
        ended = []
        while self._news:
            ended.append(self._news.popleft())
        if ended and self._display is not None:
            display = self._display
            self._call(lambda: display.show(ended))

    def take(self, task: Future[Any]) -> None:
        """The results of a task are about to be given out: show that it has ended."""
        self.ended(task)  # its callbacks may come later
        self.show()

    def step(self) -> None:
        """Show one more, of which there is no task."""
        self._news.append(1)
        self.show()

    def wait(self, task: Future[Any], in_time: Callable[[Future[Any]], bool]) -> None:
        """Show what ends, until this task has ended or ``in_time`` says that there is no time left.

        Raises:
            Cancelled, DeadlineExceeded: the current context ended first.
        """
        self.show()
        # A task that waits for its own pool runs what it waits for; a bell is no task.
        while of_thread.helper is None and (bell := self._bell(task)) is not None:
            if not in_time(bell):
                return
            self.show()

    async def await_(
        self, task: Future[Any], in_time: Callable[[Future[Any]], Awaitable[bool]]
    ) -> None:
        """:meth:`wait` for coroutines."""
        self.show()
        while of_thread.helper is None and (bell := self._bell(task)) is not None:
            if not await in_time(bell):
                return
            self.show()

    def _bell(self, task: Future[Any]) -> Future[None] | None:
        """A future that is settled when the next task ends; None if this task has ended."""
        self._bells.clear()
        bell: Future[None] = Future()
        self._bells.append(bell)
        if task.done():
            return None
        if self._news:  # perhaps from before the bell was there
            bell.cancel()
        return bell

    def finish(self) -> None:
        """No more results are taken: they are all there, or the map failed or was left."""
        display, self._display = self._display, None
        if display is None:
            return
        if is_kept_free():  # the iterator was garbage, and was found on a thread of the library
            run_elsewhere(lambda: self._call(display.end))
        else:
            self._call(display.end)

    def _call(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:
            display, self._display = self._display, None
            if display is not None:
                with contextlib.suppress(Exception):
                    display.end()
            if is_interruption(error):
                raise
            logger.exception("the progress of a map is not shown any more")
