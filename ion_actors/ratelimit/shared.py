"""A limit that several processes or machines share, and its reports while its storage fails."""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from ion_actors._arguments import number, optional, seconds, whole_number
from ion_actors.clock import Clock
from ion_actors.context import await_turn, current_context, wait_turn
from ion_actors.errors import RateLimited, StorageUnavailable
from ion_actors.forking import renew_after_fork
from ion_actors.observe import Log, Metrics, Probe, Tracer
from ion_actors.observe.living import LIMITERS
from ion_actors.ratelimit.fair_lock import FairLock
from ion_actors.ratelimit.limiter import waiting_wrapper
from ion_actors.ratelimit.rate import Rate
from ion_actors.ratelimit.store import (
    Secrets,
    Store,
    StoreWait,
    WindowStrategy,
    open_storage,
    until_worth_asking,
)
from ion_actors.wrapping import Wrapper

if TYPE_CHECKING:
    from limits.storage import Storage

__all__ = ["Outage", "SharedLimiter"]

T = TypeVar("T")

# Failures that do not end by themselves: an operator has to act.
_FOR_PEOPLE = frozenset({"authentication", "read_only", "out_of_memory", "script", "refused"})


class Outage:
    """Counts calls that are let through because the storage fails, and logs that at a bounded rate.

    Args:
        limiter: the limiter's name.
        clock: the clock to use.
        every: seconds between two messages, at least.
        log: takes the messages.
        probe: gets the counter ``ion_ratelimit_fail_open_total`` with the label ``kind``, or None.
    """

    def __init__(
        self, limiter: str, clock: Clock, every: float, log: Log, probe: Probe | None
    ) -> None:
        self._limiter = limiter
        self._clock = clock
        self._every = every
        self._log = log
        self._probe = probe
        self._said_at: float | None = None
        self._since = 0  # let through since the last message
        self._announced = False  # the last message said that the storage fails
        self.after_fork()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """In a forked child: a thread of the parent may hold the lock."""
        # Guards the counts and the messages. Nothing waits for it: without it, no message is
        # logged.
        self._lock = threading.Lock()

    def failed(self, error: StorageUnavailable) -> None:
        """One call was let through because of this error."""
        if self._probe is not None:
            self._probe.inc("ion_ratelimit_fail_open_total", kind=error.kind)
        self._since += 1
        if (count := self._due()) is None:
            return
        level = logging.ERROR if error.kind in _FOR_PEOPLE else logging.WARNING
        facts = {"kind": error.kind, "count": count}
        if count == 1:
            self._log(level, "%s lets everything through: %s", self._limiter, error, **facts)
        else:
            self._log(
                level, "%s lets everything through, %d calls since the last message: %s",
                self._limiter, count, error, **facts,
            )  # fmt: skip

    def _due(self) -> int | None:
        """How many were let through since the last message; None if no message is due."""
        if not self._lock.acquire(blocking=False):
            return None
        try:
            now, last = self._clock.monotonic(), self._said_at
            if last is not None and now < last + self._every:
                return None
            self._said_at, self._announced = now, True
            count, self._since = self._since, 0
            return count or None
        finally:
            self._lock.release()

    def over(self) -> None:
        """The storage has answered."""
        if self._announced:
            self._announced = False  # a race of two threads here only logs twice
            self._log(logging.INFO, "%s limits again", self._limiter)


_numbers = itertools.count(1)


