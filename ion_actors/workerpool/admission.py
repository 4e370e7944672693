"""From a call to a task in the mailbox: how it is made, and what happens when there is no room.

The verbs that use this, in the submitter's thread: :mod:`ion_actors.workerpool.submitter`.
"""

from __future__ import annotations

import contextvars
import functools
import sys
from _thread import RLock
from collections.abc import Callable
from concurrent.futures._base import PENDING
from typing import Any

from ion_actors._arguments import seconds
from ion_actors.context import (
    CURRENT,
    Context,
    await_turn,
    current_context,
    make_current,
    of_thread,
    wait_turn,
)
from ion_actors.forking import HOOKS_RAN, run_hooks
from ion_actors.own_variables import own_values
from ion_actors.workerpool.caller import Caller
from ion_actors.workerpool.core import Core
from ion_actors.workerpool.helping import WorkersHelp
from ion_actors.workerpool.options import TaskOptions, call_with_context, on_context_end
from ion_actors.workerpool.overflow import Overflow
from ion_actors.workerpool.report import describe
from ion_actors.workerpool.task import TaskFuture

__all__ = ["Admission"]

_DEFAULTS = TaskOptions()
_new = object.__new__
_allocate_lock = RLock  # see Future.__init__
_copy_context = contextvars.copy_context
_modules = sys.modules
_current = CURRENT.get


class Admission:
    """Makes tasks with certain options, and finds room for them. A part of ``Submitter``."""

    def __init__(
        self, core: Core, options: TaskOptions | None = None, origin: Admission | None = None
    ) -> None:
        self._core = core
        self._origin = origin  # a pool is not forgotten as long as there are submitters to it
        self._options = options
        self._mailbox = core.mailbox
        self._pool_context = core.spec.context
        self._parents = (core.spec.context,)
        self._clock = core.spec.context.clock
        self._hooks = core.spec.hooks
        # Whether a task may need more than the bare minimum: decided once, not per task.
        self._bare = options is None and self._pool_context.deadline is None
        self._plain = self._bare and self._hooks is None and not core.mailbox.sheds
        key = None if options is None else options.key
        self._key = None if key is None else core.keys.key(key)
        ranked = options is not None and options.ranked
        self._offer = core.mailbox.offer_ranked if ranked else core.mailbox.offer
        self._overflow = core.spec.overflow

    # -- making a task ---------------------------------------------------------------------

    def _new_task(
        self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> TaskFuture[Any]:
        # This runs for every task, so it spells out what a constructor would do.
        if not HOOKS_RAN[0]:
            run_hooks()
        if not callable(fn):
            raise TypeError(f"a task must be callable, not {fn!r}")
        task: TaskFuture[Any] = _new(TaskFuture)
        task._lock = _allocate_lock()
        task._mailbox = self._mailbox
        task._fn = fn
        task._args = args
        task._kwargs = kwargs or None
        task._vars = _copy_context()
        if "decimal" in _modules:
            own_values(task._vars)
        # These have their defaults in the class, too, where every later look would take longer.
        task._state = PENDING
        task._context = task._key = None
        task._special = False
        task._built_condition = task._built_waiters = task._built_callbacks = None
        if not self._plain or _current() is not None or of_thread.task_context is not None:
            self._specialise(task)
        return task

    def _specialise(self, task: TaskFuture[Any]) -> None:
        """What differs from a plain task: hooks, and a submitter's context or options."""
        task._special = True
        if self._hooks is not None or self._mailbox.sheds:
            task._accepted_at = self._clock.monotonic()
        if not self._bare or CURRENT.get() is not None or of_thread.task_context is not None:
            self._place(task)

    def _place(self, task: TaskFuture[Any]) -> None:
        """Give it a context of its own, below the pool's and the submitter's."""
        options = self._options or _DEFAULTS
        parent = self._parent()
        parent.check()
        context: Context = _new(Context)
        context._clock = self._clock
        endless = parent._endless  # then it is the pool's end that counts, and nothing else
        context._inherit(self._parents if endless else (self._pool_context, parent), None)
        task._vars.run(make_current, context)
        task._context = context
        task._name = options.name
        task._limit = seconds("timeout", options.timeout)
        task._ttl = seconds("ttl", options.ttl)
        task._begin_limit()
        if options.ranked:
            task._ranked = True
            task._priority = options.priority or 0
            task._key = self._key
        if options.retry_on_worker_death:
            task._retries = options.retry_on_worker_death
            task._spare = own_values(task._vars.copy())
        if options.pass_context:
            task._name = options.name or describe(task._fn)
            task._fn = functools.partial(call_with_context, task._fn)

    def _parent(self) -> Context:
        explicit = self._options.context if self._options is not None else None
        return current_context() if explicit is None else explicit

    # -- no room -----------------------------------------------------------------------------

    def _drop_one(self, task: TaskFuture[Any]) -> bool:
        """Drop this task or another, if that is the policy. Returns whether it is.

        Raises:
            QueueFull: the policy is to refuse the task.
        """
        policy = self._overflow
        if policy is Overflow.BLOCK or policy is Overflow.CALLER_RUNS:
            return False
        if policy is Overflow.DROP_NEWEST:
            self._mailbox.drop_newest(task)
        elif policy is Overflow.DROP_OLDEST:
            self._mailbox.drop_oldest(task)
        else:
            raise self._mailbox.full()
        if task._special:
            self._accepted(task)
        return True

    def _run_here(self, task: TaskFuture[Any]) -> bool:
        """Run the task in this thread, if that is the policy, or to wait would be a deadlock."""
        try:
            if self._run_on_worker(task):
                return True
            helper = of_thread.helper
            if self._overflow is not Overflow.CALLER_RUNS or (
                isinstance(helper, WorkersHelp) and helper.serves(self._mailbox)
            ):
                return False
            return Caller(self._core).run(task, self._accepted)
        finally:
            del task  # its error holds this frame

    def _run_on_worker(self, task: TaskFuture[Any]) -> bool:
        """There is no room. If that would make a worker wait for itself, run the task instead."""
        helper = of_thread.helper
        try:
            return isinstance(helper, WorkersHelp) and helper.run_new(task, self._accepted)
        finally:
            del task

    def _wait_for_room(self, task: TaskFuture[Any]) -> None:
        helper = of_thread.helper
        if isinstance(helper, WorkersHelp):
            with helper.waiting_for_room(task, self._parent()):
                wait_turn(self._mailbox, task, self._parent(), clock=self._clock)
        else:
            wait_turn(self._mailbox, task, self._parent(), clock=self._clock)

    async def _await_room(self, task: TaskFuture[Any]) -> None:
        await await_turn(self._mailbox, task, self._parent(), clock=self._clock)

    # -- what a special task needs once it is accepted --------------------------------------

    def _accepted(self, task: TaskFuture[Any]) -> None:
        if self._hooks is not None:
            self._hooks.submitted(self._mailbox.backlog)
        context = task._context
        if context is None:
            return
        task._plan_expiry(self._clock)
        if task._limit is None and context._parents == self._parents:
            return  # it ends with the pool, which sees to that
        task._keep(context.add_callback(functools.partial(on_context_end, task)))
