"""How threads wait for a future: parked, or by the condition of ``concurrent.futures``."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

__all__ = ["Condition", "Parked"]


class Parked:
    """One thread that waits only for this future: one of the future's waiters.

    A condition would work, too, and cost a tenth of the time of a round trip.

    Args:
        release: releases the lock on which it waits.
    """

    __slots__ = ("release",)

    def __init__(self, release: Callable[[], object]) -> None:
        self.release = release

    def add_result(self, _: object) -> None:
        """The future is done. Calling twice does no harm."""
        try:
            self.release()
        except RuntimeError:
            return  # it was released before

    add_exception = add_cancelled = add_result


class Condition(threading.Condition):
    """For clients that look inside a future, as ``concurrent.futures.wait`` does.

    Entering it is entering its lock: the base does that in Python code, which may be interrupted
    between the two and then leaves the future locked.
    """

    _lock: Any

    @property
    def __enter__(self) -> Callable[[], bool]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self._lock.__enter__  # type: ignore[no-any-return]

    @property
    def __exit__(self) -> Callable[..., None]:  # noqa: PLE0302  # pyright: ignore[reportIncompatibleMethodOverride]
        return self._lock.__exit__  # type: ignore[no-any-return]