class SharedLimiter:
    """A rate that holds for all limiters of the same key, in whatever process or machine.

    The count is kept in a storage of the library `limits`, mostly in Redis. Limiters share it if
    storage, key, rate and strategy are the same. In one process, waiting calls are served in order,
    threads and coroutines alike, and only the first of them asks the storage. Between processes
    there is no order, and **no reservation**: the first call that asks when there are tokens gets
    them, so a call that needs many may wait long while other processes need few.

    Args:
        rate: a whole number of tokens in a whole number of seconds. By the default strategy, no
            window of so many seconds has more tokens; a full window's worth may go at once.
        storage: its address, as ``redis://host:6379/0``, or a storage of `limits` (not one for
            asyncio). ``memory://`` is for trying it out: other processes cannot share it.
        key: what is limited; the same in all processes.
        strategy: how the storage counts. By default it is exact, remembers each token, and uses the
            clocks of the processes, which must agree.
        fail_open: what to do while the storage does not answer, or refuses to (a wrong password, a
            server that is read-only or out of memory): False raises ``StorageUnavailable``, True
            lets everything through, counts that, and logs it: at once, and again after each
            ``remind_after`` seconds.
        remind_after: seconds between two such messages, at least; more than 0.
        name: for errors, logs and metrics; by default ``shared-limiter-1``, ….
        logger: by default the logger ``ion_actors.ratelimit``.
        metrics: gets counters, gauges and a histogram: see below.
        tracer: gets a span ``ion_ratelimit_wait`` for each wait.

    Raises:
        ImportError: `limits` or the client of the storage is not installed: they are in the extra
            ``ion_actors[redis]``.
        StorageUnavailable: the storage is a cluster, which is contacted at once, and does not
            answer.
        TypeError, ValueError: an argument makes no sense; the message names it.

    With Redis, the constructor does not connect; a missing storage is detected at the first use.
    Methods that ask the storage block while it answers: less than a millisecond for a Redis nearby,
    and seconds for one that is missing. The coroutines ask in a thread of the loop's default
    executor, so the loop goes on.

    Metrics (label ``limiter``): ``ion_ratelimit_requests_total`` (and label ``result``:
    allowed, denied, cancelled, error), ``ion_ratelimit_fail_open_total`` (calls that were let
    through since the storage failed; and label ``kind``: see :class:`StorageUnavailable`),
    ``ion_ratelimit_wait_duration_seconds`` (a
    histogram of the waits that were served, without those that found their tokens there) and,
    whenever a wait is refused, ``ion_ratelimit_tokens_available`` (gauge).
    """

    def __init__(
        self,
        rate: Rate,
        *,
        storage: Storage | str,
        key: str,
        strategy: WindowStrategy = WindowStrategy.MOVING_WINDOW,
        fail_open: bool = False,
        remind_after: float = 60.0,
        name: str | None = None,
        logger: logging.Logger | None = None,
        metrics: Metrics | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        if not isinstance(rate, Rate):
            raise TypeError(f"rate must be a Rate, as made by per_second(), not {rate!r}")
        if not isinstance(key, str):
            raise TypeError(f"key must be a string, not {key!r}")
        if not key:
            raise ValueError("key must not be empty: limiters with the same key share the limit")
        try:
            key.encode()
        except UnicodeEncodeError:  # not chained: its text contains the key
            raise ValueError(f"key must be text that UTF-8 can encode, not {key!r}") from None
        if not isinstance(strategy, WindowStrategy):
            raise TypeError(f"strategy must be a WindowStrategy, not {strategy!r}")
        optional("name", name, str)
        if number("remind_after", remind_after, minimum=0) == 0:
            raise ValueError(f"remind_after must be more than 0 seconds, not {remind_after!r}")
        self._rate = rate
        self._name = name or f"shared-limiter-{next(_numbers)}"
        self._fail_open = fail_open
        self._log = Log(logger, "ion_actors.ratelimit", limiter=self._name)
        self._probe = Probe.checked(metrics, tracer, limiter=self._name)
        secrets = Secrets(storage if isinstance(storage, str) else "")
        self._store = Store(rate, open_storage(storage), key, strategy, secrets)
        self._fair_lock = FairLock()
        self._outage = Outage(
            self._name, current_context().clock, remind_after, self._log, self._probe
        )
        LIMITERS.add(self)

    # -- without waiting -------------------------------------------------------------------

    def allow(self, n: int = 1) -> bool:
        """Take ``n`` tokens if they are there now.

        Returns:
            Whether they were taken. Also False while calls wait in this process, since these are
            next.

        Raises:
            StorageUnavailable: the storage did not answer (unless ``fail_open``).
            TypeError, ValueError: ``n`` is no whole number, is less than 1 or more than the rate's.
        """
        self._check_tokens(n)
        if self._fair_lock.held_up:
            self._count("denied")
            return False
        try:
            allowed = self._take(n)
        except StorageUnavailable:
            self._count("error")
            raise
        self._count("allowed" if allowed else "denied")
        return allowed

    async def aallow(self, n: int = 1) -> bool:
        """:meth:`allow` for coroutines; if it is cancelled meanwhile, the tokens may be spent."""
        return await _in_thread(self.allow, n)

    # -- waiting ---------------------------------------------------------------------------

    def wait(self, n: int = 1, timeout: float | None = None) -> None:
        """Take ``n`` tokens; wait until it is the call's turn and there are enough.

        Args:
            n: tokens, 1 or more.
            timeout: seconds to wait at most; None for any time.

        Raises:
            RateLimited: there cannot be enough in time; it is raised as soon as that is known, and
                nothing was taken. (Also a ``TimeoutError``.)
            RateLimitedPastDeadline: the same, for the deadline of the current context.
            Cancelled, DeadlineExceeded: the current context ended.
            StorageUnavailable: the storage did not answer (unless ``fail_open``).
            TypeError, ValueError: an argument makes no sense: see :meth:`allow`.
        """
        attempt = self._attempt(n, timeout)
        with self._observed(attempt):
            wait_turn(self._fair_lock, None, attempt.terms())
            try:
                while (pause := self._poll(attempt)) is not None:
                    self._fair_lock.held_up = True
                    if attempt.context.wait(timeout=pause):
                        attempt.context.check()
            finally:
                self._fair_lock.leave()

    async def awaits(self, n: int = 1, timeout: float | None = None) -> None:
        """:meth:`wait` for coroutines.

        A cancelled one leaves the line. If that happens while the storage is asked, its tokens may
        be spent: the storage cannot take them back.
        """
        attempt = self._attempt(n, timeout)
        with self._observed(attempt):
            await await_turn(self._fair_lock, None, attempt.terms())
            try:
                while (pause := await _in_thread(self._poll, attempt)) is not None:
                    self._fair_lock.held_up = True
                    if await attempt.context.await_(timeout=pause):
                        attempt.context.check()
            finally:
                self._fair_lock.leave()

    @property
    def wrap(self) -> Wrapper:
        """A decorator that waits for a token before each call; also a pool's ``task_wrapper``."""
        return waiting_wrapper(self, lambda: self._fair_lock.waiting > 0)

    # -- facts -----------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The limiter's name."""
        return self._name

    @property
    def rate(self) -> Rate:
        """The rate."""
        return self._rate

    @property
    def tokens(self) -> int:
        """How many tokens there are now. Asks the storage: it may raise StorageUnavailable."""
        return self._store.level().remaining

    async def atokens(self) -> int:
        """:attr:`tokens` for coroutines."""
        return (await _in_thread(self._store.level)).remaining

    @property
    def waiting(self) -> int:
        """How many calls wait in this process, for tokens or for their turn."""
        return self._fair_lock.waiting

    def reset(self) -> None:
        """Clear the count for all limiters that share it.

        Waiting calls notice when they ask the next time: after 30 s at the latest.

        Raises:
            StorageUnavailable: the storage did not answer.
        """
        self._store.clear()

    def __repr__(self) -> str:
        return f"<SharedLimiter {self._name!r} {self._rate}, waiting={self.waiting}>"

    # -- inside ----------------------------------------------------------------------------

    def _attempt(self, n: int, timeout: float | None) -> StoreWait:
        self._check_tokens(n)
        limit = seconds("timeout", timeout)
        context = current_context()
        context.check()
        return StoreWait(self._name, self._rate, n, context, limit)

    def _check_tokens(self, n: int) -> None:
        if whole_number("n", n, minimum=1) > self._rate.tokens:
            raise ValueError(
                f"n must be at most the rate's {self._rate.tokens:g} tokens, not {n!r}: "
                "there can never be so many"
            )

    def _poll(self, attempt: StoreWait) -> float | None:
        """Take the tokens (None), or return the seconds to wait before the next try."""
        attempt.context.check()
        if self._take(attempt.n):
            return None
        try:
            attempt.level = level = self._store.level()
        except StorageUnavailable as error:
            if not self._fail_open:
                raise
            self._outage.failed(error)
            return None
        if self._probe is not None:
            self._probe.gauge("ion_ratelimit_tokens_available", level.remaining)
        if attempt.hopeless:
            raise attempt.refusal()
        return min(until_worth_asking(level, attempt.n, self._rate), attempt.left)

    def _take(self, n: int) -> bool:
        try:
            taken = self._store.take(n)
        except StorageUnavailable as error:
            if not self._fail_open:
                raise
            self._outage.failed(error)
            return True
        self._outage.over()
        return taken

    def _count(self, result: str) -> None:
        if self._probe is not None:
            self._probe.inc("ion_ratelimit_requests_total", result=result)

    @contextmanager
    def _observed(self, attempt: StoreWait) -> Iterator[None]:
        if self._probe is None:
            yield
            return
        span = self._probe.start("ion_ratelimit_wait", tokens=attempt.n)
        try:
            yield
        except BaseException as error:
            self._count(_result(error))
            self._probe.finish(span, error)
            raise
        self._count("allowed")
        if attempt.level is not None:
            self._probe.histogram("ion_ratelimit_wait_duration_seconds", attempt.waited)
        self._probe.finish(span)


def _result(error: BaseException) -> str:
    if isinstance(error, RateLimited):
        return "denied"
    return "error" if isinstance(error, StorageUnavailable) else "cancelled"


async def _in_thread(call: Callable[..., T], *args: Any) -> T:
    import asyncio  # noqa: PLC0415 - it is large, and imported already where a loop runs

    return await asyncio.to_thread(call, *args)
