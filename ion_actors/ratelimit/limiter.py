"""The methods of all limiters: allow, wait, awaits, wrap."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Protocol

from ion_actors._arguments import duration as checked_duration
from ion_actors._arguments import moment as checked_moment
from ion_actors._arguments import seconds, whole_number
from ion_actors.context import Context, Terms, await_turn, current_context, wait_turn
from ion_actors.errors import ContextEnded
from ion_actors.ratelimit.bucket import Bucket, ticks
from ion_actors.ratelimit.bucket import moment as moment_of
from ion_actors.ratelimit.claims import BucketQueue, Claim
from ion_actors.ratelimit.hooks import LimiterHooks
from ion_actors.ratelimit.scheduler import Scheduler
from ion_actors.wrapping import Wrapper

__all__ = ["Limiter", "Pausable"]


class Limiter(ABC):
    """Limits how fast calls are made, for threads and coroutines alike.

    Waiting calls are served in the order in which they came, threads and coroutines alike. A call
    that was served keeps its tokens. One that ends otherwise has taken nothing, and those behind it
    move up.
    """

    _scheduler: Scheduler
    _hooks: LimiterHooks | None  # None if there are no hooks
    _priority = 0  # of its calls

    @abstractmethod
    def _find(self) -> tuple[BucketQueue, ...]:
        """The queues of the buckets where tokens are taken; called under the scheduler's lock."""

    @abstractmethod
    def _level(self) -> float:
        """The value of the gauge."""

    def _take(self, n: int) -> bool:
        return self._scheduler.take(self._find, n, self._priority)

    # -- looking ---------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """Its name in errors, logs and metrics."""
        return self._scheduler.name

    @property
    def tokens(self) -> float:
        """How many tokens there are now; waiting calls come first."""
        with self._scheduler.lock:
            now = self._now()
            return min(queue.bucket.tokens(now) for queue in self._find())

    def _now(self) -> int:
        return ticks(self._scheduler.clock.monotonic())

    @property
    def waiting(self) -> int:
        """How many calls wait."""
        return self._scheduler.waiting

    # -- asking ----------------------------------------------------------------------------

    def allow(self, n: int = 1) -> bool:
        """Take ``n`` tokens if they are there now. It never waits, nor overtakes waiting calls.

        Returns:
            Whether they were taken.

        Raises:
            TypeError, ValueError: ``n`` is no whole number, is less than 1 or more than the burst.
        """
        if type(n) is not int or n < 1:
            n = whole_number("n", n, minimum=1)
        allowed = self._take(n)
        if self._hooks is not None:
            self._hooks.answered("allowed" if allowed else "denied", self._level())
        return allowed

    def wait(self, n: int = 1, timeout: float | None = None) -> None:
        """Take ``n`` tokens, as soon as there are enough and it is this call's turn.

        Args:
            n: tokens.
            timeout: seconds to wait at most; None for as long as the current context lasts.

        Raises:
            RateLimited: there cannot be enough tokens in that time. It is raised at once; only if
                they are delayed later (another rate, a pause, jitter), after the whole time.
            RateLimitedPastDeadline: the same for the deadline of the current context. It is a
                ``DeadlineExceeded``, too.
            Cancelled, DeadlineExceeded: the current context has ended.
            TypeError, ValueError: an argument makes no sense: see :meth:`allow`.
        """
        if (attempt := self._attempt(n, timeout)) is not None:
            with self._watched(n):
                wait_turn(self._scheduler, *attempt)

    async def awaits(self, n: int = 1, timeout: float | None = None) -> None:
        """:meth:`wait` for coroutines: the event loop goes on meanwhile.

        Cancelling it leaves the line.
        """
        if (attempt := self._attempt(n, timeout)) is not None:
            with self._watched(n):
                await await_turn(self._scheduler, *attempt)

    def _attempt(self, n: int, timeout: float | None) -> tuple[Claim, Terms] | None:
        """Take the tokens now (None), or return the wait for them."""
        n = whole_number("n", n, minimum=1)
        limit = seconds("timeout", timeout)
        context, scheduler = current_context(), self._scheduler
        context.check()
        until = None if limit is None else scheduler.clock.monotonic() + limit
        if not scheduler.crowded and self._take(n):
            self._granted(n)
            return None
        claim = self._claim(n, context, until)
        return claim, Terms(context, scheduler.clock, until, lambda: scheduler.late(claim))

    def _claim(self, n: int, context: Context, until: float | None) -> Claim:
        # Moments of another clock cannot be compared; such a context still ends the wait.
        deadline = context.deadline if context.clock is self._scheduler.clock else None
        if deadline is None or (until is not None and until < deadline):
            return Claim(n, self._find, until, False, self._priority)
        return Claim(n, self._find, deadline, True, self._priority)

    def _granted(self, n: int) -> None:
        """A call got its tokens without a wait."""
        self._answered("allowed")

    def _answered(self, result: str) -> None:
        if self._hooks is not None:
            self._hooks.answered(result, self._level())

    @contextmanager
    def _watched(self, n: int) -> Iterator[None]:
        """The block of a wait in line: calls the hooks."""
        if (hooks := self._hooks) is None:
            yield
            return
        clock = self._scheduler.clock
        began = clock.monotonic()
        span = hooks.span(n)
        try:
            yield
        except BaseException as error:
            hooks.finish(span, error)
            self._answered(_result(error))
            raise
        hooks.finish(span, None)
        hooks.waited(clock.monotonic() - began)
        self._answered("allowed")

    # -- around other calls ------------------------------------------------------------------

    @property
    def wrap(self) -> Wrapper:
        """A decorator that takes one token before each call, and waits for it if it must.

        As ``Pool(task_wrapper=limiter.wrap)`` it limits how fast tasks begin. A coroutine
        function waits without blocking the event loop. What :meth:`wait` raises, the call
        raises.
        """
        return waiting_wrapper(self, lambda: self.waiting > 0 or self.tokens < 1)


