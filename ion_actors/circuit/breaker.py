"""The public circuit breaker."""

from __future__ import annotations

import contextvars
import logging
import types
from collections.abc import Awaitable, Callable
from typing import Any, ParamSpec, Self, TypedDict, TypeVar, Unpack

from ion_actors._arguments import optional_callable, seconds
from ion_actors.awaitables import is_coroutine
from ion_actors.circuit.core import BreakerCore, Guard, OnStateChange
from ion_actors.circuit.hooks import BreakerHooks
from ion_actors.circuit.machine import CircuitMetrics, CircuitState
from ion_actors.circuit.rules import BreakerRules, FailureRate, IsFailure
from ion_actors.clock import Clock
from ion_actors.context import background, current_context
from ion_actors.observe import Log, Metrics, Probe, Tracer
from ion_actors.observe.living import BREAKERS
from ion_actors.wrapping import Wrapper

__all__ = ["CircuitBreaker", "Options"]

P = ParamSpec("P")
T = TypeVar("T")

_BACKGROUND = background()

_Stack = tuple[Guard, Any] | None  # the innermost call, and the others


class Options(TypedDict, total=False):
    """The keyword arguments of :class:`CircuitBreaker`."""

    failure_threshold: int | None
    recovery_timeout: float
    half_open_max_requests: int
    half_open_success_threshold: int
    trial_timeout: float | None
    is_failure: IsFailure | None
    on_state_change: OnStateChange | None
    window: FailureRate | None
    logger: logging.Logger | None
    metrics: Metrics | None
    tracer: Tracer | None
    clock: Clock | None


