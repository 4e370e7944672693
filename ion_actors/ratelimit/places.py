"""Claims to tokens, and the places (buckets with lines) that they wait for."""

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
        label: its name in errors; None if the limiter has no other.
        is_global: whether it is the limit for everything.
        line: the waiting calls, in order of arrival.
        wanted: the tokens that they need in total.
    """

    __slots__ = ("bucket", "is_global", "label", "line", "wanted")

    def __init__(self, bucket: Bucket, label: str | None = None, *, is_global: bool = False):
        self.bucket = bucket
        self.label = label
        self.is_global = is_global
        self.line: OrderedDict[Turn[Claim], None] = OrderedDict()
        self.wanted = 0


# Finds the places where a call takes tokens, the shared one last. Called under the gate's lock.
Find = Callable[[], tuple[Place, ...]]


class Claim:
    """One wait for tokens.

    Attributes:
        n: tokens.
        find: finds their places.
        latest: its deadline by the clock, or None.
        in_context: whether that is its context's deadline.
        places: the result of ``find``, once it is in line.
        number: its position in the order of arrival.
        hold: the tick before which it is not served, by jitter; None until it is first in line.
        marks: the marks of its grants.
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
    """Whether all places can ever have so many tokens."""
    return all(n <= one.bucket.lasting.burst for one in places)


def check_possible(n: int, places: tuple[Place, ...]) -> None:
    """Raise a ValueError that names the place that cannot."""
    for place in places:
        if n > place.bucket.lasting.burst:
            whose = "" if place.label is None else f" of {place.label}"
            raise ValueError(
                f"n must be at most the burst{whose}, {place.bucket.lasting.burst}, not {n!r}: "
                "there can never be so many tokens"
            )
