"""The tasks that a child was sent, and that are not answered.

::

    sent ──▶ a packet in the socket ──the child reads it──▶ it runs ──reply──▶ out of the line
                        └──this side reads it──▶ it has not begun, and never will

A child reads a task when it begins it, and the next one when it has replied. This process has the
child's end of the socket, too. So it takes back what the child has not read: the kernel gives each
packet to one of the two. It keeps the rest when the child dies, which so tells what has begun.
While this side reads one packet after the other, the child may come to read one of the last. It
sees by the number that one before it is missing, and does not begin it.

The child *cuts* the line when a task has failed (what follows may depend on what its pool makes of
that), or if it ends: it begins nothing that was sent before its reply. What is sent from then on
belongs to the next *stretch*.
"""

from __future__ import annotations

import contextlib
import functools
import socket
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ion_actors.backends.process.transport.channel import (
    CUT,
    LAST,
    PACKETS,
    TASK,
    Channel,
    Message,
    number_after,
    number_in,
    seconds_of_reply,
    task_flags,
)
from ion_actors.backends.window import WORK, SendWindow

if TYPE_CHECKING:
    from ion_actors.backends.protocol import Task
    from ion_actors.context import Registration

__all__ = ["CAN_TAKE_BACK", "MOST_BYTES", "SentTask", "TaskLine"]

#: Whether the system has such sockets.
CAN_TAKE_BACK = PACKETS is not None

#: So many tasks are in the line at most, if nothing else sets a limit.
_MOST = 8

#: Bytes of a task that may be sent before its turn: all of them must fit into the socket.
MOST_BYTES = 4 * 1024

_HEAD = 16  # bytes of a packet by which it is known
_AT_ONCE = getattr(socket, "MSG_DONTWAIT", 0)


class SentTask:
    """A task that was sent."""

    __slots__ = ("ahead", "alone", "followed", "number", "out", "reply", "task")

    def __init__(self, task: Task, number: int, *, ahead: bool) -> None:
        self.task = task
        self.number = number
        self.ahead = ahead  # sent before its turn
        self.alone = False  # nothing may be sent behind it: it could not be taken back
        self.out = False  # of the line: answered, or taken back
        self.reply: Message | None = None  # which came while its worker waited for another one
        self.followed: Registration | None = None  # with its context


class TaskLine:
    """See the module. All but ``window`` is for whoever holds the child's lock.

    Any of this may be interrupted, and is then done by the next call.

    Args:
        channel: where tasks are sent.
        unread: the child's end of that; None if packets cannot be told apart here.
    """

    def __init__(self, channel: Channel, unread: socket.socket | None) -> None:
        self.window = SendWindow(_MOST, _MOST)
        self.unbegun: deque[SentTask] = deque()  # taken back, in order; for its worker
        self._channel = channel
        self._sent: deque[SentTask] = deque()
        self._number = 0  # of tasks so far; each has another one, for long enough
        self._stretch = 0
        # In C, without a step in between: no packet is lost when this is interrupted.
        peek = None if unread is None else functools.partial(unread.recv, _HEAD, _AT_ONCE)
        self._packets = iter(()) if peek is None else iter(peek, b"")
        self._read: deque[bytes] = deque()  # the heads of packets, to be looked at
        self._left = False  # there were any
        self._gap = False  # behind the last one that the child may begin

    def __len__(self) -> int:
        """How many are not answered."""
        return len(self._sent)

    def __iter__(self) -> Iterator[SentTask]:
        """Those."""
        return iter(self._sent.copy())

    @property
    def first(self) -> SentTask | None:
        """The first one: it runs, as far as is known."""
        try:
            return self._sent[0]
        except IndexError:
            return None

    @property
    def last(self) -> SentTask | None:
        """The last one."""
        try:
            return self._sent[-1]
        except IndexError:
            return None

    def find(self, task: Task) -> SentTask | None:
        """The one with this task. Not while another thread may change the line."""
        return next((one for one in self._sent if one.task is task), None)

    def add(self, task: Task, *, ahead: bool = False) -> tuple[SentTask, int]:
        """A task is about to be sent. Returns it, and the flags of its message."""
        self._number = number = number_after(self._number)
        sent = SentTask(task, number, ahead=ahead)
        self._sent.append(sent)
        flags = task_flags(self._stretch, number, fresh=self._gap)
        self._gap = False
        return sent, flags

    def send_ahead(self, task: Task, body: bytes) -> SentTask | None:
        """Send a task before its turn. None if there is no room for it now."""
        sent, flags = self.add(task, ahead=True)
        if self._channel.try_to_send(TASK, body, flags):
            return sent
        self._gap = True
        self._sent.pop()
        return None

    def answered(self, flags: int) -> SentTask | None:
        """The first one is answered. None if there is none."""
        try:
            sent = self._sent.popleft()
        except IndexError:
            return None
        sent.out = True
        if flags & (CUT | LAST):
            self.take_back()
            self._gap = True
            self._move_from(0)
            self._stretch += 1
            self.window = self.window.closed()
        self._learn(seconds_of_reply(flags))
        return sent

    def _learn(self, seconds: float) -> None:
        window = self.window
        if window.size < window.most or seconds * window.most > WORK:  # else it stays as it is
            self.window = window.answered(seconds)

    def take_back(self) -> None:
        """Take back all that the child has not read, if something was sent ahead."""
        if self._sent and self._sent[-1].ahead:
            self._take_unread()

    def lose(self) -> None:
        """The child has ended: what it has not read has not begun."""
        self._take_unread()
        if self._left and self._sent and self._sent[-1].alone:  # it may have been read in part
            self._move(self._sent[-1])
            self._sent.pop()

    def _take_unread(self) -> None:
        with contextlib.suppress(OSError, ValueError):  # nothing more is there
            self._read.extend(self._packets)
        gone = set(map(number_in, self._read))
        self._left = self._left or bool(gone)
        # The child may have read one behind those, meanwhile; it does not begin that.
        first = next((place for place, one in enumerate(self._sent) if one.number in gone), None)
        if first is not None:
            self._gap = True
            self._move_from(first)
        self._read.clear()

    def _move_from(self, place: int) -> None:
        """These have not begun, and never will."""
        while len(self._sent) > place:
            self._move(self._sent[-1])
            self._sent.pop()

    def _move(self, sent: SentTask) -> None:
        sent.out = True
        if not (self.unbegun and self.unbegun[0] is sent):
            self.unbegun.appendleft(sent)
