"""Supervision trees: supervisors that restart pools and actors when they fail.

From the top down, each importing only from below::

    supervisor     the public Supervisor
    exit_hooks     interpreter exit and fork
    tree_text      the tree as text
    actor          the actor that carries out the decisions of the machine
    child_table    the running children, and the events and snapshots about them
    children       pools and supervisors as children, and how a child is made
    watched_actor  actors as children
    core           the state that the Supervisor, its actor and the exit hooks share
    machine        the decisions, as a pure state machine
    spec           the checked arguments
    events         lifecycle events
    protocol       the interface of a child to its supervisor
    report         reports on children, now and at the end
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
