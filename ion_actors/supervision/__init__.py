"""Supervision trees: who restarts pools and actors when they fail, and in which order.

From the top down, each importing only from below::

    supervisor     the face
    exit_hooks     interpreter exit and fork
    tree_text      the tree as text
    actor          the actor that carries out what the machine decides
    child_table    who of the children is there, and what is told of them
    children       pools and supervisors as children, and how a child is made
    watched_actor  an actor as a child
    core           what the face, the actor and the exit hook share
    machine        the decisions, pure
    spec           the checked arguments
    events         lifecycle events, and who is told of them
    protocol       what a supervisor needs of a child, whatever it is
    report         what a supervisor tells of its children
    states         states, rules and orders
"""

from ion_actors.observe import Subscription
from ion_actors.supervision.events import Lifecycle, LifecycleEvent
from ion_actors.supervision.report import ChildEnd, ChildInfo, ChildKind, StopReport
from ion_actors.supervision.spec import ChildSpec, child
from ion_actors.supervision.states import (
    AutoShutdown,
    ChildState,
    Restart,
    Strategy,
    SupervisorState,
)
from ion_actors.supervision.supervisor import Supervisor

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
