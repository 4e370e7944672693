"""What the options of a submitter say about each of its tasks.

One object for all tasks of a submitter: a task refers to it instead of having a copy of each value.
"""

from __future__ import annotations

from dataclasses import dataclass

from ion_actors.workerpool.model.retry import Retry

__all__ = ["PLAIN", "TaskTerms"]


@dataclass(slots=True)
class TaskTerms:
    """See the module. It is not changed once a task has it.

    Attributes:
        name: what to call the tasks; None for the name of their function.
        limit: seconds from when a task is accepted until it must have ended.
        ttl: seconds that it may be queued.
        delay: seconds from when it is accepted until it may begin.
        at: instead, that moment.
        retry: how it is tried again if it fails.
        retries: how often it is run again after it took down its worker.
        priority: the more, the sooner.
        key_limit: how many of its key may run while it does, itself included.
        ranked: it has a priority or a key.
        timed: it has a delay, or may be tried again.
        bare: it has nothing but a name, a priority and a key: it ends by itself, or with its pool.
        endless: it needs no context of its own.
        limited: it has a moment when it ends, or before which it does not begin.
        again: it may be tried again, or run again.
        brief: a timeout is all that may matter once it is accepted.
    """

    name: str | None = None
    limit: float | None = None
    ttl: float | None = None
    delay: float | None = None
    at: float | None = None
    retry: Retry | None = None
    retries: int = 0
    priority: int = 0
    key_limit: int = 1
    ranked: bool = False
    timed: bool = False
    bare: bool = True
    endless: bool = True
    limited: bool = False
    again: bool = False
    brief: bool = False


#: Those of a task without options.
PLAIN = TaskTerms()
