"""What the tasks of a soak do. A child process imports it by name."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Any, NoReturn

from ion_actors import IonError, Pool, current_context

__all__ = ["FLOCKS", "POOLS", "Misfortune", "Stray"]

MOMENT = 0.002  # seconds
LONG = 0.5

#: Those of this process, by name: what a task of a child process has no use for.
POOLS: weakref.WeakValueDictionary[str, Pool] = weakref.WeakValueDictionary()

#: The coroutines that submit, to be shown if they hang.
FLOCKS: weakref.WeakSet[asyncio.Task[Any]] = weakref.WeakSet()


class Misfortune(Exception):
    """An ordinary failure."""


class Stray(BaseException):
    """Not an ordinary one."""


def echo(value: object) -> object:
    return value


def fail() -> NoReturn:
    raise Misfortune


def stray() -> NoReturn:
    raise Stray


def leave_politely() -> NoReturn:
    raise SystemExit(3)


def pause() -> None:
    current_context().wait(timeout=MOMENT)


def be_deaf() -> None:
    time.sleep(MOMENT)


async def rest() -> None:
    await asyncio.sleep(MOMENT)


def linger() -> None:
    current_context().wait(timeout=LONG)


async def linger_async() -> None:
    await current_context().await_(timeout=LONG)


def want_too_much() -> int:
    return len(bytearray(1 << 60))


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    threading.Event().wait()


def leave() -> None:
    os._exit(5)


def count(upto: int) -> Iterator[int]:
    yield from range(upto)


def nest(name: str) -> object:
    try:
        return POOLS[name].submit(echo, 1).result()
    except (IonError, KeyError, MemoryError, RuntimeError, OSError):
        return None


async def nest_async(name: str) -> object:
    try:
        return await POOLS[name].submit(echo, 1)
    except (IonError, KeyError, MemoryError, RuntimeError, OSError):
        return None


async def flock(pool: Pool, size: int) -> int:
    """Submit so many, and read as many by a map."""
    if (task := asyncio.current_task()) is not None:
        FLOCKS.add(task)
    futures: list[Any] = [await pool.asubmit(echo, number) for number in range(size)]
    done = await asyncio.gather(*futures, return_exceptions=True)
    return len(done) + len([one async for one in pool.amap(echo, range(size))])
