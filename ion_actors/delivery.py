"""Calls of users' code that another thread makes later, where they may block.

Some threads must not block: the supervisors of pools and trees, and the clock's. Nor may a thread
that holds a lock, or that runs a finalizer, which may happen at any point. Such a thread hands its
calls of log handlers and metrics to a :class:`CallQueue`, and goes on.

::

    post(call) ──▶ entries (at most `limit`) ──▶ one daemon thread ──▶ call()

The thread starts with the first call and ends when there has been none for a while. Posting takes
no lock, so it is allowed anywhere. A call is dropped and counted if there is no room; the loss is
reported after the next call. If no thread can be started, the next :meth:`~CallQueue.post` or
:meth:`~CallQueue.flush` tries again, and so do waiting threads (:mod:`ion_actors.standby`). A
forked child starts with an empty queue: the parent delivers what was posted in the parent.

A call that may take any time gets a thread of its own: :class:`CallbackThreads`.
"""

from __future__ import annotations

import _thread
import contextlib
import itertools
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from ion_actors.forking import on_fork
from ion_actors.own_variables import daemon_thread
from ion_actors.standby import NO_MORE_THREADS, RETRY, STANDBY

__all__ = [
    "CALLBACK_THREADS",
    "FINALIZERS",
    "PATIENCE",
    "CallQueue",
    "CallbackThreads",
    "is_kept_free",
    "keep_free",
    "kept_free",
    "release_references",
    "run_elsewhere",
]

#: Seconds, at most, that ending something waits until posted calls have been made.
PATIENCE = 0.5

_LIMIT = 10_000  # calls that may wait
_LINGER = 0.1  # seconds that the thread waits for another call before it ends
_GLANCE = 0.002  # seconds between two checks whether calls in threads of their own have been made
_LAST_RESORT = 1.0  # seconds without any thread, after which supervisors make such calls
_START = 1.0  # seconds after which a thread that has not begun is started again


class _OfThread(threading.local):
    kept_free = False


_of_thread = _OfThread()


def keep_free() -> None:
    """Mark the calling thread as one that must not block: no user's code may run there."""
    _of_thread.kept_free = True


def is_kept_free() -> bool:
    """Whether the calling thread must not block."""
    return _of_thread.kept_free


@contextlib.contextmanager
def kept_free() -> Iterator[None]:
    """Mark the calling thread as one that must not block, inside this block."""
    before, _of_thread.kept_free = _of_thread.kept_free, True
    try:
        yield
    finally:
        _of_thread.kept_free = before


