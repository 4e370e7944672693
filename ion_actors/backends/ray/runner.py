"""A worker's use of its Ray actor."""

from __future__ import annotations

import contextlib
import contextvars
import logging
import os
import queue
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from ion_actors.backends.process.transport.log_relay import settings_here
from ion_actors.backends.process.transport.messages import pack_extra, pack_request, raise_packed
from ion_actors.backends.process.transport.pickling import Packed, far_side, pack_call
from ion_actors.backends.process.transport.remote_errors import pack_error
from ion_actors.backends.protocol import Broken, Hopeless, NotReady, give_results
from ion_actors.backends.ray.line import Sent
from ion_actors.backends.ray.placement.values import pack_apart
from ion_actors.backends.ray.remote_actor import Lost, RemoteActor
from ion_actors.backends.ray.settings import ActorSettings
from ion_actors.backends.ray.site import RaySite, enter
from ion_actors.backends.ray.wire import Call, PlaceOf, check_sendable
from ion_actors.backends.stacks import Seen, stack_of
from ion_actors.context import Context
from ion_actors.errors import TaskNotPicklable, WorkerDied

if TYPE_CHECKING:
    from ion_actors.backends.protocol import Task, TasksAhead
    from ion_actors.backends.ray.wire import Reply
    from ion_actors.backends.stacks import Stack
    from ion_actors.observe import Log

__all__ = ["RayRunner"]

# Seconds without a place for an actor until that is reported, and then again.
_NOTICE = 10.0

# The same if there seems to be room: then Ray has to start a process first.
_SLOW = 60.0

# Seconds that a worker without a place keeps a task: then another worker may take it.
_HOLD = 20.0

# How many actors of a worker may die before they were placed, until that is a failed start.
_TRIES = 3

# Bytes of the tasks in one call: Ray sends more by way of its object store.
_MOST_BYTES = 64 * 1024

_SEND_CODE = "The node does not have it: send it with RayBackend(ship=...)"

_NO_PLACE = (
    "worker %s has waited %d s for a place in the Ray cluster: it needs %s; there are %s, and free "
    "are %s. The pool works with the workers that it has"
)

_NO_PROCESS = (
    "the Ray actor of worker %s has not started in %d s, though there seems to be room in the "
    "cluster: it needs %s; free are %s. The pool works with the workers that it has"
)


class _NoPlace(Exception):
    """There is none for an actor, and a task waits for it."""


