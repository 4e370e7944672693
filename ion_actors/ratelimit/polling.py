"""When to ask a storage again, and how long to wait for what it keeps: plain decisions."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ion_actors._printable import printable
from ion_actors.context import Context
from ion_actors.errors import RateLimited, RateLimitedPastDeadline
from ion_actors.ratelimit.rate import Rate

__all__ = ["Attempt", "Level", "until_worth_asking"]

# When the tokens are gone, the storage is asked again when it expects the next one; but not sooner
# than about a token's time, nor later than this, since another process may have cleared the limit.
_SHORTEST, _SHORTEST_FOR_SLOW = 0.005, 0.05
_LONGEST = 30.0

# What a storage says of time is rounded, by Redis' Lua to a tenth of a millisecond.
_ROUNDING = 0.001


@dataclass(frozen=True, slots=True)
class Level:
    """What a storage says of a limit.

    Attributes:
        remaining: tokens that could be had now.
        reset_after: seconds until there are more.
    """

    remaining: int
    reset_after: float


def until_worth_asking(level: Level, wanted: int, rate: Rate) -> float:
    """Seconds until a storage that refused so many tokens is to be asked again."""
    step = min(max(rate.seconds / rate.tokens, _SHORTEST), _SHORTEST_FOR_SLOW)
    if level.remaining >= wanted:  # it has changed since the refusal: others ask as well
        return step
    return min(max(level.reset_after + _ROUNDING, step), _LONGEST)


class Attempt:
    """One wait for tokens.

    Args:
        limiter: the name of the limiter.
        rate: its rate.
        n: tokens wanted.
        context: whose end is the end of the wait.
        timeout: seconds to wait at most, or None.

    Attributes:
        deadline: the moment of the clock that the timeout makes, or None.
        level: what the storage said last, or None.
    """

    def __init__(
        self, limiter: str, rate: Rate, n: int, context: Context, timeout: float | None
    ) -> None:
        self._limiter = limiter
        self._limit = int(rate.tokens)
        self.n = n
        self.context = context
        self.clock = context.clock
        self._began = self.clock.monotonic()
        self.deadline = None if timeout is None else self._began + timeout
        self.level: Level | None = None

    @property
    def waited(self) -> float:
        """Seconds since it began."""
        return self.clock.monotonic() - self._began

    @property
    def left(self) -> float:
        """Seconds until it has to be over."""
        ends = [end for end in (self.deadline, self.context.deadline) if end is not None]
        return min(ends) - self.clock.monotonic() if ends else math.inf

    @property
    def hopeless(self) -> bool:
        """Whether the storage said that the tokens will not be there in time."""
        left, level = self.left, self.level
        return left <= 0 or (
            level is not None and level.remaining < self.n and level.reset_after > left
        )

    def refusal(self) -> RateLimited:
        """The error that the tokens cannot be had in time."""
        level = self.level
        kind = RateLimitedPastDeadline if self._ends_with_context() else RateLimited
        return kind(
            f"{printable(self._limiter)} does not have {self.n} of {self._limit} tokens in time",
            limiter=self._limiter,
            retry_after=0.0 if level is None else level.reset_after,
            remaining=None if level is None else level.remaining,
            limit=self._limit,
        )

    def _ends_with_context(self) -> bool:
        outer = self.context.deadline
        return outer is not None and (self.deadline is None or outer <= self.deadline)
