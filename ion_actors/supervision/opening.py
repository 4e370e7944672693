"""How a child is made from its specification."""

from __future__ import annotations

from typing import Any

import pykka

from ion_actors.supervision.actors import start_actor
from ion_actors.supervision.core import Face, TreeCore
from ion_actors.supervision.living import Living
from ion_actors.supervision.nested import LivingTree
from ion_actors.supervision.pools import LivingPool
from ion_actors.supervision.spec import WORKER_SHUTDOWN, ChildSpec
from ion_actors.workerpool.pool import Pool

__all__ = ["open_child"]


def open_child(spec: ChildSpec, parent: TreeCore) -> Living:
    """Make it. What its start raises comes out here.

    Raises:
        TypeError: its start returned what cannot be a child.
    """
    start = spec.start
    if isinstance(start, type) and issubclass(start, pykka.ThreadingActor):
        return start_actor(start, spec.args, dict(spec.kwargs))
    made = start(*spec.args, **spec.kwargs)
    if isinstance(made, Pool):
        return LivingPool(made, WORKER_SHUTDOWN if spec.shutdown == "default" else spec.shutdown)
    if isinstance(made, Face):
        made._core.bus.tell_parent(parent.bus, spec.id)
        return LivingTree(made)
    raise TypeError(_why_not(spec, made))


def _why_not(spec: ChildSpec, made: Any) -> str:
    if isinstance(made, pykka.ActorRef):
        made.stop(block=False)
        return (
            f"child {spec.id!r} is an actor that was started before its supervisor could watch "
            "it; give its class as the start"
        )
    return f"child {spec.id!r} must be a Pool, a Supervisor or an actor class, not {made!r}"