class RayRunner:
    """Runs the tasks of one worker in a Ray actor; see :class:`ion_actors.backends.Runner`.

    The actor is replaced when it has run its share of tasks, and when it was killed because a task
    did not end: the worker survives both. When the actor dies by itself, the task panics, and its
    worker is replaced.
    """

    inline = False

    def __init__(self, settings: ActorSettings, worker: str, context: Context, log: Log) -> None:
        self._settings = settings
        self._worker = worker
        self._context = context
        self._log = log
        self._site: RaySite | None = None
        self._initializer: Packed | None = None
        self._lock = threading.Lock()  # guards the actor, for kill()
        self._actor: RemoteActor | None = None
        self._killed = False
        self._starts = False  # this worker's thread waits for an actor
        self._holds = False  # and has a task, which another worker could run
        self._process = os.getpid()  # a fork must not talk to the actor
        self._ahead: TasksAhead | None = None
        # Of tasks, for one actor; an agent counts those of its children.
        isolated = settings.child is not None
        self._share = (not isolated and settings.max_tasks_per_child) or sys.maxsize
        self._reference: Any = ()  # Ray's class of object references
        # What became of tasks whose actor is gone, and whose call is to come, by their ids.
        self._lost: dict[int, tuple[RemoteActor, Sent]] = {}

    # -- starting ------------------------------------------------------------------------------

    def start(self, initializer: Callable[..., object] | None, initargs: tuple[Any, ...]) -> None:
        """Start the actor, and wait until the initializer has returned there.

        Raises:
            ContextEnded: the pool closes.
            Hopeless: there can never be an actor.
            WorkerDied: the actor died, or was not ready in time.
            BaseException: whatever the initializer raised.
        """
        far_side.has_main = False
        self._initializer = _packed(initializer, initargs)
        self._context.check()
        settings = self._settings
        self._site = enter(settings.address, settings.init, self._context, settings.ship)
        self._await_connection(self._site)
        self._reference = self._site.connected.result().ray.ObjectRef
        self._ready_actor()

    def _await_connection(self, site: RaySite) -> None:
        """Wait until the site is connected.

        Raises:
            Hopeless: it never will be.
            ContextEnded: the pool closes.
        """
        told: queue.SimpleQueue[None] = queue.SimpleQueue()
        site.connected.add_done_callback(lambda _: told.put(None))
        registration = self._context.add_callback(lambda: told.put(None))
        try:
            told.get(timeout=_patience(self._settings))
        except queue.Empty:
            site.give_up(_patience(self._settings))
        finally:
            registration.remove()
        self._context.check()
        try:
            site.connected.result(0)
        except Hopeless as error:
            raise Hopeless(str(error)) from error.__cause__  # each worker has its own

    def _ready_actor(self) -> RemoteActor:
        """The actor, ready for a task."""
        if (actor := self._actor) is not None:
            if actor.is_usable():
                return actor
            self._see_off(actor)
        assert self._site is not None, "an actor before the start"
        while (actor := self._site.take(self._context)) is not None:
            actor.worker = self._worker
            if actor.is_usable():
                return self._prepared(actor)
            self._see_off(actor)
        tries = 0
        while True:
            actor = RemoteActor(self._site, self._worker, self._settings, self._context)
            try:
                return self._prepared(actor)
            except WorkerDied:  # the node of its place may have died before it was there
                tries += 1
                if actor.pid is not None or self._killed or tries == _TRIES:
                    raise

    def _prepared(self, actor: RemoteActor) -> RemoteActor:
        with self._lock:
            self._actor = actor
        registration = self._context.add_callback(actor.kill)
        try:
            if self._killed:
                actor.kill()
            self._make_ready(actor)
        except BaseException:
            self._see_off(actor)
            raise
        finally:
            registration.remove()
        return actor

    def _make_ready(self, actor: RemoteActor) -> None:
        assert self._initializer is not None, "an actor before the start"
        timeout = self._settings.start_timeout
        placed, self._starts = False, True
        try:
            self._await_place(actor)
            placed = True
            reply = actor.start(settings_here(), self._initializer, timeout)
        except Lost:
            self._context.check()
            died = actor.bury()
            if placed and actor.was_forced and not self._killed:
                died.args = (
                    f"the Ray actor of worker {self._worker} was not ready within {timeout:g} "
                    "seconds (start_timeout), and was killed",
                )
            raise died from None
        finally:
            self._starts = False
        if not reply.fine:
            _raise(reply, lambda: "initializer")

    def _await_place(self, actor: RemoteActor) -> None:
        waited = 0.0
        try:
            while not actor.await_place(_NOTICE):
                waited += _NOTICE
                self._tell_of_want(waited)
                if self._holds and waited >= _HOLD:
                    raise _NoPlace("there is no place for its actor in the Ray cluster")
        except (Lost, _NoPlace):
            raise
        except Exception as error:  # it cannot be made there
            raise Hopeless(
                f"no actor can be made in the Ray cluster: {_first_line(error)}. The nodes need "
                "ion_actors with its extra 'ray', of the same version"
            ) from error

    def _tell_of_want(self, waited: float) -> None:
        assert self._site is not None, "a wait before the start"
        settings, connection = self._settings, self._site.connected.result()
        ray, cpus = connection.ray, 0 if connection.local else settings.num_cpus
        wanted = {"CPU": cpus, "GPU": settings.num_gpus, **settings.resources}
        names = [name for name, amount in wanted.items() if amount]

        def tell() -> None:  # Ray may have to ask the head for it
            there, free = ray.cluster_resources(), ray.available_resources()
            if any(free.get(name, 0) < wanted[name] for name in names):
                words, amounts = _NO_PLACE, [wanted, there, free]
            elif waited >= _SLOW:
                words, amounts = _NO_PROCESS, [wanted, free]
            else:
                return
            shown = [_amounts(names, of) for of in amounts]
            self._log(
                logging.WARNING, words, self._worker, int(waited), *shown, worker=self._worker
            )

        self._site.post(tell)

    # -- tasks: see ion_actors.backends.ray.line -------------------------------------------------

    def look_ahead(self, tasks: TasksAhead) -> None:
        """From now on it may take tasks before their turn."""
        self._ahead = tasks

    def call(self, task: Task) -> Any:
        """Make the call in the actor: see :meth:`ion_actors.backends.protocol.Runner.call`."""
        try:
            reply = self._exchange(task)
            if not reply.fine:
                self._raise(reply, task.task_name)
            value = reply.value(task.task_name, writable=self._settings.writable)
            if type(value) is Broken:
                _raise_broken(value, task.task_name)
            return value
        finally:
            del task  # the error's traceback keeps this frame, and the task will keep the error

    def _raise(self, reply: Reply, name: Callable[[], str]) -> NoReturn:
        try:
            _raise(reply, name)
        except WorkerDied as error:
            self._hand_over(error)
            raise
        finally:
            del reply, name

    def _hand_over(self, died: WorkerDied) -> None:
        """If a child of the actor has died, this worker is lost: its successor gets the actor."""
        actor, site = self._actor, self._site
        if actor is None or site is None or died.actor_id != actor.actor_id:
            return
        vars(died).pop("__notes__", None)  # a traceback there, of this library only
        if actor.is_usable() and not actor.line.rest() and site.keep(self._context, actor):
            self._forget(actor)

    def _exchange(self, task: Task) -> Reply:
        sent: Sent | None = None
        lost: tuple[RemoteActor, Sent] | None = None
        try:
            if (lost := self._lost.pop(id(task), None)) is not None:
                return _outcome(*lost)
            while True:
                actor = self._actor
                sent = None if actor is None else actor.line.find(task)
                if actor is None or sent is None:
                    actor = self._actor_for(task)
                    sent = self._send(actor, task)
                if (reply := self._reply_to(actor, sent)) is not None:
                    break
        finally:
            del task, lost, sent
        if actor.tasks >= self._share and not actor.line.rest():
            self._see_off(actor)
        return reply

    def _actor_for(self, task: Task) -> RemoteActor:
        self._holds = True
        try:
            actor = self._ready_actor()
        except BaseException as error:
            raise NotReady(f"worker {self._worker} has no Ray actor") from error
        finally:
            self._holds = False
        task.task_context().check()  # it may have ended meanwhile
        return actor

    def _reply_to(self, actor: RemoteActor, sent: Sent) -> Reply | None:
        """Wait for it, and send more meanwhile. None: the task has not begun, and is to be sent."""
        try:
            actor.turn_to(sent)
            while not (self._gives_back(actor, sent) or sent.answered):
                self._send_more(actor)
                actor.attend(sent)
            if sent.reply is not None and sent.reply.fine:
                self._send_more(actor)
        except Lost:
            actor.bury()
            if self._parts_with(actor, sent):
                _check_forced(actor, sent)
                return None
        except BaseException:  # thrown in from outside: nobody knows what it has begun
            actor.kill()
            actor.bury()
            self._parts_with(actor, sent)
            raise
        try:
            return _outcome(actor, sent) if sent.answered else None
        finally:
            del sent

    def _gives_back(self, actor: RemoteActor, current: Sent | None) -> bool:
        """Give back what is out of the line. Returns whether the current task is, too."""
        if not actor.unbegun:
            return False
        unbegun, actor.unbegun = actor.unbegun, []
        others = [one.task for one in unbegun if one is not current]
        if others and self._ahead is not None:
            self._ahead.give_back(others)
        return current in unbegun

    def _parts_with(self, actor: RemoteActor, current: Sent | None = None) -> bool:
        """The actor is gone: keep what became of its tasks. Returns as :meth:`_gives_back`."""
        self._forget(actor)
        rest = [one for one in actor.line.rest() if one is not current]
        self._lost |= {id(one.task): (actor, one) for one in rest}
        return self._gives_back(actor, current)

    # -- what is sent ----------------------------------------------------------------------------

    def _send(self, actor: RemoteActor, task: Task) -> Sent:
        """Send the current task, and some others in the same call."""
        self._gives_back(actor, None)
        try:
            parts = self._pack(task)
            sent = actor.add(task, alone=_is_large(task, parts))
        finally:
            del task
        calls = [Call(sent.number, *parts)]
        try:
            if sent.alone:
                actor.window = actor.window.closed()
            else:
                room = actor.window.room(len(actor.line), actor.line.calls)
                calls += self._take(actor, min(room, actor.window.batch - 1), len(parts[1][0]))
            actor.send(calls)
        except BaseException:  # thrown in from outside: nobody knows what was sent
            actor.kill()
            actor.bury()
            self._parts_with(actor, sent)
            raise
        return sent

    def _send_more(self, actor: RemoteActor) -> None:
        """Send as many tasks as should be under way now."""
        head = actor.line.head
        if head is not None and head.alone:
            return
        calls = self._take(actor, actor.window.room(len(actor.line), actor.line.calls), 0)
        if calls:
            actor.send(calls)

    def _take(self, actor: RemoteActor, room: int, size: int) -> list[Call]:
        """So many tasks, before their turn, as long as they are small.

        Args:
            actor: for which.
            room: so many at most.
            size: bytes that go with them.
        """
        room = min(room, self._share - actor.tasks)
        if room <= 0 or self._ahead is None:
            return []
        tasks = self._ahead.take(room, self._fits)
        calls: list[Call] = []
        for task in tasks:
            parts = None
            with contextlib.suppress(Exception):  # raised by its own call, when its turn comes
                parts = self._pack(task)
            size += 0 if parts is None else len(parts[1][0])
            if parts is None or _is_large(task, parts) or size > _MOST_BYTES:
                self._ahead.give_back(tasks[len(calls) :])
                break
            calls.append(Call(actor.add(task).number, *parts))
        return calls

    def _fits(self, task: Task) -> bool:
        return not any(issubclass(type(one), self._reference) for one in _arguments(task))

    def _pack(self, task: Task) -> tuple[Sequence[Any], Packed]:
        """The object references among its arguments, and the call.

        Raises:
            TaskNotPicklable: it cannot be sent.
        """
        name = task.task_name()
        references = [one for one in _arguments(task) if issubclass(type(one), self._reference)]
        if references:
            task = _with_places(task, self._reference)
        try:
            if not references or self._settings.child is None:
                return references, check_sendable(pack_request(task), name, "the call")
            call = pack_call(task.task_name, task.fn, task.args, task.kwargs)
            return references, pack_apart(check_sendable(call, name, "the call"), pack_extra(task))
        finally:
            del task

    # -- where it is -----------------------------------------------------------------------------

    @property
    def pid(self) -> int | None:
        """The process id of its actor or the child of that, on their node, once there is one."""
        actor = self._own_actor()
        return None if actor is None else actor.child_pid or actor.pid

    @property
    def starting(self) -> bool:
        """Whether an actor is being started, or waits for its place."""
        return self._starts and self._process == os.getpid()

    def where(self, thread: threading.Thread | None) -> Stack:
        """Where its task is: in the actor, before it is there, or after it has come back."""
        actor = self._own_actor()
        if actor is not None and self._starts:
            if actor.pid is None:
                return Seen("(its Ray actor waits for a place in the cluster)\n")
            return Seen(f"(its Ray actor is starting, in process {actor.pid})\n")
        asked = None if actor is None else actor.where()
        return stack_of(thread) if asked is None else asked

    def _own_actor(self) -> RemoteActor | None:
        return self._actor if self._process == os.getpid() else None

    # -- the end -------------------------------------------------------------------------------

    def kill(self) -> bool:
        """End the actor at once."""
        with self._lock:
            self._killed = True
            actor = self._actor
        if actor is not None:
            actor.kill()
        return True

    def stop(self, failure: BaseException | None = None) -> None:
        """Have the actor leave, and wait for it, for a moment."""
        self._ahead = None
        try:
            if self._actor is not None:
                packed = None if failure is None else pack_error(failure)
                self._see_off(self._actor, None if packed is None or packed[1] else packed[0])
        finally:
            self._initializer = None
            site, self._site = self._site, None
            if site is not None:
                site.leave(self._context)

    def _see_off(self, actor: RemoteActor, failure: bytes | None = None) -> None:
        try:
            actor.dismiss(failure)
        finally:
            self._parts_with(actor)

    def _forget(self, actor: RemoteActor) -> None:
        with self._lock:
            if self._actor is actor:
                self._actor = None

    # -- what an inline runner has to do -------------------------------------------------------

    def finish(self, value: Any, context: Context, variables: contextvars.Context) -> Any:
        """The actor has run any coroutine to its end. One that it returned is a value."""
        return value

    @contextlib.contextmanager
    def on_top(self) -> Iterator[None]:
        """Nothing is to be done: the tasks below are in the actor, not in this thread."""
        yield


