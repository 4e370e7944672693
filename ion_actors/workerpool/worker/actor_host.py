"""What a worker does for the actor that lives in it, besides the tasks.

Letters are messages that are no tasks: from ``broadcast``, or sent to the actor's own ref. They are
answered between tasks, one task after each letter, so that neither keeps the other from its turn.
Like a task, a letter can take the worker down.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pykka
from pykka.messages import _ActorStop

from ion_actors.backends.protocol import NotReady
from ion_actors.context import Context, background, make_current
from ion_actors.errors import Cancelled, ContextEnded, TaskAbandoned
from ion_actors.naming import printable
from ion_actors.raised import is_a
from ion_actors.stateful import Leaving, Opening, Receive, Residence, here
from ion_actors.workerpool.model.outcomes import Directive
from ion_actors.workerpool.model.reports import describe
from ion_actors.workerpool.stacks import stack_of
from ion_actors.workerpool.worker.failure import directive_for
from ion_actors.workerpool.worker.inbox import Envelope, Letter

if TYPE_CHECKING:
    from ion_actors.futures import Output
    from ion_actors.workerpool.spec import PoolSpec
    from ion_actors.workerpool.worker.worker import PoolWorker

__all__ = ["ActorHost"]


class _Errand:
    """A letter for a runner that is not inline: to it, as good as a task."""

    captured_output: Output | None = None

    def __init__(self, receive: Receive, letter: Letter, context: Context) -> None:
        self.fn: Callable[..., Any] = receive
        self.args = (letter.message,)
        self.kwargs: dict[str, Any] | None = None
        self.variables = letter.variables
        self.own_context: Context | None = None  # of its own
        self.follower: Callable[[Context], object] | None = None
        self._pool_context = context

    def task_context(self) -> Context:
        """The context that it runs under."""
        return self._pool_context

    def task_name(self) -> str:
        return describe(self.fn)


class ActorHost:
    """See the module. A part of ``PoolWorker``."""

    def __init__(self, worker: PoolWorker, spec: PoolSpec, residence: Residence) -> None:
        self._worker = worker
        self._spec = spec
        self._opening = Opening(residence, spec.initializer, spec.initargs)
        self._receive = Receive(residence.name)
        self._letter: Letter | None = None  # being answered
        self._began = 0.0  # when that began
        self._lives = False
        self._stops_at_once = False  # it was told to before it had moved in

    # -- as its host -----------------------------------------------------------------------

    def post(self, envelope: Envelope[Any]) -> None:
        """Take what was put into its inbox, by any thread."""
        if isinstance(envelope.message, _ActorStop):
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
                Leaving()(error)
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
        try:
            self._spec.context.check()
            letter.reply(self._ask(letter))
        except BaseException as error:
            self._failed(letter, error)
        finally:
            self._letter = None

    def _ask(self, letter: Letter) -> Any:
        # In the pool's context, not in the sender's: a deadline there is no reason to be told by
        # half, and the end of the pool is.
        context, runner = self._spec.context, self._worker.runner
        if not runner.inline:
            return runner.call(_Errand(self._receive, letter, context))
        letter.variables.run(make_current, context)
        value = letter.variables.run(self._receive, letter.message)
        return runner.finish(value, context, letter.variables)

    def _failed(self, letter: Letter, error: BaseException) -> None:
        try:
            if type(error) is NotReady:
                letter.fail(error if error.__cause__ is None else error.__cause__)
                self._worker.give_up(error)
                self._worker.stop()
                return
            if is_a(error, asyncio.CancelledError):
                letter.end(self._ended(error))
                return
            if is_a(error, ContextEnded) and self._spec.context.cancelled:
                letter.end(error)
                return
            directive = letter.variables.run(directive_for, error, self._spec)
            if directive is Directive.RESUME:
                self._tell_of(letter, error)
            else:
                name = self._receive.__qualname__
                letter.fail(self._worker.go_down(name, error, directive))
                self._worker.stop()
        finally:
            del error

    def _ended(self, error: asyncio.CancelledError) -> ContextEnded:
        context = self._spec.context
        ended = context._error() if context.cancelled else Cancelled("the coroutine was cancelled")
        ended.__cause__ = error
        return ended

    def _tell_of(self, letter: Letter, error: BaseException) -> None:
        if letter.reply_to is not None:
            letter.fail(error)
            return
        self._spec.log(
            logging.ERROR, "worker %s failed on message %r", self._worker.name, letter.message,
            error=error,
        )  # fmt: skip

    def abandon(self) -> None:
        """The pool's time is up: answer what still waits for an answer. Any thread calls this."""
        worker, name = self._worker, self._receive.__qualname__
        worker.inbox.control.empty()
        if (letter := self._letter) is not None:
            age = self._spec.context.clock.monotonic() - self._began
            why = (
                f"worker {worker.name} was still at {printable(name)} after {age:.3f} s "
                "when it had to end"
            )
            letter.end(TaskAbandoned(why, task=name, age=age, stack=stack_of(worker.thread)))
