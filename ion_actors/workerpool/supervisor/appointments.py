"""Making workers: of the kind that the pool's backend asks for, whatever that is.

Those that are *appointed* by the supervisor have threads of their own, or share an event loop.
Submitters that run their tasks themselves are not.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard

from ion_actors.workerpool.core import PoolCore
from ion_actors.workerpool.mailbox.protocols import Performer
from ion_actors.workerpool.worker.inbox import SupervisorInbox
from ion_actors.workerpool.worker.worker import PoolWorker

if TYPE_CHECKING:
    from ion_actors.actors import Envelope
    from ion_actors.backends.stacks import Stack
    from ion_actors.workerpool.mailbox.task import TaskFuture
    from ion_actors.workerpool.worker.loop.team import LoopTeam

__all__ = ["Appointed", "Appointments", "is_appointed"]


class Letterbox(Protocol):
    """Takes letters for the actor that lives in a worker."""

    def put(self, envelope: Envelope[Any], /) -> Any:
        """Take one. Any thread may call this."""
        ...


class Appointed(Performer, Protocol):
    """A worker, as its supervisor sees it."""

    put_back: TaskFuture[Any] | None  # queued again, no longer this worker's
    interrupted_once: bool  # by something that was thrown in, or ended what it runs in
    begun: bool  # it was started, or needs no start
    left: bool  # it has stopped

    @property
    def inbox(self) -> Letterbox:
        """Takes letters."""
        ...

    @property
    def dormant(self) -> bool:
        """Whether it may just be let go: it has nothing to do and nothing to clean up."""
        ...

    @property
    def gone(self) -> bool:
        """Whether what it runs in has ended, or is about to."""
        ...

    def enlist(self) -> None:
        """Have the mailbox know it. May be done again."""
        ...

    def start_thread(self) -> None:
        """Begin.

        Raises:
            RuntimeError, MemoryError, OSError: there can be no more threads.
        """
        ...

    def retire(self) -> None:
        """Stop as soon as the current task is over."""
        ...

    def abandon(self, where: Stack, /) -> None:
        """The pool's time is up: nobody may wait for it any longer."""
        ...

    def kill(self) -> bool:
        """End what it runs, if that can be done. Returns whether it can."""
        ...

    def unsettled(self) -> list[TaskFuture[Any]]:
        """What it has left unsettled, if it has ended from outside."""
        ...

    def write_off(self, task: TaskFuture[Any], error: BaseException, /) -> None:
        """Settle such a task and nothing more."""
        ...

    def clean_up(self) -> None:
        """Do what may block, once it has ended from outside."""
        ...

    def fate(self) -> str:
        """How it ended, if it did not end by itself."""
        ...


def is_appointed(worker: Performer) -> TypeGuard[Appointed]:
    """Whether the supervisor has appointed it."""
    return worker.appointed


class Appointments:
    """Makes the workers of one pool.

    Args:
        core: the pool.
        inbox: the supervisor's, to which the workers report.
    """

    def __init__(self, core: PoolCore, inbox: SupervisorInbox) -> None:
        self._core = core
        self._inbox = inbox
        self._team: LoopTeam | None = None
        if core.site is not None:
            self._share_a_loop()

    def make(self, index: int) -> Appointed:
        """A new worker for that seat."""
        if self._team is None:
            return PoolWorker(self._core.spec, self._core.mailbox, self._inbox, index)
        from ion_actors.workerpool.worker.loop.worker import LoopWorker  # noqa: PLC0415

        return LoopWorker(self._team, index)

    # -- on an event loop: what follows is imported only by those who have one ------------------

    def _share_a_loop(self) -> None:
        from ion_actors.workerpool.worker.loop.helper import LoopHelper  # noqa: PLC0415
        from ion_actors.workerpool.worker.loop.team import LoopTeam  # noqa: PLC0415

        core = self._core
        assert core.site is not None
        self._team = LoopTeam(core.spec, core.mailbox, self._inbox, core.site)
        if core.site.own and core.site.thread is not None:
            core.threads.append(core.site.thread)  # whoever waits for the end waits for it, too
        core.mailbox.loop = core.site.loop
        core.mailbox.helper = LoopHelper(core.mailbox, core.spec.helping, self._stand_in)
        post = functools.partial(core.site.post, self._cancel_all)
        core.spec.context.add_callback(post)

    def _stand_in(self) -> Appointed:
        """A worker without a seat, for one task."""
        worker = self.make(-1)
        self._core.workers.append(worker)
        worker.enlist()
        return worker

    def _cancel_all(self) -> None:
        """On the loop: the pool's context has ended, and with it all tasks."""
        from ion_actors.workerpool.worker.loop.worker import LoopWorker  # noqa: PLC0415

        for worker in list(self._core.workers):
            if isinstance(worker, LoopWorker):
                worker.cancel()
