"""The breaker as its users have it: a thin shell around the machine.

A call is three steps: ask the machine under the lock, make the call without it, tell the machine
under the lock. What a change of state sets off (the log, the hooks, the callback) happens after the
lock was let go.
"""

from __future__ import annotations

import contextvars
import logging
import os
import threading
import types
import weakref
from collections.abc import Awaitable, Callable
from typing import Any, ParamSpec, Self, TypedDict, TypeVar, Unpack

from ion_actors._arguments import optional_callable, seconds
from ion_actors.circuit.hooks import Hooks
from ion_actors.circuit.machine import Change, CircuitMetrics, CircuitState, Machine, Permit
from ion_actors.circuit.rules import FailureRate, IsFailure, Outcome, Rules, judge
from ion_actors.clock import Clock
from ion_actors.context import background, current_context
from ion_actors.errors import CircuitOpen
from ion_actors.observe import Log, Metrics, Probe, Span, Tracer
from ion_actors.wrapping import Wrapper

__all__ = ["CircuitBreaker", "Guard", "Options"]

P = ParamSpec("P")
T = TypeVar("T")

_BACKGROUND = background()


class Options(TypedDict, total=False):
    """The keyword arguments of :class:`CircuitBreaker`."""

    failure_threshold: int | None
    recovery_timeout: float
    half_open_max_requests: int
    half_open_success_threshold: int
    trial_timeout: float | None
    is_failure: IsFailure | None
    on_state_change: Callable[[CircuitState, CircuitState], object] | None
    window: FailureRate | None
    logger: logging.Logger | None
    metrics: Metrics | None
    tracer: Tracer | None
    clock: Clock | None


