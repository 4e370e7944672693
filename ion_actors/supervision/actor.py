"""The supervisor's actor: it carries out what :mod:`~ion_actors.supervision.machine` decides.

::

    a child ended, started or failed to start, time passed, an end was requested
        ─▶ Machine ─▶ Start │ Stop │ Retry │ GaveUp │ Finish

It holds no lock and never blocks: children are started in threads of their own, asked to stop
without waiting, and their ends are messages. Its thread never runs users' code.
"""

from __future__ import annotations

import functools
import logging
import weakref
from collections.abc import Callable
from typing import Any, cast

from typing_extensions import override

from ion_actors.actors import ActorStop, IsolatedActor, Request
from ion_actors.clock import Timer
from ion_actors.delivery import keep_free
from ion_actors.errors import ChildStartFailed, SupervisorFailed
from ion_actors.logs import Logger
from ion_actors.standby import STANDBY
from ion_actors.supervision.child_table import (
    Begin,
    ChildNotStarted,
    ChildReady,
    ChildRun,
    ChildTable,
    Ended,
    Opened,
    Overdue,
    TryAgain,
    start_in_thread,
)
from ion_actors.supervision.core import TreeCore, TreeInbox, time_to_stop
from ion_actors.supervision.events import Lifecycle
from ion_actors.supervision.machine import Machine
from ion_actors.supervision.protocol import StopMode
from ion_actors.supervision.report import ChildEnd, StopReport
from ion_actors.supervision.states import (
    ChildOutcome,
    GaveUp,
    Order,
    RestartCause,
    Retry,
    Rules,
    Start,
    Stop,
    SupervisorState,
)
from ion_actors.workerpool.messages import Drain

__all__ = ["TreeActor", "broken", "gave_up", "not_started"]

logger = Logger("ion_actors", later=True)


