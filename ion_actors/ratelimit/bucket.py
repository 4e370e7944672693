"""The arithmetic of a bucket of tokens: plain state, and functions of it and of the time.

Over any period, a bucket hands out at most its burst plus what flows in meanwhile. That holds
strictly, so nothing here rounds in favour of the caller:

- Time is a whole number of ticks. A tick is 2**-60 seconds, so a moment given as a float (53 bits)
  becomes ticks without rounding from 4 ms after the clock's zero on, and is rounded down before.
- The content is a whole number of units. A token has so many units that one tick adds a whole
  number of them, whatever the rate: a third of a token per second is represented exactly.
- Only a change of the rate changes the unit; the content is then rounded down.
- A moment to wait for is rounded up to the next float, when the tokens are certainly there.

A :class:`ServerBucket` also follows what a server reports about its own limit.
"""

from __future__ import annotations

import copy
import math
from typing import NamedTuple

from ion_actors.ratelimit.headers import ServerLimits
from ion_actors.ratelimit.rate import Limit

__all__ = ["PER_SECOND", "Bucket", "Mark", "ServerBucket", "moment", "ticks"]

_SHIFT = 60
PER_SECOND = float(1 << _SHIFT)  # ticks
_ALWAYS = -(1 << 200)  # a moment before all others


def ticks(moment: float) -> int:
    """A moment, or a number of seconds, in ticks."""
    try:
        return int(
            moment * PER_SECOND
        )  # times a power of two: no rounding before int() rounds down
    except OverflowError:  # so large a float is a whole number
        return int(moment) << _SHIFT


def moment(tick: int) -> float | None:
    """The earliest float that is not before this tick; None if no float is."""
    try:
        found = tick / (1 << _SHIFT)
    except OverflowError:
        return None
    if ticks(found) < tick:
        found = math.nextafter(found, math.inf)
    return found if found < math.inf else None


class Mark(NamedTuple):
    """The state of a bucket when tokens were granted."""

    epoch: int
    granted: int


class _Terms(NamedTuple):
    """A limit in units."""

    flow: int  # units per tick
    unit: int  # units per token
    cap: int  # units that can gather

    @classmethod
    def of(cls, limit: Limit) -> _Terms:
        """The terms of a limit, exactly."""
        rate = limit.rate.exact
        unit = rate.denominator << _SHIFT
        return cls(rate.numerator, unit, limit.burst * unit)


