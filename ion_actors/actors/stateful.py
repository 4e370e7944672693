"""Actors that live in workers: each worker has an instance of the class that its pool was given.

Such an actor behaves like any pykka actor: it has a ref, it handles messages to that between its
worker's tasks, and ``stop()`` ends its worker. But it has no thread of its own, it runs on the
worker's; and it is not in pykka's registry, only its pool is.

Everything that happens to it is a call, made in its worker::

    MoveIn ──▶ make it, on_start ──▶ Method, Fetch, Receive (in tasks and letters) ──▶ MoveOut
                                         │                                       on_stop or
                                         └── each finds the resident of its thread   on_failure

So a call of a method is a task like any other, and a backend that runs tasks elsewhere can let the
resident live there: the callables can be pickled.
"""

from __future__ import annotations

import functools
import logging
import threading
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any, Protocol

import pykka
from typing_extensions import override

from ion_actors.actors.hosted import attribute_of, made_with_inbox, receive
from ion_actors.actors.inbox import ActorStop, Envelope
from ion_actors.awaitables import is_coroutine
from ion_actors.naming import OneLine
from ion_actors.raised import traceback_of

__all__ = [
    "Alone",
    "Fetch",
    "Host",
    "Method",
    "MoveIn",
    "MoveOut",
    "Receive",
    "Residence",
    "Resident",
    "Worker",
    "here",
    "leave_quietly",
    "refuse",
]

logger = logging.getLogger("ion_actors.pool")


class Worker(pykka.ThreadingActor):
    """Base class for the workers with state of a pool: ``Pool(worker=MyWorker)``.

    Each worker makes an instance in its thread, and so does each replacement of a worker. So their
    state is never shared, and is built anew after a panic. One call at a time is made to it. It is
    an ordinary pykka actor class: a pool also takes any other, and this one can be started as an
    actor.
    """

    @override
    def on_start(self) -> None:
        """Set up the state. If it raises, the worker is started again, with backoff."""

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
        """Clean up after a panic, instead of :meth:`on_stop`, before the worker is replaced."""

    @override
    def on_receive(self, message: Any) -> Any:
        """Answer a message from ``pool.ask``, ``pool.tell`` or ``pool.broadcast``."""
        return super().on_receive(message)


class Host(Protocol):
    """The owner of the thread that a resident lives in."""

    def post(self, envelope: Envelope[Any], /) -> None:
        """Take an envelope that any thread has put into the resident's inbox."""
        ...

    def finish(self, value: Any, /) -> Any:
        """The result of a hook or, if that is a coroutine, the coroutine's result."""
        ...


class _Here(threading.local):
    """The resident of this thread, and its host."""

    host: Host | None = None
    resident: Resident | None = None
    alone: Alone | None = None  # the host, in a child process


here = _Here()


