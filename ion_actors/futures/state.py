"""The state of a future: pending, running, done; who waits for it, and who is told.

A lock guards it. Its condition, which ``concurrent.futures`` builds for every future at a cost of a
microsecond and half a kilobyte, is built when somebody waits.
"""

from __future__ import annotations

import concurrent.futures
import functools
import sys
import threading
import weakref
from _thread import RLock
from collections.abc import Callable
from concurrent.futures._base import (
    CANCELLED,
    CANCELLED_AND_NOTIFIED,
    FINISHED,
    PENDING,
    RUNNING,
)
from types import TracebackType
from typing import Any, TypeVar, cast

import pykka
from typing_extensions import override

from ion_actors.clock import start_thread
from ion_actors.delivery import is_kept_free, run_elsewhere
from ion_actors.errors import FutureAlreadySet
from ion_actors.forking import HOOKS_RAN, run_hooks
from ion_actors.interruption import is_interruption
from ion_actors.logs import Logger, is_inside
from ion_actors.raised import is_a
from ion_actors.standby import NO_MORE_THREADS

__all__ = ["DONE", "Callback", "Callbacks", "ExcInfo", "Link", "Parked", "Stateful"]

logger = Logger("ion_actors")
_later = Logger("ion_actors", later=True)  # in finalizers, which run anywhere

T = TypeVar("T")

ExcInfo = tuple[type[BaseException] | None, BaseException | None, TracebackType | None]
Callback = Callable[[Any], object]
Callbacks = list[Callback]  # what is called is taken out

DONE = frozenset((CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED))


class _Unread:
    """Stays with an exception until somebody reads it; logs it if nobody ever does.

    The finalizer is not on the future itself: every future would pay for it, not only these.
    """

    __slots__ = ("error", "name")

    def __init__(self, name: str, error: BaseException) -> None:
        self.name = name
        self.error: BaseException | None = error

    def __del__(self) -> None:
        # Ctrl-C may have come before it had its attributes.
        if getattr(self, "error", None) is not None and not sys.is_finalizing():
            out = _later if is_inside() else logger
            out.error("the exception of %s was never read", self.name, exc_info=self.error)


class Parked:
    """One thread that waits for a future and nothing else: one of the future's waiters.

    A condition would do it, too, and cost a round trip a tenth of its time.

    Args:
        release: releases the lock on which it waits.
    """

    __slots__ = ("release",)

    def __init__(self, release: Callable[[], object]) -> None:
        self.release = release

    def add_result(self, _: object) -> None:
        """The future is done. Calling twice does no harm."""
        try:
            self.release()
        except RuntimeError:
            return  # it was released before

    add_exception = add_cancelled = add_result


class Link:
    """A done-callback that settles another future.

    It returns that one and its callbacks, for whoever calls it to go on with: if it called them
    itself, a chain of futures would be as deep as it is long. A second call does only what the
    first one did not get to, and returns the same.
    """

    __slots__ = ()

    def __call__(self, _: Any, /) -> tuple[Stateful[Any], Callbacks] | None:
        """The future is done."""
        raise NotImplementedError


class Condition(threading.Condition):
    """For those who look inside a future, as ``concurrent.futures.wait`` does.

    Entering it is entering its lock: the base does that in Python code, which may be interrupted
    between the two and then leaves the future locked.
    """

    _lock: Any

    @property
    def __enter__(self) -> Callable[[], bool]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self._lock.__enter__  # type: ignore[no-any-return]

    @property
    def __exit__(self) -> Callable[..., None]:  # noqa: PLE0302  # pyright: ignore[reportIncompatibleMethodOverride]
        return self._lock.__exit__  # type: ignore[no-any-return]


