"""Claims to tokens, and the buckets with their queues that they wait in."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable

from ion_actors.context import Turn
from ion_actors.ratelimit.bucket import Bucket, Mark

__all__ = ["BucketQueue", "Claim", "Find", "check_possible", "possible"]


class BucketQueue:
    """A bucket, and the calls that wait for its tokens.

    Attributes:
        bucket: the bucket.
        label: its name in errors; None if the limiter has no other.
        is_global: whether it is the limit for everything.
        turns: the waiting calls: by priority, and those of one priority in order of arrival.
        wanted: the tokens that they need in total.
    """

    __slots__ = ("bucket", "is_global", "label", "turns", "wanted")

    def __init__(self, bucket: Bucket, label: str | None = None, *, is_global: bool = False):
        self.bucket = bucket
        self.label = label
        self.is_global = is_global
        self.turns: OrderedDict[Turn[Claim], None] = OrderedDict()
        self.wanted = 0

    def ahead_of(self, claim: Claim) -> int:
        """The tokens that those before this claim in the line need."""
        if next(reversed(self.turns)).item is claim:
            return self.wanted - claim.n
        before = itertools.takewhile(lambda turn: turn.item is not claim, self.turns)
        return sum(turn.item.n for turn in before)


# Finds the queues of the buckets where a call takes tokens, the shared one last. Called under the
# scheduler's lock.
Find = Callable[[], tuple[BucketQueue, ...]]


class Claim:
    """One wait for tokens.

    Attributes:
        n: tokens.
        priority: the greater, the sooner.
        find: finds their queues.
        latest: its deadline by the clock, or None.
        in_context: whether that is its context's deadline.
        queues: the result of ``find``, once it is in line.
        number: its position in the order of arrival.
        hold: the tick before which it is not served, by jitter; None until it is first in line.
        marks: the marks of its grants.
    """

    __slots__ = (
        "find",
        "hold",
        "in_context",
        "latest",
        "marks",
        "n",
        "number",
        "priority",
        "queues",
    )  # fmt: skip

    def __init__(
        self, n: int, find: Find, latest: float | None, in_context: bool, priority: int = 0
    ):
        self.n = n
        self.priority = priority
        self.find = find
        self.latest = latest
        self.in_context = in_context
        self.queues: tuple[BucketQueue, ...] = ()
        self.number = 0
        self.hold: int | None = None
        self.marks: tuple[Mark, ...] = ()


def possible(n: int, queues: tuple[BucketQueue, ...]) -> bool:
    """Whether all their buckets can ever have so many tokens."""
    return all(n <= one.bucket.lasting.burst for one in queues)


def check_possible(n: int, queues: tuple[BucketQueue, ...]) -> None:
    """Raise a ValueError that names the bucket that cannot."""
    for queue in queues:
        if n > queue.bucket.lasting.burst:
            whose = "" if queue.label is None else f" of {queue.label}"
            raise ValueError(
                f"n must be at most the burst{whose}, {queue.bucket.lasting.burst}, not {n!r}: "
                "there can never be so many tokens"
            )
