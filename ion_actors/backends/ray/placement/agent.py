"""Tasks that run in a child process of the actor: the actor is their agent.

::

    the pool ──bytes──▶ the actor ──the same bytes──▶ its child, which runs the task
             ◀──bytes──  unpickles ◀──────────────────
                         nothing of the user's

So whatever a task does to its process, the actor lives on, with what it knows: how the child has
ended, and what its last words were. It starts the next child within tens of milliseconds. A child
that does not end a task in time is made to by its parent here, as in a pool of processes.
"""

from __future__ import annotations

import contextvars
import importlib
import pickle
import platform
import re
import threading
from collections.abc import Callable
from typing import Any, NoReturn

from ion_actors.backends.process.main_module import hide_main
from ion_actors.backends.process.parent.inlet import Reception
from ion_actors.backends.process.parent.launch import ChildSettings
from ion_actors.backends.process.parent.runner import ProcessRunner
from ion_actors.backends.process.transport.channel import RESULT
from ion_actors.backends.process.transport.descriptors import close_all
from ion_actors.backends.process.transport.initializer import Initializer
from ion_actors.backends.process.transport.log_relay import relay_to
from ion_actors.backends.process.transport.messages import Cancel
from ion_actors.backends.process.transport.pickling import Packed
from ion_actors.backends.process.transport.remote_errors import pack_error, unpack_error
from ion_actors.backends.process.transport.shared_buffers import SharedBuffers
from ion_actors.backends.ray.placement.placement import Refused
from ion_actors.backends.ray.placement.values import with_values
from ion_actors.backends.ray.printing import Printed
from ion_actors.backends.ray.wire import ActorStart, Call, ChildIs, Item, News, check_sendable
from ion_actors.clock import system_clock
from ion_actors.context import Context, background
from ion_actors.errors import Cancelled, ContextEnded, DeadlineExceeded, WorkerDied
from ion_actors.futures import Output
from ion_actors.observe import Log

__all__ = ["AgentPlacement"]

# Seconds that a child gets to say where its task is. Other messages wait meanwhile.
_PATIENCE = 0.5

# A filter of warnings whose category is Ray's: a child would have to import Ray for it.
_OF_RAY = re.compile(rb"\x8c.ray[.\x94]", re.DOTALL)

_NO_VARIABLES = contextvars.Context()


class AgentPlacement:
    """See :class:`~ion_actors.backends.ray.placement.placement.Placement`.

    Args:
        news: where log records and so on go.
    """

    def __init__(self, news: News) -> None:
        self._news = news
        self._worker = ""
        self._thread: threading.Thread | None = None  # of the tasks
        self.child_pid: int | None = None  # as far as the pool was told
        self._runner: ProcessRunner | None = None

    # -- in the thread of the tasks ------------------------------------------------------------

    def start(self, start: ActorStart, packed: Packed) -> None:
        """Start the child, and wait until the initializer has returned there."""
        assert start.child is not None, "an agent without a child"
        self._worker, self._thread = start.worker, threading.current_thread()
        self.stop(None)  # of the worker before, if there was one
        hide_main()
        relay_to(self._news.add, start.settings._replace(filters=()))  # of what this module logs
        filters = [one for one in start.settings.filters if not _OF_RAY.search(one)]
        settings = start.settings._replace(filters=filters, output=start.output == "relayed")
        reception = Reception(lambda: settings, self._show, _open_item, _refuse)
        child, log = ChildSettings(**start.child), Log(None, "ion_actors")
        runner = ProcessRunner(child, self._worker, background(), log, reception)
        try:
            runner.start_with(Initializer.of_bytes(packed))
        except BaseException as error:
            if type(error) is WorkerDied:
                _say_where(error)
            runner.stop_with(None)
            raise
        self._runner = runner
        self.child_pid = runner.pid

    def make_task(self, number: int) -> AgentTask:
        """The task with that number."""
        return AgentTask(number, self._news.add)

    def perform(self, task: AgentTask, call: Call) -> tuple[bool, Packed]:
        """Have the child run it."""
        runner = self._runner
        assert runner is not None, "a task before the start"
        try:
            packed = with_values(call.packed, call.references) if call.references else call.packed
            child, (kind, _, body) = runner.ask(task, packed)
            return kind == RESULT, _opened(child.buffers, body, "the result")
        except BaseException as error:
            if type(error) is WorkerDied:
                _say_where(error)
            if type(error.__cause__) is Refused:  # of the next child: this one is rebuilt here
                error.__cause__ = unpack_error(error.__cause__.packed)
            return False, pack_error(error, self._worker)
        finally:
            printed = task.captured_output
            if printed is not None and (printed.stdout or printed.stderr):
                self._news.add(Printed(printed.stdout, printed.stderr))
            if runner.pid != self.child_pid:
                self._tell_of_child(runner.pid)

    def _show(self, news: bytes | bytearray) -> None:
        self._news.add(bytes(news))

    def _tell_of_child(self, pid: int | None) -> None:
        self.child_pid = pid
        if pid is not None:
            self._news.add(ChildIs(pid))

    def stop(self, failure: bytes | None) -> None:
        """Have the child leave, and wait for it. A resident actor is told of the failure."""
        runner, self._runner = self._runner, None
        if runner is not None:
            runner.stop_with(None if failure is None else (failure, ()))

    # -- in other threads ----------------------------------------------------------------------

    def cancel(self, task: AgentTask, cancel: Cancel) -> None:
        """End a task's context. The child's parent sees to the rest."""
        task.cancel(cancel)

    def locate(self) -> str:
        """Where its task is."""
        runner = self._runner
        if runner is None:
            return "(its child process has not been started)\n"
        return runner.where(self._thread).text(system_clock.monotonic() + _PATIENCE)

    def grant(self, task: AgentTask, granted: int) -> None:
        """There is room for so many items of its stream in all."""
        task.stream.grant(granted)


