"""A pykka actor as a child.

pykka tells nobody that an actor died, or why. So the class is started as a subclass of itself that
reports when ``on_start`` is through, what the actor failed with, and when its thread ends.

pykka stops every actor of the process when a handler lets a ``BaseException`` out. Of a supervised
actor it is the end, and of nobody else.
"""

from __future__ import annotations

import threading
import types
from typing import Any

import pykka
from typing_extensions import override

from ion_actors.logs import Logger
from ion_actors.supervision.core import EXIT_PATIENCE
from ion_actors.supervision.living import OnEnd, StopMode
from ion_actors.supervision.report import ChildKind
from ion_actors.supervision.spec import WORKER_SHUTDOWN

__all__ = ["LivingActor", "start_actor"]

logger = Logger("ion_actors", later=True)


class _Watch:
    """What is known of one actor's life."""

    def __init__(self) -> None:
        self.ready = threading.Event()  # on_start is through, or the actor has ended
        self.started = False  # it has got through on_start, whatever became of it then
        self.thread: threading.Thread | None = None
        self.failure: BaseException | None = None  # the first one
        self.told = False  # on_failure was called
        self._lock = threading.Lock()  # guards the two below
        self._over = False
        self._on_end: OnEnd | None = None

    def note(self, error: BaseException | None) -> None:
        """It failed."""
        self.failure = error if self.failure is None else self.failure

    def end(self) -> None:
        """Its thread does nothing more of the user's."""
        with self._lock:
            self._over = True
            on_end, self._on_end = self._on_end, None
        self.ready.set()
        if on_end is not None:
            on_end(self.failure, None)

    def tell(self, on_end: OnEnd) -> None:
        """Tell of the end, or now if it is over."""
        with self._lock:
            if not self._over:
                self._on_end = on_end
                return
        on_end(self.failure, None)


class _Watched(pykka.ThreadingActor):
    """What is put in front of a user's actor class. pykka's private parts: tests watch over them.

    Its own names begin with ``_ion`` to stay out of the way of the user's.
    """

    # One that does not stop in time must not keep the interpreter from exiting.
    use_daemon_thread = True
    _ion_watch: _Watch

    def _actor_loop(self) -> None:
        watch = self._ion_watch
        watch.thread = threading.current_thread()
        try:
            super()._actor_loop()
            if watch.failure is not None and not isinstance(watch.failure, Exception):
                self._ion_tell_failure(watch.failure)
        except BaseException as error:
            watch.note(error)
            logger.exception("actor %s was ended by an exception", self)
            self._ion_bury()
        finally:
            watch.end()

    def _ion_tell_failure(self, error: BaseException) -> None:
        """pykka does not tell the actor if the message was asked and not told."""
        if not self._ion_watch.told:
            self.on_failure(type(error), error, error.__traceback__)

    def _ion_bury(self) -> None:
        """Do what pykka's loop would have done at its end."""
        pykka.ActorRegistry.unregister(self.actor_ref)
        self.actor_stopped.set()
        self._actor_loop_teardown()

    def _actor_loop_setup(self) -> None:
        super()._actor_loop_setup()
        if not self.actor_stopped.is_set():
            self._ion_watch.started = True
            self._ion_watch.ready.set()

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
            pykka.ActorRegistry.unregister(self.actor_ref)
            self.actor_stopped.set()
            raise pykka.ActorDeadError(f"{self} was ended by {error!r}") from error


def start_actor(
    actor_class: type[pykka.ThreadingActor], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> LivingActor:
    """Start an actor of that class under watch. What its constructor raises comes out here."""
    watch = _Watch()
    facts = {
        "_ion_watch": watch,
        "__module__": actor_class.__module__,
        "__qualname__": actor_class.__qualname__,
        "__doc__": actor_class.__doc__,
    }
    bases = (_Watched, actor_class)
    watched: type[pykka.ThreadingActor] = types.new_class(
        actor_class.__name__, bases, exec_body=lambda names: names.update(facts)
    )
    try:
        return LivingActor(watched.start(*args, **kwargs), watch)
    except BaseException:
        for ref in pykka.ActorRegistry.get_by_class(watched):  # there was no thread to be had
            pykka.ActorRegistry.unregister(ref)
        raise


class LivingActor:
    """See the module."""

    kind = ChildKind.ACTOR
    shutdown: float | None = WORKER_SHUTDOWN
    margin = 0.0

    def __init__(self, ref: pykka.ActorRef[Any], watch: _Watch) -> None:
        self.handle = ref
        self._watch = watch

    def wait_ready(self) -> None:
        """Block until ``on_start`` is through."""
        self._watch.ready.wait()
        if not self._watch.started and self._watch.failure is not None:
            raise self._watch.failure

    def watch(self, on_end: OnEnd) -> None:
        """See :class:`Living`."""
        self._watch.tell(on_end)

    def stop(self, mode: StopMode, timeout: float | None) -> None:
        """Ask it to stop, after the messages that it has. pykka knows only this one way."""
        self.handle.stop(block=False)

    def is_own_thread(self) -> bool:
        """See :class:`Living`."""
        return threading.current_thread() is self._watch.thread

    def exit_patience(self) -> float | None:
        """See :class:`Living`."""
        return EXIT_PATIENCE

    def threads(self) -> list[threading.Thread]:
        """See :class:`Living`."""
        return [] if self._watch.thread is None else [self._watch.thread]
