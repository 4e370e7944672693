"""Whether anything was left behind."""

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

# It lives a little longer than the last timer, to be there for the next: not a leak.
_TIMER_THREAD = "ion_actors-timer"


@contextmanager
def assert_no_leaks(patience: float = 20.0) -> Iterator[None]:
    """A block that must leave no thread, pykka actor, child process or timer behind.

    What is about to end gets its time: threads and processes are joined.

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
    return [one for one in threading.enumerate() if one.name != _TIMER_THREAD]


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
            one.join(remaining)
            alive = one.is_alive()
        if alive:
            left.append(repr(one))
    return left