class Bucket:
    """A bucket of tokens; it starts full.

    All moments are in ticks and must not go back. No method blocks.

    Args:
        limit: the lasting rate and burst.
        now: the moment it starts.
    """

    __slots__ = (
        "_at",
        "_content",
        "_epoch",
        "_granted",
        "_opens",
        "_terms",
        "_until",
        "lasting",
        "temporary",
    )

    def __init__(self, limit: Limit, now: int) -> None:
        self.lasting = limit
        self.temporary: Limit | None = None
        self._until = 0  # when the temporary limit ends, if there is one
        self._terms = _Terms.of(limit)
        self._content = self._terms.cap
        self._at = now  # the content is of this moment
        self._opens = _ALWAYS  # before this moment nothing is handed out
        self._granted = 0  # tokens ever
        self._epoch = 0  # changes of what can gather

    # -- taking ----------------------------------------------------------------------------

    def has(self, n: int, now: int) -> bool:
        """Whether ``n`` tokens can be taken now."""
        self.refill(now)
        return self._content >= n * self._terms.unit and now >= self._opens

    def take(self, n: int, now: int) -> None:
        """Take ``n`` tokens, which must be there: see :meth:`has`."""
        self._content -= n * self._terms.unit
        self._granted += n

    def try_take(self, n: int, now: int) -> bool:
        """Take ``n`` tokens if they can be taken now: :meth:`has` and :meth:`take` in one call."""
        if self.temporary is not None or now < self._opens:
            found = self.has(n, now)
            if found:
                self.take(n, now)
            return found
        flow, unit, cap = self._terms
        content = self._content
        if now > self._at:
            content += flow * (now - self._at)
            self._at = now
            content = min(content, cap)
        left = content - n * unit
        if left < 0:
            self._content = content
            return False
        self._content = left
        self._granted += n
        return True

    def give_back(self, n: int, mark: Mark, now: int) -> None:
        """Take back ``n`` tokens that were granted at ``mark`` and never used.

        The content is then at most what it would be without the grant: tokens that flowed in
        meanwhile used the room, and may have been handed out since.
        """
        self.refill(now)
        if mark.epoch != self._epoch:
            return
        since = self._granted - mark.granted
        room = self._terms.cap - self._content - since * self._terms.unit
        self._content += max(0, min(n * self._terms.unit, room))

    def mark(self) -> Mark:
        """The argument for :meth:`give_back`, right after a grant."""
        return Mark(self._epoch, self._granted)

    def refill(self, now: int) -> None:
        """Add what has flowed in until now."""
        if self.temporary is not None and now >= self._until:
            self._flow_until(self._until)
            self.temporary = None
            self._change(self.lasting)
        self._flow_until(now)

    def _flow_until(self, now: int) -> None:
        if now > self._at:
            flow, _, cap = self._terms
            content = self._content + flow * (now - self._at)
            self._at = now  # first: an interruption in between loses tokens, and creates none
            self._content = min(content, cap)

    # -- looking ahead ---------------------------------------------------------------------

    def when(self, n: int, now: int, ahead: int = 0) -> int | None:
        """The first moment from now on at which ``n`` tokens can be taken; None if there is none.

        Args:
            n: tokens.
            now: this moment.
            ahead: the tokens that others will take before. The result is then the earliest
                possible moment; the actual one may be later.
        """
        self.refill(now)
        if self._opens > now:
            opened = copy.copy(self)  # nothing is taken until then, so the content is known
            opened.refill(self._opens)
            return opened._when(n, ahead)
        return self._when(n, ahead)

    def _when(self, n: int, ahead: int) -> int | None:
        content, at, terms = self._content, self._at, self._terms
        if self.temporary is not None:
            found = _reached(content, at, terms, n, ahead)
            if found is not None and found < self._until:
                return found
            content += terms.flow * (self._until - at)
            content = content if ahead else min(content, terms.cap)
            lasting = _Terms.of(self.lasting)
            content = content * lasting.unit // terms.unit
            at, terms = self._until, lasting
        return _reached(content, at, terms, n, ahead)

    def tokens(self, now: int) -> float:
        """How many tokens there are now, rounded down to a float."""
        self.refill(now)
        found = self._content / self._terms.unit
        numerator, denominator = found.as_integer_ratio()
        if numerator * self._terms.unit > self._content * denominator:
            found = math.nextafter(found, 0.0)
        return found

    def room(self, now: int) -> float:
        """How many tokens it lacks to be full now, rounded up to a float."""
        self.refill(now)
        lacking = self._terms.cap - self._content
        found = lacking / self._terms.unit
        numerator, denominator = found.as_integer_ratio()
        if numerator * self._terms.unit < lacking * denominator:
            found = math.nextafter(found, math.inf)
        return found

    def as_new(self, now: int) -> bool:
        """Whether it is full and has no temporary limit: a new one could replace it."""
        self.refill(now)
        return self._content == self._terms.cap and self.temporary is None and now >= self._opens

    @property
    def current(self) -> Limit:
        """The current limit, as of the last refill."""
        return self.lasting if self.temporary is None else self.temporary

    # -- changes ---------------------------------------------------------------------------

    def set_lasting(self, limit: Limit, now: int) -> None:
        """Set the lasting limit; during a temporary one, it applies after that."""
        self.refill(now)
        self.lasting = limit
        if self.temporary is None:
            self._change(limit)

    def set_temporary(self, limit: Limit, until: int, now: int) -> None:
        """Set a limit until that moment, replacing any other temporary one."""
        self.refill(now)
        self.temporary, self._until = limit, until
        self._change(limit)

    def clear_temporary(self, now: int) -> None:
        """Return to the lasting limit now."""
        self.refill(now)
        if self.temporary is not None:
            self.temporary = None
            self._change(self.lasting)

    def drain_to(self, n: int, now: int) -> None:
        """Keep ``n`` tokens, or fewer if there are fewer."""
        self.refill(now)
        self._content = min(self._content, n * self._terms.unit)
        self._epoch += 1

    def pause(self, until: int) -> None:
        """Hand out no tokens before that moment."""
        self._opens = max(self._opens, until)

    def resume(self) -> None:
        """End the pause."""
        self._opens = _ALWAYS

    def paused_until(self, now: int) -> int | None:
        """The moment when its pause ends; None if it is not paused."""
        return self._opens if self._opens > now else None

    def reset(self, now: int) -> None:
        """Be full and not paused, at the lasting limit."""
        self.temporary = None
        self._opens = _ALWAYS
        self._at = now
        self._terms = _Terms.of(self.lasting)
        self._content = self._terms.cap
        self._epoch += 1

    def _change(self, limit: Limit) -> None:
        terms = _Terms.of(limit)
        content = self._content * terms.unit // self._terms.unit
        self._content = min(content, terms.cap)
        self._terms = terms
        self._epoch += 1


