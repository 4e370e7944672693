"""What is sent to a Ray actor and back: batches of calls, replies, and the news in between.

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
from ion_actors.backends.ray import in_place
from ion_actors.errors import TaskNotPicklable

__all__ = [
    "ActorStart",
    "Batch",
    "Call",
    "CallEnd",
    "ChildIs",
    "Item",
    "News",
    "PlaceOf",
    "Reply",
    "check_sendable",
    "put_in_place",
]

_BATCH = struct.Struct("<QQQHH")  # three numbers; then how many calls, and references
_REPLY = struct.Struct("<Q?QfH")  # last, how many pieces of news follow
_ANSWER = struct.Struct("<QQ??H")  # last, how many replies follow
_LENGTH = 4  # bytes of the length of a piece


class PlaceOf(NamedTuple):
    """Where an object reference was among the arguments of a call."""

    number: int  # of the reference


class Call(NamedTuple):
    """A task to run."""

    number: int
    references: Sequence[Any]
    packed: Packed


class Batch(NamedTuple):
    """Tasks to run, one after the other, as the arguments of a call of Ray's.

    One with references or large buffers is alone.
    """

    stretch: int  # of the line: see ion_actors.backends.ray.line
    arrived: int  # the number of the last reply that has
    calls: Sequence[Call]

    def arguments(self) -> tuple[Any, ...]:
        """The arguments."""
        calls = self.calls
        first, count = calls[0], len(calls)
        head = _BATCH.pack(self.stretch, self.arrived, first.number, count, len(first.references))
        if count == 1:
            header, buffers = first.packed
            return (head + header, *first.references, *buffers)
        bodies = [one.packed[0] for one in calls]
        return (b"".join((head, _lengths(bodies), *bodies)),)

    @classmethod
    def of(cls, head: bytes, beside: Sequence[Any]) -> Batch:
        """The tasks that came with these arguments."""
        stretch, arrived, first, count, references = _BATCH.unpack_from(head)
        if count == 1:
            packed = bytes(memoryview(head)[_BATCH.size :]), beside[references:]
            return cls(stretch, arrived, [Call(first, beside[:references], packed)])
        bodies = _split(head, _BATCH.size, count)
        calls = [Call(first + place, (), (body, ())) for place, body in enumerate(bodies)]
        return cls(stretch, arrived, calls)


class Reply(NamedTuple):
    """What came of a task."""

    number: int
    fine: bool  # a result; else an error
    before: int  # batches of news that were sent before by themselves
    packed: Packed
    news: Sequence[Any] = ()  # those after them
    seconds: float = 0.0  # that it took

    @property
    def whole(self) -> bool:
        """Whether its body is all that there is of it: no large buffers, and no items."""
        return not self.packed[1] and not any(not isinstance(one, bytes) for one in self.news)

    def body(self) -> bytes:
        """As bytes, without its large buffers and its items."""
        news = [one for one in self.news if isinstance(one, bytes)]
        head = _REPLY.pack(self.number, self.fine, self.before, self.seconds, len(news))
        if not news:
            return head + self.packed[0]
        return b"".join((head, _lengths(news), *news, self.packed[0]))

    @classmethod
    def of(cls, body: bytes, buffers: Sequence[Any] = (), items: Sequence[Item] = ()) -> Reply:
        """The reply that came so."""
        number, fine, before, seconds, count = _REPLY.unpack_from(body)
        news = _split(body, _REPLY.size, count) if count else []
        start = _REPLY.size + sum(map(len, news)) + _LENGTH * count
        return cls(number, fine, before, (bytes(body[start:]), buffers), [*news, *items], seconds)

    def value(self, name: Callable[[], str], *, writable: bool) -> Any:
        """The value that was returned; see :func:`_value`."""
        return _value(self.packed, name, "the result", writable=writable)


class Item(NamedTuple):
    """An item of a stream."""

    number: int  # of its task
    packed: Packed

    def value(self, name: Callable[[], str], *, writable: bool) -> Any:
        """The item; see :func:`_value`."""
        return _value(self.packed, name, "an item", writable=writable)


class ChildIs(NamedTuple):
    """The child in which an actor's tasks run from now on."""

    pid: int


