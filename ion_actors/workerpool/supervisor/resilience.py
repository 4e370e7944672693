"""The part of the supervisor that survives its own faults: a bug of ours, or an injected one.

::

    message ─▶ handler ──raises──▶ reconcile ─▶ the handler once more ──▶ the reply
                  ▲                    │ raises, too                        │ too often
                  └────────────────────┘                                    ▼
                                                                    the pool breaks

What a pool must not lose outlives the fault: its tasks and those who wait for room are the
mailbox's, its workers are listed in the ``PoolCore``, and what it has decided (its life, who waits
for its end, its restarts) is changed before it is acted upon. The rest is a view of that: who sits
where, and which timers are planned. A fault may leave the view half changed; so it is not repaired
but made anew, from what there is (``reconcile``). Invariants:

- ``reconcile`` is *level-triggered*: it looks at the state and not at what has happened, and does
  what that state calls for. It may be done at any time, and twice;
- a handler may be called again after it has failed at any point and ``reconcile`` was done: it
  finds by itself what it has done already (the worker has no seat any more; the reply is given);
- only a broadcast is not tried again, since what is written cannot be taken back: it fails.

What is thrown into the thread outside of a handler (while it waits for its mail, say) makes the
actor's loop begin anew, with the message that it had in hand. A supervisor that fails more than
three times in a minute breaks its pool, and everybody who waits is told so.
"""

from __future__ import annotations

import abc
import logging
from collections.abc import Callable
from typing import Any

from typing_extensions import override

from ion_actors.delivery import keep_free, let_go
from ion_actors.logs import Logger
from ion_actors.standby import STANDBY
from ion_actors.workerpool.core import PoolCore
from ion_actors.workerpool.messages import Broadcast, Panicked, StartFailed
from ion_actors.workerpool.model.recovery import PanicRecovery, RestartWindow
from ion_actors.workerpool.supervisor.watchdog import Watchdog
from ion_actors.workerpool.worker.inbox import Request

__all__ = ["Resilience", "insist"]

logger = Logger("ion_actors", later=True)

# How often a supervisor may fail, as Erlang/OTP has it for those that it restarts.
_MANY = 3
_FAULTS = PanicRecovery(max_restarts=_MANY, within=60.0)

# How often that is tried which nobody is left to try again.
_PERSISTENCE = 50


class Resilience(Watchdog):
    """See the module. A part of ``Supervisor``."""

    def __init__(self, core: PoolCore) -> None:
        super().__init__(core)
        self._faults = RestartWindow()
        self._uncounted = 0  # faults of which not even the time is known
        self._handlers: dict[type, Callable[[Any], Any]] = {}
        self._spent: list[Any] = []  # what was handled, and has in it what users have made

    @abc.abstractmethod
    def _reconcile(self) -> None:
        """Make the view anew, and do what the state calls for."""

    @abc.abstractmethod
    def _give_up(self, message: object, error: BaseException) -> None:
        """It has failed too often: break the pool, and let nobody wait."""

    @override
    def _ion_interrupted(self, error: BaseException) -> None:
        in_hand = self._inbox.control.in_hand
        message = None if in_hand is None else in_hand.message
        if not self._has_failed(message, error):
            self._inbox.control.done()
            return
        _fail_what_is_done_once(message, error)
        self._ion_begun = False  # on_start finds out what there is to do

    @override
    def on_start(self) -> None:
        """Find out what there is to do, on the supervisor's thread."""
        keep_free()
        STANDBY.join(self._inbox.control.bell)
        self._attempt(lambda _: self._reconcile(), None)

    @override
    def on_receive(self, message: Any) -> Any:
        """Handle a message."""
        self._let_go_of_spent()
        given = message.message if type(message) is Request else message
        if isinstance(given, Broadcast | Panicked | StartFailed):
            self._spent.append(message)
        return self._attempt(self._handlers[type(message)], message)

    def _let_go_of_spent(self) -> None:
        """From the message on that comes next, nobody on this thread refers to the last one."""
        if self._spent:
            spent, self._spent = self._spent, []
            let_go(spent)

    def _attempt(self, handle: Callable[[Any], Any], message: Any) -> Any:
        fault: BaseException | None = None
        try:
            while True:
                try:
                    if fault is not None:
                        self._reconcile()
                        _fail_what_is_done_once(message, fault)
                    return handle(message)
                except BaseException as error:
                    fault = error
                    if not self._has_failed(message, error):
                        return None
        finally:
            fault = None  # its traceback holds this frame

    def _has_failed(self, message: object, error: BaseException) -> bool:
        """Take note. Returns whether it may go on; else the pool is broken."""
        if not self._may_go_on():
            self._give_up(message, error)
            return False
        what = "the supervisor failed on %r, and goes on"
        insist(lambda: self._log(logging.ERROR, what, message, error=error))
        return True

    def _may_go_on(self) -> bool:
        try:
            self._faults, allowed = self._faults.allow(_FAULTS, self._clock.monotonic())
        except BaseException:
            logger.exception("a supervisor's faults cannot be counted by time")
            self._uncounted += 1
            return self._uncounted <= _MANY
        return allowed


def insist(step: Callable[[], object]) -> bool:
    """Take a step of the last resort, even if that fails. Returns whether it was taken."""
    for left in reversed(range(_PERSISTENCE)):
        try:
            step()
        except BaseException:
            if not left:
                logger.exception("a supervisor could not even do what has to be done in the end")
        else:
            return True
    return False


def _fail_what_is_done_once(message: object, error: BaseException) -> None:
    if isinstance(message, Request) and isinstance(message.message, Broadcast):
        message.fail(error)
