"""The executors of ``concurrent.futures``, as pools: programs change one import.

::

    from ion_actors.executors import ThreadPoolExecutor, as_completed, wait

Every name of ``concurrent.futures`` is here. Each of the two executors is a
:class:`~ion_actors.Pool`, and a subclass of its namesake; the others are the standard library's.

From the top down, each importing only from below::

    process   ProcessPoolExecutor
    thread    ThreadPoolExecutor
    stand_in  what the two have in common: a pool that behaves as the standard library's executors
"""

from __future__ import annotations

import importlib
from concurrent.futures import (
    ALL_COMPLETED,
    FIRST_COMPLETED,
    FIRST_EXCEPTION,
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    InvalidStateError,
    TimeoutError,  # noqa: A004 - as there
    as_completed,
    wait,
)
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ion_actors.executors.process import ProcessPoolExecutor
    from ion_actors.executors.thread import ThreadPoolExecutor

__all__ = [
    "ALL_COMPLETED",
    "FIRST_COMPLETED",
    "FIRST_EXCEPTION",
    "BrokenExecutor",
    "CancelledError",
    "Executor",
    "Future",
    "InvalidStateError",
    "ProcessPoolExecutor",
    "ThreadPoolExecutor",
    "TimeoutError",
    "as_completed",
    "wait",
]

# Imported when they are used, as in concurrent.futures: a program of threads needs no processes.
_LAZY = {"ThreadPoolExecutor": "thread", "ProcessPoolExecutor": "process"}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
    if name in _LAZY.values():  # for the errors, as in concurrent.futures
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "process", "thread"]
