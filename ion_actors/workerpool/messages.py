"""What a pool's supervisor understands.

For programs made of actors: ``pool.actor_ref`` takes these with pykka's ``ask`` and ``tell``. A
reply is a future that can be awaited (``ref.ask(message, block=False)``). A message that makes no
sense is refused when it is made.

=====================  ========================================================================
message                the reply to ``ask``
=====================  ========================================================================
:class:`Submit`        the task's future, as soon as the task is accepted (blocks the sender, not
                       the supervisor, while the mailbox is full)
:class:`TrySubmit`     the same, or ``QueueFull``
:class:`Drain`         the ``DrainReport``; ``DrainTimeout`` if the deadline came first
:class:`Close`         the ``DrainReport``
:class:`GetMetrics`    the ``PoolMetrics``
:class:`GetState`      the ``PoolState``
:class:`Resize`        None, as soon as the new size holds; ``PoolClosed`` if it is too late
:class:`Broadcast`     a list of futures: the answer of each worker, of a pool with ``worker=``
pykka's own stop       as :class:`Close` with the pool's ``drain_timeout``
=====================  ========================================================================

The others come from inside the pool: from its workers, its clock, and its face.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ion_actors._arguments import make_plain, seconds, whole_number
from ion_actors.naming import as_repr
from ion_actors.own_variables import copy_variables
from ion_actors.workerpool.model.outcomes import Directive
from ion_actors.workerpool.model.retry import Retry

if TYPE_CHECKING:
    from ion_actors.context import Context
    from ion_actors.workerpool.mailbox.protocols import Performer

__all__ = [
    "Broadcast",
    "Close",
    "Drain",
    "Forgotten",
    "GetMetrics",
    "GetState",
    "Locate",
    "Look",
    "LookAtLoop",
    "LoopEnded",
    "Needed",
    "Panicked",
    "Ready",
    "Resize",
    "RetrySeat",
    "StartFailed",
    "Stopped",
    "Submit",
    "Tick",
    "TrySubmit",
]


@dataclass(frozen=True, slots=True)
class Submit:
    """Run ``fn(*args, **kwargs)``; waits for room.

    The other fields are those of ``Pool.options``.
    """

    fn: Callable[..., Any]
    # Not in the repr, which gets into logs: there may be a password among them.
    args: tuple[Any, ...] = field(default=(), repr=False)
    kwargs: Mapping[str, Any] = field(default_factory=dict, repr=False)
    context: Context | None = None
    timeout: float | None = None
    name: str | None = None
    ttl: float | None = None
    priority: int | None = None
    key: Hashable | None = None
    key_limit: int | None = None
    retry_on_worker_death: int | None = None
    retry: Retry | None = None
    delay: float | None = None


@dataclass(frozen=True, slots=True)
class TrySubmit(Submit):
    """Run ``fn(*args, **kwargs)`` if there is room now."""


@dataclass(frozen=True, slots=True)
class Drain:
    """Accept nothing more, finish what there is; ``timeout`` in seconds, None for no deadline."""

    timeout: float | None = None

    def __post_init__(self) -> None:
        seconds("timeout", self.timeout)
        make_plain(self, "timeout")


@dataclass(frozen=True, slots=True)
class Close:
    """Drop what has not started, ask what runs to stop; ``timeout`` in seconds until it is
    abandoned, None for no deadline. ``interrupted``: by Ctrl-C. Then, and with a timeout of 0, what
    does not end is no news for the log, except for the number."""

    timeout: float | None = None
    interrupted: bool = False

    def __post_init__(self) -> None:
        seconds("timeout", self.timeout)
        make_plain(self, "timeout")


@dataclass(frozen=True, slots=True)
class Resize:
    """Have ``size`` workers from now on, 1 or more."""

    size: int

    def __post_init__(self) -> None:
        whole_number("size", self.size, minimum=1)
        make_plain(self, "size")


@dataclass(frozen=True, slots=True)
class Broadcast:
    """Have every worker that there is now answer ``message``, once, between its tasks."""

    message: Any
    #: what each of them gets a copy of; by default those of whoever makes this
    variables: contextvars.Context = field(
        default_factory=copy_variables, repr=False, compare=False
    )


@dataclass(frozen=True, slots=True)
class GetMetrics:
    """Ask for the numbers."""


@dataclass(frozen=True, slots=True)
class GetState:
    """Ask where the pool is in its life."""


# The rest comes from inside the pool. These are no dataclasses: each would add a third of a
# millisecond to the import of the library.


class _Signal:
    """A message without a content."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class _OfWorker:
    """A message from or for one worker."""

    __slots__ = ("worker",)

    def __init__(self, worker: Performer) -> None:
        self.worker = worker

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.worker!r})"


class Needed(_OfWorker):
    """To the supervisor: there is something for this worker, which has no thread yet."""

    __slots__ = ()


class Ready(_OfWorker):
    """To the supervisor: this worker's initializer has run."""

    __slots__ = ()


class StartFailed(_OfWorker):
    """To the supervisor: this worker could not start."""

    __slots__ = ("error", "shown")

    def __init__(self, worker: Performer, error: BaseException) -> None:
        super().__init__(worker)
        self.error = error
        self.shown = as_repr(error)  # here, on the thread where it was raised


class Panicked(_OfWorker):
    """To the supervisor: a task took this worker down. The reply is what to tell the handler."""

    __slots__ = ("directive", "error", "task")

    def __init__(
        self, worker: Performer, task: str, error: BaseException, directive: Directive
    ) -> None:
        super().__init__(worker)
        self.task = task
        self.error = error
        self.directive = directive


class Stopped(_OfWorker):
    """To the supervisor: this worker's thread is about to end."""

    __slots__ = ()


class Tick(_Signal):
    """A moment that was planned for has come."""

    __slots__ = ()


class Look(_Signal):
    """It is time to look for tasks that are stuck."""

    __slots__ = ()


class Measure(_Signal):
    """It is time to see whether the pool has the size that suits its work."""

    __slots__ = ()


class LookAtLoop(_Signal):
    """It is time to look whether the event loop is still there that the tasks run on."""

    __slots__ = ()


class LoopEnded(_Signal):
    """The event loop that the tasks run on ends, or has ended."""

    __slots__ = ()


class Locate(_Signal):
    """It is time to ask where the tasks are that will soon be abandoned."""

    __slots__ = ()


class RetrySeat:
    """It is time to try a worker again."""

    __slots__ = ("index",)

    def __init__(self, index: int) -> None:
        self.index = index

    def __repr__(self) -> str:
        return f"RetrySeat({self.index})"


class Forgotten(_Signal):
    """The pool's face was collected, or the interpreter exits."""

    __slots__ = ()
