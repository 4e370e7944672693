"""The state that a ``Supervisor``, its actor and the exit hooks share.

Nothing here refers to the ``Supervisor``, so that one that is forgotten can be garbage collected,
and its actor can be stopped.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from ion_actors.actors import ActorStop, Envelope, Inbox, Request, refuse
from ion_actors.errors import Cancelled, SupervisorForked
from ion_actors.forking import check
from ion_actors.futures import Future
from ion_actors.logs import flush
from ion_actors.observe import Bus
from ion_actors.supervision.events import LifecycleEvent
from ion_actors.supervision.report import ChildInfo, StopReport
from ion_actors.supervision.spec import WORKER_SHUTDOWN, ChildSpec, TreeSpec
from ion_actors.supervision.states import SupervisorState
from ion_actors.workerpool.core import until_over
from ion_actors.workerpool.messages import Close, Drain

if TYPE_CHECKING:
    from ion_actors.supervision.protocol import LiveChild

__all__ = ["EXIT_PATIENCE", "TreeCore", "TreeInbox", "core_of", "time_to_stop"]

# Seconds to wait for a thread that is exiting.
_JOIN_PATIENCE = 1.0

#: Seconds that an actor has to stop at the interpreter's exit if it may otherwise take any time: as
#: many as a pool has by default.
EXIT_PATIENCE = 30.0

_MARGIN = 1.0  # for a child that does not stop by its own deadline

_ENDINGS = (Drain, Close, ActorStop)


class TreeInbox(Inbox):
    """The inbox of a supervisor's actor: it never blocks, and loses no message."""

    may_block = True  # in the __repr__ of a message that it refuses

    def __init__(self) -> None:
        super().__init__()
        self.understood: frozenset[type] = frozenset()
        self.ended = False  # the supervisor has ended: pass on pykka's stop

    @override
    def put(self, envelope: Envelope[Any]) -> bool:
        kind = type(envelope.message)
        if kind in _ENDINGS and not (kind is ActorStop and self.ended):
            # These are answered when the end is over, not when the message is received.
            envelope = Envelope(Request(envelope.message, envelope.reply_to))
        elif kind is not ActorStop and kind not in self.understood:
            # Refused here: after tell(), an error in the handler would end the actor.
            refuse(envelope, TypeError(f"a supervisor does not understand {envelope.message!r}"))
            return False
        return super().put(envelope)


@dataclass(slots=True, eq=False, weakref_slot=True)
class TreeCore:
    """The parts and the state of one supervisor. Its actor writes the state."""

    spec: TreeSpec
    bus: Bus[LifecycleEvent]
    start: Callable[[TreeCore], None]  # starts its actor, and does not wait
    inbox: TreeInbox | None = None  # until it is started
    has_thread: Callable[[], bool] = lambda: False  # whether the actor of that inbox has got one
    state: SupervisorState = SupervisorState.NEW
    infos: tuple[ChildInfo, ...] = ()
    live: Mapping[str, LiveChild] = field(default_factory=dict)  # by the ids of the children
    exiting: bool = False  # the interpreter exits: every child has a deadline
    failure: BaseException | None = None
    threads: list[threading.Thread] = field(default_factory=list)  # to be joined at the end
    nested: bool = False  # a parent supervisor stops it
    forked: bool = False  # this process is a fork, and the threads are in the parent
    begun: Future[bool] = field(default_factory=Future)  # all have started, or (False) never will
    ended: Future[StopReport] = field(default_factory=Future)
    launch: threading.Lock = field(default_factory=threading.Lock)  # guards leaving NEW

    def tell(self, message: object) -> bool:
        """Send its actor a message. Never blocks. Returns whether it will be handled."""
        check()
        if self.inbox is None:
            return False
        return self.inbox.put(Envelope(message))

    def check_fork(self) -> None:
        """Return if the supervisor lives in this process.

        Raises:
            SupervisorForked: it does not.
        """
        check()
        if self.forked:
            raise SupervisorForked(
                f"supervisor {self.spec.name!r} belongs to the parent of this process: its "
                "threads were not forked; make a new one in the child",
                supervisor=self.spec.name,
            )

    def owns_thread(self) -> bool:
        """Whether the calling thread belongs to it, and so must not wait for its end."""
        if threading.current_thread() in self.threads[:1]:
            return True
        return any(one.is_own_thread() for one in self.live.values())

    def patience(self) -> float | None:
        """Seconds that it may take to stop at the interpreter's exit; None for any time.

        Its children stop one after the other.
        """
        total = 0.0
        for spec in self.spec.children:
            limit = time_to_stop(spec, self.live.get(spec.id), exiting=True)
            if limit is None:
                return None
            total += limit + _MARGIN
        return total

    def join(self) -> None:
        """Wait for the threads that are about to end, so that none is left for the caller."""
        self.bus.join(_JOIN_PATIENCE)
        for thread in list(self.threads):
            if thread is not threading.current_thread():
                thread.join(_JOIN_PATIENCE)
        flush()  # what they have logged

    async def ajoin(self) -> None:
        """:meth:`join` for coroutines."""
        self.bus.tell()
        telling = self.bus.thread
        await until_over([*([] if telling is None else [telling]), *self.threads], _JOIN_PATIENCE)

    def call_off(self) -> None:
        """Its start was interrupted, or there was no thread for it: end it."""
        if self.has_thread():
            self.tell(Close(None))
            return
        self.state = SupervisorState.STOPPED
        if self.inbox is not None:
            self.inbox.empty()
        if not self.begun.done():
            self.begun.set(False)
        if not self.ended.done():
            self.ended.set(StopReport((), self.failure, 0.0))

    def check_start(self) -> None:
        """Now that ``begun`` is done: raise what the start failed with, if it did."""
        if self.begun.result():
            return
        self.join()
        if self.failure is not None:
            raise self.failure
        raise Cancelled(f"supervisor {self.spec.name!r} was stopped before it had started")

    def never_begun(self) -> bool:
        """Make sure that it is never started. Returns False if it was."""
        with self.launch:
            if self.state is not SupervisorState.NEW:
                return self.inbox is None
            self.state = SupervisorState.STOPPED
        self.begun.set(False)
        self.ended.set(StopReport((), None, 0.0))
        return True


def time_to_stop(spec: ChildSpec, live: LiveChild | None, *, exiting: bool) -> float | None:
    """Seconds that a child has to stop; None for any number."""
    limit = spec.shutdown
    if limit == "default":
        limit = WORKER_SHUTDOWN if live is None else live.shutdown
    if limit is None and exiting:
        limit = EXIT_PATIENCE if live is None else live.exit_patience()
    return limit


def core_of(supervisor: object) -> TreeCore | None:
    """The core of a ``Supervisor``; None of anything else."""
    found = inspect.getattr_static(supervisor, "_core", None)
    return found if type(found) is TreeCore else None
