"""What becomes of a task that finds no room: it is dropped, run at once, or waits in line.

All of it is in the thread of its submitter, in this order. ``accepted`` is to be called with a
special task once it is in the mailbox, or begins.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, assert_never

from ion_actors.awaitables import running_loop
from ion_actors.clock import Clock
from ion_actors.context import Context, Terms, helper_here, of_thread, wait_turn
from ion_actors.errors import DeadlockError
from ion_actors.workerpool.core import PoolCore
from ion_actors.workerpool.mailbox.mailbox import Mailbox
from ion_actors.workerpool.mailbox.task import TaskFuture
from ion_actors.workerpool.model.overflow import CoDel, Overflow
from ion_actors.workerpool.submission.caller_runs import Caller
from ion_actors.workerpool.task_options import TaskTerms
from ion_actors.workerpool.worker.nested_waits import WorkersHelp

__all__ = [
    "drop_one",
    "run_in_this_thread",
    "run_on_loop",
    "run_on_worker",
    "wait_for_room",
    "way_in",
]

Accepted = Callable[[TaskFuture[Any]], object]


def way_in(mailbox: Mailbox, terms: TaskTerms) -> Callable[[TaskFuture[Any]], bool]:
    """How tasks on these terms are offered to the mailbox.

    Raises:
        ValueError: they would have to wait in a pool where nothing can.
    """
    if not (terms.timed or terms.ranked):
        return mailbox.offer
    if not mailbox.limit and (terms.delay or terms.at is not None):
        raise ValueError(
            f"pool {mailbox.name!r} has queue_size=0: a delayed task has no place to wait"
        )
    return mailbox.offer_timed if terms.timed else mailbox.offer_ranked


def drop_one(mailbox: Mailbox, policy: Overflow | CoDel, task: TaskFuture[Any]) -> bool:
    """Drop this task or another, if that is the policy. Returns whether it is.

    Raises:
        QueueFull: the policy is to refuse the task.
    """
    if policy is Overflow.BLOCK or policy is Overflow.CALLER_RUNS:
        return False
    if policy is Overflow.DROP_NEWEST:
        mailbox.drop_newest(task)
    elif policy is Overflow.DROP_OLDEST:
        mailbox.drop_oldest(task)
    elif policy is Overflow.REJECT or isinstance(policy, CoDel):
        raise mailbox.full()
    else:
        assert_never(policy)
    return True


def run_in_this_thread(core: PoolCore, task: TaskFuture[Any], accepted: Accepted) -> bool:
    """Run the task in this thread, if that is the policy, or to wait would be a deadlock."""
    try:
        if task.due is not None:
            return False  # its time has not come
        if run_on_worker(task, accepted):
            return True
        helper = of_thread.helper
        if core.spec.overflow is not Overflow.CALLER_RUNS or (
            isinstance(helper, WorkersHelp) and helper.serves(core.mailbox)
        ):
            return False
        return Caller(core).run(task, accepted)
    finally:
        del task  # its error holds this frame


def run_on_worker(task: TaskFuture[Any], accepted: Accepted) -> bool:
    """There is no room. If that would make a worker wait for itself, run the task instead."""
    helper = of_thread.helper
    try:
        if task.due is not None or not isinstance(helper, WorkersHelp):
            return False
        return helper.run_new(task, accepted)
    finally:
        del task


async def run_on_loop(mailbox: Mailbox, task: TaskFuture[Any], accepted: Accepted) -> bool:
    """:func:`run_on_worker`, if the workers share this event loop; waits for its end."""
    helper = mailbox.helper
    here: object = helper_here()
    try:
        if helper is None or here is not helper:
            return False
        return await helper.run_new(task, accepted)
    finally:
        del task


def wait_for_room(mailbox: Mailbox, task: TaskFuture[Any], parent: Context, clock: Clock) -> None:
    """Wait in line until the task is in the mailbox.

    Raises:
        DeadlockError: this thread runs the event loop that all the workers share.
        PoolClosed, BrokenPool, Cancelled, DeadlineExceeded: the pool ended meanwhile, or the
            context ``parent``.
    """
    if mailbox.loop is not None and running_loop() is mailbox.loop:
        raise DeadlockError(
            f"pool {mailbox.name!r} has no room for task {task.task_name()!r}, and to "
            "wait for it here would block the event loop that has to make room: write "
            "`await pool.asubmit(...)`, or use try_submit()",
            tasks=(task.task_name(),),
        )
    helper = of_thread.helper
    if isinstance(helper, WorkersHelp):
        with helper.waiting_for_room(task, parent):
            wait_turn(mailbox, task, Terms(parent, clock))
    else:
        wait_turn(mailbox, task, Terms(parent, clock))
