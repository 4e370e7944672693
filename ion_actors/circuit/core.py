"""The core of a breaker: the machine, its lock, and one call through it.

A call is three steps: ask the machine under the lock, make the call without it, tell the machine
under the lock. While the circuit is closed, the first step needs no lock. Logging, hooks and the
callback for a change of state happen after the lock was released.
"""

from __future__ import annotations

import logging
import threading
import types
from collections.abc import Callable
from typing import Any

from ion_actors.circuit.hooks import BreakerHooks
from ion_actors.circuit.machine import BreakerMachine, Change, CircuitMetrics, CircuitState, Permit
from ion_actors.circuit.rules import BreakerRules, CallOutcome, judge
from ion_actors.context import background, current_context
from ion_actors.errors import CircuitOpen
from ion_actors.forking import HOOKS_RAN, renew_after_fork, run_hooks
from ion_actors.interruption import is_interruption
from ion_actors.observe import Log, Span

__all__ = ["BreakerCore", "Guard", "OnStateChange"]

OnStateChange = Callable[[CircuitState, CircuitState], object]

_BACKGROUND = background()


class BreakerCore:
    """The state of one breaker.

    Attributes:
        lock: guards the machine. Reentrant, since a finalizer or a signal handler may make a call
            while its thread holds it.
        running: the calls that were let through and are not over. Added to without the lock, which
            adding to a set does not need; removed under it, so that a snapshot counts each call
            once.
    """

    def __init__(
        self,
        name: str,
        rules: BreakerRules,
        now: Callable[[], float],
        log: Log,
        hooks: BreakerHooks | None,
        on_state_change: OnStateChange | None,
    ) -> None:
        self.name = name
        self.rules = rules
        self.now = now
        self.hooks = hooks
        self._log = log
        self._on_state_change = on_state_change
        self.machine = BreakerMachine(rules)
        self.running: set[Guard] = set()
        self._make_locks()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """In a forked child: the calls that were running are not running here."""
        self._make_locks()
        self.running.clear()
        self.machine.forget_trials()

    def _make_locks(self) -> None:
        self.lock = threading.RLock()
        self._telling = (
            threading.Lock()
        )  # held by the thread that reports the changes; nothing waits for it

    def admit(self) -> Permit:
        """Admit a call while the circuit is not closed.

        Raises:
            CircuitOpen: it is rejected.
        """
        machine = self.machine
        answer = None
        try:
            with self.lock:
                answer = machine.admit(self.now())
            if machine.changes:
                self.tell()
        except BaseException:  # Ctrl-C in the callback: this call is not made
            if isinstance(answer, Permit):
                with self.lock:
                    machine.settle(answer, CallOutcome.CANCELLED, self.now())
            raise
        if isinstance(answer, Permit):
            return answer
        if self.hooks is not None:
            self.hooks.rejected(answer.state)
        raise CircuitOpen(self.name, answer.state, answer.retry_after)

    def returned(self, guard: Guard, permit: Permit) -> None:
        """A call has returned."""
        machine = self.machine
        with self.lock:
            self.running.discard(guard)
            machine.succeed(permit, self.now())
        if machine.changes:
            self.tell()

    def raised(self, guard: Guard, permit: Permit, error: BaseException) -> CallOutcome:
        """A call has raised this error. Returns how it counts."""
        outcome = CallOutcome.FAILED
        try:
            outcome = judge(error, self.name, self.rules.is_failure)
        finally:  # whatever the predicate does
            with self.lock:
                self.running.discard(guard)
                self.machine.settle(permit, outcome, self.now())
        if self.machine.changes:
            self.tell()
        return outcome

    def interrupted(self, guard: Guard, permit: Permit) -> None:
        """A call is over, and its end was interrupted: perhaps before it was counted."""
        with self.lock:
            if guard in self.running:
                self.running.discard(guard)
                self.machine.settle(permit, CallOutcome.CANCELLED, self.now())

    def trip(self, duration: float | None) -> None:
        """Open it."""
        if not HOOKS_RAN[0]:
            run_hooks()
        with self.lock:
            self.machine.trip(self.now(), duration)
        self.tell()

    def reset(self) -> None:
        """Close it."""
        if not HOOKS_RAN[0]:
            run_hooks()
        with self.lock:
            self.machine.reset(self.now())
        if self.hooks is not None:
            self.hooks.reset()
        self.tell()

    def state(self) -> CircuitState:
        """The state of this moment."""
        if not HOOKS_RAN[0]:
            run_hooks()
        with self.lock:
            return self.machine.state_at(self.now())

    def metrics(self) -> CircuitMetrics:
        """The numbers of this moment."""
        if not HOOKS_RAN[0]:
            run_hooks()
        with self.lock:
            return self.machine.metrics(self.name, self.now(), len(self.running))

    def tell(self) -> None:
        """Report the changes: in order, one at a time, whichever thread makes them."""
        changes = self.machine.changes
        # If another thread is reporting, it also reports ours. It may have found no more just
        # before ours came, so the check is repeated after its release, by it or by this one.
        while changes and self._telling.acquire(blocking=False):
            try:
                while changes:
                    self._tell_of(changes.popleft())
            finally:
                self._telling.release()

    def _tell_of(self, change: Change) -> None:
        level = logging.WARNING if change.new is CircuitState.OPEN else logging.INFO
        self._log(
            level,
            "circuit %r: %s to %s (%s)",
            self.name,
            change.old.value,
            change.new.value,
            change.reason,
            old_state=change.old.value,
            new_state=change.new.value,
            reason=change.reason,
        )
        if self.hooks is not None:
            self.hooks.changed(change)
        if self._on_state_change is None:
            return
        try:
            self._on_state_change(change.old, change.new)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            if is_interruption(error):
                raise
            self._log(logging.ERROR, "on_state_change of circuit %r failed", self.name, error=error)


