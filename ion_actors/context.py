"""Contexts: who still wants this work, and until when.

A :class:`Context` is a node of a tree. It ends once, by :meth:`Context.cancel`, by its deadline, or
because a parent ended; what runs under it learns of that by asking (:attr:`Context.cancelled`,
:meth:`Context.check`), by waiting (:meth:`Context.sleep`, :meth:`Context.wait`), or by a callback.
The semantics are those of Go's ``context`` package, the feel is that of trio's cancel scopes.

The current context is ambient: a ``contextvars.ContextVar`` holds it, so it flows with all other
context variables into tasks, coroutines and ``asyncio.to_thread``.

How news of an end travels: a child *asks* its parents whenever it is asked itself, so a child that
nobody waits on costs its parents nothing, not even a reference. Only while a child has callbacks is
it registered with its parents, and with the clock for its deadline.

Chains of contexts can be long (a task that submits its successor from within a block, for ever), so
nothing here recurses along them.
"""

from __future__ import annotations

import asyncio
import contextvars
import enum
import logging
import os
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Self

from ion_actors._arguments import moment, seconds
from ion_actors.clock import Clock, Timer, system_clock
from ion_actors.errors import Cancelled, ContextEnded, DeadlineExceeded

if TYPE_CHECKING:
    import concurrent.futures
    from types import TracebackType

__all__ = ["Context", "Registration", "background", "current_context"]

logger = logging.getLogger("ion_actors")

# A lock guards one context's end, callbacks and links. There is one context per task, so they share
# a fixed set of locks, chosen by identity; no thread takes two of them on purpose. But a finalizer
# or a signal handler may end a context while its thread holds one, so they are reentrant.
_LOCKS = [threading.RLock() for _ in range(64)]


def _renew_locks() -> None:
    """In a forked child: some may be held by threads that are not here."""
    _LOCKS[:] = [threading.RLock() for _ in _LOCKS]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks)


class _End(enum.Enum):
    """How a context ended."""

    CANCELLED = "cancelled"
    DEADLINE = "deadline"


class Registration:
    """A callback's place on a context; :meth:`remove` gives it up."""

    __slots__ = ("_callback", "_context")

    def __init__(self, context: Context, callback: Callable[[], object] | None):
        self._context = context
        self._callback = callback

    def remove(self) -> None:
        """Take the callback back, unless it has begun. Calling twice does no harm."""
        _unlink([self])

    def _run(self) -> None:
        callback, self._callback = self._callback, None  # once, and drop what it refers to
        try:
            if callback is not None:
                callback()
        except BaseException:
            logger.exception("a callback of a context failed: %r", callback)


class _Link(Registration):
    """A child's place on its parent."""

    __slots__ = ("child", "removed")

    def __init__(self, parent: Context, child: Context):
        super().__init__(parent, None)
        self.child = child
        self.removed = False  # perhaps before it was placed; changes under the parent's lock


