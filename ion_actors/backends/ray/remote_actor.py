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
import os
import platform
import select
import signal
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from ion_actors.backends.process.parent.escalation import KILL, TERMINATE, Escalation, Step, plan
from ion_actors.backends.process.parent.inlet import Inlet
from ion_actors.backends.process.transport.log_relay import show
from ion_actors.backends.process.transport.messages import Cancel
from ion_actors.backends.ray.settings import ActorSettings
from ion_actors.backends.ray.task_actor import CONTROL, NEWS, TaskActor
from ion_actors.backends.ray.wire import Call, Item, Reply
from ion_actors.clock import system_clock
from ion_actors.context import Context
from ion_actors.errors import DeadlineExceeded, WorkerDied

if TYPE_CHECKING:
    from ion_actors.backends.protocol import Task
    from ion_actors.backends.ray.site import RaySite
    from ion_actors.context import Registration

__all__ = ["Lost", "RemoteActor"]

_DEFAULT_GRACE = 1.0  # seconds that an actor gets to leave, unless grace= says otherwise
_RAYS_TIME = 0.2  # seconds that Ray gets to end an actor; then the kernel is asked
_PATIENCE = 2.0  # seconds that any other call of Ray's gets

_NO_VARIABLES = contextvars.Context()


class Lost(Exception):
    """The actor has died, or was ended."""


class _Kind(enum.Enum):
    REPLY = enum.auto()
    NEWS = enum.auto()
    LOST = enum.auto()


