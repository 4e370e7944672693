"""Rate limiters: calls go no faster than agreed, and those who wait are served in order."""

from ion_actors.ratelimit.rate import Limit, Rate, per, per_hour, per_minute, per_second

__all__ = ["Limit", "Rate", "per", "per_hour", "per_minute", "per_second"]
