"""The parent's side of the process backend, for one worker."""

from __future__ import annotations

import contextlib
import contextvars
import copy
import logging
import os
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NoReturn

from ion_actors.backends.process.main_module import UNGUARDED, unguarded
from ion_actors.backends.process.parent.child_process import Child, TakenBack
from ion_actors.backends.process.parent.inlet import Reception
from ion_actors.backends.process.parent.launch import ChildSettings
from ion_actors.backends.process.parent.line import CAN_TAKE_BACK
from ion_actors.backends.process.transport.channel import LAST, RESULT, Garbled, Message
from ion_actors.backends.process.transport.descriptors import close_all
from ion_actors.backends.process.transport.initializer import Initializer, initializer_of
from ion_actors.backends.process.transport.messages import (
    open_result,
    pack_request,
    raise_error,
    raise_packed,
)
from ion_actors.backends.process.transport.pickling import Packed
from ion_actors.backends.process.transport.remote_errors import pack_error
from ion_actors.backends.protocol import Broken, NotReady, give_results
from ion_actors.backends.stacks import stack_of
from ion_actors.context import Context
from ion_actors.errors import WorkerDied
from ion_actors.naming import Lines

if TYPE_CHECKING:
    from ion_actors.backends.protocol import Task, TasksAhead
    from ion_actors.backends.stacks import Stack
    from ion_actors.observe import Log

__all__ = ["ProcessRunner"]

# The number of children that may die before they have read a task; then the task counts as the
# cause: it may be too large for them.
_TRIES = 3

_TOO_LARGE = (
    "worker %s: a child process holds more than max_memory_per_child when it has started; so it is "
    "not ended during a task, and replaced after each"
)


_SHOWN = Reception()