def _raise(reply: Reply, name: Callable[[], str]) -> NoReturn:
    """Raise the error that it brings."""
    try:
        raise_packed(reply.packed, name)
    except TaskNotPicklable as error:
        if error.what == "the call" and isinstance(error.__cause__, ModuleNotFoundError):
            error.args = (f"{error.args[0]}. {_SEND_CODE}",)
        raise
    finally:
        del reply, name  # the task will keep the error, and so this frame


def _outcome(actor: RemoteActor, sent: Sent) -> Reply:
    """What became of a task."""
    try:
        if type(sent.error) is WorkerDied:
            _check_forced(actor, sent)
        return actor.heard(sent)
    except Lost:  # and items of its stream with it
        raise actor.bury() from None
    finally:
        del sent


def _check_forced(actor: RemoteActor, sent: Sent) -> None:
    """The actor was ended. Raises the error of the task's context, if it was for that."""
    if actor.was_forced and (context := sent.task.task_context()).cancelled:
        actor.line.leave(sent)
        context.check()


def _is_large(task: Task, parts: tuple[Sequence[Any], Packed]) -> bool:
    """Whether nothing may be sent with it."""
    references, (_, buffers) = parts
    return bool(references or buffers) or task.stream is not None


def _arguments(task: Task) -> tuple[Any, ...]:
    return task.args if task.kwargs is None else (*task.args, *task.kwargs.values())


