"""The connection to Ray that the pools of this process share, and the thread that owns it.

Calls of Ray's that may block, such as to end an actor while its control plane does not answer, are
made by that thread, and nobody has to wait for them.

The connection is made for the first worker of the first pool. It is closed when the last pool has
ended, which is when its context has ended and all its workers have left.
"""

from __future__ import annotations

import atexit
import functools
import logging
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, Protocol

from ion_actors.backends.protocol import Hopeless
from ion_actors.backends.ray.connection import WANTS_TOKEN, Connection, connect
from ion_actors.clock import start_thread
from ion_actors.context import Context
from ion_actors.forking import on_fork
from ion_actors.own_variables import daemon_thread

__all__ = ["RaySite", "enter"]

logger = logging.getLogger("ion_actors")

# Seconds that the interpreter's exit waits for a connection to be closed. Ray's own exit would
# close it at the same time.
_PATIENCE = 10.0


class _Actor(Protocol):
    def kill(self) -> None: ...

    def bury(self) -> object: ...


class RaySite:
    """One connection, as long as there are pools that use it. Any thread may use it.

    Args:
        address: the cluster's, or None for any.
        init: further arguments of ``ray.init``.
        ship: paths of modules that the nodes get.
    """

    def __init__(
        self, address: str | None, init: Mapping[str, Any], ship: Sequence[str] = ()
    ) -> None:
        self.address = address
        self.ship = ship
        self.connected: Future[Connection] = Future()
        self._init = init
        self._pools: dict[Context, int] = {}  # how many workers of each use it; guarded by _lock
        self._kept: dict[Context, list[Any]] = {}  # actors of each, for successors; likewise
        self._calls: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self.thread = daemon_thread(self._run, "ion_actors-ray")

    def post(self, call: Callable[[], object]) -> None:
        """Have the thread make this call of Ray's."""
        self._calls.put(call)

    def end_actor(self, handle: Any) -> None:
        """Have the thread end an actor."""
        self.post(functools.partial(self._end_actor, handle))

    def keep(self, context: Context, actor: _Actor) -> bool:
        """Keep an actor whose worker is lost, for the next one of its pool. Not if that ends."""
        with _lock:
            if not context.cancelled:
                self._kept.setdefault(context, []).append(actor)
                return True
        return False

    def take(self, context: Context) -> Any:
        """An actor that was kept for this pool, or None."""
        with _lock:
            kept = self._kept.get(context)
            return kept.pop() if kept else None

    def leave(self, context: Context) -> None:
        """A worker of the pool with this context needs it no more."""
        with _lock:
            self._pools[context] -= 1
        self._look(context)

    def add(self, context: Context) -> bool:
        """A worker of this pool needs it. Returns whether it is the pool's first."""
        first = context not in self._pools
        self._pools[context] = self._pools.get(context, 0) + 1
        return first

    def _look(self, context: Context) -> None:
        """Has this pool ended, and is it the last?"""
        global _site  # noqa: PLW0603 - Ray has one connection for each process
        self._end_kept(context)
        with _lock:
            if self._pools.get(context) == 0 and context.cancelled:
                del self._pools[context]
            if self._pools or _site is not self:
                return
            _site = None
        self._calls.put(None)

    def _end_kept(self, context: Context) -> None:
        with _lock:
            kept = self._kept.pop(context, ()) if context.cancelled else ()
        for one in kept:
            one.kill()
            self.post(one.bury)

    # -- in its thread -------------------------------------------------------------------------

    def _run(self) -> None:
        with _connection:  # until the last one is closed
            try:
                connection = connect(self.address, self._init, self.ship)
            except BaseException as error:
                self._fail(error)
                self._serve()
                return
            try:
                self._succeed(connection)
                self._serve()
            finally:
                _attempt(connection.close)

    def _serve(self) -> None:
        while (call := self._calls.get()) is not None:
            _attempt(call)

    def _succeed(self, connection: Connection) -> None:
        with _lock:
            if not self.connected.done():  # else it took too long
                self.connected.set_result(connection)

    def _fail(self, error: BaseException) -> None:
        with _lock:
            if not self.connected.done():
                self.connected.set_exception(error)

    def give_up(self, seconds: float) -> None:
        """It takes too long to connect: nobody waits any longer, nor will."""
        self._fail(
            Hopeless(
                f"there was no connection to a Ray cluster ({self.address or 'local'}) within "
                f"{seconds:g} seconds (connect_timeout)"
                f"{f'. {WANTS_TOKEN}' if self.address else ''}"
            )
        )

    def _end_actor(self, handle: Any) -> None:
        ray = self.connected.result().ray
        if ray.is_initialized():
            ray.kill(handle)


_lock = threading.RLock()  # guards the next, and who uses it; reentrant: a context may have ended
_connection = threading.Lock()  # held by the site that is connected: there is one at a time
_site: RaySite | None = None
_forked = False  # this process is a fork of one that was connected


def enter(
    address: str | None, init: Mapping[str, Any], context: Context, ship: Sequence[str] = ()
) -> RaySite:
    """The site, for a worker of the pool with this context. The others are as for a site.

    Raises:
        Hopeless: this process can have no connection, or has another one.
    """
    global _site  # noqa: PLW0603 - Ray has one connection for each process
    if _forked:
        raise Hopeless(
            "the parent of this process was connected to Ray when it forked; Ray cannot be used in "
            "such a fork: connect after the fork, or start another program"
        )
    with _lock:
        site = _site
        if site is None:
            site = RaySite(address, init, ship)
            start_thread(site.thread)
            # Before Ray's, which it has not imported yet. Weakly, as it is never taken back.
            atexit.register(_await_end, weakref.ref(site))
            _site = site
        elif address not in (None, site.address):
            raise Hopeless(
                f"pools of this process use the Ray cluster {site.address or 'local'!r}, and Ray "
                f"has one connection for each process; address={address!r} needs another process"
            )
        elif missing := [one for one in ship if one not in site.ship]:
            raise Hopeless(
                "another pool of this process has connected it to Ray, which is when code is sent: "
                f"give that pool's backend ship={missing}, too"
            )
        first = site.add(context)
    if first:
        context.add_callback(functools.partial(site._look, context))
    return site


def _await_end(reference: weakref.ref[RaySite]) -> None:
    site = reference()
    if site is None:
        return
    connected = site.connected
    if _site is not site and connected.done() and connected.exception() is None:
        site.thread.join(_PATIENCE)


def _attempt(call: Callable[[], object]) -> None:
    try:
        call()
    except Exception as error:  # whatever it is, the thread is needed
        logger.debug("a call of Ray's failed", exc_info=error)


def _after_fork() -> None:
    """In a forked child: the connection and its thread belong to the parent."""
    global _lock, _connection, _site, _forked  # noqa: PLW0603 - as above
    _forked = _forked or _site is not None or _connection.locked()
    _lock, _connection, _site = threading.RLock(), threading.Lock(), None


on_fork(_after_fork)
