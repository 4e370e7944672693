"""A user's actor whose start, failure and end are reported.

pykka does not report that an actor died, or why. So a subclass of the user's class is started. It
reports when ``on_start`` has run, with which error the actor failed, and when its thread ends.

pykka stops every actor of the process when a handler lets a ``BaseException`` out, or when one is
thrown into the actor's thread. It ends only the watched actor, and no other.
"""

from __future__ import annotations

import functools
import inspect
import threading
import types
from collections.abc import Callable
from typing import Any

import pykka
from typing_extensions import override

from ion_actors.actors.actor import IsolatedActor, unregister
from ion_actors.actors.inbox import Envelope, settle
from ion_actors.actors.thread import Flag
from ion_actors.logs import Logger
from ion_actors.naming import shown, words
from ion_actors.raised import is_a, traceback_of

__all__ = ["Watch", "start_watched"]

logger = Logger("ion_actors", later=True)


class Watch:
    """The state of one actor."""

    def __init__(self) -> None:
        self.ready = Flag()  # on_start has run, or the actor has ended
        self.started = False  # on_start has succeeded
        self.thread: threading.Thread | None = None
        self.failure: BaseException | None = None  # the first one
        self.told = False  # on_failure was called
        self._lock = threading.Lock()  # guards the two below
        self._over = False
        self._on_end: Callable[[BaseException | None, None], object] | None = None

    def note(self, error: BaseException | None) -> None:
        """Note an error that it failed with; the first one counts."""
        self.failure = error if self.failure is None else self.failure

    def end(self) -> None:
        """Its thread runs no more code of the user's."""
        with self._lock:
            self._over = True
        self.ready.set()
        if (on_end := self._on_end) is not None:
            on_end(self.failure, None)  # perhaps twice, if this is interrupted: that does no harm
            self._on_end = None

    def tell(self, on_end: Callable[[BaseException | None, None], object]) -> None:
        """Call ``on_end`` at the end of the actor; now, if it has ended."""
        with self._lock:
            if not self._over:
                self._on_end = on_end
                return
        on_end(self.failure, None)


class _Watched(IsolatedActor):
    """The first base class of a watched actor, before the user's class.

    Its own names begin with ``_ion`` to avoid the user's names.
    """

    _ion_watch: Watch

    @override
    def _ion_interrupted(self, error: BaseException) -> None:
        watch = self._ion_watch
        watch.note(error)
        logger.error("actor %s was ended by an exception", self, exc_info=error)
        self._ion_end()
        if watch.started:
            self._ion_tell_failure(error)
        self._ion_begun = True

    def _ion_end(self) -> None:
        unregister(self.actor_ref)
        self.actor_stopped.set()

    def _ion_tell_failure(self, error: BaseException) -> None:
        """Call ``on_failure``; pykka does not, if a reply to the message was expected."""
        if self._ion_watch.told:
            return
        self._ion_watch.told = True  # before the call: a hook of the user's is not run twice
        try:
            self.on_failure(type(error), error, traceback_of(error))
        except Exception as fault:
            self._handle_failure(type(fault), fault, traceback_of(fault))
        finally:
            del error

    @override
    def _actor_loop_setup(self) -> None:
        self._ion_watch.thread = threading.current_thread()
        pykka.ThreadingActor._actor_loop_setup(self)  # on_start, whose errors are its failure
        if not self.actor_stopped.is_set():
            self._ion_watch.started = True
            self._ion_watch.ready.set()

    @override
    def _ion_serve(self, envelope: Envelope[Any]) -> None:
        try:
            super()._ion_serve(envelope)
        except Exception as error:
            self._ion_failed(envelope, error)
            self._ion_done()

    def _ion_failed(self, envelope: Envelope[Any], error: Exception) -> None:
        """A message failed: the sender gets the error; without a reply, the actor ends."""
        given = (type(error), error, traceback_of(error))
        try:
            if envelope.reply_to is not None:
                settle(envelope.reply_to, functools.partial(envelope.reply_to.set_exception, given))
            else:
                self._handle_failure(*given)
                self._ion_tell_failure(error)
        finally:
            del error, given

    @override
    def _ion_stop(self) -> None:
        self._ion_end()
        if self._ion_left:
            return
        self._ion_left = True  # before the call: a hook of the user's is not run twice
        try:
            self.on_stop()
        except Exception as error:
            self._handle_failure(type(error), error, traceback_of(error))

    @override
    def _ion_finish(self) -> None:
        watch = self._ion_watch
        if watch.failure is not None and not is_a(watch.failure, Exception):
            self._ion_tell_failure(watch.failure)
        watch.end()

    @override
    def _handle_failure(
        self,
        exception_type: type[BaseException] | None,
        exception_value: BaseException | None,
        traceback: types.TracebackType | None,
    ) -> None:
        self._ion_watch.note(exception_value)
        super()._handle_failure(exception_type, exception_value, traceback)

    @override
    def on_failure(
        self,
        exception_type: type[BaseException] | None,
        exception_value: BaseException | None,
        traceback: types.TracebackType | None,
    ) -> None:
        self._ion_watch.told = True
        super().on_failure(exception_type, exception_value, traceback)

    @override
    def _handle_receive(self, message: Any) -> Any:
        try:
            return super()._handle_receive(message)
        except Exception:
            raise
        except BaseException as error:
            self._ion_watch.note(error)
            self._ion_end()
            why = f"{words(self)} was ended by {shown(error)}"
            raise pykka.ActorDeadError(why) from error


def start_watched(
    actor_class: type[pykka.ThreadingActor], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[pykka.ActorRef[Any], Watch]:
    """Start a watched actor of that class. Raises what its constructor raises."""
    watch = Watch()
    facts: dict[str, Any] = {
        "_ion_watch": watch,
        "__module__": actor_class.__module__,
        "__qualname__": actor_class.__qualname__,
        "__doc__": actor_class.__doc__,
    }
    if actor_class._create_actor_inbox is not pykka.ThreadingActor._create_actor_inbox:
        facts["_create_actor_inbox"] = inspect.getattr_static(actor_class, "_create_actor_inbox")
    bases = (_Watched, actor_class)
    watched: type[pykka.ThreadingActor] = types.new_class(
        actor_class.__name__, bases, exec_body=lambda names: names.update(facts)
    )
    try:
        return watched.start(*args, **kwargs), watch
    except BaseException:
        for ref in pykka.ActorRegistry.get_by_class(watched):  # no thread could be started
            unregister(ref)
        raise