class AgentTask:
    """A task whose call is bytes; see :class:`ion_actors.backends.protocol.Task`."""

    fn: Any = None  # it is in the bytes, and so are the next three
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] | None = None
    variables = _NO_VARIABLES

    def __init__(self, number: int, send: Callable[[Item], object]) -> None:
        self.number = number
        self.own_context: Context | None = None
        self.follower: Callable[[Context], object] | None = None
        self.captured_output: Output | None = None
        self.stream: Any = _Passage(number, send)
        self._cancel: Cancel | None = None
        self._lock = threading.Lock()  # guards that it has one context

    def task_context(self) -> Context:
        """Its context; made now, if nothing has asked for it before."""
        with self._lock:
            context = self.own_context
            if context is None:
                context = self.own_context = Context(background())
        if (follower := self.follower) is not None:
            follower(context)
        return context

    def task_name(self) -> str:
        """Nobody here knows it."""
        return ""

    def cancel(self, cancel: Cancel) -> None:
        """End its context."""
        self._cancel = cancel
        context = self.task_context()
        if cancel.expired:
            context._expire()
        else:
            context.cancel(cancel.reason)

    def error(self) -> ContextEnded:
        """The error for its end."""
        assert self._cancel is not None, "a task that was not cancelled"
        kind = DeadlineExceeded if self._cancel.expired else Cancelled
        return kind(self._cancel.reason)


class _Passage:
    """What the items of a task go through, if it is a stream.

    See :class:`~ion_actors.backends.stream.conduit.Conduit`.
    """

    def __init__(self, number: int, send: Callable[[Item], object]) -> None:
        self._number, self._send = number, send
        self._grant: Callable[[int], object] | None = None

    def begin_elsewhere(self, grant: Callable[[int], object]) -> None:
        """The child makes them. It is told of room by this."""
        self._grant = grant

    def put(self, packed: Packed) -> None:
        """An item has come."""
        self._send(Item(self._number, packed))

    def end_elsewhere(self) -> None:
        """No more come."""
        self._grant = None

    def grant(self, granted: int) -> None:
        """There is room for so many in all."""
        if (grant := self._grant) is not None:
            grant(granted)


def _refuse(shared: SharedBuffers, body: bytes | bytearray, _: object) -> NoReturn:
    raise Refused(_opened(shared, body, "the error"))


def _open_item(shared: SharedBuffers, body: bytes | bytearray, **_: object) -> Packed:
    return _opened(shared, body, "an item")


def _opened(shared: SharedBuffers, body: bytes | bytearray, what: str) -> Packed:
    """What the child has packed, still packed.

    Raises:
        TaskNotPicklable: it has a descriptor.
    """
    header, buffers = shared.open(body)
    packed = bytes(header), [pickle.PickleBuffer(one) for one in buffers]
    try:
        return check_sendable(packed, "", what)
    except BaseException:
        close_all(packed[1])
        raise


def _say_where(died: WorkerDied) -> None:
    ray: Any = importlib.import_module("ray")
    died.node = platform.node()
    died.actor_id = ray.get_runtime_context().get_actor_id()
    died.args = (died.args[0].replace(" of worker ", f" on {died.node} of worker ", 1),)