class CircuitBreaker:
    """Turns calls away from what keeps failing, and finds out when it works again.

    Args:
        name: for errors, logs and metrics.
        failure_threshold: open after so many failures in a row; by default 5, or with a ``window``
            no such limit.
        recovery_timeout: seconds that it stays open before calls are let through as trials.
        half_open_max_requests: how many trials there may be at a time.
        half_open_success_threshold: how many of them have to succeed for it to close. May be more
            than the former: then they are made one after the other. One failure opens it again.
        trial_timeout: seconds after which a trial that has not ended no longer keeps its slot from
            others; its result still counts when it comes. None for never: then a trial that hangs
            keeps its slot for ever.
        is_failure: which exceptions are failures: types, or a predicate; by default all. The others
            are neither failures nor successes. What is not an ``Exception`` is not asked about.
        on_state_change: told of each change with the old and the new state, in order, one at a
            time, and under no lock. What it raises is logged.
        window: open at a failure rate, too.
        logger: gets the changes of state, with the facts in ``extra``; by default the logger
            ``ion_actors.circuit``.
        metrics: gets counters and durations: see :mod:`ion_actors.observe`.
        tracer: gets a span for each call that is let through.
        clock: what tells the time; by default that of the context that is current when the breaker
            is made.

    Raises:
        TypeError, ValueError: an argument makes no sense; the message names it.

    It may be shared by any number of threads and event loops. As a decorator it guards every call
    of a function, as a ``with`` or ``async with`` block what is done inside; see :meth:`guard`
    for blocks that are entered in one place and left in another.
    """

    def __init__(
        self,
        name: str,
        *,
        failure_threshold: int | None = None,
        recovery_timeout: float = 30.0,
        half_open_max_requests: int = 3,
        half_open_success_threshold: int = 2,
        trial_timeout: float | None = 60.0,
        is_failure: IsFailure | None = None,
        on_state_change: Callable[[CircuitState, CircuitState], object] | None = None,
        window: FailureRate | None = None,
        logger: logging.Logger | None = None,
        metrics: Metrics | None = None,
        tracer: Tracer | None = None,
        clock: Clock | None = None,
    ) -> None:
        _check_name(name)
        optional_callable("on_state_change", on_state_change)
        probe = Probe.checked(metrics, tracer, circuit=name)
        self._name = name
        self._rules = Rules(
            failure_threshold, recovery_timeout, half_open_max_requests,
            half_open_success_threshold, trial_timeout, is_failure, window,
        )  # fmt: skip
        self._on_state_change = on_state_change
        self._log = Log(logger, "ion_actors.circuit", circuit=name)
        self._hooks = None if probe is None else Hooks(probe)
        _check_clock(clock)
        self._now = (current_context().clock if clock is None else clock).monotonic
        self._machine = Machine(self._rules)
        # The calls that were let through and are not over. Added to without the lock, which adding
        # to a set does not need; taken out under it, so that metrics() sees each call once.
        self._running: set[Guard] = set()
        self._make_locks()
        _breakers.add(self)

    def _make_locks(self) -> None:
        # Guards the machine. Reentrant, since a finalizer or a signal handler may make a call
        # while its thread is in here.
        self._lock = threading.RLock()
        self._telling = threading.Lock()  # held by who tells of the changes; nobody waits for it

    # -- presets ---------------------------------------------------------------------------

    @classmethod
    def quick_failover(cls, name: str, **options: Unpack[Options]) -> Self:
        """Opens after 3 failures, tries again after 10 s: 2 trials at a time, 1 success closes.

        For what has a substitute, so that losing it for a moment matters little. ``options`` are
        those of :class:`CircuitBreaker`, and beat the preset.
        """
        return cls(name, **(_QUICK_FAILOVER | options))

    @classmethod
    def conservative(cls, name: str, **options: Unpack[Options]) -> Self:
        """Opens after 10 failures, tries again after 60 s: 5 trials at a time, 3 successes close.

        For what has no substitute: slow to give up, and slow to trust again. ``options`` are those
        of :class:`CircuitBreaker`, and beat the preset.
        """
        return cls(name, **(_CONSERVATIVE | options))

    @classmethod
    def aggressive(cls, name: str, **options: Unpack[Options]) -> Self:
        """Opens after 2 failures, tries again after 45 s: 1 trial at a time, 1 success closes.

        For what must be spared, or takes others down when it fails. ``options`` are those of
        :class:`CircuitBreaker`, and beat the preset.
        """
        return cls(name, **(_AGGRESSIVE | options))

    # -- calls -----------------------------------------------------------------------------

    def execute(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call ``fn(*args, **kwargs)``, if the breaker lets it through, and return its result.

        Raises:
            CircuitOpen: it was turned away; ``fn`` was not called.
            Cancelled, DeadlineExceeded: the current context has ended; ``fn`` was not called.
            TypeError: ``fn`` returned a coroutine; use :meth:`aexecute` for those.
        """
        with Guard(self):
            result = fn(*args, **kwargs)
        if isinstance(result, types.CoroutineType):
            result.close()
            raise TypeError(f"{fn!r} is a coroutine function; use aexecute() or wrap")
        return result

    async def aexecute(
        self, fn: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """:meth:`execute` for coroutine functions: ``await fn(*args, **kwargs)``."""
        with Guard(self):
            return await fn(*args, **kwargs)

    call = execute
    acall = aexecute

    @property
    def wrap(self) -> Wrapper:
        """A decorator for functions and coroutine functions that composes with others by ``|``.

        So a pool takes it as its ``task_wrapper``.
        """
        return Wrapper(self.guard, self.guard)

    def __call__(self, fn: Callable[P, T], /) -> Callable[P, T]:
        """``fn``, with every call of it made through the breaker; the same as ``wrap(fn)``."""
        return self.wrap(fn)

    def guard(self) -> Guard:
        """The block of one call, ``with`` or ``async with``.

        The breaker itself serves as such a block, too. It remembers its calls in a context
        variable. So who leaves a block in another context than it was entered in (in a generator
        that a framework drives from several threads, say) needs one of these.
        """
        return Guard(self)

    def __enter__(self) -> None:
        guard = Guard(self)
        guard.__enter__()
        _ENTERED.set((guard, _ENTERED.get()))

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: types.TracebackType | None,
    ) -> None:
        self._entered().__exit__(exc_type, exc, traceback)

    async def __aenter__(self) -> None:
        self.__enter__()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: types.TracebackType | None,
    ) -> None:
        self.__exit__(exc_type, exc, traceback)

    def _entered(self) -> Guard:
        """The innermost call of this breaker in this context, which is taken off the stack."""
        passed = []
        stack = _ENTERED.get()
        while stack is not None and stack[0].breaker is not self:
            passed.append(stack[0])
            stack = stack[1]
        if stack is None:
            raise RuntimeError(
                f"a block of circuit {self._name!r} is left in a context where it was not entered; "
                "use guard()"
            )
        found, stack = stack
        for guard in reversed(passed):
            stack = (guard, stack)
        _ENTERED.set(stack)
        return found

    # -- by hand ---------------------------------------------------------------------------

    def trip(self, duration: float | None = None) -> None:
        """Open it now, whatever its state is.

        Args:
            duration: seconds until trials are made; by default the recovery timeout. With
                ``math.inf`` it stays open until :meth:`reset`.
        """
        if duration is not None:
            limit = seconds("duration", duration)
            duration = float("inf") if limit is None else limit
        with self._lock:
            self._machine.trip(self._now(), duration)
        self._tell()

    def reset(self) -> None:
        """Close it now, with all counts of failures at zero. Calls that still run say nothing."""
        with self._lock:
            self._machine.reset(self._now())
        if self._hooks is not None:
            self._hooks.reset()
        self._tell()

    # -- facts -----------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The breaker's name."""
        return self._name

    @property
    def state(self) -> CircuitState:
        """CLOSED, OPEN or HALF_OPEN.

        HALF_OPEN as soon as it is time for a trial; ``on_state_change`` hears of it when one comes.
        """
        with self._lock:
            return self._machine.state_at(self._now())

    def metrics(self) -> CircuitMetrics:
        """The numbers of this moment."""
        with self._lock:
            return self._machine.metrics(self._name, self._now(), len(self._running))

    def __repr__(self) -> str:
        return f"<CircuitBreaker {self._name!r} {self.state.value}>"

    # -- behind the guard --------------------------------------------------------------------

    def _admit(self) -> Permit:
        machine = self._machine
        with self._lock:
            answer = machine.admit(self._now())
        if machine.changes:
            self._tell()
        if isinstance(answer, Permit):
            return answer
        if self._hooks is not None:
            self._hooks.rejected(answer.state)
        raise CircuitOpen(self._name, answer.state, answer.retry_after)

    def _returned(self, guard: Guard, permit: Permit) -> None:
        machine = self._machine
        with self._lock:
            self._running.discard(guard)
            machine.succeed(permit, self._now())
        if machine.changes:
            self._tell()

    def _raised(self, guard: Guard, permit: Permit, error: BaseException) -> Outcome:
        outcome = Outcome.FAILED
        try:
            outcome = judge(error, self._name, self._rules.is_failure)
        finally:  # whatever a predicate does
            with self._lock:
                self._running.discard(guard)
                self._machine.settle(permit, outcome, self._now())
        if self._machine.changes:
            self._tell()
        return outcome

    def _tell(self) -> None:
        """Tell of the changes: in order, one at a time, whoever makes them."""
        changes = self._machine.changes
        # If another thread is at it, it will tell of ours as well. It may have found no more just
        # before ours came, so there is another look after it has let go: by it or by us.
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
            self._name,
            change.old.value,
            change.new.value,
            change.reason,
            old_state=change.old.value,
            new_state=change.new.value,
            reason=change.reason,
        )
        if self._hooks is not None:
            self._hooks.changed(change)
        if self._on_state_change is None:
            return
        try:
            self._on_state_change(change.old, change.new)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            self._log(
                logging.ERROR, "on_state_change of circuit %r failed", self._name, error=error
            )


