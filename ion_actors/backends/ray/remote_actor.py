"""One Ray actor, seen from the process that gives it tasks.

Messages go to the worker that owns it by a queue: the reply to its call, news, and that the actor
is lost. Ray puts the first two there, in a thread of its own; any thread puts the last. So a worker
never waits in Ray, and whoever ends an actor wakes its worker, also while Ray does not answer.
"""

from __future__ import annotations

import contextlib
import contextvars
import enum
import functools
import signal
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields, replace
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from ion_actors.backends.process.parent.escalation import KILL, TERMINATE, Escalation, Step, plan
from ion_actors.backends.process.parent.handle import how_it_died, signal_name
from ion_actors.backends.process.parent.inlet import Inlet
from ion_actors.backends.process.parent.launch import ChildSettings
from ion_actors.backends.process.transport.log_relay import show
from ion_actors.backends.process.transport.messages import Cancel
from ion_actors.backends.ray import in_place
from ion_actors.backends.ray.line import NearLine, Sent
from ion_actors.backends.ray.printing import Printed
from ion_actors.backends.ray.remains import Remains
from ion_actors.backends.ray.settings import ActorSettings
from ion_actors.backends.ray.task_actor import CONTROL, NEWS, TaskActor
from ion_actors.backends.ray.whereabouts import AskedActor
from ion_actors.backends.ray.wire import ActorStart, Batch, Call, CallEnd, ChildIs, Item, Reply
from ion_actors.backends.window import LONG, SendWindow
from ion_actors.clock import system_clock
from ion_actors.context import Context
from ion_actors.errors import DeadlineExceeded, WorkerDied
from ion_actors.futures import Output

if TYPE_CHECKING:
    from ion_actors.backends.process import ProcessBackend
    from ion_actors.backends.process.transport.log_relay import Settings
    from ion_actors.backends.process.transport.pickling import Packed
    from ion_actors.backends.protocol import Task
    from ion_actors.backends.ray.site import RaySite

__all__ = ["Lost", "RemoteActor"]

# Seconds that an actor gets to leave, if grace= sets no other limit; that Ray may take to end it,
# until the kernel is asked; and that anything else may take.
_DEFAULT_GRACE, _RAYS_TIME, _PATIENCE = 1.0, 0.2, 2.0

# Seconds that an agent gets for what it has to do at the end of the time of its child.
_AGENTS_TIME = 2.0

_NO_VARIABLES = contextvars.Context()


class Lost(Exception):
    """The actor has died, or was ended."""


class _Kind(enum.Enum):
    REPLY = enum.auto()
    TASKS = enum.auto()  # the end of a call with tasks
    RECALLED = enum.auto()
    NEWS = enum.auto()
    LOST = enum.auto()


# Its kind; the number of the call, or the numbers of its tasks; a future of Ray's answer.
_Message = tuple[_Kind, Any, Any]


