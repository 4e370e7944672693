"""What there is in this process, for those who look at it: pools, limiters, breakers and so on.

Each object enters itself once, when it is made, and is held weakly. Nothing else is done until
somebody looks.

There is no lock: an object may be made in a finalizer or a signal handler, and each step here is
one operation of a dict. A forked child has copies of the objects, and forgets those whose threads
stayed in the parent.
"""

from __future__ import annotations

import functools
import importlib
import os
import time
import weakref
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from ion_actors.forking import on_fork

__all__ = [
    "ADAPTIVE_LIMITS",
    "BREAKERS",
    "LIMITERS",
    "POOLS",
    "SEMAPHORES",
    "SUPERVISORS",
    "Living",
    "since",
]

T = TypeVar("T")


class Living(Generic[T]):
    """The objects of one kind that somebody still refers to, the oldest first."""

    def __init__(self) -> None:
        self._found: dict[int, weakref.ref[T]] = {}
        self._followers: dict[Callable[[T], object], None] = {}

    def add(self, one: T) -> None:
        """An object was made. The followers are called here."""
        # Keyed by the reference, not by the object: a subclass may have a hash of its own.
        entry = weakref.ref(one, functools.partial(_forget, self._found))
        self._found[id(entry)] = entry
        for follower in self._followers.copy():
            follower(one)

    def all(self) -> list[T]:
        """Those that are still referred to."""
        found = [entry() for entry in self._found.copy().values()]
        return [one for one in found if one is not None]

    def clear(self) -> None:
        """Forget them."""
        self._found.clear()

    def follow(self, follower: Callable[[T], object]) -> None:
        """Call ``follower(one)`` for each that is there, and for each that is made later."""
        self._followers[follower] = None
        for one in self.all():
            follower(one)

    def unfollow(self, follower: Callable[[T], object]) -> None:
        """Call it no more."""
        self._followers.pop(follower, None)


def _forget(found: dict[int, weakref.ref[T]], entry: weakref.ref[T]) -> None:
    found.pop(id(entry), None)


# What is in them is defined in packages above this one.
POOLS: Living[Any] = Living()  #: the cores of pools
SUPERVISORS: Living[Any] = Living()  #: the cores of supervision trees that were started
LIMITERS: Living[Any] = Living()
BREAKERS: Living[Any] = Living()
SEMAPHORES: Living[Any] = Living()
ADAPTIVE_LIMITS: Living[Any] = Living()

_since = time.time()


def since() -> float:
    """When this process began to use the library, in seconds since 1970; or when it was forked."""
    return _since


def _after_fork_in_child() -> None:
    global _since  # noqa: PLW0603  # there is one for the process
    _since = time.time()
    POOLS.clear()
    SUPERVISORS.clear()


on_fork(_after_fork_in_child)


def _publish(_: object) -> None:
    # By its name: it is in a package far above this one, and seldom wanted.
    importlib.import_module("ion_actors.dashboard.publisher").publish_quietly()


if os.environ.get("ION_ACTORS_PUBLISH") == "1":  # the program is published with its first pool
    POOLS.follow(_publish)
