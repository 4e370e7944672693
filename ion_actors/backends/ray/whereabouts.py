"""Where the task of an actor is: asked for, and answered, while the task goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from ion_actors.backends.stacks import TaskStack, formatted
from ion_actors.clock import system_clock

__all__ = ["AskedActor"]

# Seconds that it gets for an answer.
_PATIENCE = 1.0


class AskedActor:
    """See :class:`~ion_actors.backends.stacks.Stack`.

    Args:
        ask: asks an actor, and has the function called with a future of its answer: the number of
            its task, and the stack, or text instead.
        process: which one it is, for people.
        task: the number of the task that is meant.
    """

    def __init__(
        self, ask: Callable[[Callable[[Any], object]], object], process: str, task: int
    ) -> None:
        self._process = process
        self._task = task
        self._answered = threading.Event()
        self._answer: Any = None
        self._last = system_clock.monotonic() + _PATIENCE
        ask(self._take)

    def _take(self, future: Any) -> None:
        self._answer = future
        self._answered.set()

    def text(self, until: float) -> str:
        """Wait for the answer until then at most. If none has come, say so."""
        left = min(until, self._last) - system_clock.monotonic()
        if not self._answered.wait(max(0.0, left)):
            return f"(the Ray actor in {self._process} does not answer)\n"
        if self._answer.exception() is not None:
            return f"(the Ray actor in {self._process} has ended)\n"
        number, stack = self._answer.result()
        if number != self._task:
            return f"(the Ray actor in {self._process} has not begun the task, or has ended it)\n"
        return stack if isinstance(stack, str) else formatted(TaskStack(*stack))