class Context:
    """A scope of work that can be cancelled, with an optional deadline.

    Args:
        parent: ends this one when it ends; by default the current context.
        timeout: seconds from now until the deadline; None for none of its own.
        deadline: the same as a moment of the clock (monotonic seconds). Give at most one of both.
        clock: what tells the time; by default the parent's.

    Raises:
        TypeError, ValueError: an argument makes no sense.

    The earlier of its own and its parents' deadlines counts. As a ``with`` block it is the current
    context inside; leaving the block by an exception cancels it, since nobody waits for its work
    any more, and leaving it normally does not. As an ``async with`` block it also interrupts the
    body when it ends: the block then raises :class:`Cancelled` or :class:`DeadlineExceeded`.
    """

    # Class-level defaults: a context is made for every task, so making one must be cheap.
    _parents: tuple[Context, ...] = ()
    _deadline: float | None = None
    _clock: Clock = system_clock
    _end: _End | None = None
    _reason: str | None = None
    _callbacks: dict[Registration, None] | None = None
    _links: list[Registration | Timer] | None = None  # places on the parents and the clock
    _linked = False  # or being linked
    _passes_through = False  # it can no longer be cancelled itself

    def __init__(
        self,
        parent: Context | None = None,
        *,
        timeout: float | None = None,
        deadline: float | None = None,
        clock: Clock | None = None,
    ) -> None:
        parent = current_context() if parent is None else parent
        if not isinstance(parent, Context):
            raise TypeError(f"parent must be a Context or None, not {parent!r}")
        if timeout is not None and deadline is not None:
            raise TypeError(f"give timeout or deadline, not both: {timeout!r} and {deadline!r}")
        self._clock = parent._clock if clock is None else clock
        if (limit := seconds("timeout", timeout)) is not None:
            deadline = self._clock.monotonic() + limit
        self._inherit((parent,), moment("deadline", deadline))

    def _inherit(self, parents: tuple[Context, ...], deadline: float | None) -> None:
        # Moments of another clock mean nothing to this one; such a parent's end is still followed.
        deadlines = [
            one._deadline
            for one in parents
            if one._deadline is not None and one._clock is self._clock
        ]
        if deadline is not None:
            deadlines.append(deadline)
        self._deadline = min(deadlines, default=None)
        self._parents = _living(parents)

    @property
    def _lock(self) -> AbstractContextManager[object]:
        return _LOCKS[id(self) >> 6 & 63]

    # -- asking ----------------------------------------------------------------------------

    @property
    def cancelled(self) -> bool:
        """Whether it has ended, for whatever reason."""
        if self._end is None:
            self._look_up()
        return self._end is not None

    def _look_up(self) -> None:
        """Take notice of a parent's end, or else of a deadline that has passed."""
        expired = False
        todo: list[Context] = [self]
        while todo:
            one = todo.pop()
            if one._end is not None:
                self._finish(one._end, one._reason or "the parent context has ended")
                return
            if one._deadline is not None and one._clock.monotonic() >= one._deadline:
                expired = True
            for parent in one._parents:
                if parent._passes_through:
                    one._parents = _living(one._parents)
            todo.extend(reversed(one._parents))
        if expired:
            self._expire()

    @property
    def reason(self) -> str | None:
        """Why it has ended, in words; None while it has not."""
        return self._reason if self.cancelled else None

    @property
    def deadline(self) -> float | None:
        """The moment it ends by itself (its clock's monotonic seconds), or None."""
        return self._deadline

    @property
    def clock(self) -> Clock:
        """The clock that its deadline and its waits go by."""
        return self._clock

    def remaining(self) -> float | None:
        """Seconds until the deadline, 0.0 once it has ended, None if there is no deadline."""
        if self.cancelled:
            return 0.0
        if self._deadline is None:
            return None
        return max(0.0, self._deadline - self._clock.monotonic())

    def check(self) -> None:
        """Return if it is alive.

        Raises:
            Cancelled: it was cancelled.
            DeadlineExceeded: its deadline has passed.
        """
        if self.cancelled:
            raise self._error()

    def _error(self) -> ContextEnded:
        # A new one each time: a shared exception would collect every raiser's traceback.
        reason = self._reason or "the context has ended"
        return DeadlineExceeded(reason) if self._end is _End.DEADLINE else Cancelled(reason)

    # -- ending ----------------------------------------------------------------------------

    def cancel(self, reason: str = "the context was cancelled") -> bool:
        """End it, and with it all its descendants. Returns False if it had ended before."""
        return not self.cancelled and self._finish(_End.CANCELLED, reason)

    def _expire(self) -> None:
        self._finish(_End.DEADLINE, "the deadline has passed")

    def _finish(self, end: _End, reason: str) -> bool:
        """End it and all below it. Returns False if it had ended before."""
        callbacks = self._settle(end, reason)
        if callbacks is None:
            return False
        todo = callbacks[::-1]
        while todo:
            one = todo.pop()
            if isinstance(one, _Link):
                todo.extend(reversed(one.child._settle(end, reason) or ()))
            else:
                one._run()
        return True

    def _settle(self, end: _End, reason: str) -> list[Registration] | None:
        """Let it have ended. Returns who is to be told; None if it had ended before."""
        with self._lock:
            if self._end is not None:
                return None
            self._reason = reason  # before the end: who sees the end may read the reason
            self._end = end
            callbacks, self._callbacks = self._callbacks, None
            links, self._links = self._links, None
        _unlink(links)
        return list(callbacks or ())

    # -- callbacks -------------------------------------------------------------------------

    def add_callback(self, callback: Callable[[], object]) -> Registration:
        """Have ``callback()`` called once, when the context ends; now, if it has ended.

        It runs in the thread that ends the context (for a deadline, the clock's), so it must be
        short and must not block. An error in it is logged. The returned registration takes it back.
        """
        registration = Registration(self, callback)
        _place([registration])
        return registration

    def _keep(self, registration: Registration) -> _Kept:
        """Keep it, if that is of use. Returns what is to be done next: see :func:`_place`."""
        with self._lock:
            if isinstance(registration, _Link):
                if registration.removed:
                    return _Kept.DONE
                if self._passes_through and self._end is None:
                    return _Kept.PASSES_THROUGH
            # Kept before the look: a signal handler may end the context in between.
            callbacks = self._callbacks = self._callbacks or {}
            callbacks[registration] = None
            if self._end is not None:
                self._callbacks = None
                return _Kept.HAS_ENDED
            linked, self._linked = self._linked, True
            return _Kept.DONE if linked else _Kept.FIRST

    def _drop(self, registration: Registration) -> list[Registration | Timer] | None:
        """Keep it no more. Returns the links that nobody needs any longer."""
        with self._lock:
            if isinstance(registration, _Link):
                registration.removed = True
            if self._callbacks is None or registration not in self._callbacks:
                return None
            del self._callbacks[registration]
            if self._callbacks or self._links is None:
                return None  # without links, either there are none or _link() is about to look
            links, self._links, self._linked = self._links, None, False
            return links

    def _link(self) -> list[_Link]:
        """Go by the parents and the clock, for as long as there are callbacks.

        Returns:
            Its new links, to be placed; any old ones are given up.
        """
        self._parents = _living(self._parents)
        places = [_Link(one, self) for one in self._parents if one is not _BACKGROUND]
        links: list[Registration | Timer] = [*places]
        if self._deadline is not None:
            links.append(self._clock.call_at(self._deadline, self._expire))
        with self._lock:
            if wanted := bool(self._callbacks) and self._end is None:
                links, self._links = self._links or [], links
            else:
                self._linked = False
        _unlink(links)
        return places if wanted else []

    def pass_through(self) -> None:
        """For this library's own use: nobody will cancel it any more, except through its parents.

        So its children go by its parents from now on. Without this, a task that submits its
        successor for ever would grow an endless chain.
        """
        self._passes_through = True
        if self._callbacks:
            with self._lock:
                links = [one for one in self._callbacks or () if isinstance(one, _Link)]
            for link in links:
                _place([*link.child._link()])

    # -- waiting ---------------------------------------------------------------------------

    def sleep(self, duration: float) -> None:
        """Sleep for so many seconds.

        Raises:
            Cancelled, DeadlineExceeded: the context ended, at once when it does.
        """
        if (limit := seconds("duration", duration)) is None:
            raise ValueError(f"duration must be a finite number of seconds, not {duration!r}")
        if self.wait(timeout=limit):
            raise self._error()

    def wait(
        self,
        future: concurrent.futures.Future[Any] | None = None,
        timeout: float | None = None,
    ) -> bool:
        """Block until ``future`` is done or, without one, until the context ends.

        Args:
            future: what to wait for.
            timeout: seconds to wait at most.

        Returns:
            True if that happened, False if the time was up before.

        Raises:
            Cancelled, DeadlineExceeded: the context ended before the future was done.
        """
        limit = seconds("timeout", timeout)
        signal = Signal()
        if future is not None:
            future.add_done_callback(signal.set)
        registration = self.add_callback(signal.set)
        try:
            until = None if limit is None else self._clock.monotonic() + limit
            signal.wait(self._clock, until)
        finally:
            registration.remove()
            _forget_done_callback(future, signal.set)
        return self._waited_for(future)

    async def asleep(self, duration: float) -> None:
        """:meth:`sleep` for coroutines."""
        if (limit := seconds("duration", duration)) is None:
            raise ValueError(f"duration must be a finite number of seconds, not {duration!r}")
        if await self.await_(timeout=limit):
            raise self._error()

    async def await_(
        self,
        future: concurrent.futures.Future[Any] | None = None,
        timeout: float | None = None,
    ) -> bool:
        """:meth:`wait` for coroutines."""
        limit = seconds("timeout", timeout)
        loop = asyncio.get_running_loop()
        woken = asyncio.Event()

        def wake(_: object = None) -> None:
            call_in_loop(loop, woken.set)

        if future is not None:
            future.add_done_callback(wake)
        registration = self.add_callback(wake)
        timer = None
        if limit is not None:
            timer = self._clock.call_at(self._clock.monotonic() + limit, wake)
        try:
            await woken.wait()
        finally:
            registration.remove()
            _forget_done_callback(future, wake)
            if timer is not None:
                timer.cancel()
        return self._waited_for(future)

    def _waited_for(self, future: concurrent.futures.Future[Any] | None) -> bool:
        if future is None:
            return self.cancelled
        if future.done():
            return True
        self.check()
        return False

    # -- being the current one -------------------------------------------------------------

    def __enter__(self) -> Self:
        _ENTERED.set((_CURRENT.get(), None, _ENTERED.get()))
        _CURRENT.set(self)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._leave(exc)

    async def __aenter__(self) -> Self:
        _ENTERED.set((_CURRENT.get(), _Interrupt(self), _ENTERED.get()))
        _CURRENT.set(self)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        interrupt = self._leave(exc)
        if interrupt is not None and interrupt.settle(exc):
            raise self._error() from exc

    def _leave(self, exc: BaseException | None) -> _Interrupt | None:
        entered = _ENTERED.get()
        assert entered is not None, "a context was left that had not been entered"
        previous, interrupt, outer = entered
        _CURRENT.set(previous)
        _ENTERED.set(outer)
        if interrupt is not None:
            interrupt.disarm()
        if exc is not None and self is not _BACKGROUND:
            self._left_by(exc)
        return interrupt

    def _left_by(self, exc: BaseException) -> None:
        self.cancel(f"its block was left by {type(exc).__name__}")

    def __repr__(self) -> str:
        if self.cancelled:
            return f"<{type(self).__name__} at {id(self):#x} ended: {self._reason}>"
        remaining = self.remaining()
        left = "" if remaining is None else f" {remaining:.3f} s left"
        return f"<{type(self).__name__} at {id(self):#x} alive{left}>"


