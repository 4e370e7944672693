"""How the supervisor survives its own faults: a bug of ours, or an injected one.

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

import logging
from collections.abc import Callable
from typing import Any

from ion_actors.actors import Request
from ion_actors.logs import Logger
from ion_actors.workerpool.messages import Broadcast
from ion_actors.workerpool.model.recovery import PanicRecovery, RestartWindow
from ion_actors.workerpool.spec import PoolSpec

__all__ = ["Resilience", "fail_what_is_done_once", "insist"]

logger = Logger("ion_actors", later=True)

# How often a supervisor may fail, as Erlang/OTP has it for those that it restarts.
_MANY = 3
_FAULTS = PanicRecovery(max_restarts=_MANY, within=60.0)

# How often a step is tried that nobody else will try again.
_PERSISTENCE = 50


class Resilience:
    """Has messages handled, and handlers that fail run again.

    Args:
        spec: the pool's, for its log and its clock.
        reconcile: makes the view anew, and does what the state calls for.
        give_up: it has failed too often, on this message, with this error: breaks the pool, and
            lets nobody wait.
    """

    def __init__(
        self,
        spec: PoolSpec,
        reconcile: Callable[[], object],
        give_up: Callable[[object, BaseException], object],
    ) -> None:
        self._log = spec.log
        self._clock = spec.context.clock
        self._reconcile = reconcile
        self._give_up = give_up
        self._faults = RestartWindow()
        self._uncounted = 0  # faults of which not even the time is known

    def attempt(self, handle: Callable[[Any], Any], message: Any) -> Any:
        """Have a message handled. Returns the reply; None if the pool is broken."""
        fault: BaseException | None = None
        try:
            while True:
                try:
                    if fault is not None:
                        self._reconcile()
                        fail_what_is_done_once(message, fault)
                    return handle(message)
                except BaseException as error:
                    fault = error
                    if not self.has_failed(message, error):
                        return None
        finally:
            fault = None  # its traceback holds this frame

    def has_failed(self, message: object, error: BaseException) -> bool:
        """Take note of a fault. Returns whether it may go on; else the pool is broken."""
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


def fail_what_is_done_once(message: object, error: BaseException) -> None:
    """Fail a broadcast, which is not tried again: it may have been written to some workers."""
    if isinstance(message, Request) and isinstance(message.message, Broadcast):
        message.fail(error)
