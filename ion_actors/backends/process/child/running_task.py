"""The current task of a child process, and how it is ended early."""

from __future__ import annotations

import _thread
import threading

from ion_actors.backends.process.child.outlet import RemoteOutlet
from ion_actors.backends.process.transport.messages import Cancel
from ion_actors.context import Context, background
from ion_actors.errors import Cancelled, ContextEnded, DeadlineExceeded
from ion_actors.standby import NO_MORE_THREADS

__all__ = ["RunningTask", "Terminated"]


class Terminated(SystemExit):
    """Raised in a task that did not end after its context had ended.

    It is a ``SystemExit``, as if the signal handler had called ``sys.exit()``: event loops stop at
    that.
    """


class RunningTask:
    """The current task."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.deadline: float | None = None
        self.may_be_interrupted = False
        self.terminated = False
        self.importing = False  # when it was terminated
        self.broken = False  # it has raised, after it had some results
        self.outlet: RemoteOutlet | None = None  # if it is a stream
        self._cancel: Cancel | None = None
        self._context: Context | None = None
        self._lock = threading.Lock()  # guards the two above

    def context(self) -> Context:
        """Its context; made now, if nothing has asked for it before."""
        with self._lock:
            if self._context is None:
                self._context = Context(background(), deadline=self.deadline)
            context, cancel = self._context, self._cancel
        if cancel is not None:
            _end(context, cancel)
        return context

    def cancel(self, cancel: Cancel) -> None:
        """End its context. Called by the watching thread."""
        with self._lock:
            if self._cancel is None or cancel.forced:
                self._cancel = cancel
            context = self._context
        if context is not None:
            # In another thread: callbacks that block must not keep up the watching thread.
            try:
                _thread.start_new_thread(_end, (context, cancel))
            except NO_MORE_THREADS:  # there can be no more threads
                _end(context, cancel)

    def interrupt(self) -> None:
        """End it by force, if its time to end by itself has passed. Called by the main thread.

        A signal handler calls it, so it takes no lock.

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
        """The error for its end by force."""
        assert self._cancel is not None
        kind = DeadlineExceeded if self._cancel.expired else Cancelled
        return kind(self._cancel.reason)


def _end(context: Context, cancel: Cancel) -> None:
    if cancel.expired:
        context._expire()
    else:
        context.cancel(cancel.reason)
