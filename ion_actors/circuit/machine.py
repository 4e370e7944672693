"""A breaker as a state machine: no threads, no clock, no hooks; every method is told the time.

::

               failures reach the threshold, or the rate
       CLOSED ───────────────────────────────────────────▶ OPEN ◀─────────┐
         ▲                                                   │            │
         │ enough trials           recovery_timeout has passed            │ a trial
         │ succeeded               and a call comes          │            │ failed
         │                                                   ▼            │
         └─────────────────────────────────────────────── HALF_OPEN ──────┘

Each arrow begins a new generation, and so does a reset. A call has a permit of the generation that
admitted it. Its result is always counted; but a result of an older generation changes no state: it
is out of date.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

from ion_actors.circuit.rules import BreakerRules, CallOutcome
from ion_actors.circuit.window import Window, window_of
from ion_actors.facts import CircuitState

__all__ = ["BreakerMachine", "Change", "CircuitMetrics", "CircuitState", "Permit", "Refusal"]


@dataclass(frozen=True, slots=True)
class Change:
    """The breaker went from one state to another."""

    old: CircuitState
    new: CircuitState
    reason: str


@dataclass(frozen=True, slots=True)
class CircuitMetrics:
    """One moment of a breaker, in calls unless said otherwise.

    ``requests = running + succeeded + failed + ignored + cancelled``, always. Moments are those of
    the breaker's clock, None if it never happened.
    """

    name: str  #: of the breaker
    state: CircuitState
    requests: int  #: let through
    rejected: int  #: turned away
    running: int  #: let through, and not over
    succeeded: int  #: returned
    failed: int  #: raised what counts as a failure
    ignored: int  #: raised what does not
    cancelled: int  #: were called off
    consecutive_failures: int  #: since the last success, while closed
    failure_rate: float | None  #: 0 to 1, of the window or else of all; None while it has no calls
    trials: int  #: half-open slots that are taken
    state_changes: int
    retry_after: float  #: seconds until a call makes sense; 0 if one would go through now
    last_success: float | None
    last_failure: float | None
    last_state_change: float | None

    @property
    def success_rate(self) -> float | None:
        """What is left of 1 by :attr:`failure_rate`; None while that is None."""
        return None if self.failure_rate is None else 1.0 - self.failure_rate

    @property
    def is_healthy(self) -> bool:
        """Whether it is closed, and the last call that counts has succeeded, if there was one."""
        return self.state is CircuitState.CLOSED and not self.consecutive_failures


class Permit:
    """A call was admitted; compared by identity."""

    __slots__ = ("generation", "state")

    def __init__(self, generation: int, state: CircuitState) -> None:
        self.generation = generation
        self.state = state


class Refusal(NamedTuple):
    """A call was rejected."""

    state: CircuitState
    retry_after: float


class BreakerMachine:
    """The machine. The caller makes sure that only one thread uses it at a time.

    Attributes:
        state: as of the last call; whether an OPEN one is ripe for a trial, :meth:`state_at` says.
        pass_: while CLOSED, the permit that every call gets; else None, and :meth:`admit` decides.
            Any thread may read it without a lock.
        changes: the changes to report, oldest first; whoever reports one removes it.
    """

    def __init__(self, rules: BreakerRules) -> None:
        self._rules = rules
        self.changes: deque[Change] = deque()
        self.state = CircuitState.CLOSED
        self._until = 0.0  # while OPEN: when a trial may be made
        # Of this generation:
        self._generation = 0
        self.pass_: Permit | None = Permit(0, CircuitState.CLOSED)
        self._failures = 0  # in a row
        self._window = self._new_window()
        self._trials: dict[Permit, float] = {}  # and when each gives up its slot
        self._trial_successes = 0
        # Of all time:
        self._rejected = 0
        self._succeeded = self._failed = self._ignored = self._cancelled = 0
        self._last_success: float | None = None
        self._last_failure: float | None = None
        self._last_change: float | None = None
        self._state_changes = 0

    # -- calls -----------------------------------------------------------------------------

    def admit(self, now: float) -> Permit | Refusal:
        """Admit or reject a call."""
        if self.pass_ is not None:
            return self.pass_
        if self.state_at(now) is CircuitState.HALF_OPEN:
            if self.state is CircuitState.OPEN:
                self._go(CircuitState.HALF_OPEN, now, "it is time for a trial")
            if self._free_slots(now):
                return self._trial(now)
        self._rejected += 1
        return Refusal(self.state, self.retry_after(now))

    def settle(self, permit: Permit, outcome: CallOutcome, now: float) -> None:
        """An admitted call is over."""
        if outcome is CallOutcome.SUCCEEDED:
            self.succeed(permit, now)
            return
        says = self._end_trial(permit)
        if outcome is CallOutcome.FAILED:
            self._failed += 1
            self._last_failure = now
            if says:
                self._note_failure(now)
        elif outcome is CallOutcome.IGNORED:
            self._ignored += 1
        else:
            self._cancelled += 1

    def succeed(self, permit: Permit, now: float) -> None:
        """:meth:`settle` for the usual case, on the hot path of every call."""
        self._succeeded += 1
        self._last_success = now
        if permit is self.pass_:
            self._failures = 0
            if self._window is not None:
                self._window.add(now, failed=False)
        elif self._end_trial(permit):
            self._note_trial_success(now)

    def _end_trial(self, permit: Permit) -> bool:
        """Free its slot, if it has one. Returns whether its result is up to date."""
        self._trials.pop(permit, None)
        return permit.generation == self._generation

    def _trial(self, now: float) -> Permit:
        timeout = self._rules.trial_timeout
        permit = Permit(self._generation, CircuitState.HALF_OPEN)
        self._trials[permit] = float("inf") if timeout is None else now + timeout
        return permit

    def _free_slots(self, now: float) -> int:
        # A stuck trial must not keep the breaker half-open for ever. It does not count as failed,
        # either: it may just be slow, and then its success counts as any other. It only loses its
        # slot.
        for hanging in [one for one, until in self._trials.items() if now >= until]:
            del self._trials[hanging]
        return self._rules.half_open_max_requests - len(self._trials)

    def forget_trials(self) -> None:
        """Running trials will never end here; free their slots."""
        self._trials.clear()

    def _note_trial_success(self, now: float) -> None:
        self._trial_successes += 1
        if self._trial_successes >= self._rules.half_open_success_threshold:
            self._go(CircuitState.CLOSED, now, f"successful trials: {self._trial_successes}")

    def _note_failure(self, now: float) -> None:
        if self.state is not CircuitState.CLOSED:
            self._open(now, self._rules.recovery_timeout, "a trial failed")
            return
        self._failures += 1
        if self._window is not None:
            self._window.add(now, failed=True)
        if (reason := self._why_open(now)) is not None:
            self._open(now, self._rules.recovery_timeout, reason)

    def _why_open(self, now: float) -> str | None:
        threshold, policy = self._rules.failure_threshold, self._rules.window
        if threshold is not None and self._failures >= threshold:
            return f"failures in a row: {self._failures}"
        if self._window is None or policy is None:
            return None
        total, failures = self._window.counts(now)
        if total < (policy.minimum or 0) or failures < policy.rate * total:
            return None
        return f"{failures} of {total} calls failed"

    # -- by hand ---------------------------------------------------------------------------

    def trip(self, now: float, duration: float | None) -> None:
        """Open now, for so many seconds or the recovery timeout."""
        duration = self._rules.recovery_timeout if duration is None else duration
        self._open(now, duration, "it was tripped by hand")

    def reset(self, now: float) -> None:
        """Close now; results of running calls are ignored."""
        self._go(CircuitState.CLOSED, now, "it was reset by hand")

    # -- changes ---------------------------------------------------------------------------

    def _open(self, now: float, duration: float, reason: str) -> None:
        self._until = now + duration
        self._go(CircuitState.OPEN, now, reason)

    def _go(self, new: CircuitState, now: float, reason: str) -> None:
        old, self.state = self.state, new
        self._generation += 1
        self.pass_ = Permit(self._generation, new) if new is CircuitState.CLOSED else None
        self._failures = 0
        self._window = self._new_window()
        self._trials.clear()
        self._trial_successes = 0
        if new is not old:
            self._state_changes += 1
            self._last_change = now
            self.changes.append(Change(old, new, reason))

    def _new_window(self) -> Window | None:
        return None if self._rules.window is None else window_of(self._rules.window)

    # -- facts -----------------------------------------------------------------------------

    @property
    def generation(self) -> int:
        """How many changes and resets there were."""
        return self._generation

    def state_at(self, now: float) -> CircuitState:
        """The current state: OPEN becomes HALF_OPEN when its time has passed."""
        if self.state is CircuitState.OPEN and now >= self._until:
            return CircuitState.HALF_OPEN
        return self.state

    def retry_after(self, now: float) -> float:
        """Seconds until a call makes sense again.

        It is unknown when the running trials will end; a tenth of the recovery timeout is soon
        enough to notice, and late enough to prevent busy loops.
        """
        if self.state_at(now) is CircuitState.OPEN:
            return self._until - now
        if self.state is CircuitState.HALF_OPEN and not self._free_slots(now):
            return self._rules.recovery_timeout / 10
        return 0.0

    def _judged(self, now: float) -> tuple[int, int]:
        """The calls that the failure rate is of, and how many of them have failed."""
        if self._rules.window is None:
            return self._succeeded + self._failed, self._failed
        return (0, 0) if self._window is None else self._window.counts(now)

    def metrics(self, name: str, now: float, running: int) -> CircuitMetrics:
        """The current numbers; the caller passes the number of running calls."""
        total, failures = self._judged(now)
        retry_after = self.retry_after(now)  # first: it frees the slots of stuck trials
        ended = self._succeeded + self._failed + self._ignored + self._cancelled
        return CircuitMetrics(
            name=name,
            state=self.state_at(now),
            requests=ended + running,
            rejected=self._rejected,
            running=running,
            succeeded=self._succeeded,
            failed=self._failed,
            ignored=self._ignored,
            cancelled=self._cancelled,
            consecutive_failures=self._failures,
            failure_rate=failures / total if total else None,
            trials=len(self._trials),
            state_changes=self._state_changes,
            retry_after=retry_after,
            last_success=self._last_success,
            last_failure=self._last_failure,
            last_state_change=self._last_change,
        )
