"""The parent's end of the control channel: what cannot wait until the task is over.

::

    CANCEL ──▶                    end a task
    GRANT ──▶                     send more items of a stream
    ASK ──▶     ◀── ALIVE         does the child answer? see Heartbeat
    LOCATE ──▶  ◀── LOCATED       where is its task?

The child's watching thread answers. It must never be kept from reading by answers that nobody
reads, so at most one LOCATE is under way; who asks meanwhile shares its answer.
"""

from __future__ import annotations

import contextlib
import threading
from multiprocessing.connection import wait

from ion_actors.backends.process.parent.outside_view import OutsideView
from ion_actors.backends.process.transport.channel import Channel, MessageKind
from ion_actors.backends.process.transport.messages import Cancel, Grant, Located, Threads
from ion_actors.backends.stacks import formatted
from ion_actors.clock import system_clock

__all__ = ["AskedStack", "Control"]

# Seconds after which a thread that waits looks whether another one has read the answer.
_GLANCE = 0.02
# Seconds in which no answer can be expected.
_AT_ONCE = 0.05
# Of the time for an answer, the part after which the child is looked at from outside.
_PART = 0.7
_UNKNOWN = ")\n"


class Control:
    """Sends and reads. Nothing here blocks but :meth:`await_news`.

    Args:
        channel: its end; the socket does not block.
        lock: guards the channel and all fields. Reentrant; it is the child's, which closes the
            channel under it.
    """

    def __init__(self, channel: Channel, lock: threading.RLock) -> None:
        self._channel = channel
        self._lock = lock
        self._alive = False  # there was an ALIVE since the last look
        self._asked = self._answered = 0  # LOCATEs
        self._asked_at = 0.0  # when the last one was sent
        self._located: Located | None = None  # the last answer
        self.threads = Threads()  # of the child, once it watches
        self.over = False  # there will be no more answers

    def cancel(self, cancel: Cancel) -> None:
        """End a task."""
        with self._lock:
            self._channel.send_at_once(MessageKind.CANCEL, cancel.pack())

    def cancel_now(self, cancel: Cancel) -> None:
        """The same without the lock, for a thread that holds one which comes after it."""
        self._channel.send_at_once(MessageKind.CANCEL, cancel.pack())

    def grant(self, grant: Grant) -> None:
        """There is room for more items."""
        with self._lock:
            self._channel.send_at_once(MessageKind.GRANT, grant.pack())

    def ask(self) -> None:
        """Ask whether it answers."""
        with self._lock:
            self._channel.send_at_once(MessageKind.ASK, b"")

    def has_answered(self) -> bool:
        """Whether it has answered since this was called last."""
        with self._lock:
            self._read()
            alive, self._alive = self._alive, False
            return alive

    def locate(self) -> tuple[int, float]:
        """Ask where its task is. Returns the number of the question, and when that was asked."""
        with self._lock:
            self._read()
            if self._asked == self._answered:
                self._asked += 1
                self._asked_at = system_clock.monotonic()
                self._channel.send_at_once(MessageKind.LOCATE, b"")
            return self._asked, self._asked_at

    def answer(self, question: int) -> Located | None:
        """The answer, if it has come."""
        with self._lock:
            self._read()
            return self._located if self._answered >= question else None

    def await_news(self, timeout: float) -> None:
        """Wait until something has come; less long if another thread reads it first."""
        fd = self._channel.fileno()
        if fd >= 0:  # it may be closed, and be another file's, any time: then this wait is in vain
            with contextlib.suppress(OSError, ValueError):
                wait([fd], min(timeout, _GLANCE))

    def _read(self) -> None:
        if self.over:
            return
        try:
            messages = self._channel.receive_at_once()
        except EOFError:
            self.over = True
            return
        for kind, _, body in messages:
            self._alive = True
            if kind == MessageKind.LOCATED:
                self._answered += 1
                self._located = Located.unpack(body)
            elif kind == MessageKind.WATCHING:
                self.threads = Threads.unpack(body)


class AskedStack:
    """Where a child is, once it has answered.

    Args:
        control: of the child.
        view: of the child from outside.
        pid: its process id.
        task: the number of the task that is meant; 0 for the start.
        patience: seconds that it gets for an answer.
    """

    def __init__(
        self, control: Control, view: OutsideView, pid: int, task: int, patience: float
    ) -> None:
        self._control = control
        self._view = view
        self._pid = pid
        self._task = task
        self._question, self._asked = control.locate()
        self._last = self._asked + patience
        self._silent_at = self._asked + patience * _PART

    def text(self, until: float) -> str:
        """Wait for the answer until then at most. If none has come, say so."""
        found = self._await_answer(min(until, self._silent_at))
        if found is not None and found.number == self._task:
            return formatted(found.stack)
        if found is not None:
            return f"(child process {self._pid} has not begun the task, or has just ended it)\n"
        if self._control.over:
            return f"(child process {self._pid} has ended)\n"
        now = system_clock.monotonic()
        if now < self._asked + _AT_ONCE:
            return f"(child process {self._pid} had no time to answer)\n"
        why = self._view.text(self._control.threads, min(until, self._last)) if until > now else ""
        return f"(child process {self._pid} does not answer{why or _UNKNOWN}"

    def _await_answer(self, until: float) -> Located | None:
        while (found := self._control.answer(self._question)) is None:
            left = until - system_clock.monotonic()
            if left <= 0 or self._control.over:
                break
            self._control.await_news(left)
        return found
