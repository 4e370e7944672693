"""How a limit is learnt: pure decisions on the calls that have ended.

An algorithm is handed one :class:`Sample` for each call that has ended, and answers with its next
state; a state is never changed. All of them count in *rounds*: a round is over when as many calls
have succeeded as the limit allows at a time, each begun since the limit was last changed. So they
need no time constants, and act as fast as the other side answers.

::

    AIMD      from refusals alone: finds the level that is not refused, and now and then tries more
    Vegas     from latency: keeps a few calls queued at the other side, as TCP Vegas does
    Gradient  from latency: shrinks in proportion to how much it has grown

The ideas are those of TCP (Jacobson 1988; Vegas: Brakmo and Peterson 1995; the search for the last
good level: BIC, Xu and others 2004; the rounds at a low rate that measure the latency without
queues: BBR, 2016), and of Netflix's concurrency-limits, which brought them to calls between
services.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Protocol

from ion_actors._arguments import make_plain, number, whole_number

__all__ = ["AIMD", "Algorithm", "Bounds", "Gradient", "LimitState", "Sample", "Vegas"]


@dataclass(frozen=True, slots=True)
class Sample:
    """A call that has ended.

    Attributes:
        began: when it began, on the limit's clock.
        ended: when it ended.
        in_flight: how many calls were under way as it ended, itself included.
        overloaded: whether it was refused because there was too much; otherwise it succeeded.
    """

    began: float
    ended: float
    in_flight: int
    overloaded: bool

    @property
    def latency(self) -> float:
        """Seconds from its begin to its end."""
        return self.ended - self.began


@dataclass(frozen=True, slots=True)
class Bounds:
    """The least and the most that a limit may be."""

    minimum: int
    maximum: int

    def hold(self, limit: float) -> float:
        """The nearest limit within the bounds."""
        return min(max(limit, float(self.minimum)), float(self.maximum))


class LimitState(Protocol):
    """What an algorithm knows."""

    @property
    def limit(self) -> float:
        """How many calls may be under way; rounded down."""
        ...


class Algorithm(Protocol):
    """Learns a limit. Write your own with these two methods; they must change nothing."""

    def begin(self, limit: float, bounds: Bounds, /) -> Any:
        """The first state, a :class:`LimitState`."""
        ...

    def after(self, state: Any, sample: Sample, bounds: Bounds, /) -> Any:
        """The state after a call that has ended."""
        ...


# -- refusals --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Level:
    """What refusals have taught.

    ``good`` is the highest level that was not refused; ``step`` is by how much the level was raised
    beyond it, 0 while it is kept; ``rounds`` are those since then. Calls that began before
    ``since`` say nothing about the present level, and those before ``cut`` have been answered.
    """

    limit: float
    good: float
    step: float = 0.0
    rounds: int = 0
    successes: int = 0
    since: float = -math.inf
    cut: float = -math.inf


@dataclass(frozen=True, slots=True)
class AIMD:
    """Additive increase, multiplicative decrease, with a memory of the last good level.

    The limit grows by 1, 2, 4, … per round as long as nothing is refused. A refusal at a raised
    limit puts it back to the level before, where it stays for ``hold`` rounds before the next try.
    A refusal at that level multiplies it by ``backoff``. So, in the long run, about one call in
    ``hold`` rounds is refused.

    Args:
        backoff: by what to multiply, from above 0 to below 1.
        hold: rounds at a good level before the next try, 1 or more.

    Raises:
        TypeError, ValueError: an argument makes no sense.
    """

    backoff: float = 0.9
    hold: int = 5

    def __post_init__(self) -> None:
        _check_backoff(self.backoff)
        whole_number("hold", self.hold, minimum=1)
        make_plain(self, "backoff", "hold")

    def begin(self, limit: float, bounds: Bounds, /) -> _Level:
        """See :class:`Algorithm`."""
        return _Level(bounds.hold(limit), bounds.hold(limit), rounds=self.hold)

    def after(self, state: _Level, sample: Sample, bounds: Bounds, /) -> _Level:
        """See :class:`Algorithm`."""
        if sample.overloaded:
            return self._refused(state, sample, bounds)
        if sample.began < state.since or 2 * sample.in_flight < state.limit:
            return state
        if state.successes + 1 < int(state.limit):
            return replace(state, successes=state.successes + 1)
        return self._round(state, sample.ended, bounds)

    def _refused(self, state: _Level, sample: Sample, bounds: Bounds) -> _Level:
        if sample.began < state.cut:
            return state
        limit = state.good if state.step else bounds.hold(state.limit * self.backoff)
        return _Level(limit, limit, since=sample.ended, cut=sample.ended)

    def _round(self, state: _Level, now: float, bounds: Bounds) -> _Level:
        """A round without a refusal is over."""
        if not state.step and state.rounds + 1 < self.hold:
            return replace(state, rounds=state.rounds + 1, successes=0)
        step = 2 * state.step or 1.0
        limit = bounds.hold(state.limit + step)
        return _Level(limit, state.limit, step, since=now, cut=state.cut)


# -- latency ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Latency:
    """What latencies have taught, and the level that refusals allow.

    ``base`` is the least average of a round: the latency without queues, as far as is known. It is
    measured anew by rounds at a quarter of the limit (``probing`` counts them down), where there
    is no queue: a base that was measured with one would let the limit grow for ever.
    """

    level: _Level
    target: float
    base: float = math.inf
    total: float = 0.0
    successes: int = 0
    rounds: int = 0
    probing: int = 0
    starting: bool = True
    since: float = -math.inf

    @property
    def limit(self) -> float:
        """The less of both; a quarter of it while the base is measured."""
        limit = min(self.level.limit, self.target)
        return limit / 4 if self.probing else limit


@dataclass(frozen=True, slots=True)
class _ByLatency:
    """What the algorithms that go by latency have in common: rounds, and the measured base."""

    backoff: float = 0.9
    probe_every: int = 60

    def __post_init__(self) -> None:
        _check_backoff(self.backoff)
        whole_number("probe_every", self.probe_every, minimum=10)
        make_plain(self, "backoff", "probe_every")

    def begin(self, limit: float, bounds: Bounds, /) -> _Latency:
        """See :class:`Algorithm`."""
        level = self._refusals().begin(limit, bounds)
        return _Latency(level, bounds.hold(limit))

    def after(self, state: _Latency, sample: Sample, bounds: Bounds, /) -> _Latency:
        """See :class:`Algorithm`."""
        level = self._refusals().after(state.level, sample, bounds)
        if sample.overloaded:
            target = min(state.target, level.limit)
            return replace(state, level=level, target=target, starting=False)
        if sample.began < state.since:
            return replace(state, level=level)
        state = replace(
            state,
            level=level,
            total=state.total + sample.latency,
            successes=state.successes + 1,
        )
        if state.successes < max(int(state.limit), 10):
            return state
        return self._round(state, sample, bounds)

    def _refusals(self) -> AIMD:
        return AIMD(self.backoff)

    def _round(self, state: _Latency, sample: Sample, bounds: Bounds) -> _Latency:
        average = state.total / state.successes
        new = replace(state, total=0.0, successes=0, rounds=state.rounds + 1, since=sample.ended)
        if state.probing > 1:  # what was queued before has left by now
            return replace(new, probing=state.probing - 1)
        if state.probing == 1:
            return replace(new, probing=0, base=average)
        base = min(state.base, average)
        if state.rounds + 1 >= self.probe_every:
            return replace(new, base=base, rounds=0, probing=2)
        target, starting = self._target(state, base, average, sample.in_flight)
        return replace(new, base=base, target=bounds.hold(target), starting=starting)

    def _target(
        self, state: _Latency, base: float, average: float, in_flight: int
    ) -> tuple[float, bool]:
        """The next limit by latency, and whether it still grows as fast as it can."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Vegas(_ByLatency):
    """Keeps a few calls queued at the other side: then it is busy, and nothing waits for long.

    How many calls are queued there is estimated from how much longer they take than without
    queues. With less than ``alpha · log10(limit)`` of them the limit grows, with more than ``beta ·
    log10(limit)`` it shrinks. It suits servers whose latency varies little by itself.

    Args:
        backoff: by what a refusal multiplies the limit.
        probe_every: after so many rounds, two at a quarter of the limit measure the latency anew;
            10 or more.
        alpha: see above.
        beta: see above; more than alpha.

    Raises:
        TypeError, ValueError: an argument makes no sense.
    """

    alpha: float = 3.0
    beta: float = 6.0

    def __post_init__(self) -> None:
        _ByLatency.__post_init__(self)
        number("alpha", self.alpha, minimum=0.1)
        number("beta", self.beta, minimum=self.alpha)
        make_plain(self, "alpha", "beta")

    def _target(
        self, state: _Latency, base: float, average: float, in_flight: int
    ) -> tuple[float, bool]:
        limit = state.limit
        scale = max(1.0, math.log10(max(limit, 1.0)))
        queued = limit * (1 - base / average) if average > 0 else 0.0
        if queued > self.beta * scale:
            return limit - scale, False
        if queued >= self.alpha * scale:
            return limit, False
        if 2 * in_flight < limit:  # it is not used: nothing is known about more
            return limit, state.starting
        return (limit * 2 if state.starting else limit + scale), state.starting


