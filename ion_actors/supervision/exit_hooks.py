"""Supervisors at the interpreter's exit, and in forks.

At exit, trees are drained before other pools: a supervisor would only restart a pool that something
else has drained.

A forked child does not have the threads. There, every supervisor is marked, and raises an error.
"""

from __future__ import annotations

import threading
import weakref

from ion_actors.actors import Flag
from ion_actors.clock import system_clock
from ion_actors.context import background
from ion_actors.forking import check, on_fork
from ion_actors.logs import Logger, warn_later
from ion_actors.supervision.core import TreeCore
from ion_actors.supervision.states import SupervisorState
from ion_actors.workerpool import exit_hooks as pools
from ion_actors.workerpool.messages import Drain

__all__ = ["is_exiting", "register"]

logger = Logger("ion_actors", later=True)

_cores: weakref.WeakSet[TreeCore] = weakref.WeakSet()
_lock = threading.Lock()  # guards the set
_exiting = Flag()

_MARGIN = 1.0  # seconds


def register(core: TreeCore) -> None:
    """Stop this supervisor at exit, and mark it in forks, until it has ended."""
    pools.exit_first()
    with _lock:
        _cores.add(core)


def is_exiting() -> bool:
    """Whether the interpreter is about to end, so that nothing new may begin."""
    return _exiting.is_set() or pools.is_exiting()


def _unended() -> list[TreeCore]:
    with _lock:
        return [core for core in _cores if core.state is not SupervisorState.STOPPED]


def _at_exit() -> None:
    check()  # this process must not stop the supervisors of its parent
    _exiting.set()
    unended = _unended()
    for core in unended:
        core.exiting = True
    roots = [core for core in unended if not core.nested]
    for core in roots:
        if core.state is not SupervisorState.STOPPING:
            _warn(core)
        core.tell(Drain(None))
    began = system_clock.monotonic()
    for core in roots:
        _await_end(core, system_clock.monotonic() - began)


def _await_end(core: TreeCore, waited: float) -> None:
    # Each child has its deadline, and so has the tree; this is for an actor that does not answer.
    limit = core.patience()
    background().wait(core.ended, None if limit is None else max(0.0, limit + _MARGIN - waited))


def _warn(core: TreeCore) -> None:
    warn_later(
        f"supervisor {core.spec.name!r} was not stopped before the interpreter exits; "
        "use it as a with block, or call drain() or close()",
        ResourceWarning,
        logger=logger,
    )


def _after_fork_in_child() -> None:
    global _lock  # noqa: PLW0603  # the old one may be held by a thread that is not here
    _lock = threading.Lock()
    for core in _unended():
        core.forked = True
        core.state = SupervisorState.STOPPED
        core.infos, core.live = (), {}
        if core.inbox is not None:
            core.inbox.control.shut()


pools.run_before_drains(_at_exit)
on_fork(_after_fork_in_child)
