"""The limit in use: samples go to the algorithm, and its answers to the permits."""

from __future__ import annotations

import logging
import threading
import weakref
from dataclasses import dataclass
from typing import Any

from ion_actors.adaptive.algorithms import Algorithm, Bounds, Sample
from ion_actors.clock import Clock
from ion_actors.forking import renew_after_fork
from ion_actors.observe import Log, Probe
from ion_actors.semaphore.permits import Permits

__all__ = ["AdaptiveMetrics", "Learner"]


@dataclass(frozen=True, slots=True)
class AdaptiveMetrics:
    """The numbers of an adaptive limit at one moment.

    Attributes:
        limit: how many calls may be under way.
        in_flight: how many are.
        waiting: how many callers wait for a permit.
        succeeded: calls that have succeeded.
        overloaded: calls that were refused because there was too much.
        ignored: calls that ended in another way, and taught nothing.
        paused: whether no call may begin now, since the other side said when to come again.
    """

    limit: int
    in_flight: int
    waiting: int
    succeeded: int
    overloaded: int
    ignored: int
    paused: bool


class Learner:
    """See the module.

    The algorithm may be the user's: it runs under no lock. Its answer is kept if no other call has
    ended meanwhile; otherwise it is asked again.
    """

    def __init__(
        self,
        name: str,
        permits: Permits,
        algorithm: Algorithm,
        bounds: Bounds,
        clock: Clock,
        log: Log,
        probe: Probe | None,
    ) -> None:
        self.name = name
        self.permits = permits
        self.clock = clock
        self._algorithm = algorithm
        self._bounds = bounds
        self._log = log
        self._probe = probe
        self._state: Any = algorithm.begin(float(permits.capacity), bounds)
        self._limit = permits.capacity
        self._paused_until = 0.0
        self._timed = False  # whether a timer will end the pause
        self._counts = {"success": 0, "overloaded": 0, "ignored": 0}
        # Guards all of these. Reentrant, since a permit may end in a finalizer.
        self._lock = threading.RLock()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """In a forked child: the lock may have been held, and no timer runs."""
        self._lock = threading.RLock()
        self._timed = False
        self._paused_until = 0.0

    @property
    def limit(self) -> int:
        """How many calls may be under way."""
        return self._limit

    @property
    def in_flight(self) -> int:
        """How many calls are under way."""
        now = self.permits.snapshot()
        return now.capacity - now.available

    def learn(self, sample: Sample, retry_after: float | None) -> None:
        """A call has succeeded, or was refused; ``retry_after`` is in seconds."""
        before = self._limit
        try:
            self._decide(sample, retry_after)
            self._apply()
        except BaseException:  # Ctrl-C: what was decided has to be seen by those who wait
            self._apply()
            raise
        if self._limit != before:
            self._tell(before, sample)

    def _decide(self, sample: Sample, retry_after: float | None) -> None:
        while True:
            state = self._state
            new = self._algorithm.after(state, sample, self._bounds)
            limit = int(self._bounds.hold(float(new.limit)))
            with self._lock:
                if self._state is not state:
                    continue
                self._state, self._limit = new, limit
                self._counts["overloaded" if sample.overloaded else "success"] += 1
                if retry_after is not None:
                    until = self.clock.monotonic() + retry_after
                    self._paused_until = max(self._paused_until, until)
                return

    def ignored(self) -> None:
        """A call has ended and taught nothing."""
        with self._lock:
            self._counts["ignored"] += 1

    def metrics(self) -> AdaptiveMetrics:
        """The numbers of this moment."""
        with self._lock:
            counts = dict(self._counts)
            limit, paused = self._limit, self._is_paused()
        now = self.permits.snapshot()
        return AdaptiveMetrics(
            limit,
            now.capacity - now.available,
            now.waiting,
            counts["success"],
            counts["overloaded"],
            counts["ignored"],
            paused,
        )

    # -- the permits -----------------------------------------------------------------------

    def _apply(self) -> None:
        """Have as many permits as the limit says, or none in a pause, which a timer ends."""
        while True:
            with self._lock:
                paused = self._is_paused()
                wanted = 0 if paused else self._limit
            if paused:
                self._await_end()
            if self.permits.capacity == wanted:
                return
            self.permits.resize(wanted)  # not under the lock: it wakes waiters

    def _is_paused(self) -> bool:
        return self.clock.monotonic() < self._paused_until

    def _await_end(self) -> None:
        with self._lock:
            if self._timed:
                return
            self._timed = True
        try:
            self.clock.call_at(self._paused_until, _Resumption(self))
        except BaseException:
            self._timed = False
            raise

    def resume(self) -> None:
        """The pause may be over, or have become longer."""
        self._timed = False
        self._apply()

    # -- telling ---------------------------------------------------------------------------

    def _tell(self, before: int, sample: Sample) -> None:
        limit = self._limit
        self._log(
            logging.DEBUG,
            "limit %r: %d calls at a time, %d before (%s)",
            self.name, limit, before, "overload" if sample.overloaded else "success",
            limit=limit,
        )  # fmt: skip
        if self._probe is not None:
            self._probe.gauge("ion_adaptive_limit", limit)

    @property
    def has_hooks(self) -> bool:
        """Whether anybody is told of calls that have ended."""
        return self._probe is not None

    def ended(self, status: str, latency: float) -> None:
        """Tell the hooks of a call that has ended after so many seconds."""
        if self._probe is not None:
            self._probe.inc("ion_adaptive_calls_total", status=status)
            self._probe.histogram("ion_adaptive_call_duration_seconds", latency)


class _Resumption:
    """What the clock calls at the end of a pause; it keeps no limit alive."""

    __slots__ = ("_learner",)

    def __init__(self, learner: Learner) -> None:
        self._learner = weakref.ref(learner)

    def __call__(self) -> None:
        learner = self._learner()
        if learner is not None:
            learner.resume()
