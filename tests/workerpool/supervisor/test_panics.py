"""Panics, restarts, failing initializers, and the pool that gives up."""

from __future__ import annotations

import concurrent.futures
import logging
import sys
import threading
import traceback
from typing import Any

import pytest

from ion_actors import (
    Backoff,
    BrokenPool,
    Context,
    Panic,
    PanicRecovery,
    Pool,
    PoolState,
    TaskPanicked,
    current_context,
)
from ion_actors.testing import VirtualClock
from tests.inside import core_of, resting
from tests.workerpool.helpers import PATIENCE, Gate, busy, eventually, run_in_thread

QUICK = Backoff(initial=0.0, retries=2)


class Stray(BaseException):
    """Neither an Exception nor known to anybody."""


def stray() -> None:
    raise Stray("gone astray")


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), Stray(), GeneratorExit()])
def test_whatever_is_not_an_exception_is_a_panic(error: BaseException) -> None:
    def panics() -> None:
        raise error

    with Pool(1, name="p") as pool:
        with pytest.raises(TaskPanicked, match="panics") as panicked:
            pool.submit(panics).result(PATIENCE)
        assert panicked.value.__cause__ is error
        assert panicked.value.worker == "p-0"
        numbers = pool.metrics()
        assert (numbers.panicked, numbers.completed, numbers.failed) == (1, 0, 0)
        assert numbers.restarts == 1
        assert pool.submit(pow, 2, 2).result(PATIENCE) == 4


class Mute(BaseException):
    def __repr__(self) -> str:
        raise SystemExit


def mute() -> None:
    raise Mute


@pytest.mark.parametrize("retries", [0, 1])
def test_a_panic_that_cannot_be_shown_is_one_all_the_same(retries: int) -> None:
    with Pool(1) as pool:
        future = pool.options(retry_on_worker_death=retries).submit(mute)
        with pytest.raises(TaskPanicked, match="<Mute without a repr>") as panicked:
            future.result(PATIENCE)
        assert type(panicked.value.__cause__) is Mute
        assert pool.metrics().panicked == 1


def test_the_stack_of_a_panic_is_kept() -> None:
    with Pool(1) as pool:
        cause = pool.submit(stray).exception(PATIENCE).__cause__  # type: ignore[union-attr]
        assert cause is not None
        assert "in stray" in "".join(traceback.format_exception(cause))


def test_an_exception_is_no_panic_and_costs_no_worker() -> None:
    with Pool(1) as pool:
        with pytest.raises(ZeroDivisionError):
            pool.submit(divmod, 1, 0).result(PATIENCE)
        assert pool.metrics().failed == 1
        assert pool.metrics().restarts == 0


@pytest.mark.parametrize(
    "is_panic", [ZeroDivisionError, (OSError, ArithmeticError), lambda error: "zero" in str(error)]
)
def test_the_policy_may_call_more_a_panic(is_panic: object) -> None:
    with Pool(1, panic_recovery=PanicRecovery(is_panic=is_panic)) as pool:  # type: ignore[arg-type]
        with pytest.raises(TaskPanicked):
            pool.submit(divmod, 1, 0).result(PATIENCE)
        with pytest.raises(ValueError, match="int"):
            pool.submit(int, "x").result(PATIENCE)


def test_a_predicate_that_fails_makes_it_a_failure(caplog: pytest.LogCaptureFixture) -> None:
    def is_panic(error: BaseException) -> bool:
        raise RuntimeError("no idea")

    policy = PanicRecovery(is_panic=is_panic)
    with Pool(1, panic_recovery=policy) as pool, pytest.raises(ZeroDivisionError):
        pool.submit(divmod, 1, 0).result(PATIENCE)
    assert "decide or is_panic failed" in caplog.text


def test_the_handler_is_told_before_the_future_raises() -> None:
    told: list[Panic] = []
    with Pool(2, name="p", panic_recovery=told.append) as pool:
        pool.options(name="the task").submit(stray).exception(PATIENCE)
        (panic,) = told
        assert (panic.pool, panic.task, panic.restarts) == ("p", "the task", 1)
        assert panic.worker.startswith("p-")
        assert isinstance(panic.error, Stray)


def test_a_handler_that_raises_is_logged_and_changes_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def handler(panic: Panic) -> None:
        raise SystemExit("from the handler")

    with Pool(1, panic_recovery=handler) as pool:
        assert isinstance(pool.submit(stray).exception(PATIENCE), TaskPanicked)
        assert pool.submit(pow, 2, 2).result(PATIENCE) == 4
    assert "the panic handler failed" in caplog.text


def test_a_handler_that_hangs_does_not_hold_up_the_pool() -> None:
    gate = Gate()
    with Pool(1, panic_recovery=lambda panic: gate()) as pool:
        future = pool.submit(stray)
        gate.await_entered()
        assert pool.submit(pow, 2, 2).result(PATIENCE) == 4  # the successor works
        assert not future.done()
        gate.open()
        assert isinstance(future.exception(PATIENCE), TaskPanicked)


