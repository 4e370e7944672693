"""Drain, close, shutdown: deadlines that hold, reports that tell, and nobody left waiting."""

from __future__ import annotations

import asyncio
import gc
import pickle
import threading
from collections.abc import Callable

import pykka
import pytest

from ion_actors import (
    Cancelled,
    Close,
    Context,
    Drain,
    DrainReport,
    DrainTimeout,
    DropReason,
    GetMetrics,
    GetState,
    Pool,
    PoolClosed,
    PoolState,
    QueueFull,
    Submit,
    TaskAbandoned,
    TaskDropped,
    TaskState,
    TrySubmit,
    current_context,
)
from ion_actors.delivery import CALLBACK_THREADS
from ion_actors.futures import Future
from ion_actors.testing import VirtualClock
from tests.inside import callbacks_on
from tests.workerpool.helpers import (
    PATIENCE,
    Gate,
    all_is_told,
    await_threads,
    busy,
    eventually,
    run_in_thread,
)


def test_a_block_left_normally_drains() -> None:
    with Pool(2, 100) as pool:
        futures = [pool.submit(pow, 2, n) for n in range(50)]
    assert [future.result(0) for future in futures] == [2**n for n in range(50)]
    assert pool.state is PoolState.CLOSED
    assert pool.is_closed
    assert not pool.is_draining


def test_a_block_left_by_an_exception_closes() -> None:
    gate = Gate()
    with pytest.raises(ZeroDivisionError), Pool(1, 10) as pool:
        begun = threading.Event()
        running = pool.submit(lambda: (begun.set(), current_context().wait(timeout=PATIENCE))[1])
        queued = pool.submit(gate)
        assert begun.wait(PATIENCE)
        raise ZeroDivisionError
    assert queued.cancelled()
    assert running.result(0) is True  # it was told to stop, and returned


def test_drain_reports_what_was_done_since() -> None:
    pool = Pool(1, 10)
    pool.submit(pow, 2, 2).result()
    with busy(pool) as gate:
        for _ in range(3):
            pool.submit(pow, 2, 2)
        failing = pool.submit(divmod, 1, 0)
        drained = run_in_thread(pool.drain)
        while not pool.is_draining:
            pool.metrics()
        gate.open()
        report = drained.result(PATIENCE)
    assert isinstance(report, DrainReport)
    assert (report.completed, report.failed, report.panicked) == (4, 1, 0)
    assert report.unfinished == ()
    assert report.elapsed >= 0
    assert isinstance(failing.exception(), ZeroDivisionError)


def test_nothing_is_accepted_while_draining() -> None:
    pool = Pool(1, 10, name="leaving")
    with busy(pool) as gate:
        drained = run_in_thread(pool.drain)
        while not pool.is_draining:
            pool.metrics()
        for submit in (pool.submit, pool.try_submit):
            with pytest.raises(PoolClosed, match="'leaving' is closed"):
                submit(pow, 2, 2)
        gate.open()
        drained.result(PATIENCE)
    assert pool.metrics().rejected == 2


def drained_at_deadline(
    submit: Callable[[Pool], object], *, stuck: bool = True
) -> tuple[Pool, DrainTimeout]:
    """A pool of one worker whose drain of 10 seconds is not over in time."""
    clock = VirtualClock()
    pool = Pool(1, 10, context=Context(clock=clock), name="late")
    submit(pool)
    drained = run_in_thread(pool.drain, 10.0)
    clock.wait_for_timers()
    clock.advance(9.95)  # the contexts are cancelled a little before
    if stuck:
        pool.actor_ref.ask(GetState())  # answered once that is done
        clock.advance(0.05)
    with pytest.raises(DrainTimeout) as error:
        drained.result(PATIENCE)
    return pool, error.value


def test_at_its_deadline_drain_returns_the_tasks_it_did_not_finish() -> None:
    gate = Gate()
    saved: list[Future[object]] = []

    def submit(pool: Pool) -> None:
        saved.append(pool.options(name="stuck").submit(gate))
        gate.await_entered()
        saved.append(pool.submit(pow, 2, exp=10))

    _, error = drained_at_deadline(submit)
    stuck, queued = error.report.running[0], error.report.cancelled[0]
    assert (stuck.name, stuck.state, stuck.worker) == ("stuck", TaskState.RUNNING, "late-0")
    assert "helpers.py" in stuck.stack
    assert (queued.name, queued.state) == ("pow", TaskState.QUEUED)
    assert queued.fn is not None
    assert queued.fn(*queued.args, **queued.kwargs) == 1024  # it can be run elsewhere
    assert "1 cancelled, 1 still running: stuck (late-0)" in str(error)
    with pytest.raises(TaskAbandoned, match="'stuck' was still running on worker late-0") as late:
        saved[0].result(0)
    assert "helpers.py" in late.value.stack
    assert saved[1].cancelled()
    gate.open()


