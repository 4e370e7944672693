"""The public future: both its interfaces, awaitable, with progress and output.

A lock guards its state. Its condition, which ``concurrent.futures`` builds for every future at a
cost of a microsecond and half a kilobyte, is built when somebody waits.
"""

from __future__ import annotations

import concurrent.futures
import functools
import sys
import weakref
from _thread import RLock, allocate_lock
from collections.abc import Callable, Generator, Iterable
from concurrent.futures._base import (
    CANCELLED,
    CANCELLED_AND_NOTIFIED,
    FINISHED,
    PENDING,
    RUNNING,
)
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast

import pykka
from typing_extensions import override

from ion_actors.clock import acquire, start_thread, system_clock
from ion_actors.context import (
    CURRENT,
    Context,
    Signal,
    Waker,
    background,
    call_in_loop,
    current_context,
    forget_done_callback,
    helper_here,
    of_thread,
)
from ion_actors.delivery import is_kept_free, run_elsewhere
from ion_actors.errors import Cancelled, FutureAlreadySet
from ion_actors.forking import HOOKS_RAN, check, run_hooks
from ion_actors.futures.callbacks import Callback, Callbacks, call_all, in_main_thread, quick
from ion_actors.futures.derived import derive
from ion_actors.futures.exceptions import ExcInfo, UnreadException, as_exception
from ion_actors.futures.get_hook import GetHook
from ion_actors.futures.mistakes import refuses_operators, warn_if_blocked
from ion_actors.futures.progress import Output, Progress
from ion_actors.futures.waiters import Condition, Parked
from ion_actors.logs import Logger
from ion_actors.naming import name_of
from ion_actors.own_variables import daemon_thread
from ion_actors.standby import NO_MORE_THREADS

if TYPE_CHECKING:
    import asyncio

__all__ = ["Future", "get_all"]

logger = Logger("ion_actors")

T = TypeVar("T")
M = TypeVar("M")
J = TypeVar("J")
R = TypeVar("R")

DONE = frozenset((CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED))

_BACKGROUND = background()
_modules = sys.modules


