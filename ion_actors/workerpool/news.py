"""What the supervisor is told from inside the pool: by its workers, its clock, and its face.

(What users may tell it: :mod:`ion_actors.workerpool.messages`.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ion_actors.naming import as_repr
from ion_actors.workerpool.directive import Directive

if TYPE_CHECKING:
    from ion_actors.workerpool.caller import Caller
    from ion_actors.workerpool.worker import Worker

__all__ = [
    "Forgotten",
    "Look",
    "Needed",
    "Panicked",
    "Ready",
    "Retry",
    "StartFailed",
    "Stopped",
    "Tick",
]


@dataclass(frozen=True, slots=True)
class Needed:
    """To the supervisor: there is something for this worker, which has no thread yet."""

    worker: Worker


@dataclass(frozen=True, slots=True)
class Ready:
    """To the supervisor: this worker's initializer has run."""

    worker: Worker


@dataclass(frozen=True, slots=True)
class StartFailed:
    """To the supervisor: this worker could not start."""

    worker: Worker
    error: BaseException
    shown: str = ""  # its repr, which is made on the thread where it was raised

    def __post_init__(self) -> None:
        object.__setattr__(self, "shown", as_repr(self.error))


@dataclass(frozen=True, slots=True)
class Panicked:
    """To the supervisor: a task took this worker down. The reply is what to tell the handler."""

    worker: Worker | Caller
    task: str
    error: BaseException
    directive: Directive = Directive.RESTART


@dataclass(frozen=True, slots=True)
class Stopped:
    """To the supervisor: this worker's thread is about to end."""

    worker: Worker | Caller


@dataclass(frozen=True, slots=True)
class Tick:
    """A moment that was planned for has come."""


@dataclass(frozen=True, slots=True)
class Look:
    """It is time to look for tasks that are stuck."""


@dataclass(frozen=True, slots=True)
class Retry:
    """It is time to try a worker again."""

    index: int


@dataclass(frozen=True, slots=True)
class Forgotten:
    """The pool's face was collected, or the interpreter exits."""
