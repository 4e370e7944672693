"""The checked settings of a breaker, and how exceptions of calls count under them."""

from __future__ import annotations

import concurrent.futures
import enum
import logging
from collections.abc import Callable
from dataclasses import dataclass

from ion_actors._arguments import exceptions_or_predicate, make_plain, number, seconds, whole_number
from ion_actors.context import current_context
from ion_actors.errors import CircuitOpen, DeadlineExceeded
from ion_actors.interruption import is_interruption
from ion_actors.raised import is_a, is_asyncio_cancellation

__all__ = ["BreakerRules", "CallOutcome", "FailureRate", "IsFailure", "judge"]

logger = logging.getLogger("ion_actors")

IsFailure = type[BaseException] | tuple[type[BaseException], ...] | Callable[[Exception], bool]

_CALLS = 100
_MINIMUM = 20
_FAILURES = 5

# These concern the caller, not the called service.
_CALLED_OFF = (
    concurrent.futures.CancelledError,  # also ion_actors.Cancelled
    GeneratorExit,  # a coroutine or a generator was closed
    KeyboardInterrupt,
)


class CallOutcome(enum.Enum):
    """How a call ended, as far as the breaker is concerned."""

    SUCCEEDED = "succeeded"  #: it returned
    FAILED = "failed"  #: it raised an error that counts as a failure
    IGNORED = "ignored"  #: it raised another error: neither a success nor a failure
    CANCELLED = "cancelled"  #: it was cancelled: neither a success nor a failure


@dataclass(frozen=True, slots=True)
class FailureRate:
    """Open at this share of failures among the latest calls.

    Args:
        rate: from above 0 to 1: the share of failures that opens the breaker, once reached.
        calls: the number of latest successes and failures to consider; by default 100.
        seconds: alternatively, those of the latest seconds. Results are kept in sixtieths of this
            time, so at least 59/60 of it is considered, and nothing older.
        minimum: the number of results before which it stays closed; by default 20, or ``calls`` if
            that is less.

    Raises:
        TypeError, ValueError: an argument makes no sense, or both ``calls`` and ``seconds`` were
            given.

    Only a failure can open the breaker; a success never does, even if it completes the minimum.
    """

    rate: float
    calls: int | None = None
    seconds: float | None = None
    minimum: int | None = None

    def __post_init__(self) -> None:
        if not number("rate", self.rate, minimum=0, maximum=1):
            raise ValueError(f"rate must be above 0, not {self.rate!r}")
        if self.calls is not None and self.seconds is not None:
            raise TypeError(f"give calls or seconds, not both: {self.calls!r} and {self.seconds!r}")
        if self.seconds is not None:
            _positive("seconds", self.seconds)
        elif self.calls is None:
            object.__setattr__(self, "calls", _CALLS)
        if self.calls is not None:
            whole_number("calls", self.calls, minimum=1)
        if self.minimum is None:
            object.__setattr__(self, "minimum", min(_MINIMUM, self.calls or _MINIMUM))
        make_plain(self, "rate", "calls", "seconds", "minimum")
        minimum = whole_number("minimum", self.minimum, minimum=1)
        if self.calls is not None and minimum > self.calls:
            raise ValueError(f"minimum must be at most calls ({self.calls}), not {minimum}")


@dataclass(frozen=True, slots=True)
class BreakerRules:
    """The settings of a breaker; ``CircuitBreaker`` documents them."""

    failure_threshold: int | None = None
    recovery_timeout: float = 30.0
    half_open_max_requests: int = 3
    half_open_success_threshold: int = 2
    trial_timeout: float | None = 60.0
    is_failure: IsFailure | None = None
    window: FailureRate | None = None

    def __post_init__(self) -> None:
        if self.window is not None and not isinstance(self.window, FailureRate):
            raise TypeError(f"window must be a FailureRate or None, not {self.window!r}")
        if self.failure_threshold is not None:
            whole_number("failure_threshold", self.failure_threshold, minimum=1)
        elif self.window is None:
            object.__setattr__(self, "failure_threshold", _FAILURES)
        _positive("recovery_timeout", self.recovery_timeout)
        whole_number("half_open_max_requests", self.half_open_max_requests, minimum=1)
        whole_number("half_open_success_threshold", self.half_open_success_threshold, minimum=1)
        if (timeout := seconds("trial_timeout", self.trial_timeout)) == 0:
            raise ValueError("trial_timeout must be more than zero seconds, or None")
        object.__setattr__(self, "trial_timeout", timeout)
        make_plain(
            self, "failure_threshold", "recovery_timeout", "half_open_max_requests",
            "half_open_success_threshold",
        )  # fmt: skip
        exceptions_or_predicate("is_failure", self.is_failure)


def _positive(name: str, value: object) -> None:
    if not number(name, value, minimum=0):
        raise ValueError(f"{name} must be more than zero seconds, not {value!r}")


def judge(error: BaseException, name: str, is_failure: IsFailure | None) -> CallOutcome:
    """How ``error``, raised by a call of the breaker of this name, counts.

    If the predicate raises, that is logged, and the error counts as a failure.
    """
    if is_asyncio_cancellation(error):
        if (ended := _deadline()) is None:
            return CallOutcome.CANCELLED
        error = ended
    if is_a(error, _CALLED_OFF) or (is_a(error, CircuitOpen) and error.name == name):
        return CallOutcome.CANCELLED
    if not is_a(error, Exception) or is_failure is None:
        return CallOutcome.FAILED
    if isinstance(is_failure, type | tuple):
        return CallOutcome.FAILED if is_a(error, is_failure) else CallOutcome.IGNORED
    try:
        return CallOutcome.FAILED if is_failure(error) else CallOutcome.IGNORED
    except Exception as fault:
        if is_interruption(fault):
            raise
        logger.exception("is_failure of circuit %r failed; the call counts as failed", name)
        return CallOutcome.FAILED


def _deadline() -> DeadlineExceeded | None:
    """The deadline that interrupted this coroutine, if it was one.

    An ``async with Context(timeout=...)`` around a call cancels it, and raises ``DeadlineExceeded``
    only outside; but a service that does not answer until then has failed.
    """
    try:
        current_context().check()
    except DeadlineExceeded as error:
        return error
    except Exception as fault:
        if is_interruption(fault):
            raise
    return None