class _Background(Context):
    """The root: it never ends."""

    def __init__(self) -> None:
        # No parent to inherit from.
        return

    def cancel(self, reason: str = "") -> bool:
        raise RuntimeError("the background context cannot be cancelled; make a Context() of it")

    def _left_by(self, exc: BaseException) -> None:
        """A block of it shields what is in it from the contexts around; it goes on itself."""

    def add_callback(self, callback: Callable[[], object]) -> Registration:
        return Registration(self, callback)  # kept nowhere: it would never run


class Signal:
    """For this library's own waits: an event that is set once and waited for once.

    What differs from ``threading.Event`` is that the clock decides how long a wait is.
    """

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def set(self, _: object = None) -> None:
        try:
            self._lock.release()
        except RuntimeError:
            return  # released already: it was set twice

    def wait(self, clock: Clock, deadline: float | None) -> bool:
        return clock.park(self._lock, deadline)


class _Interrupt:
    """Cancels the asyncio task in an ``async with`` block when the context ends."""

    __slots__ = ("_before", "_fired", "_loop", "_ours", "_registration", "_task")

    def __init__(self, context: Context) -> None:
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        # As asyncio.timeout() does: a cancellation by somebody else must not pass for ours.
        self._before = 0 if self._task is None else self._task.cancelling()
        self._fired = self._ours = False
        self._registration = context.add_callback(lambda: call_in_loop(self._loop, self._fire))

    def _fire(self) -> None:
        if self._task is not None:
            self._fired = True
            self._task.cancel()

    def disarm(self) -> None:
        self._registration.remove()
        task, self._task = self._task, None  # a late _fire() finds nothing to cancel
        if self._fired and task is not None:
            self._ours = task.uncancel() <= self._before

    def settle(self, exc: BaseException | None) -> bool:
        """Whether the block ended because of this interrupt."""
        return self._ours and isinstance(exc, asyncio.CancelledError)


