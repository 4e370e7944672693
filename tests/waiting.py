"""Waits for what others do and nobody announces."""

from __future__ import annotations

import threading
from collections.abc import Callable

__all__ = ["PATIENCE", "comes_true", "eventually"]

#: Seconds after which a wait in a test is a failure.
PATIENCE = 30.0


def comes_true(condition: Callable[[], object], patience: float = PATIENCE) -> bool:
    """Whether it is so within these seconds, or a little longer on a busy machine."""
    pause = threading.Event()
    for _ in range(int(patience * 1000)):
        if condition():
            return True
        pause.wait(0.001)
    return False


def eventually(condition: Callable[[], object], else_: str = "it never came true") -> None:
    """Wait until it is so."""
    assert comes_true(condition), else_