_Message = tuple[_Kind, int, Any]  # its kind; the number of the call; a future of Ray's answer


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
        self.pid: int | None = None  # of its process, once it has been placed
        self.tasks = 0  # that it was given so far
        self._site, self._context = site, context
        self._grace, self._kill_after = settings.grace, settings.kill_after
        self._writable = settings.writable
        self._node = ""
        self._died: BaseException | None = None  # Ray's words on its death
        self._messages: SimpleQueue[_Message] = SimpleQueue()
        self._number = 0  # of calls so far
        self._batches = 0  # of news so far
        self._busy = False  # it runs a task
        self._cancel: Cancel | None = None  # of the current task, if that must end
        self._inlet: Inlet | None = None  # for its items, if it is a stream
        self._followed: Registration | None = None  # with the context of the current task
        # Guards what must not change while a context ends: the current task, the process's
        # descriptor. Reentrant: a context may have ended when its callback is added.
        self._lock = threading.RLock()
        self._pidfd: int | None = None  # of its process, if that is on this machine
        self._poll = select.poll()
        self._escalation = Escalation(context.clock, self._send_signal)
        self._handle = _create(site, settings)
        self._run = self._handle.run
        self._with_pool = context.add_callback(functools.partial(self._context_ended, context))

    # -- its start -----------------------------------------------------------------------------

    def await_place(self, patience: float) -> bool:
        """Wait until it has been placed. Returns whether it has been, within so many seconds.

        Raises:
            Lost: it has died.
        """
        if self._number == 0:
            self._ask(self._handle.hello)
        try:
            pid, self._node = self._receive(until=system_clock.monotonic() + patience)
        except TimeoutError:
            return False
        self.pid = pid
        with self._lock:
            if self._node == platform.node() and hasattr(signal, "pidfd_send_signal"):
                with contextlib.suppress(OSError):  # it has died, or the node is not this machine
                    self._pidfd = os.pidfd_open(pid)
                    self._poll.register(self._pidfd)
        return True

    def start(self, message: bytes, *packed: Any, timeout: float | None) -> Reply:
        """Have it run the initializer.

        Args:
            message: how to start.
            packed: the initializer.
            timeout: seconds until it is killed.

        Raises:
            Lost: it has died, or was not ready in time.
        """
        if timeout is not None:
            self._escalation.begin((Step(timeout, KILL),))
        self._listen()
        self._ask(self._handle.start, message, *packed)
        reply = Reply.of(self._receive())
        self._escalation.pause()
        return self._heard(reply)

    # -- a task --------------------------------------------------------------------------------

    def is_usable(self) -> bool:
        """Whether it can run a task: it is idle, has not died, and was not told to end."""
        if self._busy or self._escalation.sent is not None:
            return False
        with contextlib.suppress(Empty):
            while True:
                try:
                    self._take(self._messages.get_nowait(), _NO_VARIABLES)
                except Lost:
                    return False
        return self._died is None and not self._has_ended()

    def exchange(self, task: Task, call: Callable[[int], Call]) -> Reply:
        """Give it a task, and wait for the reply.

        Args:
            task: when its context ends, the actor is told, and forced in the end.
            call: makes the call, given its number.

        Raises:
            Lost: it died.
            TaskNotPicklable: an item of the stream could not be rebuilt. The actor is idle again.
            Exception: an object reference among the arguments has failed.
        """
        if task.stream is None:
            return self._exchange(task, call)
        inlet = self._inlet = self._inlet_for(task)
        try:
            reply = self._exchange(task, call)
        finally:
            self._inlet = None
            inlet.close()
        if inlet.error is not None:
            raise inlet.error
        return reply

    def _exchange(self, task: Task, call: Callable[[int], Call]) -> Reply:
        with self._lock:
            self.tasks += 1
            self._number += 1
            self._busy = True
        task.follower = self._follow
        try:
            if task.own_context is not None:
                self._follow(task.own_context)
            made = call(self._number)
            self._await(self._run.remote(*made.arguments()), _Kind.REPLY, self._number)
            if self._context.cancelled:  # perhaps just before the task was set
                self._context_ended(self._context)
            reply = Reply.of(self._receive(task.variables))
        except Lost:
            self._leave(task)
            raise
        except Exception:  # the call was not made
            self._leave(task, busy=False)
            self._escalation.pause()
            raise
        except BaseException:
            self._leave(task)
            raise
        self._leave(task, busy=False)  # from here on nothing escalates for this task
        self._escalation.pause()
        return self._heard(reply, task.variables)

    def _inlet_for(self, task: Task) -> Inlet:
        number, writable = self._number + 1, self._writable

        def opened(item: Item) -> Any:
            return item.value(task.task_name, writable=writable)

        def grant(granted: int) -> None:
            method = self._handle.grant.options(concurrency_group=CONTROL)
            self._site.post(functools.partial(method.remote, number, granted))

        return Inlet(task, opened, grant)

    def _follow(self, context: Context) -> None:
        """Follow this context of the current task. May be called twice, and too late."""
        with self._lock:
            if self._busy and self._followed is None:
                ended = functools.partial(self._context_ended, context, self.tasks)
                self._followed = context.add_callback(ended)

    def _leave(self, task: Task, *, busy: bool = True) -> None:
        """Detach from the task, which may still be running there."""
        task.follower = None
        with self._lock:
            self._busy, self._cancel = busy, None
            followed, self._followed = self._followed, None
        if followed is not None:
            followed.remove()

    def _context_ended(self, context: Context, task: int | None = None) -> None:
        """A task must end: that one, or any. The thread that ends a context calls it."""
        expired = isinstance(context._error(), DeadlineExceeded)
        with self._lock:
            if not self._busy or task not in (None, self.tasks) or self._cancel is not None:
                return
            self._cancel = Cancel(self._number, expired, context.reason or "")
            self._tell(self._cancel)
            if self._escalation.idle:  # else it is being ended already
                self._escalation.begin(plan(self._grace, self._kill_after))

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

    def _await(self, reference: Any, kind: _Kind, number: int) -> None:
        post = self._messages.put
        reference.future().add_done_callback(lambda future: post((kind, number, future)))

    def _receive(
        self, variables: contextvars.Context = _NO_VARIABLES, until: float | None = None
    ) -> Any:
        """What the last call has returned.

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
            if (found := self._take(message, variables)) is not None:
                return found

    def _take(self, message: _Message, variables: contextvars.Context) -> Any:
        kind, number, future = message
        if kind is _Kind.LOST:
            raise Lost
        if kind is _Kind.REPLY and number != self._number:
            return None  # nobody waits for it any more
        error = future.exception()
        if error is not None:
            self._check_death(error, kind)
        elif kind is _Kind.REPLY:
            return future.result()
        else:
            self._show(future.result(), variables)
            self._batches += 1
            self._listen()
        return None

    def _check_death(self, error: BaseException, kind: _Kind) -> None:
        exceptions = self._site.connected.result().ray.exceptions
        try:
            not_made = getattr(error, "actor_init_failed", False)
            died = isinstance(error, exceptions.RayActorError) and not not_made
            if kind is _Kind.NEWS or died:
                self._died = error
                raise Lost from None
            raise error
        finally:
            del error

    def _show(self, news: Any, variables: contextvars.Context) -> None:
        for piece in news:
            if type(piece) is bytes:
                variables.copy().run(show, piece)  # a wrapper of the task may be in them
            elif self._inlet is not None and piece.number == self._number:
                self._inlet.take(piece)

    def _heard(self, reply: Reply, variables: contextvars.Context = _NO_VARIABLES) -> Reply:
        """The reply, after all news that were sent before it.

        Raises:
            Lost: the actor has died, and items of the stream with it.
        """
        if self._inlet is not None:  # none may be missing
            while self._batches < reply.before:
                self._take(self._messages.get(), variables)
        until = system_clock.monotonic() + _PATIENCE
        with contextlib.suppress(Lost, TimeoutError):
            while self._batches < reply.before:
                left = max(0.0, until - system_clock.monotonic())
                try:
                    message = self._messages.get(timeout=left)
                except Empty:
                    break
                self._take(message, variables)
        self._show(reply.news, variables)
        return reply

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
        self.kill()
        self.bury()

    def bury(self) -> WorkerDied:
        """Wait for its end, for a moment. Returns how it died."""
        self._with_pool.remove()
        if not self.was_forced:
            self._end()
        self._escalation.end()
        if not self._dies_within(_RAYS_TIME):
            self._kill_process()
        with self._lock:
            pidfd, self._pidfd = self._pidfd, None
        if pidfd is not None:
            os.close(pidfd)
        process = "" if self.pid is None else f" in process {self.pid} on {self._node}"
        return WorkerDied(
            f"the Ray actor of worker {self.worker}{process} {self._how()}",
            worker=self.worker,
            pid=self.pid,
        )

    def _kill_process(self) -> None:
        """Ray does not answer, or is late."""
        if self._pidfd is None:
            self._dies_within(_PATIENCE)
            return
        with contextlib.suppress(OSError):  # it has ended; or this is not permitted
            signal.pidfd_send_signal(self._pidfd, KILL)
        self._poll.poll(_PATIENCE * 1000)

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
        return _reason(str(self._died or ""))

    def _end(self) -> None:
        self._site.end_actor(self._handle)
        self._messages.put((_Kind.LOST, 0, None))

    def _has_ended(self) -> bool:
        with self._lock:
            return self._pidfd is not None and bool(self._poll.poll(0))


def _create(site: RaySite, settings: ActorSettings) -> Any:
    connection = site.connected.result()
    if site.actor_class is None:
        groups = {CONTROL: 1, NEWS: 1}
        site.actor_class = connection.ray.remote(concurrency_groups=groups)(TaskActor)
    return site.actor_class.options(
        num_cpus=0 if connection.local else settings.num_cpus,
        num_gpus=settings.num_gpus,
        resources=dict(settings.resources),
        scheduling_strategy=settings.scheduling,
        max_restarts=0,
        max_task_retries=0,
    ).remote()


def _reason(words: str) -> str:
    """Ray's words on the death of an actor, in one line, without its advice."""
    _, _, after = words.partition("The actor is dead because ")
    found = (after or words).partition("Some common causes")[0]
    found = " ".join(found.split())
    return f"has died: {found}" if found else "has died"
