"""The public semaphore."""

from __future__ import annotations

import itertools
import logging
from typing import Literal

from ion_actors._arguments import optional, seconds, whole_number
from ion_actors.context import CURRENT, Context, background, current_context, of_thread
from ion_actors.errors import OverReleased, WeightExceedsCapacity
from ion_actors.observe import Log, Metrics, Probe, Tracer
from ion_actors.observe.living import SEMAPHORES
from ion_actors.semaphore.attempt import Attempt, SemaphoreCore
from ion_actors.semaphore.hooks import SemaphoreHooks
from ion_actors.semaphore.line import Fairness, SemaphoreMetrics
from ion_actors.semaphore.permits import Permits
from ion_actors.wrapping import Wrapper

__all__ = ["Hold", "WeightedSemaphore"]

_numbers = itertools.count(1)


class WeightedSemaphore:
    """Permits for a scarce resource; a caller may take several at once.

    Threads and coroutines wait in the same line of one instance. Permits have no owner: any thread
    may release those that another one has acquired.

    Args:
        capacity: how many permits there are, 1 or more.
        name: for errors, logs and metrics; by default ``semaphore-1``, ``semaphore-2``, …
        fairness: which waiter is next when permits become free; by default the one that has waited
            longest.
        acquire_timeout: the default timeout of acquisitions in seconds; by default any time.
        logger: gets waits and given up waits at level DEBUG, with the number of permits in
            ``extra``; by default the logger ``ion_actors.semaphore``.
        metrics: gets counters, gauges and a histogram: see :mod:`ion_actors.observe`.
        tracer: gets a span for each acquisition that has to wait.

    Raises:
        TypeError, ValueError: an argument makes no sense; the message names it.
    """

    def __init__(
        self,
        capacity: int,
        *,
        name: str | None = None,
        fairness: Fairness = Fairness.FIFO,
        acquire_timeout: float | None = None,
        logger: logging.Logger | None = None,
        metrics: Metrics | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        self._capacity = int(whole_number("capacity", capacity, minimum=1))
        optional("name", name, str)
        if not isinstance(fairness, Fairness):
            raise TypeError(f"fairness must be a Fairness, not {fairness!r}")
        self._timeout = seconds("acquire_timeout", acquire_timeout)
        name = name or f"semaphore-{next(_numbers)}"
        self._permits = permits = Permits(self._capacity, fairness)
        probe = Probe.checked(metrics, tracer, semaphore=name)
        self._hooks = None if probe is None else SemaphoreHooks(probe, permits)
        log = Log(logger, "ion_actors.semaphore", semaphore=name)
        self._core = SemaphoreCore(name, permits, log, self._hooks)
        SEMAPHORES.add(self)

    # -- acquiring -------------------------------------------------------------------------

    def acquire(
        self, n: int = 1, timeout: float | None = None, context: Context | None = None
    ) -> Literal[True]:
        """Take ``n`` permits; wait until it is the caller's turn and there are enough.

        Args:
            n: 1 or more, at most the capacity.
            timeout: seconds to wait at most; 0 for no wait, infinity for no limit. By default the
                semaphore's ``acquire_timeout``.
            context: ends the wait when it ends; by default the current one.

        Returns:
            True, always, as the standard library's semaphores do when they succeed.

        Raises:
            AcquireTimeout: there were not enough in time (also a ``TimeoutError``).
            Cancelled, DeadlineExceeded: the context ended first, or had ended before. No permit is
                taken then, even if some are free.
            WeightExceedsCapacity: ``n`` exceeds the capacity, so the wait would never end (also a
                ``ValueError``).
            TypeError, ValueError: an argument makes no sense.

        Ctrl-C and exceptions like it end the wait and take nothing.
        """
        attempt = self._attempt(n, timeout, context)
        if attempt is not None:
            attempt.wait()
        return True

    async def aacquire(
        self, n: int = 1, timeout: float | None = None, context: Context | None = None
    ) -> Literal[True]:
        """:meth:`acquire` for coroutines.

        A cancelled one leaves the line, or gives back permits that were granted at that moment.
        """
        attempt = self._attempt(n, timeout, context)
        if attempt is not None:
            await attempt.await_()
        return True

    def try_acquire(self, n: int = 1) -> bool:
        """Take ``n`` permits, if there are enough now and no waiter is next.

        Returns:
            Whether they were taken.

        Raises:
            WeightExceedsCapacity: ``n`` exceeds the capacity, so this would never succeed.
            TypeError, ValueError: ``n`` is no whole number of at least 1.

        It never waits, and ignores contexts.
        """
        if type(n) is not int or not 0 < n <= self._capacity:
            n = self._weight(n)
        if self._take(n):
            return True
        if self._hooks is not None:
            self._hooks.failed("denied")
        return False

    def _attempt(self, n: int, timeout: float | None, context: Context | None) -> Attempt | None:
        """Take the permits now (None), or return the wait for them."""
        # This runs for every acquisition, so it checks before it calls.
        if type(n) is not int or not 0 < n <= self._capacity:
            n = self._weight(n)
        limit = self._timeout if timeout is None else seconds("timeout", timeout)
        if context is not None or CURRENT.get() is not None or of_thread.task_context is not None:
            context = _alive(context)
        if self._permits.take(n) if self._hooks is None else self._take(n):
            return None
        if limit == 0:
            if self._hooks is not None:
                self._hooks.failed("denied")
            raise self._core.late(n, limit)
        return Attempt(self._core, n, limit, context or background())

    def _take(self, n: int) -> bool:
        if not self._permits.take(n):
            return False
        if self._hooks is not None:
            try:
                self._hooks.acquired(0.0)
            except BaseException:  # Ctrl-C: the caller will not learn that it has them
                self._permits.give_back(n)
                raise
        return True

    def _weight(self, n: object) -> int:
        # A plain int: the arithmetic of a subclass would run under the lock.
        weight = int(whole_number("n", n, minimum=1))
        if weight > self._capacity:
            raise WeightExceedsCapacity(self.name, weight, self._capacity)
        return weight

    # -- releasing -------------------------------------------------------------------------

    def release(self, n: int = 1) -> None:
        """Give ``n`` permits back, and serve the next waiters. It never waits.

        Raises:
            OverReleased: fewer are held (also a ``ValueError``); nothing was released.
            TypeError, ValueError: ``n`` is no whole number of at least 1.
        """
        if type(n) is not int or n < 1:
            n = int(whole_number("n", n, minimum=1))
        if not self._permits.give_back(n):
            raise OverReleased(self.name, n, self._capacity - self._permits.available)
        if self._hooks is not None:
            self._hooks.changed()

    def _give_back(self, n: int, receipt: list[bool]) -> None:
        """:meth:`release` that fills the receipt once it has happened."""
        if not self._permits.give_back(n, receipt):
            raise OverReleased(self.name, n, self._capacity - self._permits.available)
        if self._hooks is not None:
            self._hooks.changed()

    # -- blocks and wrappers ---------------------------------------------------------------

    def hold(
        self, n: int = 1, timeout: float | None = None, context: Context | None = None
    ) -> Hold:
        """A block, ``with`` or ``async with``, that holds ``n`` permits.

        The arguments and the errors are those of :meth:`acquire`; invalid arguments are rejected
        here. The result may be kept, and be entered by several threads at once.
        """
        seconds("timeout", timeout)
        if context is not None:
            _checked(context)
        return Hold(self, self._weight(n), timeout, context)

    @property
    def wrap(self) -> Wrapper:
        """A decorator that holds one permit for each call; also a ``task_wrapper`` for a pool."""
        return self.wrap_with()

    def wrap_with(self, n: int = 1, timeout: float | None = None) -> Wrapper:
        """A decorator that holds ``n`` permits for each call: of a function or of a coroutine.

        Args:
            n: as for :meth:`acquire`.
            timeout: as for :meth:`acquire`; the call raises ``AcquireTimeout`` and is not made.
        """
        hold = self.hold(n, timeout)
        permits = self._permits
        return Wrapper(
            lambda: hold,
            lambda: hold,
            would_wait=lambda: permits.waiting > 0 or permits.available < n,
        )

    # -- facts -----------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The semaphore's name."""
        return self._core.name

    @property
    def capacity(self) -> int:
        """How many permits there are."""
        return self._capacity

    @property
    def fairness(self) -> Fairness:
        """Which waiter is next when permits become free."""
        return self._permits.fairness

    @property
    def available(self) -> int:
        """The number of free permits. Under FIFO, waiters come first."""
        return self._permits.available

    @property
    def waiting(self) -> int:
        """The number of waiters, however many permits they want."""
        return self._permits.waiting

    def metrics(self) -> SemaphoreMetrics:
        """The current numbers."""
        return self._permits.snapshot()

    def __repr__(self) -> str:
        now = self.metrics()
        return (
            f"<WeightedSemaphore {self.name!r} {self.fairness.value}, "
            f"available={now.available}/{now.capacity}, waiting={now.waiting}>"
        )


def _alive(context: Context | None) -> Context:
    """The context to wait under, which must not have ended."""
    found = current_context() if context is None else _checked(context)
    found.check()
    return found


def _checked(context: Context) -> Context:
    if not isinstance(context, Context):
        raise TypeError(f"context must be a Context or None, not {context!r}")
    return context


class Hold:
    """Permits for as long as a block lasts: see :meth:`WeightedSemaphore.hold`."""

    # It has no state of its own, so it may be shared.
    __slots__ = ("_context", "_n", "_semaphore", "_timeout")

    def __init__(
        self, semaphore: WeightedSemaphore, n: int, timeout: float | None, context: Context | None
    ) -> None:
        self._semaphore = semaphore
        self._n = n
        self._timeout = timeout
        self._context = context

    def __enter__(self) -> None:
        self._semaphore.acquire(self._n, self._timeout, self._context)

    def __exit__(self, *_: object) -> None:
        receipt: list[bool] = []
        try:
            self._semaphore._give_back(self._n, receipt)
        except BaseException:  # Ctrl-C, perhaps before it began: nobody leaves this block again
            if not receipt:
                self._semaphore.release(self._n)
            raise

    async def __aenter__(self) -> None:
        await self._semaphore.aacquire(self._n, self._timeout, self._context)

    async def __aexit__(self, *_: object) -> None:
        self.__exit__()
