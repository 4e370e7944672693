"""The faults of ion's worker pool, as observed by running it on Go: none of them is ours."""

from __future__ import annotations

import concurrent.futures
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from ion_actors import (
    Cancelled,
    Context,
    DrainTimeout,
    Future,
    PanicRecovery,
    Pool,
    PoolClosed,
    PoolState,
    TaskAbandoned,
    TaskPanicked,
)
from ion_actors.testing import RecordingMetrics, RecordingTracer, VirtualClock

PATIENCE = 30.0
Occupy = Callable[[Pool], list[Future[Any]]]


# -- close ---------------------------------------------------------------------------------


def test_close_loses_no_accepted_work_in_silence() -> None:
    """ion: 10 000 accepted, 103 ran, no error."""
    ran: list[int] = []
    many_ran = threading.Event()

    def work(number: int) -> int:
        ran.append(number)
        if len(ran) == 100:
            many_ran.set()
        return number

    pool = Pool(2, 10_000)
    futures = {number: pool.submit(work, number) for number in range(10_000)}
    many_ran.wait(PATIENCE)
    report = pool.close()

    assert all(one.done() for one in futures.values())
    outcomes = {number: outcome(one) for number, one in futures.items()}
    assert sorted(ran) == [number for number in outcomes if outcomes[number] == "completed"]
    dropped = [number for number in outcomes if outcomes[number] == "cancelled"]
    assert sorted(task.args[0] for task in report.cancelled) == dropped
    assert report.running == ()


def outcome(future: Future[Any]) -> str:
    """In the words of the metrics; a task may be cancelled when it has just been handed out."""
    if future.cancelled() or isinstance(future.exception(), Cancelled):
        return "cancelled"
    return "completed"


def test_a_task_that_close_dropped_says_so(occupy: Occupy, gate: threading.Event) -> None:
    pool = Pool(1, name="shop")
    occupy(pool)
    dropped = pool.options(name="invoice").submit(print)
    dropped.add_done_callback(lambda _: gate.set())
    pool.close()
    with pytest.raises(Cancelled, match=r"pool 'shop' was closed before task 'invoice'") as caught:
        dropped.result()
    assert caught.value.task == "invoice"


def test_close_of_a_busy_pool_runs_no_phantom_tasks() -> None:
    """ion: 809 phantom panics, Queued = -809: workers ran the closed channel's zero value."""
    ran: list[None] = []
    started = threading.Semaphore(0)

    def work() -> None:
        started.release()
        ran.append(None)

    pool = Pool(4, 1000)
    for _ in range(1000):
        pool.submit(work)
    for _ in range(50):
        started.acquire(timeout=PATIENCE)
    pool.close()

    numbers = pool.metrics()
    assert (numbers.panicked, numbers.failed, numbers.restarts) == (0, 0, 0)
    assert (numbers.queued, numbers.running) == (0, 0)
    assert numbers.completed == len(ran)
    assert numbers.completed + numbers.cancelled == numbers.submitted == 1000


def test_a_second_concurrent_close_waits_for_the_same_end(
    occupy: Occupy,
    gate: threading.Event,
    draining: Callable[[Pool], None],
    threads: ThreadPoolExecutor,
) -> None:
    """ion: it returned before the first was done."""
    pool = Pool(1)
    (held,) = occupy(pool)

    def close() -> tuple[bool, object]:
        report = pool.close()
        return held.done() and pool.is_closed, report

    first = threads.submit(close)
    draining(pool)
    second = threads.submit(close)
    # The chance to return early; a pool that does not will never fail here.
    assert not concurrent.futures.wait([first, second], 0.05).done
    gate.set()
    (first_saw_end, report), (second_saw_end, same) = first.result(), second.result()
    assert first_saw_end
    assert second_saw_end
    assert same == report


# -- panics --------------------------------------------------------------------------------


