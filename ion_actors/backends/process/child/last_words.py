"""The last words of a dying child: the cause of its death, and its stacks."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from multiprocessing import reduction
from typing import Any

from ion_actors.backends.process.transport.anonymous_file import NoPlace, nameless_file

__all__ = ["LastWords"]

# Characters that are kept of the last words: in total, of the cause, of each thread.
_MOST_WORDS, _FIRST_WORDS, _CULPRIT = 8 * 1024, 1024, 3 * 1024
_MOST_READ = 1024 * 1024  # bytes; a hundred threads of a hundred frames each are fewer


class LastWords:
    """A file without a name, to which a dying child writes its stacks. The kernel keeps it.

    It can be pickled only as an argument of a child's process.
    """

    def __init__(self) -> None:
        self._fd, self._reading = _file_or_pipe()
        self._begin = 0  # where the last words begin: before, there are dumps that were asked for

    def __reduce__(self) -> tuple[Callable[..., LastWords], tuple[Any, ...]]:
        return _in_child, (reduction.DupFd(self._fd),)

    def fileno(self) -> int:
        """The descriptor to write to."""
        return self._fd

    def read(self) -> str:
        """The last words, shortened to what matters.

        The first line names the cause. Any of many threads may have caused it.
        """
        found = self._read().decode(errors="replace").strip()
        return found if len(found) <= _MOST_WORDS else _abridged(found)

    def _read(self) -> bytes:
        if self._reading is not None:
            with contextlib.suppress(BlockingIOError):
                return os.read(self._reading, _MOST_READ)
            return b""
        return os.pread(self._fd, _MOST_READ, self._begin)

    def written(self) -> int | None:
        """How many bytes have been written so far; None if it cannot be told."""
        return None if self._reading is not None or self._fd < 0 else os.fstat(self._fd).st_size

    def take(self, begin: int, end: int) -> str:
        """What was written in between: a dump that was asked for, and no last words."""
        self._begin = end
        return os.pread(self._fd, end - begin, begin).decode("ascii", "replace")

    def close(self) -> None:
        """Close it. Calling twice does no harm."""
        fds, self._fd, self._reading = (self._fd, self._reading), -1, None
        for fd in fds:
            if fd not in (-1, None):
                os.close(fd)


def _file_or_pipe() -> tuple[int, int | None]:
    """A descriptor to write to and, if that is a pipe, the one to read from.

    A pipe keeps only the first 64 KiB.
    """
    try:
        return nameless_file("ion_actors-last-words"), None
    except NoPlace:
        reading, writing = os.pipe()
        for fd in (reading, writing):
            os.set_blocking(fd, False)
        return writing, reading


def _abridged(words: str) -> str:
    """The first lines, those of the thread that crashed, and others as far as there is room."""
    first, _, rest = words.partition("\n\n")
    threads = rest.split("\n\n")
    threads.sort(key=lambda one: not one.startswith("Current thread"))  # the others stay in order
    kept = [_cut(first, _FIRST_WORDS), *(_cut(one, _CULPRIT) for one in threads)]
    return _cut("\n\n".join(kept), _MOST_WORDS)


def _cut(words: str, most: int) -> str:
    if len(words) <= most:
        return words
    lines = words[:most].rpartition("\n")[0] or words[:most]
    return lines + "\n  [...]"


def _in_child(handle: Any) -> LastWords:
    fd = handle.detach()
    os.set_inheritable(fd, False)  # programs that a task runs do not get it
    words: LastWords = LastWords.__new__(LastWords)
    words._fd, words._reading = fd, None
    return words
