"""Messages between a parent and its child, each whole or not at all.

A message is a kind, flags, and a body whose bytes the channel does not interpret. Other data (a
task can write to any descriptor) is :class:`Garbled`, and is not used.

Between a socket that keeps packets apart, a message is one packet, unless it is large. Elsewhere it
is a part of a stream.
"""

from __future__ import annotations

import enum
import os
import socket
import struct
import sys
from collections.abc import Callable
from multiprocessing.connection import wait

from ion_actors.backends.process.signals import NO_SIGPIPE

__all__ = [
    "CUT",
    "ITEM",
    "LAST",
    "MOST_IN_PACKET",
    "NEWS",
    "PACKETS",
    "RESULT",
    "STOP",
    "TASK",
    "Channel",
    "Garbled",
    "Message",
    "MessageKind",
    "Unread",
    "is_next",
    "number_after",
    "number_in",
    "reply_flags",
    "seconds_of_reply",
    "task_flags",
]

#: The kind of socket that keeps packets apart, where it also says that its other end is closed.
PACKETS = socket.SOCK_SEQPACKET if sys.platform == "linux" else None

_HEAD = struct.Struct("<4sIQ")  # magic, kind and flags, length of the body
_HEAD_SIZE = _HEAD.size
_MAGIC = b"ion\x01"
_LOOK_UP = struct.pack("ll", 1, 0) if os.name == "posix" else struct.pack("L", 1000)  # a second
_CHUNK = 64 * 1024  # bytes to read at a time, while the length is unknown; and of a packet
#: Bytes of the longest body that is sent in one packet.
MOST_IN_PACKET = _CHUNK - _HEAD_SIZE
_AT_ONCE = NO_SIGPIPE | getattr(socket, "MSG_DONTWAIT", 0)


class MessageKind(enum.IntEnum):
    """The kind of a message."""

    START = 1  #: to the child: its settings and its initializer
    TASK = 2  #: to the child: a task to run
    STOP = 3  #: to the child: end
    CANCEL = 4  #: to the child, on the control channel: end a task
    READY = 5  #: from the child: it has started
    RESULT = 6  #: from the child: the task's result
    ERROR = 7  #: from the child: the exception of the task, or of the start
    NEWS = 8  #: from the child, at any time: log records, warnings, progress
    ASK = 9  #: to the child, on the control channel: answer
    LOCATE = 10  #: to the child, on the control channel: say where the task is
    ALIVE = 11  #: from the child, on the control channel: the answer to ASK
    LOCATED = 12  #: from the child, on the control channel: the answer to LOCATE
    WATCHING = 13  #: from the child, on the control channel: it reads that from now on
    ITEM = 14  #: from the child: an item of the task, which is a stream
    GRANT = 15  #: to the child, on the control channel: there is room for more items


# Used for every task: CPython 3.11 calls a function for each access to the enumeration.
TASK, STOP, RESULT, NEWS = MessageKind.TASK, MessageKind.STOP, MessageKind.RESULT, MessageKind.NEWS
ITEM = MessageKind.ITEM

# Flags of a reply. Above them is the logarithm of the microseconds that the task took.
LAST = 1  #: the child ends now: it has run its share of tasks
CUT = 2  #: it begins nothing that it was sent before it has replied
_TIME = 2  # bits below it

# Flags of a task: the stretch that it is in, FRESH, and its number. See parent.line.
FRESH = 0x80  #: what is missing between its number and that of the last one was taken back
_STRETCHES = 0x80
_NUMBERS = 0x10000


def reply_flags(seconds: float, *, last: bool, cut: bool) -> int:
    """The flags of the reply to a task that took so long."""
    return LAST * last | CUT * cut | int(seconds * 1e6).bit_length() << _TIME


def seconds_of_reply(flags: int) -> float:
    """How long the task took, by a factor of two at most."""
    return float((1 << (flags >> _TIME)) - 1) * 1e-6


