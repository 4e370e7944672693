"""Rate limiters: they limit how fast calls are made, and serve waiting calls in order.

Start at :class:`TokenBucket`, or at :class:`MultiTierLimiter` for an HTTP API. From the top down,
each importing only from below::

    single_bucket  TokenBucket and LeakyBucket
    multitier      limits in tiers, as HTTP APIs have them
    shared         a limit that several processes share, in a storage
    limiter        the methods of all limiters but the shared ones
    tiers          the buckets of a multi-tier limiter
    metrics        the numbers of a multi-tier limiter
    routes         which requests share a bucket
    hooks          the metrics and spans of a limiter
    scheduler      the lines of waiting calls, and when each is served
    fair_lock      lets in one caller at a time, in order of arrival
    store          the storage of a shared limit, and its failures
    claims         a claim to tokens, and the buckets that it waits for
    bucket         the arithmetic of tokens
    headers        reads rate limits from the headers of a response
    rate           rates and limits
"""

from ion_actors.ratelimit.headers import HeaderBounds, ServerLimits, parse_headers
from ion_actors.ratelimit.limiter import Limiter
from ion_actors.ratelimit.metrics import MultiTierMetrics
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
    "MultiTierMetrics",
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