def test_a_handler_runs_in_no_tasks_context() -> None:
    seen: list[bool] = []
    context = Context()

    def panics() -> None:
        context.cancel()
        raise Stray

    with Pool(1, panic_recovery=lambda panic: seen.append(current_context().cancelled)) as pool:
        pool.options(context=context).submit(panics).exception(PATIENCE)
    assert seen == [False]


def test_past_its_restarts_the_pool_breaks_for_everyone_at_once() -> None:
    pool = Pool(1, 10, name="frail", panic_recovery=PanicRecovery(max_restarts=2, within=60))
    with busy(pool):
        panicking = [pool.submit(stray) for _ in range(3)]
        waiting = [pool.submit(pow, 2, 2) for _ in range(3)]
    for future in panicking:
        assert isinstance(future.exception(PATIENCE), TaskPanicked)
    for future in waiting:
        with pytest.raises(BrokenPool, match=r"'frail' is broken .* 2 restarts in 60"):
            future.result(PATIENCE)
    with pytest.raises(concurrent.futures.BrokenExecutor) as broken:
        pool.submit(pow, 2, 2)
    assert isinstance(broken.value.__cause__, Stray)
    assert pool.drain().panicked <= 3
    assert pool.state is PoolState.CLOSED
    assert pool.metrics().cancelled == 3


def test_restarts_long_ago_do_not_count() -> None:
    clock = VirtualClock()
    policy = PanicRecovery(max_restarts=1, within=10)
    with Pool(1, context=Context(clock=clock), panic_recovery=policy) as pool:
        for _ in range(5):
            assert isinstance(pool.submit(stray).exception(PATIENCE), TaskPanicked)
            clock.advance(11)
        assert pool.metrics().restarts == 5
        assert pool.submit(pow, 2, 2).result(PATIENCE) == 4


def test_the_initializer_runs_in_every_worker_and_every_replacement() -> None:
    local, made = threading.local(), []

    def initializer(value: str) -> None:
        local.value = value
        made.append(threading.current_thread().name)

    with Pool(2, name="p", initializer=initializer, initargs=("hello",)) as pool:
        assert pool.submit(lambda: local.value).result(PATIENCE) == "hello"
        pool.submit(stray).exception(PATIENCE)
        assert pool.submit(lambda: local.value).result(PATIENCE) == "hello"
    assert len(made) == 3


def test_an_initializer_that_fails_at_first_is_tried_again() -> None:
    attempts: list[int] = []

    def initializer() -> None:
        attempts.append(1)
        if len(attempts) < 3:
            raise OSError("not yet")

    with Pool(1, initializer=initializer, panic_recovery=PanicRecovery(backoff=QUICK)) as pool:
        assert pool.submit(pow, 2, 2).result(PATIENCE) == 4
        assert pool.metrics().restarts == 2


class Falsy(Exception):
    """There are such: CPython's tests of its executors have them, too."""

    def __bool__(self) -> bool:
        return False


