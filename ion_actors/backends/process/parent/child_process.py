"""One child process, from its start to its end, in its parent."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import signal
import threading
from multiprocessing.connection import wait
from typing import TYPE_CHECKING

from ion_actors.backends.process.parent.control import AskedStack, Control
from ion_actors.backends.process.parent.escalation import (
    ABORT,
    KILL,
    TERMINATE,
    Escalation,
    Step,
    plan,
)
from ion_actors.backends.process.parent.handle import how_it_died, signal_name
from ion_actors.backends.process.parent.heartbeat import Heartbeat
from ion_actors.backends.process.parent.inlet import Inlet, Reception
from ion_actors.backends.process.parent.launch import ChildSettings, forget, register
from ion_actors.backends.process.parent.memory_guard import Excess, MemoryGuard
from ion_actors.backends.process.parent.outside_view import OutsideView
from ion_actors.backends.process.parent.resources import Resources
from ion_actors.backends.process.transport.channel import (
    ITEM,
    NEWS,
    TASK,
    Garbled,
    Message,
    MessageKind,
    Unread,
)
from ion_actors.backends.process.transport.messages import Cancel, Grant
from ion_actors.clock import system_clock
from ion_actors.context import Context, Registration
from ion_actors.errors import DeadlineExceeded, WorkerDied
from ion_actors.naming import indented

if TYPE_CHECKING:
    from ion_actors.backends.process.transport.pickling import Packed
    from ion_actors.backends.protocol import Task
    from ion_actors.futures import Output

__all__ = ["Child"]

# Seconds that a process may live on after it has closed its stream; it may be writing a core dump.
_EOF_PATIENCE = 2.0
# Seconds that a child may take to end when it was told to, if tasks may take any time.
_DEFAULT_GRACE = 1.0
# Characters of its output that are part of its last words.
_MOST_PRINTED = 4000

# Seconds that it gets to say where it is; in its start, it may not be there to hear it.
_PATIENCE, _PATIENCE_IN_START = 1.0, 0.1

_NO_VARIABLES = contextvars.Context()


class Child:
    """A child process, from its start to its end.

    It belongs to one thread. Others may only :meth:`kill` it.

    Args:
        worker: the name of the worker that it runs the tasks of.
        settings: those of its backend.
        context: the pool's.
        start: the content of its first message.
        reception: what becomes of what it tells.

    Raises:
        Exception: it cannot be started.
    """

    def __init__(
        self,
        worker: str,
        settings: ChildSettings,
        context: Context,
        start: Packed,
        reception: Reception,
    ) -> None:
        self.worker = worker
        self._reception = reception
        self.ready = False  # it has reported so
        self.output: Output | None = None  # of its last task, if output is captured
        self.exitcode: int | None = None  # once it is buried, if it is known
        self._over = False  # it has ended, and its handle may not be used any more
        self._grace, self._kill_after = settings.grace, settings.kill_after
        self.silent = False  # it was ended because it did not answer
        self._excess: Excess | None = None  # for which it was ended
        self._interval = settings.heartbeat
        self._heartbeat: Heartbeat | None = None
        self._number = 0  # of tasks so far; the child counts as well
        self._busy = False  # it runs the last one
        self._cancel: Cancel | None = None  # of the current task, if that must end
        self._follows = False  # wants to know the context of the current task
        self._followed: Registration | None = None  # with the context of the current task
        self._context = context
        # Guards what must not change while a context ends: the current task, the control channel.
        # Reentrant: a context may have ended when its callback is added.
        self._lock = threading.RLock()
        self._resources = Resources(worker, settings)
        self._handle, self._tasks = self._resources.handle, self._resources.tasks
        self._control, self._capture = self._resources.control, self._resources.capture
        self._line = Control(self._control, self._lock)
        self._view = OutsideView(self.pid, self._resources.words)
        self.buffers = self._resources.buffers
        self._escalation = Escalation(context.clock, self._send_signal)
        if self._interval is not None:
            self._heartbeat = Heartbeat(context.clock, self._interval, self)
        limit = settings.max_memory_per_child
        self._guard = None if limit is None else MemoryGuard(system_clock, limit, self)
        self._with_pool = context.add_callback(functools.partial(self._context_ended, context))
        register(self)
        with contextlib.suppress(EOFError):  # await_ready() will find out
            self._tasks.send(MessageKind.START, self.buffers.seal(start))

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._handle.pid

    # -- a task ----------------------------------------------------------------------------

    def is_usable(self) -> bool:
        """Whether it can run a task: it is idle, and was not told to end."""
        return self.ready and not self._busy and self._escalation.sent is None

    def await_ready(self, timeout: float | None) -> Message | None:
        """Wait until it is ready. Returns its last message, if it never will be.

        Args:
            timeout: seconds until it is killed. They begin now: until now nobody read its
                messages, which may have blocked it.

        Raises:
            EOFError, Garbled: it has died.
        """
        if timeout is not None:
            self._escalation.begin((Step(timeout, KILL),))
        message = self._receive()
        if message[0] != MessageKind.READY:
            return message
        self._escalation.pause()
        self.ready = True
        if self._heartbeat is not None:
            self._heartbeat.begin()
        return None

    def exchange(self, task: Task, request: Packed) -> Message:
        """Give it a task, and wait for the reply.

        Args:
            task: when its context ends, the child is told, and forced in the end.
            request: the task as bytes.

        Raises:
            Unsent: it died before it had read the whole task.
            EOFError, Garbled: it died after that.
            TaskNotPicklable: an item of the stream could not be rebuilt. The child is idle again.
        """
        with self._lock:
            self._number += 1
            self._busy = self._follows = True
        if self._guard is not None:
            self._guard.begin()
        task.follower = self._follow
        if task.own_context is not None:
            self._follow(task.own_context)
        if self._context._end is not None:  # perhaps just before the task was set
            self._context_ended(self._context)
        inlet: Inlet | None = None
        try:
            if task.stream is not None:
                opened = self._reception.open_item
                opened = functools.partial(opened, self.buffers, name=task.task_name)
                inlet = Inlet(task, opened, functools.partial(self._grant, self._number))
            self._give(request)
            message = self._receive(task.variables, inlet)
        except Unread as error:
            self._leave(task, busy=True)
            raise Unsent("the child has died and has not read it") from error
        except BaseException:
            self._leave(task, busy=True)
            raise
        finally:
            if inlet is not None:
                inlet.close()
        self._leave(task, busy=False)  # from here on nothing escalates for this task
        self._escalation.pause()
        if self._capture is not None:
            task.captured_output = self._take_output()
        if inlet is not None and inlet.error is not None:
            raise inlet.error
        return message

    def _grant(self, number: int, granted: int) -> None:
        """Grant the task of this number, a stream, so many items in all. Any thread may."""
        with self._lock:
            if self._busy and number == self._number:
                self._line.grant(Grant(number, granted, self.buffers.take_freed()))

    def _follow(self, context: Context) -> None:
        """Follow this context of the current task. May be called twice, and too late."""
        with self._lock:
            if self._follows and self._followed is None:
                ended = functools.partial(self._context_ended, context, self._number)
                self._followed = context.add_callback(ended)

    def _leave(self, task: Task, *, busy: bool) -> None:
        """Detach from the task, which may still be running there."""
        task.follower = None
        with self._lock:
            self._busy, self._follows, self._cancel = busy, False, None
            followed, self._followed = self._followed, None
        if followed is not None:
            followed.remove()

    def _take_output(self) -> Output | None:
        if self._capture is not None:
            self.output = self._capture.take()
        return self.output

    def _give(self, request: Packed) -> None:
        try:
            self._tasks.send(TASK, self.buffers.seal(request))
        except EOFError as error:
            raise Unsent("the child had died before") from error

    def _receive(
        self, variables: contextvars.Context = _NO_VARIABLES, inlet: Inlet | None = None
    ) -> Message:
        """Its next reply. Other messages are relayed, and items go to their stream."""
        while True:
            message = self._tasks.receive()
            if message[0] == ITEM:
                if inlet is not None:
                    inlet.take(message[2])
            elif message[0] == NEWS:
                # A wrapper of the task may be in them.
                variables.copy().run(self._reception.show, message[2])
            else:
                return message

    def _context_ended(self, context: Context, number: int | None = None) -> None:
        """A task must end: that of this number, or any. The thread that ends a context calls it."""
        expired = isinstance(context._error(), DeadlineExceeded)
        with self._lock:
            if not self._busy or number not in (None, self._number):
                return
            if self._cancel is None:
                self._cancel = cancel = Cancel(self._number, expired, context.reason or "")
                self._line.cancel(cancel)
                if self._escalation.idle:  # else it is being ended already
                    self._escalation.begin(plan(self._grace, self._kill_after))

    def _send_signal(self, signum: signal.Signals) -> None:
        """For the escalation, which holds its own lock: so this must not take the child's."""
        cancel = self._cancel
        if signum is TERMINATE and cancel is not None:
            # By a message with the task's number: a signal might reach the next task.
            self._line.cancel_now(cancel._replace(forced=True))
        elif not self._handle.send_signal(signum) and signum is KILL:
            self._resources.cut()  # signals are not permitted any more

    # -- whether it answers: see Heartbeat -------------------------------------------------

    def task_under_way(self) -> int | None:
        """The number of its task, if it has one."""
        return self._number if self._busy else None

    def has_answered(self) -> bool:
        """Whether it has answered since this was called last."""
        return self._line.has_answered()

    def ask(self) -> None:
        """Ask it."""
        self._line.ask()

    def give_up(self, task: int) -> None:
        """End it, unless it has just ended this task, or is being ended already."""
        with self._lock:
            if self._busy and self._number == task and self._escalation.idle:
                self.silent = True
                self._escalation.begin((Step(0.0, ABORT), Step(self._kill_after, KILL)))

    # -- whether it holds too much: see MemoryGuard --------------------------------------------

    def is_guarded(self) -> bool:
        """Whether its memory is watched, if that has a limit. Not if its start took that much."""
        return self._guard is None or self._guard.check_start()

    def end_for(self, excess: Excess, task: int) -> None:
        """End it, unless it has just ended this task."""
        with self._lock:
            if self._busy and self._number == task and not self.has_ended():
                self._excess = excess
                self.kill()

    # -- where it is -----------------------------------------------------------------------

    @property
    def starting(self) -> bool:
        """Whether it is not ready yet, as far as can be seen without reading its messages."""
        if self.ready:
            return False
        with self._lock:
            fd = self._tasks.fileno()
            return fd >= 0 and not wait([fd], 0)

    def where(self) -> AskedStack | None:
        """Ask where its task is; None if it has none."""
        with self._lock:
            if not self._busy:
                return None
            return AskedStack(self._line, self._view, self.pid, self._number, _PATIENCE)

    def where_in_start(self) -> AskedStack:
        """Ask how far its start is; it hears that only once it has begun to import modules."""
        return AskedStack(self._line, self._view, self.pid, 0, _PATIENCE_IN_START)

    # -- its end ---------------------------------------------------------------------------

    def dismiss(self, failure: Packed | None = None) -> None:
        """Tell it to end, and give the error, if that is the reason. It gets some time for that."""
        if self._busy or self._escalation.sent is not None:
            self.kill()  # it would not read the message, or its state is unknown
            return
        with contextlib.suppress(EOFError):
            told = failure is not None and self._number  # else another child failed
            self._tasks.send(
                MessageKind.STOP, self.buffers.seal(failure) if failure and told else b""
            )
        # No SIGTERM first: a child without a task ignores it.
        self._escalation.begin(
            (Step(_DEFAULT_GRACE if self._grace is None else self._grace, KILL),)
        )

    def kill(self) -> None:
        """End it at once. Any thread may call this."""
        self._escalation.send_now(KILL)

    @property
    def was_forced(self) -> bool:
        """Whether it was sent a signal from here."""
        return self._escalation.sent is not None

    def bury(self) -> WorkerDied:
        """Wait for its end, and free all its resources. Returns how it died.

        It must have been told to end, or be about to die.
        """
        self._with_pool.remove()
        for watch in (self._heartbeat, self._guard):
            if watch is not None:
                watch.end()
        self._hear_out()
        self._escalation.end()  # before another process can get its id
        with self._lock:
            self._over = True
        exitcode = self.exitcode = self._handle.bury()
        forget(self)
        self._take_output()
        try:
            limit, peak = self._excess or (None, None)
            return WorkerDied(
                f"the child process {self.pid} of worker {self.worker} {self._how(exitcode)}",
                worker=self.worker,
                pid=self.pid,
                exitcode=exitcode,
                signal=signal_name(exitcode),
                last_words=self._last_words(),
                memory_limit=limit,
                memory_peak=peak,
            )
        finally:
            with self._lock:
                self._resources.close()

    def _how(self, exitcode: int | None) -> str:
        if self._excess is not None:
            limit, peak = self._excess
            return f"held {peak / 1e6:.1f} MB, and was ended: it may hold {limit / 1e6:.1f} MB"
        if not self.silent:
            return how_it_died(exitcode)
        name = signal_name(exitcode) or "force"
        return f"had not answered for {self._interval:g} s, and was ended by {name}"

    def _last_words(self) -> str:
        printed = self.output.stderr[-_MOST_PRINTED:] if self.output is not None else ""
        words = "\n".join(one for one in (printed.strip(), self._resources.words.read()) if one)
        return indented(words).lstrip()  # an error indents the first line when it shows it

    def _hear_out(self) -> None:
        """Relay its remaining messages, and wait for its end."""
        if self._escalation.idle:
            self._escalation.begin((Step(_EOF_PATIENCE, KILL),))
        with contextlib.suppress(EOFError, Garbled):
            while True:
                self._receive()
        self._handle.await_end()

    def has_ended(self) -> bool:
        """Whether the process has. Any thread may call this."""
        with self._lock:
            return self._over or self._handle.has_ended()


class Unsent(Exception):
    """The child has not read the task, so the task cannot have begun."""
