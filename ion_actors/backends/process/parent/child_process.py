"""One child process, from its start to its end, in its parent."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import signal
import sys
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
from ion_actors.backends.process.parent.line import MOST_BYTES, SentTask, TaskLine
from ion_actors.backends.process.parent.memory_guard import Excess, MemoryGuard
from ion_actors.backends.process.parent.outside_view import OutsideView
from ion_actors.backends.process.parent.resources import Resources
from ion_actors.backends.process.transport.channel import (
    ITEM,
    MOST_IN_PACKET,
    NEWS,
    TASK,
    Garbled,
    Message,
    MessageKind,
)
from ion_actors.backends.process.transport.descriptors import close_all
from ion_actors.backends.process.transport.messages import Cancel, Grant, pack_request
from ion_actors.backends.window import LONG
from ion_actors.clock import system_clock
from ion_actors.context import Context
from ion_actors.errors import DeadlineExceeded, WorkerDied
from ion_actors.naming import indented

if TYPE_CHECKING:
    from ion_actors.backends.process.transport.pickling import Packed
    from ion_actors.backends.protocol import Task, TasksAhead
    from ion_actors.futures import Output

__all__ = ["Child", "TakenBack"]

# Seconds that a process may live on after it has closed its stream; it may be writing a core dump.
_EOF_PATIENCE = 2.0
# Seconds that a child may take to end when it was told to, if tasks may take any time.
_DEFAULT_GRACE = 1.0
# Milliseconds of a wait after which to look whether the process still runs.
_LOOK_UP = 1000
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

    Attributes:
        obituary: how it died, once it is buried.

    Raises:
        Exception: it cannot be started.
    """

    obituary: WorkerDied

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
        self._share = settings.max_tasks_per_child or sys.maxsize
        self.given = 0  # tasks, but those that it has given back
        self.ahead: TasksAhead | None = None  # that it may be sent before their turn
        self._early: list[SentTask] = []  # with the replies that were read before their turn
        self._spoilt = False  # its worker was interrupted, and does not know what it does
        self._cancel: Cancel | None = None  # of the task that it runs, if that must end
        self._awaited: SentTask | None = None  # whose reply is waited for
        self._hasty = False  # a short wait for a reply is a while
        self._context = context
        # Guards what must not change while a context ends: the line, the control channel.
        # Reentrant: a context may have ended when its callback is added.
        self._lock = threading.RLock()
        self._resources = Resources(worker, settings)
        self._handle, self._tasks = self._resources.handle, self._resources.tasks
        self._replies = self._resources.replies
        self._replies.on_idle = self._on_idle
        self._line = TaskLine(self._tasks, self._resources.unread)
        self._control, self._capture = self._resources.control, self._resources.capture
        self._commands = Control(self._control, self._lock)
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
        """Whether it can run a task: it is there, and was not told to end."""
        return self.ready and not self._spoilt and self._escalation.sent is None

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

    def has(self, task: Task) -> bool:
        """Whether it was sent this task before its turn, and has not given it back."""
        return self._find(task) is not None

    @property
    def is_busy(self) -> bool:
        """Whether it was sent tasks whose replies have not been read."""
        return bool(len(self._line) or self._early)

    def exchange(self, task: Task, request: Packed | None) -> Message:
        """Give it a task, and wait for the reply.

        Args:
            task: when its context ends, the child is told, and forced in the end.
            request: the task as bytes; None if it was sent before.

        Raises:
            TakenBack: it has not begun the task, and never will.
            EOFError, Garbled: it has died.
            TaskNotPicklable: an item of the stream could not be rebuilt. The child is idle again.
        """
        inlet: Inlet | None = None
        sent: SentTask | None = None
        before = self._awaited  # this may be in the middle of another one: see TasksAhead.take()
        try:
            sent, flags = (self._find(task), 0) if request is None else self._add(task)
            if sent is None:
                raise TakenBack
            if task.stream is not None:
                inlet = self._inlet(sent)
            if request is not None:
                self._give(sent, request, flags)
            self._awaited = sent
            message = self._await(sent, inlet)
            if self._capture is not None:
                task.captured_output = self._take_output()
        except TakenBack:
            self.give_back(task)
            raise
        except BaseException:
            self._spoilt = True
            if sent is not None:
                self._leave(sent)
            raise
        finally:
            self._awaited = before
            if inlet is not None:
                inlet.close()
            del task, request, sent, before
        if inlet is not None and inlet.error is not None:
            raise inlet.error
        return message

    def _find(self, task: Task) -> SentTask | None:
        with self._lock:
            found = self._line.find(task)
        return found or next((one for one in self._early if one.task is task), None)

    def _add(self, task: Task) -> tuple[SentTask, int]:
        with self._lock:
            sent, flags = self._line.add(task)
        self.given += 1
        if self._guard is not None:
            self._guard.begin()
        self._attend(sent)
        if self._context._end is not None:  # perhaps just before the task was set
            self._context_ended(self._context)
        return sent, flags

    def _attend(self, sent: SentTask) -> None:
        """Follow the context of its task, as soon as it has one."""
        task = sent.task
        task.follower = functools.partial(self._follow, sent)
        if task.own_context is not None:
            self._follow(sent, task.own_context)

    def _inlet(self, sent: SentTask) -> Inlet:
        opened = functools.partial(
            self._reception.open_item, self.buffers, name=sent.task.task_name
        )
        return Inlet(sent.task, opened, functools.partial(self._grant, sent))

    def _grant(self, sent: SentTask, granted: int) -> None:
        """Grant a task, a stream, so many items in all. Any thread may."""
        with self._lock:
            if not sent.out:
                self._commands.grant(Grant(sent.number, granted, self.buffers.take_freed()))

    def _follow(self, sent: SentTask, context: Context) -> None:
        """Follow this context of a task. May be called twice, and too late."""
        with self._lock:
            if not sent.out and sent.followed is None:
                ended = functools.partial(self._context_ended, context, sent)
                sent.followed = context.add_callback(ended)

    def _leave(self, sent: SentTask) -> None:
        """Detach from a task, which may still be running there."""
        sent.task.follower = None
        with self._lock:
            sent.out = True
            ends = self._cancel is None or self._cancel.number == sent.number
            if ends:
                self._cancel = None
            followed, sent.followed = sent.followed, None
        if followed is not None:
            followed.remove()
        if ends and not self._spoilt:
            self._escalation.pause()  # from here on nothing escalates for this task

    def _take_output(self) -> Output | None:
        if self._capture is not None:
            self.output = self._capture.take()
        return self.output

    def _give(self, sent: SentTask, request: Packed, flags: int) -> None:
        body = self.buffers.seal(request)
        # Taking it back must lose nothing else that is in the message.
        plain = body is request[0] and len(body) <= MOST_IN_PACKET
        sent.alone = not plain or sent.task.stream is not None
        with contextlib.suppress(EOFError):  # then there will be no reply
            self._tasks.send(TASK, body, flags)

    def _await(self, sent: SentTask, inlet: Inlet | None) -> Message:
        """Wait for its reply, and see that the child has more to do by then."""
        if sent.reply is None and not sent.alone and self.ahead is not None:
            self._fill(self.ahead, sent.task)
        while (reply := sent.reply) is None:
            message = self._receive(sent.task.variables, inlet)
            with self._lock:
                first = self._line.answered(message[1])
            if first is None:
                raise Garbled("a reply to no task")
            self._leave(first)
            first.reply = message
            if first is not sent:
                self._early.append(first)
        if self._early:
            self._early = [one for one in self._early if one is not sent]
        if self._line.unbegun:
            self.give_back(sent.task)
        return reply

    # -- tasks that are sent before their turn: see TaskLine ------------------------------------

    def _fill(self, tasks: TasksAhead, current: Task) -> None:
        """Send as many tasks as should be under way now."""
        line = self._line
        if line.unbegun:
            self.give_back(current)
        room = min(line.window.room(len(line), 1), self._share - self.given)
        if room <= 0 or self._cancel is not None:
            return
        taken = tasks.take(room, _fits)
        if taken and not self._hasty:
            self._hasty = True
            self._replies.look_up_after(int(LONG * 1000))
        place = 0
        try:
            while place < len(taken) and self._send_ahead(taken[place]):
                place += 1
        finally:  # it may be interrupted
            if rest := [one for one in taken[place:] if self._find(one) is None]:
                tasks.give_back(rest)

    def _send_ahead(self, task: Task) -> bool:
        if task.own_context is not None and task.own_context.cancelled:
            return False
        try:
            packed = pack_request(task)
        except Exception:  # raised by its own call, when its turn comes
            return False
        header, beside = packed
        if beside or len(header) > MOST_BYTES or self.buffers.owes or self._line.unbegun:
            close_all(beside)
            return False
        with self._lock:
            # What must end is the last that has begun: nothing may begin after it.
            ends = self._cancel is not None or self._context._end is not None
            sent = None if ends else self._line.send_ahead(task, header)
        if sent is None:
            return False
        self.given += 1
        self._attend(sent)
        return True

    def _on_idle(self) -> None:
        """No reply has come for a while: nothing must wait for the task that runs."""
        if (sent := self._awaited) is None:
            return
        if self._hasty and len(self._line) > 1:
            with self._lock:
                self._line.take_back()
                self._line.window = self._line.window.closed()
            self.give_back(sent.task)
        elif self._hasty:
            self._hasty = False
            self._replies.look_up_after(_LOOK_UP)
        if sent.out:
            raise TakenBack

    def take_back(self) -> None:
        """Take back what has not begun."""
        with self._lock:
            self._line.take_back()
        self.give_back(None)

    def give_back(self, current: Task | None) -> bool:
        """Give back what was taken back. Returns whether the current task is among that."""
        with self._lock:
            unbegun = list(self._line.unbegun)
            self._line.unbegun.clear()
        for one in unbegun:
            self._leave(one)
        self.given -= len(unbegun)
        others = [one.task for one in unbegun if one.task is not current]
        try:
            if others and self.ahead is not None:
                self.ahead.give_back(others)
            return len(others) < len(unbegun)
        finally:
            del unbegun, others, current  # an error's traceback may keep this frame

    def rest(self) -> list[Task]:
        """The tasks of which nobody knows what became, once it is buried."""
        return [one.task for one in self._line]

    def _receive(
        self, variables: contextvars.Context = _NO_VARIABLES, inlet: Inlet | None = None
    ) -> Message:
        """Its next reply. Other messages are relayed, and items go to their stream."""
        while True:
            message = self._replies.receive()
            if message[0] == ITEM:
                if inlet is not None:
                    inlet.take(message[2])
            elif message[0] == NEWS:
                # A wrapper of the task may be in them.
                variables.copy().run(self._reception.show, message[2])
            else:
                return message

    def _context_ended(self, context: Context, sent: SentTask | None = None) -> None:
        """A task must end: that one, or any. The thread that ends a context calls it."""
        expired = isinstance(context._error(), DeadlineExceeded)
        with self._lock:
            if sent is not None and sent.out:
                return
            self._line.take_back()
            runs = self._line.last  # all before it are answered, though nobody may have read that
            if runs is None or sent not in (None, runs):
                return
            if self._cancel is None:
                self._cancel = cancel = Cancel(runs.number, expired, context.reason or "")
                self._commands.cancel(cancel)
                if self._escalation.idle:  # else it is being ended already
                    self._escalation.begin(plan(self._grace, self._kill_after))

    def _send_signal(self, signum: signal.Signals) -> None:
        """For the escalation, which holds its own lock: so this must not take the child's."""
        cancel = self._cancel
        if signum is TERMINATE and cancel is not None:
            # By a message with the task's number: a signal might reach the next task.
            self._commands.cancel_now(cancel._replace(forced=True))
        elif not self._handle.send_signal(signum) and signum is KILL:
            self._resources.cut()  # signals are not permitted any more

    # -- whether it answers: see Heartbeat -------------------------------------------------

    def task_under_way(self) -> int | None:
        """The number of its task, if it has one."""
        first = self._line.first
        return None if first is None else first.number

    def has_answered(self) -> bool:
        """Whether it has answered since this was called last."""
        return self._commands.has_answered()

    def ask(self) -> None:
        """Ask it."""
        self._commands.ask()

    def give_up(self, task: int) -> None:
        """End it, unless it has just ended this task, or is being ended already."""
        with self._lock:
            if self.task_under_way() == task and self._escalation.idle:
                self.silent = True
                self._escalation.begin((Step(0.0, ABORT), Step(self._kill_after, KILL)))

    # -- whether it holds too much: see MemoryGuard --------------------------------------------

    def is_guarded(self) -> bool:
        """Whether its memory is watched, if that has a limit. Not if its start took that much."""
        return self._guard is None or self._guard.check_start()

    def end_for(self, excess: Excess, task: int) -> None:
        """End it, unless it has just ended this task."""
        with self._lock:
            if self.task_under_way() == task and not self.has_ended():
                self._excess = excess
                self.kill()

    # -- where it is -----------------------------------------------------------------------

    @property
    def starting(self) -> bool:
        """Whether it is not ready yet, as far as can be seen without reading its messages."""
        if self.ready:
            return False
        with self._lock:
            fd = self._replies.fileno()
            return fd >= 0 and not wait([fd], 0)

    def where(self) -> AskedStack | None:
        """Ask where its task is; None if it has none."""
        with self._lock:
            if (first := self._line.first) is None:
                return None
            return AskedStack(self._commands, self._view, self.pid, first.number, _PATIENCE)

    def where_in_start(self) -> AskedStack:
        """Ask how far its start is; it hears that only once it has begun to import modules."""
        return AskedStack(self._commands, self._view, self.pid, 0, _PATIENCE_IN_START)

    # -- its end ---------------------------------------------------------------------------

    def dismiss(self, failure: Packed | None = None) -> None:
        """Tell it to end, and give the error, if that is the reason. It gets some time for that."""
        if self._spoilt or self.is_busy or self._escalation.sent is not None:
            self.kill()  # it would not read the message, or its state is unknown
            return
        with contextlib.suppress(EOFError):
            told = failure is not None and self.given  # else another child failed
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
        with self._lock:
            self._line.lose()
        self._escalation.end()  # before another process can get its id
        with self._lock:
            self._over = True
        exitcode = self.exitcode = self._handle.bury()
        forget(self)
        self._take_output()
        try:
            limit, peak = self._excess or (None, None)
            self.obituary = WorkerDied(
                f"the child process {self.pid} of worker {self.worker} {self._how(exitcode)}",
                worker=self.worker,
                pid=self.pid,
                exitcode=exitcode,
                signal=signal_name(exitcode),
                last_words=self._last_words(),
                memory_limit=limit,
                memory_peak=peak,
            )
            return self.obituary
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


class TakenBack(Exception):
    """The child has not begun the task, and never will."""


def _fits(_: Task) -> bool:
    """Any task does; its size is not known yet."""
    return True
