"""The supervisor: the actor that owns a pool's mailbox and its workers.

Everything about life and death is a message to it; it keeps no lock and never blocks. The
decisions are pure (:mod:`~ion_actors.workerpool.model.lifecycle` and
:mod:`~ion_actors.workerpool.model.recovery`); here they are carried out::

    Panicked ─▶ RestartWindow ─▶ replace the worker │ break the pool
    StartFailed ─▶ Backoff ─▶ try again later │ break the pool
    Stopped ─▶ was it to stop? no: replace it; the last one at the end: finish
    Drain, Close, pykka's stop, the pool's context ─▶ Life ─▶ STOP_ACCEPTING, CANCEL_ALL, …

The supervisor has six collaborators, which it alone calls, on its thread. Its
:mod:`~ion_actors.workerpool.supervisor.roster` does the first three of these, its
:mod:`~ion_actors.workerpool.supervisor.watchdog` looks for tasks that are stuck, its
:mod:`~ion_actors.workerpool.supervisor.sizer` has the pool's size follow its work, its
:mod:`~ion_actors.workerpool.supervisor.locator` asks where those are that will be abandoned, its
:mod:`~ion_actors.workerpool.supervisor.loop_watch` looks after the event loop, if the tasks run on
one, and its :mod:`~ion_actors.workerpool.supervisor.resilience` has it survive its own faults. The
pool's life and end are here.

Users' code is never run on this thread: done-callbacks of what is dropped run on a thread of their
own, panic handlers on the thread of the worker that goes.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any, cast

from typing_extensions import override

from ion_actors.actors import ActorStop, IsolatedActor, Request
from ion_actors.clock import Timer
from ion_actors.delivery import CALLBACK_THREADS, keep_free, release_references
from ion_actors.errors import BrokenPool, ContextEnded, DrainTimeout, IonError, TaskAbandoned
from ion_actors.futures import Future
from ion_actors.naming import Lines
from ion_actors.raised import is_a
from ion_actors.standby import STANDBY
from ion_actors.workerpool.core import PoolCore, closed
from ion_actors.workerpool.mailbox.task import TaskFuture, run_callbacks_in_thread
from ion_actors.workerpool.messages import (
    Broadcast,
    Close,
    Drain,
    Forgotten,
    GetMetrics,
    GetState,
    Locate,
    Look,
    LookAtLoop,
    LoopEnded,
    Measure,
    Needed,
    Panicked,
    Ready,
    Resize,
    RetrySeat,
    StartFailed,
    Stopped,
    Tick,
)
from ion_actors.workerpool.model.lifecycle import Action, Life, Phase
from ion_actors.workerpool.model.metrics import PoolState
from ion_actors.workerpool.model.reports import DrainReport, TaskState, UnfinishedTask
from ion_actors.workerpool.proxy import no_worker_class
from ion_actors.workerpool.spec import PoolSpec
from ion_actors.workerpool.supervisor.appointments import is_appointed
from ion_actors.workerpool.supervisor.locator import Locator
from ion_actors.workerpool.supervisor.loop_watch import LoopWatch
from ion_actors.workerpool.supervisor.resilience import (
    Resilience,
    fail_what_is_done_once,
    insist,
)
from ion_actors.workerpool.supervisor.roster import Roster
from ion_actors.workerpool.supervisor.sizer import Sizer
from ion_actors.workerpool.supervisor.watchdog import Watchdog
from ion_actors.workerpool.worker.inbox import SupervisorInbox

__all__ = ["PoolSupervisor"]

_FAILED = "its supervisor failed"


class PoolSupervisor(IsolatedActor):
    """See the module. Made by ``Pool``; ``Pool.actor_ref`` refers to it."""

    _ion_inbox = SupervisorInbox
    _ion_future = Future

    def __init__(self, core: PoolCore) -> None:
        super().__init__()
        self._core = core
        self._spec = core.spec
        self._clock = core.spec.context.clock
        self._inbox = core.inbox = cast("SupervisorInbox", self.actor_inbox)
        self._roster = Roster(core, self._inbox, self)
        self._watchdog = Watchdog(core, self._inbox, self._roster, self)
        self._locator = Locator(core, self._inbox)
        self._sizer = Sizer(core, self._inbox, self._roster, self)
        self._loop_watch = LoopWatch(core, self._inbox, self._close)
        self._resilience = Resilience(core.spec, self._reconcile, self._give_up)
        self._life = Life()
        self._timer: Timer | None = None  # for the life's next moment
        self._requests: list[Request] = []  # who waits for the end
        self._began = 0.0  # when the drain or close did
        self._called_off = False  # by the program itself: what does not end is no news
        self._report: DrainReport | None = None  # until everybody has got it
        self._asked_to_stop: dict[TaskFuture[Any], UnfinishedTask] = {}
        self._abandoned: dict[TaskFuture[Any], UnfinishedTask] = {}
        self._spent: list[Any] = []  # what was handled, and has in it what users have made
        self._handlers: dict[type, Callable[[Any], Any]] = {
            Request: self._on_request,
            StartFailed: self._roster.on_start_failed,
            Needed: self._roster.on_needed,
            Ready: self._roster.on_ready,
            Stopped: self._roster.on_stopped,
            RetrySeat: self._roster.on_retry,
            Look: self._watchdog.look,
            Measure: self._sizer.look,
            Locate: self._locator.locate,
            LookAtLoop: self._loop_watch.look,
            LoopEnded: self._loop_watch.ended,
            Tick: lambda _: self._live(self._life.tick(self._clock.monotonic())),
            Forgotten: lambda _: self._drain(self._spec.drain_timeout),
            GetMetrics: lambda _: core.metrics(),
            GetState: lambda _: core.phase,
        }
        self._inbox.understood = frozenset(self._handlers)
        for index in range(core.mailbox.size):
            self._roster.appoint(index)

    @override
    def _ion_thread_name(self) -> str:
        return f"{self._spec.name}-supervisor"

    @override
    def _ion_finish(self) -> None:
        """Tell everybody who is still to be told of the end; this takes no longer than a moment."""
        self._let_go_of_spent()
        STANDBY.leave(self._inbox.control.bell)
        STANDBY.attend()
        insist(CALLBACK_THREADS.finish)

    @override
    def on_start(self) -> None:
        """Find out what there is to do, on the supervisor's thread."""
        keep_free()
        STANDBY.join(self._inbox.control.bell)
        self._resilience.attempt(lambda _: self._reconcile(), None)

    @override
    def on_receive(self, message: Any) -> Any:
        """Handle a message."""
        self._let_go_of_spent()
        given = message.message if type(message) is Request else message
        if isinstance(given, Broadcast | Panicked | StartFailed):
            self._spent.append(message)
        return self._resilience.attempt(self._handlers[type(message)], message)

    def _let_go_of_spent(self) -> None:
        """From the message on that comes next, nobody on this thread refers to the last one."""
        if self._spent:
            spent, self._spent = self._spent, []
            release_references(spent)

    # -- faults: see ion_actors.workerpool.supervisor.resilience ---------------------------

    @override
    def _ion_interrupted(self, error: BaseException) -> None:
        in_hand = self._inbox.control.in_hand
        message = None if in_hand is None else in_hand.message
        if not self._resilience.has_failed(message, error):
            self._inbox.control.done()
            return
        fail_what_is_done_once(message, error)
        self._ion_begun = False  # on_start finds out what there is to do

    def _reconcile(self) -> None:
        """Make the view anew, and do what the state calls for."""
        if (thread := self._ion_thread) is not None and thread not in self._core.threads:
            self._core.threads.insert(0, thread)
        if self._inbox.ended:
            self.stop()
            return
        if self._core.broken is not None and self._life.phase in (Phase.RUNNING, Phase.DRAINING):
            self._close(self._patience_if_broken)
        phase = self._life.phase
        if phase is not Phase.RUNNING:
            self._stop_accepting()
        if phase in (Phase.CANCELLING, Phase.CLOSED):
            self._cancel_all()
        if phase is Phase.CLOSED:
            self._abandon()
            self._finish()
            return
        self._roster.reseat()
        self._plan()
        self._watchdog.plan()
        self._sizer.plan()
        self._loop_watch.plan()
        self.finish_if_over()

    def _give_up(self, message: object, error: BaseException) -> None:
        if isinstance(message, Request) and message not in self._requests:
            if not isinstance(message.message, Drain | Close | ActorStop):
                message.fail(error)  # a worker goes on without a reply
            elif self._inbox.ended:
                message.fail(self._core.broken or _broken(self._spec, _FAILED, error))
            else:
                self._requests.append(message)  # the end is coming
        ending = self._life.phase in (Phase.CANCELLING, Phase.CLOSED)
        again = ending or self._core.broken is not None
        done = insist(lambda: self.break_pool(_FAILED, error)) and insist(self._reconcile)
        lost = again or not done or self._life.phase is Phase.CLOSED
        if lost and not self._inbox.ended:
            self._end_without_report(error)

    def _end_without_report(self, error: BaseException) -> None:
        """The end itself failed: at least nobody must wait for it."""
        for step in (self._forget_timers, self._cancel_all, self._abandon):
            insist(step)
        self._life = Life(Phase.CLOSED)
        self._core.broken = self._core.broken or _broken(self._spec, _FAILED, error)
        self._core.state = PoolState.CLOSED
        self._core.ended.set()
        while self._requests:
            self._requests.pop().fail(_broken(self._spec, _FAILED, error))
        self._inbox.ended = True
        self.stop()

    def _forget_timers(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._roster.forget_retries()
        self._watchdog.stop()
        self._sizer.stop()
        self._locator.stop()
        self._loop_watch.stop()
        self._core.mailbox.deadlines.stop()

    # -- the end ---------------------------------------------------------------------------

    def _on_request(self, request: Request) -> None:
        """A message that is answered from here: pykka's loop would hold on to the answer."""
        if isinstance(request.message, Panicked):
            request.reply(self._roster.on_panicked(request.message))
        elif isinstance(request.message, Broadcast):
            self._on_broadcast(request, request.message)
        elif isinstance(request.message, Resize):
            self._on_resize(request, request.message)
        else:
            self._on_end_request(request)

    def _on_resize(self, request: Request, message: Resize) -> None:
        refusal = self._core.mailbox.refusal()
        if refusal is not None:
            request.fail(refusal)
            return
        self._roster.resize(message.size)
        request.reply(None)

    def _on_broadcast(self, request: Request, message: Broadcast) -> None:
        refusal: Exception | None = self._core.mailbox.refusal()
        if refusal is None and self._spec.residence is None:
            refusal = no_worker_class(self._spec.name)
        if refusal is not None:
            request.fail(refusal)
            return
        request.reply(self._roster.broadcast(message))

    def _on_end_request(self, request: Request) -> None:
        if self._life.phase is Phase.CLOSED:  # too late: it ends this moment
            report = self._core.last_report()
            if report is None and self._core.broken is not None:
                request.fail(self._core.broken)
            request.reply(report)
            return
        if request not in self._requests:
            self._requests.append(request)
        if isinstance(request.message, Drain):
            self._drain(request.message.timeout)
        elif isinstance(request.message, Close):
            self._on_close(request.message)
        else:
            assert isinstance(request.message, ActorStop)
            self._close(self._spec.drain_timeout)

    def _on_close(self, message: Close) -> None:
        self._called_off |= message.interrupted or message.timeout == 0
        if message.interrupted:
            self._core.mailbox.interrupted = True
        self._close(message.timeout)

    def _drain(self, timeout: float | None) -> None:
        self._live(self._life.drain(self._clock.monotonic(), timeout))

    def _close(self, timeout: float | None) -> None:
        self._live(self._life.close(self._clock.monotonic(), timeout))

    @property
    def phase(self) -> Phase:
        """Where the pool is in its life."""
        return self._life.phase

    def break_pool(self, why: str, cause: BaseException | None) -> None:
        """Give up the pool: everybody who waits learns of it now."""
        core = self._core
        if self._life.phase is Phase.CLOSED:
            return
        if core.broken is None:
            make = functools.partial(_broken, self._spec, why, cause)
            core.mailbox.refuse(make, again=True)
            self._drop_queue(lambda _: make())
            core.broken = make()  # now: if this fails halfway, it is done again
            self._spec.log(
                self._spec.dialect.alarm, "pool %r is broken: %s", self._spec.name, why,
                error=cause,
            )  # fmt: skip
        if self._life.phase is not Phase.CANCELLING or self._spec.dialect.ends_running:
            self._close(self._patience_if_broken)

    @property
    def _patience_if_broken(self) -> float | None:
        return 0.0 if self._spec.dialect.ends_running else self._spec.drain_timeout

    def _live(self, step: tuple[Life, tuple[Action, ...]]) -> None:
        """Enter the next stage of the pool's life, and carry out its actions."""
        self._life, actions = step
        for action in actions:
            if action is Action.STOP_ACCEPTING:
                self._stop_accepting()
            elif action is Action.CANCEL_ALL:
                self._cancel_all()
            elif action is Action.ABANDON:
                self._abandon()
            elif action is Action.FINISH:
                self._finish()
        self._plan()
        self.finish_if_over()

    def _plan(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if (moment := self._life.next_moment()) is not None:
            self._timer = self._inbox.remind(self._clock, moment, Tick())
        self._locator.plan(self._life.deadline)

    def _stop_accepting(self) -> None:
        # First: whoever sees that the pool drains can rely on it.
        resume = self._life.phase is Phase.DRAINING  # what is queued is to be finished
        self._core.mailbox.refuse(functools.partial(closed, self._spec.name), resume=resume)
        if self._core.state is PoolState.RUNNING:
            self._began = self._clock.monotonic()
            self._core.state = PoolState.DRAINING
        self._core.mailbox.keep_time()
        if self._core.mailbox.delays:
            return  # who has nothing to do may be needed later; the mailbox wakes them in the end
        for worker in list(self._core.workers):
            if not self._roster.dismiss(worker):
                worker.wake()  # those that find nothing more to do retire

    def _cancel_all(self) -> None:
        self._drop_queue()
        # From here on no worker takes another one, so this misses none that will be stopped.
        self._locator.locate(Locate())
        running = self._core.running(self._locator.whereabouts())
        asked = {task: unfinished for task, unfinished in running if not task.done()}
        self._asked_to_stop = asked | self._asked_to_stop
        release_references(running)  # some may have ended meanwhile
        self._core.cancels = True
        self._spec.context.cancel(f"pool {self._spec.name!r} was closed")
        self._drop_queue()  # what came back meanwhile; now none does
        self._roster.forget_retries()

    def _drop_queue(self, make_error: Callable[[TaskFuture[Any]], IonError] | None = None) -> None:
        run_callbacks_in_thread(self._core.drop_queue(make_error))

    def _abandon(self) -> None:
        """The time is up: what still runs goes on alone."""
        # A task may have been put back into the queue, and no worker is left that is not stuck.
        self._drop_queue()
        ended = []
        where = self._locator.whereabouts()
        for task, unfinished in self._core.running(where):
            self._abandoned.setdefault(task, unfinished)
            if not (self._called_off or self._ends_as_broken):
                self._spec.log(
                    logging.WARNING, "task %r is abandoned on worker %s:\n%s", unfinished.name,
                    unfinished.worker, Lines(unfinished.stack), task=unfinished.name,
                )  # fmt: skip
            # None if it has ended for its submitter already: it overran its own time limit.
            callbacks = self._core.mailbox.fence(
                task, self._abandoned_error(unfinished), unfinished[:3]
            )
            ended.append((task, callbacks))
        for worker in self._core.workers:
            if is_appointed(worker):
                worker.abandon(where.get(worker) or worker.where())
                if worker.kill() and worker.thread is not None:
                    self._core.threads.append(
                        worker.thread
                    )  # whoever waits for the end waits for it, too
        run_callbacks_in_thread(ended)

    @property
    def _ends_as_broken(self) -> bool:
        """Whether what still runs ends because the pool is broken."""
        return self._core.broken is not None and self._spec.dialect.ends_running

    def _abandoned_error(self, task: UnfinishedTask) -> IonError:
        refusal = self._core.mailbox.refusal()
        if self._ends_as_broken and refusal is not None:
            return refusal
        so_far = "" if task.items is None else f" and {task.items} items"
        return TaskAbandoned(
            f"task {task.name!r} was still running on worker {task.worker} after "
            f"{task.age:.3f} s{so_far} when pool {self._spec.name!r} had to end",
            task=task.name, age=task.age or 0.0, stack=task.stack,
        )  # fmt: skip

    def finish_if_over(self) -> None:
        """End the pool, if it is to end and nobody is left who has something to do."""
        if self._life.phase not in (Phase.DRAINING, Phase.CANCELLING):
            return
        if self._core.workers or (self._roster.retries and self._core.mailbox.backlog):
            return
        if self._core.mailbox.backlog:  # it came back from a worker that is gone, too
            if self._life.phase is Phase.DRAINING:
                self._roster.seat_one_more()
                return
            self._drop_queue()
        self._live(self._life.all_ended())

    def _finish(self) -> None:
        core = self._core
        self._spec.context.cancel(f"pool {self._spec.name!r} was closed")
        if self._report is None:
            self._report = self._make_report()
            core.keep_report(self._report, asked_for=bool(self._requests))
        core.state = PoolState.CLOSED
        core.ended.set()
        self._spec.log(logging.DEBUG, "pool %r has ended: %s", self._spec.name, self._report)
        if self._called_off and self._report.unfinished:
            self._spec.log(logging.WARNING, "%s", _called_off(self._spec.name, self._report))
        while self._requests:
            self._answer(self._requests[0], self._report)
            del self._requests[0]
        done_with: list[object] = [self._report] if self._report.unfinished else []
        done_with += [one for one in (self._asked_to_stop, self._abandoned) if one]
        self._asked_to_stop, self._abandoned = {}, {}
        self._forget_timers()
        self._inbox.ended = True
        self._report = None
        if done_with:
            release_references(done_with)
        self.stop()

    def _make_report(self) -> DrainReport:
        after = self._core.metrics()
        before = self._core.mailbox.before_end or after
        stopped = [
            unfinished
            for task, unfinished in self._asked_to_stop.items()
            if task not in self._abandoned
            if task.cancelled() or is_a(task._exception, ContextEnded)
        ]
        return DrainReport(
            completed=after.completed - before.completed,
            failed=after.failed - before.failed,
            panicked=after.panicked - before.panicked,
            cancelled=(*self._core.dropped, *stopped),
            running=(*self._abandoned.values(), *self._left_behind()),
            elapsed=self._clock.monotonic() - self._began,
        )

    def _left_behind(self) -> tuple[UnfinishedTask, ...]:
        found = self._core.left_behind()
        for one in () if self._called_off else found:
            self._spec.log(
                logging.WARNING, "task %r has left a call behind that still runs in a thread "
                "(worker %s):\n%s", one.name, one.worker, one.stack, task=one.name,
            )  # fmt: skip
        return found

    def _answer(self, request: Request, report: DrainReport) -> None:
        if isinstance(request.message, ActorStop):
            request.reply(None)
        elif isinstance(request.message, Drain) and self._life.overdue and _lacks(report):
            message = f"pool {self._spec.name!r} was not drained in time: {report}"
            request.fail(DrainTimeout(message, report=report))
        else:
            request.reply(report)


def _called_off(name: str, report: DrainReport) -> str:
    """What the program has called off: how much, and not what."""
    queued = sum(one.state is TaskState.QUEUED for one in report.unfinished)
    numbers = {"had not begun": queued, "had not ended": len(report.unfinished) - queued}
    told = " and ".join(
        f"{number} task{'s' * (number > 1)} {what}" for what, number in numbers.items() if number
    )
    return f"pool {name!r} was called off: {told}"


def _lacks(report: DrainReport) -> bool:
    """Whether a task has not ended as it would have."""
    return any(one.state is not TaskState.LEFT_BEHIND for one in report.unfinished)


def _broken(spec: PoolSpec, why: str, cause: BaseException | None) -> BrokenPool:
    error = spec.dialect.broken(
        f"pool {spec.name!r} is broken and is not usable anymore: {why}", pool=spec.name
    )
    error.__cause__ = cause
    return error