class ProcessRunner:
    """Runs the tasks of one worker in a child process; see :class:`ion_actors.backends.Runner`.

    The child is replaced when it has run its share of tasks, and when it was killed because a task
    did not end: the worker survives both. When the child dies by itself, the task panics, and its
    worker is replaced.
    """

    inline = False

    def __init__(
        self,
        settings: ChildSettings,
        worker: str,
        context: Context,
        log: Log,
        reception: Reception = _SHOWN,
    ) -> None:
        self._settings = settings
        self._reception = reception
        self._worker = worker
        self._context = context
        self._log = log
        self._initializer: Initializer | None = None
        self._lock = threading.Lock()  # guards the children, for kill()
        self._child: Child | None = None
        self._leaving: list[Child] = []  # told to end, and still to be waited for
        self._killed = False
        self._told_of_start = False  # that children hold too much when they have started
        self._readies = False  # this worker's thread waits for a child
        self._ahead: TasksAhead | None = None
        self._lost: dict[int, tuple[Task, WorkerDied]] = {}  # whose child is gone, by their ids
        self._process = os.getpid()  # a fork must not talk to the child

    # -- starting --------------------------------------------------------------------------

    def start(self, initializer: Callable[..., object] | None, initargs: tuple[Any, ...]) -> None:
        """Start the child, and wait until the initializer has returned there.

        Raises:
            ContextEnded: the pool closes.
            Hopeless: there can never be a child.
            WorkerDied: the child died, or was not ready in time.
            BaseException: whatever the initializer raised.
        """
        self.start_with(initializer_of(self._context, initializer, initargs))

    def start_with(self, initializer: Initializer) -> None:
        """The same with an initializer that may be packed."""
        self._initializer = initializer
        initializer.pack()
        try:
            self._ready_child()
            return
        except NotReady as error:
            self._context.check()
            failure = error if error.__cause__ is None else error.__cause__
        try:
            raise failure  # with its own cause
        finally:
            del failure

    def _ready_child(self, task: Task | None = None) -> Child:
        """The child, ready for a task.

        Raises:
            NotReady: no child could be started.
            ContextEnded: the task's context has ended meanwhile.
        """
        if (child := self._child) is not None and child.is_usable():
            return child
        if child is not None and child.ready:  # something interrupted its last task
            self._see_off(child)
        self._readies = True
        try:
            ready = self._make_ready(self._child or self._launch())
            self._bury_ended()
        except BaseException as error:
            raise NotReady(f"worker {self._worker} has no child process") from error
        finally:
            self._readies = False
        if task is not None:  # its context may have ended meanwhile
            task.task_context().check()
        return ready

    def _launch(self) -> Child:
        """Start a child, which runs the initializer while this thread goes on."""
        assert self._initializer is not None, "a child before the start"
        first = self._initializer.message(self._reception.settings())
        child = Child(self._worker, self._settings, self._context, first, self._reception)
        with self._lock:
            self._child = child
            if self._killed:
                child.kill()
        return child

    def _make_ready(self, child: Child) -> Child:
        registration = self._context.add_callback(child.kill)
        try:
            failure = child.await_ready(self._settings.start_timeout)
        except (EOFError, Garbled):
            forced = child.was_forced
            died = self._bury(child)
            if died.exitcode == UNGUARDED:
                raise unguarded() from None
            if forced and self._settings.start_timeout and not self._context.cancelled:
                died.args = (
                    f"the child process {died.pid} of worker {self._worker} was not ready within "
                    f"{self._settings.start_timeout:g} seconds (start_timeout), and was killed",
                )
            raise died from None
        finally:
            registration.remove()
        if failure is not None:
            self._see_off(child)
            self._reception.raise_error(child.buffers, failure[2], lambda: "initializer")
        if not (child.is_guarded() or self._told_of_start):
            self._told_of_start = True
            self._log(logging.WARNING, _TOO_LARGE, self._worker, worker=self._worker)
        return child

    # -- a task ----------------------------------------------------------------------------

    def call(self, task: Task) -> Any:
        """Make the call in the child: see :meth:`ion_actors.backends.protocol.Runner.call`."""
        try:
            child, (kind, _, body) = self._ask_ahead(task) or self.ask(task, pack_request(task))
            if kind != RESULT:
                raise_error(child.buffers, body, task.task_name)
            value = open_result(child.buffers, body, task.task_name)
            if type(value) is Broken:
                _raise_broken(value, task.task_name)
            return value
        except BaseException:
            if self._ahead is not None and self._child is not None:
                self._child.take_back()  # what follows may depend on what becomes of this one
            raise
        finally:
            del task  # the error's traceback keeps this frame, and the task will keep the error

    def look_ahead(self, tasks: TasksAhead) -> None:
        """From now on it may take tasks before their turn."""
        settings = self._settings
        # Else it would not be known which of them has printed what, or holds too much.
        if CAN_TAKE_BACK and not settings.capture_output and settings.max_memory_per_child is None:
            self._ahead = tasks

    def _ask_ahead(self, task: Task) -> tuple[Child, Message] | None:
        """The reply to a task that was sent before its turn; None if it has to be sent."""
        if self._ahead is None:
            return None
        lost = self._lost.pop(id(task), None)
        try:
            if lost is not None:
                raise copy.copy(lost[1])
            if (child := self._child) is not None and child.has(task):
                return child, self._exchange(child, task, None)
            if task.own_context is not None or self._context._end is not None:
                task.task_context().check()
            return None
        except TakenBack:
            task.task_context().check()
            return None
        finally:
            del task, lost

    def ask(self, task: Task, request: Packed) -> tuple[Child, Message]:
        """:meth:`call` in bytes: returns the reply, and the child whose buffers it is in.

        If the child dies before it has read the task, another one gets it.
        """
        tries = 0
        try:
            while True:
                child = self._ready_child(task)
                try:
                    return child, self._exchange(child, task, request)
                except TakenBack:
                    task.task_context().check()
                    if self._child is child:
                        continue
                died = child.obituary
                tries += 1
                if tries == _TRIES:
                    raise died
                self._log(logging.WARNING, "worker %s: %s; it was idle", self._worker, Lines(died))
                task.task_context().check()
        finally:
            close_all(request[1])
            del task, request

    def _exchange(self, child: Child, task: Task, request: Packed | None) -> Message:
        """Raises ``TakenBack`` if the child has not begun the task; it may have died."""
        try:
            child.ahead = self._ahead
            reply = child.exchange(task, request)
            if (reply[1] & LAST or not child.is_usable()) and not child.is_busy:
                self._see_off(child)
                self._launch_next()
        except TakenBack:
            raise
        except (EOFError, Garbled):
            forced = child.was_forced
            if self._part_with(child, task):
                raise TakenBack from None
            task.captured_output = child.output
            if forced and (context := task.task_context()).cancelled:
                self._launch_next()
                context.check()
            raise child.obituary from None
        except BaseException:  # thrown in from outside: nobody knows what has begun
            if child.is_busy:
                child.kill()
                self._part_with(child, task)
            raise
        finally:
            del task, request
        return reply

    def _part_with(self, child: Child, task: Task) -> bool:
        """It has died: give back what it has not begun. Returns whether this task is among that."""
        died = self._bury(child)
        unbegun = child.give_back(task)
        # Replies that came before its end are lost, too, if somebody has interrupted this worker.
        self._lost |= {id(one): (one, died) for one in child.rest() if one is not task}
        return unbegun

    def _launch_next(self) -> None:
        """Start the next child while this worker settles its task."""
        if self._killed or self._context.cancelled:
            return
        try:
            self._launch()
        except BaseException as error:  # the next task tries again
            self._log(logging.ERROR, "worker %s cannot start a child", self._worker, error=error)

    # -- where it is -----------------------------------------------------------------------

    @property
    def pid(self) -> int | None:
        """The process id of its child, if it has one."""
        child = self._own_child()
        return None if child is None else child.pid

    @property
    def starting(self) -> bool:
        """Whether its child is being started."""
        child = self._own_child()
        return self._readies if child is None else child.starting

    def where(self, thread: threading.Thread | None) -> Stack:
        """Where its task is: in the child, before it is there, or after it has come back."""
        child = self._own_child()
        if self._readies or (child is not None and not child.ready):
            return _InStart(child)
        asked = None if child is None else child.where()
        return stack_of(thread) if asked is None else asked

    def _own_child(self) -> Child | None:
        return self._child if self._process == os.getpid() else None

    # -- the end ---------------------------------------------------------------------------

    @property
    def children(self) -> list[Child]:
        """Its child, and those that were told to end. Any thread may ask for them."""
        with self._lock:
            return [one for one in (self._child, *self._leaving) if one is not None]

    def kill(self) -> bool:
        """End the child at once."""
        with self._lock:
            self._killed = True
        for child in self.children:
            child.kill()
        return True

    def stop(self, failure: BaseException | None = None) -> None:
        """Tell the child to end, and wait for it."""
        self.stop_with(None if failure is None else pack_error(failure))

    def stop_with(self, failure: Packed | None) -> None:
        """The same with the failure in bytes."""
        if self._child is not None:
            self._see_off(self._child, failure)
        self._bury_leaving()
        self._initializer = None

    def _see_off(self, child: Child, failure: Packed | None = None) -> None:
        """Tell it to end; the next child does not wait for it."""
        with self._lock:
            if self._child is child:
                self._child = None
            self._leaving.append(child)
        child.dismiss(failure)

    def _bury_ended(self) -> None:
        """Wait only for children that have ended: others must not delay tasks."""
        for child in [one for one in self._leaving if one.has_ended()]:
            self._bury(child)

    def _bury_leaving(self) -> None:
        for child in list(self._leaving):
            self._bury(child)

    def _bury(self, child: Child) -> WorkerDied:
        try:
            return child.bury()
        finally:
            with self._lock:
                if self._child is child:
                    self._child = None
                if child in self._leaving:
                    self._leaving.remove(child)

    # -- what an inline runner has to do ---------------------------------------------------

    def finish(self, value: Any, context: Context, variables: contextvars.Context) -> Any:
        """The child has run any coroutine to its end. One that it returned is a value."""
        return value

    @contextlib.contextmanager
    def on_top(self) -> Iterator[None]:
        """Nothing is to be done: the tasks below are in the child, not in this thread."""
        yield


class _InStart:
    """Where a child is that is being started."""

    def __init__(self, child: Child | None) -> None:
        self._asked = None if child is None else child.where_in_start()
        self._pid = "" if child is None else f" {child.pid}"

    def text(self, until: float) -> str:
        """That it starts and, if it says so, where it is."""
        stack = "" if self._asked is None else self._asked.text(until)
        return f"(child process{self._pid} is starting)\n{'' if stack.startswith('(') else stack}"


def _raise_broken(broken: Broken, name: Callable[[], str]) -> NoReturn:
    try:
        raise_packed(broken.error, name)
    except BaseException as error:
        give_results(error, broken.results)
        raise
    finally:
        del broken, name  # as in call()
