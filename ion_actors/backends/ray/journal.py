"""What an actor leaves behind: which task it had begun, and the replies that may not have arrived.

A file in memory, which outlives the process. The actor writes to it before each task and after it,
so that whoever reads it when the actor has died knows what became of each task that it was sent::

    begun by then, no reply    the one that it died in
    a reply                    it ended like this
    neither                    it has not begun

There are two halves. Replies are added to one of them. When that is full, those that have not
arrived are copied to the other, which is then the one that counts; so it is whole at any moment.

The file of an actor on this machine has no name any more once both have opened it, and so it cannot
be left behind. Elsewhere it has one, and is locked as long as its actor lives: what is not locked
is removed by the next actor there.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import struct
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

__all__ = ["MOST", "Journal", "JournalReader", "read_and_remove"]

_HEAD = 64  # bytes: five numbers, and room
_HALF = 512 * 1024
_SIZE = _HEAD + 2 * _HALF

#: Bytes of the largest reply that is noted.
MOST = 128 * 1024

_SECRET, _BEGUN, _HALF_IN_USE, _ENDS = 0, 1, 2, (3, 4)  # places of the numbers
_RECORD = struct.Struct("<QI")  # the number of a task, and the length of its reply

_YOUNG = 30.0  # seconds in which a file may not have been locked yet

_PREFIX = "ion_actors-ray-"
_FOLDER = "/dev/shm"  # in memory, where there is that


class Journal:
    """The actor's side. One thread uses it.

    Args:
        secret: by which the other side knows the file.

    Raises:
        OSError: there can be no such file.
    """

    def __init__(self, secret: int) -> None:
        folder = _FOLDER if os.access(_FOLDER, os.W_OK) else tempfile.gettempdir()
        _remove_stale(folder)
        self._file, self.path = tempfile.mkstemp(prefix=_PREFIX, dir=folder)
        fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.truncate(self._file, _SIZE)
        self._map = mmap.mmap(self._file, _SIZE)
        self._numbers = memoryview(self._map)[:_HEAD].cast("Q")
        self._end = 0
        self._arrived = 0
        self._numbers[_SECRET] = secret

    def begin(self, number: int) -> None:
        """The task with that number begins."""
        self._numbers[_BEGUN] = number

    def arrived(self, number: int) -> None:
        """The replies up to that one have arrived."""
        self._arrived = number

    def note(self, number: int, reply: bytes) -> bool:
        """Note a task's reply. Returns whether there was room for it."""
        if len(reply) > MOST:
            return False
        if self._end + _RECORD.size + len(reply) > _HALF:
            self._compact()
            if self._end + _RECORD.size + len(reply) > _HALF:
                return False
        half = self._numbers[_HALF_IN_USE]
        self._write(half, ((number, reply),))
        return True

    def _compact(self) -> None:
        half = self._numbers[_HALF_IN_USE]
        rest = [one for one in _records(self._map, self._numbers) if one[0] > self._arrived]
        self._end = 0
        self._numbers[_ENDS[1 - half]] = 0
        self._write(1 - half, rest)
        self._numbers[_HALF_IN_USE] = 1 - half

    def _write(self, half: int, records: Iterable[tuple[int, bytes]]) -> None:
        for number, reply in records:
            start = _HEAD + half * _HALF + self._end
            body = start + _RECORD.size
            _RECORD.pack_into(self._map, start, number, len(reply))
            self._map[body : body + len(reply)] = reply
            self._end += _RECORD.size + len(reply)
            self._numbers[_ENDS[half]] = self._end  # last: from here on it counts

    def remove(self) -> None:
        """The actor leaves by itself."""
        with contextlib.suppress(OSError):
            Path(self.path).unlink()
        self._numbers.release()
        self._map.close()
        os.close(self._file)


class JournalReader:
    """The file of an actor on this machine.

    Args:
        path: where it is; it has no name from here on.
        secret: by which it is known.

    Raises:
        OSError: it is not on this machine.
    """

    def __init__(self, path: str, secret: int) -> None:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            self._map = mmap.mmap(file, _SIZE, access=mmap.ACCESS_READ)
        except ValueError as error:
            raise OSError(f"{path} is no journal") from error
        finally:
            os.close(file)
        if _numbers_of(self._map)[_SECRET] != secret:
            self._map.close()
            raise OSError(f"{path} is another one's")
        Path(path).unlink()

    def read(self) -> tuple[int, dict[int, bytes]]:
        """The number of the task that was begun last, and the replies by the tasks' numbers."""
        return _contents(self._map)

    def close(self) -> None:
        """Close it, and so remove it."""
        self._map.close()


def read_and_remove(path: str, secret: int) -> tuple[int, dict[int, bytes]]:
    """The same of an actor's file on the machine where this is called.

    Raises:
        OSError: it is not there.
    """
    reader = JournalReader(path, secret)
    try:
        return reader.read()
    finally:
        reader.close()


def _numbers_of(data: mmap.mmap) -> tuple[int, ...]:
    return struct.unpack_from("=8Q", data)


def _contents(data: mmap.mmap) -> tuple[int, dict[int, bytes]]:
    numbers = _numbers_of(data)
    return numbers[_BEGUN], dict(_records(data, numbers))


def _records(data: mmap.mmap, numbers: memoryview | tuple[int, ...]) -> list[tuple[int, bytes]]:
    half = numbers[_HALF_IN_USE]
    start = _HEAD + half * _HALF
    end = start + numbers[_ENDS[half]]
    found = []
    while start < end:
        number, length = _RECORD.unpack_from(data, start)
        start += _RECORD.size
        found.append((number, bytes(data[start : start + length])))
        start += length
    return found


def _remove_stale(folder: str) -> None:
    """Remove the files of actors that have died, and that nobody has read."""
    for one in Path(folder).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            file = os.open(one, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                if time.time() - os.fstat(file).st_mtime < _YOUNG:
                    continue
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                one.unlink()
            finally:
                os.close(file)
