"""The future as its users have it: both faces of it, awaitable, with progress and output."""

from __future__ import annotations

import asyncio
import functools
import threading
from _thread import allocate_lock
from collections.abc import Callable, Generator, Iterable
from concurrent.futures._base import FINISHED
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar, cast

import pykka
from typing_extensions import override

from ion_actors._arguments import number
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
    of_thread,
)
from ion_actors.errors import Cancelled, FutureAlreadySet
from ion_actors.forking import HOOKS_RAN, check, run_hooks
from ion_actors.futures.derived import derive
from ion_actors.futures.state import DONE, Callback, Parked, Stateful

__all__ = ["Future", "Output", "Progress", "get_all", "report_progress"]

T = TypeVar("T")
M = TypeVar("M")
J = TypeVar("J")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a task is.

    Attributes:
        fraction: from 0 to 1.
        message: what it is doing, in its own words; may be empty.
    """

    fraction: float
    message: str = ""


@dataclass(frozen=True, slots=True)
class Output:
    """What a task has printed.

    Attributes:
        stdout: to the standard output.
        stderr: to the standard error.
    """

    stdout: str
    stderr: str


def report_progress(fraction: float, message: str = "") -> None:
    """Say how far the running task is; its future's ``progress`` shows the last report.

    To be called in the thread that runs the task, or in the task's coroutine. Anywhere else, so
    also when the function of a task is called plainly, or in a thread that the task has started, it
    does nothing.

    Args:
        fraction: how much is done, from 0 to 1. It may also go back.
        message: what is being done.

    Raises:
        TypeError, ValueError: an argument makes no sense.
    """
    fraction = number("fraction", fraction, minimum=0, maximum=1)
    if not isinstance(message, str):
        raise TypeError(f"message must be a string, not {message!r}")
    if of_thread.report is not None:
        of_thread.report(fraction, message)


_BACKGROUND = background()
_HOOK_THREAD = "ion_actors-hook"


class Future(Stateful[T]):
    """The outcome of a task, now or later.

    ``result()``, ``get()`` and ``await`` give the value or raise the task's exception; whatever the
    tools of ``concurrent.futures``, ``pykka`` and ``asyncio`` do with their own futures, they do
    with this one. An exception that nobody reads is logged when the future is garbage collected.
    """

    _progress: Progress | None = None
    captured_output: Output | None = None
    _progress_callbacks: tuple[Callback, ...] = ()

    @property
    def progress(self) -> Progress | None:
        """What its task has last reported; None if it has reported nothing."""
        return self._progress

    @property
    def output(self) -> Output | None:
        """What its task has printed, if that is captured: see ``ProcessBackend``; else None.

        It is there when the future is done.
        """
        return self.captured_output

    def add_progress_callback(self, fn: Callback) -> None:
        """Have ``fn(future)`` called at each report from now on. Errors in it are logged.

        The worker's thread calls it, and the task waits for it: it should be quick.
        """
        with self._lock:
            self._progress_callbacks = (*self._progress_callbacks, fn)

    def _report(self, fraction: float, message: str) -> None:
        """Its task says how far it is. Nobody wants to know that of one that was given up."""
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
            pykka.Timeout: the time was up first (an exception of the task's own is not changed).
        """
        try:
            if not self._wait(timeout):
                raise pykka.Timeout(f"{timeout} seconds")
            return self._outcome()
        finally:
            self = None  # type: ignore[assignment]

    def _wait(self, timeout: float | None) -> bool:
        if self._state in DONE:
            return True
        if not HOOKS_RAN[0]:
            run_hooks()  # then it may be done, with an error
        try:
            if self._get_hook is not None:
                return self._ask_hook(timeout)
            if of_thread.helper is not None:
                return of_thread.helper.wait(self, timeout)
            return self._block(timeout)
        finally:
            # What a task raises that is run here holds the frames below it, too.
            self = None  # type: ignore[assignment]

    def _block(self, timeout: float | None) -> bool:
        """Wait here, for others to settle it."""
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
        # A worker that was woken for the task may be waiting for the GIL, awake, until this thread
        # sleeps: each step spared here spares a round trip many times as much.
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
        """Wait as long as the context lasts: after that, nobody may want the answer."""
        signal = Signal()
        registration = context.add_callback(Waker(signal.set))
        try:
            self._wait_for_signal(signal, timeout)
            registration.remove()
        except BaseException:  # Ctrl-C, perhaps as it was about to be removed
            registration.remove()
            raise
        if not self.done():
            context.check()
        return self.done()

    def _wait_for_signal(self, signal: Signal, timeout: float | None) -> bool:
        """Wait until it is done, the signal is given, or the time is up. Returns if it is done."""
        until = None if timeout is None else system_clock.monotonic() + timeout
        parked = Parked(signal.set)
        try:
            with self._lock:
                if self._state not in DONE:
                    self._waiters.append(parked)
            if self._state not in DONE:
                signal.wait(system_clock, until)
        finally:
            with self._lock:  # no call of Python code: that may be interrupted before it begins
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
        """What to raise for a cancelled future. A subclass may know why it was."""
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
            if self._get_hook is not None:
                _settle_in_thread(self)
            if of_thread.helper is not None:
                of_thread.helper.help(self)
            if self._state not in DONE:
                yield from self._suspend()
        finally:
            self = None  # type: ignore[assignment]

    def _suspend(self) -> Generator[Any, None, None]:
        loop = asyncio.get_running_loop()
        woken: asyncio.Future[None] = loop.create_future()

        def wake() -> None:
            if not woken.done():
                woken.set_result(None)

        def call(_: object) -> None:
            call_in_loop(loop, wake)

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
        """Have ``func(timeout)`` called for the value when it is first asked for.

        Nothing settles such a future unasked. What the hook raises is not kept: the next call asks
        it again, as in pykka.

        Raises:
            FutureAlreadySet: it has its outcome already.
        """
        with self._lock:
            if self._state in DONE:
                raise FutureAlreadySet(f"{self._state}: {self!r}")
            self._get_hook = func
            self._hook_lock = threading.Lock()  # the hook runs in one thread at a time

    def _ask_hook(self, timeout: float | None) -> bool:
        hook = self._get_hook
        if not self._hook_lock.acquire(timeout=-1 if timeout is None else max(0.0, timeout)):
            return self.done()
        try:
            if self._state not in DONE and hook is not None:
                try:
                    value = hook(timeout)
                except pykka.Timeout:
                    return False
                with self._lock:
                    callbacks = None if self._state in DONE else self._finish(value, None)
                self._run_callbacks(callbacks)
        finally:
            self._hook_lock.release()
            self = None  # type: ignore[assignment]
        return True

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


def _settling(future: pykka.Future[Any]) -> Future[Any]:
    """Any pykka future as one of ours."""
    if isinstance(future, Future):
        return future
    ours: Future[Any] = Future()
    ours.set_get_hook(lambda timeout: future.get(timeout=timeout))
    return ours


def _settle_in_thread(future: Future[Any]) -> None:
    """Ask a future's hook, which may block, where no event loop suffers from it."""
    start_thread(
        threading.Thread(target=_settle_by_hook, args=(future,), name=_HOOK_THREAD, daemon=True)
    )


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
