"""Keeps the latest dead letters of each pool, from when somebody may look until nobody may.

They hold the arguments of their tasks. So a program that is neither published nor served keeps
none.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ion_actors.forking import check, on_fork
from ion_actors.observe.living import POOLS
from ion_actors.workerpool.core import PoolCore
from ion_actors.workerpool.mailbox.dead_letters import KeptLetters
from ion_actors.workerpool.submission.submitter import letters_of

__all__ = ["letters_kept"]

_MOST = 100  # of each pool


class _Watchers:
    """How many look now."""

    def __init__(self) -> None:
        self.count = 0
        self.lock = threading.RLock()  # guards the count, and what the first and the last one do


_watchers = _Watchers()


@contextmanager
def letters_kept() -> Iterator[None]:
    """A block in which the latest dead letters of all pools are kept: see ``snapshot()``."""
    check()
    watchers = _watchers
    with watchers.lock:
        watchers.count += 1
        if watchers.count == 1:
            POOLS.follow(_begin)
    try:
        yield
    finally:
        with watchers.lock:
            watchers.count -= 1
            if watchers.count == 0 and watchers is _watchers:
                _end()


def _begin(core: PoolCore) -> None:
    if core.kept is None and not core.forked:
        core.kept = KeptLetters(letters_of(core), _MOST)


def _end() -> None:
    POOLS.unfollow(_begin)
    for core in POOLS.all():
        kept, core.kept = core.kept, None
        if kept is not None:
            kept.stop()


def _after_fork_in_child() -> None:
    global _watchers  # noqa: PLW0603  # those of the parent do not look here
    _watchers.lock = threading.RLock()  # blocks of the parent's may still be left here
    _watchers = _Watchers()
    POOLS.unfollow(_begin)


on_fork(_after_fork_in_child)
