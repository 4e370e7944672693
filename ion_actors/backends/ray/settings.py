"""What a worker has to know of its backend's settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ion_actors.backends.process import ProcessBackend

__all__ = ["ActorSettings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ActorSettings:
    """See :class:`~ion_actors.backends.ray.backend.RayBackend`."""

    address: str | None
    init: Mapping[str, Any]
    ship: Sequence[str]  # paths
    num_cpus: float
    num_gpus: float
    resources: Mapping[str, float]
    scheduling: Any
    max_tasks_per_child: int | None
    window: int
    batch: int
    writable: bool
    capture_output: bool
    connect_timeout: float
    start_timeout: float | None
    grace: float | None
    kill_after: float
    child: ProcessBackend | None  # None: tasks run in the actor itself
