"""What runs in a Ray actor: the tasks of one worker, one after the other, in one thread.

Ray runs the methods of each concurrency group in threads of their own. ``run`` and what else has to
do with tasks are in the default group, which has one thread. ``control`` ends a task's context
meanwhile, and raises an exception in it when its time to end by itself has passed. ``recall`` cuts
the line of tasks (:mod:`ion_actors.backends.ray.line`). ``listen`` returns the next news.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib
import os
import platform
import threading
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

from ion_actors.actors.stateful import leave_quietly
from ion_actors.awaitables import PLAIN_TYPES, is_coroutine
from ion_actors.backends.process.child.outlet import RemoteOutlet
from ion_actors.backends.process.child.running_task import RunningTask, Terminated
from ion_actors.backends.process.transport.context_vars import unpack_variables
from ion_actors.backends.process.transport.log_relay import relay_to
from ion_actors.backends.process.transport.messages import Cancel
from ion_actors.backends.process.transport.pickling import (
    Packed,
    not_rebuilt,
    pack_item,
    pack_result,
)
from ion_actors.backends.process.transport.print_relay import PrintRelay
from ion_actors.backends.process.transport.remote_errors import pack_error, unpack_error
from ion_actors.backends.protocol import Broken, take_results
from ion_actors.backends.ray.journal import Journal
from ion_actors.backends.ray.line import FarLine
from ion_actors.backends.ray.printing import Keeps
from ion_actors.backends.ray.wire import (
    ActorStart,
    Batch,
    Call,
    CallEnd,
    Item,
    News,
    Reply,
    check_sendable,
    opened,
    put_in_place,
)
from ion_actors.backends.stacks import TaskStack
from ion_actors.backends.stream.producer import refuse_generators, serve_streams
from ion_actors.backends.thread import ThreadRunner
from ion_actors.clock import system_clock
from ion_actors.context import Context, of_thread
from ion_actors.errors import TaskNotPicklable

__all__ = ["CONTROL", "NEWS", "TaskActor"]

_SEND_CODE = "The node does not have it: send it with RayBackend(ship=...)"

CONTROL, NEWS = "ion_control", "ion_news"  # concurrency groups


class TaskActor:
    """The methods that Ray calls. It wraps each method of an actor, which costs time."""

    def __init__(self) -> None:
        server = self._server = ActorServer()
        self._perform = server.run

    def hello(self) -> tuple[int, str, str, str]:
        """That it has been placed: its process id, the name of its machine, Ray's of it, and the
        file of its standard error.
        """
        ray: Any = importlib.import_module("ray")
        errors = ""
        with contextlib.suppress(OSError):
            errors = str(Path("/proc/self/fd/2").readlink())
        return os.getpid(), platform.node(), ray.get_runtime_context().get_node_id(), errors

    def start(self, message: bytes, header: bytes, *buffers: Any) -> Any:
        """Get ready, and run the initializer."""
        return self._server.start(ActorStart.unpack(message), (header, buffers))

    def run(self, head: bytes, *beside: Any) -> Any:
        """Run some tasks."""
        return self._perform(Batch.of(head, beside)).sent()

    def stop(self, failure: bytes | None) -> bool:
        """Leave: the process ends soon. A resident actor is told of the failure."""
        return self._server.stop(failure)

    def control(self, message: bytes) -> None:
        """End a task's context; or, if that was done before, the task."""
        self._server.cancel(Cancel.unpack(message))

    def grant(self, number: int, granted: int) -> None:
        """There is room for more items of that task's stream: so many in all."""
        self._server.grant(number, granted)

    def locate(self) -> tuple[int, Any]:
        """The number of its task, or 0, and where that is."""
        return self._server.locate()

    def recall(self, stretch: int) -> Any:
        """Begin no more of what was sent; returns what has begun and ended."""
        return self._server.line.cut(stretch).sent()

    def listen(self) -> tuple[int, Sequence[Any]]:
        """The next news."""
        return self._server.news.wait()


