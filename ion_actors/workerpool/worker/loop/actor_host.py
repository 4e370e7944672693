"""What a worker on an event loop does for the actor that lives in it.

As :mod:`ion_actors.workerpool.worker.actor_host`, but all hooks may be coroutines, and many actors
share the thread: which one a call is for is noted for the time of the call only. A coroutine has
its actor from then on.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

import pykka

from ion_actors.actors import ActorStop, ControlLane, Envelope
from ion_actors.actors.stateful import MoveIn, Receive, Residence, Resident, here
from ion_actors.awaitables import is_awaitable
from ion_actors.context import make_current
from ion_actors.errors import TaskAbandoned
from ion_actors.naming import printable
from ion_actors.workerpool.worker.actor_host import LetterItem
from ion_actors.workerpool.worker.inbox import Letter

if TYPE_CHECKING:
    from ion_actors.backends.stacks import Stack
    from ion_actors.workerpool.worker.loop.team import LoopTeam

__all__ = ["LoopActorHost"]


class LoopLandlord(Protocol):
    """What the host needs of its worker."""

    name: str
    index: int

    def letter_raised(self, item: LetterItem, error: BaseException) -> None:
        """A letter has raised: settle it, as a task that raised this."""
        ...

    def stop_with_actor(self) -> None:
        """The actor has stopped itself."""
        ...

    def wake(self) -> None:
        """Have the worker look."""
        ...


class LoopActorHost:
    """See the module. Each worker on a loop has one, in a pool with ``worker=``. It is its inbox.

    Args:
        worker: whose it is.
        team: of that.
        residence: the class of the actor, with its arguments.
    """

    def __init__(self, worker: Any, team: LoopTeam, residence: Residence) -> None:
        self.control = ControlLane()
        self.lives = False
        self._worker: LoopLandlord = worker
        self._taker = worker
        self._team = team
        self._residence = residence
        self._receive = Receive(residence.name)
        self._resident: Resident | None = None
        self._letter: Letter | None = None  # being answered
        self._began = 0.0  # when that began
        self._stops_at_once = False  # it was told to before it had moved in
        self._given: list[Any] = []  # what hooks returned, to be awaited

    # -- as an inbox, and as the host of its actor ----------------------------------------------

    def put(self, envelope: Envelope[Any]) -> None:
        """Take a letter. Any thread may call this."""
        if self.control.put(envelope):
            self._team.mailbox.interrupt(self._taker)

    def post(self, envelope: Envelope[Any]) -> None:
        """Take what was put into the actor's inbox, by any thread."""
        if isinstance(envelope.message, ActorStop):
            self._stops_at_once = not self.lives
        else:
            envelope = Envelope(Letter(envelope.message, envelope.reply_to))
        self.put(envelope)

    def finish(self, value: Any) -> Any:
        """Take what a hook returned: it is awaited as soon as the hook's caller returns."""
        self._given.append(value)
        return None

    @contextlib.contextmanager
    def at_home(self) -> Iterator[None]:
        """For the time of a call, which must not wait: the call is for this actor."""
        before = here.host, here.resident
        here.host, here.resident = self, self._resident
        try:
            yield
        finally:
            here.host, here.resident = before

    async def _await_given(self) -> None:
        given, self._given = self._given, []
        for one in given:
            if is_awaitable(one):
                await one

    # -- the actor's life -----------------------------------------------------------------------

    async def open(self) -> None:
        """Have it move in, once its predecessor has left.

        Raises:
            BaseException: it would not.
        """
        if (before := self._team.leaving.get(self._worker.index)) is not None:
            await asyncio.shield(before)
        spec = self._team.spec
        if spec.initializer is not None:
            with self.at_home():
                self.finish(spec.initializer(*spec.initargs))
            await self._await_given()
        with self.at_home():
            MoveIn(self._residence, None, ()).make()
            self._resident = here.resident
        try:
            await self._await_given()
        except BaseException:
            self._close_resident()
            raise
        if self._stops_at_once:
            # Else it would be replaced at once by one that does the same.
            await self.leave(None)
            raise RuntimeError(f"a {self._residence.name} stopped in its start")
        self.lives = True

    def _close_resident(self) -> None:
        resident, self._resident = self._resident, None
        if resident is not None:
            resident.close()

    def announce_leaving(self) -> None:
        """It will leave in a moment; until then its successor waits."""
        if self.lives:
            self._team.leaving[self._worker.index] = self._team.loop.create_future()

    async def leave(self, error: BaseException | None) -> None:
        """Have it move out; with an error, as one that failed."""
        resident, self.lives = self._resident, False
        hook = "on_stop" if error is None else "on_failure"
        try:
            if resident is not None:
                with self.at_home():
                    resident.leave(error)
                await self._await_given()
        except BaseException as fault:
            self._team.spec.log(
                logging.ERROR, "%s failed in worker %s", hook, self._worker.name, error=fault
            )
        finally:
            self._resident = None
            left = self._team.leaving.pop(self._worker.index, None)
            if left is not None and not left.done():
                left.set_result(None)
            del error

    def close(self) -> None:
        """The worker is gone: answer what is left."""
        self.control.empty()

    # -- letters --------------------------------------------------------------------------------

    def next_letter(self) -> Letter | None:
        """The next letter, if it is one."""
        envelope = self.control.get_nowait()
        self.control.done()
        message = None if envelope is None else envelope.message
        if isinstance(message, Letter):
            return message
        if envelope is not None and isinstance(message, ActorStop):
            self._worker.stop_with_actor()
            if envelope.reply_to is not None:
                envelope.reply_to.set(None)
        return None

    def has_letters(self) -> bool:
        """Whether there are more."""
        return self.control.has_more()

    async def deliver(self, letter: Letter) -> None:
        """Have the actor answer a letter. In the letter's variables."""
        if not self.lives:
            name = self._worker.name
            letter.fail(pykka.ActorDeadError(f"worker {name} ended before it came"))
            return
        if not letter.begin():
            return
        team = self._team
        self._began, self._letter = team.now(), letter
        item = LetterItem(self._receive, letter, team.spec, self._worker.name)
        try:
            make_current(item.task_context())
            team.spec.context.check()
            with self.at_home():
                value = self._receive(letter.message)
            letter.reply(await value if is_awaitable(value) else value)
        except BaseException as error:
            # Not in the letter's variables, in which it is settled.
            contextvars.Context().run(self._worker.letter_raised, item, error)
        finally:
            self._letter = item = None  # type: ignore[assignment]

    def abandon(self, where: Stack) -> None:
        """The pool's time is up: answer what still waits for an answer. Any thread calls this."""
        name = self._receive.__qualname__
        self.control.empty()
        if (letter := self._letter) is not None:
            age = self._team.now() - self._began
            why = (
                f"worker {self._worker.name} was still at {printable(name)} after {age:.3f} s "
                "when it had to end"
            )
            letter.end(TaskAbandoned(why, task=name, age=age, stack=where.text(0.0)))
