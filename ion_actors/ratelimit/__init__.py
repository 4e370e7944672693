"""Rate limiters: calls go no faster than agreed, and those who wait are served in order.

Start at :class:`TokenBucket`, or at :class:`MultiTierLimiter` for an HTTP API.
"""

from ion_actors.ratelimit.buckets import LeakyBucket, TokenBucket
from ion_actors.ratelimit.headers import HeaderBounds, ServerLimits, parse_headers
from ion_actors.ratelimit.multitier import MultiTierLimiter, RequestLimiter
from ion_actors.ratelimit.rate import Limit, Rate, per, per_hour, per_minute, per_second
from ion_actors.ratelimit.shared import SharedLimiter
from ion_actors.ratelimit.store import WindowStrategy
from ion_actors.ratelimit.verbs import Limiter

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
