"""A bucket that also goes by what a server tells of its own limit: plain state, as its base."""

from __future__ import annotations

from ion_actors.ratelimit.bucket import Bucket, ticks
from ion_actors.ratelimit.headers import ServerLimits
from ion_actors.ratelimit.rate import Limit

__all__ = ["ServerBucket"]


class ServerBucket(Bucket):
    """A bucket with a quota above it: so many tokens until a moment, at which there are new ones.

    The quota is what the server said is left, less what was handed out since. Answers arrive in
    any order, so within one window the smallest number counts. When the window is over and no
    answer has told of the next one yet, the next is taken to be like it, and to begin with the
    first token.
    """

    __slots__ = ("_left", "_per_window", "_presumed", "_resets", "_window")

    def __init__(self, limit: Limit, now: int) -> None:
        super().__init__(limit, now)
        self._left: int | None = None  # of the quota; None for no quota
        self._resets = now  # when the window is over
        self._presumed = False  # the window is one that no answer has told of
        self._per_window: int | None = None  # tokens, if the server said so
        self._window = 0  # its length, as far as is known

    def learn(self, told: ServerLimits, now: int) -> None:
        """Go by what a response said."""
        self.refill(now)
        if told.limit is not None:
            self._per_window = told.limit
        if told.remaining is not None and told.reset_after:
            self._learn_window(told.remaining, ticks(told.reset_after), now)
        if told.retry_after is not None:
            self.pause(now + ticks(told.retry_after))
        elif told.remaining == 0 and not told.reset_after:
            self.drain_to(0, now)  # nothing says until when, so at least not at once

    def _learn_window(self, remaining: int, length: int, now: int) -> None:
        resets = now + length
        if self._left is None or now >= self._resets:  # a window that we know nothing of
            self._left, self._resets, self._window = remaining, resets, length
        else:
            self._left = min(self._left, remaining)
            self._resets = resets if self._presumed else max(self._resets, resets)
            self._window = length if self._presumed else self._window
        self._presumed = False

    def _within_quota(self, n: int, now: int) -> bool:
        if self._left is None or now >= self._resets:
            return True
        # More than a whole window has could never be had: then the server is to judge.
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

    def as_new(self, now: int) -> bool:
        """See :meth:`Bucket.as_new`."""
        return super().as_new(now) and (self._left is None or now >= self._resets)
