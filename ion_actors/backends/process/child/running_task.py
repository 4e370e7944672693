"""The task that a child process has under way, and how it comes to its end before its time."""

from __future__ import annotations

import _thread
import threading

from ion_actors.backends.process.transport.messages import Cancel
from ion_actors.context import Context, background
from ion_actors.errors import Cancelled, ContextEnded, DeadlineExceeded
from ion_actors.standby import NO_MORE_THREADS

__all__ = ["RunningTask", "Terminated"]


class Terminated(SystemExit):
    """Raised in a task that did not end when its context had.

    As if the handler of the signal had called ``sys.exit()``: event loops know that they should not
    go on then.
    """


class RunningTask:
    """The task under way."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.deadline: float | None = None
        self.may_be_interrupted = False
        self.terminated = False
        self.importing = False  # when it was terminated
        self._cancel: Cancel | None = None
        self._context: Context | None = None
        self._lock = threading.Lock()  # guards the two above

    def context(self) -> Context:
        """Its context; made now, if nobody has asked for it before."""
        with self._lock:
            if self._context is None:
                self._context = Context(background(), deadline=self.deadline)
            context, cancel = self._context, self._cancel
        if cancel is not None:
            _end(context, cancel)
        return context

    def cancel(self, cancel: Cancel) -> None:
        """It is to end. Called by the watching thread."""
        with self._lock:
            if self._cancel is None or cancel.forced:
                self._cancel = cancel
            context = self._context
        if context is not None:
            # Elsewhere: callbacks that block must not keep the watching thread from its work.
            try:
                _thread.start_new_thread(_end, (context, cancel))
            except NO_MORE_THREADS:  # there can be no more threads
                _end(context, cancel)

    def interrupt(self) -> None:
        """End it now, if it had its time to end by itself. Called by the main thread.

        The handler of a signal calls it, so it takes no lock.

        Raises:
            Terminated: unless it cannot be interrupted at this moment.
        """
        if self._cancel is None or not self._cancel.forced:
            return
        self.terminated = True
        if self.may_be_interrupted:
            self.may_be_interrupted = False
            raise Terminated

    def after_fork(self) -> None:
        """In a fork of this process, which may go on with the task."""
        self._lock = threading.Lock()

    def error(self) -> ContextEnded:
        """What its end by force means."""
        assert self._cancel is not None
        kind = DeadlineExceeded if self._cancel.expired else Cancelled
        return kind(self._cancel.reason)


def _end(context: Context, cancel: Cancel) -> None:
    if cancel.expired:
        context._expire()
    else:
        context.cancel(cancel.reason)