class Residence:
    """The actor class that lives in each worker of a pool, with its arguments."""

    def __init__(
        self, actor_class: type[pykka.Actor], args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> None:  # fmt: skip
        self.actor_class = actor_class
        self._args = args
        self._kwargs = kwargs or {}
        self._names: dict[Any, str] = {}  # of its methods, once they were found

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
            TypeError: the class does not have it.
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
        return made_with_inbox(self.actor_class, self._args, self._kwargs, inbox)


def _class(worker: Any) -> type[pykka.Actor]:
    if isinstance(worker, type) and issubclass(worker, pykka.Actor):
        return worker
    raise TypeError(
        "worker must be a subclass of ion_actors.Worker or of pykka.ThreadingActor, or a "
        f"functools.partial of one, not {worker!r}"
    )


class _Inbox:
    """A resident's inbox, as pykka sees it: its host reads it."""

    may_block = False  # see ion_actors.actors.Inbox

    def __init__(self, post: Callable[[Envelope[Any]], None]) -> None:
        self._post: Callable[[Envelope[Any]], None] | None = post

    def put(self, envelope: Envelope[Any]) -> None:
        """Called by senders, in their threads."""
        if (post := self._post) is not None:
            post(envelope)
        else:
            refuse(envelope)

    def close(self) -> None:
        """Refuse all further messages."""
        self._post = None

    def get(self) -> Envelope[Any]:
        """Never called: there is no pykka loop."""
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
        """Run its ``on_start``."""
        try:
            self._finish(self.actor.on_start())  # type: ignore[func-returns-value]
        except BaseException:
            self.close()
            raise

    def leave(self, error: BaseException | None) -> None:
        """Close its inbox, and run its ``on_stop`` or, with an error, its ``on_failure``."""
        actor = self.actor
        self.close()
        try:
            if error is None:
                self._finish(actor.on_stop())  # type: ignore[func-returns-value]
            else:
                told = actor.on_failure(type(error), error, traceback_of(error))  # type: ignore[func-returns-value]
                self._finish(told)
        finally:
            del error  # its traceback keeps this frame

    def close(self) -> None:
        """Close its inbox: it takes no more messages."""
        self.actor.actor_stopped.set()
        self._inbox.close()


def refuse(envelope: Envelope[Any]) -> None:
    """Answer that the actor had stopped."""
    if envelope.reply_to is not None:
        dead = pykka.ActorDeadError("the actor had stopped before the message came")
        envelope.reply_to.set_exception((type(dead), dead, None))


class MoveIn:
    """Makes the resident of a worker, before its first task and after the pool's initializer."""

    def __init__(
        self, residence: Residence, initializer: Callable[..., object] | None, initargs: Any
    ) -> None:
        self._residence = residence
        self._initializer = initializer
        self._initargs = initargs

    def __call__(self) -> None:
        """Call the initializer, make the actor, and run its ``on_start``."""
        if here.host is None:
            here.host = here.alone = Alone(self)
            _leave_at_exit()
        if self._initializer is not None:
            here.host.finish(self._initializer(*self._initargs))
        self.make()

    def is_like(self, other: MoveIn) -> bool:
        """Whether the other one does the same, with the same objects."""
        mine, its = vars(self), vars(other)
        return all(mine[name] is its[name] for name in mine)

    def __repr__(self) -> str:
        return f"<the start of a {self._residence.name}, with its arguments>"

    def make(self) -> None:
        """Make the actor, and run its ``on_start``."""
        assert here.host is not None
        resident = Resident(self._residence, here.host)
        here.resident = resident  # its on_start may call what a task may
        try:
            resident.start()
        except BaseException:
            here.resident = None
            raise


def _leave_at_exit() -> None:
    """Run the last hook at the orderly end of a child process; there is no other way to do so."""
    from multiprocessing import parent_process, util  # noqa: PLC0415 - seldom needed

    if parent_process() is not None:
        util.Finalize(None, leave_quietly, exitpriority=10)


class MoveOut:
    """Ends the resident: with its ``on_stop`` or, if there was an error, its ``on_failure``."""

    def __call__(self, error: BaseException | None) -> None:
        """Run the hook, if it has not been run."""
        resident = here.resident
        if resident is None:
            return
        try:
            resident.leave(error)
        finally:
            here.resident = None
            del error


class Alone:
    """The host of a resident in a child process, which waits for nothing but calls.

    Messages to the resident's ref are handled after the current call. If the resident stops itself,
    another one is made for the next call, in the same process.
    """

    def __init__(self, move_in: MoveIn) -> None:
        self.move_in = move_in
        self._letters: deque[Envelope[Any]] = deque()

    def post(self, envelope: Envelope[Any]) -> None:
        """See :class:`Host`."""
        self._letters.append(envelope)

    def finish(self, value: Any) -> Any:
        """See :class:`Host`. No event loop is available here."""
        return _plain(value, "the initializer, on_start, on_stop and on_failure")

    def attend(self) -> None:
        """Answer the messages that have come so far."""
        for _ in range(len(self._letters)):
            self._answer(self._letters.popleft())

    def _answer(self, envelope: Envelope[Any]) -> None:
        reply = envelope.reply_to
        if isinstance(envelope.message, ActorStop):
            leave_quietly()
            value: Any = None
        elif here.resident is None:
            refuse(envelope)
            return
        else:
            try:
                value = receive(here.resident.actor, envelope.message)
                value = _plain(value, "those that answer messages to their own ref")
            except BaseException as error:
                logger.exception("a worker failed on message %r", OneLine(envelope.message))
                if reply is not None:
                    reply.set_exception((type(error), error, traceback_of(error)))
                return
        if reply is not None:
            reply.set(value)


def _plain(value: Any, what: str) -> Any:
    if is_coroutine(value):
        value.close()
        raise TypeError(f"in a child process, {what} must be plain methods: no loop runs there")
    return value


def leave_quietly(error: BaseException | None = None) -> None:
    """End the resident, at the end of a process or because it stopped itself; log any error."""
    try:
        MoveOut()(error)
    except BaseException:
        logger.exception("on_stop failed" if error is None else "on_failure failed")
    finally:
        del error


class _Call:
    """A call to the resident of the calling thread."""

    def __init__(self, owner: str, *path: str) -> None:
        self._owner = owner
        self._path = path
        self.__name__ = path[-1]
        self.__qualname__ = ".".join((owner, *path))  # the name of the task

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._owner, *self._path)

    def _actor(self) -> pykka.Actor:
        if here.resident is None and here.alone is not None:
            here.alone.move_in.make()
        if here.resident is None:
            raise RuntimeError(
                f"{self.__qualname__} can only run in a worker of a pool that has that class"
            )
        return here.resident.actor

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.__qualname__}>"


class Method(_Call):
    """Calls one of its methods, or a method of an attribute that is marked as traversable."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call it."""
        try:
            return attribute_of(self._actor(), self._path)(*args, **kwargs)
        finally:
            if here.alone is not None:
                here.alone.attend()


class Fetch(_Call):
    """Reads one of its attributes."""

    def __call__(self) -> Any:
        """Read it."""
        return attribute_of(self._actor(), self._path)


class Receive(_Call):
    """Passes it a message, also one of pykka's own, which proxies send."""

    def __init__(self, owner: str) -> None:
        super().__init__(owner, "on_receive")

    @override
    def __reduce__(self) -> tuple[Any, ...]:
        return Receive, (self._owner,)

    def __call__(self, message: Any) -> Any:
        """Answer."""
        try:
            return receive(self._actor(), message)
        finally:
            if here.alone is not None:
                here.alone.attend()