class Guard:
    """One call through a breaker, as a ``with`` or ``async with`` block.

    Entering raises :class:`ion_actors.CircuitOpen` if the call is turned away, and what
    :meth:`ion_actors.Context.check` raises if the current context has ended: such a call counts as
    nothing, since it was not made. How the block is left is the result of the call. A guard may be
    used again, but not while it is in use.
    """

    __slots__ = ("_began", "_permit", "_span", "breaker")

    def __init__(self, breaker: CircuitBreaker) -> None:
        self.breaker = breaker
        self._permit: Permit | None = None

    def __enter__(self) -> None:
        if self._permit is not None:
            raise RuntimeError("this guard() is in use; each call needs its own")
        context = current_context()
        if context is not _BACKGROUND:  # that never ends; most calls are spared the question
            context.check()
        breaker = self.breaker
        self._permit = permit = breaker._machine.pass_ or breaker._admit()
        breaker._running.add(self)
        if breaker._hooks is not None:
            self._began = breaker._now()
            self._span: Span | None = breaker._hooks.admitted(permit.state)

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: types.TracebackType | None,
    ) -> None:
        permit, self._permit = self._permit, None
        if permit is None:
            raise RuntimeError("this guard() was not entered, or was left before")
        if self.breaker._hooks is not None:
            self._leave_watched(self.breaker, self.breaker._hooks, permit, exc)
        elif exc is None:
            self.breaker._returned(self, permit)
        else:
            self.breaker._raised(self, permit, exc)

    def _leave_watched(
        self, breaker: CircuitBreaker, hooks: Hooks, permit: Permit, exc: BaseException | None
    ) -> None:
        took = breaker._now() - self._began
        outcome = Outcome.SUCCEEDED
        if exc is None:
            breaker._returned(self, permit)
        else:
            outcome = breaker._raised(self, permit, exc)
        hooks.ended(outcome, took, self._span, exc)

    async def __aenter__(self) -> None:
        self.__enter__()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: types.TracebackType | None,
    ) -> None:
        self.__exit__(exc_type, exc, traceback)


def _check_name(name: object) -> None:
    if not isinstance(name, str):
        raise TypeError(f"name must be a string, not {name!r}")
    if not name:
        raise ValueError("name must not be empty")


def _check_clock(clock: object) -> None:
    if clock is not None and not callable(getattr(clock, "monotonic", None)):
        raise TypeError(f"clock must be a Clock or None, not {clock!r}")


_QUICK_FAILOVER: Options = {
    "failure_threshold": 3,
    "recovery_timeout": 10.0,
    "half_open_max_requests": 2,
    "half_open_success_threshold": 1,
}
_CONSERVATIVE: Options = {
    "failure_threshold": 10,
    "recovery_timeout": 60.0,
    "half_open_max_requests": 5,
    "half_open_success_threshold": 3,
}
_AGGRESSIVE: Options = {
    "failure_threshold": 2,
    "recovery_timeout": 45.0,
    "half_open_max_requests": 1,
    "half_open_success_threshold": 1,
}

# The calls whose `with breaker:` block this context is in, innermost first.
_ENTERED: contextvars.ContextVar[tuple[Guard, Any] | None] = contextvars.ContextVar(
    "ion_actors_circuit", default=None
)

_breakers: weakref.WeakSet[CircuitBreaker] = weakref.WeakSet()


def _after_fork() -> None:
    """In a forked child: locks may be held, and calls be made, by threads that are not here."""
    for breaker in _breakers:
        breaker._make_locks()
        breaker._running.clear()
        breaker._machine.forget_trials()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