@pytest.mark.parametrize("error", [ValueError("no model"), SystemExit(2), Falsy("no model")])
def test_an_initializer_that_keeps_failing_breaks_the_pool(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    def initializer() -> None:
        raise error

    pool = Pool(2, 10, initializer=initializer, panic_recovery=PanicRecovery(backoff=QUICK))
    try:
        future = pool.submit(pow, 2, 2)
    except BrokenPool as broken:
        shown: BaseException | None = broken
    else:
        shown = future.exception(PATIENCE)
    assert isinstance(shown, BrokenPool)
    assert shown.__cause__ is error
    assert pool._broken
    with pytest.raises(BrokenPool):
        pool.submit(pow, 2, 2)
    pool.drain()
    assert "failed to start (1 in a row)" in caplog.text
    assert repr(error) in str(shown)


def test_the_retries_of_an_initializer_back_off_on_the_clock() -> None:
    clock = VirtualClock()
    attempts = threading.Semaphore(0)

    def initializer() -> None:
        attempts.release()
        raise OSError

    policy = PanicRecovery(backoff=Backoff(initial=1, factor=2, maximum=100, jitter=0, retries=3))
    pool = Pool(1, context=Context(clock=clock), initializer=initializer, panic_recovery=policy)
    future = pool.submit(pow, 2, 2)
    for delay in (1, 2, 4):
        assert attempts.acquire(timeout=PATIENCE)
        clock.wait_for_timers()
        clock.advance(delay - 0.001)
        assert not attempts.acquire(blocking=False)
        clock.advance(0.001)
    assert attempts.acquire(timeout=PATIENCE)
    with pytest.raises(BrokenPool):
        future.result(PATIENCE)
    pool.drain()


def test_a_fault_in_the_very_end_hangs_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    from ion_actors.workerpool.supervisor.supervisor import PoolSupervisor

    def fails(self: PoolSupervisor) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(PoolSupervisor, "_make_report", fails)
    pool = Pool(1)
    with pytest.raises(BrokenPool, match="supervisor failed"):
        pool.drain()
    assert pool.is_closed


def test_by_default_a_hopeless_initializer_gives_up_within_two_seconds() -> None:
    backoff = Backoff()
    waits = [backoff.delay(n, chance=lambda: 0.0) for n in range(1, backoff.retries + 1)]
    assert sum(wait for wait in waits if wait is not None) <= 2
    assert backoff.delay(backoff.retries + 1) is None


class Trap:
    """In place of the lock that a worker sleeps on: something is thrown into its thread there.

    (Not by ``PyThreadState_SetAsyncExc``: while that is pending, CPython 3.11 spins in every other
    thread that is traced, as under coverage.)
    """

    def __init__(self) -> None:
        self.spring = threading.Event()

    def acquire(self) -> None:
        assert self.spring.wait(PATIENCE)
        raise Stray("thrown in")

    def release(self) -> None:
        """Whoever wakes the worker finds it waking."""


def test_an_exception_thrown_into_an_idle_worker_costs_nothing_but_the_worker(
    caplog: pytest.LogCaptureFixture,
) -> None:
    trap = Trap()
    with Pool(1, 10) as pool:
        with busy(pool):
            core_of(pool).workers[0].inbox._asleep = trap  # type: ignore[assignment]
        eventually(lambda: resting(pool))
        future = pool.submit(pow, 2, 3)  # handed to the worker that is about to be lost
        trap.spring.set()
        assert future.result(PATIENCE) == 8
        assert pool.metrics().restarts == 1
        assert pool.submit(pow, 2, 4).result(PATIENCE) == 16
    assert "crashed" in caplog.text or "interrupted while it waited" in caplog.text


def test_a_done_callback_that_exits_does_not_take_its_worker_down() -> None:
    with Pool(1) as pool, busy(pool) as gate:
        future = pool.submit(pow, 2, 2)
        future.add_done_callback(lambda _: sys.exit(3))
        gate.open()
        assert future.result(PATIENCE) == 4
    assert pool.metrics().restarts == 0


def test_a_worker_that_cannot_be_started_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    from ion_actors.workerpool.worker.worker import PoolWorker

    real, refused = PoolWorker.start_thread, []

    def start_thread(self: PoolWorker) -> None:
        if not refused:
            refused.append(self.name)
            raise RuntimeError("can't start new thread")
        real(self)

    monkeypatch.setattr(PoolWorker, "start_thread", start_thread)
    with Pool(1, panic_recovery=PanicRecovery(backoff=QUICK)) as pool:
        assert pool.submit(pow, 2, 2).result(PATIENCE) == 4
    assert refused


def test_a_fault_of_the_supervisor_breaks_the_pool_and_hangs_nobody(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from ion_actors.workerpool.model.recovery import RestartWindow

    def allow(self: RestartWindow, policy: object, now: float) -> object:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(RestartWindow, "allow", allow)
    pool = Pool(1, 10)
    with busy(pool):
        panicking = pool.submit(stray)
        waiting = pool.submit(pow, 2, 2)
    assert isinstance(panicking.exception(PATIENCE), TaskPanicked)
    with pytest.raises(BrokenPool, match="supervisor failed"):
        waiting.result(PATIENCE)
    pool.drain()
    assert any(record.levelno == logging.CRITICAL for record in caplog.records)


def test_a_worker_replaced_during_a_drain_that_comes_too_late_for_the_work_retires() -> None:
    panic, second, third, last = (threading.Event() for _ in range(4))
    running = threading.Barrier(3)

    def first_task() -> None:
        running.wait(PATIENCE)
        assert panic.wait(PATIENCE)
        raise SystemExit

    def second_task() -> None:
        running.wait(PATIENCE)
        assert second.wait(PATIENCE)

    def third_task() -> None:
        third.set()
        assert last.wait(PATIENCE)

    class Logger(logging.Logger):
        """Called between the decision to replace a worker and the deed."""

        def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
            if "is replaced" in str(msg):
                second.set()
                assert third.wait(PATIENCE)

    pool = Pool(2, logger=Logger("test"))
    futures = [pool.submit(task) for task in (first_task, second_task)]
    running.wait(PATIENCE)
    pool.submit(third_task)
    draining = run_in_thread(pool.drain, PATIENCE)
    eventually(lambda: pool.is_draining)
    panic.set()
    futures[0].exception(PATIENCE)
    last.set()
    report: Any = draining.result(PATIENCE)
    assert report.unfinished == ()
    assert report.elapsed < PATIENCE / 2, "it was never woken"