class Stateful(concurrent.futures.Future[T], pykka.Future[T]):
    """A future without the waiting; what is public here is a part of ``Future``."""

    # Class-level defaults: a future is made for every task, so only what differs is stored.
    _state: str = PENDING
    _result: T | None = None
    _exception: BaseException | None = None
    _built_condition: Condition | None = None
    _built_waiters: list[Any] | None = None
    _built_callbacks: list[Callback] | None = None
    _unread: _Unread | None = None
    _strangers_told = False  # those who wait in ways of their own
    _get_hook: Callable[[float | None], Any] | None = None
    _sources: tuple[weakref.ref[Any], ...] = ()  # the futures it is derived from

    def __init__(self) -> None:
        # Neither base's constructor runs: they would build what is built here on demand.
        self._lock = RLock()

    # What concurrent.futures.wait(), as_completed() and other clients reach for. They call these
    # under the condition, or (callbacks) not at all.

    @property
    def _condition(self) -> Condition:  # type: ignore[override]
        if not HOOKS_RAN[0]:
            run_hooks()
        if (built := self._built_condition) is None:
            with self._lock:
                if (built := self._built_condition) is None:
                    built = self._built_condition = Condition(self._lock)
        return built

    @property
    def _waiters(self) -> list[Any]:  # type: ignore[override]
        if self._built_waiters is None:
            self._built_waiters = []
        return self._built_waiters

    @property
    def _done_callbacks(self) -> list[Callback]:
        if self._built_callbacks is None:
            self._built_callbacks = []
        return self._built_callbacks

    # -- asking: single reads of a field that changes once, so without the lock -------------

    @override
    def cancelled(self) -> bool:
        """Whether it was cancelled before it ran."""
        return self._state in (CANCELLED, CANCELLED_AND_NOTIFIED)

    @override
    def running(self) -> bool:
        """Whether its task is being executed."""
        if not HOOKS_RAN[0]:
            run_hooks()
        return self._state == RUNNING

    @override
    def done(self) -> bool:
        """Whether it has its outcome: a result, an exception, or cancelled."""
        if not HOOKS_RAN[0]:
            run_hooks()
        return self._state in DONE

    def __repr__(self) -> str:
        text = f"<{type(self).__name__} at {id(self):#x} state={self._state.lower()}"
        if self._state != FINISHED:
            return text.replace("cancelled_and_notified", "cancelled") + ">"
        if self._exception is not None:
            return f"{text} raised {type(self._exception).__name__}>"
        return f"{text} returned {type(self._result).__name__}>"

    # -- settling --------------------------------------------------------------------------

    @override
    def cancel(self) -> bool:
        """Cancel it unless it has begun. Returns whether it is cancelled."""
        if not HOOKS_RAN[0]:
            run_hooks()
        ours, callbacks = False, None
        try:
            with self._lock:
                if self._state in (RUNNING, FINISHED):
                    return False
                if self._state in (CANCELLED, CANCELLED_AND_NOTIFIED):
                    return True
                ours = True
                self._state = CANCELLED
                callbacks = self._wake_all()
            self._run_callbacks(callbacks)
        except BaseException:  # Ctrl-C: it is cancelled, and all are told
            if ours:
                with self._lock:
                    callbacks = self._wake_all() if callbacks is None else callbacks
                self._run_callbacks(callbacks)
            raise
        return True

    @override
    def set_running_or_notify_cancel(self) -> bool:
        """For executors: False if it was cancelled, which is then announced; else it now runs.

        Raises:
            RuntimeError: it is neither pending nor freshly cancelled.
        """
        with self._lock:
            if self._state == PENDING:
                self._state = RUNNING
                return True
            if self._state == CANCELLED:
                self._announce_cancelled()
                return False
        logger.critical("Future %s in unexpected state: %s", id(self), self._state)
        raise RuntimeError("Future in unexpected state")

    def _announce_cancelled(self) -> None:
        # wait() and as_completed() count a cancelled future only once its executor has said so.
        self._state = CANCELLED_AND_NOTIFIED
        self._tell_waiters()

    @override
    def set_result(self, result: T) -> None:
        """Give it its value.

        Raises:
            FutureAlreadySet: it has its outcome already, or a get hook.
        """
        self._settle(result, None)

    @override
    def set(self, value: T | None = None) -> None:
        """pykka's :meth:`set_result`."""
        self.set_result(cast(T, value))

    @override
    def set_exception(  # type: ignore[override]  # the two bases name its argument differently
        self,
        exception: BaseException | ExcInfo | None = None,
        *,
        exc_info: ExcInfo | None = None,
    ) -> None:
        """Give it an exception.

        Args:
            exception: an exception, a triple as of ``sys.exc_info()``, or None for the one that is
                being handled.
            exc_info: pykka's word for the same.

        Raises:
            FutureAlreadySet: it has its outcome already, or a get hook.
            TypeError: that is no exception, or none is being handled.
        """
        error = _as_exception(exception if exc_info is None else exc_info)
        try:
            self._settle(None, error)
        finally:
            del error, exception, exc_info, self  # an interruption would hold them by this frame

    def _settle(self, result: T | None, error: BaseException | None) -> None:
        ours, callbacks = False, None
        try:
            with self._lock:
                self._refuse_second()
                ours = True
                callbacks = self._finish(result, error)
            self._run_callbacks(callbacks)
        except BaseException:  # Ctrl-C: it is done, and all are told
            if ours:
                with self._lock:
                    callbacks = self._finish(result, error) if callbacks is None else callbacks
                self._run_callbacks(callbacks)
            raise

    def _refuse_second(self) -> None:
        if self._state in DONE or self._get_hook is not None:
            raise FutureAlreadySet(f"{self._state}: {self!r}")

    def _finish(self, result: T | None, error: BaseException | None) -> Callbacks | None:
        """Store the outcome and wake the waiters, under the lock. May be called again.

        The callbacks are returned, for the caller to run without it.
        """
        if error is None:
            self._result = result
        else:
            self._exception = error
            self._unread = self._unread or _Unread(self._describe(), error)
        self._state = FINISHED
        if self._built_waiters:
            self._tell_waiters()
        return self._wake_all()

    def _wake_all(self) -> Callbacks | None:
        if self._built_condition is not None:
            self._built_condition.notify_all()
        if self._state == CANCELLED and self._built_waiters is not None:
            self._let_parked_go(self._built_waiters)
        return self._built_callbacks

    def _let_parked_go(self, waiters: list[Any]) -> None:
        # The others are told when the cancellation is announced: see set_running_or_notify_cancel.
        for waiter in [one for one in waiters if type(one) is Parked]:
            waiter.add_cancelled(self)
            if waiter in waiters:
                waiters.remove(waiter)

    def _tell_waiters(self) -> None:
        """Tell those who wait that it is done, under the lock."""
        strangers = False
        for waiter in self._built_waiters or ():
            if type(waiter) is Parked:
                waiter.add_result(self)
            else:
                strangers = True
        if not strangers:
            return
        if _in_main_thread():
            try:
                # These have events, which Ctrl-C here would leave locked for those who wait there.
                start_thread(threading.Thread(target=self._tell_strangers, daemon=True))
            except NO_MORE_THREADS:
                self._tell_strangers()  # no thread can be started
        else:
            self._tell_strangers()

    def _tell_strangers(self) -> None:
        with self._lock:
            if self._strangers_told:
                return
            self._strangers_told = True
            for waiter in self._built_waiters or ():
                if type(waiter) is Parked:
                    continue
                if self._state != FINISHED:
                    waiter.add_cancelled(self)
                elif self._exception is not None:
                    waiter.add_exception(self)
                else:
                    waiter.add_result(self)

    def _describe(self) -> str:
        return f"a {type(self).__name__}"

    def wake_again(self) -> None:
        """If it is done, tell those who were not told: whoever settled it may be interrupted.

        Calling twice does no harm.
        """
        if self._state not in DONE:
            return
        with self._lock:
            self._tell_waiters()
            if self._built_condition is not None:
                self._built_condition.notify_all()
        self._run_callbacks(self._built_callbacks)

    # -- callbacks -------------------------------------------------------------------------

    @override
    def add_done_callback(self, fn: Callback) -> None:
        """Have ``fn(future)`` called once it is done; now, if it is. Errors in it are logged.

        It is called by the thread that settles the future, or by this one.
        """
        if not HOOKS_RAN[0]:
            run_hooks()
        with self._lock:
            callbacks = self._done_callbacks  # before the look: a signal handler may settle it
            if self._state not in DONE:
                callbacks.append(fn)
                return
        self._run_callbacks([fn])

    def _run_callbacks(self, callbacks: Callbacks | None) -> None:
        """Call them, and what follows from that.

        Raises:
            BaseException: Ctrl-C or the like came meanwhile; all were called.
        """
        if not callbacks:
            return
        further: list[tuple[Stateful[Any], Callbacks]] = []
        if is_kept_free():  # a supervisor's thread, or the clock's
            run_elsewhere(functools.partial(_call_all, self, callbacks, further))
            return
        try:
            _call_all(self, callbacks, further)
        except BaseException:
            _call_all(self, callbacks, further)
            raise


