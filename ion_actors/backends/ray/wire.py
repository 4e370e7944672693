"""What is sent to a Ray actor and back: calls, replies, and the news in between.

A small message is a single ``bytes``, which Ray sends without pickling. Large buffers go beside it,
by the object store; so do object references, which Ray replaces by what they refer to.
"""

from __future__ import annotations

import pickle
import struct
import threading
from collections import deque
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

from ion_actors.backends.process.transport.descriptors import Descriptor
from ion_actors.backends.process.transport.log_relay import Settings
from ion_actors.backends.process.transport.pickling import Packed, not_rebuilt, unpack
from ion_actors.errors import TaskNotPicklable

__all__ = [
    "ActorStart",
    "Call",
    "Item",
    "News",
    "PlaceOf",
    "Reply",
    "check_sendable",
    "put_in_place",
]

_CALL = struct.Struct("<QH")  # the number of the task, and of its references
_REPLY = struct.Struct("<?Q")  # whether it is a result, and how many batches of news came before


class PlaceOf(NamedTuple):
    """Where an object reference was among the arguments of a call."""

    number: int  # of the reference


class Call(NamedTuple):
    """A task to run, as the arguments of a call of Ray's."""

    number: int
    references: Sequence[Any]
    packed: Packed

    def arguments(self) -> tuple[Any, ...]:
        """The arguments."""
        header, buffers = self.packed
        head = _CALL.pack(self.number, len(self.references))
        return (head + header, *self.references, *buffers)

    @classmethod
    def of(cls, head: bytes, beside: Sequence[Any]) -> Call:
        """The call that came with these arguments."""
        number, count = _CALL.unpack_from(head)
        packed = bytes(memoryview(head)[_CALL.size :]), beside[count:]
        return cls(number, beside[:count], packed)


class Reply(NamedTuple):
    """What came of a call."""

    fine: bool  # a result; else an error
    before: int  # batches of news that were sent before by themselves
    packed: Packed
    news: Sequence[bytes | Item] = ()  # those after them

    def sent(self) -> Any:
        """What the call of Ray's returns."""
        header, buffers = self.packed
        body = _REPLY.pack(self.fine, self.before) + header
        return (body, self.news, buffers) if self.news or buffers else body

    @classmethod
    def of(cls, returned: Any) -> Reply:
        """The reply that came so."""
        body, news, buffers = (returned, (), ()) if isinstance(returned, bytes) else returned
        fine, before = _REPLY.unpack_from(body)
        return cls(fine, before, (bytes(memoryview(body)[_REPLY.size :]), buffers), news)

    def value(self, name: Callable[[], str], *, writable: bool) -> Any:
        """The value that was returned.

        Raises:
            TaskNotPicklable: it cannot be rebuilt.
        """
        try:
            return opened(self.packed, writable=writable)[0]
        except BaseException as error:
            raise not_rebuilt(name(), "the result", error) from error
        finally:
            del self, name  # the task will keep the error, and so this frame


class Item(NamedTuple):
    """An item of a stream."""

    number: int  # of its task
    packed: Packed

    def value(self, name: Callable[[], str], *, writable: bool) -> Any:
        """The item.

        Raises:
            TaskNotPicklable: it cannot be rebuilt.
        """
        try:
            return opened(self.packed, writable=writable)[0]
        except BaseException as error:
            raise not_rebuilt(name(), "an item", error) from error
        finally:
            del self, name  # as above


class ActorStart(NamedTuple):
    """The first message to an actor."""

    worker: str
    settings: Settings  # what it relays
    writable: bool

    def pack(self) -> bytes:
        """As bytes."""
        return pickle.dumps(tuple(self), 5)

    @classmethod
    def unpack(cls, body: bytes) -> ActorStart:
        """The packed object."""
        worker, settings, writable = pickle.loads(body)
        return cls(worker, Settings(*settings), writable)


def opened(packed: Packed, *, writable: bool) -> Any:
    """The packed object.

    Args:
        packed: as it came.
        writable: whether its large buffers are copied. Ray's own memory must not be written to.
    """
    header, buffers = packed
    if not buffers:
        return unpack(header)
    return unpack(header, [bytearray(one) if writable else one for one in buffers])


def check_sendable(packed: Packed, task: str, what: str) -> Packed:
    """The same, if it can leave this machine.

    Raises:
        TaskNotPicklable: it has a descriptor.
    """
    for buffer in packed[1]:
        with memoryview(buffer) as view:
            if isinstance(view.obj, Descriptor):
                raise TaskNotPicklable(
                    f"{what} of task {task!r} has a file, a pipe or a socket, which exists on this "
                    "machine only",
                    task=task,
                    what=what,
                )
    return packed


def put_in_place(values: Sequence[Any], references: Sequence[Any]) -> tuple[Any, ...]:
    """The arguments, with what the references refer to."""
    return tuple(references[one.number] if type(one) is PlaceOf else one for one in values)


class News:
    """Log records, items of streams and so on, on their way from an actor. Any thread may add some.

    They leave in batches: by themselves while a task runs, and with its reply what is left then. A
    reply says how many batches came before it, so that none is overtaken.
    """

    def __init__(self) -> None:
        self._pieces: deque[bytes | Item] = deque()
        self._bell: SimpleQueue[None] = SimpleQueue()  # to add a piece must be interruptible
        self._lock = threading.Lock()  # guards what is taken, and the next
        self._batches = 0

    def add(self, piece: bytes | Item) -> None:
        """Add a piece."""
        self._pieces.append(piece)
        self._bell.put(None)

    def wait(self) -> list[bytes | Item]:
        """The next batch; waits for one."""
        while True:
            self._bell.get()
            self._silence()
            with self._lock:
                if found := self._taken():
                    self._batches += 1
                    return found

    def rest(self) -> tuple[list[bytes | Item], int]:
        """What is left, and how many batches came before."""
        with self._lock:
            return self._taken() if self._pieces else [], self._batches

    def _silence(self) -> None:
        try:
            while True:
                self._bell.get_nowait()
        except Empty:
            return

    def _taken(self) -> list[bytes | Item]:
        return [self._pieces.popleft() for _ in range(len(self._pieces))]