class Pausable(Limiter):
    """A limiter that can be paused."""

    _paused: Bucket  # hands out nothing meanwhile

    @property
    def is_paused(self) -> bool:
        """Whether it is paused now, by the program or by the server."""
        return self.paused_until is not None

    @property
    def paused_until(self) -> float | None:
        """The moment of the limiter's clock when the pause ends; None if it is not paused."""
        with self._scheduler.lock:
            until = self._paused.paused_until(self._now())
        return None if until is None else moment_of(until)

    def pause_for(self, duration: float) -> None:
        """Let nothing through for so many seconds. The longest of several pauses counts.

        Tokens flow in meanwhile.
        """
        length = checked_duration("duration", duration)
        with self._scheduler.changing() as now:
            self._paused.pause(now + ticks(length))

    def pause_until(self, moment: float) -> None:
        """Let nothing through until this moment of the clock. See :meth:`pause_for`."""
        if (until := checked_moment("moment", moment)) is None:
            raise ValueError(f"moment must be a finite moment of the clock, not {moment!r}")
        with self._scheduler.changing():
            self._paused.pause(ticks(until))


class _Waits(Protocol):
    def wait(self) -> None: ...
    async def awaits(self) -> None: ...


def waiting_wrapper(limiter: _Waits, would_wait: Callable[[], bool]) -> Wrapper:
    """A decorator that waits for a token of the limiter before each call."""

    @contextmanager
    def scope() -> Iterator[None]:
        limiter.wait()
        yield

    @asynccontextmanager
    async def ascope() -> AsyncIterator[None]:
        await limiter.awaits()
        yield

    return Wrapper(scope, ascope, entry_only=True, would_wait=would_wait)


def _result(error: BaseException) -> str:
    denied = isinstance(error, Exception) and not isinstance(error, ContextEnded)
    return "denied" if denied else "cancelled"