class CallbackThreads:
    """Calls of users' code, each on a thread of its own, where it may block for any time.

    A call is queued before a thread for it is started, so that none is lost if no thread can be
    started, if that dies before it begins, or if this is interrupted. Then the thread of a later
    call makes it, too, and supervisors try again (:mod:`ion_actors.standby`). As the last resort it
    is made by the current thread: if there is no supervisor, by a supervisor that ends, or after a
    second without any thread. To tell everybody who waits is more important than a thread that must
    not block.
    """

    def __init__(self) -> None:
        self._calls: deque[Callable[[], object]] = deque()
        self._under_way: list[object] = []  # one for each call that is being made
        self._in_want_since: float | None = None  # when the first of those starts failed
        self._now = time.monotonic  # see CallQueue
        self._pid = os.getpid()
        on_fork(self._after_fork)

    def _after_fork(self) -> None:
        if self._pid != os.getpid():  # else something has been posted in this child already
            self._calls.clear()
            self._under_way.clear()
            self._pid = os.getpid()

    @property
    def pending(self) -> bool:
        """Whether there are calls for which no thread has begun yet."""
        return bool(self._calls)

    def post(self, call: Callable[[], object]) -> None:
        """Queue the call, to be made by another thread. Never blocks."""
        self._after_fork()  # it may have been forked by something that skips Python's hooks
        self._calls.append(call)
        if self._start():
            return
        if not STANDBY.has_supervisors():
            self.run_pending()
            return
        if self._in_want_since is None:
            self._in_want_since = self._now()
        STANDBY.ask(self.retry)
        if not STANDBY.has_supervisors():  # the last supervisor has ended just now
            self.finish()

    def retry(self) -> float | None:
        """Try again to start threads for what is pending. A job: see :mod:`ion_actors.standby`."""
        now = self._now()
        for _ in range(len(self._calls)):
            if not self._start():
                since = now if self._in_want_since is None else self._in_want_since
                # Not in a thread that happens to wait: that is the user's.
                if now - since < _LAST_RESORT or not is_kept_free():
                    return RETRY
                self.run_pending()
        self._in_want_since = None
        return None

    def finish(self) -> None:
        """Make here the calls that have no thread. For a thread that nobody waits for."""
        if self._in_want_since is not None and self.retry() is not None:
            self.run_pending()

    def flush(self, patience: float = PATIENCE) -> bool:
        """Wait until all calls are made, for so many seconds at most. Returns whether they are."""
        until = self._now() + patience
        while self._calls or self._under_way:
            if self._now() >= until:
                return False
            time.sleep(_GLANCE)
        return True

    def run_pending(self) -> None:
        """Make the pending calls in this thread, for which nobody waits."""
        while self._calls:
            self._run_next()

    def _start(self) -> bool:
        try:
            # Not threading.Thread: its start() may be interrupted halfway.
            _thread.start_new_thread(self._begin, ())
        except NO_MORE_THREADS:
            return False
        return True

    def _begin(self) -> None:
        try:
            daemon_thread(self._run_next, "ion_actors-callbacks").start()
        except NO_MORE_THREADS:
            self._run_next()  # one thread is enough

    def _run_next(self) -> None:
        ticket = object()
        self._under_way.append(ticket)  # first: flush() finds the call in one list or the other
        try:
            while True:  # also those whose threads have died before they could begin
                try:
                    call = self._calls.popleft()
                except IndexError:
                    return  # another thread has made it
                call()
        finally:
            self._under_way.remove(ticket)


#: The instance that the library uses.
CALLBACK_THREADS = CallbackThreads()


def run_elsewhere(call: Callable[[], object]) -> None:
    """Make a call of users' code on a thread of its own: see :class:`CallbackThreads`."""
    CALLBACK_THREADS.post(call)