class ActorServer:
    """Runs the tasks of one worker."""

    def __init__(self) -> None:
        self.news = News()
        self.line = FarLine(None)
        self._journal: Journal | None = None
        self._runner = ThreadRunner()
        self._worker = ""
        self._output: Keeps | PrintRelay | None = None
        self._writable = True
        self._thread = 0  # the one that runs tasks
        self._its_thread: threading.Thread | None = None  # the same
        self._running: RunningTask | None = None
        self._cancels: dict[int, Cancel] = {}  # that came before their tasks
        self._begun = 0  # the number of the last task that was
        # Guards whether the task may be interrupted, as an exception must not reach the next one;
        # and the two above.
        self._gate = threading.Lock()

    # -- in the thread of the tasks ------------------------------------------------------------

    def start(self, start: ActorStart, packed: Packed) -> Any:
        """Get ready, and run the initializer. The result is the path of the journal, if any."""
        self._worker, self._writable = start.worker, start.writable
        self._its_thread = threading.current_thread()
        path = ""
        try:
            relay_to(self.news.add, start.settings)
            if start.output == "relayed":
                self._output = PrintRelay(self.news.add)
            elif start.output == "kept":
                self._output = Keeps()
            of_thread.task_context = self._task_context
            serve_streams(self._open_outlet)
            initializer, initargs, _, _ = self._opened(packed, "initializer")
            self._runner.start(initializer, initargs)
            if start.secret:
                path = self._keep_journal(start.secret)
        except BaseException as error:
            return self._reply(0, False, pack_error(error, self._worker)).body()
        return self._reply(0, True, pack_result(str, path)).body()

    def _keep_journal(self, secret: int) -> str:
        try:
            journal = self._journal = Journal(secret)
        except (OSError, ImportError):
            return ""
        self.line = FarLine(journal)
        return journal.path

    def run(self, batch: Batch) -> CallEnd:
        """Run tasks, until the line is cut."""
        self._thread = threading.get_ident()
        line, stretch = self.line, batch.stretch
        line.enter(stretch, batch.calls[0].number, len(batch.calls), batch.arrived)
        for call in batch.calls:
            if not line.begin(stretch, call.number):
                break
            began = perf_counter()
            fine, packed = self._run_one(call)
            line.end(stretch, self._reply(call.number, fine, packed, perf_counter() - began))
        return line.answer(stretch)

    def _run_one(self, call: Call) -> tuple[bool, Packed]:
        number = call.number
        self.news.begin(number)
        running = RunningTask(number)
        with self._gate:
            self._running, self._begun = running, number
            cancel = self._cancels.pop(number, None) if self._cancels else None
        if cancel is not None:  # it never begins
            running.cancel(cancel)
            self._running = None
            return False, pack_error(running.error(), self._worker)
        found = self._perform(running, call)
        self._running = None
        if self._output is not None and (printed := self._output.take()) is not None:
            self.news.add(printed)
        if running.terminated:
            self._renew_runner()
        return found

    def stop(self, failure: bytes | None) -> bool:
        """Leave: the process ends soon. A resident actor is told of the failure."""
        if failure is not None:
            leave_quietly(unpack_error((failure, ())))
        self._runner.stop()
        if self._journal is not None:
            self._journal.remove()
        return True

    def _perform(self, running: RunningTask, call: Call) -> tuple[bool, Packed]:
        try:
            try:
                with self._gate:
                    running.may_be_interrupted = not running.terminated
                if running.terminated:
                    raise Terminated
                value = self._call(running, call)
                if type(value) is Broken:
                    return self._pack_broken(value)
                return True, check_sendable(pack_result(str, value), "", "the result")
            finally:
                self._shut(running)
        except Terminated:
            return False, pack_error(running.error(), self._worker)
        except BaseException as error:
            if running.terminated and isinstance(error, TaskNotPicklable):
                return False, pack_error(running.error(), self._worker)  # raised in a pickler
            if results := take_results(error):
                return self._pack_broken(Broken(results, error))
            return False, pack_error(error, self._worker)

    def _call(self, running: RunningTask, call: Call) -> Any:
        fn, args, kwargs, extra = self._opened(call.packed, "")
        if call.references:
            args = put_in_place(args, call.references)
            if kwargs is not None:
                values = put_in_place(list(kwargs.values()), call.references)
                kwargs = dict(zip(kwargs, values, strict=True))
        variables, remaining = (None, None) if extra is None else extra
        if remaining is not None:
            running.deadline = system_clock.monotonic() + remaining
        context = unpack_variables(variables)
        value = context.run(fn, *args) if kwargs is None else context.run(fn, *args, **kwargs)
        if type(value) not in PLAIN_TYPES:
            if is_coroutine(value):
                value = self._runner.finish(value, running.context(), context)
            refuse_generators(value, fn)
        return value

    def _open_outlet(self, size: int) -> RemoteOutlet:
        """Where the current task puts its items, as many as this ahead of its reader."""
        running = self._running
        assert running is not None, "a stream outside of a task"
        running.outlet = outlet = RemoteOutlet(size, functools.partial(self._send, running.number))
        return outlet

    def _send(self, number: int, item: Any) -> None:
        self.news.add(Item(number, check_sendable(pack_item(item), "", "an item")))

    def _opened(self, packed: Packed, name: str) -> Any:
        try:
            return opened(packed, writable=self._writable)
        except BaseException as error:
            refused = not_rebuilt(name, "the call", error)
            if isinstance(error, ModuleNotFoundError):
                refused.args = (f"{refused.args[0]}. {_SEND_CODE}",)
            raise refused from error

    def _shut(self, running: RunningTask) -> None:
        """From here on nothing is raised in this thread for this task, nor is anything pending."""
        cleared = False
        while True:
            try:
                with self._gate:
                    running.may_be_interrupted = False
                if cleared or not running.terminated:
                    return
                cleared = True
                # What may be pending is not taken back but replaced, and awaited: CPython up to
                # 3.12 would else go on looking for it in each thread, and 3.11 hangs if profiled.
                _raise_in(self._thread, Terminated)
                while True:
                    """It comes between two steps of this loop."""
            except Terminated:
                continue

    def _pack_broken(self, broken: Broken) -> tuple[bool, Packed]:
        """Results and the error that followed them; only the error, if they cannot be sent."""
        error = pack_error(broken.error, self._worker)
        try:
            return True, pack_result(str, Broken(broken.results, error))
        except TaskNotPicklable:
            return False, error

    def _reply(self, number: int, fine: bool, packed: Packed, seconds: float = 0.0) -> Reply:
        news, before = self.news.rest()
        return Reply(number, fine, before, packed, news, seconds)

    def _renew_runner(self) -> None:
        """Close the event loop, which may have been interrupted."""
        runner, self._runner = self._runner, ThreadRunner()
        with contextlib.suppress(BaseException):
            runner.stop()

    def _task_context(self) -> Context | None:
        running = self._running
        return None if running is None else running.context()

    # -- in other threads ----------------------------------------------------------------------

    def cancel(self, cancel: Cancel) -> None:
        """End a task's context; or, if that was done before, the task.

        The number 0 is all that was sent.
        """
        if cancel.number == 0:
            self.line.cut_now()
        with self._gate:
            running = self._running
            if running is None or cancel.number not in (0, running.number):
                waiting = (*self._cancels.values(), cancel)
                self._cancels = {one.number: one for one in waiting if one.number > self._begun}
                return
        running.cancel(cancel)
        if not cancel.forced:
            return
        with self._gate:
            running.terminated = True
            if running.may_be_interrupted:
                running.may_be_interrupted = False
                _raise_in(self._thread, Terminated)

    def locate(self) -> tuple[int, tuple[Any, ...]]:
        """The number of its task, or 0, and where that is."""
        running, thread = self._running, self._its_thread
        stack = TaskStack([], []) if thread is None else self._runner.look(thread)
        return 0 if running is None else running.number, tuple(stack)

    def grant(self, number: int, granted: int) -> None:
        """There is room for more items of that task's stream: so many in all."""
        running = self._running
        if running is not None and running.number == number and running.outlet is not None:
            running.outlet.grant(granted)


def _raise_in(thread: int, error: type[BaseException]) -> None:
    """Have that thread raise this as soon as it runs Python code."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(error))
