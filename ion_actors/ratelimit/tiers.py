"""The buckets of a multi-tier limiter: made on demand, and evicted when they are not used.

Names of routes and resources often contain what users send, and the server chooses names of
buckets. So the number of buckets is bounded. At the bound, the least recently used bucket is
evicted, even if it is not full: a client that can invent any number of names gets a new bucket for
each anyway, and the limit for everything still holds.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field

from ion_actors.naming import printable, shown
from ion_actors.ratelimit.bucket import ServerBucket
from ion_actors.ratelimit.claims import BucketQueue
from ion_actors.ratelimit.rate import Limit

__all__ = ["TierKey", "Tiers"]

_SWEEP = 2  # buckets checked per request: old ones are dropped faster than new ones are made
_LOOKS = 8  # buckets checked to make room for a new one
_LONGEST = 300  # characters of a label


class TierKey(tuple[str, Hashable]):  # noqa: SLOT001 - a tuple can have no other slots
    """The key of a route, of a resource, or of a bucket that the server has named.

    It is a tuple, compared in C: an interruption in the middle of Python code would leave the
    dictionaries below inconsistent. It is made without a lock, so that a ``__repr__`` may block.

    Attributes:
        label: its name in errors.
    """

    label: str

    @classmethod
    def of(cls, kind: str, name: Hashable, compared: Hashable | None = None) -> TierKey:
        """The key of this kind and name; ``compared`` is compared instead of the name."""
        key = cls((kind, name if compared is None else compared))
        text = printable(name) if isinstance(name, str) else shown(name)[:_LONGEST]
        key.label = f"{kind} {text}"
        return key


@dataclass(slots=True)
class _Slot:
    """A bucket that can be evicted."""

    queue: BucketQueue
    used: int  # the tick of its last use
    routes: set[str] = field(default_factory=set)  # that share it, as the server has said


class Tiers:
    """The buckets of a multi-tier limiter. Everything here is under the scheduler's lock."""

    def __init__(
        self,
        everything: BucketQueue,
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
        self._slots: OrderedDict[TierKey, _Slot] = (
            OrderedDict()
        )  # the most recently used one is last
        # route: the server's name for its bucket; the most recently used one is last
        self._named: OrderedDict[str, str] = OrderedDict()

    def __len__(self) -> int:
        return len(self._slots)

    def __iter__(self) -> Iterator[BucketQueue]:
        yield self.everything
        for slot in self._slots.values():
            yield slot.queue

    def find(self, keys: tuple[TierKey, ...], now: int) -> tuple[BucketQueue, ...]:
        """The queues for a request with these keys; made, if they do not exist."""
        self._evict(now)
        return (*[self._slot(key, now).queue for key in keys], self.everything)

    def one(self, keys: tuple[TierKey, ...], now: int) -> BucketQueue:
        """The first of them: the one for methods that concern a single queue."""
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

    def _made(self, key: TierKey, now: int) -> BucketQueue:
        bucket = ServerBucket(self._own.get(key, self._defaults[key[0]]), now)
        return BucketQueue(bucket, key.label)

    def _evict(self, now: int) -> None:
        for _ in range(min(_SWEEP, len(self._slots))):
            key, slot = next(iter(self._slots.items()))
            if now - slot.used < self._ttl:
                return
            if slot.queue.turns or not slot.queue.bucket.as_new(now):
                slot.used = now  # a new one would allow more than this one
                self._slots.move_to_end(key)
                continue
            self._forget(key)

    def _forget(self, key: TierKey) -> None:
        for route in self._slots.pop(key).routes:
            del self._named[route]

    def _make_room(self) -> None:
        """Drop a bucket if there are as many as allowed; preferably one that is as new."""
        if len(self._slots) < self._most:
            return
        oldest = list(itertools.islice(self._slots.items(), _LOOKS))
        idle = []
        for key, slot in oldest:
            if slot.queue.turns:  # waiting calls keep it; there are at most as many as threads
                self._slots.move_to_end(key)
            else:
                idle.append((key, slot))
        if idle:
            full = (key for key, slot in idle if slot.queue.bucket.as_new(slot.used))
            self._forget(next(full, idle[0][0]))

    def reset(self, now: int) -> None:
        """Have all buckets as at the start: only those that calls wait for stay, and are full."""
        for key, slot in list(self._slots.items()):
            if slot.queue.turns:
                slot.queue.bucket.reset(now)
            else:
                self._forget(key)
        self.everything.bucket.reset(now)

    def set_own(self, key: TierKey, limit: Limit, now: int) -> None:
        """Set a special limit for a route or a resource."""
        self._own[key] = limit
        self._slot(key, now).queue.bucket.set_lasting(limit, now)

    def name_bucket(self, key: TierKey, name: str, now: int) -> None:
        """Set the server's name for the bucket of this route: all routes with this name share it.

        A bucket of this route alone is renamed: so a server that sends a new name with each
        response does not cause a new bucket for each.
        """
        route = str(key[1])
        if self._named.get(route) == name:
            return
        mine = self._slot(key, now)
        before = mine.queue.bucket.tokens(now)
        mine = self._released(key, mine, now)
        bucket = TierKey.of("bucket", name)
        shared = self._slots.setdefault(bucket, mine)
        shared.queue.label = bucket.label
        shared.routes.add(route)
        self._named[route] = name
        if len(self._named) > self._most:
            forgotten, named = self._named.popitem(last=False)
            self._slots[TierKey.of("bucket", named)].routes.discard(forgotten)
        # It must not have more than the route had, or the route would gain by the change.
        if shared.queue.bucket.tokens(now) > before:
            shared.queue.bucket.drain_to(int(before), now)

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
