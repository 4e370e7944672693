"""Keys that users give, compared where it may take any time.

A user's key is hashed and compared by the user's code, which may block, raise, or call the pool. So
that happens when a key is given, on the thread that gives it, and under no lock. From then on a
:class:`Key` stands for it, and for every key that is equal to it. Keys are compared by identity.

A key is forgotten when nobody has its :class:`Key` any more.
"""

from __future__ import annotations

import functools
import threading
import weakref
from collections.abc import Hashable

from ion_actors.forking import check, renew_after_fork

__all__ = ["Key", "Keys"]


class Key:
    """Stands for a user's key, and for all that are equal to it."""

    __slots__ = ("__weakref__", "value")

    def __init__(self, value: Hashable) -> None:
        self.value = value


_Bucket = tuple[weakref.ref[Key], ...]


class Keys:
    """The keys of one thing (a pool, a limiter) that are in use."""

    def __init__(self) -> None:
        # By hash; a bucket is replaced and never changed.
        self._buckets: dict[int, _Bucket] = {}
        # Guards the replacement of a bucket. Reentrant, since a key may be freed at any point.
        self._lock = threading.RLock()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """See :class:`ion_actors.forking.Inherited`."""
        self._lock = threading.RLock()

    def __len__(self) -> int:
        """How many are in use."""
        return sum(map(len, self._buckets.values()))

    def key(self, value: Hashable) -> Key:
        """What stands for this key. Raises what its hash and its comparisons raise."""
        hashed = hash(value)
        check()
        while True:
            bucket = self._buckets.get(hashed)
            # Held until the end: none of them is freed, with code of the user's, under the lock.
            living = [(ref, key) for ref in bucket or () if (key := ref()) is not None]
            for _, key in living:
                if key.value is value or key.value == value:
                    return key
            new = Key(value)
            ref = weakref.ref(new, functools.partial(self._forget, hashed))
            if self._replace(hashed, bucket, (*(one for one, _ in living), ref)):
                return new

    def _replace(self, hashed: int, old: _Bucket | None, new: _Bucket) -> bool:
        """Put a bucket in the place of another, unless that has been replaced meanwhile."""
        with self._lock:
            if self._buckets.get(hashed) is not old:
                return False
            self._buckets[hashed] = new
            return True

    def _forget(self, hashed: int, gone: weakref.ref[Key]) -> None:
        with self._lock:
            left = tuple(one for one in self._buckets.get(hashed, ()) if one is not gone)
            if left:
                self._buckets[hashed] = left
            else:
                self._buckets.pop(hashed, None)
