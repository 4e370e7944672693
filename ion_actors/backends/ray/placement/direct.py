"""Tasks that run in the actor itself, in its thread for tasks.

A task whose time to end by itself has passed is ended by an exception, which is raised in that
thread by another one.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import threading
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
from ion_actors.backends.ray.printing import Keeps
from ion_actors.backends.ray.wire import (
    ActorStart,
    Call,
    Item,
    News,
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

__all__ = ["DirectPlacement"]


class DirectPlacement:
    """See :class:`~ion_actors.backends.ray.placement.placement.Placement`.

    Args:
        news: where log records and so on go.
    """

    def __init__(self, news: News) -> None:
        self._news = news
        self._runner = ThreadRunner()
        self._worker = ""
        self._output: Keeps | PrintRelay | None = None
        self._writable = True
        self._thread = 0  # the one that runs tasks
        self._its_thread: threading.Thread | None = None  # the same
        self._running: RunningTask | None = None
        # Guards whether the task may be interrupted, as an exception must not reach the next one.
        self._gate = threading.Lock()

    @property
    def child_pid(self) -> int | None:
        """None: tasks run in this process."""
        return None

    # -- in the thread of the tasks ------------------------------------------------------------

    def start(self, start: ActorStart, packed: Packed) -> None:
        """Get ready, and run the initializer."""
        self._worker, self._writable = start.worker, start.writable
        self._its_thread = threading.current_thread()
        relay_to(self._news.add, start.settings)
        if start.output == "relayed":
            self._output = PrintRelay(self._news.add)
        elif start.output == "kept":
            self._output = Keeps()
        of_thread.task_context = self._task_context
        serve_streams(self._open_outlet)
        initializer, initargs, _, _ = self._opened(packed, "initializer")
        self._runner.start(initializer, initargs)

    def make_task(self, number: int) -> RunningTask:
        """The task with that number."""
        return RunningTask(number)

    def perform(self, running: RunningTask, call: Call) -> tuple[bool, Packed]:
        """Run a task."""
        self._thread = threading.get_ident()
        self._running = running
        found = self._perform(running, call)
        self._running = None
        if self._output is not None and (printed := self._output.take()) is not None:
            self._news.add(printed)
        if running.terminated:
            self._renew_runner()
        return found

    def stop(self, failure: bytes | None) -> None:
        """Leave. A resident actor is told of the failure."""
        if failure is not None:
            leave_quietly(unpack_error((failure, ())))
        self._runner.stop()

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
        self._news.add(Item(number, check_sendable(pack_item(item), "", "an item")))

    def _opened(self, packed: Packed, name: str) -> Any:
        try:
            return opened(packed, writable=self._writable)
        except BaseException as error:
            raise not_rebuilt(name, "the call", error) from error

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

    def _renew_runner(self) -> None:
        """Close the event loop, which may have been interrupted."""
        runner, self._runner = self._runner, ThreadRunner()
        with contextlib.suppress(BaseException):
            runner.stop()

    def _task_context(self) -> Context | None:
        running = self._running
        return None if running is None else running.context()

    # -- in other threads ----------------------------------------------------------------------

    def cancel(self, running: RunningTask, cancel: Cancel) -> None:
        """End a task's context; or, if that was done before, the task."""
        running.cancel(cancel)
        if not cancel.forced:
            return
        with self._gate:
            running.terminated = True
            if running.may_be_interrupted:
                running.may_be_interrupted = False
                _raise_in(self._thread, Terminated)

    def locate(self) -> tuple[Any, ...]:
        """Where its task is."""
        thread = self._its_thread
        return tuple(TaskStack([], []) if thread is None else self._runner.look(thread))

    def grant(self, running: RunningTask, granted: int) -> None:
        """There is room for so many items of its stream in all."""
        if running.outlet is not None:
            running.outlet.grant(granted)


def _raise_in(thread: int, error: type[BaseException]) -> None:
    """Have that thread raise this as soon as it runs Python code."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(error))
