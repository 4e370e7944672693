"""Runs tasks in a child process, one after the other, in its main thread.

Only tasks run in the main thread: signals and event loops work as in any program. A second thread
watches the control channel. It ends a task's context, and ends the process when the parent has
ended, since nobody could get a result any more.

Signals that are sent to all processes of a program do nothing here, since the parent handles them:
see :mod:`ion_actors.backends.process.signals`. Nor does a SIGTERM from elsewhere do anything. The
watching thread sends SIGTERM to the main thread when the parent forces a task to end; that raises
:class:`.Terminated` there, also in the middle of a system call.
"""

from __future__ import annotations

import _thread
import contextlib
import importlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import CodeType, FrameType
from typing import Any

from ion_actors.actors.stateful import leave_quietly
from ion_actors.awaitables import PLAIN_TYPES, is_coroutine
from ion_actors.backends.process.child.outlet import RemoteOutlet
from ion_actors.backends.process.child.running_task import RunningTask, Terminated
from ion_actors.backends.process.child.setup import Setup
from ion_actors.backends.process.child.system import (
    ORPHANED,
    is_importing,
    resident_memory,
    signal_main_thread,
)
from ion_actors.backends.process.main_module import check_main
from ion_actors.backends.process.signals import hold_back_others
from ion_actors.backends.process.transport.channel import (
    ITEM,
    RESULT,
    STOP,
    Channel,
    Garbled,
    Message,
    MessageKind,
    is_next,
    reply_flags,
)
from ion_actors.backends.process.transport.descriptors import Rights
from ion_actors.backends.process.transport.log_relay import relay_to
from ion_actors.backends.process.transport.messages import (
    Cancel,
    Grant,
    Located,
    Received,
    Threads,
    open_error,
    open_sealed,
    open_start,
    pack_error,
    unpack_request,
)
from ion_actors.backends.process.transport.pickling import Packed, pack_item, pack_result
from ion_actors.backends.process.transport.print_relay import PrintRelay
from ion_actors.backends.process.transport.shared_buffers import Receiver, SharedBuffers
from ion_actors.backends.protocol import Broken, Hopeless, take_results
from ion_actors.backends.stacks import TaskStack
from ion_actors.backends.stream.producer import refuse_generators, serve_streams
from ion_actors.backends.thread import ThreadRunner
from ion_actors.clock import system_clock
from ion_actors.context import Context, of_thread
from ion_actors.errors import TaskNotPicklable
from ion_actors.forking import renew_after_fork
from ion_actors.raised import in_a_line

__all__ = ["TaskServer"]