class TreeActor(IsolatedActor):
    """See the module."""

    _ion_inbox = TreeInbox

    def __init__(self, core: TreeCore) -> None:
        super().__init__()
        spec = core.spec
        self._core = core
        self._log = spec.log
        self._clock = spec.context.clock
        self._machine = Machine(spec.rules, tuple(one.record for one in spec.children))
        self._table = ChildTable(core)
        self._retries: dict[str, Timer] = {}
        self._because: str | None = None  # the child whose restart causes the current orders
        self._draining = False  # the end was requested only by drains
        self._deadline: float | None = None  # of all requests
        self._end_began: float | None = None
        self._ends: list[ChildEnd] = []
        self._requests: list[Request] = []  # requests for the end, to be answered
        self._handlers: dict[type, Callable[[Any], None]] = {
            Begin: lambda _: self._live(self._machine.begin()),
            Opened: self._on_opened,
            ChildReady: self._on_ready,
            ChildNotStarted: self._on_start_failed,
            Ended: self._on_ended,
            Overdue: self._on_overdue,
            TryAgain: lambda one: self._live(self._machine.retry(one.id, self._now())),
            Request: self._on_request,
        }
        inbox = cast("TreeInbox", self.actor_inbox)
        inbox.understood = frozenset(self._handlers)
        me = weakref.ref(self)
        core.has_thread = lambda: (actor := me()) is not None and actor._ion_thread is not None
        self._inbox = core.inbox = inbox

    @override
    def on_start(self) -> None:
        """Register its thread."""
        keep_free()
        if self._core.state is SupervisorState.STOPPED:  # it was called off as it was starting
            self._ion_stop()
            return
        STANDBY.join(self._inbox.control.bell)
        if (thread := self._ion_thread) is not None and thread not in self._core.threads:
            self._core.threads.insert(0, thread)

    @override
    def _ion_thread_name(self) -> str:
        return f"{self._core.spec.name}-supervisor"

    @override
    def _ion_finish(self) -> None:
        STANDBY.leave(self._inbox.control.bell)
        STANDBY.attend()

    @override
    def _ion_interrupted(self, error: BaseException) -> None:
        """An exception from outside may have left a message half handled."""
        in_hand = self._inbox.control.in_hand
        if in_hand is None:
            self._log(logging.ERROR, "the supervisor was interrupted, and goes on", error=error)
            return
        message = in_hand.message
        if isinstance(message, Request) and message not in self._requests:
            self._requests.append(message)  # it is answered at the end
        self._failed(message, error)
        self._inbox.control.done()

    @override
    def on_receive(self, message: Any) -> None:
        """Handle a message. An error in here must not end the supervision silently."""
        try:
            self._handlers[type(message)](message)
        except BaseException as error:
            self._failed(message, error)
        self._table.show(self._machine)
        self._table.tell_news()
        # Last: whoever waits for it may rely on the events.
        if self._machine.state is SupervisorState.RUNNING and not self._core.begun.done():
            self._core.begun.set(True)

    def _failed(self, message: Any, error: BaseException) -> None:
        self._log(logging.CRITICAL, "the supervisor failed on %r", message, error=error)
        first = self._core.failure is None
        self._core.failure = self._core.failure or broken(self._core.spec.name, error)
        try:
            if first:
                self._live(self._machine.stop(self._now()))
                return
        except BaseException:
            logger.exception("a supervisor could not stop its children")
        if not self._core.ended.done():
            self._finish()

    def _now(self) -> float:
        return self._clock.monotonic()

    # -- carrying out ----------------------------------------------------------------------

    def _live(self, step: tuple[Machine, tuple[Order, ...]]) -> None:
        """Take a step of the machine, and carry out its orders."""
        self._machine, orders = step
        stopping = self._machine.state in (SupervisorState.STOPPING, SupervisorState.STOPPED)
        if stopping and self._end_began is None:
            self._begin_end()
        for order in orders:
            self._carry_out(order)
        self._table.show(self._machine)

    def _begin_end(self) -> None:
        self._end_began = self._now()
        self._draining = self._draining or self._machine.outcome is ChildOutcome.SIGNIFICANT
        self._because = None
        for timer in self._retries.values():
            timer.cancel()

    def _carry_out(self, order: Order) -> None:
        if isinstance(order, Start):
            self._start(order.id)
        elif isinstance(order, Stop):
            run = self._table.runs[order.id]
            run.stop_began = self._now()
            self._ask_to_stop(run)
        elif isinstance(order, Retry):
            self._plan_retry(order)
        elif isinstance(order, RestartCause):
            self._because = order.id
        elif isinstance(order, GaveUp):
            self._give_up(order.id)
        else:
            self._finish()

    def _start(self, child: str) -> None:
        if (timer := self._retries.pop(child, None)) is not None:
            timer.cancel()
        start_in_thread(self._core, self._table.begin(child))

    def _plan_retry(self, order: Retry) -> None:
        again = functools.partial(self._core.tell, TryAgain(order.id))
        if order.delay:
            self._retries[order.id] = self._clock.call_at(self._now() + order.delay, again)
        else:
            again()

    def _ask_to_stop(self, run: ChildRun) -> None:
        """Ask a child to stop, in the time that it has left."""
        assert run.stop_began is not None
        now = self._now()
        shutdown = time_to_stop(run.spec, run.live, exiting=self._core.exiting)
        deadlines = [self._deadline] if self._deadline is not None else []
        if shutdown is not None:
            deadlines.append(run.stop_began + shutdown)
        timeout = max(0.0, min(deadlines) - now) if deadlines else None
        run.cancel_timer()
        margin = 0.0
        if run.live is not None:
            margin = run.live.margin
            mode = StopMode.DRAIN if self._draining else StopMode.CLOSE
            run.live.stop(mode, timeout)
        if timeout is not None:
            overdue = functools.partial(self._core.tell, Overdue(run))
            run.timer = self._clock.call_at(now + timeout + margin, overdue)

    def _give_up(self, child: str) -> None:
        error = gave_up(
            self._core.spec.name, child, self._core.spec.rules,
            exhausted=self._exhausted(child), cause=self._table.errors.get(child),
        )  # fmt: skip
        self._core.failure = error
        self._log(logging.CRITICAL, "%s", error, error=error.__cause__, child=child)
        self._table.note(Lifecycle.GAVE_UP, None, error, because=child)

    def _exhausted(self, child: str) -> bool:
        record = self._machine.record(child)
        return record is not None and self._core.spec.rules.delay(record.failures + 1) is None

    # -- what happens ----------------------------------------------------------------------

    def _on_opened(self, message: Opened) -> None:
        run, live = message.run, message.live
        if self._table.is_stale(run):
            live.stop(StopMode.CLOSE, live.shutdown)
            return
        self._table.opened(run, live)
        live.watch(lambda error, report: self._core.tell(Ended(run, error, report)))
        if run.stop_began is not None:
            self._ask_to_stop(run)

    def _on_ready(self, message: ChildReady) -> None:
        run = message.run
        if self._table.is_stale(run) or run.stop_began is not None:
            return
        run.ready = True
        kind = Lifecycle.RESTARTED if run.restarts else Lifecycle.STARTED
        self._table.note(kind, run, because=self._because if run.restarts else None)
        self._live(self._machine.started(run.spec.id, self._now()))
        if run.ended is not None and not self._table.is_stale(run):
            self._on_ended(run.ended)

    def _on_start_failed(self, message: ChildNotStarted) -> None:
        run, error = message.run, message.error
        if self._table.is_stale(run):
            return
        child = run.spec.id
        self._table.errors[child] = error
        if run.stop_began is not None:
            self._stopped(run, error, abandoned=False)
            return
        self._table.leave(run)
        self._log(logging.ERROR, "child %s could not be started", child, error=error, child=child)
        self._table.note(Lifecycle.START_FAILED, run, error)
        if self._machine.state is SupervisorState.STARTING and self._core.failure is None:
            self._core.failure = not_started(self._core.spec.name, child, error, message.shown)
        self._live(self._machine.start_failed(child, self._now()))

    def _on_ended(self, message: Ended) -> None:
        run = message.run
        if self._table.is_stale(run):
            return
        run.ended = message
        if message.error is not None:
            self._table.errors[run.spec.id] = message.error
        if run.stop_began is not None:
            self._stopped(run, message.error, abandoned=False)
        elif run.ready:  # else the message that it has started, or not, is still to come
            self._died(run, message.error)

    def _died(self, run: ChildRun, error: BaseException | None) -> None:
        child = run.spec.id
        self._table.leave(run)
        failed = error is not None
        level = logging.WARNING if failed else logging.INFO
        self._log(level, "child %s has ended by itself", child, error=error, child=child)
        self._table.note(Lifecycle.PANICKED if failed else Lifecycle.ENDED, run, error)
        self._live(self._machine.ended(child, self._now(), failed=failed))

    def _on_overdue(self, message: Overdue) -> None:
        run = message.run
        if self._table.is_stale(run) or run.timer is None:
            return
        self._log(
            logging.WARNING, "child %s did not stop in time and is abandoned", run.spec.id,
            child=run.spec.id,
        )  # fmt: skip
        self._stopped(run, None, abandoned=True)

    def _stopped(self, run: ChildRun, error: BaseException | None, *, abandoned: bool) -> None:
        child = run.spec.id
        self._table.leave(run)
        run.cancel_timer()
        if run.live is not None and not abandoned:
            self._core.threads[1:] = [one for one in self._core.threads[1:] if one.is_alive()]
            self._core.threads += run.live.threads()
        kind = Lifecycle.ABANDONED if abandoned else Lifecycle.STOPPED
        self._table.note(kind, run, error, because=self._because)
        if self._end_began is not None:
            took = self._now() - (run.stop_began or 0.0)
            report = None if run.ended is None else run.ended.report
            self._ends.append(ChildEnd(child, abandoned, took, report, error))
        self._live(self._machine.stopped(child, self._now()))

    # -- the end ---------------------------------------------------------------------------

    def _on_request(self, request: Request) -> None:
        if self._core.ended.done():  # too late: it ends this moment
            _answer(request, self._core.ended.result())
            return
        self._requests.append(request)
        message = request.message
        asked_before = self._end_began is not None
        if not isinstance(message, ActorStop) and message.timeout is not None:
            deadline = self._now() + message.timeout
            if self._deadline is None or deadline < self._deadline:
                self._deadline = deadline
        if isinstance(message, Drain):
            self._draining = self._draining or not asked_before
        else:
            self._draining = False
        if not asked_before:
            self._live(self._machine.stop(self._now()))
            return
        for run in list(self._table.runs.values()):
            if run.stop_began is not None:
                self._ask_to_stop(run)

    def _finish(self) -> None:
        core = self._core
        core.spec.context.cancel(f"supervisor {core.spec.name!r} has ended")
        now = self._now()
        began = now if self._end_began is None else self._end_began
        report = StopReport(tuple(self._ends), core.failure, now - began)
        self._table.show(self._machine)
        self._table.tell_news()
        core.state = SupervisorState.STOPPED
        self._log(logging.DEBUG, "supervisor %s has ended", core.spec.name)
        core.ended.set(report)
        if not core.begun.done():
            core.begun.set(False)
        requests, self._requests = self._requests, []
        for request in requests:
            _answer(request, report)
        self._inbox.ended = True
        self.stop()