def _call_all(
    first: Any, its_callbacks: Callbacks, further: list[tuple[Stateful[Any], Callbacks]]
) -> None:
    """Call the callbacks of a future, and what follows from them, depth first.

    What is called is taken out, so it can be called again if it is interrupted.

    Args:
        first: the future.
        its_callbacks: of this future.
        further: other futures that were settled meanwhile, the innermost last; empty at first.
    """
    interruption: BaseException | None = None
    future, callbacks = first, its_callbacks
    following: Any = None
    while True:
        if further:
            future, callbacks = further[-1]
        while callbacks:
            callback = callbacks[0]
            links = issubclass(type(callback), Link)  # here: nothing may come in between below
            try:
                following = callback(future)
            except BaseException as error:
                if _is_not_its_own(error):
                    interruption = error if interruption is None else interruption
                else:
                    logger.exception("exception calling callback for %r", future)
                if links:
                    following = callback(future)  # what it did not get to
            del callbacks[0]
            if links and following is not None:
                further.append(following)
                break
        else:
            if not further:
                break
            del further[-1]
            future, callbacks = first, its_callbacks
    if interruption is None:
        return
    try:
        raise interruption
    finally:
        # The exceptions of those that were settled here hold this frame.
        del first, future, its_callbacks, callbacks, following, further, interruption


def _is_not_its_own(error: BaseException) -> bool:
    """Whether what a callback raised is to go on: Ctrl-C, or an exit in the user's own thread."""
    if not is_a(error, Exception) and _in_main_thread():
        return True
    return is_interruption(error)


def _as_exception(given: BaseException | ExcInfo | None) -> BaseException:
    kind: Any
    value: Any
    kind, value, traceback = given if is_a(given, tuple) else (None, given, None)
    if given is None:
        value = sys.exc_info()[1]
    if value is None and kind is not None:
        value = kind()
    if is_a(value, type) and issubclass(value, BaseException):
        value = value()
    if not is_a(value, BaseException):
        raise TypeError(f"set_exception() takes an exception, not {given!r}")
    return BaseException.with_traceback(value, traceback) if traceback is not None else value


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