class TaskServer:
    """Runs the tasks that the parent sends."""

    def __init__(self, setup: Setup) -> None:
        self._tasks = Channel(setup.tasks)
        self._replies = Channel(setup.replies)
        self._control = Channel(setup.control)
        self._buffers = SharedBuffers(setup.files[1], setup.files[0], rights=Rights(setup.rights))
        self._setup = setup
        self._limited = setup.max_tasks is not None or setup.max_memory is not None
        self._pid = os.getpid()
        self._now = time.perf_counter  # kept: a task may replace what modules refer to
        # Held while a message is sent. Reentrant: a signal handler may log.
        self._sending = threading.RLock()
        self._sender: int | None = None  # the thread that is sending a message
        self._runner = ThreadRunner()
        self._begun = 0  # tasks
        self._stretch = 0  # of the line of tasks: see parent.line
        self._last = 0  # the number of the last one that has begun
        self._running: RunningTask | None = None
        self._cancel: Cancel | None = None  # the last one that came
        self._where_lost: CodeType | None = None  # the code that looks at lost exceptions

    # -- the main thread -------------------------------------------------------------------

    def serve(self) -> None:
        """Start, and run tasks until the parent sends STOP, or has ended."""
        signal.signal(signal.SIGTERM, self._on_sigterm)
        hold_back_others(signal.SIGTERM)
        sys.unraisablehook = self._on_unraisable(sys.unraisablehook)
        renew_after_fork(self)
        of_thread.task_context = self._task_context
        serve_streams(self._open_outlet)
        try:
            if self._start(self._tasks.receive()):
                while True:  # not `while <condition>`: CPython 3.11 does not specialise that
                    if not self._serve_one(self._tasks.receive()):
                        break
        except EOFError:
            os._exit(ORPHANED)
        self._runner.stop()

    def after_fork(self) -> None:
        """In a fork that a task has made: detach from the parent."""
        self._tasks.close()
        self._replies.close()
        self._control.close()
        self._buffers.after_fork()
        self._sending, self._sender = threading.RLock(), None
        if self._running is not None:
            self._running.after_fork()
        if signal.getsignal(signal.SIGTERM) == self._on_sigterm:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)  # it acts on that process as usual

    def _start(self, message: Message) -> bool:
        try:
            # A Thread's start() would wait for it to run; where many start at once, that takes
            # long. In here, so that the parent is told if there can be no more threads.
            _thread.start_new_thread(self._watch, ())
            check_main()
            preload(self._setup.preload)
            start = open_start(self._buffers, message[2])
            relay_to(self._tell, start.settings)
            if start.settings.output:
                PrintRelay(self._tell)
            self._runner.start(start.initializer, start.initargs)
        except BaseException as error:
            self._reply(MessageKind.ERROR, self._buffers.seal(self._pack_error(error)), 0)
            return False
        self._reply(MessageKind.READY, b"", 0)
        return True

    def _serve_one(self, message: Message) -> bool:
        """Run a task. Returns whether this process may run another one."""
        kind, flags, body = message
        if kind == STOP:
            if body:
                leave_quietly(open_error(self._buffers, body))
            return False
        if not is_next(flags, self._stretch, self._last):
            return True  # the parent knows that, and has it run elsewhere
        began = self._now()
        self._begun += 1
        self._last = number = flags >> 8
        running = self._running = RunningTask(number)
        cancel = self._cancel  # after the above: one side sees what the other has written
        if cancel is not None and cancel.number == number:
            running.cancel(cancel)
        kind, packed = self._perform(running, body)
        self._running = None
        if os.getpid() != self._pid:
            os._exit(0)  # this is a fork that the task has made: it must not answer
        last = self._buffers.is_worn_out or (self._limited and self._has_done_its_share())
        if running.terminated:
            last = not self._renew_runner() or running.importing or last
        try:
            body = self._buffers.seal(packed)
        except OSError as error:  # its descriptors cannot be sent
            kind, body = MessageKind.ERROR, self._buffers.seal(self._pack_error(error))
        cut = last or running.broken or kind != RESULT
        if cut:
            self._stretch += 1
        self._reply(kind, body, reply_flags(self._now() - began, last=last, cut=cut))
        return not last

    def _perform(self, running: RunningTask, body: bytes | bytearray) -> tuple[MessageKind, Packed]:
        try:
            received = open_sealed(self._buffers, body)
            running.may_be_interrupted = True  # not before: received data would be lost
            try:
                running.interrupt()  # the signal may have come earlier
                value = self._call(running, received)
                if type(value) is Broken:
                    running.broken = True
                    return self._pack_broken(value)
                return RESULT, pack_result(str, value)
            finally:
                running.may_be_interrupted = False
        except Terminated:
            return MessageKind.ERROR, self._pack_error(running.error())
        except BaseException as error:
            if running.terminated and isinstance(error, TaskNotPicklable):
                return MessageKind.ERROR, self._pack_error(running.error())  # raised in a pickler
            if results := take_results(error):
                running.broken = True
                return self._pack_broken(Broken(results, error))
            return MessageKind.ERROR, self._pack_error(error)

    def _call(self, running: RunningTask, received: Received) -> Any:
        fn, args, kwargs, variables, remaining = unpack_request(received)
        if remaining is not None:
            running.deadline = system_clock.monotonic() + remaining
        value = variables.run(fn, *args) if kwargs is None else variables.run(fn, *args, **kwargs)
        if type(value) not in PLAIN_TYPES:
            if is_coroutine(value):
                value = self._runner.finish(value, running.context(), variables)
            refuse_generators(value, fn)
        return value

    def _open_outlet(self, size: int) -> RemoteOutlet:
        """Where the current task puts its items, as many as this ahead of its reader."""
        outlet = RemoteOutlet(size, self._send_item)
        if self._running is not None:
            self._running.outlet = outlet
        return outlet

    def _send_item(self, item: Any) -> None:
        packed = pack_item(item)
        with self._uninterrupted():  # the other side must get what is sealed
            self._send(ITEM, self._buffers.seal(packed))

    def _pack_broken(self, broken: Broken) -> tuple[MessageKind, Packed]:
        """Results and the error that followed them; only the error, if they cannot be sent."""
        error = pack_error(broken.error, self._setup.name)
        try:
            return RESULT, pack_result(str, Broken(broken.results, error))
        except TaskNotPicklable:
            return MessageKind.ERROR, error

    def _reply(self, kind: MessageKind, body: bytes, flags: int) -> None:
        for name in ("stdout", "stderr"):
            try:
                getattr(sys, name).flush()
            except Exception:  # a task may have put anything there, or taken it away
                continue
        self._send(kind, body, flags)

    def _send(self, kind: MessageKind, body: bytes, flags: int = 0) -> None:
        with self._sending:
            self._sender = threading.get_ident()
            try:
                self._replies.send(kind, body, flags)
            finally:
                self._sender = None

    def _pack_error(self, error: BaseException) -> Packed:
        try:
            return pack_error(error, self._setup.name)
        finally:
            del error

    def _renew_runner(self) -> bool:
        """Close the event loop, which Terminated may have interrupted. Returns if it is closed."""
        runner, self._runner = self._runner, ThreadRunner()
        try:
            runner.stop()
        except BaseException:
            return False
        return True

    def _tell(self, news: bytes) -> None:
        """Send news. Any thread may call this.

        Raises:
            EOFError: the parent has ended.
        """
        if self._sender == threading.get_ident():
            return  # a signal handler has interrupted the sending of a message
        running = self._running
        if (
            running is None
            or not running.may_be_interrupted
            or threading.current_thread() is not threading.main_thread()
        ):
            self._send(MessageKind.NEWS, news)
            return
        with self._uninterrupted():
            self._send(MessageKind.NEWS, news)

    @contextlib.contextmanager
    def _uninterrupted(self) -> Iterator[None]:
        """The block in which the current task cannot be ended: a message goes out as a whole."""
        running = self._running
        if running is None or not running.may_be_interrupted:
            yield
            return
        running.may_be_interrupted = False
        try:
            yield
        finally:
            running.may_be_interrupted = True
        if running.terminated:
            running.may_be_interrupted = False
            raise Terminated

    def _task_context(self) -> Context | None:
        running = self._running
        return None if running is None else running.context()

    def _has_done_its_share(self) -> bool:
        tasks, memory = self._setup.max_tasks, self._setup.max_memory
        if tasks is not None and self._begun >= tasks:
            return True
        return memory is not None and resident_memory() > memory

    def _on_sigterm(self, signum: int, frame: FrameType | None) -> None:
        inner = frame is not None and frame.f_globals.get("__name__") == Receiver.__module__
        if inner or _is_inside(frame, self._where_lost):
            # Destructors may run anywhere, and an exception there would be lost: raise it later.
            _thread.start_new_thread(signal_main_thread, (signal.SIGTERM,))
        elif self._running is not None:
            self._running.importing |= is_importing(frame)
            self._running.interrupt()

    def _on_unraisable(self, before: Callable[[Any], object]) -> Callable[[Any], object]:
        """For an exception that is lost, for example in a destructor."""

        def hook(unraisable: Any) -> None:
            running = self._running
            if isinstance(unraisable.exc_value, Terminated) and running is not None:
                # Again, a little later. As long as this function runs, it would be lost again.
                running.may_be_interrupted = True
                _thread.start_new_thread(signal_main_thread, (signal.SIGTERM,))
            else:
                before(unraisable)

        self._where_lost = hook.__code__
        return hook

    # -- the thread that watches -----------------------------------------------------------

    def _watch(self) -> None:
        threading.current_thread().name = "ion_actors-watch"
        threads = Threads(threading.get_native_id(), threading.main_thread().ident or 0)
        try:
            self._control.send(MessageKind.WATCHING, threads.pack())
            while True:
                kind, _, body = self._control.receive()
                if kind == MessageKind.ASK:
                    self._control.send(MessageKind.ALIVE)
                elif kind == MessageKind.LOCATE:
                    self._control.send(MessageKind.LOCATED, self._locate().pack())
                elif kind == MessageKind.GRANT:
                    self._on_grant(Grant.unpack(body))
                else:
                    self._on_cancel(Cancel.unpack(body))
        except (EOFError, Garbled):  # the parent has ended; or a task has read from the channel
            os._exit(ORPHANED)

    def _locate(self) -> Located:
        running = self._running
        number = 0 if running is None else running.number
        try:
            return Located(number, self._runner.look(threading.main_thread()))
        except Exception:  # whatever it is, this thread is needed
            return Located(number, TaskStack([], []))

    def _on_grant(self, grant: Grant) -> None:
        self._buffers.free(grant.freed)
        running = self._running
        if running is not None and running.number == grant.number and running.outlet is not None:
            running.outlet.grant(grant.granted)

    def _on_cancel(self, cancel: Cancel) -> None:
        self._cancel = cancel
        running = self._running
        if running is None or running.number != cancel.number:
            return
        running.cancel(cancel)
        if cancel.forced:
            signal_main_thread(signal.SIGTERM)


def _is_inside(frame: FrameType | None, code: CodeType | None) -> bool:
    while frame is not None:
        if frame.f_code is code:
            return True
        frame = frame.f_back
    return False


def preload(modules: tuple[str, ...]) -> None:
    """Import them.

    Raises:
        Hopeless: there is no such module.
    """
    for name in modules:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise Hopeless(f"preload={name!r} cannot be imported: {in_a_line(error)}") from error