class RemoteActor:
    """A Ray actor, from its start to its end.

    It belongs to one thread. Others may only :meth:`kill` it.

    Args:
        site: the connection, which has been made.
        worker: the name of the worker that it runs the tasks of.
        settings: those of its backend.
        context: the pool's.
    """

    def __init__(
        self, site: RaySite, worker: str, settings: ActorSettings, context: Context
    ) -> None:
        self.worker = worker
        self._remains = Remains(site, journaled=settings.window > 1)
        self.tasks = 0  # that it was given so far, and that have begun as far as is known
        self.line = NearLine()
        self.window = SendWindow(settings.window, settings.batch)
        self.unbegun: list[Sent] = []  # out of the line; its runner gives them back
        self._long_at = 0.0  # when no answer has come for long
        self._recalls = False  # it was asked for what has not begun, and has not answered
        self._site, self._context = site, context
        self.child_pid: int | None = None  # of its child, if it is an agent
        self._child = settings.child
        self._grace, self._kill_after = settings.grace, settings.kill_after
        self._writable = settings.writable
        self._captures = settings.capture_output
        self._relays = site.connected.result().relays
        self._died: BaseException | None = None  # Ray's words on its death
        self._messages: SimpleQueue[_Message] = SimpleQueue()
        self._number = 0  # of calls so far, besides tasks
        self._started = False
        self._batches = 0  # of news so far
        self._left = False  # it has ended by itself
        self._buried = False
        self._spoilt = False  # its worker was interrupted, and knows nothing of its tasks
        self._cancel: Cancel | None = None  # of what it is being made to end
        self._ending: Sent | None = None  # which task that is
        self._all: Cancel | None = None  # of all that it has: the pool ends
        # Guards what must not change while a context ends: the line.
        # Reentrant: a context may have ended when its callback is added.
        self._lock = threading.RLock()
        self._escalation = Escalation(context.clock, self._send_signal)
        in_place.look_again()  # its replies may come from another cluster than those before
        self._handle = _create(site, settings)
        self._run = self._handle.run
        self._with_pool = context.add_callback(
            functools.partial(self._context_ended, context, None)
        )

    @property
    def pid(self) -> int | None:
        """The id of its process, once it has been placed."""
        return self._remains.pid

    @property
    def actor_id(self) -> str:
        """Ray's id of it."""
        found: str = self._handle._actor_id.hex()
        return found

    # -- its start -----------------------------------------------------------------------------

    def await_place(self, patience: float) -> bool:
        """Wait until it has been placed. Returns whether it has been, within so many seconds.

        Raises:
            Lost: it has died.
        """
        if self.pid is not None:
            return True
        if self._number == 0:
            self._ask(self._handle.hello)
        try:
            found = self._receive(until=system_clock.monotonic() + patience)
        except TimeoutError:
            return False
        self._remains.placed(*found)
        return True

    def start(self, settings: Settings, packed: Packed, timeout: float | None) -> Reply:
        """Have it run the initializer. An agent may start again, for another worker.

        Args:
            settings: what it relays.
            packed: the initializer.
            timeout: seconds until it is killed.

        Raises:
            Lost: it has died, or was not ready in time.
        """
        if timeout is not None:
            more = 0.0 if self._child is None else _AGENTS_TIME
            self._escalation.begin((Step(timeout + more, KILL),))
        again, self._started = self._started, True
        if not again:
            self._listen()
        secret = 0 if again else self._remains.secret
        output = "kept" if self._captures else "relayed" if self._relays else ""
        child = None if self._child is None else _fields_of(self._child)
        first = ActorStart(self.worker, settings, self._writable, secret, output, child)
        self._ask(self._handle.start, first.pack(), packed[0], *packed[1])
        reply = Reply.of(self._receive())
        self._escalation.pause()
        if reply.fine:
            path, self.child_pid = reply.value(str, writable=False)
            if path:
                self._remains.find_journal(path)
            elif secret:  # without one, no task is sent ahead
                self.window = replace(self.window, most=1)
        self._hear(reply)
        return reply

    # -- a task --------------------------------------------------------------------------------

    def is_usable(self) -> bool:
        """Whether it can run a task: it is idle, has not died, and was not told to end."""
        if self._spoilt or self._escalation.sent is not None:
            return False
        with contextlib.suppress(Empty):
            while True:
                try:
                    self._take(self._messages.get_nowait(), None)
                except Lost:
                    return False
        return self._died is None and not self._remains.has_ended()

    def add(self, task: Task, *, alone: bool = False) -> Sent:
        """A task is about to be sent: when its context ends, the actor is told from now on.

        Args:
            task: which one.
            alone: nothing is sent with it, or while it runs.
        """
        with self._lock:
            sent = self.line.add(task)
            sent.alone = alone
        self.tasks += 1
        if self._captures:
            task.captured_output = Output("", "")
        if task.stream is not None:
            sent.inlet = self._inlet_for(sent)
        task.follower = functools.partial(self._follow, sent)
        if task.own_context is not None:
            self._follow(sent, task.own_context)
        return sent

    def _inlet_for(self, sent: Sent) -> Inlet:
        number, task, writable = sent.number, sent.task, self._writable

        def opened(item: Item) -> Any:
            return item.value(task.task_name, writable=writable)

        def grant(granted: int) -> None:
            method = self._handle.grant.options(concurrency_group=CONTROL)
            self._site.post(functools.partial(method.remote, number, granted))

        return Inlet(task, opened, grant)

    def send(self, calls: Sequence[Call]) -> None:
        """Send tasks that were added, in one call of Ray's."""
        line = self.line
        batch = Batch(line.stretch, line.arrived, calls)
        if not line.calls:
            self._long_at = system_clock.monotonic() + LONG
        line.calls += 1
        numbers = range(calls[0].number, calls[-1].number + 1)
        try:
            self._await(self._run.remote(*batch.arguments()), _Kind.TASKS, numbers)
        except BaseException:
            self._spoilt = True  # nobody knows whether they were sent
            raise
        if self._context.cancelled:  # perhaps just before they were added
            self._context_ended(self._context, None)

    def attend(self, current: Sent) -> None:
        """Wait for the next message, and take it.

        If no answer comes for long, and other tasks are behind the one that runs, it is asked for
        those that have not begun.

        Args:
            current: the task that its worker waits for.

        Raises:
            Lost: it has died, or was ended.
        """
        left: float | None = None
        if len(self.line) > 1 and not self._recalls:
            left = max(0.0, self._long_at - system_clock.monotonic())
        try:
            message = self._messages.get(timeout=left)
        except Empty:
            self._recall()
            return
        self._take(message, current)

    def turn_to(self, current: Sent) -> None:
        """Its worker waits for that task from now on: take the messages that have come.

        Raises:
            Lost: it has died, or was ended.
        """
        self._show_held(current)
        while not self._messages.empty():
            self._take(self._messages.get(), current)

    def _recall(self) -> None:
        self.window = self.window.closed()
        self._recalls = True
        recall = self._handle.recall.options(concurrency_group=CONTROL)
        stretch, post = self.line.stretch, self._messages.put

        def ask() -> None:
            reference = recall.remote(stretch)
            reference.future().add_done_callback(lambda done: post((_Kind.RECALLED, 0, done)))

        self._site.post(ask)

    def heard(self, sent: Sent) -> Reply:
        """A task's reply, which has come, after all news that were sent before it.

        Raises:
            Lost: the actor has died, and items of the stream with it.
            BaseException: there is an error instead.
        """
        try:
            self._show_held(sent)
            if sent.error is not None:
                raise sent.error
            assert sent.reply is not None, "a task that was not answered"
            self._hear(sent.reply, sent)
            if sent.inlet is not None and sent.inlet.error is not None:
                raise sent.inlet.error
            return sent.reply
        finally:
            self.line.leave(sent)
            del sent  # the error's traceback keeps this frame, and the task will keep the error

    def where(self) -> AskedActor | None:
        """Ask where its task is; None if it has none. Any thread may call this."""
        head = self.line.head
        if head is None or self.pid is None:
            return None
        return AskedActor(self._locate, f"process {self.pid} on {self._remains.node}", head.number)

    def _locate(self, take: Callable[[Any], object]) -> None:
        locate = self._handle.locate.options(concurrency_group=CONTROL)
        self._site.post(lambda: locate.remote().future().add_done_callback(take))

    # -- the ends of contexts --------------------------------------------------------------------

    def _follow(self, sent: Sent, context: Context) -> None:
        """Follow this context of a task. May be called twice, and too late."""
        with self._lock:
            if not sent.answered and sent.followed is None:
                ended = functools.partial(self._context_ended, context, sent)
                sent.followed = context.add_callback(ended)

    def _leave(self, sent: Sent) -> None:
        """Detach from a task that is answered, or out of the line."""
        sent.task.follower = None
        with self._lock:
            followed, sent.followed = sent.followed, None
        if followed is not None:
            followed.remove()

    def _context_ended(self, context: Context, sent: Sent | None) -> None:
        """A task must end: that one, or all. The thread that ends a context calls it."""
        expired = isinstance(context._error(), DeadlineExceeded)
        reason = context.reason or ""
        with self._lock:
            head = self.line.head
            if sent is None:
                if head is None or self._all is not None:
                    return
                self._all = Cancel(0, expired, reason)
                self._tell(self._all)
            else:
                if sent.answered or sent.cancel is not None:
                    return
                sent.cancel = Cancel(sent.number, expired, reason)
                self._tell(sent.cancel)
            self._see_to_the_end()

    def _see_to_the_end(self) -> None:
        """Have the task that runs end by force, if it must end; under the lock."""
        head = self.line.head
        cancel = None if head is None else self._all or head.cancel
        if cancel is not None and self._escalation.idle:  # else it is being ended already
            self._cancel, self._ending = cancel, head
            self._escalation.begin(self._plan())

    def _plan(self) -> tuple[Step, ...]:
        if self._child is None or self._grace is None:
            return plan(self._grace, self._kill_after)
        # It ends its child by itself.
        return (Step(self._grace + self._kill_after + _AGENTS_TIME, KILL),)

    def _tell(self, cancel: Cancel) -> None:
        control = self._handle.control.options(concurrency_group=CONTROL)
        self._site.post(functools.partial(control.remote, cancel.pack()))

    def _send_signal(self, signum: signal.Signals) -> None:
        """For the escalation, which holds its own lock: so this must not take the actor's."""
        cancel = self._cancel
        if signum is TERMINATE and cancel is not None:
            self._tell(cancel._replace(forced=True))
        elif signum is KILL:
            self._end()

    # -- messages ------------------------------------------------------------------------------

    def _ask(self, method: Any, *arguments: Any) -> None:
        self._number += 1
        self._await(method.remote(*arguments), _Kind.REPLY, self._number)

    def _listen(self) -> None:
        news = self._handle.listen.options(concurrency_group=NEWS)
        self._await(news.remote(), _Kind.NEWS, 0)

    def _await(self, reference: Any, kind: _Kind, number: Any) -> None:
        post = self._messages.put
        reference.future().add_done_callback(lambda future: post((kind, number, future)))

    def _receive(self, until: float | None = None) -> Any:
        """What the last call has returned, which had no tasks.

        Raises:
            Lost: the actor has died, or was ended.
            TimeoutError: the moment has come.
            Exception: the call could not be made.
        """
        while True:
            left = None if until is None else max(0.0, until - system_clock.monotonic())
            try:
                message = self._messages.get(timeout=left)
            except Empty:
                raise TimeoutError from None
            if (found := self._take(message, None)) is not None:
                return found

    def _take(self, message: _Message, current: Sent | None) -> Any:
        """Take a message. Returns what a call without tasks has returned.

        Args:
            message: which one.
            current: the task that its worker waits for, if it does.
        """
        kind, number, future = message
        if kind is _Kind.LOST:
            raise Lost
        if kind is _Kind.REPLY and number != self._number:
            return None  # nobody waits for it any more
        error = future.exception()
        if error is not None:
            self._check_death(error, kind)
            if kind is _Kind.TASKS:
                self._leave_all(self.line.fail(number, error))
                return None
            raise error
        if kind is _Kind.REPLY:
            return future.result()
        if kind is _Kind.NEWS:
            self._take_news(future.result(), current)
        else:
            self._take_answer(CallEnd.of(future.result()), kind)
        return None

    def _take_answer(self, answer: CallEnd, kind: _Kind) -> None:
        self._long_at = system_clock.monotonic() + LONG
        if kind is _Kind.RECALLED:
            self._recalls = False
        with self._lock:
            answered, unbegun = self.line.take(answer)
        self.unbegun += unbegun
        self.tasks -= len(unbegun)
        if not answered and not unbegun:
            return
        window = self.window
        for one in answered:
            reply = one.reply
            if reply is None or reply.packed[1]:
                window = window.closed()  # what is large is not sent ahead
            else:
                window = window.answered(reply.seconds)
        self.window = window
        self._leave_all((*answered, *unbegun))

    def _leave_all(self, gone: Iterable[Sent]) -> None:
        """These are out of the line: from here on nothing escalates for them."""
        ends = False
        for one in gone:
            self._leave(one)
            ends = ends or one is self._ending
        if ends:
            self._ending = None
            self._escalation.pause()
        if self._all is not None or ((head := self.line.head) is not None and head.cancel):
            with self._lock:
                self._see_to_the_end()

    def _take_news(self, news: Any, current: Sent | None) -> None:
        number, pieces = news
        self._batches += 1
        self._listen()
        sent = self.line.numbered(number)
        if sent is None or sent is current:
            self._show(pieces, sent)
        else:
            sent.news += pieces  # its turn comes

    def _check_death(self, error: BaseException, kind: _Kind) -> None:
        exceptions = self._site.connected.result().ray.exceptions
        try:
            not_made = getattr(error, "actor_init_failed", False)
            died = isinstance(error, exceptions.RayActorError) and not not_made
            if kind is _Kind.NEWS or died:
                self._died = error
                raise Lost from None
        finally:
            del error

    def _show(self, news: Iterable[Any], sent: Sent | None = None) -> None:
        variables = _NO_VARIABLES if sent is None else sent.task.variables
        for piece in news:
            if type(piece) is bytes:
                variables.copy().run(show, piece)  # a wrapper of the task may be in them
            elif type(piece) is Printed:
                if sent is not None:
                    sent.task.captured_output = Output(*piece)
            elif type(piece) is ChildIs:
                self.child_pid = piece.pid
            elif sent is not None and sent.inlet is not None:
                sent.inlet.take(piece)

    def _show_held(self, sent: Sent) -> None:
        """Show the news of a task that came before its turn."""
        news, sent.news = sent.news, []
        self._show(news, sent)

    def _hear(self, reply: Reply, sent: Sent | None = None) -> None:
        """Show what a reply has brought, after all news that were sent before it."""
        if sent is not None and sent.inlet is not None:  # no item may be missing
            while self._batches < reply.before:
                if self._buried:
                    raise Lost
                self._take(self._messages.get(), sent)
        if self._batches < reply.before and not self._buried:
            until = system_clock.monotonic() + _PATIENCE
            with contextlib.suppress(Lost):
                while self._batches < reply.before:
                    left = max(0.0, until - system_clock.monotonic())
                    try:
                        message = self._messages.get(timeout=left)
                    except Empty:
                        break
                    self._take(message, sent)
        if reply.news:
            self._show(reply.news, sent)

    # -- its end -------------------------------------------------------------------------------

    @property
    def was_forced(self) -> bool:
        """Whether it was ended from here."""
        return self._escalation.sent is not None

    def kill(self) -> None:
        """End it at once, and wake its worker. Any thread may call this."""
        self._escalation.send_now(KILL)

    def dismiss(self, failure: bytes | None = None) -> None:
        """Have it leave, in some time, and end it. It gets the error, if that is the reason."""
        if self.pid is not None and self.is_usable():
            grace = _DEFAULT_GRACE if self._grace is None else self._grace
            self._ask(self._handle.stop, failure if self.tasks else None)
            with contextlib.suppress(Exception):
                self._receive(until=system_clock.monotonic() + grace)
                self._left = True
        self.kill()
        self.bury()

    def bury(self) -> WorkerDied:
        """Wait for its end, for a moment. Returns how it died. Its tasks are ended, or unbegun."""
        if self._buried:
            return self._obituary()
        self._with_pool.remove()
        if not self.was_forced:
            self._end()
        self._escalation.end()
        if not self._dies_within(_RAYS_TIME):
            self._kill_process()
        self._remains.bury(left=self._left)
        self._buried = True
        self._settle_line()
        return self._obituary()

    def _obituary(self, more: str = "") -> WorkerDied:
        remains = self._remains
        process = "" if self.pid is None else f" in process {self.pid} on {remains.node}"
        return WorkerDied(
            f"the Ray actor of worker {self.worker}{process} {self._how()}{more}",
            worker=self.worker,
            pid=self.pid,
            exitcode=remains.exitcode,
            signal=signal_name(remains.exitcode),
            last_words=remains.words,
            node=remains.node or None,
            actor_id=self.actor_id,
        )

    def _settle_line(self) -> None:
        """What became of the tasks that were sent, as its journal says."""
        try:
            begun, replies = self._remains.read_journal(
                self._context, wanted=len(self.line) > 0, left=self._left
            )
        except Exception:  # there is none; or its node is gone, too, or the control plane
            self._settle_without()
            return
        with self._lock:
            ended, unbegun = self.line.lose(begun, replies, self._obituary)
        self.unbegun += unbegun
        self._leave_all((*ended, *unbegun))

    def _settle_without(self) -> None:
        count, more = len(self.line), ""
        if count > 1:
            more = f"; {count} tasks had been sent to it, and which of them had begun is not known"
        with self._lock:
            ended = self.line.lose_all(lambda: self._obituary(more))
        self._leave_all(ended)

    def _kill_process(self) -> None:
        """Ray does not answer, or is late."""
        if not self._remains.kill(_PATIENCE):
            self._dies_within(_PATIENCE)

    def _dies_within(self, seconds: float) -> bool:
        until = system_clock.monotonic() + seconds
        while self._died is None:
            with contextlib.suppress(Lost):
                try:
                    self._receive(until=until)
                except TimeoutError:
                    return False
                except Exception:  # the call could not be made
                    continue
        return True

    def _how(self) -> str:
        if self.was_forced:
            return "was ended"
        if self._remains.exitcode is not None:
            return how_it_died(self._remains.exitcode)
        return _reason(str(self._died or ""))

    def _end(self) -> None:
        self._site.end_actor(self._handle)
        self._messages.put((_Kind.LOST, 0, None))


def _fields_of(child: ProcessBackend) -> dict[str, Any]:
    found = {one.name: getattr(child, one.name) for one in fields(ChildSettings)}
    return {**found, "env": dict(child.env)}


def _create(site: RaySite, settings: ActorSettings) -> Any:
    connection = site.connected.result()
    return (
        _class_of_actors(connection.ray, TaskActor)
        .options(
            num_cpus=0 if connection.local else settings.num_cpus,
            num_gpus=settings.num_gpus,
            resources=dict(settings.resources),
            scheduling_strategy=settings.scheduling,
            max_restarts=0,
            max_task_retries=0,
        )
        .remote()
    )


@functools.cache
def _class_of_actors(ray: Any, kind: type[Any]) -> Any:
    """The class as Ray knows it. Ray keeps each for ever, so all pools share it."""
    return ray.remote(concurrency_groups={CONTROL: 1, NEWS: 1})(kind)


def _reason(words: str) -> str:
    """Ray's words on the death of an actor, in one line, without its advice."""
    _, _, after = words.partition("The actor is dead because ")
    found = (after or words).partition("Some common causes")[0]
    found = " ".join(found.split())
    return f"has died: {found}" if found else "has died"