class Guard:
    """One call through a breaker, as a ``with`` or ``async with`` block.

    Entering raises :class:`ion_actors.CircuitOpen` if the call is rejected, and what
    :meth:`ion_actors.Context.check` raises if the current context has ended: such a call is not
    counted, since it was not made. How the block is left is the result of the call. A guard may be
    used again, but not while it is in use.
    """

    _permit: Permit | None
    _kept: Permit | None  # of a call that goes on after its block

    __slots__ = ("_began", "_kept", "_permit", "_span", "core")

    def __init__(self, core: BreakerCore) -> None:
        self.core = core
        self._permit = self._kept = None

    @property
    def in_use(self) -> bool:
        """Whether its block was entered and not left."""
        return self._permit is not None

    def __enter__(self) -> None:
        if not HOOKS_RAN[0]:
            run_hooks()
        if self._permit is not None:
            raise RuntimeError("this guard() is in use; each call needs its own")
        context = current_context()
        if context is not _BACKGROUND:  # that never ends: most calls skip the check
            context.check()
        core = self.core
        self._permit = permit = core.machine.pass_ or core.admit()
        try:
            core.running.add(self)
            if core.hooks is not None:
                self._began = core.now()
                self._span: Span | None = core.hooks.admitted(permit.state)
        except BaseException:  # Ctrl-C: the call is not made, and its block is never left
            self.withdraw()
            raise

    def withdraw(self) -> None:
        """The call was let through, but is not made: it counts as cancelled."""
        permit, self._permit = self._permit, None
        if permit is not None:
            with self.core.lock:
                self.core.running.discard(self)
                self.core.machine.settle(permit, CallOutcome.CANCELLED, self.core.now())

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: types.TracebackType | None,
    ) -> None:
        permit, self._permit = self._permit, None
        if permit is None:
            self._leave_later()
            return
        try:
            if self.core.hooks is not None:
                self._leave_watched(self.core, self.core.hooks, permit, exc)
            elif exc is None:
                self.core.returned(self, permit)
            else:
                self.core.raised(self, permit, exc)
        except BaseException:  # Ctrl-C
            self.core.interrupted(self, permit)
            raise

    def keep(self) -> None:
        """The call goes on after this block: the next time it is left, nothing happens."""
        self._kept, self._permit = self._permit, None

    def _leave_later(self) -> None:
        if self._kept is None:
            raise RuntimeError("this guard() was not entered, or was left before")
        self._permit, self._kept = self._kept, None

    def _leave_watched(
        self, core: BreakerCore, hooks: BreakerHooks, permit: Permit, exc: BaseException | None
    ) -> None:
        took = core.now() - self._began
        outcome = CallOutcome.SUCCEEDED if exc is None else CallOutcome.FAILED
        try:
            if exc is None:
                core.returned(self, permit)
            else:
                outcome = core.raised(self, permit, exc)
        finally:  # Ctrl-C in the predicate, or in the callback
            hooks.ended(outcome, took, self._span, exc)

    async def __aenter__(self) -> None:
        self.__enter__()

    async def __aexit__(self, *error: Any) -> None:
        self.__exit__(*error)
