"""All that happens to an actor that lives in a worker, as calls to be made where it lives.

::

    Opening ──▶ make it, on_start ──▶ Method, Fetch, Receive (in tasks and letters) ──▶ Leaving
                                         │                                       on_stop or
                                         └── each finds the resident of its thread   on_failure

So a call of a method is a task like any other, and whatever runs tasks elsewhere can let the
resident live there: the callables can be pickled.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pykka
from pykka._introspection import get_attr_directly  # private; the tests watch over it
from pykka.messages import _ActorStop
from typing_extensions import override

from ion_actors._printable import OneLine
from ion_actors.awaitables import is_coroutine
from ion_actors.backends.resident import Residence, Resident, here, refuse
from ion_actors.raised import traceback_of

if TYPE_CHECKING:
    from pykka._envelope import Envelope

__all__ = ["Alone", "Fetch", "Leaving", "Method", "Opening", "Receive", "leave_quietly"]

logger = logging.getLogger("ion_actors.pool")


class Opening:
    """Moves it in, before a worker's first task and after the pool's own initializer."""

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
        self.move_in()

    def is_like(self, other: Opening) -> bool:
        """Whether it does the same, with the same objects."""
        mine, its = vars(self), vars(other)
        return all(mine[name] is its[name] for name in mine)

    def __repr__(self) -> str:
        return f"<the start of a {self._residence.name}, with what it is made of>"

    def move_in(self) -> None:
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
    """In a child process: the one way to be told of its orderly end."""
    from multiprocessing import parent_process, util  # noqa: PLC0415 - seldom needed

    if parent_process() is not None:
        util.Finalize(None, leave_quietly, exitpriority=10)


class Leaving:
    """Moves it out: with its ``on_stop`` or, if there was an error, its ``on_failure``."""

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
    """The host of a resident in a process of its own, where nothing but calls is waited for.

    What is sent to it there waits for the end of a call. When it stops itself, another one is made
    for the next call: the process is as good as before.
    """

    def __init__(self, opening: Opening) -> None:
        self.opening = opening
        self._letters: deque[Envelope[Any]] = deque()

    def post(self, envelope: Envelope[Any]) -> None:
        """See :class:`Host`."""
        self._letters.append(envelope)

    def finish(self, value: Any) -> Any:
        """See :class:`Host`. The loop is its runner's, and not at hand."""
        return _plain(value, "the initializer, on_start, on_stop and on_failure")

    def attend(self) -> None:
        """Answer what has come by now."""
        for _ in range(len(self._letters)):
            self._answer(self._letters.popleft())

    def _answer(self, envelope: Envelope[Any]) -> None:
        reply = envelope.reply_to
        if isinstance(envelope.message, _ActorStop):
            leave_quietly()
            value: Any = None
        elif here.resident is None:
            refuse(envelope)
            return
        else:
            try:
                value = here.resident.actor._handle_receive(envelope.message)
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
    """At the end of a process, or of a resident that stops there by itself."""
    try:
        Leaving()(error)
    except BaseException:
        logger.exception("on_stop failed" if error is None else "on_failure failed")
    finally:
        del error


class _Call:
    """Something to be done with the actor that lives in the thread of the caller."""

    def __init__(self, owner: str, *path: str) -> None:
        self._owner = owner
        self._path = path
        self.__name__ = path[-1]
        self.__qualname__ = ".".join((owner, *path))  # the name of the task

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._owner, *self._path)

    def _actor(self) -> pykka.Actor:
        if here.resident is None and here.alone is not None:
            here.alone.opening.move_in()
        if here.resident is None:
            raise RuntimeError(
                f"{self.__qualname__} can only run in a worker of a pool that has that class"
            )
        return here.resident.actor

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.__qualname__}>"


class Method(_Call):
    """Calls one of its methods, or one of an attribute's that it lets others reach into."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call it."""
        try:
            return get_attr_directly(self._actor(), self._path)(*args, **kwargs)
        finally:
            if here.alone is not None:
                here.alone.attend()


class Fetch(_Call):
    """Reads one of its attributes."""

    def __call__(self) -> Any:
        """Read it."""
        return get_attr_directly(self._actor(), self._path)


class Receive(_Call):
    """Has it answer a message, also one of pykka's own, which proxies send."""

    def __init__(self, owner: str) -> None:
        super().__init__(owner, "on_receive")

    @override
    def __reduce__(self) -> tuple[Any, ...]:
        return Receive, (self._owner,)

    def __call__(self, message: Any) -> Any:
        """Answer."""
        try:
            return self._actor()._handle_receive(message)
        finally:
            if here.alone is not None:
                here.alone.attend()
