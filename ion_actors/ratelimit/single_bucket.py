"""The limiters with one bucket."""

from __future__ import annotations

import logging

from ion_actors._arguments import duration as checked_duration
from ion_actors._arguments import number, whole_number
from ion_actors.clock import Clock
from ion_actors.context import current_context
from ion_actors.observe import Log, Metrics, Probe, Tracer
from ion_actors.observe.living import LIMITERS
from ion_actors.ratelimit.bucket import Bucket, ticks
from ion_actors.ratelimit.claims import BucketQueue
from ion_actors.ratelimit.hooks import LimiterHooks
from ion_actors.ratelimit.limiter import Pausable
from ion_actors.ratelimit.rate import Limit, Rate
from ion_actors.ratelimit.scheduler import Scheduler

__all__ = ["LeakyBucket", "TokenBucket"]


class _OneBucket(Pausable):
    """The common base of both."""

    _gauge: str
    _burst: str  # its name in messages

    def __init__(
        self,
        rate: Rate,
        burst: int,
        name: str,
        clock: Clock | None,
        jitter: float,
        logger: logging.Logger | None,
        metrics: Metrics | None,
        tracer: Tracer | None,
    ) -> None:
        limit = self._limit(rate, burst)
        jitter = number("jitter", jitter, minimum=0, maximum=1)
        clock = current_context().clock if clock is None else clock
        probe = Probe.checked(metrics, tracer, limiter=name)
        self._bucket = self._paused = Bucket(limit, ticks(clock.monotonic()))
        self._queues = (BucketQueue(self._bucket),)
        self._log = Log(logger, "ion_actors.ratelimit", limiter=name)
        self._scheduler = Scheduler(name, clock, jitter)
        self._hooks = None if probe is None else LimiterHooks(probe, self._gauge)
        LIMITERS.add(self)

    def _limit(self, rate: Rate, burst: int) -> Limit:
        whole_number(self._burst, burst, minimum=1)
        return Limit(rate, burst)

    def _find(self) -> tuple[BucketQueue, ...]:
        return self._queues

    def _take(self, n: int) -> bool:
        return self._scheduler.take_one(self._find, self._bucket, n)

    # -- looking ---------------------------------------------------------------------------

    @property
    def rate(self) -> Rate:
        """The current rate; that of a temporary limit, if there is one."""
        return self._limit_now().rate

    def _limit_now(self) -> Limit:
        with self._scheduler.lock:
            self._bucket.refill(self._now())
            return self._bucket.current

    # -- changing --------------------------------------------------------------------------

    def set_rate(self, rate: Rate) -> None:
        """Set the rate.

        During a temporary limit, this applies after it.

        Raises:
            TypeError: ``rate`` is no :class:`Rate`.
        """
        with self._scheduler.changing() as now:
            self._bucket.set_lasting(Limit(rate, self._bucket.lasting.burst), now)
        self._log(logging.INFO, "limiter %r lets %s through", self.name, rate)

    def _set_burst(self, burst: int) -> None:
        whole_number(self._burst, burst, minimum=1)
        with self._scheduler.changing() as now:
            self._bucket.set_lasting(Limit(self._bucket.lasting.rate, burst), now)
        self._log(logging.INFO, "limiter %r has a %s of %d", self.name, self._burst, burst)

    def _set_temporary(self, rate: Rate, burst: int, duration: float) -> None:
        limit = self._limit(rate, burst)
        length = checked_duration("duration", duration)
        with self._scheduler.changing() as now:
            self._bucket.set_temporary(limit, now + ticks(length), now)
        self._log(logging.INFO, "limiter %r lets %s through for %g s", self.name, rate, length)

    def clear_temporary_limit(self) -> None:
        """Return to the lasting limit now. Without a temporary one, nothing happens."""
        with self._scheduler.changing() as now:
            self._bucket.clear_temporary(now)

    def resume(self) -> None:
        """End any pause; calls that can be served now are."""
        with self._scheduler.changing():
            self._bucket.resume()

    def __repr__(self) -> str:
        limit = self._limit_now()
        return f"<{type(self).__name__} {self.name!r} {limit.rate}, {self._burst} {limit.burst}>"


