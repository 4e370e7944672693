"""Send a message to an actor after a while, by the library's clock.

The clock's thread puts the message into the actor's inbox. Where that may block (a bounded queue, a
pool's mailbox, an inbox of a foreign kind), another thread does.
"""

from __future__ import annotations

import functools
import queue
from typing import Any

import pykka

from ion_actors._arguments import number
from ion_actors.actors import Envelope
from ion_actors.clock import Clock, Timer
from ion_actors.context import current_context
from ion_actors.delivery import run_elsewhere
from ion_actors.logs import Logger

__all__ = ["Reminder", "tell_after"]

logger = Logger("ion_actors", later=True)


class Reminder:
    """A message that is sent later: what :func:`tell_after` returns."""

    def __init__(self, message: Any) -> None:
        self._messages = [message]  # whoever takes it out sends it, or has it not sent
        self._timer: Timer | None = None

    @property
    def pending(self) -> bool:
        """Whether the message has been neither sent nor cancelled."""
        return bool(self._messages)

    def cancel(self) -> bool:
        """Do not send the message. Returns False if it was sent, or cancelled before."""
        if self._timer is not None:
            self._timer.cancel()
        try:
            self._messages.pop()
        except IndexError:
            return False
        return True

    def _plan(self, clock: Clock, delay: float, ref: pykka.ActorRef[Any]) -> None:
        # Not the ref: that of a pool would keep it from being taken for forgotten.
        send = functools.partial(self._send, ref.actor_inbox, ref.actor_stopped)
        try:
            self._timer = clock.call_at(clock.monotonic() + delay, send)
        except BaseException:  # Ctrl-C: the caller could not cancel it
            self.cancel()
            raise

    def _send(self, inbox: Any, stopped: Any) -> None:
        try:
            message = self._messages.pop()
        except IndexError:
            return
        put = functools.partial(_put, inbox, stopped, message)
        if _may_block(inbox):
            run_elsewhere(put)
        else:
            put()


def _may_block(inbox: Any) -> bool:
    if type(inbox) is queue.Queue:
        return inbox.maxsize > 0
    return getattr(type(inbox), "may_block", True) is not False


def _put(inbox: Any, stopped: Any, message: Any) -> None:
    try:
        if not stopped.is_set():
            inbox.put(Envelope(message))
    except pykka.ActorDeadError:
        return  # it has stopped just now
    except Exception:  # an inbox that does not understand it, or a foreign one that fails
        logger.exception("a message that was to be sent later could not be sent")


def _check_ref(given: object) -> None:
    if not isinstance(given, pykka.ActorRef):
        hint = ": write its actor_ref" if isinstance(given, pykka.ActorProxy | pykka.Actor) else ""
        raise TypeError(f"ref must be an ActorRef, not a {type(given).__name__}{hint}")


def tell_after(
    ref: pykka.ActorRef[Any], seconds: float, message: Any, *, clock: Clock | None = None
) -> Reminder:
    """Send a message to an actor after so many seconds, as ``ref.tell(message)`` does then.

    Any actor of pykka will do, also the one that calls this, and a pool. If the actor has stopped
    by then, the message is dropped. Nothing waits for it: it keeps no actor alive, and does not
    delay the exit of the interpreter. A forked process sends no message of its parent's.

    Args:
        ref: the actor's ``actor_ref``.
        seconds: zero or more.
        message: anything that the actor understands.
        clock: tells the time; by default the current context's, so mostly the real one.

    Returns:
        The reminder; its ``cancel()`` calls it off.

    Raises:
        TypeError, ValueError: an argument makes no sense.
    """
    _check_ref(ref)
    delay = number("seconds", seconds, minimum=0)
    reminder = Reminder(message)
    reminder._plan(current_context().clock if clock is None else clock, delay, ref)
    return reminder
