"""Open files, sockets and pipes are sent to the other process as such, not as numbers.

::

    pickler ──▶ Descriptor, beside the pickle as buffers are ──sendmsg──▶ Rights ──▶ Descriptor

The kernel passes descriptors together with the bytes of a UNIX socket (``SCM_RIGHTS``). They have a
socket of their own, so the stream of messages is not slowed down, and a message contains their
number. Whatever happens to the message or to a process, none of them is left open: a ``Descriptor``
closes what was not taken, the kernel what is still in the socket.

With ``multiprocessing``, the receiver would fetch each of them from a thread of the sender, which
must stay alive for that, and never frees those that are not fetched.
"""

from __future__ import annotations

import array
import errno
import os
import pickle
import socket
import struct
from collections.abc import Iterable, Sequence
from typing import Any

from ion_actors.backends.process.signals import NO_SIGPIPE

__all__ = ["CAN_BE_SENT", "Descriptor", "Rights", "close_all", "descriptor_of"]

#: Whether this system can pass descriptors.
CAN_BE_SENT = hasattr(socket, "send_fds")

_MOST_AT_ONCE = 250  # the kernel takes 253 in one message
_SERIAL = struct.Struct("<Q")
_CLOSED = (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN, errno.EBADF)


class Descriptor(bytearray):
    """A descriptor that is being sent. It is closed unless somebody takes it.

    To pickle it is a buffer, which is kept outside the pickle. In the receiving process it comes
    out of the pickle as itself, so it can replace the ``DupFd`` of ``multiprocessing``.

    Args:
        fd: the descriptor, which this owns from now on.
    """

    def __init__(self, fd: int) -> None:
        super().__init__()
        self.fd = fd  # -1 once it is closed, or taken

    @classmethod
    def copy_of(cls, fd: int) -> Descriptor:
        """A duplicate of an open descriptor, whose owner may close that afterwards.

        Raises:
            OSError: it is closed, or this process may have no more of them.
        """
        return cls(os.dup(fd))

    def detach(self) -> int:
        """Take it."""
        fd, self.fd = self.fd, -1
        if fd == -1:
            raise OSError(errno.EBADF, "this descriptor was taken before")
        return fd

    def close(self) -> None:
        """Close it, if it was not taken. Calling twice does no harm."""
        fd, self.fd = self.fd, -1
        if fd != -1:
            os.close(fd)

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return descriptor_of, (pickle.PickleBuffer(self),)

    def __del__(self) -> None:
        self.close()


def descriptor_of(buffer: object) -> Descriptor:
    """The descriptor of a buffer.

    Raises:
        TypeError: the buffer is none of a descriptor.
    """
    found = _found_in(buffer)
    if found is None:
        raise TypeError(f"no descriptor came with this message, but {type(buffer).__name__}")
    return found


def _found_in(buffer: object) -> Descriptor | None:
    if isinstance(buffer, pickle.PickleBuffer):
        buffer = buffer.raw().obj
    return buffer if isinstance(buffer, Descriptor) else None


def close_all(buffers: Iterable[object]) -> None:
    """Close the descriptors among these buffers that were not taken."""
    for buffer in buffers:
        found = _found_in(buffer)
        if found is not None:
            found.close()


class Rights:
    """One end of the socket for descriptors. For one sender and one receiver at a time.

    They are sent before the message that they belong to, so the receiver never waits for them.
    Those of a message that was never read are closed with the next one.

    Args:
        sock: a connected UNIX socket, which this owns from now on.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._serial = 0
        sock.setblocking(False)

    def send(self, descriptors: Sequence[Descriptor]) -> int:
        """Send them. Returns the number by which the receiver finds them. They stay open here.

        Raises:
            OSError: too many are not received yet. (If the receiver has ended, sending the message
                fails.)
        """
        self._serial += 1
        for start in range(0, len(descriptors), _MOST_AT_ONCE):
            some = array.array("i", [one.fd for one in descriptors[start : start + _MOST_AT_ONCE]])
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, some)]
            try:
                self._sock.sendmsg([_SERIAL.pack(self._serial)], rights, NO_SIGPIPE)
            except OSError as error:
                if error.errno in _CLOSED and -1 not in some:
                    break
                raise
        return self._serial

    def receive(self, serial: int, count: int) -> list[Descriptor]:
        """The descriptors that were sent with a message.

        Raises:
            OSError: this process may have no more of them.
        """
        found: list[Descriptor] = []
        while len(found) < count:
            sent, some = self._receive_some()
            if sent == serial:
                found += some
        return found

    def _receive_some(self) -> tuple[int, list[Descriptor]]:
        size = socket.CMSG_SPACE(_MOST_AT_ONCE * array.array("i").itemsize)
        flags = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
        data, rights, found, _ = self._sock.recvmsg(_SERIAL.size, size, flags)
        descriptors = [Descriptor(fd) for fd in _descriptors_in(rights)]
        if not flags:
            for one in descriptors:
                os.set_inheritable(one.fd, False)
        if len(data) < _SERIAL.size:
            raise EOFError("the descriptors of this message were not received")
        if found & socket.MSG_CTRUNC:
            raise OSError(errno.EMFILE, "this process may have no more open files")
        return _SERIAL.unpack(data)[0], descriptors

    def close(self) -> None:
        """Close it, and descriptors that were not received. Calling twice does no harm."""
        self._sock.close()


def _descriptors_in(rights: Iterable[tuple[int, int, bytes]]) -> array.array[int]:
    found = array.array("i")
    for level, kind, data in rights:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return found
