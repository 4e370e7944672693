"""What a worker does for the actor that lives in it, besides the tasks.

Letters are messages that are no tasks: from ``broadcast``, or sent to the actor's own ref. They are
answered between tasks, and one task is run after each letter, so that neither waits for ever. Like
a task, a letter can take the worker down.
"""

from __future__ import annotations

import contextvars
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import pykka

from ion_actors.actors import ActorStop, Envelope
from ion_actors.actors.stateful import MoveIn, MoveOut, Receive, Residence, here
from ion_actors.backends.protocol import Runner
from ion_actors.backends.stacks import Stack
from ion_actors.backends.stream.conduit import Conduit
from ion_actors.context import Context, background, make_current
from ion_actors.errors import TaskAbandoned
from ion_actors.naming import describe, printable
from ion_actors.workerpool.model.outcomes import Outcome
from ion_actors.workerpool.worker.failure import Failure
from ion_actors.workerpool.worker.inbox import Letter, WorkerInbox

if TYPE_CHECKING:
    import threading

    from ion_actors.futures import Output
    from ion_actors.workerpool.spec import PoolSpec

__all__ = ["ActorHost", "LetterItem"]


class Landlord(Protocol):
    """What an actor host needs of its worker."""

    name: str
    inbox: WorkerInbox
    thread: threading.Thread | None

    @property
    def runner(self) -> Runner:
        """Where the actor lives."""
        ...

    def letter_raised(self, item: LetterItem, error: BaseException) -> None:
        """A letter has raised: settle it, as a task that raised this."""
        ...


class LetterItem:
    """A letter, to be answered as a task is run: to a runner that is not inline, it is one."""

    captured_output: Output | None = None
    stream: Conduit | None = None

    def __init__(self, receive: Receive, letter: Letter, spec: PoolSpec, worker: str) -> None:
        self._letter = letter
        self._spec = spec
        self._worker = worker
        self.fn: Callable[..., Any] = receive
        self.args = (letter.message,)
        self.kwargs: dict[str, Any] | None = None
        self.variables = letter.variables
        self.own_context: Context | None = None  # of its own
        self.follower: Callable[[Context], object] | None = None

    def task_context(self) -> Context:
        """The context that it runs under.

        The pool's, and not the sender's: a broadcast is not to reach only some of the workers since
        the sender's deadline has passed; the end of the pool does end it.
        """
        return self._spec.context

    def task_name(self) -> str:
        """Its name, for errors and logs."""
        return describe(self.fn)

    def concerned(self) -> str | None:
        """It is no task."""
        return None

    def try_again(self, failure: Failure) -> Failure | None:
        """A letter is not answered again."""
        return failure

    def stopped(self, failure: Failure, error: BaseException) -> None:
        """Letters are not counted, and the hooks are not told of them."""

    def end(self, failure: Failure, shown: BaseException) -> None:
        """Answer with the error; if nobody asked, log what does not end the worker."""
        letter, outcome = self._letter, failure.outcome
        try:
            if outcome is Outcome.CANCELLED:
                letter.end(shown)
            elif outcome is Outcome.FAILED and letter.reply_to is None:
                self._spec.log(
                    logging.ERROR, "worker %s failed on message %r", self._worker, letter.message,
                    error=shown,
                )  # fmt: skip
            else:
                letter.fail(shown)
        finally:
            self = letter = failure = shown = None  # type: ignore[assignment]

    def refuse(self, error: BaseException) -> None:
        """There is nothing to answer it in."""
        try:
            self._letter.fail(error if error.__cause__ is None else error.__cause__)
        finally:
            del error


class ActorHost:
    """See the module. Each worker of a pool with ``worker=`` has one."""

    def __init__(self, worker: Landlord, spec: PoolSpec, residence: Residence) -> None:
        self._worker = worker
        self._spec = spec
        self._opening = MoveIn(residence, spec.initializer, spec.initargs)
        self._receive = Receive(residence.name)
        self._letter: Letter | None = None  # being answered
        self._began = 0.0  # when that began
        self._lives = False
        self._stops_at_once = False  # it was told to before it had moved in

    # -- as its host -----------------------------------------------------------------------

    def post(self, envelope: Envelope[Any]) -> None:
        """Take what was put into its inbox, by any thread."""
        if isinstance(envelope.message, ActorStop):
            self._stops_at_once = not self._lives
        else:
            envelope = Envelope(Letter(envelope.message, envelope.reply_to))
        self._worker.inbox.put(envelope)

    def finish(self, value: Any) -> Any:
        """What a hook gave or, if that is a coroutine, what the coroutine gives."""
        runner = self._worker.runner
        return runner.finish(value, background(), contextvars.copy_context())

    # -- its life --------------------------------------------------------------------------

    def open(self) -> None:
        """Have it move in.

        Raises:
            BaseException: it would not.
        """
        here.host = self
        self._worker.runner.start(self._opening, ())
        if self._stops_at_once:
            # Else it would be replaced at once by one that does the same.
            self.leave(None)
            raise RuntimeError(f"a {self._receive.__qualname__.split('.')[0]} stopped in its start")
        self._lives = True

    def leave(self, error: BaseException | None) -> None:
        """Have it move out, if it lives here; with an error, as one that failed."""
        self._lives = False
        runner = self._worker.runner
        try:
            if runner.inline:
                MoveOut()(error)
            elif error is not None:  # else it goes when what it lives in ends, which is now
                runner.stop(error)
        except BaseException as fault:
            hook = "on_stop" if error is None else "on_failure"
            self._spec.log(
                logging.ERROR, "%s failed in worker %s", hook, self._worker.name, error=fault
            )
        finally:
            here.host = None
            del error

    # -- letters ---------------------------------------------------------------------------

    def deliver(self, letter: Letter) -> None:
        """Have it answer a letter."""
        if not self._lives:
            letter.fail(pykka.ActorDeadError(f"worker {self._worker.name} ended before it came"))
            return
        if not letter.begin():
            return
        self._began = self._spec.context.clock.monotonic()
        self._letter = letter
        item = LetterItem(self._receive, letter, self._spec, self._worker.name)
        try:
            self._spec.context.check()
            letter.reply(self._ask(letter, item))
        except BaseException as error:
            self._worker.letter_raised(item, error)
        finally:
            self._letter = item = None  # type: ignore[assignment]

    def _ask(self, letter: Letter, item: LetterItem) -> Any:
        context, runner = item.task_context(), self._worker.runner
        if not runner.inline:
            return runner.call(item)
        letter.variables.run(make_current, context)
        value = letter.variables.run(self._receive, letter.message)
        return runner.finish(value, context, letter.variables)

    def abandon(self, where: Stack) -> None:
        """The pool's time is up: answer what still waits for an answer. Any thread calls this."""
        worker, name = self._worker, self._receive.__qualname__
        worker.inbox.control.empty()
        if (letter := self._letter) is not None:
            age = self._spec.context.clock.monotonic() - self._began
            why = (
                f"worker {worker.name} was still at {printable(name)} after {age:.3f} s "
                "when it had to end"
            )
            letter.end(TaskAbandoned(why, task=name, age=age, stack=where.text(0.0)))
