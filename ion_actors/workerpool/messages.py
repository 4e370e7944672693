"""What a pool's supervisor understands, for programs made of actors.

``pool.actor_ref`` takes these with pykka's ``ask`` and ``tell``. A reply is a future that can be
awaited (``ref.ask(message, block=False)``). A message that makes no sense is refused when it is
made.

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
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ion_actors._arguments import make_plain, seconds, whole_number
from ion_actors.own_variables import copy_variables

if TYPE_CHECKING:
    from ion_actors.context import Context

__all__ = ["Broadcast", "Close", "Drain", "GetMetrics", "GetState", "Resize", "Submit", "TrySubmit"]


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
    retry_on_worker_death: int | None = None


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
    abandoned, None for no deadline."""

    timeout: float | None = None

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