class CallEnd(NamedTuple):
    """What an actor says at the end of a call, or when it is asked."""

    stretch: int  # of the line: see ion_actors.backends.ray.line
    begun: int  # the number of the last task that was
    cut: bool  # nothing more of this stretch will begin
    asked: bool  # it was asked: this is not the end of a call
    replies: Sequence[Reply]  # only the last may be not whole

    def sent(self) -> Any:
        """What the call of Ray's returns."""
        bodies = [one.body() for one in self.replies]
        head = _ANSWER.pack(self.stretch, self.begun, self.cut, self.asked, len(bodies))
        body = b"".join((head, _lengths(bodies), *bodies))
        if not bodies or self.replies[-1].whole:
            return body
        last = self.replies[-1]
        return body, last.packed[1], [one for one in last.news if not isinstance(one, bytes)]

    @classmethod
    def of(cls, returned: Any) -> CallEnd:
        """The answer that came so."""
        body, buffers, items = (returned, (), ()) if isinstance(returned, bytes) else returned
        stretch, begun, cut, asked, count = _ANSWER.unpack_from(body)
        bodies = _split(body, _ANSWER.size, count)
        replies = [Reply.of(one) for one in bodies[:-1]]
        replies += [Reply.of(one, buffers, items) for one in bodies[-1:]]
        return cls(stretch, begun, cut, asked, replies)


def _value(packed: Packed, name: Callable[[], str], what: str, *, writable: bool) -> Any:
    """What was packed with its name.

    Raises:
        TaskNotPicklable: it cannot be rebuilt.
    """
    try:
        return opened(packed, writable=writable)[0]
    except BaseException as error:
        raise not_rebuilt(name(), what, error) from error
    finally:
        del packed, name  # the task will keep the error, and so this frame


def _lengths(pieces: Sequence[bytes]) -> bytes:
    return struct.pack(f"<{len(pieces)}I", *map(len, pieces))


def _split(data: bytes, start: int, count: int) -> list[bytes]:
    """The pieces that follow their lengths, from there on."""
    lengths = struct.unpack_from(f"<{count}I", data, start)
    start += _LENGTH * count
    pieces = []
    for length in lengths:
        pieces.append(data[start : start + length])
        start += length
    return pieces


class ActorStart(NamedTuple):
    """The first message to an actor."""

    worker: str
    settings: Settings  # what it relays
    writable: bool
    secret: int  # of its journal: see ion_actors.backends.ray.journal; 0: it needs none
    output: str = ""  # what becomes of what tasks print: "relayed", "kept", or else Ray's business
    child: dict[str, Any] | None = None  # the settings of the child that it is the agent of

    def pack(self) -> bytes:
        """As bytes."""
        return pickle.dumps(tuple(self), 5)

    @classmethod
    def unpack(cls, body: bytes) -> ActorStart:
        """The packed object."""
        worker, settings, *rest = pickle.loads(body)
        return cls(worker, Settings(*settings), *rest)


def opened(packed: Packed, *, writable: bool) -> Any:
    """The packed object.

    Args:
        packed: as it came.
        writable: whether its large buffers may be written to.
    """
    header, buffers = packed
    if not buffers:
        return unpack(header)
    return unpack(header, [in_place.writable(one) if writable else one for one in buffers])


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
        self._pieces: deque[Any] = deque()
        self._bell: SimpleQueue[None] = SimpleQueue()  # to add a piece must be interruptible
        self._lock = threading.Lock()  # guards what is taken, and the next two
        self._batches = 0
        self._number = 0  # of the task that makes them

    def add(self, piece: Any) -> None:
        """Add a piece."""
        self._pieces.append(piece)
        self._bell.put(None)

    def begin(self, number: int) -> None:
        """The task with that number begins."""
        with self._lock:
            self._number = number

    def wait(self) -> tuple[int, list[Any]]:
        """The next batch, and the number of the task that made it; waits for one."""
        while True:
            self._bell.get()
            self._silence()
            with self._lock:
                if found := self._taken():
                    self._batches += 1
                    return self._number, found

    def rest(self) -> tuple[list[Any], int]:
        """What is left, and how many batches came before."""
        with self._lock:
            return self._taken() if self._pieces else [], self._batches

    def _silence(self) -> None:
        try:
            while True:
                self._bell.get_nowait()
        except Empty:
            return

    def _taken(self) -> list[Any]:
        return [self._pieces.popleft() for _ in range(len(self._pieces))]
