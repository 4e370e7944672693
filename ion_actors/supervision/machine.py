"""The decisions of a supervisor, as a pure state machine.

::

    STARTING ──all started──▶ RUNNING ──asked to, gave up, significant child ended──▶ STOPPING
        └──────────────a child did not start, asked to stop──────────────────────────▶  │
                                                                    all stopped ──▶ STOPPED

The semantics are those of OTP's ``supervisor``. OTP's blocks while it stops or starts a child, and
other events wait in its mailbox. This one never blocks: it has a plan (which children to stop, in
order, and then which to start), executes one step of it at a time, and keeps other events in
``backlog``.

Every method takes an event and returns the next state with the orders to carry out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ion_actors.supervision.states import (
    AutoShutdown,
    ChildOutcome,
    ChildRecord,
    ChildState,
    Finish,
    GaveUp,
    Order,
    Restart,
    RestartCause,
    Retry,
    Rules,
    Start,
    Stop,
    Strategy,
    SupervisorState,
)
from ion_actors.workerpool.model.recovery import RestartWindow

__all__ = ["Machine"]

_NO_RESTARTS = RestartWindow()

_Step = tuple["Machine", tuple[Order, ...]]


@dataclass(frozen=True, slots=True)
class Machine:
    """See the module. Times are the clock's seconds."""

    rules: Rules
    records: tuple[ChildRecord, ...]  # in the order of their start
    state: SupervisorState = SupervisorState.NEW
    window: RestartWindow = _NO_RESTARTS
    stops: tuple[str, ...] = ()  # the plan, whose first stop is being executed …
    starts: tuple[str, ...] = ()  # … or, when there is nothing to stop, the first of these
    backlog: tuple[str, ...] = ()  # went DOWN, or is due for a retry, since the plan began
    outcome: ChildOutcome | None = None

    def record(self, child: str) -> ChildRecord | None:
        """The child of that id, unless it is forgotten."""
        return next((record for record in self.records if record.id == child), None)

    # -- what happens ----------------------------------------------------------------------

    def begin(self) -> _Step:
        """Start all children."""
        ids = tuple(record.id for record in self.records)
        return replace(self, state=SupervisorState.STARTING, starts=ids)._advance(0.0)

    def started(self, child: str, now: float) -> _Step:
        """This child has started."""
        record = self.record(child)
        if record is None or record.state is not ChildState.STARTING:
            return self, ()
        return self._with(child, ChildState.RUNNING, failures=0)._advance(now)

    def start_failed(self, child: str, now: float) -> _Step:
        """This child could not be started."""
        record = self.record(child)
        if record is None or record.state is not ChildState.STARTING:
            return self, ()
        if self.state is SupervisorState.STARTING:
            return self._with(child, ChildState.ENDED)._begin_stop(ChildOutcome.START_FAILED, now)
        if self.state is SupervisorState.STOPPING:
            return self._with(child, ChildState.ENDED)._advance(now)
        failures = record.failures + 1
        delay = self.rules.delay(failures)
        if delay is None:
            return self._give_up(child, now)
        # Children that start after it wait for it.
        failed = replace(self._with(child, ChildState.RESTARTING, failures=failures), starts=())
        return _before(Retry(child, delay), failed._advance(now))

    def retry(self, child: str, now: float) -> _Step:
        """Try to start this child again now."""
        return replace(self, backlog=(*self.backlog, child))._advance(now)

    def ended(self, child: str, now: float, *, failed: bool) -> _Step:
        """This child has ended, and the supervisor has not stopped it."""
        record = self.record(child)
        if record is None or not record.alive:
            return self, ()
        down = self._with(child, ChildState.DOWN, failed=failed)
        return replace(down, backlog=(*self.backlog, child))._advance(now)

    def stopped(self, child: str, now: float) -> _Step:
        """This child was asked to stop, and has ended or was abandoned."""
        record = self.record(child)
        if record is None or record.state is not ChildState.STOPPING:
            return self, ()
        return self._with(child, ChildState.ENDED)._advance(now)

    def stop(self, now: float) -> _Step:
        """The end was requested."""
        if self.state is SupervisorState.NEW:
            return replace(self, state=SupervisorState.STOPPED, outcome=ChildOutcome.ASKED), (
                Finish(),
            )
        return self._begin_stop(ChildOutcome.ASKED, now)

    # -- what follows ----------------------------------------------------------------------

    def _with(self, child: str, state: ChildState, **facts: object) -> Machine:
        records = tuple(
            replace(record, state=state, **facts) if record.id == child else record  # type: ignore[arg-type]
            for record in self.records
        )
        return replace(self, records=records)

    def _advance(self, now: float) -> _Step:
        """Go on with the plan; if it is done, handle the backlog."""
        machine = self
        orders: tuple[Order, ...] = ()
        while True:
            after, more, under_way = machine._next(now)
            machine, orders = after, orders + more
            if under_way:
                return machine, orders

    def _next(self, now: float) -> tuple[Machine, tuple[Order, ...], bool]:
        """One step: the state after it, the orders, and whether to wait for their execution."""
        if self.stops:
            return self._next_stop()
        if self.state is SupervisorState.STOPPING:
            records = tuple(replace(record, state=ChildState.ENDED) for record in self.records)
            return replace(self, state=SupervisorState.STOPPED, records=records), (Finish(),), True
        if self.starts:
            return self._next_start()
        if self.state is SupervisorState.STARTING:
            return replace(self, state=SupervisorState.RUNNING), (), False
        if self.state is SupervisorState.RUNNING and self.backlog:
            first, *rest = self.backlog
            after, orders = replace(self, backlog=tuple(rest))._see_to(first, now)
            return after, orders, False
        return self, (), True

    def _next_stop(self) -> tuple[Machine, tuple[Order, ...], bool]:
        first, *rest = self.stops
        record = self.record(first)
        if record is not None and record.state is ChildState.STOPPING:
            return self, (), True
        if record is not None and record.alive:
            return self._with(first, ChildState.STOPPING), (Stop(first),), True
        done = replace(self, stops=tuple(rest))
        if record is None or self.state is SupervisorState.STOPPING:
            return done, (), False
        if record.restart is Restart.TEMPORARY:
            return done._forget(first), (), False
        return done._with(first, ChildState.WAITING), (), False

    def _next_start(self) -> tuple[Machine, tuple[Order, ...], bool]:
        first, *rest = self.starts
        record = self.record(first)
        if record is not None and record.state is ChildState.STARTING:
            return self, (), True
        if record is not None and record.state is ChildState.WAITING:
            return self._with(first, ChildState.STARTING), (Start(first),), True
        return replace(self, starts=tuple(rest)), (), False

    def _see_to(self, child: str, now: float) -> _Step:
        """Handle a child that went down, or is due for a retry, unless that was done meanwhile."""
        record = self.record(child)
        if record is None or record.state not in (ChildState.DOWN, ChildState.RESTARTING):
            return self, ()
        if record.state is ChildState.RESTARTING or record.comes_back:
            return self._restart(record, now)
        gone = self._with(child, ChildState.ENDED)
        if record.restart is Restart.TEMPORARY:
            gone = gone._forget(child)
        if record.significant and gone._shall_shut_down():
            return gone._begin_stop(ChildOutcome.SIGNIFICANT, now)
        return gone, ()

    def _shall_shut_down(self) -> bool:
        """Whether the end of a significant child ends the supervisor."""
        if self.rules.auto_shutdown is AutoShutdown.ANY_SIGNIFICANT:
            return True
        if self.rules.auto_shutdown is AutoShutdown.NEVER:
            return False
        over = (ChildState.ENDED, ChildState.WAITING)
        return all(record.state in over for record in self.records if record.significant)

    def _restart(self, record: ChildRecord, now: float) -> _Step:
        window, allowed = self.window.allow(self.rules.limit, now)
        counted = replace(self, window=window)
        if not allowed:
            return counted._give_up(record.id, now)
        affected = self._affected(record)
        stops = tuple(one.id for one in reversed(affected))
        starts = tuple(one.id for one in affected)  # temporary ones are forgotten before that
        return replace(counted, stops=stops, starts=starts), (RestartCause(record.id),)

    def _affected(self, record: ChildRecord) -> tuple[ChildRecord, ...]:
        if self.rules.strategy is Strategy.ONE_FOR_ONE:
            return (record,)
        if self.rules.strategy is Strategy.ONE_FOR_ALL:
            return self.records
        return self.records[self.records.index(record) :]

    def _give_up(self, child: str, now: float) -> _Step:
        over = self._with(child, ChildState.ENDED)
        return _before(GaveUp(child), over._begin_stop(ChildOutcome.GAVE_UP, now))

    def _begin_stop(self, outcome: ChildOutcome, now: float) -> _Step:
        if self.state in (SupervisorState.STOPPING, SupervisorState.STOPPED):
            return self, ()
        live = (ChildState.STARTING, ChildState.RUNNING, ChildState.STOPPING)
        under_way = self.stops[:1]
        stops = tuple(record.id for record in reversed(self.records) if record.state in live)
        first = tuple(one for one in under_way if one in stops)
        last = tuple(one for one in stops if one not in first)
        return replace(
            self, state=SupervisorState.STOPPING, outcome=outcome,
            stops=(*first, *last), starts=(), backlog=(),
        )._advance(now)  # fmt: skip

    def _forget(self, child: str) -> Machine:
        return replace(self, records=tuple(record for record in self.records if record.id != child))


def _before(order: Order, step: _Step) -> _Step:
    machine, orders = step
    return machine, (order, *orders)
