"""Limits in tiers, as in HTTP APIs: for everything, for each route, for each resource."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from ion_actors._arguments import duration as checked_duration
from ion_actors._arguments import number, whole_number
from ion_actors.clock import Clock
from ion_actors.context import current_context
from ion_actors.keys import Keys
from ion_actors.observe import Log, Metrics, Probe, Tracer
from ion_actors.observe.living import LIMITERS
from ion_actors.ratelimit.bucket import ServerBucket, ticks
from ion_actors.ratelimit.claims import BucketQueue, check_possible
from ion_actors.ratelimit.headers import HeaderBounds, ServerLimits, parse_headers
from ion_actors.ratelimit.hooks import LimiterHooks
from ion_actors.ratelimit.limiter import Limiter, Pausable
from ion_actors.ratelimit.metrics import MultiTierMetrics, Tally
from ion_actors.ratelimit.rate import Limit, Rate, per_second
from ion_actors.ratelimit.routes import Routes, resource_key
from ion_actors.ratelimit.scheduler import Scheduler
from ion_actors.ratelimit.tiers import TierKey, Tiers

__all__ = ["MultiTierLimiter", "RequestLimiter"]

# The tier that a bucket of this kind belongs to.
_TIERS = {"route": "route", "resource": "resource", "sub-resource": "resource"}


class RequestLimiter(Limiter):
    """The limiter of one kind of request; made by :meth:`MultiTierLimiter.for_`."""

    def __init__(
        self,
        scheduler: Scheduler,
        hooks: LimiterHooks | None,
        log: Log,
        tiers: Tiers,
        keys: tuple[TierKey, ...],
        bounds: HeaderBounds,
        tally: Tally,
        priority: int = 0,
    ) -> None:
        self._scheduler = scheduler
        self._hooks = hooks
        self._bounds = bounds
        self._log = log
        self._tiers = tiers
        self._keys = keys
        self._tally = tally
        self._priority = priority

    def _find(self) -> tuple[BucketQueue, ...]:
        return self._tiers.find(self._keys, self._now())

    def _level(self) -> float:
        # The level of the global limit: a gauge for each route would be a series for each.
        with self._scheduler.lock:
            return self._tiers.everything.bucket.tokens(self._now())

    # -- counting --------------------------------------------------------------------------

    def allow(self, n: int = 1) -> bool:
        """See :meth:`Limiter.allow`. It overtakes only waiting calls of a lower priority."""
        n = whole_number("n", n, minimum=1)
        allowed = super().allow(n)
        with self._scheduler.lock:
            if allowed:
                self._tally.granted(n)
            else:
                self._tally.hit(self._lacking(n))
        return allowed

    def _granted(self, n: int) -> None:
        with self._scheduler.lock:
            self._tally.granted(n)
        super()._granted(n)

    @contextmanager
    def _watched(self, n: int) -> Iterator[None]:
        scheduler = self._scheduler
        with scheduler.lock:
            self._tally.hit(self._lacking(n))
        began = scheduler.clock.monotonic()
        try:
            with super()._watched(n):
                yield
        except BaseException:
            with scheduler.lock:
                self._tally.dropped()
            raise
        with scheduler.lock:
            self._tally.granted(n)
            self._tally.waited(scheduler.clock.monotonic() - began)

    def _lacking(self, n: int) -> str:
        """The tier that holds a call for ``n`` tokens up. Called under the scheduler's lock."""
        *own, everything = self._find()
        check_possible(n, (*own, everything))
        kinds = [_TIERS[kind] for kind, _ in self._keys]
        tiers = [("everything", everything), *zip(kinds, own, strict=True)]
        now = self._now()
        lacking = [tier for tier, queue in tiers if not queue.bucket.has(n, now)]
        lines = [tier for tier, queue in tiers if queue.turns]
        return next(iter(lacking + lines), "everything")

    # -- what the server says --------------------------------------------------------------

    def learn(self, headers: Mapping[str, str], *, status: int | None = None) -> ServerLimits:
        """Follow a response's report on the server's own limit.

        Call it with each response, whatever its status. ``Retry-After`` pauses the route, or
        everything, if the server says so. The reported number of remaining requests is never
        exceeded until the server's next window, and the number per window is assumed for later
        windows. Routes for which the server names the same bucket share one here, too.

        Numbers are limited by the limiter's ``header_bounds``: no response can cause a longer
        pause.

        Args:
            headers: the response's fields, as any HTTP client has them.
            status: the response's status. A 429 means that nothing remains.

        Returns:
            The report, within the bounds.

        Raises:
            TypeError: ``headers`` is no mapping.
        """
        told = parse_headers(headers, status=status, bounds=self._bounds)
        with self._scheduler.changing() as now:
            keys = () if told.is_global else self._keys
            if told.bucket is not None and keys and keys[0][0] == "route":
                self._tiers.name_bucket(keys[0], told.bucket, now)
            queue = self._tiers.one(keys, now)
            assert isinstance(queue.bucket, ServerBucket)
            queue.bucket.learn(told, now)
        if told.retry_after is not None:
            self._log(
                logging.WARNING,
                "limiter %r: the server asks for a pause of %g s of %s",
                self.name,
                told.retry_after,
                queue.label,
            )
        return told

    # -- changing --------------------------------------------------------------------------

    def set_limit(self, limit: Limit) -> None:
        """Set the limit: of the route, if one was given, or else of the sub-resource or resource.

        Without any of them it is the limit for everything. Tokens beyond the burst are lost; a
        larger burst fills at the rate. During a temporary limit, this applies after it.

        Raises:
            TypeError: ``limit`` is no :class:`Limit`.
        """
        _check_limit("limit", limit)
        with self._scheduler.changing() as now:
            if self._keys:
                self._tiers.set_own(self._keys[0], limit, now)
            else:
                self._tiers.everything.bucket.set_lasting(limit, now)

    def set_temporary_limit(self, rate: Rate, burst: int, duration: float) -> None:
        """Set a limit for so many seconds, for the same as :meth:`set_limit`."""
        limit = Limit(rate, burst)
        length = checked_duration("duration", duration)
        with self._scheduler.changing() as now:
            bucket = self._tiers.one(self._keys, now).bucket
            bucket.set_temporary(limit, now + ticks(length), now)

    def clear_temporary_limit(self) -> None:
        """Return to the lasting limit now. Without a temporary one, nothing happens."""
        with self._scheduler.changing() as now:
            self._tiers.one(self._keys, now).bucket.clear_temporary(now)