def number_after(number: int) -> int:
    """The number of the next task. There is no zero."""
    return (number + 1) % _NUMBERS or 1


def task_flags(stretch: int, number: int, *, fresh: bool) -> int:
    """The flags of a task."""
    return stretch % _STRETCHES | FRESH * fresh | number << 8


def is_next(flags: int, stretch: int, before: int) -> bool:
    """Whether a child begins a task with these flags.

    Args:
        flags: its own.
        stretch: how often the child has cut the line.
        before: the number of the last task that has begun.
    """
    if flags % _STRETCHES != stretch % _STRETCHES:
        return False
    return bool(flags & FRESH) or flags >> 8 == number_after(before)


def number_in(packet: bytes) -> int:
    """The number of the task of which this is the begin; zero if it is none."""
    return int(_HEAD.unpack_from(packet)[1] >> 16) if len(packet) >= _HEAD_SIZE else 0


class Garbled(Exception):
    """The received data is no message."""


class Unread(EOFError):
    """The other side has ended before it had read the whole last message.

    Only Linux reports that. Elsewhere it is an ordinary end of the stream.
    """


# Kind, flags, body.
Message = tuple[int, int, bytes | bytearray]


class Channel:
    """One end of a stream of messages. For one reader and one writer at a time.

    The end of the other process ends the stream, unless a fork of it keeps its end open. For that
    case the channel checks from time to time: see ``over``.

    Args:
        sock: a connected stream socket, which this owns from now on.
        over: tells whether the process on the other side has ended; by default it is not checked.
    """

    def __init__(self, sock: socket.socket, over: Callable[[], bool] | None = None) -> None:
        self._sock = sock
        self._over = over
        self._surplus = b""  # already read, part of the next message
        self._split = sock.type == PACKETS
        #: Called when nothing has come for a while. It may raise.
        self.on_idle: Callable[[], object] | None = None
        if over is not None:
            for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
                sock.setsockopt(socket.SOL_SOCKET, option, _LOOK_UP)

    def look_up_after(self, milliseconds: int) -> None:
        """So long a wait is a while, from now on. At first, it is a second."""
        size = struct.pack("ll", *divmod(milliseconds * 1000, 10**6))
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, size)

    def fileno(self) -> int:
        """The descriptor of its socket; -1 once it is closed."""
        return self._sock.fileno()

    def close(self) -> None:
        """Close it. Calling twice does no harm."""
        self._sock.close()

    def send(self, kind: MessageKind, body: bytes | bytearray = b"", flags: int = 0) -> None:
        """Send a message.

        Raises:
            EOFError: the other side has ended. It has not got the message.
        """
        head = _HEAD.pack(_MAGIC, kind | flags << 8, len(body))
        if len(body) <= MOST_IN_PACKET:
            self._write(head + body)
        else:
            self._write(head)
            self._write_large(body)

    def _write_large(self, body: bytes | bytearray) -> None:
        if not self._split:
            self._write(body)
            return
        for start in range(0, len(body), _CHUNK):
            self._write(body[start : start + _CHUNK])

    def try_to_send(self, kind: MessageKind, body: bytes, flags: int) -> bool:
        """Send a message that fits into a packet, unless that would block.

        Returns:
            Whether it was sent. If not, nothing of it was.

        Raises:
            EOFError: the other side has ended.
        """
        data = _HEAD.pack(_MAGIC, kind | flags << 8, len(body)) + body
        try:
            self._sock.send(data, _AT_ONCE)
        except BlockingIOError:
            return False
        except OSError as error:
            raise EOFError("the other side has ended") from error
        return True

    def _write(self, data: bytes | bytearray) -> None:
        try:
            sent = self._send(data)
            if sent < len(data):  # rarely
                with memoryview(data) as view:
                    while sent < len(data):
                        sent += self._send(view[sent:])
        except OSError as error:
            raise EOFError("the other side has ended") from error

    def _send(self, data: bytes | bytearray | memoryview) -> int:
        while True:
            try:
                return self._sock.send(data, NO_SIGPIPE)
            except BlockingIOError:
                self._look_up()

    def send_at_once(self, kind: MessageKind, body: bytes) -> bool:
        """Send a short message without ever blocking. Returns whether it could be sent.

        After False the channel cannot be used any more: half a message may have been sent.
        """
        data = _HEAD.pack(_MAGIC, kind, len(body)) + body
        try:
            return self._sock.send(data, NO_SIGPIPE) == len(data)
        except OSError:
            return False

    def receive_at_once(self) -> list[Message]:
        """The messages that have come. For a socket that does not block.

        Raises:
            EOFError: the other side has ended, or sends what is no message.
        """
        messages: list[Message] = []
        try:
            while data := self._sock.recv(_CHUNK):
                self._surplus += data
                while (message := self._first()) is not None:
                    messages.append(message)
        except BlockingIOError:
            return messages
        except OSError as error:
            raise EOFError("the other side has ended") from error
        if not messages:
            raise EOFError("the other side has ended")
        return messages

    def _first(self) -> Message | None:
        """The first message of what has come; None if it is not whole."""
        data = self._surplus
        if len(data) < _HEAD_SIZE:
            return None
        magic, kind, length = _HEAD.unpack_from(data)
        if magic != _MAGIC:
            raise EOFError("the other side sends what is no message")
        end = _HEAD_SIZE + length
        if len(data) < end:
            return None
        self._surplus = data[end:]
        return kind & 0xFF, kind >> 8, data[_HEAD_SIZE:end]

    def receive(self) -> Message:
        """The next message.

        Raises:
            EOFError: the other side has ended.
            Unread: it has ended before it had read everything.
            Garbled: the received data is no message.
        """
        data = self._surplus or self._some()
        while len(data) < _HEAD_SIZE:
            self._surplus = data  # on_idle may raise
            data += self._some()
        magic, kind, length = _HEAD.unpack_from(data)
        if magic != _MAGIC:
            raise Garbled(f"a message cannot begin with {data[:_HEAD_SIZE]!r}")
        end = _HEAD_SIZE + length
        if len(data) >= end:
            self._surplus = data[end:]
            return kind & 0xFF, kind >> 8, data[_HEAD_SIZE:end]
        self._surplus = b""
        return kind & 0xFF, kind >> 8, self._rest(data[_HEAD_SIZE:], length)

    def _rest(self, start: bytes, length: int) -> bytearray:
        try:
            body = bytearray(length)
        except (MemoryError, OverflowError) as error:
            raise Garbled(f"there is no room for a message of {length} bytes") from error
        have = len(start)
        body[:have] = start
        with memoryview(body) as view:
            while have < length:
                have += self._into(view[have:])
        return body

    def _some(self) -> bytes:
        while True:
            try:
                data = self._sock.recv(_CHUNK)
            except BlockingIOError:
                self._look_up()
                continue
            except ConnectionResetError as error:
                raise Unread("the other side has ended before it had read everything") from error
            except OSError as error:
                raise EOFError("the other side has ended") from error
            if not data:
                raise EOFError("the other side has ended")
            return data

    def _into(self, view: memoryview) -> int:
        while True:
            try:
                count = self._sock.recv_into(view)
            except BlockingIOError:
                self._look_up()
                continue
            except OSError as error:
                raise EOFError("the other side has ended") from error
            if not count:
                raise EOFError("the other side has ended")
            return count

    def _look_up(self) -> None:
        """There was no data for a while: check whether the other side has ended."""
        if self.on_idle is not None:
            self.on_idle()
        if self._over is None or not self._over():
            return
        # It may have sent something, and died after that.
        if not wait([self._sock], 0):
            raise EOFError("the other process has ended")
