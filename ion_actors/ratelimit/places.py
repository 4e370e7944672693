"""Who waits for tokens, and where."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from ion_actors.context import Turn
from ion_actors.ratelimit.bucket import Bucket, Mark

__all__ = ["Claim", "Find", "Place", "check_possible", "possible"]


class Place:
    """A bucket, and the line before it.

    Attributes:
        bucket: the bucket.
        label: what an error calls it; None if the limiter has no other.
        is_global: whether it counts everything.
        line: who waits for it, in order of arrival.
        wanted: tokens that they want, all together.
    """

    __slots__ = ("bucket", "is_global", "label", "line", "wanted")

    def __init__(self, bucket: Bucket, label: str | None = None, *, is_global: bool = False):
        self.bucket = bucket
        self.label = label
        self.is_global = is_global
        self.line: OrderedDict[Turn[Claim], None] = OrderedDict()
        self.wanted = 0


# Where somebody takes tokens, the shared place last. Called under the gate's lock.
Find = Callable[[], tuple[Place, ...]]


class Claim:
    """One wait for tokens.

    Attributes:
        n: tokens.
        find: tells where.
        latest: the moment of the clock at which it will have no time left, or None.
        in_context: whether that is its context's deadline.
        places: what ``find`` told, once it stands in line.
        number: its place in the order of arrival.
        hold: the tick before which it is not served, by jitter; None until it is first in line.
        marks: of what it was granted.
    """

    __slots__ = ("find", "hold", "in_context", "latest", "marks", "n", "number", "places")

    def __init__(self, n: int, find: Find, latest: float | None, in_context: bool):
        self.n = n
        self.find = find
        self.latest = latest
        self.in_context = in_context
        self.places: tuple[Place, ...] = ()
        self.number = 0
        self.hold: int | None = None
        self.marks: tuple[Mark, ...] = ()


def possible(n: int, places: tuple[Place, ...]) -> bool:
    """Whether so many tokens can ever gather everywhere."""
    return all(n <= one.bucket.lasting.burst for one in places)


def check_possible(n: int, places: tuple[Place, ...]) -> None:
    """The same, as a ValueError that says where they cannot."""
    for place in places:
        if n > place.bucket.lasting.burst:
            whose = "" if place.label is None else f" of {place.label}"
            raise ValueError(
                f"n must be at most the burst{whose}, {place.bucket.lasting.burst}, not {n!r}: "
                "so many tokens never gather"
            )
