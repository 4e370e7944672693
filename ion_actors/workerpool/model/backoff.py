"""How long to wait before something that failed is tried again.

The shape is that of Pekko's backoff supervisor: exponential, with a random factor.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from ion_actors._arguments import make_plain, number, whole_number

__all__ = ["Backoff", "random_part"]


def random_part() -> float:
    """A random number from 0 to 1. The ``random`` module takes a millisecond to import."""
    return int.from_bytes(os.urandom(4)) / 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait before something that failed is tried again.

    The n-th wait is ``initial * factor ** (n - 1)`` seconds, at most ``maximum``, shortened by a
    random part of up to ``jitter`` (0 to 1), so that many do not retry in step.

    ``PanicRecovery(backoff=...)``: for a worker that could not start. After ``retries`` failed
    retries the pool breaks; with the defaults, after at most 1.55 seconds of waiting. For a task
    (:class:`Retry`), ``attempts`` counts instead of ``retries``.
    """

    initial: float = 0.05
    factor: float = 2.0
    maximum: float = 1.0
    jitter: float = 0.2
    retries: int = 5

    def __post_init__(self) -> None:
        for name in ("initial", "maximum"):
            number(name, getattr(self, name), minimum=0)
        number("factor", self.factor, minimum=1)
        number("jitter", self.jitter, minimum=0, maximum=1)
        whole_number("retries", self.retries, minimum=0)
        make_plain(self, "initial", "factor", "maximum", "jitter", "retries")

    def delay(self, failures: int, chance: Callable[[], float] = random_part) -> float | None:
        """Seconds to wait after so many failures in a row; None to give up.

        Args:
            failures: 1 or more.
            chance: gives numbers from 0 to 1.
        """
        return None if failures > self.retries else self.wait(failures, chance)

    def wait(self, failures: int, chance: Callable[[], float] = random_part) -> float:
        """Seconds to wait after so many failures in a row, however many they are.

        Args:
            failures: 1 or more.
            chance: gives numbers from 0 to 1.
        """
        try:
            grown = self.initial * float(self.factor) ** (failures - 1)
        except OverflowError:
            grown = self.maximum if self.initial else 0.0
        return min(self.maximum, grown) * (1 - self.jitter * chance())