class CallQueue:
    """See the module.

    Args:
        name: the name of the thread.
        tell_lost: called on that thread with the number of calls that were lost since the last
            call of it.
        limit: how many calls may wait.
    """

    def __init__(self, name: str, tell_lost: Callable[[int], object], limit: int = _LIMIT) -> None:
        self._name = name
        self._tell_lost = tell_lost
        self._limit = limit
        self._now = time.monotonic  # kept: tools that freeze time replace what modules refer to
        self._begin_anew()
        on_fork(self._after_fork)

    def _after_fork(self) -> None:
        if self._pid != os.getpid():  # else something has been posted in this child already
            self._begin_anew()

    def _begin_anew(self) -> None:
        # A forked child does not have the thread, and the locks may be locked.
        self._pid = os.getpid()
        self._entries: deque[Callable[[], object]] = deque()  # the first one until it was made
        self._owner = _thread.allocate_lock()  # held by the thread, as long as it delivers
        self._wake = _thread.allocate_lock()  # released to wake it
        self._wake.acquire()
        self._ident = 0  # the thread's
        self._began: float | None = None  # when it began with the first entry
        self._starting = self._now()  # until when a thread may be about to begin
        self._losses = itertools.count(1)
        self._lost = self._told = 0

    def post(self, call: Callable[[], object]) -> bool:
        """Queue this call for the thread, after all that were posted before.

        Never blocks, and runs no other code: it may be called under any lock, and in finalizers.

        Returns:
            Whether there was room for it.
        """
        self._after_fork()  # it may have been forked by something that skips Python's hooks
        if len(self._entries) >= self._limit:
            self._lost = next(self._losses)
            return False
        self._entries.append(call)
        self._rouse()
        return True

    def flush(self, patience: float = PATIENCE) -> bool:
        """Wait until what was posted so far has been delivered.

        Args:
            patience: seconds to wait at most. If a call takes that long already, this does not
                wait.

        Returns:
            Whether it was. False at once on the delivering thread, which cannot wait for itself.
        """
        if self.is_idle():
            return True
        if self.is_stuck(patience):
            return False
        delivered = _thread.allocate_lock()
        delivered.acquire()
        self._entries.append(delivered.release)
        if not self._rouse():
            return False  # there is no thread, and none can be started
        return delivered.acquire(timeout=patience)

    def is_idle(self) -> bool:
        """Whether nothing that was posted in this process has still to be called."""
        return self._pid != os.getpid() or not self._entries

    def is_stuck(self, patience: float) -> bool:
        """Whether waiting is useless: a call has already taken that long, or this is its thread."""
        began = self._began
        stuck = began is not None and self._now() - began >= patience
        return stuck or self._ident == _thread.get_ident()

    def deliver_here(self) -> None:
        """Deliver in this thread, unless another one does: for the interpreter's exit."""
        if self._entries and self._owner.acquire(False):
            try:
                self._deliver()
            finally:
                self._owner.release()

    def _rouse(self) -> bool:
        """Wake or start the thread. Returns whether there is or will be one, as far as is known."""
        if not self._owner.locked():
            return self._start()
        with contextlib.suppress(RuntimeError):  # it was woken before and has not run yet
            self._wake.release()
        return True

    def _start(self) -> bool:
        now = self._now()
        if now < self._starting:
            return True
        self._starting = now + _START
        try:
            # Not threading.Thread: its start() takes locks, which a finalizer may find locked.
            _thread.start_new_thread(self._begin, ())
        except NO_MORE_THREADS:
            self._starting = now
            STANDBY.ask(self._retry)
            return False
        return True

    def _begin(self) -> None:
        try:
            daemon_thread(self._work, self._name).start()
        except BaseException:  # the same
            self._starting = self._now()
            STANDBY.ask(self._retry)

    def _retry(self) -> float | None:
        """A job: see :mod:`ion_actors.standby`."""
        if not self._entries or self._owner.locked():
            return None
        now = self._now()
        if now >= self._starting:
            self._starting = now + _START
            try:
                _thread.start_new_thread(self._begin, ())
            except NO_MORE_THREADS:
                self._starting = now
        return RETRY

    def _work(self) -> None:
        if not self._owner.acquire(False):
            return  # two were started
        keep_free()  # what its calls log is delivered after them
        self._ident = _thread.get_ident()
        try:
            self._starting = self._now()
            while self._entries or self._wake.acquire(timeout=_LINGER):
                self._deliver()
        finally:
            self._ident = 0
            self._owner.release()
        if self._entries:  # posted when this thread was about to end
            self._start()

    def _deliver(self) -> None:
        while self._entries:
            self._began = self._now()
            try:
                self._entries[0]()
            except BaseException:
                self._lost = next(self._losses)
            finally:
                self._entries.popleft()
                self._began = None
            if (lost := self._lost) != self._told:
                more, self._told = lost - self._told, lost
                self._tell_lost(more)


def _no_news(_: int) -> None:
    """None of them is ever lost."""


#: Releases what users have given, if the thread that is done with it must not block.
FINALIZERS = CallQueue("ion_actors-finalizers", _no_news, limit=sys.maxsize)


def release_references(things: list[Any]) -> None:
    """Empty the list: here or, if this thread must not block, on another one.

    To release the last reference to an object runs its finalizer, which is the user's code. So
    the caller has to have no other reference to what is in the list.
    """
    if is_kept_free():
        FINALIZERS.post(things.clear)
    else:
        things.clear()
