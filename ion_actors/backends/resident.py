"""An actor that lives in a worker: the instance of the class that a pool was given.

To itself it is a whole pykka actor: it has a ref, what is sent to that reaches it between its
worker's tasks, and ``stop()`` ends its worker. But it has no thread of its own, since the worker's
is its, and it is not in pykka's registry, since its pool is.

What happens to it in its life is in :mod:`ion_actors.backends.calls`.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

import pykka
from typing_extensions import override

from ion_actors.raised import traceback_of

if TYPE_CHECKING:
    from pykka._envelope import Envelope

    from ion_actors.backends.calls import Alone

__all__ = ["Host", "Residence", "Resident", "Worker", "here", "refuse"]


class Worker(pykka.ThreadingActor):
    """The base of a class whose instances are the workers of a pool: ``Pool(worker=MyWorker)``.

    Each worker makes an instance in its thread, and each worker that replaces another one makes its
    own, so what it sets up is never shared, and is built anew after a panic. One thing happens to
    it at a time. It is an ordinary pykka actor class: any other can be given to a pool, too, and
    this one can be started as an actor.
    """

    @override
    def on_start(self) -> None:
        """Set up what the calls need. If it raises, the worker is tried again, with backoff."""

    @override
    def on_stop(self) -> None:
        """Clean up: the pool ends or shrinks, or this worker called ``stop()``."""

    @override
    def on_failure(
        self,
        exception_type: type[BaseException] | None,
        exception_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Clean up after a panic, instead of :meth:`on_stop`, and before a successor is made."""

    @override
    def on_receive(self, message: Any) -> Any:
        """Answer what was sent by ``pool.ask``, ``pool.tell`` or ``pool.broadcast``."""
        return super().on_receive(message)


class Host(Protocol):
    """Whoever's thread it is that a resident lives in."""

    def post(self, envelope: Envelope[Any], /) -> None:
        """Take what was put into the resident's inbox, by any thread."""
        ...

    def finish(self, value: Any, /) -> Any:
        """What a hook gave or, if that is a coroutine, what the coroutine gives."""
        ...


class _Here(threading.local):
    """Who lives in this thread."""

    host: Host | None = None
    resident: Resident | None = None
    alone: Alone | None = None  # the host, where nobody else is


here = _Here()


class Residence:
    """What is to live in each worker of a pool."""

    def __init__(
        self, actor_class: type[pykka.Actor], args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> None:  # fmt: skip
        self.actor_class = actor_class
        self._args = args
        self._kwargs = kwargs or {}
        self._names: dict[Any, str] = {}  # of its methods, found once

    @classmethod
    def checked(cls, worker: object) -> Residence:
        """For the argument ``worker`` of a pool: a class, or a partial of one."""
        given = (
            worker if isinstance(worker, functools.partial) else functools.partial(_class(worker))
        )
        return cls(_class(given.func), given.args, given.keywords)

    def __reduce__(self) -> tuple[Any, ...]:
        return Residence, (self.actor_class, self._args, self._kwargs)

    @property
    def name(self) -> str:
        """The name of the class."""
        return self.actor_class.__qualname__

    def name_of(self, function: Any) -> str:
        """The name of a method that is given as a function: ``ImageWorker.resize``.

        Raises:
            TypeError: the class has none that is this.
        """
        try:
            return self._names[function]
        except KeyError:
            found = self._names[function] = self._search(function)
            return found

    def _search(self, function: object) -> str:
        for kind in self.actor_class.__mro__:
            for name, member in vars(kind).items():
                if member is function and callable(member):
                    return name
        raise TypeError(f"{function!r} is not a method of {self.name}")

    def make(self, inbox: _Inbox) -> pykka.Actor:
        """A new instance, with that inbox instead of pykka's queue."""
        kind = self.actor_class
        actor = kind.__new__(kind, *self._args, **self._kwargs)
        # Found before the method of its class, so that the inbox is in place, also in the ref,
        # before anything can be put into it.
        vars(actor)["_create_actor_inbox"] = lambda: inbox
        actor.__init__(*self._args, **self._kwargs)  # type: ignore[misc]
        del vars(actor)["_create_actor_inbox"]
        if getattr(actor, "_actor_ref", None) is None:
            raise TypeError(f"{self.name}.__init__() does not call super().__init__()")
        return actor


def _class(worker: Any) -> type[pykka.Actor]:
    if isinstance(worker, type) and issubclass(worker, pykka.Actor):
        return worker
    raise TypeError(
        "worker must be a subclass of ion_actors.Worker or of pykka.ThreadingActor, or a "
        f"functools.partial of one, not {worker!r}"
    )


class _Inbox:
    """A resident's inbox, as pykka sees it: its host is who reads it."""

    def __init__(self, post: Callable[[Envelope[Any]], None]) -> None:
        self._post: Callable[[Envelope[Any]], None] | None = post

    def put(self, envelope: Envelope[Any]) -> None:
        """Called by senders, in their threads."""
        if (post := self._post) is not None:
            post(envelope)
        else:
            refuse(envelope)

    def close(self) -> None:
        """Nothing is read any more."""
        self._post = None

    def get(self) -> Envelope[Any]:
        """pykka's loop would call this, and there is none."""
        raise AssertionError("an actor that lives in a worker has no loop of its own")

    def empty(self) -> bool:
        """As :meth:`get`."""
        return True


class Resident:
    """One actor that lives in this thread."""

    def __init__(self, residence: Residence, host: Host) -> None:
        self._finish = host.finish
        self._inbox = _Inbox(host.post)
        self.actor = residence.make(self._inbox)

    def start(self) -> None:
        """Run its hook."""
        try:
            self._finish(self.actor.on_start())  # type: ignore[func-returns-value]
        except BaseException:
            self._close()
            raise

    def leave(self, error: BaseException | None) -> None:
        """Run the hook of its end, after which nothing reaches it."""
        actor = self.actor
        self._close()
        try:
            if error is None:
                self._finish(actor.on_stop())  # type: ignore[func-returns-value]
            else:
                told = actor.on_failure(type(error), error, traceback_of(error))  # type: ignore[func-returns-value]
                self._finish(told)
        finally:
            del error  # its traceback holds this frame

    def _close(self) -> None:
        self.actor.actor_stopped.set()
        self._inbox.close()


def refuse(envelope: Envelope[Any]) -> None:
    """Answer that it is too late."""
    if envelope.reply_to is not None:
        dead = pykka.ActorDeadError("the actor had stopped before the message came")
        envelope.reply_to.set_exception((type(dead), dead, None))
