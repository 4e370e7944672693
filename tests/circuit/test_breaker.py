"""The breaker as its users have it: verbs, blocks, decorators, facts, presets, refusals."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import logging
import math
import os
import pickle
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from ion_actors import CircuitOpen, Context
from ion_actors.circuit import CircuitBreaker, CircuitMetrics, CircuitState, FailureRate
from ion_actors.circuit.breaker import _ENTERED
from ion_actors.testing import VirtualClock
from tests.inside import core_of

CLOSED, OPEN, HALF_OPEN = CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN


def fail() -> None:
    raise ConnectionError("refused")


def failing(breaker: CircuitBreaker, times: int = 1) -> None:
    for _ in range(times):
        with pytest.raises(ConnectionError):
            breaker.execute(fail)


@pytest.fixture
def breaker(clock: VirtualClock) -> CircuitBreaker:
    return CircuitBreaker(
        "mine", failure_threshold=3, recovery_timeout=10, half_open_success_threshold=2, clock=clock
    )


# -- the verbs ---------------------------------------------------------------------------------


def divide(a: int, b: int = 1) -> float:
    """The quotient."""
    return a / b


async def adivide(a: int, b: int = 1) -> float:
    """The quotient, later."""
    await asyncio.sleep(0)
    return a / b


def by_execute(breaker: CircuitBreaker, *args: int, **kwargs: int) -> float:
    return breaker.execute(divide, *args, **kwargs)


def by_call(breaker: CircuitBreaker, *args: int, **kwargs: int) -> float:
    return breaker.call(divide, *args, **kwargs)


def by_aexecute(breaker: CircuitBreaker, *args: int, **kwargs: int) -> float:
    return asyncio.run(breaker.aexecute(adivide, *args, **kwargs))


def by_acall(breaker: CircuitBreaker, *args: int, **kwargs: int) -> float:
    return asyncio.run(breaker.acall(adivide, *args, **kwargs))


def by_decorator(breaker: CircuitBreaker, *args: int, **kwargs: int) -> float:
    return breaker(divide)(*args, **kwargs)


def by_async_decorator(breaker: CircuitBreaker, *args: int, **kwargs: int) -> float:
    async def main() -> float:
        return await breaker(adivide)(*args, **kwargs)

    return asyncio.run(main())


def by_wrap(breaker: CircuitBreaker, *args: int, **kwargs: int) -> float:
    return breaker.wrap(divide)(*args, **kwargs)


def by_block(breaker: CircuitBreaker, *args: int, **kwargs: int) -> float:
    with breaker:
        return divide(*args, **kwargs)


def by_guard(breaker: CircuitBreaker, *args: int, **kwargs: int) -> float:
    with breaker.guard():
        return divide(*args, **kwargs)


def by_async_block(breaker: CircuitBreaker, *args: int, **kwargs: int) -> float:
    async def main() -> float:
        async with breaker:
            return await adivide(*args, **kwargs)

    return asyncio.run(main())


def by_async_guard(breaker: CircuitBreaker, *args: int, **kwargs: int) -> float:
    async def main() -> float:
        async with breaker.guard():
            return await adivide(*args, **kwargs)

    return asyncio.run(main())


every_way = pytest.mark.parametrize(
    "through",
    [
        by_execute, by_call, by_aexecute, by_acall, by_decorator, by_async_decorator, by_wrap,
        by_block, by_guard, by_async_block, by_async_guard,
    ],
)  # fmt: skip


@every_way
def test_every_way_through_the_breaker_is_the_same(
    through: Callable[..., float], breaker: CircuitBreaker, clock: VirtualClock
) -> None:
    assert through(breaker, 6, b=3) == 2.0
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            through(breaker, 1, 0)
    assert breaker.state is OPEN

    clock.advance(4)
    with pytest.raises(CircuitOpen) as caught:
        through(breaker, 6, 3)
    assert (caught.value.name, caught.value.state) == ("mine", OPEN)
    assert caught.value.retry_after == 6.0

    clock.advance(6)
    assert breaker.state is HALF_OPEN
    assert through(breaker, 6, 3) == through(breaker, 4, 2) == 2.0
    assert breaker.state is CLOSED
    numbers = breaker.metrics()
    assert (numbers.succeeded, numbers.failed, numbers.rejected) == (3, 3, 1)
    assert (numbers.requests, numbers.running) == (6, 0)


def test_a_decorated_function_keeps_name_signature_and_nature(breaker: CircuitBreaker) -> None:
    wrapped, awrapped = breaker(divide), breaker(adivide)
    assert wrapped.__name__ == "divide"
    assert wrapped.__doc__ == "The quotient."
    assert inspect.signature(wrapped) == inspect.signature(divide)
    assert inspect.iscoroutinefunction(awrapped)


def test_a_method_can_be_decorated() -> None:
    guarded = CircuitBreaker("mine")

    class Client:
        base = 10

        @guarded
        def scaled(self, by: int) -> int:
            return self.base * by

    assert Client().scaled(4) == 40
    assert guarded.metrics().succeeded == 1


def test_keywords_of_any_name_reach_the_function(breaker: CircuitBreaker) -> None:
    assert breaker.execute(dict, fn=1, self=2, name=3) == {"fn": 1, "self": 2, "name": 3}


def test_execute_refuses_a_coroutine_function(breaker: CircuitBreaker) -> None:
    """The coroutine would be counted as a success before it has begun."""
    with pytest.raises(TypeError, match="use aexecute"):
        breaker.execute(adivide, 1)


def test_the_result_passes_through_whatever_it_is(breaker: CircuitBreaker) -> None:
    for value in (None, False, 0, "", ()):
        assert breaker.execute(lambda: value) == value
    error = ConnectionError("as a value")
    assert breaker.execute(lambda: error) is error
    assert breaker.metrics().succeeded == 6


def test_the_error_passes_through_as_it_is(breaker: CircuitBreaker) -> None:
    error = ConnectionError("this very one")

    def raises() -> None:
        raise error

    with pytest.raises(ConnectionError) as caught:
        breaker.execute(raises)
    assert caught.value is error
    assert error.__context__ is None


# -- the blocks ----------------------------------------------------------------------------------


def test_a_block_may_be_nested_and_each_counts() -> None:
    breaker = CircuitBreaker("mine", failure_threshold=10)
    with breaker, breaker:
        assert breaker.metrics().running == 2
        with pytest.raises(ConnectionError), breaker:
            fail()
    numbers = breaker.metrics()
    assert (numbers.succeeded, numbers.failed, numbers.running) == (2, 1, 0)


def test_blocks_of_several_breakers_may_be_nested_and_left_in_any_order() -> None:
    a, b = CircuitBreaker("a"), CircuitBreaker("b")
    a.__enter__()
    b.__enter__()
    a.__exit__(None, None, None)
    assert (a.metrics().running, b.metrics().running) == (0, 1)
    b.__exit__(None, None, None)
    assert (a.metrics().succeeded, b.metrics().succeeded) == (1, 1)


def test_each_call_carries_its_own_generation(clock: VirtualClock) -> None:
    """The inner block belongs to half-open, the outer one still to the closed state before."""
    breaker = CircuitBreaker("mine", recovery_timeout=1, half_open_success_threshold=1, clock=clock)
    with pytest.raises(ConnectionError), breaker:
        breaker.trip()
        clock.advance(1)
        with breaker:
            assert breaker.state is HALF_OPEN
        assert breaker.state is CLOSED
        fail()  # is late news
    assert breaker.state is CLOSED
    assert breaker.metrics().consecutive_failures == 0
    assert breaker.metrics().failed == 1


def test_a_block_left_where_it_was_not_entered_says_what_to_do() -> None:
    breaker = CircuitBreaker("mine")
    contextvars.copy_context().run(breaker.__enter__)
    with pytest.raises(RuntimeError, match="use guard"):
        breaker.__exit__(None, None, None)


def test_calls_that_are_over_do_not_pile_up_in_copies_of_the_variables() -> None:
    outer, inner = CircuitBreaker("outer"), CircuitBreaker("inner")
    depths = []

    def start_successors(left: int) -> None:
        if not left:
            return
        with inner:
            stack, depth = _ENTERED.get(), 0
            while stack is not None:
                stack, depth = stack[1], depth + 1
            depths.append(depth)
            copy = contextvars.copy_context()  # as a task that is submitted here gets
        copy.run(start_successors, left - 1)

    with outer:
        contextvars.copy_context().run(start_successors, 50)
        assert outer.metrics().running == 1
    assert depths == [2] * 50
    assert outer.metrics().succeeded == 1
    assert inner.metrics().succeeded == 50


def test_a_guard_may_be_left_in_another_thread(threads: ThreadPoolExecutor) -> None:
    breaker = CircuitBreaker("mine")
    guard = breaker.guard()
    threads.submit(guard.__enter__).result()
    assert breaker.metrics().running == 1
    threads.submit(guard.__exit__, None, None, None).result()
    assert (breaker.metrics().running, breaker.metrics().succeeded) == (0, 1)


def test_a_guard_is_for_one_call_at_a_time() -> None:
    breaker = CircuitBreaker("mine")
    guard = breaker.guard()
    with guard, pytest.raises(RuntimeError, match="in use"):
        guard.__enter__()
    with pytest.raises(RuntimeError, match="not entered"):
        guard.__exit__(None, None, None)
    with guard:  # but for another one afterwards
        pass
    assert breaker.metrics().succeeded == 2


def test_interleaved_generators_each_keep_their_call(clock: VirtualClock) -> None:
    breaker = CircuitBreaker("mine", failure_threshold=1, clock=clock)

    def rows() -> Iterator[int]:
        with breaker.guard():
            yield 1
            fail()

    old = rows()
    next(old)
    breaker.reset()
    new = rows()
    next(new)
    with pytest.raises(ConnectionError):
        next(old)
    assert breaker.state is CLOSED
    with pytest.raises(ConnectionError):
        next(new)
    assert breaker.state is OPEN


# -- the state -----------------------------------------------------------------------------------


def test_the_state_follows_the_time_without_a_call(
    breaker: CircuitBreaker, clock: VirtualClock
) -> None:
    failing(breaker, 3)
    clock.advance(9.9)
    assert breaker.state is OPEN
    assert breaker.metrics().retry_after == pytest.approx(0.1)
    clock.advance(0.1)
    assert breaker.state is HALF_OPEN
    assert breaker.metrics().retry_after == 0


def test_a_failed_trial_opens_it_for_another_full_time(
    breaker: CircuitBreaker, clock: VirtualClock
) -> None:
    failing(breaker, 3)
    clock.advance(12)
    failing(breaker)
    assert breaker.metrics().retry_after == 10
    assert breaker.state is OPEN


def test_a_rejection_in_half_open_says_so(clock: VirtualClock) -> None:
    breaker = CircuitBreaker.aggressive("mine", clock=clock)
    breaker.trip(0)
    with breaker, pytest.raises(CircuitOpen, match="is half-open; ") as caught:
        breaker.execute(fail)
    assert caught.value.state is HALF_OPEN
    assert caught.value.retry_after == 4.5  # a tenth: so nobody waits for it in a busy loop


def test_its_own_rejection_is_no_failure_of_a_call_that_calls_itself(clock: VirtualClock) -> None:
    breaker = CircuitBreaker.aggressive("mine", clock=clock)
    breaker.trip(0)
    with pytest.raises(CircuitOpen):
        breaker.execute(breaker.execute, fail)
    assert breaker.state is HALF_OPEN
    assert breaker.metrics().cancelled == 1


def test_trip_opens_it(breaker: CircuitBreaker, clock: VirtualClock) -> None:
    breaker.trip()
    assert breaker.metrics().retry_after == 10
    breaker.trip(120)  # as a Retry-After may have it
    assert breaker.metrics().retry_after == 120
    clock.advance(120)
    assert breaker.state is HALF_OPEN


def test_tripped_for_ever_it_stays_open_until_it_is_reset(
    breaker: CircuitBreaker, clock: VirtualClock
) -> None:
    breaker.trip(math.inf)
    clock.advance(1e9)
    with pytest.raises(CircuitOpen, match="until it is reset") as caught:
        breaker.execute(divide, 1)
    assert caught.value.retry_after == math.inf
    breaker.reset()
    assert breaker.execute(divide, 1) == 1


@pytest.mark.parametrize("duration", [-1, "1", math.nan])
def test_a_senseless_duration_is_refused(breaker: CircuitBreaker, duration: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="duration must be"):
        breaker.trip(duration)
    assert breaker.state is CLOSED


def test_reset_forgets_the_failures_so_far_and_those_still_to_come(breaker: CircuitBreaker) -> None:
    failing(breaker, 2)
    with pytest.raises(ConnectionError), breaker:
        breaker.reset()
        fail()
    assert breaker.metrics().consecutive_failures == 0
    failing(breaker, 2)
    assert breaker.state is CLOSED


def test_without_a_window_the_failure_rate_is_that_of_all_calls(clock: VirtualClock) -> None:
    breaker = CircuitBreaker("mine", is_failure=ConnectionError, clock=clock)
    assert (breaker.metrics().failure_rate, breaker.metrics().success_rate) == (None, None)
    failing(breaker)
    for _ in range(3):
        breaker.execute(divide, 1)
    with pytest.raises(ZeroDivisionError):
        breaker.execute(divide, 1, 0)  # ignored
    assert (breaker.metrics().failure_rate, breaker.metrics().success_rate) == (0.25, 0.75)


def test_it_is_healthy_while_it_is_closed_and_its_last_call_succeeded(clock: VirtualClock) -> None:
    breaker = CircuitBreaker("mine", failure_threshold=2, recovery_timeout=10, clock=clock)

    def is_healthy() -> bool:
        return breaker.metrics().is_healthy

    assert is_healthy()
    failing(breaker)
    assert not is_healthy()
    breaker.execute(divide, 1)
    assert is_healthy()
    failing(breaker, 2)
    assert not is_healthy()
    clock.advance(10)
    assert breaker.state is HALF_OPEN
    assert not is_healthy()
    breaker.reset()
    assert is_healthy()


def test_a_failure_rate_opens_it(clock: VirtualClock) -> None:
    breaker = CircuitBreaker("mine", window=FailureRate(0.5, calls=10, minimum=4), clock=clock)
    failing(breaker)
    breaker.execute(divide, 1)
    breaker.execute(divide, 1)
    assert breaker.metrics().failure_rate == pytest.approx(1 / 3)
    assert breaker.metrics().success_rate == pytest.approx(2 / 3)
    failing(breaker)
    assert breaker.state is OPEN


# -- changes are told -----------------------------------------------------------------------------


def test_changes_are_told_in_order(clock: VirtualClock) -> None:
    told: list[tuple[CircuitState, CircuitState]] = []
    breaker = CircuitBreaker.aggressive(
        "mine", clock=clock, on_state_change=lambda *change: told.append(change)
    )
    failing(breaker, 2)
    clock.advance(45)
    assert breaker.state is HALF_OPEN
    assert told == [(CLOSED, OPEN)]  # nobody is told by asking for the state
    breaker.execute(divide, 1)
    breaker.trip()
    breaker.trip()
    breaker.reset()
    breaker.reset()
    assert told[1:] == [
        (OPEN, HALF_OPEN), (HALF_OPEN, CLOSED), (CLOSED, OPEN), (OPEN, CLOSED),
    ]  # fmt: skip
    assert breaker.metrics().state_changes == len(told)


def test_the_first_trial_begins_after_its_change_was_told() -> None:
    told: list[CircuitState] = []
    breaker = CircuitBreaker("mine", on_state_change=lambda old, new: told.append(new))
    breaker.trip(0)
    assert breaker.execute(told.copy) == [OPEN, HALF_OPEN]


def test_a_callback_may_use_the_breaker_and_its_changes_are_told_after_it() -> None:
    told: list[str] = []

    def on_change(old: CircuitState, new: CircuitState) -> None:
        told.append(f"{new.value} begins")
        if new is OPEN:
            breaker.reset()
            assert breaker.execute(divide, 1) == 1
        told.append(f"{new.value} ends")

    breaker = CircuitBreaker("mine", on_state_change=on_change)
    breaker.trip()
    assert told == ["open begins", "open ends", "closed begins", "closed ends"]


@pytest.mark.parametrize("error", [ValueError, SystemExit])
def test_what_the_callback_raises_is_logged(
    error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    def on_change(old: CircuitState, new: CircuitState) -> None:
        raise error("in the callback")

    breaker = CircuitBreaker("mine", failure_threshold=1, on_state_change=on_change)
    failing(breaker)
    assert breaker.state is OPEN
    breaker.reset()
    assert caplog.text.count(f"{error.__name__}: in the callback") == 2
    assert "on_state_change of circuit 'mine' failed" in caplog.text


def test_ctrl_c_in_the_callback_is_not_swallowed_and_loses_no_change() -> None:
    told: list[CircuitState] = []

    def on_change(old: CircuitState, new: CircuitState) -> None:
        told.append(new)
        if len(told) == 1:
            raise KeyboardInterrupt

    breaker = CircuitBreaker("mine", on_state_change=on_change)
    with pytest.raises(KeyboardInterrupt):
        breaker.trip()
    breaker.reset()
    assert told == [OPEN, CLOSED]


def test_ctrl_c_in_the_callback_of_a_trial_gives_its_slot_back() -> None:
    def on_change(old: CircuitState, new: CircuitState) -> None:
        if new is HALF_OPEN:
            raise KeyboardInterrupt

    breaker = CircuitBreaker.aggressive("mine", trial_timeout=None, on_state_change=on_change)
    breaker.trip(0)
    with pytest.raises(KeyboardInterrupt):
        breaker.execute(pytest.fail, "it was called")
    assert (breaker.metrics().trials, breaker.metrics().cancelled) == (0, 1)
    assert breaker.execute(divide, 1) == 1
    assert breaker.state is CLOSED


def test_changes_are_logged_with_their_reasons(
    breaker: CircuitBreaker, clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    failing(breaker, 3)
    clock.advance(10)
    breaker.execute(divide, 1)
    breaker.execute(divide, 1)
    assert [record.getMessage() for record in caplog.records] == [
        "circuit 'mine': closed to open (failures in a row: 3)",
        "circuit 'mine': open to half_open (it is time for a trial)",
        "circuit 'mine': half_open to closed (successful trials: 2)",
    ]
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO", "INFO"]
    assert {record.name for record in caplog.records} == {"ion_actors.circuit"}
    assert caplog.records[0].circuit == "mine"  # type: ignore[attr-defined]
    assert caplog.records[0].new_state == "open"  # type: ignore[attr-defined]


# -- making one -----------------------------------------------------------------------------------


def behaviour(breaker: CircuitBreaker, clock: VirtualClock) -> tuple[int, float, int, int]:
    """The failures that open it, the seconds until a trial, the trials at a time, and the
    successes that close it."""
    failures = 0
    while breaker.state is CLOSED:
        failing(breaker)
        failures += 1
    with pytest.raises(CircuitOpen) as refused:
        breaker.execute(int)
    patience = refused.value.retry_after
    clock.advance(patience - 0.001)
    assert breaker.state is OPEN
    clock.advance(0.001)
    trials: list[Any] = []
    with contextlib.suppress(CircuitOpen):
        while True:
            guard = breaker.guard()
            guard.__enter__()
            trials.append(guard)
    at_a_time, successes = len(trials), 0
    while breaker.state is HALF_OPEN:
        if trials:
            trials.pop().__exit__(None, None, None)
        else:
            breaker.execute(int)
        successes += 1
    for guard in trials:
        guard.__exit__(None, None, None)
    return failures, patience, at_a_time, successes


def test_the_defaults_are_ions(clock: VirtualClock) -> None:
    assert behaviour(CircuitBreaker("mine", clock=clock), clock) == (5, 30.0, 3, 2)


@pytest.mark.parametrize(
    ("preset", "values"),
    [
        (CircuitBreaker.quick_failover, (3, 10.0, 2, 1)),
        (CircuitBreaker.conservative, (10, 60.0, 5, 3)),
        (CircuitBreaker.aggressive, (2, 45.0, 1, 1)),
    ],
)
def test_the_presets_are_ions_and_can_be_overruled(
    preset: Callable[..., CircuitBreaker], values: tuple[float, ...], clock: VirtualClock
) -> None:
    assert behaviour(preset("mine", clock=clock), clock) == values
    assert behaviour(preset("mine", recovery_timeout=7, clock=clock), clock)[1] == 7
    assert preset("mine").name == "mine"


def test_a_preset_makes_its_subclass() -> None:
    class Mine(CircuitBreaker):
        pass

    assert type(Mine.aggressive("mine")) is Mine


def test_it_goes_by_the_clock_of_the_context_it_was_made_in(clock: VirtualClock) -> None:
    with Context(clock=clock):
        breaker = CircuitBreaker("mine")
    breaker.trip(5)
    clock.advance(5)
    assert breaker.state is HALF_OPEN
    other = CircuitBreaker("other")
    other.trip(5)
    clock.advance(5)
    assert other.state is OPEN


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"name": 3}, "name must be a string, not 3"),
        ({"name": ""}, "name must not be empty"),
        ({"is_failure": 3}, "is_failure must be"),
        ({"is_failure": int}, "is_failure must be"),
        ({"on_state_change": 3}, "on_state_change must be callable or None, not 3"),
        ({"window": 0.5}, "window must be a FailureRate or None, not 0.5"),
        ({"logger": 3}, "logger must be"),
        ({"metrics": 3}, "metrics must have"),
        ({"tracer": 3}, "tracer must have"),
        ({"clock": 3}, "clock must be a Clock or None, not 3"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_senseless_argument_is_refused_by_name(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises((TypeError, ValueError), match=says):
        CircuitBreaker(**({"name": "mine"} | arguments))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"rate": 0}, "rate must be above 0, not 0"),
        ({"rate": 1.5}, "rate must be at least 0 and at most 1, not 1.5"),
        ({"rate": "half"}, "rate must be a number, not 'half'"),
        ({"calls": 5, "seconds": 5}, "calls or seconds, not both: 5 and 5"),
        ({"calls": 0}, "calls must be at least 1, not 0"),
        ({"seconds": 0}, "seconds must be more than zero seconds, not 0"),
        ({"minimum": 0}, "minimum must be at least 1, not 0"),
        ({"calls": 5, "minimum": 6}, r"minimum must be at most calls \(5\), not 6"),
    ],
    ids=str,
)
def test_a_senseless_failure_rate_is_refused(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises((TypeError, ValueError), match=says):
        FailureRate(**({"rate": 0.5} | arguments))


def test_the_defaults_of_a_failure_rate() -> None:
    assert (FailureRate(0.5).calls, FailureRate(0.5).minimum) == (100, 20)
    assert (FailureRate(0.5, calls=8).calls, FailureRate(0.5, calls=8).minimum) == (8, 8)
    assert (FailureRate(0.5, seconds=8).calls, FailureRate(0.5, seconds=8).minimum) == (None, 20)


# -- facts ----------------------------------------------------------------------------------------


def test_the_metrics_are_frozen_facts(breaker: CircuitBreaker, clock: VirtualClock) -> None:
    assert breaker.metrics() == CircuitMetrics(
        name="mine", state=CLOSED, requests=0, rejected=0, running=0, succeeded=0, failed=0,
        ignored=0, cancelled=0, consecutive_failures=0, failure_rate=None, trials=0,
        state_changes=0, retry_after=0.0, last_success=None, last_failure=None,
        last_state_change=None,
    )  # fmt: skip
    clock.advance(1)
    breaker.execute(divide, 1)
    clock.advance(1)
    failing(breaker, 3)
    clock.advance(1)
    with pytest.raises(CircuitOpen):
        breaker.execute(divide, 1)
    numbers = breaker.metrics()
    assert (numbers.last_success, numbers.last_failure, numbers.last_state_change) == (1, 2, 2)
    assert (numbers.requests, numbers.rejected, numbers.state_changes) == (4, 1, 1)
    assert (numbers.state, numbers.retry_after) == (OPEN, 9)
    with pytest.raises(AttributeError):
        numbers.requests = 7  # type: ignore[misc]
    assert pickle.loads(pickle.dumps(numbers)) == numbers


def test_a_breaker_says_what_it_is(breaker: CircuitBreaker) -> None:
    assert repr(breaker) == "<CircuitBreaker 'mine' closed>"
    breaker.trip()
    assert repr(breaker) == "<CircuitBreaker 'mine' open>"


@pytest.mark.usefixtures("without_gc")
def test_nothing_keeps_a_breaker() -> None:
    breaker = CircuitBreaker("mine")
    with breaker:
        pass
    breaker.wrap(divide)(1)
    breaker.trip()
    breaker.reset()
    gone = weakref.ref(breaker)
    del breaker
    assert gone() is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_fork_while_another_thread_holds_its_lock_does_not_hang(
    threads: ThreadPoolExecutor,
) -> None:
    breaker = CircuitBreaker.aggressive("mine", trial_timeout=None)
    breaker.trip(0)
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with breaker, core_of(breaker).lock:  # and has the only slot, too
            held.set()
            done.wait()

    holder = threads.submit(hold)
    held.wait()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            alone = breaker.metrics().running == 0
            status = 0 if alone and breaker.execute(divide, 1) == 1 else 1
        finally:
            os._exit(status)
    done.set()
    holder.result()
    assert os.waitpid(pid, 0)[1] == 0
