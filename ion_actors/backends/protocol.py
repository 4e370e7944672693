"""The interface between workers and backends.

A pool is given a :class:`Backend`: where its tasks run, with the settings. The backend makes a
:class:`Runner` for each worker, which the worker uses from its own thread, except for ``kill``. The
worker does not know where a runner runs its tasks: in the same thread, in a child process, or on
another machine.

A runner far away may take tasks before their turn: :class:`SendsAhead`.

On an event loop, workers have no threads, and share one :class:`LoopSite`. A backend of that kind
is a :class:`LoopBackend`.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

from ion_actors.backends.stacks import Stack
from ion_actors.backends.stream.conduit import Conduit
from ion_actors.context import Context
from ion_actors.futures import Output
from ion_actors.observe import Log

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Coroutine

__all__ = [
    "Backend",
    "Broken",
    "Hopeless",
    "LoopBackend",
    "LoopSite",
    "NotReady",
    "Runner",
    "SendsAhead",
    "Task",
    "TasksAhead",
    "Traceable",
    "give_results",
    "take_results",
]


class NotReady(Exception):
    """A runner could not be made ready; the cause is the reason. No task has begun."""


class Hopeless(RuntimeError):
    """A runner can never be made ready; trying again is useless."""


class Broken(NamedTuple):
    """The return value of a call that had results before an error, if both must be sent back.

    The runner raises the error, and :func:`take_results` returns the results. They are not sent as
    an attribute of the error: many exceptions lose unknown attributes, or cannot be rebuilt with
    them.
    """

    results: list[Any]
    error: Any  # an exception; as bytes while it is sent


def give_results(error: BaseException, results: list[Any]) -> None:
    """Attach the results that came before an error, for :func:`take_results`."""
    _attributes_of(error)[_RESULTS] = results


def take_results(error: BaseException) -> list[Any]:
    """The results that came before an error, if there are any; only the first call returns them."""
    found: list[Any] = _attributes_of(error).pop(_RESULTS, [])
    return found


_RESULTS = "_ion_results"
# Without the exception's class, which may refuse attributes, or raise.
_attributes_of: Callable[[BaseException], dict[str, Any]] = BaseException.__dict__[
    "__dict__"
].__get__


class Task(Protocol):
    """The part of a task that a runner uses.

    Most tasks never get a context of their own, since nobody asks for it. A runner that must know
    when the task has to end sets ``follower`` for the duration of the call, and then checks whether
    there is an ``own_context``: so it learns of each, once or twice. The context of the pool is not
    among them.
    """

    fn: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any] | None
    variables: contextvars.Context
    own_context: Context | None
    follower: Callable[[Context], object] | None
    captured_output: Output | None  # set by the runner, if output is captured
    stream: Conduit | None  # where what it yields goes, if it is a stream

    def task_context(self) -> Context:
        """The context of the task."""
        ...

    def task_name(self) -> str:
        """Its name, for errors and logs."""
        ...


class Runner(Protocol):
    """Runs the tasks of one worker, one at a time."""

    @property
    def inline(self) -> bool:
        """Whether a task is a plain call in the worker's thread.

        Then the worker makes the call itself, and never uses :meth:`call`.
        """
        ...

    def start(
        self, initializer: Callable[..., object] | None, initargs: tuple[Any, ...], /
    ) -> None:
        """Get ready, and call the initializer where the tasks will run.

        Raises:
            Hopeless: it can never be ready.
            BaseException: it is not ready, for example because the initializer raised this.
        """
        ...

    def call(self, task: Task, /) -> Any:
        """Make the call of the task, and return what it returns.

        Raises:
            NotReady: the call was not begun, and this runner cannot be used any more.
            WorkerDied: the process that runs the tasks died during the call.
            ContextEnded: the task's context has ended, and the call was ended for that.
            BaseException: whatever the call raised.
        """
        ...

    def finish(self, value: Any, context: Context, variables: contextvars.Context, /) -> Any:
        """The result of an inline call or, if that is a coroutine, the coroutine's result."""
        ...

    def on_top(self) -> AbstractContextManager[None]:
        """The block in which a task runs in the middle of another one."""
        ...

    def kill(self) -> bool:
        """The pool's deadline has passed: end the running task. Any thread may call this.

        Returns:
            Whether it will end soon. False: it cannot be ended from outside.
        """
        ...

    def stop(self, failure: BaseException | None = None, /) -> None:
        """The worker stops: clean up. A resident actor is told of the failure, if there is one."""
        ...


