"""The buckets of a multi-tier limiter: made when they are asked for, evicted when they are not.

Names of routes and resources are often made of what users send, and names of buckets are the
server's. So there is a bound for the number of buckets. When it is reached, the bucket that was not
asked for the longest makes room, even if it is not full: whoever can make up any number of names
has a new bucket for each anyway, and the limit for everything still holds.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field

from ion_actors.naming import printable, shown
from ion_actors.ratelimit.bucket import ServerBucket
from ion_actors.ratelimit.places import Place
from ion_actors.ratelimit.rate import Limit

__all__ = ["TierKey", "Tiers"]

_SWEEP = 2  # buckets looked at per request, so that the old ones go faster than new ones come
_LOOKS = 8  # buckets looked at to make room for a new one
_LONGEST = 300  # characters of a label


class TierKey(tuple[str, Hashable]):  # noqa: SLOT001 - a tuple can have no other slots
    """Of a route, of a resource, or of a bucket that the server has named: the kind, and which one.

    It compares in C, as a tuple does: an interruption in the middle of Python code would leave the
    dictionaries below torn. It is made where no lock is held, so that a ``__repr__`` may block.

    Attributes:
        label: what an error calls it.
    """

    label: str

    @classmethod
    def of(cls, kind: str, name: Hashable, compared: Hashable | None = None) -> TierKey:
        """The key of this kind and name; ``compared`` is compared in the place of the name."""
        key = cls((kind, name if compared is None else compared))
        text = printable(name) if isinstance(name, str) else shown(name)[:_LONGEST]
        key.label = f"{kind} {text}"
        return key


@dataclass(slots=True)
class _Slot:
    """A place that can be evicted."""

    place: Place
    used: int  # the tick at which it was asked for last
    routes: set[str] = field(default_factory=set)  # that share it by the server's word


class Tiers:
    """The places of a multi-tier limiter. Everything here is under the gate's lock."""

    def __init__(
        self,
        everything: Place,
        defaults: dict[str, Limit],
        routes: Mapping[str, Limit],
        ttl: int,
        most: int,
    ) -> None:
        self.everything = everything
        self._defaults = defaults
        self._ttl = ttl
        self._most = most  # buckets, and routes whose bucket the server has named
        self._own: dict[TierKey, Limit] = {
            TierKey.of("route", name): one for name, one in routes.items()
        }
        self._slots: OrderedDict[TierKey, _Slot] = OrderedDict()  # the one asked for last is last
        # route: the server's name for its bucket; the one that was asked for last is last
        self._named: OrderedDict[str, str] = OrderedDict()

    def __len__(self) -> int:
        return len(self._slots)

    def __iter__(self) -> Iterator[Place]:
        yield self.everything
        for slot in self._slots.values():
            yield slot.place

    def find(self, keys: tuple[TierKey, ...], now: int) -> tuple[Place, ...]:
        """The places that a request with these keys has to pass; made, if they are not there."""
        self._evict(now)
        return (*[self._slot(key, now).place for key in keys], self.everything)

    def one(self, keys: tuple[TierKey, ...], now: int) -> Place:
        """The first of them: the one that is meant if only one can be."""
        return self.find(keys, now)[0]

    def _slot(self, key: TierKey, now: int) -> _Slot:
        if key[0] == "route" and key[1] in self._named:
            route = str(key[1])
            self._named.move_to_end(route)
            key = TierKey.of("bucket", self._named[route])
        slot = self._slots.get(key)
        if slot is None:
            self._make_room()
            slot = self._slots[key] = _Slot(self._made(key, now), now)
        self._slots.move_to_end(key)
        slot.used = now
        return slot

    def _made(self, key: TierKey, now: int) -> Place:
        bucket = ServerBucket(self._own.get(key, self._defaults[key[0]]), now)
        return Place(bucket, key.label)

    def _evict(self, now: int) -> None:
        for _ in range(min(_SWEEP, len(self._slots))):
            key, slot = next(iter(self._slots.items()))
            if now - slot.used < self._ttl:
                return
            if slot.place.line or not slot.place.bucket.as_new(now):
                slot.used = now  # a new one would let through what this one does not
                self._slots.move_to_end(key)
                continue
            self._forget(key)

    def _forget(self, key: TierKey) -> None:
        for route in self._slots.pop(key).routes:
            del self._named[route]

    def _make_room(self) -> None:
        """Forget a bucket if there are as many as there may be; rather one that is as new."""
        if len(self._slots) < self._most:
            return
        oldest = list(itertools.islice(self._slots.items(), _LOOKS))
        idle = []
        for key, slot in oldest:
            if slot.place.line:  # who waits for it keeps it; they are as many as there are threads
                self._slots.move_to_end(key)
            else:
                idle.append((key, slot))
        if idle:
            full = (key for key, slot in idle if slot.place.bucket.as_new(slot.used))
            self._forget(next(full, idle[0][0]))

    def set_own(self, key: TierKey, limit: Limit, now: int) -> None:
        """A limit of its own for a route or a resource."""
        self._own[key] = limit
        self._slot(key, now).place.bucket.set_lasting(limit, now)

    def name_bucket(self, key: TierKey, name: str, now: int) -> None:
        """The server's name for the bucket of this route: all routes with this name share it.

        A bucket of this route alone goes on under the new name: a server that makes up a name for
        each response does not make a bucket for each.
        """
        route = str(key[1])
        if self._named.get(route) == name:
            return
        mine = self._slot(key, now)
        before = mine.place.bucket.tokens(now)
        mine = self._released(key, mine, now)
        bucket = TierKey.of("bucket", name)
        shared = self._slots.setdefault(bucket, mine)
        shared.place.label = bucket.label
        shared.routes.add(route)
        self._named[route] = name
        if len(self._named) > self._most:
            forgotten, named = self._named.popitem(last=False)
            self._slots[TierKey.of("bucket", named)].routes.discard(forgotten)
        # It cannot have more than the route had, or the route would win from the change.
        if shared.place.bucket.tokens(now) > before:
            shared.place.bucket.drain_to(int(before), now)

    def _released(self, key: TierKey, slot: _Slot, now: int) -> _Slot:
        """The slot without its old name; or a new one, if other routes share it by that name."""
        route = str(key[1])
        named = self._named.pop(route, None)
        if named is None:
            del self._slots[key]
            return slot
        slot.routes.discard(route)
        if slot.routes:
            return _Slot(self._made(key, now), now)
        del self._slots[TierKey.of("bucket", named)]
        return slot
