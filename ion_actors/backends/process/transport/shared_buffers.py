"""Large buffers are sent through memory that both sides see, and are not copied out of it.

::

    sender ──pwrite──▶ a place in the file ◀──mmap── receiver: the array lies there, and may be
                             ▲                        changed there, until the last view of it dies
                             └── free again ◀── the receiver's next message says so

The file never has a name: ``memfd_create`` where it exists, else a temporary file that is
unlinked. Whichever side is killed, and however, the kernel frees it with the last process that has
it open; a named segment (``multiprocessing.shared_memory``) would be left behind, or depend on a
third process. A memfd is not bounded by the size of ``/dev/shm``, either.

The sender writes and does not map: that does not hold the GIL, and a full memory is an error (the
buffer then goes through the pipe) and not a ``SIGBUS``. The receiver maps and does not read: an
array of 100 MB is there in 10 ms, where filling fresh memory would take 80. Places are used again,
since fresh pages cost more than all the rest. The mapping of a place exists as long as any view of
it, and its end makes the place free: no call is needed for that.

The views in a fork end unnoticed, so what is mapped at a fork is never written again. A task sees
its arguments through shared pages; the parent process, which is more likely to fork, sees results
through private ones: what a fork of it changes there affects nothing else.
"""

from __future__ import annotations

import contextlib
import functools
import mmap
import os
import pickle
import threading
import weakref
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

from ion_actors.backends.process.transport.anonymous_file import AnonymousFile
from ion_actors.backends.process.transport.descriptors import Descriptor, Rights
from ion_actors.backends.process.transport.pickling import LARGE, Packed
from ion_actors.forking import before_fork

__all__ = ["Receiver", "Sender", "SharedBuffers", "write_all"]

Place = tuple[int, int]  # offset and bytes
Frame = Place | bytes | bytearray | None  # None: a descriptor, which is sent another way

# Bytes of free places that are kept for the next tasks. More than that is given back to the
# system: the end of the file is cut off, and elsewhere holes are made in it. (Where files cannot
# have holes, only the end is given back.)
_KEPT = 128 * 1024 * 1024

# Each array costs one descriptor and one mapping. Arrays may take this part of those that the
# process may have; further ones are copied. The second number is used if the limits are unknown.
_PART_MAPPED = 4
_MOST_MAPPED = 256

# Bytes that one call writes: some systems refuse more than a signed 32-bit number.
_AT_ONCE = 1 << 30

# Bytes that are read at a time: they are copied once more, which is quick while they are few.
_PIECE = 1 << 18

# The first byte of a message that is not a plain pickle; a pickle begins with 0x80.
_SEALED = b"\x01"