class TasksAhead(Protocol):
    """The tasks that a worker is to run after its current one, for its runner to take.

    Tasks that were taken count as running. They come from a queue without keys and priorities, and
    have no ``ttl`` and no stream. Only the worker's thread may use it.
    """

    def take(self, most: int, fits: Callable[[Task], bool], /) -> Sequence[Task]:
        """The next tasks, in the order in which the runner will be called with them.

        Never more than the worker's share of the queue, and none if the worker is about to stop.

        Args:
            most: so many at most.
            fits: whether a task may be taken; the first that may not is the end. It is called under
                the lock of the queue: it must be quick, and run no code of users.
        """
        ...

    def give_back(self, tasks: Sequence[Task], /) -> None:
        """The last tasks that were taken, which have not begun: any worker may run them now."""
        ...


@runtime_checkable
class SendsAhead(Protocol):
    """A runner that may have tasks sent before their turn, so that the next never waits for them.

    It stays one task at a time: :meth:`Runner.call` is called with the current one, and then with
    each task that the runner has taken, in that order. What holds besides:

    - A task that was taken may begin before its call. The runner looks after its context from then
      on: a task that is cancelled before it has begun never begins.
    - When a call raises, the runner has given back all that has not begun. What it keeps may have
      begun. It is called with those, too, and each call raises or returns what became of the task.
    - If the current task takes long, the runner gives back what has not begun.
    """

    def look_ahead(self, tasks: TasksAhead, /) -> None:
        """From now on it may take tasks. Called before the start, or never.

        Workers in which an actor lives never call it, nor do those of pools with a
        ``task_wrapper``, with metrics or traces, or with a policy that sheds tasks.
        """
        ...


@runtime_checkable
class Traceable(Protocol):
    """A runner that can tell where its task is. Of any other, the stack of its worker is shown.

    Any thread may ask, also one that must not block.
    """

    @property
    def pid(self) -> int | None:
        """The process in which the tasks run; None for this one, or if there is none now."""
        ...

    @property
    def starting(self) -> bool:
        """Whether it is only getting ready."""
        ...

    def where(self, thread: threading.Thread | None, /) -> Stack:
        """Where its task is, or its start. Asks, if it has to, and does not wait for the answer.

        Args:
            thread: the worker's.
        """
        ...


@runtime_checkable
class Backend(Protocol):
    """Where tasks run, with the settings. Several pools may share it."""

    @property
    def must_start(self) -> bool:
        """Whether a worker takes tasks only when its runner has started."""
        ...

    def make_runner(self, worker: str, context: Context, log: Log, /) -> Runner:
        """A runner for the worker of that name. Must be quick: the work is done by ``start``.

        Args:
            worker: its name.
            context: the pool's: it ends when the pool closes.
            log: the pool's.
        """
        ...


class LoopSite(Protocol):
    """The event loop on which all workers of one pool run their tasks."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop."""
        ...

    @property
    def thread(self) -> threading.Thread | None:
        """The thread that the loop runs in, as far as is known."""
        ...

    @property
    def own(self) -> bool:
        """Whether the loop was made for the pool, and ends with it."""
        ...

    def begin(self, on_end: Callable[[], object], over: Callable[[], bool], /) -> None:
        """Make ready.

        Args:
            on_end: called once, by any thread, if the loop ends before the pool does. It must not
                block.
            over: whether the pool has ended. A loop that ends waits a moment for that.
        """
        ...

    def is_here(self) -> bool:
        """Whether the caller runs on the loop."""
        ...

    def is_held_up(self) -> bool:
        """Whether the loop cannot go on while the caller waits.

        So it is if it runs in this thread; or if it has stopped, and ran in this thread before.
        """
        ...

    def is_lost(self) -> bool:
        """Whether the loop has ended. Then nothing that is posted is called any more."""
        ...

    def lose_if_it_stands(self) -> None:
        """The interpreter is about to exit: a loop that does not run now will not run again."""
        ...

    def post(self, call: Callable[[], object], /) -> None:
        """Have the loop call this soon. Any thread may post, also in a finalizer."""
        ...

    def start(
        self,
        coroutine: Coroutine[Any, Any, Any],
        variables: contextvars.Context,
        on_early_cancel: Callable[[], object],
        /,
    ) -> asyncio.Task[Any]:
        """Have the loop run a coroutine. Called on the loop.

        Args:
            coroutine: which one.
            variables: that it runs with.
            on_early_cancel: called if it is cancelled before it has begun. It begins nevertheless.
        """
        ...

    def where(self, coroutine: object, /) -> Stack:
        """Where a coroutine of the loop is: what it awaits, or what it runs now."""
        ...

    def close(self) -> None:
        """The pool has ended: it needs the loop no more."""
        ...


@runtime_checkable
class LoopBackend(Protocol):
    """A :class:`Backend` whose workers share an event loop."""

    def open_site(self, pool: str, context: Context, log: Log, /) -> LoopSite:
        """The site for a new pool.

        Args:
            pool: its name.
            context: its own.
            log: its own.
        """
        ...