def test_a_close_may_take_longer_than_the_drain_timeout() -> None:
    clock, gate = VirtualClock(), Gate()
    pool = Pool(1, context=Context(clock=clock), drain_timeout=30, backend="thread")
    task = pool.submit(gate)
    gate.await_entered()
    closed = run_in_thread(pool.close, 100.0)
    clock.wait_for_timers(1)
    clock.advance(99)
    pool.actor_ref.ask(GetState())
    assert not task.done()
    gate.open()
    assert task.result(PATIENCE) == "through"
    closed.result(PATIENCE)


def test_the_late_result_of_an_abandoned_task_is_ignored() -> None:
    gate = Gate()
    futures: list[Future[object]] = []

    def submit(pool: Pool) -> None:
        futures.append(pool.submit(gate))
        gate.await_entered()

    pool, _ = drained_at_deadline(submit)
    before = pool.metrics()
    assert before.running == 0
    assert before.cancelled == 1
    gate.open()
    await_threads(pool)
    assert pool.metrics() == before
    assert isinstance(futures[0].exception(0), TaskAbandoned)


def test_a_task_that_listens_is_cancelled_and_not_abandoned() -> None:
    def listens() -> None:
        current_context().wait()
        current_context().check()

    _, error = drained_at_deadline(lambda pool: pool.submit(listens), stuck=False)
    assert error.report.running == ()
    assert [task.name.split(".")[-1] for task in error.report.cancelled] == ["listens"]


def test_a_report_survives_pickling_without_the_functions() -> None:
    gate = Gate()

    def submit(pool: Pool) -> None:
        pool.submit(gate)
        gate.await_entered()

    _, error = drained_at_deadline(submit)
    gate.open()
    copy = pickle.loads(pickle.dumps(error))
    assert copy.report.running[0].name == error.report.running[0].name
    assert copy.report.running[0].fn is None
    assert str(copy) == str(error)


def test_close_cancels_what_has_not_started_and_says_why() -> None:
    pool = Pool(1, 10, name="shut")

    def listens() -> None:
        current_context().sleep(PATIENCE)

    running = pool.submit(listens)
    eventually(lambda: pool.metrics().running == 1)
    queued = [pool.submit(pow, 2, 2) for _ in range(5)]
    report = pool.close()
    assert len(report.cancelled) == 6
    assert report.running == ()
    with pytest.raises(Cancelled, match="'shut' was closed before task 'pow' could start"):
        queued[0].result(0)
    with pytest.raises(Cancelled, match="'shut' was closed"):
        running.result(0)
    assert pool.metrics().cancelled == 6


def test_close_abandons_what_does_not_stop() -> None:
    gate = Gate()
    pool = Pool(1)
    future = pool.submit(gate)
    gate.await_entered()
    report = pool.close(0)
    assert [task.state for task in report.running] == [TaskState.RUNNING]
    assert isinstance(future.exception(0), TaskAbandoned)
    assert pool.is_closed
    gate.open()
    await_threads(pool)


def test_whoever_ends_it_again_gets_the_same_end() -> None:
    pool = Pool(2)
    pool.submit(pow, 2, 2)
    first = pool.drain()
    assert pool.drain() == first
    assert pool.close() == first
    pool.shutdown()


def test_many_at_once_wait_for_the_same_end() -> None:
    pool = Pool(2, 100)
    with busy(pool) as gate:
        verbs = [pool.drain, pool.close, pool.drain, pool.shutdown, pool.drain, pool.close]
        barrier = threading.Barrier(len(verbs))

        def end(verb: Callable[[], object]) -> bool:
            barrier.wait(PATIENCE)
            verb()
            return pool.is_closed

        ending = [run_in_thread(end, verb) for verb in verbs]
        while pool.state is PoolState.RUNNING:
            pool.metrics()
        assert not any(future.done() for future in ending)
        gate.open()
        assert all(future.result(PATIENCE) for future in ending)


