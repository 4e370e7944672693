"""Messages between a parent and its child, each whole or not at all.

A message is a kind, flags, and a body whose bytes the channel does not interpret. Other data (a
task can write to any descriptor) is :class:`Garbled`, and is not used.
"""

from __future__ import annotations

import enum
import os
import socket
import struct
from collections.abc import Callable
from multiprocessing.connection import wait

from ion_actors.backends.process.signals import NO_SIGPIPE

__all__ = [
    "ITEM",
    "LAST",
    "NEWS",
    "RESULT",
    "STOP",
    "TASK",
    "Channel",
    "Garbled",
    "Message",
    "MessageKind",
    "Unread",
]

_HEAD = struct.Struct("<4sBB2xQ")  # magic, kind, flags, length of the body
_HEAD_SIZE = _HEAD.size
_MAGIC = b"ion\x01"
_LOOK_UP = struct.pack("ll", 1, 0) if os.name == "posix" else struct.pack("L", 1000)  # a second
_CHUNK = 64 * 1024  # bytes to read at a time, while the length is unknown


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

# Flags of a reply.
LAST = 1  #: the child ends now: it has run its share of tasks


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
        if over is not None:
            for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
                sock.setsockopt(socket.SOL_SOCKET, option, _LOOK_UP)

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
        head = _HEAD.pack(_MAGIC, kind, flags, len(body))
        if len(body) <= _CHUNK:
            self._write(head + body)
        else:
            self._write(head)
            self._write(body)

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
        data = _HEAD.pack(_MAGIC, kind, 0, len(body)) + body
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
        magic, kind, flags, length = _HEAD.unpack_from(data)
        if magic != _MAGIC:
            raise EOFError("the other side sends what is no message")
        end = _HEAD_SIZE + length
        if len(data) < end:
            return None
        self._surplus = data[end:]
        return kind, flags, data[_HEAD_SIZE:end]

    def receive(self) -> Message:
        """The next message.

        Raises:
            EOFError: the other side has ended.
            Unread: it has ended before it had read everything.
            Garbled: the received data is no message.
        """
        data = self._surplus or self._some()
        while len(data) < _HEAD_SIZE:
            data += self._some()
        magic, kind, flags, length = _HEAD.unpack_from(data)
        if magic != _MAGIC:
            raise Garbled(f"a message cannot begin with {data[:_HEAD_SIZE]!r}")
        end = _HEAD_SIZE + length
        if len(data) >= end:
            self._surplus = data[end:]
            return kind, flags, data[_HEAD_SIZE:end]
        self._surplus = b""
        return kind, flags, self._rest(data[_HEAD_SIZE:], length)

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
        if self._over is None or not self._over():
            return
        # It may have sent something, and died after that.
        if not wait([self._sock], 0):
            raise EOFError("the other process has ended")
