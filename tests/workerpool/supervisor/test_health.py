"""A pool that works: other sizes, tasks that are stuck, and what can be seen of it."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from ion_actors import (
    Backoff,
    BrokenPool,
    Context,
    PanicRecovery,
    Pool,
    PoolClosed,
    PoolState,
    Resize,
    StuckTask,
    current_context,
)
from ion_actors.testing import VirtualClock
from tests.workerpool.helpers import PATIENCE, Gate, all_is_told, busy, eventually, run_in_thread

# -- size ------------------------------------------------------------------------------------


def test_a_pool_that_grows_takes_up_its_backlog_at_once() -> None:
    with Pool(1) as pool:
        together = threading.Barrier(4)
        futures = [pool.submit(together.wait, PATIENCE) for _ in range(4)]
        pool.resize(4)  # else they would wait for each other
        assert sorted(future.result(PATIENCE) for future in futures) == [0, 1, 2, 3]
        assert pool.size == pool.metrics().size == 4


def test_a_pool_that_shrinks_lets_the_busy_finish() -> None:
    with Pool(3, name="p") as pool:
        with busy(pool) as gate:
            pool.resize(1)
            assert pool.metrics().running == 3
            gate.open()
        eventually(lambda: len(pool.dump().workers) == 1)
        alone = threading.Semaphore(1)

        def task() -> bool:
            free = alone.acquire(blocking=False)
            current_context().sleep(0)
            alone.release()
            return free

        assert all(pool.map(lambda _: task(), range(50)))
        assert [worker.name for worker in pool.dump().workers] == ["p-0"]


def test_no_task_is_lost_whatever_the_size_becomes(threads: ThreadPoolExecutor) -> None:
    def submitter(pool: Pool, first: int) -> list[int]:
        futures = [pool.submit(int, str(n)) for n in range(first, first + 2000)]
        return [future.result(PATIENCE) for future in futures]

    with Pool(4, 16) as pool:
        every = [threads.submit(submitter, pool, 2000 * n) for n in range(4)]
        for size in (1, 6, 2, 8, 3, 1, 5) * 10:
            pool.resize(size)
        for n, one in enumerate(every):
            assert one.result(PATIENCE) == list(range(2000 * n, 2000 * n + 2000))
        numbers = pool.metrics()
        assert (numbers.size, numbers.completed, numbers.restarts) == (5, 8000, 0)
        eventually(lambda: len(pool.dump().workers) == 5)


def test_a_task_may_resize_its_own_pool() -> None:
    with Pool(1) as pool:
        pool.submit(pool.resize, 2).result(PATIENCE)
        pool.submit(pool.resize, 1).result(PATIENCE)
        assert pool.size == 1


def test_resize_is_a_message() -> None:
    with Pool(1) as pool:
        assert pool.actor_ref.ask(Resize(3)) is None
        pool.actor_ref.tell(Resize(2))
        eventually(lambda: pool.size == 2)


@pytest.mark.parametrize(
    ("size", "error", "text"),
    [
        (0, ValueError, "size must be at least 1, not 0"),
        (True, TypeError, "whole number, not True"),
        ("2", TypeError, "whole number, not '2'"),
    ],
)
def test_a_senseless_size_is_refused(size: Any, error: type[Exception], text: str) -> None:
    with Pool(1) as pool:
        with pytest.raises(error, match=text):
            pool.resize(size)
        assert pool.size == 1


def test_a_pool_at_its_end_keeps_its_size() -> None:
    with Pool(1) as pool, busy(pool) as gate:
        draining = run_in_thread(pool.drain)
        eventually(lambda: pool.is_draining)
        with pytest.raises(PoolClosed):
            pool.resize(2)
        with pytest.raises(PoolClosed):
            pool.actor_ref.ask(Resize(2))
        gate.open()
        draining.result(PATIENCE)
    with pytest.raises(PoolClosed):
        pool.resize(2)


def test_a_broken_pool_says_so() -> None:
    pool = Pool(1, initializer=int, initargs=("x",), panic_recovery=PanicRecovery(backoff=QUICK))
    eventually(lambda: pool.is_closed)
    with pytest.raises(BrokenPool):
        pool.resize(2)


QUICK = Backoff(initial=0.0, retries=0)


def test_a_seat_that_is_gone_gets_no_second_try(clock: VirtualClock) -> None:
    started = threading.Semaphore(0)
    failing = threading.Event()

    def initializer() -> None:
        started.release()
        if failing.is_set():
            raise OSError("not now")

    recovery = PanicRecovery(backoff=Backoff(initial=1.0, jitter=0.0, retries=5))
    with Pool(
        1, initializer=initializer, panic_recovery=recovery, context=Context(clock=clock)
    ) as pool:
        assert started.acquire(timeout=PATIENCE)
        failing.set()
        pool.resize(2)
        assert started.acquire(timeout=PATIENCE)
        clock.wait_for_timers(1)
        pool.resize(1)
        failing.clear()
        clock.advance(2)
        assert pool.submit(str, 1).result(PATIENCE) == "1"
        assert (pool.size, pool.metrics().restarts) == (1, 0)
        assert not started.acquire(blocking=False)


# -- tasks that are stuck ---------------------------------------------------------------------


def stuck_pool(clock: VirtualClock, **options: Any) -> tuple[Pool, list[StuckTask]]:
    told: list[StuckTask] = []
    pool = Pool(
        1, name="p", context=Context(clock=clock), stuck_after=10, on_stuck=told.append, **options
    )
    return pool, told


def look(clock: VirtualClock, times: int = 1) -> None:
    """Let so many looks happen, and all be told; one is planned when the last has been made."""
    for _ in range(times):
        clock.wait_for_timers(1)
        clock.advance(5)
    clock.wait_for_timers(1)
    all_is_told()


def test_a_stuck_task_is_reported_once_with_its_stack(
    clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    pool, told = stuck_pool(clock)
    gate = Gate()
    with pool:
        future = pool.options(name="slow").submit(gate)
        gate.await_entered()
        look(clock)
        assert not told
        look(clock, times=4)
        gate.open()
        assert future.result(PATIENCE) == "through"
        assert pool.submit(str, 1).result(PATIENCE) == "1"
    (stuck,) = told
    assert (stuck.pool, stuck.worker, stuck.task) == ("p", "p-0", "slow")
    assert stuck.age >= 10
    assert "in __call__" in stuck.stack
    assert not stuck.replaced
    (record,) = [one for one in caplog.records if "has been running" in one.message]
    assert record.levelno == logging.WARNING
    assert record.task == "slow"  # type: ignore[attr-defined]


def test_a_worker_that_is_only_busy_is_not_reported(clock: VirtualClock) -> None:
    pool, told = stuck_pool(clock)
    with pool:
        for _ in range(10):
            assert pool.submit(str, 1).result(PATIENCE) == "1"
            look(clock)
    assert not told


def test_a_task_is_reported_once_also_if_it_runs_another_one_meanwhile(
    clock: VirtualClock,
) -> None:
    pool, told = stuck_pool(clock)
    before, inner, after = Gate(), Gate(), Gate()

    def outer() -> None:
        before()
        pool.options(name="inner").submit(inner).result()
        after()

    with pool:
        waiting = pool.options(name="outer").submit(outer)
        for gate in (before, inner, after):
            gate.await_entered()
            look(clock, times=3)
            gate.open()
        waiting.result(PATIENCE)
    assert sorted(one.task for one in told) == ["inner", "outer"]


def test_a_task_that_runs_others_all_the_time_can_be_stuck_too(clock: VirtualClock) -> None:
    pool, told = stuck_pool(clock)
    gates = [Gate() for _ in range(4)]

    def outer() -> None:
        for gate in gates:
            pool.options(name="inner").submit(gate).result()

    with pool:
        waiting = pool.options(name="outer").submit(outer)
        for gate in gates:
            gate.await_entered()
            look(clock)
            gate.open()
        waiting.result(PATIENCE)
    assert [one.task for one in told] == ["outer"]


def test_a_stuck_worker_is_replaced_as_often_as_allowed(clock: VirtualClock) -> None:
    pool, told = stuck_pool(clock, replace_stuck=1)
    first, second = Gate(), Gate()
    with pool:
        stuck = pool.submit(first)
        first.await_entered()
        look(clock, times=2)
        assert pool.submit(str, "by the successor").result(PATIENCE) == "by the successor"
        again = pool.submit(second)
        second.await_entered()
        look(clock, times=2)
        assert [one.replaced for one in told] == [True, False]
        first.open()
        assert stuck.result(PATIENCE) == "through"  # late, and as good as ever
        eventually(lambda: len(pool.dump().workers) == 1)
        second.open()
        again.result(PATIENCE)
        numbers = pool.metrics()
        assert (numbers.restarts, numbers.completed) == (1, 3)


def test_a_replacement_may_follow_once_the_stuck_one_has_ended(clock: VirtualClock) -> None:
    pool, told = stuck_pool(clock, replace_stuck=1)
    with pool:
        for _ in range(3):
            gate = Gate()
            stuck = pool.submit(gate)
            gate.await_entered()
            look(clock, times=2)
            assert pool.submit(str, 1).result(PATIENCE) == "1"
            gate.open()
            stuck.result(PATIENCE)
            eventually(lambda: len(pool.dump().workers) == 1)
    assert [one.replaced for one in told] == [True] * 3


def test_a_handler_that_raises_is_logged(
    clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    def handler(_: StuckTask) -> None:
        raise SystemExit("no")

    gate = Gate()
    with Pool(1, context=Context(clock=clock), stuck_after=10, on_stuck=handler) as pool:
        pool.submit(gate)
        gate.await_entered()
        look(clock, times=2)
        eventually(lambda: "on_stuck failed" in caplog.text)
        gate.open()


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"stuck_after": 0}, ValueError, "stuck_after must be more than zero"),
        ({"stuck_after": "1"}, TypeError, "stuck_after must be a number"),
        ({"on_stuck": 1}, TypeError, "on_stuck must be callable"),
        ({"replace_stuck": -1}, ValueError, "replace_stuck must be at least 0"),
    ],
)
def test_senseless_limits_are_refused(
    options: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        Pool(1, **options)


# -- what can be seen -------------------------------------------------------------------------


def test_a_dump_shows_what_each_worker_is_at(clock: VirtualClock) -> None:
    gate = Gate()
    with Pool(2, name="p", context=Context(clock=clock)) as pool:

        def outer() -> str:
            return pool.options(name="inner").submit(gate).result()

        first, second = Gate(), Gate()
        for one in (first, second):
            pool.submit(one)
            one.await_entered()
        pool.options(name="outer").submit(outer)
        first.open()
        gate.await_entered()  # by the same worker: the other one is still busy
        second.open()
        eventually(lambda: str(pool.dump()).count(": idle") == 1)  # the one who was busy is done
        clock.advance(3)
        dump = pool.dump()
        (at_work,) = [worker for worker in dump.workers if worker.task is not None]
        assert (dump.name, dump.state, dump.size) == ("p", PoolState.RUNNING, 2)
        assert at_work.age == 3
        assert "in __call__" in at_work.stack
        text = str(dump)
        assert "'inner' for 3.000 s" in text
        assert ": idle" in text
        gate.open()
    assert pool.dump().workers == ()
    assert "is closed" in str(pool.dump())


def test_a_dump_shows_what_a_task_interrupts() -> None:
    gate = Gate()
    with Pool(1, name="p") as pool:
        outer = pool.options(name="outer").submit(
            lambda: pool.options(name="inner").submit(gate).result()
        )
        gate.await_entered()
        (worker,) = pool.dump().workers
        assert (worker.task, worker.interrupted) == ("inner", ("outer",))
        assert "'inner' for" in str(pool.dump())
        assert "on top of 'outer'" in str(pool.dump())
        gate.open()
        assert outer.result(PATIENCE) == "through"


def test_a_dump_counts_who_waits() -> None:
    with Pool(1, 1) as pool, busy(pool) as gate:
        pool.submit(str)
        blocked = run_in_thread(pool.submit, str)
        eventually(lambda: pool.dump().waiting == 1)
        dump = pool.dump()
        assert (dump.queued, dump.queue_size) == (1, 1)
        gate.open()
        blocked.result(PATIENCE)