def test_one_panic_is_counted_once_and_as_nothing_else() -> None:
    """ion: counted as panicked and completed, with status success too."""
    told = RecordingMetrics()
    with Pool(1, metrics=told) as pool:
        assert isinstance(pool.submit(exit).exception(), TaskPanicked)
    numbers = pool.metrics()
    assert (numbers.panicked, numbers.completed, numbers.failed, numbers.cancelled) == (1, 0, 0, 0)
    name = "ion_workerpool_tasks_completed_total"
    assert told.count(name, status="panic") == told.count(name) == 1
    assert told.count("ion_workerpool_tasks_started_total") == 1


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt])
def test_an_error_in_a_wrapper_harms_nobody(error: type[BaseException]) -> None:
    """ion: a panic in a wrapper crashed the process."""

    def wrapper(task: Callable[[], Any]) -> Callable[[], Any]:
        raise error("in the wrapper")

    with Pool(1, task_wrapper=wrapper) as pool:
        for _ in range(3):
            seen = pool.submit(print).exception()
            assert isinstance(seen, error if error is ValueError else TaskPanicked)


def test_a_panic_in_the_wrapped_call_is_the_tasks_own() -> None:
    def wrapper(task: Callable[[], Any]) -> Callable[[], Any]:
        return lambda: exit(task())

    with Pool(1, task_wrapper=wrapper) as pool:
        error = pool.submit(lambda: 7).exception()
        assert isinstance(error, TaskPanicked)
        assert isinstance(error.__cause__, SystemExit)
        assert error.__cause__.code == 7


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt])
def test_an_error_in_the_panic_handler_harms_nobody(
    error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    """ion: a panic in a handler crashed the process."""

    def handler(panic: object) -> None:
        raise error("in the handler")

    with Pool(1, panic_recovery=handler) as pool:
        for number in range(3):
            assert isinstance(pool.submit(exit).exception(), TaskPanicked)
            assert pool.submit(lambda: number).result() == number
    assert caplog.text.count("the panic handler failed") == 3


def test_the_panics_stack_is_kept() -> None:
    """ion: dropped."""

    def innermost() -> None:
        raise SystemExit("why")

    def outer() -> None:
        innermost()

    with Pool(1) as pool:
        error = pool.submit(outer).exception()
    assert isinstance(error, TaskPanicked)
    assert error.__cause__ is not None
    names = [frame.name for frame in traceback.extract_tb(error.__cause__.__traceback__)]
    assert names[-2:] == ["outer", "innermost"]


def test_the_handler_is_told_of_the_stack_as_well() -> None:
    told: list[Any] = []
    with Pool(1, panic_recovery=PanicRecovery(told.append)) as pool:
        pool.submit(exit).exception()
    (panic,) = told
    assert panic.error.__traceback__ is not None


# -- drain ---------------------------------------------------------------------------------


def test_drain_keeps_its_deadline(
    clock: VirtualClock, occupy: Occupy, threads: ThreadPoolExecutor
) -> None:
    """ion: 1.99 s for a deadline of 200 ms."""
    pool = Pool(1, context=Context(clock=clock))
    (stuck,) = occupy(pool)
    drained = threads.submit(pool.drain, 0.2)
    clock.wait_for_timers(1)
    clock.advance(0.2)
    error = drained.exception(PATIENCE)
    assert isinstance(error, DrainTimeout)
    assert error.report.elapsed == pytest.approx(0.2)
    assert [task.state.value for task in error.report.running] == ["running"]
    assert isinstance(stuck.exception(timeout=0), TaskAbandoned)


def test_drain_does_not_give_up_before_its_deadline(
    clock: VirtualClock, occupy: Occupy, gate: threading.Event, threads: ThreadPoolExecutor
) -> None:
    pool = Pool(1, context=Context(clock=clock))
    (slow,) = occupy(pool)
    queued = pool.submit(str, 1)
    drained = threads.submit(pool.drain, 0.2)
    clock.wait_for_timers(1)
    clock.advance(0.179)  # from 0.18 on, contexts are cancelled
    gate.set()
    assert drained.result(PATIENCE).completed == 2
    assert (slow.result(), queued.result()) == ("let go", "1")


def test_drain_of_an_idle_pool_takes_no_time_at_all(
    clock: VirtualClock, threads: ThreadPoolExecutor
) -> None:
    """ion: 100 ms, since it polls. The clock stands still, so whoever waits for it hangs."""
    pool = Pool(4, context=Context(clock=clock))
    report = threads.submit(pool.drain, 10).result(PATIENCE)
    assert report.elapsed == 0
    assert clock.timers == 0


def test_drain_after_close_with_a_queue_ends(
    occupy: Occupy, gate: threading.Event, threads: ThreadPoolExecutor
) -> None:
    """ion: never."""
    pool = Pool(1)
    occupy(pool)
    queued = [pool.submit(print) for _ in range(100)]
    closed = threads.submit(pool.close)
    assert not concurrent.futures.wait(queued, PATIENCE).not_done
    during = threads.submit(pool.drain)
    gate.set()
    after = threads.submit(lambda: (closed.result(), pool.drain())[1])
    assert len(closed.result(PATIENCE).cancelled) == len(queued)
    assert during.result(PATIENCE) == after.result(PATIENCE) == closed.result()


# -- the pool's context --------------------------------------------------------------------


def test_a_pool_whose_context_is_cancelled_accepts_nothing() -> None:
    """ion: it accepted tasks that never ran, and then blocked."""
    context = Context()
    pool = Pool(1, context=context)
    context.cancel("the app is going down")
    for verb in (pool.submit, pool.try_submit):
        with pytest.raises((PoolClosed, Cancelled)):
            verb(print)
    pool.close()


def test_a_pool_whose_context_is_cancelled_ends_what_it_has(
    occupy: Occupy, gate: threading.Event, threads: ThreadPoolExecutor
) -> None:
    context = Context()
    pool = Pool(1, 10, context=context)
    (held,) = occupy(pool)
    queued = [pool.submit(print) for _ in range(10)]
    blocked = threads.submit(pool.submit, print)
    context.cancel("the app is going down")
    with pytest.raises((PoolClosed, Cancelled)):
        blocked.result(PATIENCE)
    assert not concurrent.futures.wait(queued, PATIENCE).not_done
    assert all(one.cancelled() for one in queued)
    gate.set()
    pool.close()
    assert held.done()
    assert pool.state is PoolState.CLOSED


def test_a_pool_closes_by_itself_when_its_context_ends(until: Callable[[Any], None]) -> None:
    context = Context()
    pool = Pool(2, context=context)
    context.cancel()
    until(lambda: pool.is_closed)


# -- cancelled in the queue ------------------------------------------------------------------


def test_a_task_that_was_cancelled_in_the_queue_never_runs(
    occupy: Occupy, gate: threading.Event
) -> None:
    """ion: it ran all the same."""
    ran: list[int] = []
    with Pool(1) as pool:
        occupy(pool)
        futures = [pool.submit(ran.append, number) for number in range(20)]
        assert all(one.cancel() for one in futures[::2])
        gate.set()
    assert ran == list(range(1, 20, 2))


def test_a_task_whose_context_ended_in_the_queue_never_runs(
    occupy: Occupy, gate: threading.Event
) -> None:
    ran: list[int] = []
    with Pool(1) as pool:
        occupy(pool)
        with Context() as context:
            future = pool.submit(ran.append, 1)
        context.cancel("changed my mind")
        assert future.done()  # at once, and not when its turn comes
        gate.set()
    assert ran == []
    with pytest.raises(Cancelled, match="changed my mind"):
        future.result()


# -- the tracer ------------------------------------------------------------------------------


def test_the_tracer_is_used() -> None:
    """ion: accepted as an option, never called."""
    tracer = RecordingTracer()

    def fails() -> None:
        raise LookupError

    with Pool(1, name="traced", tracer=tracer) as pool:
        pool.options(name="good").submit(str).result()
        pool.options(name="bad").submit(fails).exception()
        pool.options(name="ugly").submit(exit).exception()
    spans = {span.attributes["task"]: span for span in tracer.spans("ion_workerpool_task")}
    assert spans.keys() == {"good", "bad", "ugly"}
    assert {span.attributes["pool"] for span in spans.values()} == {"traced"}
    assert [span.finishes for span in spans.values()] == [1, 1, 1]
    assert spans["good"].error is None
    assert isinstance(spans["bad"].error, LookupError)
    assert isinstance(spans["ugly"].error, SystemExit)
