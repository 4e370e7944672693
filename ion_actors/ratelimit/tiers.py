"""The buckets of a multi-tier limiter: made when they are asked for, evicted when they are not."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field

from ion_actors.ratelimit.places import Place
from ion_actors.ratelimit.rate import Limit
from ion_actors.ratelimit.server import ServerBucket

__all__ = ["Key", "Tiers"]

Key = tuple[str, Hashable]  # of a route, a resource, or a bucket that the server has named

_SWEEP = 2  # buckets looked at per request, so that the old ones go faster than new ones come


@dataclass(slots=True)
class _Slot:
    """A place that can be evicted."""

    place: Place
    used: int  # the tick at which it was asked for last
    routes: set[str] = field(default_factory=set)  # that share it by the server's word


class Tiers:
    """The places of a multi-tier limiter. Everything here is under the gate's lock."""

    def __init__(
        self, everything: Place, defaults: dict[str, Limit], routes: Mapping[str, Limit], ttl: int
    ) -> None:
        self.everything = everything
        self._defaults = defaults
        self._ttl = ttl
        self._own: dict[Key, Limit] = {("route", name): one for name, one in routes.items()}
        self._slots: OrderedDict[Key, _Slot] = OrderedDict()  # the one asked for last is last
        self._named: dict[str, str] = {}  # route: the server's name for its bucket

    def __len__(self) -> int:
        return len(self._slots)

    def __iter__(self) -> Iterator[Place]:
        yield self.everything
        for slot in self._slots.values():
            yield slot.place

    def find(self, keys: tuple[Key, ...], now: int) -> tuple[Place, ...]:
        """The places that a request with these keys has to pass; made, if they are not there."""
        self._evict(now)
        return (*[self._slot(key, now).place for key in keys], self.everything)

    def one(self, keys: tuple[Key, ...], now: int) -> Place:
        """The first of them: the one that is meant if only one can be."""
        return self.find(keys, now)[0]

    def _slot(self, key: Key, now: int) -> _Slot:
        if key[0] == "route" and key[1] in self._named:
            key = "bucket", self._named[str(key[1])]
        slot = self._slots.get(key)
        if slot is None:
            slot = self._slots[key] = _Slot(self._made(key, now), now)
        self._slots.move_to_end(key)
        slot.used = now
        return slot

    def _made(self, key: Key, now: int) -> Place:
        kind, name = key
        bucket = ServerBucket(self._own.get(key, self._defaults[kind]), now)
        return Place(bucket, f"{kind} {name if isinstance(name, str) else repr(name)}")

    def _evict(self, now: int) -> None:
        for _ in range(min(_SWEEP, len(self._slots))):
            key, slot = next(iter(self._slots.items()))
            if now - slot.used < self._ttl:
                return
            if slot.place.line or not slot.place.bucket.as_new(now):
                slot.used = now  # a new one would let through what this one does not
                self._slots.move_to_end(key)
                continue
            del self._slots[key]
            for route in slot.routes:
                del self._named[route]

    def set_own(self, key: Key, limit: Limit, now: int) -> None:
        """A limit of its own for a route or a resource."""
        self._own[key] = limit
        self._slot(key, now).place.bucket.set_lasting(limit, now)

    def name_bucket(self, key: Key, name: str, now: int) -> None:
        """The server's name for the bucket of this route: all routes with this name share it."""
        route = str(key[1])
        if self._named.get(route) == name:
            return
        mine = self._slot(key, now)
        before = mine.place.bucket.tokens(now)
        if self._slots.pop(key, None) is None:  # it goes by another name until now
            mine.routes.discard(route)
            mine = _Slot(self._made(key, now), now)
        self._named[route] = name
        shared = self._slots.setdefault(("bucket", name), mine)
        shared.routes.add(route)
        # It cannot have more than the route had, or the route would win from the change.
        if shared.place.bucket.tokens(now) > before:
            shared.place.bucket.drain_to(int(before), now)