class SharedBuffers:
    """One side's end: makes messages of packed objects, and reads the other side's messages.

    Any thread may use it. Close it when the child has ended; received buffers stay.

    Args:
        out: the file where this side puts large buffers; None to put them into the messages.
        back: the same for the other side.
        private: changes of this side in a received buffer are not seen by its forks.
        rights: for the descriptors of both sides; None where they cannot be passed.
    """

    def __init__(
        self,
        out: AnonymousFile | None = None,
        back: AnonymousFile | None = None,
        *,
        private: bool = False,
        rights: Rights | None = None,
    ) -> None:
        self.out = None if out is None else Sender(out)
        self._back = None if back is None else Receiver(back, private=private)
        self._rights = rights

    def seal(self, packed: Packed) -> bytes:
        """The message to send. It is a plain pickle, if there is nothing large in it.

        Each message must be sent: the other side frees its places.

        Raises:
            OSError: too many descriptors are not received yet.
        """
        header, buffers = packed
        back = self._back
        if not buffers and len(header) < LARGE and (back is None or not back.freed):
            return header
        raws = [pickle.PickleBuffer(buffer).raw() for buffer in buffers]
        rights = self._send_rights([raw.obj for raw in raws if isinstance(raw.obj, Descriptor)])
        freed = back.take_freed() if back is not None else ()
        frames: list[Frame] = [self._put(memoryview(header)) or header]
        for raw in raws:
            here = isinstance(raw.obj, Descriptor)
            frames.append(None if here else self._put(raw) or bytearray(raw))
        return _SEALED + pickle.dumps((frames, freed, rights), 5)

    def open(self, message: bytes | bytearray) -> tuple[Any, Sequence[Any]]:
        """The pickle that the other side packed, and its buffers.

        Raises:
            Exception: this is no message of the other side.
        """
        found = self.open_later(message)
        return found.open() if isinstance(found, Unopened) else found

    def open_later(self, message: bytes | bytearray) -> tuple[Any, Sequence[Any]] | Unopened:
        """:meth:`open`, but what is in the other side's file stays there for now.

        Raises:
            Exception: this is no message of the other side.
        """
        if message[:1] != _SEALED:
            return message, ()
        frames, freed, rights = pickle.loads(memoryview(message)[1:])
        if self.out is not None:
            self.out.free(freed)
        came = deque(self._receive_rights(*rights))
        found = [came.popleft() if frame is None else frame for frame in frames]
        if self._back is None or not any(isinstance(frame, tuple) for frame in found):
            header, *buffers = found
            return header, buffers
        return Unopened(found, self._back)

    @property
    def owes(self) -> bool:
        """Whether the next message has to tell the other side what this side has read."""
        return self._back is not None and bool(self._back.freed)

    def take_freed(self) -> list[Place]:
        """The places that this side has read, for the other side, if no message is to follow."""
        return [] if self._back is None else self._back.take_freed()

    def free(self, places: Iterable[Place]) -> None:
        """The other side has read these places."""
        if self.out is not None and places:
            self.out.free(places)

    @property
    def is_worn_out(self) -> bool:
        """Whether received places that can never be freed exceed what is kept for later."""
        return self._back is not None and self._back.pinned > _KEPT

    def after_fork(self) -> None:
        """In a fork of this process, which sends nothing to the other side."""
        if self.out is not None:
            self.out.after_fork()
        self.close()

    def close_back(self) -> None:
        """Close the file of the other side, as soon as its last message was opened, or dropped."""
        if self._back is not None:
            self._back.close()

    def close(self) -> None:
        """Close both files on this side, and the socket for descriptors."""
        for side in (self.out, self._back, self._rights):
            if side is not None:
                side.close()

    def _send_rights(self, descriptors: Sequence[Descriptor]) -> tuple[int, int]:
        """Returns what the message has to contain: the number of the transfer, and their count."""
        if not descriptors:
            return 0, 0
        assert self._rights is not None, "a descriptor, but no socket for it"
        return self._rights.send(descriptors), len(descriptors)

    def _receive_rights(self, serial: int, count: int) -> list[Descriptor]:
        if not count:
            return []
        assert self._rights is not None, "a descriptor, but no socket for it"
        return self._rights.receive(serial, count)

    def _put(self, raw: memoryview) -> Place | None:
        if self.out is None or raw.nbytes < LARGE:
            return None
        return self.out.put(raw)


class Unopened:
    """A message of which something is in the other side's file. If it is dropped, that is free.

    Args:
        frames: the pickle and its buffers, or where they are.
        back: the file. It is closed only when all its messages were opened, or dropped.
    """

    __slots__ = ("_back", "_frames")

    def __init__(self, frames: list[Any], back: Receiver) -> None:
        self._back = back
        self._frames = frames
        back.await_one()

    def open(self) -> tuple[Any, Sequence[Any]]:
        """The pickle and its buffers. To be called once."""
        frames, back = self._frames, self._back
        try:
            header, *buffers = (
                back.fetch(frame) if isinstance(frame, tuple) else frame for frame in frames
            )
            return header, buffers
        finally:
            self._frames = []
            back.had_one()

    def __del__(self) -> None:
        if getattr(self, "_frames", None):
            self._back.freed.extend(frame for frame in self._frames if isinstance(frame, tuple))
            self._back.had_one()


