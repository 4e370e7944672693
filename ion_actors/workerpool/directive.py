"""What becomes of a worker whose task raised."""

from __future__ import annotations

import enum

__all__ = ["Directive"]


class Directive(enum.Enum):
    """What a pool does about an exception. The words are Akka's.

    With any but RESUME the task panics: its future raises ``TaskPanicked``, whose cause is the
    exception.
    """

    RESUME = "resume"  #: the future raises it; the worker goes on, and keeps its state
    RESTART = "restart"  #: the worker is replaced by a fresh one, with a state of its own
    STOP = "stop"  #: the worker goes and is not replaced: the pool has one fewer from now on
    ESCALATE = "escalate"  #: the pool breaks, which whoever supervises it is told
