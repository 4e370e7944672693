"""Keys from users, hashed and compared where that may take any time.

The user's code hashes and compares a key; it may block, raise, or call the pool. So that happens on
the thread that passes the key, under no lock. After that a :class:`Key` represents it, and every
key that is equal to it. :class:`Key` objects are compared by identity.

A key is forgotten when its :class:`Key` is not referred to any more.
"""

from __future__ import annotations

import functools
import threading
import weakref
from collections.abc import Hashable

from ion_actors.forking import check, renew_after_fork

__all__ = ["Key", "Keys"]


class Key:
    """Represents a user's key, and all that are equal to it."""

    __slots__ = ("__weakref__", "value")

    def __init__(self, value: Hashable) -> None:
        self.value = value


_Bucket = tuple[weakref.ref[Key], ...]


class Keys:
    """The keys of one thing (a pool, a limiter) that are in use."""

    def __init__(self) -> None:
        # By hash; a bucket is replaced, never changed.
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
        """The object that represents this key. Raises what its hash and its comparisons raise."""
        hashed = hash(value)
        check()
        while True:
            bucket = self._buckets.get(hashed)
            # Kept until the end: freeing one may run the user's code, never under the lock.
            living = [(ref, key) for ref in bucket or () if (key := ref()) is not None]
            for _, key in living:
                if key.value is value or key.value == value:
                    return key
            new = Key(value)
            ref = weakref.ref(new, functools.partial(self._forget, hashed))
            if self._replace(hashed, bucket, (*(one for one, _ in living), ref)):
                return new

    def _replace(self, hashed: int, old: _Bucket | None, new: _Bucket) -> bool:
        """Replace a bucket by another, unless it has been replaced meanwhile."""
        with self._lock:
            if self._buckets.get(hashed) is not old:
                return False
            self._buckets[hashed] = new
            return True

    def _forget(self, hashed: int, gone: weakref.ref[Key]) -> None:
        with self._lock:
            bucket = self._buckets.get(hashed, ())
            left = tuple(one for one in bucket if one is not gone)
            if len(left) == len(bucket):
                return  # it was never in: to replace the bucket would make others look again
            if left:
                self._buckets[hashed] = left
            else:
                self._buckets.pop(hashed, None)