def _answer(request: Request, report: StopReport) -> None:
    request.reply(None if isinstance(request.message, ActorStop) else report)


def gave_up(
    name: str, child: str, rules: Rules, *, exhausted: bool, cause: BaseException | None
) -> SupervisorFailed:
    """The error of a supervisor that gives up.

    Args:
        name: the supervisor's.
        child: the id of the child that would have to be restarted.
        rules: the supervisor's.
        exhausted: whether all retries to start the child have failed.
        cause: the error of the child.
    """
    if exhausted and rules.backoff is not None:
        why = f"child {child!r} could not be started after {rules.backoff.retries} retries"
    else:
        limit = rules.limit
        why = (
            f"child {child!r} would have to be restarted more than {limit.max_restarts} times in "
            f"{limit.within:g} s"
        )
    error = SupervisorFailed(f"supervisor {name!r} gave up: {why}", supervisor=name, child=child)
    error.__cause__ = cause
    return error


def not_started(name: str, child: str, cause: BaseException, shown: str) -> ChildStartFailed:
    """The error of a supervisor whose child did not start at its own start."""
    error = ChildStartFailed(
        f"supervisor {name!r} could not start its child {child!r}: {shown}",
        supervisor=name,
        child=child,
    )
    error.__cause__ = cause
    return error


def broken(name: str, cause: BaseException) -> SupervisorFailed:
    """The error for a bug in the supervisor."""
    error = SupervisorFailed(f"supervisor {name!r} failed itself", supervisor=name, child=None)
    error.__cause__ = cause
    return error