@refuses_operators
class Future(concurrent.futures.Future[T], pykka.Future[T]):
    """The outcome of a task, now or later.

    ``result()``, ``get()`` and ``await`` return the value or raise the task's exception. The tools
    of ``concurrent.futures``, ``pykka`` and ``asyncio`` accept it like their own futures. An
    exception that nobody reads is logged when the future is garbage collected.
    """

    # Class-level defaults: a future is made for every task, so only what differs is stored.
    _state: str = PENDING
    _result: T | None = None
    _exception: BaseException | None = None
    _built_condition: Condition | None = None
    _built_waiters: list[Any] | None = None
    _built_callbacks: list[Callback] | None = None
    _unread: UnreadException | None = None
    _strangers_told = False  # those who wait in ways of their own
    _hook: GetHook | None = None
    _sources: tuple[weakref.ref[Any], ...] = ()  # the futures it is derived from

    _progress: Progress | None = None
    captured_output: Output | None = None
    _progress_callbacks: tuple[Callback, ...] = ()

    def __init__(self) -> None:
        # Neither base's constructor runs: they would build what is built here on demand.
        self._lock = RLock()

    # What concurrent.futures.wait(), as_completed() and other clients use. They call these under
    # the condition, or (callbacks) not at all.

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
        return self._shown_as(name_of(type(self)))

    def _shown_as(self, what: str) -> str:
        state = "cancelled" if self.cancelled() else self._state.lower()
        text = f"<{what} at {id(self):#x} state={state}"
        if self._state != FINISHED:
            return f"{text}>"
        if self._exception is not None:
            return f"{text} raised {name_of(type(self._exception))}>"
        return f"{text} returned {name_of(type(self._result))}>"

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
        except BaseException:  # Ctrl-C: it is cancelled, and all waiters are told
            if ours:
                with self._lock:
                    callbacks = self._wake_all() if callbacks is None else callbacks
                self._run_callbacks(callbacks)
            raise
        return True

    @override
    def set_running_or_notify_cancel(self) -> bool:
        """For executors: False if it was cancelled, which this announces; else it is now running.

        Raises:
            RuntimeError: it is neither pending nor newly cancelled.
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
        """Set its result.

        Raises:
            FutureAlreadySet: it already has its outcome, or a get hook.
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
        """Set its exception.

        Args:
            exception: an exception, a triple as of ``sys.exc_info()``, or None for the one that is
                being handled.
            exc_info: pykka's name for the same.

        Raises:
            FutureAlreadySet: it already has its outcome, or a get hook.
            TypeError: that is no exception, or none is being handled.
        """
        error = as_exception(exception if exc_info is None else exc_info)
        try:
            self._settle(None, error)
        finally:
            del error, exception, exc_info, self  # an interruption would keep them by this frame

    def _settle(self, result: T | None, error: BaseException | None) -> None:
        ours, callbacks = False, None
        try:
            with self._lock:
                self._refuse_second()
                ours = True
                callbacks = self._finish(result, error)
            self._run_callbacks(callbacks)
        except BaseException:  # Ctrl-C: it is done, and all waiters are told
            if ours:
                with self._lock:
                    callbacks = self._finish(result, error) if callbacks is None else callbacks
                self._run_callbacks(callbacks)
            raise

    def _refuse_second(self) -> None:
        if self._state in DONE or self._hook is not None:
            raise FutureAlreadySet(f"{self._state}: {self!r}")

    def _finish(self, result: T | None, error: BaseException | None) -> Callbacks | None:
        """Store the outcome and wake the waiters, under the lock. May be called again.

        Returns the callbacks, which the caller must run without the lock.
        """
        if error is None:
            self._result = result
        else:
            self._exception = error
            self._unread = self._unread or UnreadException(self._describe(), error, self._home())
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
        # Others are told when the cancellation is announced: see set_running_or_notify_cancel.
        for waiter in [one for one in waiters if type(one) is Parked]:
            waiter.add_cancelled(self)
            if waiter in waiters:
                waiters.remove(waiter)

    def _tell_waiters(self) -> None:
        """Tell the waiters that it is done, under the lock."""
        strangers = False
        for waiter in self._built_waiters or ():
            if type(waiter) is Parked:
                waiter.add_result(self)
            else:
                strangers = True
        if not strangers:
            return
        if in_main_thread():
            try:
                # They use events, which Ctrl-C here would leave locked for those who wait there.
                start_thread(daemon_thread(self._tell_strangers))
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

    def _home(self) -> object:
        """Where its task was submitted to, if it has one."""
        return None

    def wake_again(self) -> None:
        """If it is done, tell the waiters again: the thread that settled it may be interrupted.

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
        """Call ``fn(future)`` once it is done; now, if it is. Errors in it are logged.

        The thread that settles the future calls it, or this one.
        """
        if not HOOKS_RAN[0]:
            run_hooks()
        with self._lock:
            callbacks = self._done_callbacks  # before the check: a signal handler may settle it
            if self._state not in DONE:
                callbacks.append(fn)
                return
        self._run_callbacks([fn])

    def _run_callbacks(self, callbacks: Callbacks | None) -> None:
        """Call them, and those of the futures that they settle.

        Raises:
            BaseException: an interruption, such as Ctrl-C; all were called nevertheless.
        """
        if not callbacks:
            return
        further: list[tuple[Any, Callbacks]] = []
        if is_kept_free():  # a supervisor's thread, or the clock's
            run_elsewhere(functools.partial(call_all, self, callbacks, further))
            return
        try:
            call_all(self, callbacks, further)
        except BaseException:
            call_all(self, callbacks, further)
            raise

    # -- progress and output ---------------------------------------------------------------

    @property
    def progress(self) -> Progress | None:
        """The last progress that its task reported; None if it has reported nothing."""
        return self._progress

    @property
    def output(self) -> Output | None:
        """What its task has printed, if that is captured: see ``ProcessBackend``; else None.

        It is available when the future is done.
        """
        return self.captured_output

    def add_progress_callback(self, fn: Callback) -> None:
        """Call ``fn(future)`` at each progress report from now on. Errors in it are logged.

        The worker's thread calls it, and the task waits for it: it should be quick.
        """
        with self._lock:
            self._progress_callbacks = (*self._progress_callbacks, fn)

    def _report(self, fraction: float, message: str) -> None:
        """Its task reports its progress. Ignored once the future is done, as when abandoned."""
        if self._state in DONE:
            return
        self._progress = Progress(fraction, message)
        if self._progress_callbacks:
            self._run_callbacks(list(self._progress_callbacks))

    # -- waiting ---------------------------------------------------------------------------

    @override
    def result(self, timeout: float | None = None) -> T:
        """The value, once there is one.

        Args:
            timeout: seconds to wait; None waits for ever.

        Raises:
            TimeoutError: the timeout passed first.
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

    @override
    def exception(self, timeout: float | None = None) -> BaseException | None:
        """What the task raised, or None if it returned; waits and raises as :meth:`result`."""
        try:
            if not self._wait(timeout):
                raise TimeoutError(f"the future was not done after {timeout} seconds")
            if self._state != FINISHED:
                raise self._cancelled_error()
            self._mark_read()
            return self._exception
        finally:
            self = None  # type: ignore[assignment]

    @override
    def get(self, *, timeout: float | None = None) -> T:
        """pykka's :meth:`result`.

        Raises:
            pykka.Timeout: the timeout passed first (an exception of the task's own is not changed).
        """
        try:
            if not self._wait(timeout):
                raise pykka.Timeout(f"{timeout} seconds")
            return self._outcome()
        finally:
            self = None  # type: ignore[assignment]

    def _get_snapshot(self) -> tuple[bool, bool, T | None, BaseException | None]:
        # What asyncio reads from Python 3.15 on, instead of calling the methods above.
        if self._state != FINISHED:
            return self.done(), self.cancelled(), None, None
        self._mark_read()
        return True, False, self._result, self._exception

    def _wait(self, timeout: float | None) -> bool:
        if self._state in DONE:
            return True
        if not HOOKS_RAN[0]:
            run_hooks()  # then it may be done, with an error
        events = _modules.get("asyncio.events")
        if events is not None and (loop := events._get_running_loop()) is not None:
            self._refuse_to_block(loop, timeout)
            warn_if_blocked(self, of_task=self._home() is not None)
        try:
            if (hook := self._hook) is not None:
                return hook.ask(self, timeout)
            if (helper := helper_here()) is not None:
                return helper.wait(self, timeout)
            return self._block(timeout)
        finally:
            # An exception of a task that runs here also keeps the frames below it.
            self = None  # type: ignore[assignment]

    def _refuse_to_block(self, loop: asyncio.AbstractEventLoop, timeout: float | None) -> None:
        """Raise if a wait of so many seconds, in the thread of this event loop, cannot end."""

    def _block(self, timeout: float | None) -> bool:
        """Wait until another thread settles it."""
        if CURRENT.get() is not None or of_thread.task_context is not None:
            context = current_context()
            if context is not _BACKGROUND:
                return self._wait_under(context, timeout)
        if timeout is None:
            self._park()
            return True
        return self._wait_for_signal(Signal(), timeout)

    def _park(self) -> None:
        """Wait for the outcome, and for nothing else."""
        # A worker that was woken for the task may be waiting for the GIL until this thread sleeps:
        # each step saved here saves a round trip many times as much.
        lock = allocate_lock()
        lock.acquire()
        parked = Parked(lock.release)
        with self._lock:
            if self._state in DONE:
                return
            if self._built_waiters is None:
                self._built_waiters = [parked]
            else:
                self._built_waiters.append(parked)
        try:
            acquire(lock)
        except BaseException:  # Ctrl-C
            with self._lock:
                if parked in self._waiters:
                    self._waiters.remove(parked)
            raise

    def _wait_under(self, context: Context, timeout: float | None) -> bool:
        """Wait as long as the context lasts."""
        signal = Signal()
        registration = context.add_callback(Waker(signal.set))
        try:
            self._wait_for_signal(signal, timeout)
            registration.remove()
        except BaseException:  # Ctrl-C, perhaps just before it was removed
            registration.remove()
            raise
        if not self.done():
            context.check()
        return self.done()

    def _wait_for_signal(self, signal: Signal, timeout: float | None) -> bool:
        """Wait until it is done, the signal is set, or the timeout passes. Returns whether done."""
        until = None if timeout is None else system_clock.monotonic() + timeout
        parked = Parked(signal.set)
        try:
            with self._lock:
                if self._state not in DONE:
                    self._waiters.append(parked)
            if self._state not in DONE:
                signal.wait(system_clock, until)
        finally:
            with self._lock:  # not a call of Python code, which may be interrupted before it begins
                waiters = self._built_waiters
                if waiters is not None and parked in waiters:
                    waiters.remove(parked)
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
        """The error for a cancelled future. A subclass may know the reason."""
        return Cancelled("the future was cancelled")

    def _mark_read(self) -> None:
        if (unread := self._unread) is not None:
            unread.error = None
            self._unread = None

    @override
    def __await__(self) -> Generator[Any, None, T]:
        """Wait without blocking the running loop. Cancelling the awaiter cancels the future."""
        try:
            if self._state not in DONE:
                yield from self._wait_in_loop()
            return self._outcome()
        finally:
            self = None  # type: ignore[assignment]

    __iter__ = __await__  # pykka: ``yield from future``

    def _wait_in_loop(self) -> Generator[Any, None, None]:
        check()
        try:
            if (hook := self._hook) is not None:
                hook.ask_in_thread(self)
            if (helper := helper_here()) is not None:
                helper.help(self)
            if self._state not in DONE:
                yield from self._suspend()
        finally:
            self = None  # type: ignore[assignment]

    def _suspend(self) -> Generator[Any, None, None]:
        import asyncio  # noqa: PLC0415 - it is large, and imported already where a loop runs

        loop = asyncio.get_running_loop()
        woken: asyncio.Future[None] = loop.create_future()

        def wake() -> None:
            if not woken.done():
                woken.set_result(None)

        call = functools.partial(_wake_in_loop, loop, wake)
        self.add_done_callback(call)
        try:
            yield from woken
        except asyncio.CancelledError:
            self.cancel()
            raise
        finally:  # a running task goes on when its awaiter is cancelled, as by a timeout
            forget_done_callback(self, call)

    # -- pykka's combinators ---------------------------------------------------------------

    @override
    def set_get_hook(self, func: Callable[[float | None], T]) -> None:
        """Call ``func(timeout)`` for the value when somebody first asks for it.

        Nothing settles such a future before. An exception of the hook is not kept: the next call
        calls it again, as in pykka.

        Raises:
            FutureAlreadySet: it already has its outcome.
        """
        with self._lock:
            if self._state in DONE:
                raise FutureAlreadySet(f"{self._state}: {self!r}")
            self._hook = GetHook(func)

    @override
    def map(self, func: Callable[[T], M]) -> Future[M]:
        """A future of ``func(value)``. It settles by itself; ``func`` is called once."""
        return derive(Future(), [self], func)

    @override
    def filter(self: Future[Iterable[J]], func: Callable[[J], bool]) -> Future[Iterable[J]]:
        """A future of the list of those items of the value for which ``func`` is true."""
        return derive(
            Future(), [self], lambda items: cast("Iterable[J]", list(filter(func, items)))
        )

    @override
    def join(self, *futures: pykka.Future[Any]) -> Future[Iterable[Any]]:
        """A future of the list of this value and the others', which may be any pykka futures."""
        every = [_settling(one) for one in (self, *futures)]
        return derive(Future(), every, lambda *values: cast("Iterable[Any]", list(values)))

    @override
    def reduce(self: Future[Iterable[J]], func: Callable[[R, J], R], *args: R) -> Future[R]:
        """A future of ``functools.reduce(func, value, *args)``."""
        return derive(Future(), [self], lambda items: functools.reduce(func, items, *args))

    # -- not to be copied ------------------------------------------------------------------

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError(f"cannot pickle or copy a {type(self).__name__}: it is part of a process")


def get_all(futures: Iterable[pykka.Future[T]], *, timeout: float | None = None) -> Iterable[T]:
    """``pykka.get_all``: the list of the futures' values."""
    return pykka.get_all(futures, timeout=timeout)


@quick
def _wake_in_loop(loop: asyncio.AbstractEventLoop, wake: Callable[[], None], _: object) -> None:
    call_in_loop(loop, wake)


def _settling(future: pykka.Future[Any]) -> Future[Any]:
    """Any pykka future as a :class:`Future`."""
    if isinstance(future, Future):
        return future
    ours: Future[Any] = Future()
    ours.set_get_hook(lambda timeout: future.get(timeout=timeout))
    return ours
