"""Supervisors and the life of their process: interpreter exit and ``os.fork``.

At exit, trees are drained before the pools are: a supervisor would only replace what is drained
behind its back. Hooks run in the reverse order of their registration, and this module imports that
of the pools, so its own hook comes first.

In a forked child the threads do not exist. There, every supervisor is marked, and says so.
"""

from __future__ import annotations

import atexit
import threading
import weakref

from ion_actors.forking import check, on_fork
from ion_actors.logs import Logger, warn_later
from ion_actors.supervision.core import TreeCore
from ion_actors.supervision.words import SupervisorState
from ion_actors.workerpool import process as pools
from ion_actors.workerpool.messages import Drain

__all__ = ["is_exiting", "register"]

logger = Logger("ion_actors", later=True)

_cores: weakref.WeakSet[TreeCore] = weakref.WeakSet()
_lock = threading.Lock()  # guards the set
_exiting = threading.Event()


def register(core: TreeCore) -> None:
    """See to this supervisor at exit and in forks, until it has ended."""
    with _lock:
        _cores.add(core)


def is_exiting() -> bool:
    """Whether the interpreter is about to end, so that nothing new may begin."""
    return _exiting.is_set() or pools.is_exiting()


def _unended() -> list[TreeCore]:
    with _lock:
        return [core for core in _cores if core.state is not SupervisorState.STOPPED]


def _at_exit() -> None:
    check()  # the supervisors of the parent are not ours to stop
    _exiting.set()
    roots = [core for core in _unended() if not core.nested]
    for core in roots:
        if core.state is not SupervisorState.STOPPING:
            _warn(core)
        core.tell(Drain(None))
    for core in roots:  # each child has its deadline, and so has the whole
        core.ended.exception()


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
        core.infos, core.living = (), ()
        if core.inbox is not None:
            core.inbox.control.shut()


(getattr(threading, "_register_atexit", None) or atexit.register)(_at_exit)
on_fork(_after_fork_in_child)
