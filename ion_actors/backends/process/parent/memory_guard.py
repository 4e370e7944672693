"""Whether the child that has a task holds more memory than it may.

The kernel tells that without the child, which may be in native code that holds the GIL. One look at
``/proc/PID/statm`` takes two microseconds, and its timer more. While there is much room, looks are
rare: the next one comes before any task could fill the room. Nobody looks at a child without a
task, and where the kernel does not tell, nobody looks at all.
"""

from __future__ import annotations

import contextlib
import os
import threading
from typing import NamedTuple, Protocol

from ion_actors.clock import Clock, Timer

__all__ = ["Excess", "MemoryGuard", "pause", "resident_memory"]

# Bytes that a task can fill in a second, about; the seconds between two looks, from and to.
_FASTEST = 4_000_000_000
_SHORTEST, _LONGEST = 0.01, 0.5

# A task that holds more for less than so many seconds goes on: it may be about to end.
_PATIENCE = 0.05
# Unless it holds so many times the limit.
_FAR_TOO_MUCH = 2


class Excess(NamedTuple):
    """A child has held more than it may, in bytes."""

    limit: int
    peak: int


def pause(held: int, limit: int) -> float:
    """Seconds until the next look at a child that holds so many bytes."""
    return min(_LONGEST, max(_SHORTEST, (limit - held) / _FASTEST))


class Watched(Protocol):
    """The child. The methods must be quick."""

    @property
    def pid(self) -> int:
        """Its process id."""
        ...

    def task_under_way(self) -> int | None:
        """The number of its task, if it has one."""
        ...

    def end_for(self, excess: Excess, task: int, /) -> None:
        """It holds too much during this task, which may just have ended."""
        ...


class MemoryGuard:
    """Looks at a child while it has a task, until the guard is ended.

    Args:
        clock: a clock of the real time, since memory fills in real time.
        limit: how many bytes of resident memory the child may hold.
        watched: the child.
    """

    def __init__(self, clock: Clock, limit: int, watched: Watched) -> None:
        self._clock = clock
        self._limit = limit
        self._watched = watched
        self._statm = _open_statm(watched.pid)  # remains that process's, also when it has ended
        self._timer: Timer | None = None
        self._since: tuple[int, float] | None = None  # the task that holds too much, and since when
        self._ended = False
        # Guards all of the above. Reentrant: see Escalation.
        self._lock = threading.RLock()

    def check_start(self) -> bool:
        """Whether a child without a task holds no more than it may; else a guard makes no sense."""
        held = self._held()
        if held is None or held > self._limit:
            self.end()
        return held is None or held <= self._limit

    def begin(self) -> None:
        """It has a task now."""
        if self._timer is None and not self._ended:
            with self._lock:
                if self._timer is None:
                    self._plan(_SHORTEST)

    def end(self) -> None:
        """Stop. No look begins or is under way after this."""
        with self._lock:
            self._ended = True
            if self._statm is not None:
                os.close(self._statm)
                self._statm = None
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def _plan(self, delay: float) -> None:
        if not self._ended:
            self._timer = self._clock.call_at(self._clock.monotonic() + delay, self._look)

    def _look(self) -> None:
        with self._lock:
            self._timer = None
            task = self._watched.task_under_way()
            held = None if task is None else self._held()
            if held is None or task is None:
                return  # the next task has it look again
            if held <= self._limit:
                self._since = None
                self._plan(pause(held, self._limit))
            elif self._is_enough(task, held):
                peak = max(held, _peak_of(self._watched.pid))
                self._watched.end_for(Excess(self._limit, peak), task)
            else:
                self._plan(_SHORTEST)

    def _held(self) -> int | None:
        return None if self._statm is None else resident_memory(self._statm)

    def _is_enough(self, task: int, held: int) -> bool:
        now = self._clock.monotonic()
        if self._since is None or self._since[0] != task:
            self._since = task, now
        return now - self._since[1] >= _PATIENCE or held >= _FAR_TOO_MUCH * self._limit


_PAGE = os.sysconf("SC_PAGE_SIZE")


def _open_statm(pid: int) -> int | None:
    try:
        return os.open(f"/proc/{pid}/statm", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None


def resident_memory(statm: int) -> int | None:
    """Bytes of memory that a process has in use; None if it has ended.

    Args:
        statm: the descriptor of its ``/proc/PID/statm``.
    """
    try:
        return int(os.pread(statm, 256, 0).split()[1]) * _PAGE
    except (OSError, IndexError):
        return None


def _peak_of(pid: int) -> int:
    """Bytes of memory that it has had in use at most; 0 if that cannot be told."""
    with contextlib.suppress(OSError, ValueError, StopIteration):
        with open(f"/proc/{pid}/status") as status:
            found = next(line for line in status if line.startswith("VmHWM:"))
        return int(found.split()[1]) * 1024
    return 0