class TokenBucket(_OneBucket):
    """A bucket into which tokens flow at a rate, and which holds at most ``burst``. It starts full.

    Over any period, it hands out at most ``burst`` tokens plus what the rate brings in that time.
    This holds strictly: nothing is rounded in favour of the caller.

    Args:
        rate: how fast tokens flow in.
        burst: how many it holds at most: a whole number of at least 1.
        name: for errors, logs and metrics.
        clock: the clock to use; by default the current context's.
        jitter: waits take up to this part longer, 0 to 1. It prevents several programs from
            synchronising, and costs throughput.
        logger, metrics, tracer: hooks, see :mod:`ion_actors.observe`. By default, the logger is
            named ``ion_actors.ratelimit``, and nothing is measured.

    Raises:
        TypeError, ValueError: an argument makes no sense.
    """

    _gauge = "ion_ratelimit_tokens_available"
    _burst = "burst"

    def __init__(
        self,
        rate: Rate,
        burst: int,
        *,
        name: str = "token_bucket",
        clock: Clock | None = None,
        jitter: float = 0.0,
        logger: logging.Logger | None = None,
        metrics: Metrics | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        super().__init__(rate, burst, name, clock, jitter, logger, metrics, tracer)

    def _level(self) -> float:
        return self.tokens

    @property
    def burst(self) -> int:
        """How many tokens it holds at most now; by a temporary limit, if there is one."""
        return self._limit_now().burst

    def set_burst(self, burst: int) -> None:
        """Set how many tokens it holds at most.

        Tokens beyond it are lost; a larger burst fills at the rate. Calls that wait for more raise
        ``RateLimited``. During a temporary limit, this applies after it.
        """
        self._set_burst(burst)

    def set_temporary_limit(self, rate: Rate, burst: int, duration: float) -> None:
        """Set a rate and burst for so many seconds, replacing any other temporary limit.

        A call of :meth:`set_rate` or :meth:`set_burst` meanwhile takes effect at its end.
        """
        self._set_temporary(rate, burst, duration)

    def drain_to(self, tokens: int) -> None:
        """Keep so many tokens now, or fewer if there are fewer: zero or more."""
        tokens = whole_number("tokens", tokens, minimum=0)
        with self._scheduler.changing() as now:
            self._bucket.drain_to(tokens, now)


class LeakyBucket(_OneBucket):
    """A bucket that calls fill, and that leaks at a rate; a call that would overflow it waits.

    It starts empty. This is the same limit as a :class:`TokenBucket` with the capacity as its
    burst, but it counts the tokens that were taken and have not leaked away, not those that are
    left.

    Args:
        rate: how fast it leaks.
        capacity: how much it holds: a whole number of at least 1.
        name, clock, jitter, logger, metrics, tracer: as for :class:`TokenBucket`.

    Raises:
        TypeError, ValueError: an argument makes no sense.
    """

    _gauge = "ion_ratelimit_bucket_level"
    _burst = "capacity"

    def __init__(
        self,
        rate: Rate,
        capacity: int,
        *,
        name: str = "leaky_bucket",
        clock: Clock | None = None,
        jitter: float = 0.0,
        logger: logging.Logger | None = None,
        metrics: Metrics | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        super().__init__(rate, capacity, name, clock, jitter, logger, metrics, tracer)

    def _level(self) -> float:
        return self.level

    @property
    def level(self) -> float:
        """How full it is now, in tokens."""
        with self._scheduler.lock:
            return self._bucket.room(self._now())

    @property
    def capacity(self) -> int:
        """How much it holds at most now; by a temporary limit, if there is one."""
        return self._limit_now().burst

    def set_capacity(self, capacity: int) -> None:
        """Set the capacity; the level rises or falls with it.

        See :meth:`TokenBucket.set_burst`.
        """
        self._set_burst(capacity)

    def set_temporary_limit(self, rate: Rate, capacity: int, duration: float) -> None:
        """See :meth:`TokenBucket.set_temporary_limit`."""
        self._set_temporary(rate, capacity, duration)

    def fill_to(self, level: int) -> None:
        """Fill it to at least this level now: zero or more, at most the capacity."""
        level = whole_number("level", level, minimum=0)
        with self._scheduler.changing() as now:
            self._bucket.drain_to(max(0, self._bucket.current.burst - level), now)
