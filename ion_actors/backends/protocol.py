"""What a worker asks of the place where its tasks run.

A :class:`Backend` is what a pool is given: the kind of place, and its settings. Of that each worker
gets a :class:`Runner` of its own, which it uses from its own thread, except for ``kill``. Nothing
in here knows what is on the other side: it may be the thread itself, a child process, or an actor
on another machine.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol, runtime_checkable

from ion_actors.context import Context
from ion_actors.futures import Output
from ion_actors.observe import Log

__all__ = [
    "Backend",
    "Broken",
    "Hopeless",
    "NotReady",
    "Runner",
    "Task",
    "give_results",
    "take_results",
]


class NotReady(Exception):
    """The place where tasks run could not be made ready; the cause says why. Nothing has begun."""


class Hopeless(RuntimeError):
    """The place where tasks run can never be made ready; there is no use in trying again."""


class Broken(NamedTuple):
    """What a call returns that had results before its error, where both have to be sent back.

    The runner raises the error, and :func:`take_results` has the results. They do not travel as an
    attribute: many exceptions lose those that they do not know, or cannot be rebuilt with them.
    """

    results: list[Any]
    error: Any  # an exception; in bytes as long as it is on its way


def give_results(error: BaseException, results: list[Any]) -> None:
    """Note the results that came before an error, for :func:`take_results`."""
    _attributes_of(error)[_RESULTS] = results


def take_results(error: BaseException) -> list[Any]:
    """The results that came before an error, if they were sent back with it; once."""
    found: list[Any] = _attributes_of(error).pop(_RESULTS, [])
    return found


_RESULTS = "_ion_results"
# Past what the class of an exception does to attributes: it may refuse them, or raise.
_attributes_of: Callable[[BaseException], dict[str, Any]] = BaseException.__dict__[
    "__dict__"
].__get__


class Task(Protocol):
    """What a runner needs of a task.

    Most tasks never get a context of their own, since nobody asks for it. A runner that must know
    when the task is to end sets ``_follower`` for the time of the call, and then looks whether
    there is a ``_context``: so it learns of each, once or twice. The context of the pool is not
    among them.
    """

    fn: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any] | None
    variables: contextvars.Context
    own_context: Context | None
    follower: Callable[[Context], object] | None
    captured_output: Output | None  # to be set, if what it prints is captured

    def task_context(self) -> Context:
        """The context that it runs under."""
        ...

    def task_name(self) -> str:
        """Its name, for errors and logs."""
        ...


class Runner(Protocol):
    """Runs the tasks of one worker, one at a time."""

    @property
    def inline(self) -> bool:
        """Whether a task is a plain call in the worker's thread.

        Then the worker makes it itself, and never asks :meth:`call`.
        """
        ...

    def start(
        self, initializer: Callable[..., object] | None, initargs: tuple[Any, ...], /
    ) -> None:
        """Make ready, and call the initializer where the tasks will run.

        Raises:
            Hopeless: it never will be.
            BaseException: it is not ready, for instance because the initializer raised this.
        """
        ...

    def call(self, task: Task, /) -> Any:
        """Make the call of the task, and return what it returns.

        Raises:
            NotReady: the call was not begun, and this runner is of no more use.
            WorkerDied: what the tasks run in died of it, or with it.
            ContextEnded: the task's context has ended, and the call was ended for that.
            BaseException: whatever the call raised.
        """
        ...

    def finish(self, value: Any, context: Context, variables: contextvars.Context, /) -> Any:
        """What an inline call gave or, if that is a coroutine, what the coroutine gives."""
        ...

    def on_top(self) -> AbstractContextManager[None]:
        """For the time of a task in the middle of another one."""
        ...

    def kill(self) -> bool:
        """The pool's time is up: end what runs, whatever it is at. Any thread may call this.

        Returns:
            Whether that will be soon. False: it cannot be ended from outside.
        """
        ...

    def stop(self, failure: BaseException | None = None, /) -> None:
        """The worker stops: leave nothing behind. Who lives there may be told of a failure."""
        ...


@runtime_checkable
class Backend(Protocol):
    """A kind of place for tasks to run, with its settings. It can be shared by pools."""

    @property
    def must_start(self) -> bool:
        """Whether a worker takes tasks only when its runner has started."""
        ...

    def make_runner(self, worker: str, context: Context, log: Log, /) -> Runner:
        """A runner for the worker of that name. Must be quick: the work is for ``start``.

        Args:
            worker: its name.
            context: the pool's: it ends when the pool closes.
            log: the pool's.
        """
        ...
