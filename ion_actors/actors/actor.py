"""An actor whose loop survives exceptions.

pykka stops every actor of the process when a ``BaseException`` reaches an actor's loop, and an
exception that is thrown into a thread from outside (``PyThreadState_SetAsyncExc``, a profiler that
raises) can reach it between any two steps. So the library's actors have a loop of their own::

    begin ─▶ serve the inbox ─▶ leave ─▶ close the inbox
      ▲            │ interrupted, anywhere
      └─ on_interrupted() ◀─┘          the step that was interrupted is done again

Each step may be repeated, and a message stays in hand until it was handled. If the thread ends
nevertheless, CPython itself reports it, without a step of Python code: see :class:`ActorThread`.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import sys
from collections.abc import Callable
from typing import Any, ClassVar, Self

import pykka
from typing_extensions import override

from ion_actors.actors.inbox import ControlLane, Envelope, Inbox, settle, too_late
from ion_actors.actors.thread import ActorThread, Flag
from ion_actors.clock import start_thread
from ion_actors.logs import Logger
from ion_actors.standby import NO_MORE_THREADS

__all__ = ["IsolatedActor", "unregister"]

logger = Logger("ion_actors", later=True)
_pykka_logger = Logger("pykka", later=True)
_registry: Any = pykka.ActorRegistry

# The number of interruptions that an actor survives. More than that are meant to end its thread.
_PATIENCE = 100

_numbers = itertools.count(1)


# pykka's own functions for this log in the calling thread, which may be a supervisor's.


def _register(ref: pykka.ActorRef[Any]) -> None:
    with _registry._actor_refs_lock:
        _registry._actor_refs.append(ref)
    _pykka_logger.debug("Registered %s", ref)


def unregister(ref: pykka.ActorRef[Any]) -> None:
    """Remove an actor from pykka's registry, if it is there."""
    with _registry._actor_refs_lock, contextlib.suppress(ValueError):
        _registry._actor_refs.remove(ref)
    _pykka_logger.debug("Unregistered %s", ref)


def _start(thread: ActorThread) -> None:
    # Its start() may be interrupted, so no other thread has to call it; except where `with` may
    # leave the lock of threading locked then (CPython issue 148874).
    if sys.version_info[:2] == (3, 14):
        start_thread(thread)
    else:
        thread.start()