def _reached(content: int, at: int, terms: _Terms, n: int, ahead: int) -> int | None:
    """The tick when there are tokens for ``n`` and those ahead, if these terms do not change."""
    if n * terms.unit > terms.cap:
        return None
    lacking = (n + ahead) * terms.unit - content
    if lacking <= 0:
        return at
    return at + -(-lacking // terms.flow) if terms.flow else None


class ServerBucket(Bucket):
    """A bucket with a quota: so many tokens until the end of the server's window.

    The quota is the remaining number that the server reported, less what was handed out since.
    Responses arrive in any order, so within one window the smallest number counts. When the window
    is over and no response has reported the next one yet, the next is assumed to be like it, and to
    begin with the first token.
    """

    __slots__ = ("_left", "_per_window", "_presumed", "_resets", "_window")

    def __init__(self, limit: Limit, now: int) -> None:
        super().__init__(limit, now)
        self._left: int | None = None  # of the quota; None for no quota
        self._resets = now  # when the window is over
        self._presumed = False  # no response has reported this window
        self._per_window: int | None = None  # tokens, if the server said so
        self._window = 0  # its length, as far as is known

    def learn(self, told: ServerLimits, now: int) -> None:
        """Follow the report of a response."""
        self.refill(now)
        if told.limit is not None:
            self._per_window = told.limit
        if told.remaining is not None and told.reset_after:
            self._learn_window(told.remaining, ticks(told.reset_after), now)
        if told.retry_after is not None:
            self.pause(now + ticks(told.retry_after))
        elif told.remaining == 0 and not told.reset_after:
            self.drain_to(0, now)  # for an unknown time, so at least not at once

    def _learn_window(self, remaining: int, length: int, now: int) -> None:
        resets = now + length
        if self._left is None or now >= self._resets:  # the window is unknown
            self._left, self._resets, self._window = remaining, resets, length
        else:
            self._left = min(self._left, remaining)
            self._resets = resets if self._presumed else max(self._resets, resets)
            self._window = length if self._presumed else self._window
        self._presumed = False

    def _within_quota(self, n: int, now: int) -> bool:
        if self._left is None or now >= self._resets:
            return True
        # A whole window never has more than that: then let the server decide.
        return self._left >= n or (self._per_window is not None and n > self._per_window)

    def has(self, n: int, now: int) -> bool:
        """See :meth:`Bucket.has`."""
        return super().has(n, now) and self._within_quota(n, now)

    def try_take(self, n: int, now: int) -> bool:
        """See :meth:`Bucket.try_take`."""
        found = self.has(n, now)
        if found:
            self.take(n, now)
        return found

    def take(self, n: int, now: int) -> None:
        """See :meth:`Bucket.take`."""
        super().take(n, now)
        if self._left is not None and now >= self._resets:
            self._left, self._presumed = self._per_window, True
            self._resets = now + self._window
        if self._left is not None:
            self._left = max(0, self._left - n)

    def when(self, n: int, now: int, ahead: int = 0) -> int | None:
        """See :meth:`Bucket.when`."""
        found = super().when(n, now, ahead)
        if found is None or self._within_quota(n, found):
            return found
        return self._resets

    def reset(self, now: int) -> None:
        """See :meth:`Bucket.reset`; the quota is forgotten, too."""
        super().reset(now)
        self._left = self._per_window = None
        self._presumed = False

    def as_new(self, now: int) -> bool:
        """See :meth:`Bucket.as_new`."""
        return super().as_new(now) and (self._left is None or now >= self._resets)