class _Kept(enum.Enum):
    """What became of a registration that was to be placed on a context."""

    DONE = "kept, or not needed any more"
    FIRST = "kept, and the context has to be linked with its parents now"
    HAS_ENDED = "the context has ended, so it is to be told now"
    PASSES_THROUGH = "the context's parents are the place for it"


def _place(registrations: list[Registration]) -> None:
    """Put them on their contexts, and the links of those contexts on their parents, and so on."""
    while registrations:
        one = registrations.pop()
        context = one._context
        kept = context._keep(one)
        if kept is _Kept.FIRST:
            registrations.extend(context._link())
        elif kept is _Kept.HAS_ENDED and not isinstance(one, _Link):
            one._run()
        elif kept is _Kept.HAS_ENDED and isinstance(one, _Link) and context._end is not None:
            one.child._finish(context._end, context._reason or "the parent context has ended")
        elif kept is _Kept.PASSES_THROUGH and isinstance(one, _Link):
            registrations.extend(one.child._link())


def _unlink(links: list[Registration | Timer] | None) -> None:
    """Give these places up, and those that were only needed for them, and so on."""
    todo = list(links or ())
    while todo:
        one = todo.pop()
        if isinstance(one, Timer):
            one.cancel()
        else:
            todo.extend(one._context._drop(one) or ())


