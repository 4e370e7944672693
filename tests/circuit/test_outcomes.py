"""What counts as what: the table of docs/neighbours/circuit.md, line by line."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ion_actors import (
    Cancelled,
    CircuitOpen,
    Context,
    DeadlineExceeded,
    TaskAbandoned,
    current_context,
)
from ion_actors.circuit import CircuitBreaker, CircuitState
from ion_actors.testing import VirtualClock


def outcome(breaker: CircuitBreaker, error: BaseException | None) -> str:
    """How the breaker counts a call that raises this."""
    before = breaker.metrics()
    with contextlib.suppress(BaseException), breaker:
        if error is not None:
            raise error
    return newest(before, breaker.metrics())


def newest(before: Any, after: Any) -> str:
    words = ("succeeded", "failed", "ignored", "cancelled", "rejected")
    (found,) = [one for one in words if getattr(after, one) > getattr(before, one)]
    return found


@pytest.mark.parametrize(
    ("error", "counts_as"),
    [
        (None, "succeeded"),
        (ConnectionRefusedError(), "failed"),
        (TimeoutError(), "failed"),
        (DeadlineExceeded(), "failed"),
        (CircuitOpen("another", CircuitState.OPEN, 1.0), "failed"),
        (CircuitOpen("mine", CircuitState.OPEN, 1.0), "cancelled"),
        (Cancelled(), "cancelled"),
        (TaskAbandoned("gone", task="t", age=1.0), "cancelled"),
        (concurrent.futures.CancelledError(), "cancelled"),
        (asyncio.CancelledError(), "cancelled"),
        (GeneratorExit(), "cancelled"),
        (KeyboardInterrupt(), "cancelled"),
        (SystemExit(), "failed"),
        (BaseException(), "failed"),
    ],
    ids=repr,
)
def test_what_a_call_raises_counts_as(error: BaseException | None, counts_as: str) -> None:
    assert outcome(CircuitBreaker("mine"), error) == counts_as


@pytest.mark.parametrize(
    "is_failure",
    [OSError, (OSError, LookupError), lambda error: isinstance(error, OSError)],
    ids=["type", "types", "predicate"],
)
def test_is_failure_says_what_is_ignored(is_failure: Any) -> None:
    breaker = CircuitBreaker("mine", is_failure=is_failure)
    assert outcome(breaker, ConnectionError()) == "failed"
    assert outcome(breaker, DeadlineExceeded()) == "failed"  # it is a TimeoutError, an OSError
    assert outcome(breaker, ValueError()) == "ignored"


@pytest.mark.parametrize("error", [SystemExit(), BaseException()], ids=repr)
def test_is_failure_is_not_asked_about_panics(error: BaseException) -> None:
    asked: list[BaseException] = []
    assert outcome(CircuitBreaker("mine", is_failure=asked.append), error) == "failed"
    assert asked == []


@pytest.mark.parametrize("error", [Cancelled(), asyncio.CancelledError()], ids=repr)
def test_is_failure_is_not_asked_about_cancellation(error: BaseException) -> None:
    asked: list[BaseException] = []
    assert outcome(CircuitBreaker("mine", is_failure=asked.append), error) == "cancelled"
    assert asked == []


def test_a_predicate_that_raises_is_logged_and_the_call_counts_as_failed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def is_failure(error: BaseException) -> bool:
        raise LookupError("in the predicate")

    breaker = CircuitBreaker("mine", is_failure=is_failure)
    with pytest.raises(ConnectionError), breaker:
        raise ConnectionError
    assert breaker.metrics().failed == 1
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert "in the predicate" in caplog.text


def test_an_interrupted_predicate_lets_the_interruption_out_and_the_call_is_over() -> None:
    def is_failure(error: BaseException) -> bool:
        raise KeyboardInterrupt

    breaker = CircuitBreaker("mine", is_failure=is_failure)
    with pytest.raises(KeyboardInterrupt), breaker:
        raise ConnectionError
    assert (breaker.metrics().failed, breaker.metrics().running) == (1, 0)


# -- interruptions, as they happen -----------------------------------------------------------


def test_a_deadline_that_interrupts_a_coroutine_is_a_failure(clock: VirtualClock) -> None:
    """Inside it looks like a cancellation. But what hangs until the deadline does not work."""
    breaker = CircuitBreaker("mine")

    async def main() -> None:
        with pytest.raises(DeadlineExceeded):
            async with Context(timeout=5, clock=clock):
                await breaker.aexecute(hang, lambda: clock.advance(5))

    asyncio.run(main())
    assert (breaker.metrics().failed, breaker.metrics().cancelled) == (1, 0)


def test_such_a_deadline_is_shown_to_is_failure(clock: VirtualClock) -> None:
    asked: list[BaseException] = []

    async def main() -> None:
        with contextlib.suppress(DeadlineExceeded):
            async with Context(timeout=5, clock=clock):
                breaker = CircuitBreaker("mine", is_failure=asked.append)
                await breaker.aexecute(hang, lambda: clock.advance(5))

    asyncio.run(main())
    assert [type(error) for error in asked] == [DeadlineExceeded]


def test_a_cancelled_context_that_interrupts_a_coroutine_is_not() -> None:
    breaker = CircuitBreaker("mine")

    async def main() -> None:
        with pytest.raises(Cancelled):
            async with Context() as context:
                await breaker.aexecute(hang, context.cancel)

    asyncio.run(main())
    assert (breaker.metrics().failed, breaker.metrics().cancelled) == (0, 1)


def test_a_cancelled_task_is_not() -> None:
    breaker = CircuitBreaker("mine")

    async def main() -> None:
        begun = asyncio.Event()
        task = asyncio.ensure_future(breaker.aexecute(hang, begun.set))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert (breaker.metrics().failed, breaker.metrics().cancelled) == (0, 1)


async def hang(begun: Callable[[], object]) -> None:
    asyncio.get_running_loop().call_soon(begun)
    await asyncio.Event().wait()


def test_a_deadline_in_a_thread_is_a_failure(clock: VirtualClock) -> None:
    breaker = CircuitBreaker("mine")

    def hangs() -> None:
        clock.advance(5)
        current_context().sleep(10)

    with pytest.raises(DeadlineExceeded), Context(timeout=5, clock=clock):
        breaker.execute(hangs)
    assert breaker.metrics().failed == 1


@pytest.mark.parametrize(
    ("timeout", "error"), [(0, DeadlineExceeded), (None, Cancelled)], ids=["late", "cancelled"]
)
def test_a_call_whose_context_has_ended_is_not_made_and_counts_as_nothing(
    timeout: float | None, error: type[BaseException]
) -> None:
    """A backlog of what is too late anyway must not open the breaker, nor take a trial's slot."""
    breaker = CircuitBreaker("mine", failure_threshold=1)
    breaker.trip(0)
    before = breaker.metrics()
    with Context(timeout=timeout) as context:
        if timeout is None:
            context.cancel()
        with pytest.raises(error):
            breaker.execute(pytest.fail, "it was called")
        with pytest.raises(error), breaker:
            pytest.fail("it was entered")
        with pytest.raises(error):
            asyncio.run(breaker.aexecute(asyncio.sleep, 0))
    assert breaker.metrics() == before


def test_a_generator_that_is_closed_was_called_off() -> None:
    breaker = CircuitBreaker("mine")

    def rows() -> Iterator[int]:
        with breaker.guard():
            yield 1
            yield 2

    iterator = rows()
    assert next(iterator) == 1
    assert breaker.metrics().running == 1
    iterator.close()  # type: ignore[attr-defined]
    assert (breaker.metrics().running, breaker.metrics().cancelled) == (0, 1)