def test_a_later_caller_can_bring_the_deadline_forward() -> None:
    clock = VirtualClock()
    gate = Gate()
    pool = Pool(1, context=Context(clock=clock))
    pool.submit(gate)
    gate.await_entered()
    patient = run_in_thread(pool.drain, 1000.0)
    clock.wait_for_timers()
    hasty = run_in_thread(pool.drain, 0.0)
    for future in (patient, hasty):
        with pytest.raises(DrainTimeout):
            future.result(PATIENCE)
    gate.open()
    await_threads(pool)


def test_an_idle_pool_is_drained_without_any_timer() -> None:
    pool = Pool(4, context=Context(clock=VirtualClock()))
    assert pool.drain().unfinished == ()


@pytest.mark.parametrize("verb", ["drain", "close", "shutdown"])
def test_ending_the_pool_from_its_own_task_does_not_deadlock(verb: str) -> None:
    pool = Pool(1, 10)
    report = pool.submit(getattr(pool, verb)).result(PATIENCE)
    if verb != "shutdown":
        assert [task.state for task in report.running] == [TaskState.RUNNING]
    pool.drain()
    assert pool.is_closed


def test_ending_the_pool_from_a_done_callback_does_not_deadlock() -> None:
    pool, gate = Pool(1), Gate()
    future = pool.submit(gate)
    called = threading.Event()
    future.add_done_callback(lambda _: (pool.drain(), called.set()))
    gate.open()
    assert called.wait(PATIENCE)
    pool.drain()


def test_an_end_that_is_asked_for_again_is_quiet(caplog: pytest.LogCaptureFixture) -> None:
    pool = Pool(1)
    pool.submit(pow, 2, 2).result(PATIENCE)
    pool.shutdown()
    pool.shutdown(wait=False)
    pool.begin_drain(1.0)
    del pool
    gc.collect()
    assert caplog.text == ""


def test_shutdown_can_cancel_what_is_queued() -> None:
    pool = Pool(1, 10)
    with busy(pool) as gate:
        queued = [pool.submit(gate) for _ in range(3)]
        pool.shutdown(wait=False, cancel_futures=True)
        for future in queued:
            with pytest.raises(Cancelled):
                future.result(PATIENCE)
    pool.shutdown()


def test_shutdown_without_waiting_lets_everything_finish() -> None:
    pool = Pool(1, 10)
    with busy(pool) as gate:
        queued = [pool.submit(pow, 2, n) for n in range(3)]
        pool.shutdown(wait=False)
        with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
            pool.submit(gate)
    assert [future.result(PATIENCE) for future in queued] == [1, 2, 4]
    pool.drain()


def test_the_end_of_its_context_closes_the_pool() -> None:
    context = Context()
    pool = Pool(1, 10, context=context)
    with busy(pool):
        queued = pool.submit(pow, 2, 2)
        context.cancel("the program ends")
        with pytest.raises(PoolClosed):
            pool.submit(pow, 2, 2)
        with pytest.raises(Cancelled):
            queued.result(PATIENCE)
    pool.close()
    assert not callbacks_on(context)


def test_a_closed_pool_leaves_nothing_on_its_context() -> None:
    context = Context()
    with Pool(1, context=context):
        assert callbacks_on(context)
    assert not callbacks_on(context)


def test_the_end_works_under_asyncio() -> None:
    async def main() -> list[object]:
        async with Pool(2) as pool:
            futures = [await pool.asubmit(pow, 2, n) for n in range(5)]
        assert pool.is_closed
        results: list[object] = [await future for future in futures]
        for verb in ("adrain", "aclose", "ashutdown"):
            other = Pool(1)
            await other.asubmit(pow, 2, 2)
            await getattr(other, verb)()
            assert other.is_closed
        with pytest.raises(ZeroDivisionError):
            async with Pool(1, 5) as broken_off:
                gate = Gate()
                broken_off.submit(gate)
                gate.await_entered()
                queued = broken_off.submit(gate)
                gate.open()
                raise ZeroDivisionError
        assert queued.done()
        return results

    assert asyncio.run(main()) == [1, 2, 4, 8, 16]


def test_callbacks_of_dropped_tasks_cannot_hold_up_the_end() -> None:
    pool, stuck = Pool(1, 10), threading.Event()
    with busy(pool):
        queued = pool.submit(pow, 2, 2)
        queued.add_done_callback(lambda _: stuck.wait(PATIENCE))
        other = pool.submit(pow, 2, 2)
        closing = run_in_thread(pool.close)
        with pytest.raises(Cancelled):
            other.result(PATIENCE)
    closing.result(PATIENCE)
    stuck.set()


