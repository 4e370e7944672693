"""What somebody who looks at pools may do about them. Nothing here waits for a pool.

A pool is found by its name or its id; tasks and dead letters by the ids that a snapshot has. What
is not there any more is a ``LookupError`` with a text for people.
"""

from __future__ import annotations

from typing import Any

from ion_actors._arguments import seconds
from ion_actors.context import background
from ion_actors.dashboard.overview import living_pools
from ion_actors.futures import Future
from ion_actors.naming import printable
from ion_actors.workerpool.core import PoolCore
from ion_actors.workerpool.mailbox.task import TaskFuture
from ion_actors.workerpool.messages import Drain, Resize
from ion_actors.workerpool.snapshot import in_short, pool_id
from ion_actors.workerpool.submission.submitter import Submitter

__all__ = ["cancel", "drain", "find_pool", "pause", "replay", "resize", "resume"]


def find_pool(name: str) -> PoolCore:
    """The living pool of that id or name.

    Raises:
        LookupError: there is none, or several have that name.
    """
    pools = living_pools()
    if found := [core for core in pools if pool_id(core) == name]:
        return found[0]
    found = [core for core in pools if name in (core.spec.name, in_short(core.spec.name))]
    if not found:
        raise LookupError(f"there is no pool {printable(name)!r}")
    if len(found) > 1:
        ids = ", ".join(map(pool_id, found))
        raise LookupError(f"several pools have the name {printable(name)!r}: use an id ({ids})")
    return found[0]


def cancel(core: PoolCore, task_id: str) -> bool:
    """Cancel a task that waits or runs.

    Returns:
        True: it has not begun, and never will. False: it runs, and was asked to stop.

    Raises:
        LookupError: it has ended.
    """
    return _task(core, task_id).cancel()


def _task(core: PoolCore, task_id: str) -> TaskFuture[Any]:
    if task_id.isdecimal():
        number = int(task_id)
        running = [task for _, task, _ in core.at_work() if task.has_ticket(number)]
        queued = core.mailbox.map_queued(lambda one: one if one.has_ticket(number) else None)
        for task in (*running, *queued):
            if task is not None and not task.done():
                return task
    raise LookupError(f"task {printable(task_id)} has ended")


def replay(core: PoolCore, letter_id: str) -> Future[Any]:
    """Put a dead letter back into its pool, if there is room. Returns the new task.

    Raises:
        LookupError: it is not there, or was put back.
        QueueFull, PoolClosed, BrokenPool: it was not accepted, and stays.
    """
    if core.kept is None or not letter_id.isdecimal():
        raise LookupError(f"there is no dead letter {printable(letter_id)}")
    with background():
        return core.kept.replay(int(letter_id), Submitter(core))


def resize(core: PoolCore, size: int) -> Future[Any]:
    """Have so many workers: see :meth:`ion_actors.Pool.resize`. The future is done when it is.

    Raises:
        TypeError, ValueError: ``size`` is no whole number of at least 1.
        PoolClosed, BrokenPool: the pool is at its end.
    """
    if (refusal := core.mailbox.refusal()) is not None:
        raise refusal
    return core.ask(Resize(size))


def pause(core: PoolCore) -> None:
    """Let no queued task begin: see :meth:`ion_actors.Pool.pause`.

    Raises:
        PoolClosed, BrokenPool: the pool is at its end.
    """
    core.mailbox.pause()


def resume(core: PoolCore) -> None:
    """Let queued tasks begin again."""
    core.mailbox.resume()


def drain(core: PoolCore, timeout: float | None = None) -> Future[Any]:
    """Have the pool finish what it has, and end: see :meth:`ion_actors.Pool.drain`.

    Args:
        core: the pool.
        timeout: seconds it may take; by default the pool's ``drain_timeout``.

    Returns:
        A future, done when the pool has ended.

    Raises:
        TypeError, ValueError: the timeout makes no sense.
    """
    limit = core.spec.drain_timeout if timeout is None else seconds("timeout", timeout)
    return core.ask_for_end(Drain(limit))
