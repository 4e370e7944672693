"""A check that nothing is left behind."""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pykka

from ion_actors.clock import system_clock

__all__ = ["assert_no_leaks"]

# These threads exist a little longer than they have work: not a leak.
_LINGERING = frozenset(
    ("ion_actors-timer", "ion_actors-log", "ion_actors-hooks", "ion_actors-finalizers")
)


@contextmanager
def assert_no_leaks(patience: float = 20.0) -> Iterator[None]:
    """A block that must leave no thread, pykka actor, child process or timer behind.

    Threads and processes that are about to end are joined.

    Args:
        patience: seconds to wait for all of them together.

    Raises:
        AssertionError: (when the block is left normally) what is left, by name.
    """
    threads = set(threading.enumerate())
    actors = set(_actors())
    children = set(multiprocessing.active_children())
    timers = system_clock.timers
    yield
    until = time.monotonic() + patience
    left = _join(set(_actors()) - actors, until)
    left += _join(set(multiprocessing.active_children()) - children, until)
    left += _join(set(_threads()) - threads, until)
    if (more := system_clock.timers - timers) > 0:
        left.append(f"{more} timers of the system clock")
    if left:
        raise AssertionError(f"left behind: {', '.join(left)}")


def _actors() -> list[pykka.ActorRef[Any]]:
    return pykka.ActorRegistry.get_all()


def _threads() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one.name not in _LINGERING]


def _has_ended(one: Any, until: float) -> bool:
    """Wait for a thread or a process."""
    while True:
        try:
            one.join(max(0.0, until - time.monotonic()))
            return not one.is_alive()
        except RuntimeError:  # it is about to start, and cannot be joined yet
            if time.monotonic() >= until:
                return False
            time.sleep(0.001)


def _join(found: set[Any], until: float) -> list[str]:
    """Wait for these threads, processes or actors; returns those that do not end."""
    left = []
    for one in found:
        remaining = max(0.0, until - time.monotonic())
        if isinstance(one, pykka.ActorRef):
            alive = not one.actor_stopped.wait(remaining)
        elif one is threading.current_thread():
            alive = False
        else:
            alive = not _has_ended(one, until)
        if alive:
            left.append(repr(one))
    return left