class IsolatedActor(pykka.ThreadingActor):
    """An actor whose failure ends no other actor: see the module.

    Its inbox has a :class:`ControlLane` named ``control``, as :class:`Inbox` has. The names begin
    with ``_ion`` to avoid the names of users' actors, of which this may become a base class.
    """

    use_daemon_thread = True

    #: The class of its inbox, and that of the futures that ``ask`` returns (None: pykka's own). A
    #: subclass sets them, and need not know what pykka calls to make either.
    _ion_inbox: ClassVar[type[Any]] = Inbox
    _ion_future: ClassVar[type[Any] | None] = None

    _ion_begun = False  # on_start has run
    _ion_left = False  # on_stop has run
    _ion_over = False  # nothing is left to do
    _ion_fault: BaseException | None = None  # an exception from outside, until it was handled
    _ion_thread: ActorThread | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.actor_stopped = Flag()
        self._actor_ref.actor_stopped = self.actor_stopped

    @override
    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if (kind := vars(cls).get("_ion_inbox")) is not None:
            cls._create_actor_inbox = staticmethod(kind)  # type: ignore[method-assign]
        if (kind := vars(cls).get("_ion_future")) is not None:
            cls._create_future = staticmethod(kind)  # type: ignore[method-assign]

    @staticmethod
    @override
    def _create_actor_inbox() -> Any:
        return Inbox()

    # -- the thread ------------------------------------------------------------------------

    @classmethod
    @override
    def start(  # pyright: ignore[reportIncompatibleMethodOverride]  # pykka's type is the same
        cls, *args: Any, **kwargs: Any
    ) -> pykka.ActorRef[Self]:
        """As pykka's, but an actor that cannot be started is not registered."""
        actor = cls(*args, **kwargs)
        try:
            _register(actor.actor_ref)
            actor._ion_start_thread()
        except BaseException:
            if actor._ion_thread is None:
                unregister(actor.actor_ref)
            raise
        return actor.actor_ref

    @override
    def _start_actor_loop(self) -> None:
        self._ion_start_thread()

    def _ion_start_thread(self) -> None:
        """Start the thread.

        Raises:
            RuntimeError, MemoryError, OSError: there can be no more threads.
        """
        thread = ActorThread(self._actor_loop, self._ion_thread_name(), self._ion_on_thread_end())
        self._ion_thread = thread
        try:
            _start(thread)
        except BaseException:
            if not thread.began:  # else it was Ctrl-C, and the thread runs
                thread.forget()
                self._ion_thread = None
            raise

    def _ion_thread_name(self) -> str:
        return f"{type(self).__name__}-{next(_numbers)}"

    def _ion_on_thread_end(self) -> Callable[[Any], object]:
        """The function to call if the thread ends unexpectedly."""
        return self._ion_bury

    def _ion_bury(self, _: object) -> None:
        """The thread has ended. If something is left to do, another thread does it, or this one."""
        if self._ion_over or self._ion_thread is None or self._ion_thread.ident is None:
            return  # or it has never begun
        if self._ion_fault is None:
            self._ion_fault = RuntimeError(f"the thread of {self} was ended from outside")
        try:
            self._ion_start_thread()
        except NO_MORE_THREADS:
            self._actor_loop()

    # -- the loop --------------------------------------------------------------------------

    @override
    def _actor_loop(self) -> None:
        try:
            self._ion_insist()
        except BaseException as error:  # thrown between two of its steps
            self._ion_fault = error
            self._ion_insist()

    def _ion_insist(self) -> None:
        for _ in range(_PATIENCE):
            try:
                self._ion_live()
            except BaseException as error:
                self._ion_fault = error
            else:
                return

    def _ion_live(self) -> None:
        """Do everything, beginning with the step that was interrupted."""
        if (fault := self._ion_fault) is not None:
            self._ion_interrupted(fault)
            self._ion_fault = fault = None
        if not self._ion_begun:
            self._actor_loop_setup()
            self._ion_begun = True
        self._actor_loop_running()
        self._actor_loop_teardown()
        self._ion_finish()
        self._ion_over = True
        if (thread := self._ion_thread) is not None:
            thread.forget()

    def _ion_interrupted(self, error: BaseException) -> None:
        """Handle an exception from outside. May be called again."""
        logger.error("actor %s was interrupted, and ends", self, exc_info=error)
        self._ion_stop()

    @override
    def _actor_loop_setup(self) -> None:
        self.on_start()

    def _ion_finish(self) -> None:
        """The last step. May be done again if it was interrupted."""

    @override
    def _actor_loop_running(self) -> None:
        while not self.actor_stopped.is_set():
            self._ion_serve(self.actor_inbox.get())

    def _ion_serve(self, envelope: Envelope[Any]) -> None:
        """Handle one message."""
        response = self._handle_receive(envelope.message)
        if envelope.reply_to is not None:
            settle(envelope.reply_to, functools.partial(envelope.reply_to.set, response))
        self._ion_done()

    def _ion_done(self) -> None:
        """The message was handled."""
        if (lane := self._ion_lane()) is not None:
            lane.done()

    def _ion_lane(self) -> ControlLane | None:
        """The lane of its messages; None if its inbox is of a foreign kind."""
        return getattr(self.actor_inbox, "control", None)

    @override
    def _stop(self) -> None:
        self._ion_stop()

    def _ion_stop(self) -> None:
        """End. May be done again if it was interrupted."""
        unregister(self.actor_ref)
        self.actor_stopped.set()
        if not self._ion_left:
            self.on_stop()
            self._ion_left = True

    @override
    def _actor_loop_teardown(self) -> None:
        if (lane := self._ion_lane()) is None:
            super()._actor_loop_teardown()
            return
        if lane.in_hand is not None:  # it was interrupted, and is not handled any more
            too_late(lane.in_hand)
            lane.done()
        self.actor_inbox.empty()