def _living(contexts: tuple[Context, ...]) -> tuple[Context, ...]:
    """The same, with those that pass through replaced by their own parents."""
    found: dict[Context, None] = {}
    todo = [*reversed(contexts)]
    while todo:
        one = todo.pop()
        if one._passes_through and one._end is None:
            todo.extend(reversed(one._parents))
        else:
            found[one] = None
    return tuple(found)


def _forget_done_callback(
    future: concurrent.futures.Future[Any] | None, callback: Callable[[Any], object]
) -> None:
    # There is no public way to take one back, and whoever polls a future would heap them up.
    if future is not None and not future.done():
        with future._condition:
            callbacks: list[Callable[[Any], object]] = future._done_callbacks  # type: ignore[attr-defined]
            if callback in callbacks:
                callbacks.remove(callback)


def call_in_loop(loop: asyncio.AbstractEventLoop, call: Callable[[], object]) -> None:
    """Have the loop make the call; if it is closed, nobody is waiting there any more."""
    try:
        loop.call_soon_threadsafe(call)
    except RuntimeError:
        logger.debug("the event loop was closed before it could be told", exc_info=True)


_BACKGROUND = _Background()
_CURRENT: contextvars.ContextVar[Context | None] = contextvars.ContextVar(
    "ion_actors_context", default=None
)
# What to go back to when a block is left, innermost first. A variable and not an attribute: one
# context may be entered by several threads and coroutines at once.
_Entered = tuple["Context | None", "_Interrupt | None", Any]
_ENTERED: contextvars.ContextVar[_Entered | None] = contextvars.ContextVar(
    "ion_actors_entered", default=None
)


def background() -> Context:
    """The context that never ends: the root of all others, and the default current one."""
    return _BACKGROUND


class _Thread(threading.local):
    """What a worker's thread knows of the task it runs.

    Most tasks never ask for their context, so a task whose submitter had none gets its own only
    when somebody asks: here, or by cancelling it.
    """

    task_context: Callable[[], Context | None] | None = None


of_thread = _Thread()


def current_context() -> Context:
    """The context of the running task, or of the innermost ``with`` block; else the background."""
    return _CURRENT.get() or _of_task() or _BACKGROUND


def has_current() -> bool:
    """Whether the current context is another than the background."""
    return _CURRENT.get() not in (None, _BACKGROUND) or of_thread.task_context is not None


def _of_task() -> Context | None:
    ask = of_thread.task_context
    context = None if ask is None else ask()
    if context is not None:
        _CURRENT.set(context)  # from here on it flows into other threads, too
    return context


def make_current(context: Context) -> None:
    """Make ``context`` current for good. To be run in a copy of the context variables."""
    _CURRENT.set(context)