class CircuitBreaker:
    """Rejects calls to a service that keeps failing, and finds out when it works again.

    Args:
        name: for errors, logs and metrics.
        failure_threshold: open after so many failures in a row; by default 5, or with a ``window``
            no such limit.
        recovery_timeout: seconds that it stays open before calls are let through as trials.
        half_open_max_requests: how many trials there may be at a time.
        half_open_success_threshold: how many of them have to succeed for it to close. May be more
            than the former: then they are made one after the other. One failure opens it again.
        trial_timeout: seconds after which a trial that has not ended no longer keeps its slot from
            others; its result still counts when it comes. None for never: then a stuck trial keeps
            its slot for ever.
        is_failure: which exceptions are failures: types, or a predicate; by default all. The others
            are neither failures nor successes. What is not an ``Exception`` is not asked about.
        on_state_change: called at each change with the old and the new state, in order, one at a
            time, and under no lock. What it raises is logged.
        window: also open at a failure rate.
        logger: gets the changes of state, with the facts in ``extra``; by default the logger
            ``ion_actors.circuit``.
        metrics: gets counters and durations: see :mod:`ion_actors.observe`.
        tracer: gets a span for each call that is let through.
        clock: the clock to use; by default that of the context that is current when the breaker is
            made.

    Raises:
        TypeError, ValueError: an argument makes no sense; the message names it.

    It may be shared by any number of threads and event loops. As a decorator it guards every call
    of a function, as a ``with`` or ``async with`` block the code inside; see :meth:`guard` for
    blocks that are entered in one place and left in another.
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
        on_state_change: OnStateChange | None = None,
        window: FailureRate | None = None,
        logger: logging.Logger | None = None,
        metrics: Metrics | None = None,
        tracer: Tracer | None = None,
        clock: Clock | None = None,
    ) -> None:
        _check_name(name)
        optional_callable("on_state_change", on_state_change)
        probe = Probe.checked(metrics, tracer, circuit=name)
        rules = BreakerRules(
            failure_threshold, recovery_timeout, half_open_max_requests,
            half_open_success_threshold, trial_timeout, is_failure, window,
        )  # fmt: skip
        log = Log(logger, "ion_actors.circuit", circuit=name)
        hooks = None if probe is None else BreakerHooks(probe)
        _check_clock(clock)
        now = (current_context().clock if clock is None else clock).monotonic
        self._core = BreakerCore(name, rules, now, log, hooks, on_state_change)
        BREAKERS.add(self)

    # -- presets ---------------------------------------------------------------------------

    @classmethod
    def quick_failover(cls, name: str, **options: Unpack[Options]) -> Self:
        """Opens after 3 failures, tries again after 10 s: 2 trials at a time, 1 success closes.

        For services that have a substitute, so that losing them for a moment matters little.
        ``options`` are those of :class:`CircuitBreaker`, and override the preset.
        """
        return cls(name, **(_QUICK_FAILOVER | options))

    @classmethod
    def conservative(cls, name: str, **options: Unpack[Options]) -> Self:
        """Opens after 10 failures, tries again after 60 s: 5 trials at a time, 3 successes close.

        For services without a substitute: slow to give up, and slow to trust again. ``options`` are
        those of :class:`CircuitBreaker`, and override the preset.
        """
        return cls(name, **(_CONSERVATIVE | options))

    @classmethod
    def aggressive(cls, name: str, **options: Unpack[Options]) -> Self:
        """Opens after 2 failures, tries again after 45 s: 1 trial at a time, 1 success closes.

        For services that must be protected, or whose failures take others down. ``options`` are
        those of :class:`CircuitBreaker`, and override the preset.
        """
        return cls(name, **(_AGGRESSIVE | options))

    # -- calls -----------------------------------------------------------------------------

    def execute(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call ``fn(*args, **kwargs)``, if the breaker lets it through, and return its result.

        Raises:
            CircuitOpen: it was rejected; ``fn`` was not called.
            Cancelled, DeadlineExceeded: the current context has ended; ``fn`` was not called.
            TypeError: ``fn`` returned a coroutine; use :meth:`aexecute` for those.
        """
        guard = Guard(self._core)
        with guard:
            result = fn(*args, **kwargs)
            if not is_coroutine(result):
                return result
            guard.keep()
        result.close()
        guard.__exit__(GeneratorExit, GeneratorExit(), None)  # neither a success nor a failure
        raise TypeError(f"{fn!r} returned a coroutine; use aexecute() or wrap")

    async def aexecute(
        self, fn: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """:meth:`execute` for coroutine functions: ``await fn(*args, **kwargs)``."""
        with Guard(self._core):
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
        variable. So code that leaves a block in another context than it was entered in (for
        example in a generator that a framework drives from several threads) needs one of these.
        """
        return Guard(self._core)

    def __enter__(self) -> None:
        before, guard = _in_progress(_ENTERED.get()), Guard(self._core)
        try:
            guard.__enter__()
            _ENTERED.set((guard, before))
        except BaseException:  # Ctrl-C: the block does not begin
            guard.withdraw()
            _ENTERED.set(before)
            raise

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: types.TracebackType | None,
    ) -> None:
        guard = None
        try:
            guard = self._entered()
            guard.__exit__(exc_type, exc, traceback)
            self._take_off(guard)
        except BaseException:  # Ctrl-C: nobody leaves this block again
            guard = guard or self._entered()
            if guard.in_use:
                guard.__exit__(exc_type, exc, traceback)
            self._take_off(guard)
            raise

    async def __aenter__(self) -> None:
        self.__enter__()

    async def __aexit__(self, *error: Any) -> None:
        self.__exit__(*error)

    def _entered(self) -> Guard:
        """The innermost call of this breaker in this context."""
        stack = _ENTERED.get()
        while stack is not None and stack[0].core is not self._core:
            stack = stack[1]
        if stack is None:
            raise RuntimeError(
                f"a block of circuit {self.name!r} is left in a context where it was not entered; "
                "use guard()"
            )
        return stack[0]

    def _take_off(self, guard: Guard) -> None:
        """Take a call off the stack, if it is there."""
        _ENTERED.set(_without(_ENTERED.get(), lambda one: one is guard))

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
        self._core.trip(duration)

    def reset(self) -> None:
        """Close it now, with all counts of failures at zero. Running calls are ignored."""
        self._core.reset()

    # -- facts -----------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The breaker's name."""
        return self._core.name

    @property
    def state(self) -> CircuitState:
        """CLOSED, OPEN or HALF_OPEN.

        HALF_OPEN as soon as a trial is due; ``on_state_change`` is called when one comes.
        """
        return self._core.state()

    def metrics(self) -> CircuitMetrics:
        """The numbers of this moment."""
        return self._core.metrics()

    def __repr__(self) -> str:
        return f"<CircuitBreaker {self.name!r} {self.state.value}>"


def _in_progress(stack: _Stack) -> _Stack:
    """The stack without the calls that are over.

    There are some in a copy of the variables that was made inside a block: in a chain of tasks that
    start their successors in such blocks, the stack would grow for ever.
    """
    return _without(stack, lambda guard: not guard.in_use)


def _without(stack: _Stack, is_off: Callable[[Guard], bool]) -> _Stack:
    passed, rest = [], stack
    while rest is not None:
        passed.append(rest[0])
        rest = rest[1]
    kept = [guard for guard in passed if not is_off(guard)]
    if len(kept) == len(passed):
        return stack
    for guard in reversed(kept):
        rest = (guard, rest)
    return rest


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

# The calls of the `with breaker:` blocks around this point, innermost first.
_ENTERED: contextvars.ContextVar[_Stack] = contextvars.ContextVar(
    "ion_actors_circuit", default=None
)
