"""The public limit."""

from __future__ import annotations

import functools
import itertools
import logging

from ion_actors._arguments import exceptions_or_predicate, optional, seconds, whole_number
from ion_actors.adaptive import overload
from ion_actors.adaptive.algorithms import AIMD, Algorithm, Bounds
from ion_actors.adaptive.learner import AdaptiveMetrics, Learner
from ion_actors.adaptive.permit import CallBlock, Permit
from ion_actors.clock import Clock
from ion_actors.context import Context, Terms, await_turn, current_context, wait_turn
from ion_actors.errors import AcquireTimeout
from ion_actors.interruption import is_interruption
from ion_actors.observe import Log, Metrics, Probe, Span, Tracer
from ion_actors.observe.living import ADAPTIVE_LIMITS
from ion_actors.raised import is_a
from ion_actors.semaphore.line import Fairness
from ion_actors.semaphore.permits import Permits
from ion_actors.wrapping import Wrapper

__all__ = ["AdaptiveLimit"]

_numbers = itertools.count(1)


class AdaptiveLimit:
    """How many calls may be under way to something whose capacity nobody knows.

    It is learnt from the calls: from refusals, or from how long they take. Threads and coroutines
    wait in one line, and are served in order.

    Args:
        initial: the first limit.
        minimum: the least that it may become, 1 or more.
        maximum: the most.
        algorithm: how it is learnt; by default :class:`AIMD`, from refusals. :class:`Vegas` and
            :class:`Gradient` also go by latency, for servers that queue instead of refusing.
        is_overload: which exceptions of a block or a wrapped call are refusals: types, or a
            predicate; by default :func:`ion_actors.adaptive.is_overload`. Others are ignored.
        name: for errors, logs and metrics; by default ``limit-1``, ``limit-2``, …
        logger: gets each change of the limit at level DEBUG; by default ``ion_actors.adaptive``.
        metrics: gets ``ion_adaptive_limit`` (a gauge), ``ion_adaptive_calls_total`` (with label
            ``status``: success, overloaded, ignored) and ``ion_adaptive_call_duration_seconds``.
        tracer: gets a span ``ion_adaptive_acquire`` for each acquisition that has to wait.
        clock: times the calls and the pauses; by default that of the current context.

    Raises:
        TypeError, ValueError: an argument makes no sense; the message names it.
    """

    def __init__(
        self,
        initial: int = 10,
        *,
        minimum: int = 1,
        maximum: int = 1000,
        algorithm: Algorithm | None = None,
        is_overload: overload.IsOverload | None = None,
        name: str | None = None,
        logger: logging.Logger | None = None,
        metrics: Metrics | None = None,
        tracer: Tracer | None = None,
        clock: Clock | None = None,
    ) -> None:
        optional("name", name, str)
        bounds = _bounds(initial, minimum, maximum)
        _check_algorithm(algorithm)
        if clock is not None and not callable(getattr(clock, "call_at", None)):
            raise TypeError(f"clock must be a Clock or None, not {clock!r}")
        self._is_overload = _checked(is_overload)
        name = name or f"limit-{next(_numbers)}"
        self._log = Log(logger, "ion_actors.adaptive", limiter=name)
        self._probe = Probe.checked(metrics, tracer, limiter=name)
        self._permits = Permits(int(initial), Fairness.FIFO)
        self._learner = Learner(
            name,
            self._permits,
            AIMD() if algorithm is None else algorithm,
            bounds,
            clock or current_context().clock,
            self._log,
            self._probe,
        )
        ADAPTIVE_LIMITS.add(self)

    # -- calls -----------------------------------------------------------------------------

    def try_acquire(self) -> Permit | None:
        """A permit for one call, if there is one now and no waiter is next; it never waits."""
        permit, taken = Permit(self._learner), False
        try:
            taken = self._permits.take(1)
            if not taken:
                return None
            permit.begin()
        except BaseException:  # Ctrl-C: the caller will not learn that it has it
            if taken:
                self._withdraw(permit)
            raise
        return permit

    def acquire(self, timeout: float | None = None, context: Context | None = None) -> Permit:
        """A permit for one call; wait until it is the caller's turn.

        Args:
            timeout: seconds to wait at most; None or infinity for any time.
            context: ends the wait when it ends; by default the current one.

        Raises:
            AcquireTimeout: there was none in time (also a ``TimeoutError``).
            Cancelled, DeadlineExceeded: the context ended first.
            TypeError, ValueError: an argument makes no sense.
        """
        terms = self._terms(timeout, context)
        if (permit := self.try_acquire()) is not None:
            return permit
        if timeout == 0:
            raise terms.late()
        span = self._span()
        try:
            wait_turn(self._permits, 1, terms)
            permit = self._served()
        except BaseException as error:
            self._finish(span, error)
            raise
        self._finish(span, None)
        return permit

    async def aacquire(
        self, timeout: float | None = None, context: Context | None = None
    ) -> Permit:
        """:meth:`acquire` for coroutines."""
        terms = self._terms(timeout, context)
        if (permit := self.try_acquire()) is not None:
            return permit
        if timeout == 0:
            raise terms.late()
        span = self._span()
        try:
            await await_turn(self._permits, 1, terms)
            permit = self._served()
        except BaseException as error:
            self._finish(span, error)
            raise
        self._finish(span, None)
        return permit

    def hold(self, timeout: float | None = None, context: Context | None = None) -> CallBlock:
        """One call as a block, ``with`` or ``async with``; its value is the permit.

        Left normally it is a success; left by an exception a refusal, if that is an overload, and
        ignored otherwise. The arguments are those of :meth:`acquire`.
        """
        self._terms(timeout, context)
        return CallBlock(
            functools.partial(self.acquire, timeout, context),
            functools.partial(self.aacquire, timeout, context),
            self._judge,
        )

    @property
    def wrap(self) -> Wrapper:
        """A decorator that makes each call such a block; also a ``task_wrapper`` for a pool."""
        permits = self._permits
        return Wrapper(self.hold, self.hold, would_wait=lambda: permits.available < 1)

    def _served(self) -> Permit:
        """The permit of a wait that was served."""
        permit = Permit(self._learner)
        try:
            permit.begin()
        except BaseException:  # Ctrl-C: the caller will not learn that it has it
            self._withdraw(permit)
            raise
        return permit

    def _withdraw(self, permit: Permit) -> None:
        """Give back what was taken for this one, whether the call has begun or not."""
        if permit.ended:
            self._permits.give_back(1)
        else:
            permit.ignore()

    def _terms(self, timeout: float | None, context: Context | None) -> Terms:
        limit = seconds("timeout", timeout)
        if context is not None and not isinstance(context, Context):
            raise TypeError(f"context must be a Context or None, not {context!r}")
        context = current_context() if context is None else context
        context.check()
        deadline = None if limit is None else context.clock.monotonic() + limit
        return Terms(context, context.clock, deadline, functools.partial(self._late, limit))

    def _late(self, timeout: float | None) -> AcquireTimeout:
        now = self.metrics()
        return AcquireTimeout(
            f"limit {self.name!r}: no call could begin within {timeout:g} s; in flight: "
            f"{now.in_flight} of {now.limit}, in line: {now.waiting}"
            f"{', paused' if now.paused else ''}",
            semaphore=self.name,
            permits=1,
            timeout=timeout or 0.0,
        )

    def _judge(self, error: BaseException) -> bool:
        """Whether this exception of a call is a refusal."""
        if not is_a(error, Exception) or is_interruption(error):
            return False
        rule = self._is_overload
        if isinstance(rule, (type, tuple)):
            return is_a(error, rule)
        try:
            return bool(rule(error))
        except Exception as fault:  # the predicate is the user's
            self._log(logging.ERROR, "is_overload of limit %r failed", self.name, error=fault)
            return False

    # -- hooks -----------------------------------------------------------------------------

    def _span(self) -> Span | None:
        return None if self._probe is None else self._probe.start("ion_adaptive_acquire")

    def _finish(self, span: Span | None, error: BaseException | None) -> None:
        if self._probe is not None:
            self._probe.finish(span, error)

    # -- facts -----------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The limit's name."""
        return self._learner.name

    @property
    def limit(self) -> int:
        """How many calls may be under way now."""
        return self._learner.limit

    @property
    def in_flight(self) -> int:
        """How many calls are under way."""
        return self._learner.in_flight

    @property
    def waiting(self) -> int:
        """How many callers wait for a permit."""
        return self._permits.waiting

    def metrics(self) -> AdaptiveMetrics:
        """The numbers of this moment."""
        return self._learner.metrics()

    def __repr__(self) -> str:
        now = self.metrics()
        return (
            f"<AdaptiveLimit {self.name!r} in_flight={now.in_flight}/{now.limit}, "
            f"waiting={now.waiting}>"
        )


def _bounds(initial: object, minimum: object, maximum: object) -> Bounds:
    least = int(whole_number("minimum", minimum, minimum=1))
    most = int(whole_number("maximum", maximum, minimum=least))
    first = int(whole_number("initial", initial, minimum=least))
    if first > most:
        raise ValueError(f"initial must be at most maximum ({most}), not {initial!r}")
    return Bounds(least, most)


def _check_algorithm(algorithm: object) -> None:
    if algorithm is None:
        return
    if isinstance(algorithm, type) or not (
        callable(getattr(algorithm, "begin", None)) and callable(getattr(algorithm, "after", None))
    ):
        raise TypeError(
            "algorithm must be AIMD(), Vegas() or Gradient(), or have begin() and after(), "
            f"not {algorithm!r}"
        )


def _checked(rule: overload.IsOverload | None) -> overload.IsOverload:
    if rule is None:
        return overload.is_overload
    exceptions_or_predicate("is_overload", rule)
    return rule
