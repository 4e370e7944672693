"""Submitting: from a call to a task in the mailbox, in the submitter's thread.

``submit``, ``try_submit`` and ``asubmit`` share everything but what they do when there is no room.
The non-blocking ``Mailbox.offer`` is the algorithm; the others only add the wait.
What becomes of a task that finds no room is in
:mod:`ion_actors.workerpool.submission.admission`, and what belongs to a task and not to its
arguments in :mod:`ion_actors.workerpool.task_options`.
"""

from __future__ import annotations

import contextvars
import functools
import sys
from _thread import RLock
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Callable,
    Coroutine,
    Hashable,
    Iterable,
    Iterator,
)
from concurrent.futures._base import PENDING
from dataclasses import replace
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Never,
    ParamSpec,
    TypeVar,
    overload,
)

import pykka

from ion_actors._arguments import unexpected_keyword, whole_number
from ion_actors.actors.stateful import Method, Receive, Residence
from ion_actors.awaitables import running_loop
from ion_actors.backends.stream.conduit import Conduit
from ion_actors.backends.stream.producer import StreamCall
from ion_actors.context import (
    CURRENT,
    Context,
    Terms,
    Turn,
    await_turn,
    current_context,
    of_thread,
)
from ion_actors.forking import HOOKS_RAN, run_hooks
from ion_actors.futures import Future
from ion_actors.naming import describe
from ion_actors.own_variables import own_values
from ion_actors.workerpool import parallel_map
from ion_actors.workerpool.core import PoolCore
from ion_actors.workerpool.mailbox.dead_letters import DeadLetters
from ion_actors.workerpool.mailbox.task import TaskFuture, on_context_end
from ion_actors.workerpool.mistakes import not_callable
from ion_actors.workerpool.model.outcomes import DropReason
from ion_actors.workerpool.model.retry import Retry
from ion_actors.workerpool.proxy import UnboundMethod, WorkerProxy, no_worker_class
from ion_actors.workerpool.submission.admission import (
    drop_one,
    run_in_this_thread,
    run_on_loop,
    run_on_worker,
    wait_for_room,
    way_in,
)
from ion_actors.workerpool.submission.place import Place
from ion_actors.workerpool.submission.stream import Entrance, Stream
from ion_actors.workerpool.task_options import (
    NO_OPTIONS,
    PLAIN,
    TaskOptions,
    TaskTerms,
    check_key,
    moment_of,
    simple_options,
    terms_of,
)

if TYPE_CHECKING:
    from datetime import datetime

    from ion_actors.clock import Clock
    from ion_actors.workerpool.progress.displays import MapProgress

__all__ = ["Submitter", "call_with_context", "letters_of"]

T = TypeVar("T")
A = TypeVar("A", bound=pykka.Actor)

P = ParamSpec("P")


