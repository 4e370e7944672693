"""What a supervisor decides, as a pure state machine.

::

    STARTING ──all started──▶ RUNNING ──asked to, gave up, significant child ended──▶ STOPPING
        └──────────────a child did not start, asked to stop──────────────────────────▶  │
                                                                    all stopped ──▶ STOPPED

The semantics are those of OTP's ``supervisor``. That one blocks while it stops or starts a child,
and what happens meanwhile waits in its mailbox. This one never blocks: it keeps a plan (which
children to stop, in order, and then which to start), has one step of it under way at a time, and
keeps what happens meanwhile in ``backlog``.

Every method takes what happened and returns the next state with the orders to carry out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ion_actors.supervision.states import (
    AutoShutdown,
    ChildOutcome,
    ChildState,
    Finish,
    GaveUp,
    Kid,
    Order,
    Restart,
    Restarting,
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
    kids: tuple[Kid, ...]  # in the order of their start
    state: SupervisorState = SupervisorState.NEW
    window: RestartWindow = _NO_RESTARTS
    stops: tuple[str, ...] = ()  # the plan, of which the first is under way …
    starts: tuple[str, ...] = ()  # … or, when there is nothing to stop, the first of these
    backlog: tuple[str, ...] = ()  # who went DOWN or is to be tried again, since the plan began
    outcome: ChildOutcome | None = None

    def kid(self, child: str) -> Kid | None:
        """The child of that id, unless it is forgotten."""
        return next((kid for kid in self.kids if kid.id == child), None)

    # -- what happens ----------------------------------------------------------------------

    def begin(self) -> _Step:
        """Start all children."""
        ids = tuple(kid.id for kid in self.kids)
        return replace(self, state=SupervisorState.STARTING, starts=ids)._advance(0.0)

    def started(self, child: str, now: float) -> _Step:
        """This child has started."""
        kid = self.kid(child)
        if kid is None or kid.state is not ChildState.STARTING:
            return self, ()
        return self._with(child, ChildState.RUNNING, failures=0)._advance(now)

    def start_failed(self, child: str, now: float) -> _Step:
        """This child could not be started."""
        kid = self.kid(child)
        if kid is None or kid.state is not ChildState.STARTING:
            return self, ()
        if self.state is SupervisorState.STARTING:
            return self._with(child, ChildState.ENDED)._stop(ChildOutcome.START_FAILED, now)
        if self.state is SupervisorState.STOPPING:
            return self._with(child, ChildState.ENDED)._advance(now)
        failures = kid.failures + 1
        delay = self.rules.delay(failures)
        if delay is None:
            return self._give_up(child, now)
        # Those that were to be started after it wait until it has been.
        failed = replace(self._with(child, ChildState.RESTARTING, failures=failures), starts=())
        return _before(Retry(child, delay), failed._advance(now))

    def retry(self, child: str, now: float) -> _Step:
        """It is time to try to start this child again."""
        return replace(self, backlog=(*self.backlog, child))._advance(now)

    def ended(self, child: str, now: float, *, failed: bool) -> _Step:
        """This child has ended, and nobody here has stopped it."""
        kid = self.kid(child)
        if kid is None or not kid.alive:
            return self, ()
        down = self._with(child, ChildState.DOWN, failed=failed)
        return replace(down, backlog=(*self.backlog, child))._advance(now)

    def stopped(self, child: str, now: float) -> _Step:
        """This child was asked to stop and has, or was abandoned."""
        kid = self.kid(child)
        if kid is None or kid.state is not ChildState.STOPPING:
            return self, ()
        return self._with(child, ChildState.ENDED)._advance(now)

    def stop(self, now: float) -> _Step:
        """Somebody asks for the end."""
        if self.state is SupervisorState.NEW:
            return replace(self, state=SupervisorState.STOPPED, outcome=ChildOutcome.ASKED), (
                Finish(),
            )
        return self._stop(ChildOutcome.ASKED, now)

    # -- what follows ----------------------------------------------------------------------

    def _with(self, child: str, state: ChildState, **facts: object) -> Machine:
        kids = tuple(
            replace(kid, state=state, **facts) if kid.id == child else kid  # type: ignore[arg-type]
            for kid in self.kids
        )
        return replace(self, kids=kids)

    def _advance(self, now: float) -> _Step:
        """Go on with the plan; without one, see to what has happened meanwhile."""
        machine = self
        orders: tuple[Order, ...] = ()
        while True:
            after, more, under_way = machine._next(now)
            machine, orders = after, orders + more
            if under_way:
                return machine, orders

    def _next(self, now: float) -> tuple[Machine, tuple[Order, ...], bool]:
        """One thing: the state after it, the orders, and whether something is under way now."""
        if self.stops:
            return self._next_stop()
        if self.state is SupervisorState.STOPPING:
            kids = tuple(replace(kid, state=ChildState.ENDED) for kid in self.kids)
            return replace(self, state=SupervisorState.STOPPED, kids=kids), (Finish(),), True
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
        kid = self.kid(first)
        if kid is not None and kid.state is ChildState.STOPPING:
            return self, (), True
        if kid is not None and kid.alive:
            return self._with(first, ChildState.STOPPING), (Stop(first),), True
        done = replace(self, stops=tuple(rest))
        if kid is None or self.state is SupervisorState.STOPPING:
            return done, (), False
        if kid.restart is Restart.TEMPORARY:
            return done._forget(first), (), False
        return done._with(first, ChildState.WAITING), (), False

    def _next_start(self) -> tuple[Machine, tuple[Order, ...], bool]:
        first, *rest = self.starts
        kid = self.kid(first)
        if kid is not None and kid.state is ChildState.STARTING:
            return self, (), True
        if kid is not None and kid.state is ChildState.WAITING:
            return self._with(first, ChildState.STARTING), (Start(first),), True
        return replace(self, starts=tuple(rest)), (), False

    def _see_to(self, child: str, now: float) -> _Step:
        """A child that went down, or is to be tried again, unless that was seen to meanwhile."""
        kid = self.kid(child)
        if kid is None or kid.state not in (ChildState.DOWN, ChildState.RESTARTING):
            return self, ()
        if kid.state is ChildState.RESTARTING or kid.comes_back:
            return self._restart(kid, now)
        gone = self._with(child, ChildState.ENDED)
        if kid.restart is Restart.TEMPORARY:
            gone = gone._forget(child)
        if kid.significant and gone._shall_shut_down():
            return gone._stop(ChildOutcome.SIGNIFICANT, now)
        return gone, ()

    def _shall_shut_down(self) -> bool:
        """Whether the end of a significant child is the end of all."""
        if self.rules.auto_shutdown is AutoShutdown.ANY_SIGNIFICANT:
            return True
        if self.rules.auto_shutdown is AutoShutdown.NEVER:
            return False
        over = (ChildState.ENDED, ChildState.WAITING)
        return all(kid.state in over for kid in self.kids if kid.significant)

    def _restart(self, kid: Kid, now: float) -> _Step:
        window, allowed = self.window.allow(self.rules.limit, now)
        counted = replace(self, window=window)
        if not allowed:
            return counted._give_up(kid.id, now)
        affected = self._affected(kid)
        stops = tuple(one.id for one in reversed(affected))
        starts = tuple(one.id for one in affected)  # the temporary ones are forgotten by then
        return replace(counted, stops=stops, starts=starts), (Restarting(kid.id),)

    def _affected(self, kid: Kid) -> tuple[Kid, ...]:
        if self.rules.strategy is Strategy.ONE_FOR_ONE:
            return (kid,)
        if self.rules.strategy is Strategy.ONE_FOR_ALL:
            return self.kids
        return self.kids[self.kids.index(kid) :]

    def _give_up(self, child: str, now: float) -> _Step:
        over = self._with(child, ChildState.ENDED)
        return _before(GaveUp(child), over._stop(ChildOutcome.GAVE_UP, now))

    def _stop(self, outcome: ChildOutcome, now: float) -> _Step:
        if self.state in (SupervisorState.STOPPING, SupervisorState.STOPPED):
            return self, ()
        live = (ChildState.STARTING, ChildState.RUNNING, ChildState.STOPPING)
        under_way = self.stops[:1]
        stops = tuple(kid.id for kid in reversed(self.kids) if kid.state in live)
        first = tuple(one for one in under_way if one in stops)
        last = tuple(one for one in stops if one not in first)
        return replace(
            self, state=SupervisorState.STOPPING, outcome=outcome,
            stops=(*first, *last), starts=(), backlog=(),
        )._advance(now)  # fmt: skip

    def _forget(self, child: str) -> Machine:
        return replace(self, kids=tuple(kid for kid in self.kids if kid.id != child))


def _before(order: Order, step: _Step) -> _Step:
    machine, orders = step
    return machine, (order, *orders)