class Sender:
    """Puts buffers into the file, each into the first free place where it fits."""

    def __init__(self, file: AnonymousFile) -> None:
        self._file = file
        self._lock = threading.Lock()  # guards the four below, and the size of the file
        self.free_places: list[Place] = []  # sorted, not adjacent
        self._holes: list[Place] = []  # likewise, but without memory
        self.used: dict[int, int] = {}  # offset: bytes
        self._end = 0

    def put(self, raw: memoryview) -> Place | None:
        """Copy a buffer of bytes into the file: where, or None if there is no memory."""
        with self._lock:
            offset = self._take(_whole_pages(raw.nbytes))
        try:
            write_all(self._file.fd, raw, offset)
        except OSError:
            self.free([(offset, raw.nbytes)])
            return None
        return offset, raw.nbytes

    def free(self, places: Iterable[Place]) -> None:
        """The other side does not use these places any more."""
        with self._lock:
            for offset, _ in places:
                size = self.used.pop(offset, None)
                if size is not None:
                    self.free_places.append((offset, size))
            self.free_places = _joined(self.free_places)
            self._trim()

    def after_fork(self) -> None:
        """Replace the lock: a thread of the parent may hold it."""
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close this side's file."""
        with self._lock:
            self._file.close()

    def _take(self, size: int) -> int:
        for places in (self.free_places, self._holes):
            found = next((one for one in places if one[1] >= size), None)
            if found is not None:
                offset, room = found
                rest = [(offset + size, room - size)] if room > size else []
                place = places.index(found)
                places[place : place + 1] = rest
                break
        else:
            offset, self._end = self._end, self._end + size
        self.used[offset] = size
        return offset

    def _trim(self) -> None:
        excess = sum(size for _, size in self.free_places) - _KEPT
        if excess <= 0 or self._file.fd == -1:
            return
        for offset, size in reversed(self.free_places):
            gone = min(_whole_pages(excess), size)
            hole = (offset + size - gone, gone)
            if sum(hole) != self._end and not _punch(self._file.fd, hole):
                return  # it stays a free place
            self.free_places[-1:] = [(offset, size - gone)] if size > gone else []
            self._holes = _joined([*self._holes, hole])
            self._cut_end()
            excess -= gone
            if excess <= 0:
                return

    def _cut_end(self) -> None:
        if self._holes and sum(self._holes[-1]) == self._end:
            self._end = self._holes.pop()[0]
            os.ftruncate(self._file.fd, self._end)


class Receiver:
    """Gets buffers from a file, as views; their places are reused only after the views' end."""

    def __init__(self, file: AnonymousFile, *, private: bool) -> None:
        self._file = file
        self._flags = _mapping_flags(private)
        self._mapped: dict[weakref.ref[mmap.mmap], Place] = {}
        self.freed: deque[Place] = deque()  # places that the sender does not know of yet
        self.pinned = 0  # bytes in places that will never be free
        # No lock guards these: a fork may come to them, and a finalizer may drop a message. Each
        # change is one step, and the last one finds the file to be closed.
        self._awaited: list[None] = []  # one for each message of which something is to be fetched
        self._open = [file]
        self._over = False
        _receivers.add(self)

    def fetch(self, place: Place) -> memoryview | bytearray:
        """The buffer at this place; it may be changed."""
        if len(mappings) >= most_mapped():
            return self._copy(place)
        offset, size = place
        try:
            found = mmap.mmap(self._file.fd, size, offset=offset, **self._flags)
        except OSError:  # no descriptor, or too many mappings
            return self._copy(place)
        reference = weakref.ref(found, self._unmapped)
        self._mapped[reference] = place
        mappings.add(reference)  # last: only the end of a mapping in this set is noticed
        return memoryview(found)

    def _copy(self, place: Place) -> bytearray:
        copy = _read(self._file.fd, *place)
        self.freed.append(place)
        return copy

    def take_freed(self) -> list[Place]:
        """The places that have become free since the last call."""
        freed: list[Place] = []
        with contextlib.suppress(IndexError):  # several threads may take them
            while True:
                freed.append(self.freed.popleft())
        return freed

    def keep_mapped(self) -> None:
        """Never free what is mapped now: another process will have views of it, too."""
        self.pinned += sum(size for _, size in list(self._mapped.values()))
        self._mapped.clear()

    def await_one(self) -> None:
        """The file is needed until a message was opened."""
        self._awaited.append(None)

    def had_one(self) -> None:
        """One was."""
        self._awaited.pop()
        self._close_if_over()

    def close(self) -> None:
        """Close this side's file, as soon as nothing is to be fetched any more."""
        self._over = True
        self._close_if_over()

    def _close_if_over(self) -> None:
        if self._over and not self._awaited:
            with contextlib.suppress(IndexError):  # it is closed
                self._open.pop().close()

    # No lock: it is called wherever the last view ends, perhaps in a thread that holds the lock.
    def _unmapped(self, mapping: weakref.ref[mmap.mmap]) -> None:
        mappings.discard(mapping)
        place = self._mapped.pop(mapping, None)
        if place is not None:
            self.freed.append(place)


