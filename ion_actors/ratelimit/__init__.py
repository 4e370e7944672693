"""Rate limiters: calls go no faster than agreed, and those who wait are served in order.

Start at :class:`TokenBucket`, or at :class:`MultiTierLimiter` for an HTTP API. From the top down,
each importing only from below::

    single_bucket  TokenBucket and LeakyBucket
    multitier      limits in tiers, as HTTP APIs have them
    shared         a limit that several processes share, in a storage
    limiter        the verbs that all but the shared ones have
    tiers          the buckets of a multi-tier limiter
    routes         which requests share a bucket
    hooks          what a limiter tells its hooks
    gate           who waits for tokens, in which order, until when
    door           one at a time, in the order of arrival
    store          the storage of a shared limit, and how it fails
    places         a claim to tokens, and where it waits
    bucket         the arithmetic of tokens
    headers        what the headers of a response say of a limit
    rate           so many tokens per so many seconds
"""

from ion_actors.ratelimit.headers import HeaderBounds, ServerLimits, parse_headers
from ion_actors.ratelimit.limiter import Limiter
from ion_actors.ratelimit.multitier import MultiTierLimiter, RequestLimiter
from ion_actors.ratelimit.rate import Limit, Rate, per, per_hour, per_minute, per_second
from ion_actors.ratelimit.shared import SharedLimiter
from ion_actors.ratelimit.single_bucket import LeakyBucket, TokenBucket
from ion_actors.ratelimit.store import WindowStrategy

__all__ = [
    "HeaderBounds",
    "LeakyBucket",
    "Limit",
    "Limiter",
    "MultiTierLimiter",
    "Rate",
    "RequestLimiter",
    "ServerLimits",
    "SharedLimiter",
    "TokenBucket",
    "WindowStrategy",
    "parse_headers",
    "per",
    "per_hour",
    "per_minute",
    "per_second",
]
