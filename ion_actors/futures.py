"""One future with two faces: ``concurrent.futures.Future`` and ``pykka.Future``, and awaitable.

::

    PENDING ──start──▶ RUNNING ──result or exception──▶ FINISHED
       └──cancel──▶ CANCELLED ──announce──▶ CANCELLED_AND_NOTIFIED

Where the two faces disagree:

=====================  ==========================  =====================  ========================
question               concurrent.futures          pykka                  here
=====================  ==========================  =====================  ========================
waiting, time is up    ``TimeoutError``            ``pykka.Timeout``      ``result()``: the former,
                                                                          ``get()``: the latter
a second outcome       ``InvalidStateError``       ``queue.Full``         an error that is both
``set_exception()``    an exception                ``exc_info`` or none   takes all three
``map``, ``join``, …   none                        on ``get()``           settle unasked, call once
get hook               none                        on ``get()``           also on ``result()``
``await``              ``asyncio.wrap_future``     blocks the loop        never blocks the loop
copying                fails                       copies                 fails
=====================  ==========================  =====================  ========================

A plain lock guards a future's state; it is reentrant, since a signal handler may settle a future
that its thread is at. The condition, which the base class builds for every future at a cost of a
microsecond and half a kilobyte, is built when somebody waits.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import logging
import sys
import threading
from _thread import RLock
from collections.abc import Callable, Generator, Iterable
from concurrent.futures._base import (
    CANCELLED,
    CANCELLED_AND_NOTIFIED,
    FINISHED,
    PENDING,
    RUNNING,
)
from types import TracebackType
from typing import Any, NoReturn, TypeVar, cast

import pykka

from ion_actors.context import Context, background, call_in_loop, current_context
from ion_actors.errors import Cancelled, FutureAlreadySet

__all__ = ["Future", "get_all"]

logger = logging.getLogger("ion_actors")

T = TypeVar("T")
M = TypeVar("M")
J = TypeVar("J")
R = TypeVar("R")

_ExcInfo = tuple[type[BaseException] | None, BaseException | None, TracebackType | None]
_Callback = Callable[[Any], object]
_Outcome = tuple[Any, BaseException | None]

_HOOK_THREAD = "ion_actors-hook"

_DONE = frozenset((CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED))


class _Unread:
    """Stays with an exception until somebody reads it; logs it if nobody ever does.

    The finalizer is not on the future itself: every future would pay for it, not only these.
    """

    __slots__ = ("error", "name")

    def __init__(self, name: str, error: BaseException) -> None:
        self.name = name
        self.error: BaseException | None = error

    def __del__(self) -> None:
        if self.error is not None and not sys.is_finalizing():
            logger.error("the exception of %s was never read", self.name, exc_info=self.error)


class Future(concurrent.futures.Future[T], pykka.Future[T]):
    """The outcome of a task, now or later.

    ``result()``, ``get()`` and ``await`` give the value or raise the task's exception; whatever the
    tools of ``concurrent.futures``, ``pykka`` and ``asyncio`` do with their own futures, they do
    with this one. An exception that nobody reads is logged when the future is garbage collected.
    """

    # Class-level defaults: a future is made for every task, so only what differs is stored.
    _state: str = PENDING
    _result: T | None = None
    _exception: BaseException | None = None
    _built_condition: threading.Condition | None = None
    _built_waiters: list[Any] | None = None
    _built_callbacks: list[_Callback] | None = None
    _unread: _Unread | None = None
    _get_hook: Callable[[float | None], Any] | None = None

    def __init__(self) -> None:
        # Neither base's constructor runs: they would build what is built here on demand.
        self._lock = RLock()

    # What concurrent.futures.wait(), as_completed() and other clients reach for. They call these
    # under the condition, or (callbacks) not at all.

    @property
    def _condition(self) -> threading.Condition:  # type: ignore[override]
        if (built := self._built_condition) is None:
            with self._lock:
                if (built := self._built_condition) is None:
                    built = self._built_condition = threading.Condition(self._lock)
        return built

    @property
    def _waiters(self) -> list[Any]:  # type: ignore[override]
        if self._built_waiters is None:
            self._built_waiters = []
        return self._built_waiters

    @property
    def _done_callbacks(self) -> list[_Callback]:
        if self._built_callbacks is None:
            self._built_callbacks = []
        return self._built_callbacks

    # -- asking: single reads of a field that changes once, so without the lock -------------

    def cancelled(self) -> bool:
        """Whether it was cancelled before it ran."""
        return self._state in (CANCELLED, CANCELLED_AND_NOTIFIED)

    def running(self) -> bool:
        """Whether its task is being executed."""
        return self._state == RUNNING

    def done(self) -> bool:
        """Whether it has its outcome: a result, an exception, or cancelled."""
        return self._state in _DONE

    def __repr__(self) -> str:
        text = f"<{type(self).__name__} at {id(self):#x} state={self._state.lower()}"
        if self._state != FINISHED:
            return text.replace("cancelled_and_notified", "cancelled") + ">"
        if self._exception is not None:
            return f"{text} raised {type(self._exception).__name__}>"
        return f"{text} returned {type(self._result).__name__}>"

    # -- waiting ---------------------------------------------------------------------------

    def result(self, timeout: float | None = None) -> T:
        """The value, once there is one.

        Args:
            timeout: seconds to wait; None waits for ever.

        Raises:
            TimeoutError: the time was up first.
            Cancelled: it was cancelled (also a ``concurrent.futures.CancelledError``).
            Cancelled, DeadlineExceeded: the current context ended first.
            BaseException: whatever the task raised.
        """
        if self._state is FINISHED and self._exception is None:
            return cast("T", self._result)
        try:
            if not self._wait(timeout):
                raise TimeoutError(f"the future was not done after {timeout} seconds")
            return self._outcome()
        finally:
            self = None  # type: ignore[assignment]  # the exception's traceback holds this frame

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """What the task raised, or None if it returned; waits and raises as :meth:`result`."""
        if not self._wait(timeout):
            raise TimeoutError(f"the future was not done after {timeout} seconds")
        if self._state != FINISHED:
            raise self._cancelled_error()
        self._mark_read()
        return self._exception

    def get(self, *, timeout: float | None = None) -> T:
        """pykka's :meth:`result`.

        Raises:
            pykka.Timeout: the time was up first (an exception of the task's own is not changed).
        """
        try:
            if not self._wait(timeout):
                raise pykka.Timeout(f"{timeout} seconds")
            return self._outcome()
        finally:
            self = None  # type: ignore[assignment]

    def _wait(self, timeout: float | None) -> bool:
        if self._state in _DONE:
            return True
        if self._get_hook is not None:
            return self._ask_hook(timeout)
        context = current_context()
        if context is not background():
            return self._wait_under(context, timeout)
        condition = self._condition
        with condition:
            if timeout is not None:
                return condition.wait_for(self.done, timeout)
            while self._state not in _DONE:
                condition.wait()
        return True

    def _wait_under(self, context: Context, timeout: float | None) -> bool:
        """Wait as long as the context lasts: after that, nobody may want the answer."""
        condition = self._condition

        def poke() -> None:
            with condition:
                condition.notify_all()

        registration = context.add_callback(poke)
        try:
            with condition:
                condition.wait_for(lambda: self.done() or context._end is not None, timeout)
        finally:
            registration.remove()
        if not self.done():
            context.check()
        return self.done()

    def _outcome(self) -> T:
        try:
            if self._state != FINISHED:
                raise self._cancelled_error()
            self._mark_read()
            if self._exception is not None:
                raise self._exception
            return cast(T, self._result)
        finally:
            self = None  # type: ignore[assignment]

    def _cancelled_error(self) -> Cancelled:
        """What to raise for a cancelled future. A subclass may know why it was."""
        return Cancelled("the future was cancelled")

    def _mark_read(self) -> None:
        if (unread := self._unread) is not None:
            unread.error = None
            self._unread = None

    def __await__(self) -> Generator[Any, None, T]:
        """Wait without blocking the running loop. Cancelling the awaiter cancels the future."""
        try:
            if self._state not in _DONE:
                yield from self._wait_in_loop()
            return self._outcome()
        finally:
            self = None  # type: ignore[assignment]

    __iter__ = __await__  # pykka: ``yield from future``

    def _wait_in_loop(self) -> Generator[Any, None, None]:
        if self._get_hook is not None:
            _settle_in_thread(self)
        loop = asyncio.get_running_loop()
        woken: asyncio.Future[None] = loop.create_future()

        def wake() -> None:
            if not woken.done():
                woken.set_result(None)

        self.add_done_callback(lambda _: call_in_loop(loop, wake))
        try:
            yield from woken
        except asyncio.CancelledError:
            self.cancel()
            raise

    # -- settling --------------------------------------------------------------------------

    def cancel(self) -> bool:
        """Cancel it unless it has begun. Returns whether it is cancelled."""
        with self._lock:
            if self._state in (RUNNING, FINISHED):
                return False
            if self._state in (CANCELLED, CANCELLED_AND_NOTIFIED):
                return True
            self._state = CANCELLED
            callbacks = self._wake_all()
        self._run_callbacks(callbacks)
        return True

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
        for waiter in self._built_waiters or ():
            waiter.add_cancelled(self)

    def set_result(self, result: T) -> None:
        """Give it its value.

        Raises:
            FutureAlreadySet: it has its outcome already, or a get hook.
        """
        with self._lock:
            self._refuse_second()
            callbacks = self._finish(result, None)
        self._run_callbacks(callbacks)

    def set(self, value: T | None = None) -> None:
        """pykka's :meth:`set_result`."""
        self.set_result(cast(T, value))

    def set_exception(  # type: ignore[override]  # the two bases name its argument differently
        self,
        exception: BaseException | _ExcInfo | None = None,
        *,
        exc_info: _ExcInfo | None = None,
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
        with self._lock:
            self._refuse_second()
            callbacks = self._finish(None, error)
        self._run_callbacks(callbacks)

    def _settle_by(self, compute: Callable[[], T]) -> None:
        """Call it, and take its outcome."""
        try:
            value = compute()
        except BaseException as error:
            self.set_exception(error)
        else:
            self.set_result(value)
        finally:
            del self, compute

    def _refuse_second(self) -> None:
        if self._state in _DONE or self._get_hook is not None:
            raise FutureAlreadySet(f"{self._state}: {self!r}")

    def _finish(self, result: T | None, error: BaseException | None) -> list[_Callback] | None:
        """Store the outcome and wake the waiters, under the lock.

        The callbacks are returned, for the caller to run without it.
        """
        if error is None:
            self._result = result
        else:
            self._exception = error
            self._unread = _Unread(self._describe(), error)
        self._state = FINISHED
        for waiter in self._built_waiters or ():
            (waiter.add_result if error is None else waiter.add_exception)(self)
        return self._wake_all()

    def _wake_all(self) -> list[_Callback] | None:
        if self._built_condition is not None:
            self._built_condition.notify_all()
        callbacks, self._built_callbacks = self._built_callbacks, None
        return callbacks

    def _describe(self) -> str:
        return f"a {type(self).__name__}"

    # -- callbacks -------------------------------------------------------------------------

    def add_done_callback(self, fn: _Callback) -> None:
        """Have ``fn(future)`` called once it is done; now, if it is. Errors in it are logged.

        It is called by the thread that settles the future, or by this one.
        """
        with self._lock:
            callbacks = self._done_callbacks  # before the look: a signal handler may settle it
            if self._state not in _DONE:
                callbacks.append(fn)
                return
        self._run_callbacks([fn])

    def _run_callbacks(self, callbacks: list[_Callback] | None) -> None:
        for callback in callbacks or ():
            try:
                callback(self)
            except BaseException as error:
                if not isinstance(error, Exception) and _in_main_thread():
                    raise  # the user's Ctrl-C, or an exit in the user's own thread
                logger.exception("exception calling callback for %r", self)

    # -- pykka's combinators ---------------------------------------------------------------

    def set_get_hook(self, func: Callable[[float | None], T]) -> None:
        """Have ``func(timeout)`` called for the value when it is first asked for.

        Nothing settles such a future unasked. What the hook raises is not kept: the next call asks
        it again, as in pykka.

        Raises:
            FutureAlreadySet: it has its outcome already.
        """
        with self._lock:
            if self._state in _DONE:
                raise FutureAlreadySet(f"{self._state}: {self!r}")
            self._get_hook = func
            self._hook_lock = threading.Lock()  # the hook runs in one thread at a time

    def _ask_hook(self, timeout: float | None) -> bool:
        hook = self._get_hook
        if not self._hook_lock.acquire(timeout=-1 if timeout is None else max(0.0, timeout)):
            return self.done()
        try:
            if self._state not in _DONE and hook is not None:
                try:
                    value = hook(timeout)
                except pykka.Timeout:
                    return False
                with self._lock:
                    callbacks = None if self._state in _DONE else self._finish(value, None)
                self._run_callbacks(callbacks)
        finally:
            self._hook_lock.release()
            self = None  # type: ignore[assignment]
        return True

    def map(self, func: Callable[[T], M]) -> Future[M]:
        """A future of ``func(value)``. It settles by itself; ``func`` is called once."""
        return _derive([self], func)

    def filter(self: Future[Iterable[J]], func: Callable[[J], bool]) -> Future[Iterable[J]]:
        """A future of the list of those items of the value for which ``func`` is true."""
        return _derive([self], lambda items: cast("Iterable[J]", list(filter(func, items))))

    def join(self, *futures: pykka.Future[Any]) -> Future[Iterable[Any]]:
        """A future of the list of this value and the others', which may be any pykka futures."""
        every = [_settling(one) for one in (self, *futures)]
        return _derive(every, lambda *values: cast("Iterable[Any]", list(values)))

    def reduce(self: Future[Iterable[J]], func: Callable[[R, J], R], *args: R) -> Future[R]:
        """A future of ``functools.reduce(func, value, *args)``."""
        return _derive([self], lambda items: functools.reduce(func, items, *args))

    # -- not to be copied ------------------------------------------------------------------

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError(f"cannot pickle or copy a {type(self).__name__}: it is part of a process")


def get_all(futures: Iterable[pykka.Future[T]], *, timeout: float | None = None) -> Iterable[T]:
    """``pykka.get_all``: the list of the futures' values."""
    return pykka.get_all(futures, timeout=timeout)


def _derive(sources: list[Future[Any]], compute: Callable[..., M]) -> Future[M]:
    """A plain future that ``compute(*values)`` settles as soon as all sources are done."""
    derived: Future[M] = Future()
    if any(source._get_hook is not None for source in sources):
        # Nobody but a caller settles such a source, so the derived one asks in its turn.
        derived.set_get_hook(functools.partial(_ask_all, compute, sources))
        return derived
    derivation = _Derivation(len(sources), compute, derived)
    for place, source in enumerate(sources):
        source.add_done_callback(functools.partial(derivation.one_is_done, place))
    return derived


class _Derivation:
    """What :func:`_derive` keeps until it is done.

    An exception holds the frames that it passed through. None of them may hold a future that holds
    the exception, or both would wait for the garbage collector: so frames refer to this object,
    which lets go of the futures when it is done. Nor does it hold a source that is pending, since
    that holds this object.
    """

    __slots__ = ("_compute", "_derived", "_done", "_lock", "_missing")

    def __init__(self, count: int, compute: Callable[..., Any], derived: Future[Any]) -> None:
        self._compute = compute
        self._derived = derived
        self._done: list[Any] = [None] * count  # the sources, as far as they are
        self._missing = count
        self._lock = threading.Lock()  # guards both

    def one_is_done(self, place: int, source: Future[Any]) -> None:
        """To be called once for each source."""
        with self._lock:
            self._done[place] = source
            self._missing -= 1
            if self._missing:
                return
        derived, sources = self._derived, self._done
        del self._derived, self._done
        if not derived.set_running_or_notify_cancel():
            return
        for one in sources:
            # Passed on and not raised: whoever is up the stack may hold the source.
            if one._state == FINISHED and (error := one.exception()) is not None:
                derived.set_exception(error)
                return
        compute = functools.partial(_call_with_values, self._compute, sources)
        del one, source, sources
        try:
            derived._settle_by(compute)
        finally:
            del derived, compute


def _ask_all(compute: Callable[..., M], sources: list[Future[Any]], timeout: float | None) -> M:
    """As a get hook: wait for the sources, then call."""
    source = None
    try:
        for source in sources:
            if not source._wait(timeout):
                raise pykka.Timeout(f"{timeout} seconds")
        return _call_with_values(compute, sources)
    finally:
        del sources, source


def _call_with_values(compute: Callable[..., M], sources: list[Future[Any]]) -> M:
    values = []
    source = None
    try:
        for source in sources:
            values.append(source._outcome())
        return compute(*values)
    finally:
        del sources, source, values


def _settling(future: pykka.Future[Any]) -> Future[Any]:
    """Any pykka future as one of ours."""
    if isinstance(future, Future):
        return future
    ours: Future[Any] = Future()
    ours.set_get_hook(lambda timeout: future.get(timeout=timeout))
    return ours


def _settle_in_thread(future: Future[Any]) -> None:
    """Ask a future's hook, which may block, where no event loop suffers from it."""
    threading.Thread(target=_settle_by_hook, args=(future,), name=_HOOK_THREAD, daemon=True).start()


def _settle_by_hook(future: Future[Any]) -> None:
    try:
        if not future._ask_hook(None):
            raise pykka.Timeout("its get hook gave up")
    except BaseException as error:
        with future._lock:
            callbacks = None if future.done() else future._finish(None, error)
        future._run_callbacks(callbacks)
    finally:
        del future


def _as_exception(given: BaseException | _ExcInfo | None) -> BaseException:
    kind: Any
    value: Any
    kind, value, traceback = given if isinstance(given, tuple) else (None, given, None)
    if given is None:
        value = sys.exc_info()[1]
    if value is None and kind is not None:
        value = kind()
    if isinstance(value, type) and issubclass(value, BaseException):
        value = value()
    if not isinstance(value, BaseException):
        raise TypeError(f"set_exception() takes an exception, not {given!r}")
    return value.with_traceback(traceback) if traceback is not None else value


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
