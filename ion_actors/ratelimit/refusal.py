"""Why a claim cannot be served in its time, and when it could be."""

from __future__ import annotations

from ion_actors.errors import RateLimited, RateLimitedPastDeadline
from ion_actors.ratelimit.bucket import moment
from ion_actors.ratelimit.places import Claim, Place

__all__ = ["earliest", "refusal"]


def earliest(claim: Claim, now: int, behind: tuple[Place, ...] = ()) -> tuple[int | None, Place]:
    """The first tick at which a claim may be served, and by the lack of what it waits.

    Args:
        claim: what is wanted, and where.
        now: this tick.
        behind: the places in whose lines it is the last, so that all who wait there come first.

    Returns:
        None for a tick that never comes. It may be later, if others are served meanwhile.
    """
    found: tuple[int | None, Place] = (now, claim.places[0])
    for place in claim.places:
        ahead = place.wanted - claim.n if place in behind else 0
        due = place.bucket.when(claim.n, now, ahead)
        if due is None:
            return None, place
        if found[0] is not None and due > found[0]:
            found = due, place
    return found


def refusal(
    limiter: str, claim: Claim, now: int, behind: tuple[Place, ...], *, in_context: bool
) -> RateLimited:
    """The error for it; ``in_context`` if it is the context's deadline that has passed."""
    due, place = earliest(claim, now, behind)
    retry_after = None if due is None else moment(due - now)
    what = f"{claim.n} token{'s' if claim.n > 1 else ''}"
    what += "" if place.label is None else f" of {place.label}"
    kind = RateLimitedPastDeadline if in_context or claim.in_context else RateLimited
    end = "the timeout" if kind is RateLimited else "the deadline of the context"
    return kind(
        f"limiter {limiter!r}: by its limit, {what} will never come"
        if retry_after is None
        else f"limiter {limiter!r}: {what} can come in {retry_after:.3g} s; {end} is before",
        limiter=limiter,
        retry_after=retry_after,
        is_global=place.is_global,
        bucket=place.label,
        remaining=int(place.bucket.tokens(now)),
        limit=place.bucket.current.burst,
    )