def call_with_context(fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
    """Call with the current context as the first argument."""
    return fn(current_context(), *args, **kwargs)


_new = object.__new__
_allocate_lock = RLock  # see Future.__init__
_copy_context = contextvars.copy_context
_modules = sys.modules
_current = CURRENT.get
_set_current = CURRENT.set


# What options(...) is mostly given, which makes the same objects for each task.
_SIMPLE = frozenset((type(None), bool, int, float, str))


class Submitter:
    """The verbs that bring tasks to a pool; ``Pool`` has them, and so has ``Pool.options(...)``."""

    def __init__(
        self,
        core: PoolCore,
        options: TaskOptions | None = None,
        origin: Submitter | None = None,
        terms: TaskTerms | None = None,
        key: Hashable | None = None,
    ) -> None:
        self._core = core
        self._origin = origin  # a pool is not forgotten as long as there are submitters to it
        self._options = options
        self._mailbox = mailbox = core.mailbox
        self._pool_context = context = core.spec.context
        self._parents = (context,)
        self._clock = context.clock
        self._hooks = core.spec.hooks
        self._overflow = core.spec.overflow
        if terms is None:
            terms = PLAIN if options is None else terms_of(options)
        self._terms = terms
        # Whether a task may need more than the bare minimum: decided once, not per task.
        endless = context.deadline is None
        self._bare = endless and terms.bare
        self._endless = endless and terms.endless
        self._brief = terms.limit if endless and terms.brief else None
        self._hooked = self._hooks is not None or mailbox.sheds
        self._plain = options is None and self._bare and not self._hooked
        self._key = None
        self._stray_limit = self._passes_context = False
        self._unbound = True
        if options is not None:
            self._unbound = options.context is None
            if options.pass_context:
                self._passes_context, self._brief = True, None
            if options.key is not None:
                self._key = core.keys.key(options.key if key is None else key)
            elif options.key_limit is not None:
                self._stray_limit = True
        self._offer = way_in(mailbox, terms)

    @property
    def size(self) -> int:
        """The number of workers that there are to be."""
        return self._mailbox.size

    @property
    def clock(self) -> Clock:
        """The clock that the pool goes by."""
        return self._clock

    # -- making a task ---------------------------------------------------------------------

    def _new_task(
        self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> TaskFuture[Any]:
        # This runs for every task, so it spells out what a constructor would do.
        if not HOOKS_RAN[0]:
            run_hooks()
        if not callable(fn):
            raise not_callable(fn)
        task: TaskFuture[Any] = _new(TaskFuture)
        task._lock = _allocate_lock()
        task.mailbox = self._mailbox
        task.fn = fn
        task.args = args
        task.kwargs = kwargs or None
        task.variables = _copy_context()
        if "decimal" in _modules:
            own_values(task.variables)
        # These have their defaults in the class, too, where every later look would take longer.
        task._state = PENDING
        task.own_context = task.key = None
        task.special = False
        task._built_condition = task._built_waiters = task._built_callbacks = None
        if not self._plain or _current() is not None or of_thread.task_context is not None:
            self._specialise(task)
        return task

    def _specialise(self, task: TaskFuture[Any]) -> None:
        """What differs from a plain task: hooks, and a submitter's context or options."""
        if self._hooked:
            task.special = True
            task.accepted_at = self._clock.monotonic()
        if self._options is not None:
            if self._stray_limit:
                raise ValueError(f"key_limit={self._terms.key_limit} limits nothing without a key")
            task.terms = self._terms
            if self._key is not None:
                task.key = self._key
        alone = self._unbound and _current() is None and of_thread.task_context is None
        if not (alone and self._bare):
            task.special = True
            self._place(task, alone=alone)

    def _place(self, task: TaskFuture[Any], *, alone: bool) -> None:
        """Give it its limits and, if need be, a context of its own, below those that end it.

        Args:
            task: which one.
            alone: no context but the pool's ends it.
        """
        if not (alone and self._endless):
            context: Context = _new(Context)
            context._clock = self._clock
            context._inherit(self._parents if alone else self._parents_here(), None)
            task.variables.run(_set_current, context)
            task.own_context = context
            if alone and self._brief is not None:
                context._deadline = self._clock.monotonic() + self._brief  # the same, in less time
                return
        if self._terms.limited:
            task.begin_limits(self._clock.monotonic)
        if self._terms.again:
            task.spare_variables()
        if self._passes_context:
            if task.given_name is None:
                task.terms = replace(task.terms, name=describe(task.fn))
            task.fn = functools.partial(call_with_context, task.fn)

    def _parents_here(self) -> tuple[Context, ...]:
        """What ends a task of its submitter here."""
        parent = self._parent()
        parent.check()
        # Of what never ends, it is the pool's end that counts, and nothing else.
        return self._parents if parent._endless else (self._pool_context, parent)

    def _parent(self) -> Context:
        explicit = self._options.context if self._options is not None else None
        return current_context() if explicit is None else explicit

    # -- no room -----------------------------------------------------------------------------

    def _drop_one(self, task: TaskFuture[Any]) -> bool:
        if not drop_one(self._mailbox, self._overflow, task):
            return False
        if task.special:
            self._accepted(task)
        return True

    # -- what a special task needs once it is accepted --------------------------------------

    def _accepted(self, task: TaskFuture[Any]) -> None:
        if self._hooks is not None:
            self._hooks.submitted(self._mailbox.backlog)
        if task.due is not None:
            self._mailbox.keep_time()
        context = task.own_context
        alone = context is None or context._parents == self._parents  # it ends with the pool
        if task.expires_at is not None or (alone and self._terms.limit is not None):
            moment = task.next_limit()
            if moment is not None:
                self._mailbox.deadlines.add(task, moment)
        if not alone and context is not None:
            task.keep_registration(context.add_callback(functools.partial(on_context_end, task)))

    def options(  # noqa: D417 - unknown is for none
        self,
        *,
        context: Context | None = None,
        timeout: float | None = None,
        name: str | None = None,
        pass_context: bool = False,
        ttl: float | None = None,
        priority: int | None = None,
        key: Hashable | None = None,
        key_limit: int | None = None,
        retry_on_worker_death: int | None = None,
        retry: Retry | None = None,
        delay: float | None = None,
        **unknown: Never,
    ) -> Submitter:
        """The same verbs, for tasks with these properties. What is not given stays as it is.

        Args:
            context: the tasks also end with this context; by default with the current one.
            timeout: seconds from when a task is accepted until it must have ended. If it has not,
                its future raises ``DeadlineExceeded`` at once and its context ends; if it goes on
                nevertheless, its worker stays taken until it really ends.
            name: what to call the tasks in errors, logs and reports; by default their function's.
            pass_context: call the function with its context as the first argument.
            ttl: seconds that a task may wait in the queue. If it has not begun by then, it is
                dropped, and its future raises ``TaskExpired``.
            priority: the greater, the sooner; by default 0. Equals keep their order. A level of
                priority puts a task ahead of at most ``queue_size`` others that were accepted
                before it, so nobody waits for ever.
            key: anything hashable. Tasks of the same key run one at a time, in the order in which
                they were accepted, whatever their priority; those of other keys, and those without
                one, pass by. Keys take turns, however many tasks each of them has. Its ``__hash__``
                and ``__eq__`` run here, and may raise.
            key_limit: how many tasks of the key may run while such a task does, itself included;
                by default 1. If tasks of a key have different limits, the smallest of those that
                run counts, and that of the next. It needs a key when a task is submitted.
            retry_on_worker_death: how often a task that took its worker down (it *panicked*) is
                tried again, next after what runs now; by default 0. For tasks that may be run more
                than once. After that many retries its future raises ``TaskQuarantined``. The time
                limit counts on.
            retry: how a task that fails is tried again; by default it is not. Until its next try it
                waits in the mailbox and takes no worker. It keeps its key and its time limits, and
                when its time comes it goes before tasks that have not begun.
            delay: seconds from when a task is accepted until it may begin. Its time limits count
                from then, and so does its place in the order. It counts as queued.

        Raises:
            TypeError, ValueError: an argument makes no sense; a delay makes none in a pool with
                ``queue_size=0``.
        """
        if unknown:
            raise unexpected_keyword("options", unknown, Submitter.options)
        objects = context is not None or retry is not None
        if self._options is None and not objects and key_limit is None:
            given = timeout, name, ttl, priority, retry_on_worker_death, delay
            if pass_context is False and _SIMPLE.issuperset(map(type, given)):
                if key is not None:
                    check_key(key)
                options, terms = simple_options(*given, key is not None)
                return Submitter(self._core, options, self, terms, key)
        said = (
            context, timeout, name, ttl, priority, key, key_limit, retry_on_worker_death, retry,
            delay,
        )  # fmt: skip
        if self._options is None:
            new = TaskOptions(*said, pass_context=pass_context)
        else:
            new = self._whole_options().overridden_by(said, pass_context=pass_context)
        return Submitter(self._core, new, self)

    def _whole_options(self) -> TaskOptions:
        """Its options, with the key that it was given: they may be shared by other submitters."""
        options = NO_OPTIONS if self._options is None else self._options
        return options if self._key is None else replace(options, key=self._key.value)

    # -- one task --------------------------------------------------------------------------

    @overload
    def submit(
        self, fn: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Future[T]: ...
    @overload
    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]: ...

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Have a worker call ``fn(*args, **kwargs)``; wait for room while the mailbox is full.

        A coroutine function is run to its end on the worker's event loop. Those who wait are served
        first come first served.

        Returns:
            The future of the result.

        Raises:
            TypeError: ``fn`` cannot be called.
            PoolClosed, BrokenPool: the pool accepts nothing (any more).
            Cancelled, DeadlineExceeded: the current context, or the one given by
                :meth:`options`, has ended.
        """
        task = self._new_task(fn, args, kwargs)
        if not self._offer(task):
            if self._drop_one(task) or run_in_this_thread(self._core, task, self._accepted):
                try:
                    return task
                finally:
                    del task  # its error holds the frames below it, too
            wait_for_room(self._mailbox, task, self._parent(), self._clock)
        if task.special:
            self._accepted(task)
        return task

    @overload
    def submit_at(
        self,
        when: datetime | float,
        fn: Callable[P, Coroutine[Any, Any, T]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Future[T]: ...
    @overload
    def submit_at(
        self, when: datetime | float, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Future[T]: ...

    def submit_at(
        self, when: datetime | float, fn: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Future[Any]:
        """:meth:`submit` a task that may not begin before a moment: see ``options(delay=...)``.

        Args:
            when: a moment of the pool's clock (by default ``time.monotonic()``), or a
                ``datetime`` with a time zone. The latter is turned into the former now: a wall
                clock that is set later changes nothing. What has passed means now.
            fn: what to call.
            args: its arguments.
            kwargs: its keyword arguments.

        Raises:
            TypeError, ValueError: ``when`` makes no sense; also those of :meth:`submit`.
        """
        options = replace(self._whole_options(), delay=None, at=moment_of(when, self._clock))
        return Submitter(self._core, options, self).submit(fn, *args, **kwargs)

    @overload
    def try_submit(
        self, fn: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Future[T]: ...
    @overload
    def try_submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]: ...

    def try_submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """:meth:`submit` that never waits.

        Raises:
            QueueFull: no worker is idle and the mailbox is full (also a ``queue.Full``).
        """
        task = self._new_task(fn, args, kwargs)
        if not self._offer(task):
            if self._drop_one(task):
                return task
            raise self._mailbox.full()
        if task.special:
            self._accepted(task)
        return task

    @overload
    async def asubmit(
        self, fn: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Future[T]: ...
    @overload
    async def asubmit(
        self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Future[T]: ...

    async def asubmit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """:meth:`submit` that waits for room without blocking the event loop.

        Returns:
            The future; ``await`` it again for the result.
        """
        task = self._new_task(fn, args, kwargs)
        if not self._offer(task):
            if (
                self._drop_one(task)
                or run_on_worker(task, self._accepted)
                or (
                    self._mailbox.helper is not None
                    and await run_on_loop(self._mailbox, task, self._accepted)
                )
            ):
                try:
                    return task
                finally:
                    del task  # its error holds the frames below it, too
            await await_turn(self._mailbox, task, Terms(self._parent(), self._clock))
        if task.special:
            self._accepted(task)
        return task

    def line_up(self, wake: Callable[[], object], fn: Callable[..., Any], /, *args: Any) -> Place:
        """:meth:`submit` that never blocks: without room, the task waits in line on its own.

        That is so with any overflow policy: for submitters that bound themselves.

        Args:
            wake: called by any thread when that wait is over. It must be short.
            fn: what to call.
            args: its arguments.

        Returns:
            The task's place. If it has to wait, its ``enter`` is to be called after ``wake`` was.

        Raises:
            TypeError, PoolClosed, BrokenPool, Cancelled, DeadlineExceeded: see :meth:`submit`.
        """
        task = self._new_task(fn, args, {})
        turn: Turn[TaskFuture[Any]] | None = None
        try:
            if not self._offer(task):
                if run_on_worker(task, self._accepted):
                    return Place(self._mailbox, task, None, self._accepted)
                turn = Turn(task, wake)
                if self._mailbox.join(turn):
                    turn = None
            if turn is None and task.special:
                self._accepted(task)
            return Place(self._mailbox, task, turn, self._accepted)
        finally:
            del task, turn  # its error holds the frames below it, too

    @overload
    def stream(
        self, fn: Callable[..., Iterator[T]], /, *args: Any, buffersize: int = 16, **kwargs: Any
    ) -> Stream[T]: ...
    @overload
    def stream(
        self,
        fn: Callable[..., AsyncIterator[T]],
        /,
        *args: Any,
        buffersize: int = 16,
        **kwargs: Any,
    ) -> Stream[T]: ...
    @overload
    def stream(
        self, fn: Callable[..., Any], /, *args: Any, buffersize: int = 16, **kwargs: Any
    ) -> Stream[Any]: ...

    def stream(
        self, fn: Callable[..., Any], /, *args: Any, buffersize: int = 16, **kwargs: Any
    ) -> Stream[Any]:
        """Have a worker iterate the generator that ``fn(*args, **kwargs)`` returns.

        It begins at once, and takes its worker until it ends: to read several streams in turn, have
        as many workers. It is one task, to which all options apply; it is tried again (``retry=``)
        only as long as it has yielded nothing.

        Args:
            fn: returns a generator, an asynchronous one, or another iterator. In a pool with
                ``worker=``, it may be a method of that class: ``ImageWorker.frames``.
            args: its arguments.
            buffersize: how many items may be ahead of the reader, 1 or more. The generator is
                resumed only if there is room for what it yields.
            kwargs: its keyword arguments.

        Returns:
            The items, to be iterated by ``for`` or ``async for``.

        Raises:
            TypeError, ValueError: an argument makes no sense. If ``fn`` returns something else, the
                stream raises a TypeError instead of its first item.
            QueueFull, PoolClosed, BrokenPool, Cancelled, DeadlineExceeded: see :meth:`submit`.

        Without room in the mailbox, it waits as :meth:`submit` does; on an event loop, the first
        ``async for`` waits instead. With the policy "caller_runs" it waits, too: the caller is to
        read it.
        """
        conduit = Conduit(whole_number("buffersize", buffersize, minimum=1))
        if not callable(fn):
            raise not_callable(fn, "stream")
        task = self._new_task(StreamCall(self._own_method(fn), conduit), args, kwargs)
        task.stream = conduit
        task.add_done_callback(conduit.end)
        entrance: Entrance | None = None
        try:
            if self._offer(task):
                if task.special:
                    self._accepted(task)
            elif not self._drop_one(task):
                if running_loop() is None:
                    self._enter(task)
                else:
                    entrance = Entrance(
                        functools.partial(self._enter, task), functools.partial(self._aenter, task)
                    )
            return Stream(task, conduit, entrance)
        except BaseException:  # Ctrl-C, perhaps when it had begun: nobody is going to read it
            conduit.leave()
            raise
        finally:
            del task, entrance  # its error holds the frames below it, too

    def _enter(self, task: TaskFuture[Any]) -> None:
        """Wait for room, and accept the task."""
        wait_for_room(self._mailbox, task, self._parent(), self._clock)
        if task.special:
            self._accepted(task)

    async def _aenter(self, task: TaskFuture[Any]) -> None:
        await await_turn(self._mailbox, task, Terms(self._parent(), self._clock))
        if task.special:
            self._accepted(task)

    def _own_method(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        """A method of the worker class as a call in the worker that has it."""
        if self._core.spec.residence is None:
            return fn
        try:
            return self._method(fn)
        except TypeError:  # it is none
            return fn

    def report_skipped(
        self, fn: Callable[..., Any], args: tuple[Any, ...], error: BaseException
    ) -> None:
        """Tell the pool's dead letters of a call that failed, and that its caller goes without."""
        name = None if self._options is None else self._options.name
        self._mailbox.notices.report(name, (fn, args, None), DropReason.SKIPPED, error)

    # -- many tasks ------------------------------------------------------------------------

    @overload
    def map(
        self, fn: Callable[..., Coroutine[Any, Any, T]], *iterables: Iterable[Any],
        timeout: float | None = None, chunksize: int = 1, buffersize: int | None = None,
        progress: MapProgress = None,
    ) -> Iterator[T]: ...  # fmt: skip
    @overload
    def map(
        self, fn: Callable[..., T], *iterables: Iterable[Any],
        timeout: float | None = None, chunksize: int = 1, buffersize: int | None = None,
        progress: MapProgress = None,
    ) -> Iterator[T]: ...  # fmt: skip

    def map(
        self,
        fn: Callable[..., Any],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
        progress: MapProgress = None,
    ) -> Iterator[Any]:
        """``map(fn, *iterables)`` on the pool, in order.

        The input is pulled as the results are: at most ``buffersize`` tasks are under way, so it
        may be endless. When an item raises, or the iteration is left, the rest is cancelled.

        Args:
            fn: what to call, with one argument from each iterable.
            iterables: the arguments; the shortest one ends it.
            timeout: seconds of the pool's clock from this call until the last result must have
                come.
            chunksize: how many calls make one task.
            buffersize: how many tasks may be under way; by default 4 for each worker, at least 64.
            progress: shows how many calls have ended: True for a bar on the standard error (by
                tqdm, if that is installed), or text where there is no terminal; a function, which
                is called with the numbers ``done`` and ``total`` (None if the input has no
                length); a bar of tqdm; a ``Progress`` of rich, or a tuple of one and a task id.
                It is called in the thread that iterates. If it raises, that is logged, and the map
                goes on without it.

        Raises:
            TimeoutError: (from the iterator) the time was up.
            TypeError, ValueError: an argument makes no sense.
        """
        plan = self._plan(fn, iterables, timeout, chunksize, buffersize, progress)
        return parallel_map.in_order(self, plan)

    @overload
    def map_unordered(
        self, fn: Callable[..., Coroutine[Any, Any, T]], *iterables: Iterable[Any],
        timeout: float | None = None, chunksize: int = 1, buffersize: int | None = None,
        progress: MapProgress = None,
    ) -> Iterator[T]: ...  # fmt: skip
    @overload
    def map_unordered(
        self, fn: Callable[..., T], *iterables: Iterable[Any],
        timeout: float | None = None, chunksize: int = 1, buffersize: int | None = None,
        progress: MapProgress = None,
    ) -> Iterator[T]: ...  # fmt: skip

    def map_unordered(
        self,
        fn: Callable[..., Any],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
        progress: MapProgress = None,
    ) -> Iterator[Any]:
        """:meth:`map`, with the results as they come."""
        plan = self._plan(fn, iterables, timeout, chunksize, buffersize, progress)
        return parallel_map.as_they_come(self, plan)

    @overload
    def amap(
        self, fn: Callable[..., Coroutine[Any, Any, T]],
        *iterables: Iterable[Any] | AsyncIterable[Any],
        timeout: float | None = None, chunksize: int = 1, buffersize: int | None = None,
        progress: MapProgress = None,
    ) -> AsyncIterator[T]: ...  # fmt: skip
    @overload
    def amap(
        self, fn: Callable[..., T], *iterables: Iterable[Any] | AsyncIterable[Any],
        timeout: float | None = None, chunksize: int = 1, buffersize: int | None = None,
        progress: MapProgress = None,
    ) -> AsyncIterator[T]: ...  # fmt: skip

    def amap(
        self,
        fn: Callable[..., Any],
        *iterables: Iterable[Any] | AsyncIterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
        progress: MapProgress = None,
    ) -> AsyncIterator[Any]:
        """:meth:`map` for ``async for``; the iterables may be asynchronous, too."""
        plan = self._plan(fn, iterables, timeout, chunksize, buffersize, progress)
        return parallel_map.in_order_async(self, plan)

    @property
    def _most_workers(self) -> int:
        adaptive = self._core.spec.adaptive
        return max(self._mailbox.size, 1 if adaptive is None else adaptive.maximum)

    def _plan(
        self,
        fn: Callable[..., T],
        iterables: tuple[Iterable[Any] | AsyncIterable[Any], ...],
        timeout: float | None,
        chunksize: int,
        buffersize: int | None,
        progress: MapProgress,
    ) -> parallel_map.Plan[T]:
        name = None if self._options is None else self._options.name
        return parallel_map.Plan.checked(
            fn, iterables, timeout, chunksize, buffersize, self._most_workers, self._clock,
            progress, name, self._core.spec.dialect.refuses_generators,
        )  # fmt: skip

    # -- workers with state: all of these raise TypeError on a pool without ``worker=`` -------

    @overload
    def proxy(self) -> WorkerProxy: ...
    @overload
    def proxy(self, kind: type[A]) -> type[A]: ...
    @overload
    def proxy(self, kind: type[T]) -> T: ...

    def proxy(self, kind: type[Any] | None = None) -> Any:
        """The worker class as the callers of a pool see it: each method returns a future.

        A call goes to a worker that is idle, or waits for one as :meth:`submit` does.

        Args:
            kind: what type checkers take the proxy for. The worker class: calls of its methods that
                are decorated by :func:`worker_method` return futures. Any other class: its
                instances, see ``pykka.typing``.

        Raises:
            TypeError: the pool's workers are of another class.
        """
        return WorkerProxy.checked(self.submit, self._residence().actor_class, kind)

    @overload
    def method(self, method: UnboundMethod[P, T, Any], /) -> Callable[P, T]: ...
    @overload
    def method(self, method: Callable[Concatenate[Any, P], T], /) -> Callable[P, T]: ...

    def method(self, method: Callable[..., Any], /) -> Callable[..., Any]:
        """A method of the worker class as a function to submit, for instance to :meth:`map`.

        Args:
            method: as it is found in the class, for instance ``ImageWorker.resize``. In a pool of
                a subclass, it is the subclass's that is called.

        Raises:
            TypeError: it is none of that class.
        """
        return self._method(method)

    @overload
    def call(
        self, method: UnboundMethod[P, Any, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Future[T]: ...
    @overload
    def call(
        self,
        method: Callable[Concatenate[Any, P], Coroutine[Any, Any, T]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Future[T]: ...
    @overload
    def call(
        self, method: Callable[Concatenate[Any, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Future[T]: ...

    def call(self, method: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Have an idle worker call a method of its own: ``pool.call(ImageWorker.resize, image)``.

        The same as a call through :meth:`proxy`, and type checkers know its arguments and result.
        """
        return self.submit(self._method(method), *args, **kwargs)

    def ask(self, message: Any, /) -> Future[Any]:
        """Have the ``on_receive`` of an idle worker answer a message. Returns the future answer."""
        return self.submit(Receive(self._residence().name), message)

    def tell(self, message: Any, /) -> None:
        """:meth:`ask`, when nobody wants the answer. If it raises, the error is logged."""
        self.ask(message)

    def _method(self, function: object) -> Method:
        residence = self._residence()
        return Method(residence.name, residence.name_of(function))

    def _residence(self) -> Residence:
        residence = self._core.spec.residence
        if residence is None:
            raise no_worker_class(self._core.spec.name)
        return residence


def letters_of(core: PoolCore) -> DeadLetters:
    """The pool's dead letters, which can be put back into it."""
    clock = core.spec.context.clock
    return core.mailbox.letters(lambda: DeadLetters(core.spec.name, clock, Submitter(core)))