@dataclass(slots=True)
class _Replaced:
    """A task whose arguments have places instead of object references."""

    task: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any] | None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.task, name)


def _with_places(task: Task, kind: Any) -> Any:
    found = 0

    def replaced(value: Any) -> Any:
        nonlocal found
        if not issubclass(type(value), kind):
            return value
        found += 1
        return PlaceOf(found - 1)

    args = tuple(map(replaced, task.args))
    kwargs = None if task.kwargs is None else {n: replaced(v) for n, v in task.kwargs.items()}
    return _Replaced(task, args, kwargs)


def _packed(initializer: Callable[..., object] | None, initargs: tuple[Any, ...]) -> Packed:
    try:
        packed = pack_call(lambda: "initializer", initializer, initargs, None)
        return check_sendable(packed, "initializer", "the call")
    except TaskNotPicklable as error:
        raise Hopeless(f"its workers cannot start in Ray: {error}") from error


def _patience(settings: ActorSettings) -> float:
    """Seconds to wait for a connection: more if a cluster may have to be started for it."""
    return settings.connect_timeout if settings.address else max(60.0, settings.connect_timeout)


def _amounts(names: list[str], amounts: dict[str, float]) -> str:
    return ", ".join(f"{name} {amounts.get(name, 0):g}" for name in names) or "nothing"


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[-1] if lines else type(error).__name__


def _raise_broken(broken: Broken, name: Callable[[], str]) -> Any:
    try:
        raise_packed(broken.error, name)
    except BaseException as error:
        give_results(error, broken.results)
        raise
    finally:
        del broken, name  # as in call()
