"""What a forked child must put right: it has every object, but of the threads only its own."""

from __future__ import annotations

import os
import weakref
from typing import Protocol

__all__ = ["Inherited", "renew_after_fork"]


class Inherited(Protocol):
    """What has locks, or knows who waits."""

    def after_fork(self) -> None:
        """Forget, in the child, the threads that stayed in the parent.

        Nothing else runs yet. A lock may be held by a thread that is not there, in the midst of a
        change, so it must be replaced and not be waited for.
        """
        ...


_all: weakref.WeakSet[Inherited] = weakref.WeakSet()


def renew_after_fork(one: Inherited) -> None:
    """Have ``one.after_fork()`` called in each forked child, for as long as it lives."""
    _all.add(one)


def _after_fork_in_child() -> None:
    for one in list(_all):
        one.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
