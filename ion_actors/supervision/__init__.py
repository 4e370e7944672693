"""Supervision trees: who restarts pools and actors when they fail, and in which order.

From the top down, each importing only from below::

    supervisor   the face; process: interpreter exit and fork; drawing: the tree as text
    shell        the actor that carries out what the machine decides
    seat         one life of one child; opening: how it is made
    nested · pools · actors    what a child can be: adapters to one protocol, living
    core         what the face, the actor and the exit hook share
    machine      the decisions, pure
    spec · report · events · words
"""

from ion_actors.observe import Subscription
from ion_actors.supervision.events import Lifecycle, LifecycleEvent
from ion_actors.supervision.report import ChildEnd, ChildInfo, ChildKind, StopReport
from ion_actors.supervision.spec import ChildSpec, child
from ion_actors.supervision.supervisor import Supervisor
from ion_actors.supervision.words import (
    AutoShutdown,
    ChildState,
    Restart,
    Strategy,
    SupervisorState,
)

__all__ = [
    "AutoShutdown",
    "ChildEnd",
    "ChildInfo",
    "ChildKind",
    "ChildSpec",
    "ChildState",
    "Lifecycle",
    "LifecycleEvent",
    "Restart",
    "StopReport",
    "Strategy",
    "Subscription",
    "Supervisor",
    "SupervisorState",
    "child",
]