@dataclass(frozen=True, slots=True)
class Gradient(_ByLatency):
    """Shrinks the limit in proportion to how much the latency has grown.

    The next limit is ``limit · gradient + √limit``, smoothed; the gradient is ``tolerance ·
    base ÷ latency``, from 0.5 to 1. It suits servers whose latency varies by itself: less than
    ``tolerance`` is no queue.

    Args:
        backoff: by what a refusal multiplies the limit.
        probe_every: after so many rounds, two at a quarter of the limit measure the latency anew;
            10 or more.
        tolerance: how many times the base the latency may be, 1 or more.
        smoothing: how much of the change is made in a round, from above 0 to 1.

    Raises:
        TypeError, ValueError: an argument makes no sense.
    """

    tolerance: float = 1.25
    smoothing: float = 0.2

    def __post_init__(self) -> None:
        _ByLatency.__post_init__(self)
        number("tolerance", self.tolerance, minimum=1.0)
        if not number("smoothing", self.smoothing, minimum=0.0, maximum=1.0) > 0:
            raise ValueError(f"smoothing must be more than 0, not {self.smoothing!r}")
        make_plain(self, "tolerance", "smoothing")

    def _target(
        self, state: _Latency, base: float, average: float, in_flight: int
    ) -> tuple[float, bool]:
        limit = state.limit
        ratio = self.tolerance * base / average if average > 0 else 1.0
        if ratio >= 1.0 and 2 * in_flight < limit:
            return limit, state.starting
        new = limit * min(max(ratio, 0.5), 1.0) + math.sqrt(limit)
        if state.starting and ratio >= 1.0:
            return limit * 2, True
        return limit + self.smoothing * (new - limit), False


def _check_backoff(value: object) -> None:
    if not 0 < number("backoff", value, minimum=0.0, maximum=1.0) < 1:
        raise ValueError(f"backoff must be between 0 and 1, not {value!r}")