# -- the pool as an actor ------------------------------------------------------------------


def test_the_supervisor_takes_the_same_verbs_as_messages() -> None:
    pool = Pool(1, 1)
    ref = pool.actor_ref
    future = ref.ask(Submit(pow, (2, 3), {"mod": 5}, name="cube"))
    assert future.result(PATIENCE) == 3
    assert ref.ask(GetMetrics()).completed == 1
    assert ref.ask(GetState()) is PoolState.RUNNING
    with busy(pool) as gate:
        ref.tell(Submit(gate))
        with pytest.raises(QueueFull):
            ref.ask(TrySubmit(gate))
    assert ref.ask(Drain(5)).unfinished == ()
    pool.drain()  # returns when the threads are gone, a moment after the reply
    with pytest.raises(pykka.ActorDeadError):
        ref.ask(Close())


def test_a_reply_can_be_awaited() -> None:
    async def main(pool: Pool) -> object:
        reply: object = pool.actor_ref.ask(Drain(5), block=False)
        return await reply  # type: ignore[misc]

    assert isinstance(asyncio.run(main(Pool(1))), DrainReport)


def test_a_message_that_is_not_understood_harms_nobody() -> None:
    with Pool(1) as pool:
        with pytest.raises(TypeError, match="does not understand 'hello'"):
            pool.actor_ref.ask("hello")
        with pytest.raises(TypeError):
            pool.actor_ref.tell(42)
        assert pool.submit(pow, 2, 2).result(PATIENCE) == 4


def test_stop_all_ends_a_pool_as_close_does() -> None:
    pool = Pool(1, 10)
    begun = threading.Event()

    def listens() -> None:
        begun.set()
        current_context().sleep(PATIENCE)

    running = pool.submit(listens)
    assert begun.wait(PATIENCE)
    queued = pool.submit(pow, 2, 2)
    pykka.ActorRegistry.stop_all(timeout=PATIENCE)
    assert pool.is_closed
    assert queued.cancelled()
    assert isinstance(running.exception(0), Cancelled)
    with pytest.raises(PoolClosed):
        pool.submit(pow, 2, 2)


def test_a_reference_to_the_actor_keeps_the_pool() -> None:
    ref = Pool(1).actor_ref
    assert ref.ask(Submit(pow, (2, 4))).result(PATIENCE) == 16
    ref.ask(Drain(5))


def test_no_drain_says_that_it_is_done_too_early() -> None:
    """ractor#353: 999 jobs were left."""
    for _ in range(20):
        pool, done = Pool(4, 2000), []
        for number in range(1000):
            pool.submit(done.append, number)
        assert pool.drain().completed + pool.metrics().completed >= 1000
        assert len(done) == 1000


def test_an_end_needs_no_thread_that_the_pool_did_not_have(monkeypatch: pytest.MonkeyPatch) -> None:
    posted: list[object] = []
    monkeypatch.setattr(CALLBACK_THREADS, "post", posted.append)
    with Pool(2) as pool:
        pool.submit(int).result()
    assert posted == []


def test_a_timeout_of_a_drain_that_nobody_waits_for_is_no_news(
    caplog: pytest.LogCaptureFixture,
) -> None:
    pool = Pool(1)
    with busy(pool):
        pool.begin_drain(0.01)
        eventually(lambda: pool.is_closed)
    await_threads(pool)
    gc.collect()
    all_is_told()
    assert "never read" not in caplog.text


@pytest.mark.parametrize("heard", [False, True])
def test_each_reader_of_a_dropped_task_gets_an_error_of_its_own(heard: bool) -> None:
    pool = Pool(1, name="ended")
    told: list[object] = []
    subscription = pool.dead_letters.subscribe(told.append) if heard else None
    with busy(pool):
        dropped = pool.submit(abs, 1)
        pool.close(timeout=0)
    errors = []
    for _ in range(2):
        with pytest.raises(TaskDropped) as error:
            dropped.result(0)
        errors.append(error.value)
    assert errors[0] is not errors[1]
    for one in errors:
        assert str(one) == "pool 'ended' was closed before task 'abs' could start"
        assert (one.task, one.why, one.retry_after) == ("abs", DropReason.CLOSED, None)
    await_threads(pool)
    if subscription is not None:
        eventually(lambda: len(told) == 2)  # the gate, too
        subscription.remove()
