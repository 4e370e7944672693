"""Pools and the life of their process: interpreter exit and ``os.fork``.

At exit, accepted work is finished as far as each pool's ``drain_timeout`` allows. This has to
happen before Python joins its threads and forgets its modules, hence ``threading._register_atexit``
which ``concurrent.futures`` uses, too; where it is missing, ``atexit`` does for daemon threads.

In a forked child the pools' threads do not exist, and their locks may be held by nobody. There,
every pool is marked, and every future of its unfinished tasks fails with ``PoolForked``.
"""

from __future__ import annotations

import atexit
import contextlib
import threading
import weakref
from collections.abc import Callable
from concurrent.futures._base import FINISHED
from typing import Any

from ion_actors.actors import Flag
from ion_actors.clock import system_clock
from ion_actors.delivery import CALLBACK_THREADS, FINALIZERS
from ion_actors.errors import PoolForked
from ion_actors.forking import check, on_fork
from ion_actors.futures.waiters import Parked
from ion_actors.logs import LOGS, Logger, warn_later
from ion_actors.observe import HOOKS
from ion_actors.workerpool.core import PoolCore
from ion_actors.workerpool.messages import Forgotten
from ion_actors.workerpool.model.metrics import PoolState
from ion_actors.workerpool.submission.stream import leave_at_exit

__all__ = ["exit_first", "forked", "is_exiting", "register", "run_before_drains"]

logger = Logger("ion_actors", later=True)


class _Pools:
    """Every pool that has not ended. Weakly: a pool's supervisor is what holds on to it."""

    def __init__(self) -> None:
        self._cores: weakref.WeakSet[PoolCore] = weakref.WeakSet()
        self._lock = threading.Lock()  # guards the set

    def add(self, core: PoolCore) -> None:
        """Remember a pool that begins."""
        with self._lock:
            self._cores.add(core)

    def all(self) -> list[PoolCore]:
        """Those that are still referred to."""
        with self._lock:
            return list(self._cores)

    def unended(self) -> list[PoolCore]:
        """Those whose end is still to come."""
        return [core for core in self.all() if core.state is not PoolState.CLOSED]

    def renew_lock(self) -> None:
        """In a forked child: the old one may be held by a thread that is not here."""
        self._lock = threading.Lock()


_pools = _Pools()
_exiting = Flag()
_at_exit_ran = False
_before_drains: list[Callable[[], object]] = []
_register_at_exit: Callable[..., object] = (
    getattr(threading, "_register_atexit", None) or atexit.register
)

# The drain decides when it is over; this is for a supervisor that does not answer.
_EXIT_MARGIN = 1.0


def register(core: PoolCore) -> None:
    """Drain this pool at exit, and mark it in forks, until it has ended."""
    exit_first()
    _pools.add(core)


def run_before_drains(hook: Callable[[], object]) -> None:
    """Have ``hook()`` called at the interpreter's exit before the pools are drained."""
    _before_drains.append(hook)


def exit_first() -> None:
    """Have the drain come before what others have registered for the exit until now.

    Their hooks shut down what tasks may need: executors, and with them ``asyncio.to_thread`` and
    the resolution of names. ``threading`` makes the calls in the reverse order of registration.
    """
    # Registered when it is imported, which cannot be done once the exit has begun.
    import concurrent.futures.thread  # noqa: F401, PLC0415  # not as soon as this is imported

    calls = getattr(threading, "_threading_atexits", None)
    if calls and getattr(calls[-1], "func", None) is not _at_exit:
        with contextlib.suppress(RuntimeError):  # the exit has begun
            _register_at_exit(_at_exit)


def is_exiting() -> bool:
    """Whether the interpreter is about to end, so that no new pool may begin."""
    return _exiting.is_set()


def forked(name: str) -> PoolForked:
    """The error of a pool in a process that is not its own."""
    return PoolForked(
        f"pool {name!r} belongs to the parent of this process: its threads were not forked; "
        "make a new pool in the child",
        pool=name,
    )


def _at_exit() -> None:
    global _at_exit_ran  # noqa: PLW0603  # it may be registered more than once
    if _at_exit_ran:
        return
    _at_exit_ran = True
    check()  # the pools of the parent are not ours to drain
    for core in _pools.unended():
        if core.site is not None:
            core.site.lose_if_it_stands()
    for hook in _before_drains:
        hook()
    leave_at_exit()
    _exiting.set()
    began = system_clock.monotonic()
    unfinished = _pools.unended()
    for core in unfinished:
        if core.phase is PoolState.RUNNING and core.spec.dialect.warns:
            _warn(core)
        core.tell(Forgotten())
    for core in unfinished:
        _await_end(core, system_clock.monotonic() - began)
    _await_told(_pools.all())  # also of those that ended a moment ago
    CALLBACK_THREADS.finish()
    CALLBACK_THREADS.flush()
    for delivery in (HOOKS, LOGS, FINALIZERS):
        if not delivery.flush():
            delivery.deliver_here()


def _warn(core: PoolCore) -> None:
    warn_later(
        f"pool {core.spec.name!r} was not closed before the interpreter exits; "
        "use it as a with block, or call drain() or close()",
        ResourceWarning,
        logger=logger,
    )


def _await_end(core: PoolCore, waited: float) -> None:
    limit = core.spec.drain_timeout
    core.ended.wait(None if limit is None else max(0.0, limit + _EXIT_MARGIN - waited))


def _await_told(cores: list[PoolCore]) -> None:
    """Wait for those who are told of dead letters: all together as long as one pool may take."""
    began = system_clock.monotonic()
    for core in cores:
        limit = core.spec.drain_timeout
        left = None if limit is None else max(0.0, limit - (system_clock.monotonic() - began))
        core.mailbox.notices.join(left)


def _after_fork_in_child() -> None:
    _pools.renew_lock()
    for core in _pools.unended():
        _disown(core)


def _disown(core: PoolCore) -> None:
    core.forked = True
    core.state = PoolState.CLOSED
    core.inbox.control.shut()
    unended = [task for _, task, _ in core.at_work() if not task.done()]
    for task in core.mailbox.disown(lambda: forked(core.spec.name), unended):
        _fail(task, forked(core.spec.name))
    core.ended.set()


def _fail(future: Any, error: PoolForked) -> None:
    # The future's lock may be held by a thread that is not here.
    future._lock = threading.RLock()
    future._built_condition = None
    future._exception = error
    future._state = FINISHED
    future.fenced = True
    for waiter in future._built_waiters or ():
        if type(waiter) is Parked:  # perhaps of this process, where only its id tells of forks
            with contextlib.suppress(RuntimeError):
                waiter.release()


_register_at_exit(_at_exit)
on_fork(_after_fork_in_child)