class MultiTierLimiter(RequestLimiter, Pausable):
    """A limit for everything, one for each route, and one for each resource.

    ::

        limiter = MultiTierLimiter(routes={"POST /orders": Limit(per_second(5), 5)})
        request = limiter.for_(route="GET /users/17", resource="customer-3")
        request.wait()
        request.learn(response.headers, status=response.status)

    A request takes its tokens from all of its tiers at once, or from none. Requests that wait for
    one route or one resource are served in order, those of a higher priority first; an exhausted
    route does not delay others. The limiter's own methods are for requests without route and
    resource.

    Args:
        global_limit: for everything; by default 100 per second, with a burst of 100.
        route_limit: for each route; by default 50 per second, with a burst of 50.
        resource_limit: for each resource; by default 20 per second, with a burst of 20.
        sub_resource_limit: for each sub-resource; by default that for each resource.
        routes: special limits for some routes. ``GET /repos/{owner}/{repo}`` is one for all routes
            that match: a part in braces matches any one part.
        bucket_ttl: seconds after which the bucket of a route or a resource is dropped that was not
            used and is full again: more than 0.
        max_buckets: how many buckets of routes and resources there can be: 1 or more. For a further
            one, the least recently used is dropped, even if it is not full; only those with waiting
            requests are kept.
        header_bounds: upper bounds for the numbers that a server reports.
        name, clock, jitter, logger, metrics, tracer: as for :class:`TokenBucket`. The gauge
            ``ion_ratelimit_tokens_available`` is that of the limit for everything.

    Raises:
        TypeError, ValueError: an argument makes no sense.
    """

    def __init__(
        self,
        global_limit: Limit = Limit(per_second(100), 100),  # noqa: B008  # it is frozen
        route_limit: Limit = Limit(per_second(50), 50),  # noqa: B008
        resource_limit: Limit = Limit(per_second(20), 20),  # noqa: B008
        *,
        sub_resource_limit: Limit | None = None,
        routes: Mapping[str, Limit] | None = None,
        bucket_ttl: float = 3600.0,
        max_buckets: int = 4096,
        header_bounds: HeaderBounds = HeaderBounds(),  # noqa: B008
        name: str = "multi_tier",
        clock: Clock | None = None,
        jitter: float = 0.0,
        logger: logging.Logger | None = None,
        metrics: Metrics | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        _check_limit("global_limit", global_limit)
        sub_resource_limit = resource_limit if sub_resource_limit is None else sub_resource_limit
        defaults = {
            "route": route_limit, "resource": resource_limit, "sub-resource": sub_resource_limit
        }  # fmt: skip
        for kind, limit in defaults.items():
            _check_limit(f"{kind.replace('-', '_')}_limit", limit)
        defaults["bucket"] = route_limit
        for route, limit in (routes or {}).items():
            _check_limit(f"routes[{route!r}]", limit)
        self._routes = Routes(routes or {})
        self._resources = Keys()
        own = {self._routes.key(route): limit for route, limit in (routes or {}).items()}
        jitter = number("jitter", jitter, minimum=0, maximum=1)
        if (ttl := number("bucket_ttl", bucket_ttl, minimum=0)) == 0:
            raise ValueError(f"bucket_ttl must be more than 0 seconds, not {bucket_ttl!r}")
        max_buckets = whole_number("max_buckets", max_buckets, minimum=1)
        if not isinstance(header_bounds, HeaderBounds):
            raise TypeError(f"header_bounds must be HeaderBounds, not {header_bounds!r}")
        clock = current_context().clock if clock is None else clock
        self._paused = bucket = ServerBucket(global_limit, ticks(clock.monotonic()))
        everything = BucketQueue(bucket, "everything", is_global=True)
        probe = Probe.checked(metrics, tracer, limiter=name)
        super().__init__(
            Scheduler(name, clock, jitter, everything),
            None if probe is None else LimiterHooks(probe, "ion_ratelimit_tokens_available"),
            Log(logger, "ion_actors.ratelimit", limiter=name),
            Tiers(everything, defaults, own, ticks(ttl), max_buckets),
            (),
            header_bounds,
            Tally(),
        )
        LIMITERS.add(self)

    def for_(
        self,
        *,
        route: str | None = None,
        resource: object | None = None,
        sub_resource: object | None = None,
        priority: int = 0,
    ) -> RequestLimiter:
        """The limiter of requests to this route, on behalf of this resource.

        It is cheap to make and has no state: make one per request, or keep it.

        Args:
            route: a method and a path, such as ``GET /users/17``. Numbers and UUIDs in the path
                count as ids, so that all users share a route; a query is ignored.
            resource: the owner of the limit: any hashable object, or a mapping (whose order does
                not matter).
            sub_resource: a part of the resource that has a bucket of its own, besides that of the
                whole: such as one repository of an organization. Without a resource, it is a part
                of none.
            priority: of its requests that wait for the same bucket, and for the limit for
                everything: the greater, the sooner. Lower ones wait as long as there are higher
                ones.

        Raises:
            TypeError: ``route`` is no string, ``resource`` or ``sub_resource`` cannot be hashed, or
                ``priority`` is no whole number.
        """
        keys: list[TierKey] = []
        if route is not None:
            if not isinstance(route, str):
                raise TypeError(f"route must be a string or None, not {route!r}")
            keys.append(TierKey.of("route", self._routes.key(route)))
        name = None if resource is None else resource_key(resource)
        if sub_resource is not None:
            part = resource_key(sub_resource, "sub_resource")
            keys.append(TierKey.of("sub-resource", part, self._resources.key((name, part))))
        if resource is not None:
            keys.append(TierKey.of("resource", name, self._resources.key(name)))
        return RequestLimiter(
            self._scheduler,
            self._hooks,
            self._log,
            self._tiers,
            tuple(keys),
            self._bounds,
            self._tally,
            whole_number("priority", priority),
        )

    @property
    def buckets(self) -> int:
        """How many buckets of routes and resources there are now."""
        with self._scheduler.lock:
            return len(self._tiers)

    def metrics(self) -> MultiTierMetrics:
        """The numbers of now, of all requests."""
        with self._scheduler.lock:
            return self._tally.metrics(waiting=self._scheduler.waiting, buckets=len(self._tiers))

    def reset(self) -> None:
        """Begin anew: full buckets, no pause, nothing learned from a server, and no counts.

        Limits that were set stay, except for temporary ones. Waiting requests are served, as far as
        there are tokens now.
        """
        with self._scheduler.changing() as now:
            self._tiers.reset(now)
            self._tally.reset()

    def resume(self) -> None:
        """End all pauses, also those of single routes that a server asked for.

        Requests that can be served now are, at once.
        """
        with self._scheduler.changing():
            for queue in self._tiers:
                queue.bucket.resume()

    def __repr__(self) -> str:
        limit = self._tiers.everything.bucket.lasting
        return f"<MultiTierLimiter {self.name!r} {limit.rate}, {self.buckets} buckets>"


def _check_limit(name: str, limit: object) -> None:
    if not isinstance(limit, Limit):
        raise TypeError(f"{name} must be a Limit, not {limit!r}")