def most_mapped() -> int:
    """How many buffers this process may have mapped; further ones are copied."""
    try:
        import resource  # noqa: PLC0415 - not everywhere
    except ImportError:
        return _MOST_MAPPED
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    limits = [map_count()] if limit == resource.RLIM_INFINITY else [limit, map_count()]
    return min((one for one in limits if one is not None), default=_UNKNOWN) // _PART_MAPPED


_UNKNOWN = _MOST_MAPPED * _PART_MAPPED
_MAP_COUNT = "/proc/sys/vm/max_map_count"


@functools.cache
def map_count() -> int | None:
    """How many mappings the kernel allows a process; None if unknown."""
    try:
        with open(_MAP_COUNT, encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return None


def _punch(fd: int, hole: Place) -> bool:
    """Give the memory of a part of the file back. Returns whether that is possible."""
    if not hasattr(mmap, "MADV_REMOVE"):
        return False
    try:
        with mmap.mmap(fd, hole[1], offset=hole[0]) as there:
            there.madvise(mmap.MADV_REMOVE)
    except OSError:
        return False
    return True


def _mapping_flags(private: bool) -> dict[str, Any]:
    if not hasattr(mmap, "MAP_SHARED"):
        return {}
    # Populating private pages in advance would copy them.
    populate = getattr(mmap, "MAP_POPULATE", 0)
    flags = mmap.MAP_PRIVATE if private else mmap.MAP_SHARED | populate
    return {"flags": flags, "prot": mmap.PROT_READ | mmap.PROT_WRITE}


def write_all(fd: int, raw: memoryview, offset: int) -> None:
    """Write all of it at this offset.

    Raises:
        OSError: there is no room for it.
    """
    done = 0
    while done < raw.nbytes:
        done += os.pwrite(fd, raw[done : done + _AT_ONCE], offset + done)


def _read(fd: int, offset: int, size: int) -> bytearray:
    found = bytearray(size)
    done = 0
    while done < size:
        piece = os.pread(fd, min(size - done, _PIECE), offset + done)
        if not piece:
            raise EOFError(
                f"the file ends at {offset + done}, before a place of {size} at {offset}"
            )
        found[done : done + len(piece)] = piece
        done += len(piece)
    return found


def _whole_pages(size: int) -> int:
    return -(-size // mmap.ALLOCATIONGRANULARITY) * mmap.ALLOCATIONGRANULARITY


def _joined(places: list[Place]) -> list[Place]:
    """The same free places, sorted, with neighbours joined."""
    joined: list[Place] = []
    for offset, size in sorted(places):
        if joined and sum(joined[-1]) == offset:
            joined[-1] = (joined[-1][0], joined[-1][1] + size)
        else:
            joined.append((offset, size))
    return joined


_receivers: weakref.WeakSet[Receiver] = weakref.WeakSet()
#: All mappings in this process, of all receivers, also of those whose child has ended.
mappings: set[weakref.ref[mmap.mmap]] = set()


def _before_fork() -> None:
    for one in list(_receivers):
        one.keep_mapped()


before_fork(_before_fork)
