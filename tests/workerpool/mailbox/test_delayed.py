"""Tasks that wait for their time: the heap, the alarm, ``options(delay=...)`` and ``submit_at``."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ion_actors import (
    Cancelled,
    Context,
    DeadlineExceeded,
    DrainTimeout,
    Overflow,
    Pool,
    PoolMetrics,
    QueueFull,
    Submit,
    TaskDropped,
    TaskExpired,
    TaskState,
)
from ion_actors.testing import RecordingMetrics, VirtualClock
from ion_actors.workerpool.mailbox.alarm import Alarm
from ion_actors.workerpool.mailbox.delayed import Delayed
from tests import needs_threads_at_exit
from tests.inside import heap_of
from tests.interrupts import KINDS, every_point, interrupt
from tests.workerpool.helpers import PATIENCE, Gate, eventually, run_in_thread

# -- the heap ----------------------------------------------------------------------------------


@given(
    st.lists(
        st.tuples(st.sampled_from(["add", "discard", "pop"]), st.integers(0, 9), st.integers(0, 5)),
        max_size=60,
    )
)
def test_the_heap_is_a_sorted_list(steps):
    delayed: Delayed[int] = Delayed()
    model: dict[int, tuple[int, int]] = {}  # task: its moment, and when it was added
    for number, (step, task, due) in enumerate(steps):
        if step == "add":
            delayed.add(task, due)
            model[task] = (due, number)
        elif step == "discard":
            assert delayed.discard(task) == (model.pop(task, None) is not None)
        elif (first := delayed.first()) is not None:
            assert delayed.discard(first[1])
            del model[first[1]]
        order = sorted(model, key=lambda one: model[one])
        assert list(delayed) == order
        assert len(delayed) == len(order)
        assert delayed.first() == ((model[order[0]][0], order[0]) if order else None)
    anew = delayed.mended(lambda task: task % 2 == 0)
    assert list(anew) == [task for task in delayed if task % 2 == 0]


def test_what_was_removed_leaves_nothing_behind() -> None:
    delayed: Delayed[int] = Delayed()
    for task in range(1000):
        delayed.add(task, 1000 - task)
    for task in range(999):
        delayed.discard(task)
    assert len(heap_of(delayed)) < 100
    assert delayed.first() == (1, 999)


# -- the alarm ---------------------------------------------------------------------------------


@given(st.lists(st.none() | st.integers(1, 9), min_size=1, max_size=20))
def test_there_is_one_timer_for_the_first_moment_or_none(moments):
    clock = VirtualClock()
    first: float | None = None
    rung: list[float] = []
    alarm = Alarm(clock, lambda: first, lambda: rung.append(clock.monotonic()))
    for moment in moments:
        first = moment
        alarm.set()
        assert clock.timers == (moment is not None)
    clock.advance(100)
    assert len(rung) == (first is not None)
    assert all(at <= first for at in rung if first is not None), "it may look too early"


@pytest.mark.parametrize("kind", KINDS)
def test_a_moment_that_comes_while_the_timer_is_given_up_is_not_lost(
    kind: type[BaseException],
) -> None:
    def make(point: int) -> str:
        clock, moments = VirtualClock(), [5.0]

        def first() -> float | None:
            if moments:
                return min(moments)
            moments.append(7.0)  # by another thread, which finds an earlier timer, and is content
            alarm.set()
            return None

        alarm = Alarm(clock, first, int)
        alarm.set()
        moments.clear()
        where, _ = interrupt(point, alarm.set, kind, spared=())
        assert not moments or clock.moments[:1] in ([5.0], [7.0]), where
        return where

    assert len(every_point(make)) > 5


# -- the pool ----------------------------------------------------------------------------------


def adds_up(numbers: PoolMetrics) -> bool:
    return numbers.submitted == (
        numbers.queued + numbers.running + numbers.completed + numbers.failed
        + numbers.panicked + numbers.cancelled
    )  # fmt: skip


def test_a_task_begins_after_its_delay_and_not_before(clock: VirtualClock) -> None:
    began: list[float] = []
    with Pool(1, context=Context(clock=clock)) as pool:
        future = pool.options(delay=10).submit(lambda: began.append(clock.monotonic()))
        numbers = pool.metrics()
        assert (numbers.queued, numbers.delayed, numbers.running) == (1, 1, 0)
        assert adds_up(numbers)
        clock.advance(9.5)
        assert pool.metrics().delayed == 1
        assert not future.running()
        clock.advance(0.5)
        future.result(PATIENCE)
    assert began == [10.0]
    assert (pool.metrics().delayed, pool.metrics().completed) == (0, 1)


def test_it_takes_no_worker_meanwhile_and_the_order_is_that_of_time(clock: VirtualClock) -> None:
    order: list[str] = []
    with Pool(1, context=Context(clock=clock)) as pool:
        late = [
            pool.options(delay=delay).submit(order.append, str(delay)) for delay in (3, 1, 2, 1.5)
        ]
        pool.submit(order.append, "now").result(PATIENCE)
        gate = Gate()
        pool.submit(gate)
        gate.await_entered()
        clock.advance(5)
        gate.open()
        for one in late:
            one.result(PATIENCE)
    assert order == ["now", "1", "1.5", "2", "3"]


def test_a_delay_of_nothing_is_none() -> None:
    with Pool(1) as pool:
        assert pool.options(delay=0).submit(pow, 2, 3).result(PATIENCE) == 8
        assert pool.submit_at(time.monotonic() - 5, pow, 2, 3).result(PATIENCE) == 8
        assert pool.submit_at(datetime.now(UTC), pow, 2, b=3).exception(PATIENCE) is not None


def test_with_the_real_clock_too() -> None:
    with Pool(2) as pool:
        began = time.monotonic()
        at = pool.options(delay=0.05).submit(time.monotonic).result(PATIENCE)
        assert at - began >= 0.05
        at = pool.submit_at(began + 0.1, time.monotonic).result(PATIENCE)
        assert at >= began + 0.1
        assert pool.options(delay=0.01).submit(pow, 2, 3).result(PATIENCE) == 8


@pytest.mark.parametrize("zone", [UTC, timezone(timedelta(hours=9))])
def test_a_moment_may_be_a_datetime_with_a_zone(clock: VirtualClock, zone: timezone) -> None:
    with Pool(1, context=Context(clock=clock)) as pool:
        future = pool.submit_at(datetime.now(zone) + timedelta(hours=1), pow, 2, 3)
        clock.advance(3500)
        assert not future.done()
        clock.advance(101)
        assert future.result(PATIENCE) == 8


@pytest.mark.parametrize(
    ("when", "error"),
    [
        (datetime(2030, 1, 1), ValueError),
        (None, TypeError),
        ("tomorrow", TypeError),
        (float("nan"), ValueError),
        (float("inf"), TypeError),
        (True, TypeError),
    ],
)
def test_a_moment_that_is_none_is_refused(when: Any, error: type[Exception]) -> None:
    with Pool(1) as pool, pytest.raises(error, match="when must"):
        pool.submit_at(when, print)


@pytest.mark.parametrize(
    ("delay", "error"),
    [(-1, ValueError), (float("nan"), ValueError), (float("inf"), ValueError), ("1", TypeError)],
)
def test_a_delay_that_is_none_is_refused(delay: Any, error: type[Exception]) -> None:
    with Pool(1) as pool, pytest.raises(error, match="delay must"):
        pool.options(delay=delay)


def test_a_pool_without_a_queue_has_no_place_for_it() -> None:
    with Pool(1, 0) as pool:
        with pytest.raises(ValueError, match="queue_size=0"):
            pool.options(delay=1)
        with pytest.raises(ValueError, match="queue_size=0"):
            pool.submit_at(time.monotonic() + 1, print)
        assert pool.options(delay=0).submit(pow, 2, 3).result(PATIENCE) == 8


def test_delayed_tasks_take_up_places(clock: VirtualClock) -> None:
    with Pool(1, 2, context=Context(clock=clock)) as pool:
        later = pool.options(delay=10)
        kept = [later.submit(pow, 2, n) for n in range(2)]
        with pytest.raises(QueueFull):
            later.try_submit(print, "never")
        assert pool.submit(pow, 2, 3).result(PATIENCE) == 8, "an idle worker takes any other"
        gate = Gate()
        pool.submit(gate)
        gate.await_entered()
        with pytest.raises(QueueFull):
            pool.try_submit(print, "never")
        blocked = run_in_thread(lambda: later.submit(pow, 3, 3))
        eventually(lambda: pool.dump().waiting == 1)
        assert kept[0].cancel()
        added = blocked.result(PATIENCE)
        assert pool.metrics().delayed == 2
        gate.open()
        clock.advance(10)
        assert added.result(PATIENCE) == 27


def test_who_waited_for_room_has_the_delay_before_him(clock: VirtualClock) -> None:
    with Pool(1, 1, context=Context(clock=clock)) as pool:
        first = pool.options(delay=5).submit(pow, 2, 2)
        blocked = run_in_thread(lambda: pool.options(delay=10).submit(clock.monotonic))
        eventually(lambda: pool.dump().waiting == 1)
        clock.advance(5)
        assert first.result(PATIENCE) == 4
        future = blocked.result(PATIENCE)
        assert pool.dump().delayed[0].due_in == 10
        clock.advance(10)
        assert future.result(PATIENCE) == 15


def test_coroutines_maps_and_messages_are_delayed_too(clock: VirtualClock) -> None:
    async def main(pool: Pool) -> int:
        return await (await pool.options(delay=1).asubmit(pow, 2, 5))

    with Pool(2, context=Context(clock=clock)) as pool:
        squares = pool.options(delay=1).map(pow, range(4), [2] * 4)
        asked = pool.actor_ref.ask(Submit(pow, (2, 4), delay=1))
        done = run_in_thread(lambda: asyncio.run(main(pool)))
        eventually(lambda: pool.metrics().delayed == 6)
        clock.advance(1)
        assert list(squares) == [0, 1, 4, 9]
        assert asked.result(PATIENCE) == 16
        assert done.result(PATIENCE) == 32


def test_cancelling_leaves_no_timer_and_no_place(clock: VirtualClock) -> None:
    with Pool(1, context=Context(clock=clock)) as pool:
        futures = [pool.options(delay=n + 1).submit(print) for n in range(3)]
        for left, future in zip((2, 1, 0), futures, strict=True):
            assert future.cancel()
            assert future.cancelled()
            assert pool.metrics().delayed == left
        assert clock.timers == 0
        assert pool.metrics().cancelled == 3
        assert adds_up(pool.metrics())


def test_it_ends_with_its_context(clock: VirtualClock) -> None:
    with Pool(1, context=Context(clock=clock)) as pool:
        with Context(timeout=5, clock=clock):
            late = pool.options(delay=10).submit(print)
        with Context() as scope:
            called_off = pool.options(delay=10).submit(print)
        scope.cancel("enough")
        assert called_off.cancelled()
        clock.advance(5)
        assert type(late.exception(PATIENCE)) is DeadlineExceeded
        assert clock.timers == 0


def test_the_time_limits_count_from_the_end_of_the_delay(clock: VirtualClock) -> None:
    with Pool(1, context=Context(clock=clock)) as pool:
        gate = Gate()
        future = pool.options(delay=10, timeout=5).submit(gate)
        stale = pool.options(delay=10, ttl=3).submit(print)
        clock.advance(10)
        gate.await_entered()
        clock.advance(2)
        assert not future.done()
        assert not stale.done()
        clock.advance(1)
        assert isinstance(_error(stale), TaskExpired)
        clock.advance(2)
        assert type(future.exception(PATIENCE)) is DeadlineExceeded
        gate.open()


def test_a_key_is_taken_when_the_time_has_come(clock: VirtualClock) -> None:
    order: list[str] = []
    with Pool(2, context=Context(clock=clock)) as pool:
        keyed = pool.options(key="k")
        late = keyed.options(delay=5).submit(order.append, "late")
        keyed.submit(order.append, "soon").result(PATIENCE)
        gate = Gate()
        keyed.submit(gate)
        gate.await_entered()
        clock.advance(5)
        assert not late.done()
        gate.open()
        late.result(PATIENCE)
    assert order == ["soon", "late"]


def test_a_drain_waits_for_it(clock: VirtualClock) -> None:
    pool = Pool(1, context=Context(clock=clock))
    worker = pool.submit(threading.get_ident).result(PATIENCE)
    future = pool.options(delay=20).submit(threading.get_ident)
    gate = Gate()
    running = pool.submit(gate)
    gate.await_entered()
    report = run_in_thread(lambda: pool.drain(25))
    clock.wait_for_timers(2)
    assert pool.is_draining
    gate.open()
    running.result(PATIENCE)
    eventually(lambda: pool.dump().workers[0].task is None)
    clock.advance(20)
    assert future.result(PATIENCE) == worker, "it has waited for it, too"
    assert report.result(PATIENCE).completed == 2
    assert clock.timers == 0


@pytest.mark.parametrize("warm", [False, True])
def test_a_drain_whose_workers_have_never_begun_waits_too(clock: VirtualClock, warm: bool) -> None:
    initializer = (lambda: None) if warm else None
    pool = Pool(8, context=Context(clock=clock), initializer=initializer)
    futures = [pool.options(delay=n).submit(pow, 2, n) for n in (1, 2, 2)]
    report = run_in_thread(lambda: pool.drain(25))
    clock.wait_for_timers(2)
    clock.advance(2)
    assert [one.result(PATIENCE) for one in futures] == [2, 4, 4]
    assert report.result(PATIENCE).completed == 3


def test_a_drain_that_ends_before_reports_it(clock: VirtualClock) -> None:
    pool = Pool(1, name="p", context=Context(clock=clock))
    future = pool.options(delay=50, name="later").submit(print, "never")
    ended = run_in_thread(lambda: pool.drain(10))
    clock.wait_for_timers(2)
    clock.advance(10)
    with pytest.raises(DrainTimeout) as caught:
        ended.result(PATIENCE)
    (unfinished,) = caught.value.report.cancelled
    assert (unfinished.name, unfinished.state) == ("later", TaskState.DELAYED)
    assert (unfinished.fn, unfinished.args) == (print, ("never",))
    assert future.cancelled()
    with pytest.raises(TaskDropped, match="was closed before"):
        future.result(PATIENCE)
    assert clock.timers == 0
    assert adds_up(pool.metrics())


@pytest.mark.parametrize("idle", [True, False])
def test_closing_ends_it_at_once(clock: VirtualClock, idle: bool) -> None:
    pool = Pool(2, context=Context(clock=clock))
    if idle:
        pool.submit(pow, 2, 2).result(PATIENCE)
    futures = [pool.options(delay=50).submit(print, "never") for _ in range(3)]
    report = pool.close(5)
    assert [one.state for one in report.cancelled] == [TaskState.DELAYED] * 3
    assert all(one.cancelled() for one in futures)
    assert clock.timers == 0


def test_a_pool_that_is_shut_down_without_its_queue_calls_it_off(clock: VirtualClock) -> None:
    pool = Pool(1, context=Context(clock=clock))
    future = pool.options(delay=50).submit(print, "never")
    pool.shutdown(cancel_futures=True)
    assert future.cancelled()


def test_the_dump_shows_what_waits(clock: VirtualClock) -> None:
    with Pool(1, context=Context(clock=clock)) as pool:
        futures = [pool.options(delay=n, name=f"job {n}").submit(pow, 2, n) for n in (30, 10)]
        clock.advance(2)
        dump = pool.dump()
        assert [(one.name, one.due_in, one.tries) for one in dump.delayed] == [
            ("job 10", 8.0, 0), ("job 30", 28.0, 0),
        ]  # fmt: skip
        assert "'job 10' waits for 8.000 s\n" in str(dump)
        many = [pool.options(delay=60).submit(pow, 2, 2) for _ in range(30)]
        assert "12 more wait for their time" in str(pool.dump())
        for one in (*futures, *many):
            one.cancel()


def test_what_it_waits_on_purpose_is_no_time_in_the_queue(clock: VirtualClock) -> None:
    metrics = RecordingMetrics()
    with Pool(1, context=Context(clock=clock), metrics=metrics) as pool:
        future = pool.options(delay=50).submit(pow, 2, 2)
        clock.advance(50)
        future.result(PATIENCE)
    assert metrics.observed("ion_workerpool_task_queue_seconds") == [0.0]


@pytest.mark.parametrize("policy", [Overflow.DROP_OLDEST, Overflow.DROP_NEWEST])
def test_a_full_queue_of_delayed_tasks_drops_the_new_one(
    clock: VirtualClock, policy: Overflow
) -> None:
    with Pool(1, 2, overflow=policy, context=Context(clock=clock)) as pool:
        kept = [pool.options(delay=5).submit(pow, 2, n) for n in range(2)]
        new = pool.options(delay=5).submit(pow, 2, 2)
        assert new.cancelled()
        clock.advance(5)
        assert [one.result(PATIENCE) for one in kept] == [1, 2]


def test_a_caller_does_not_run_it_before_its_time(clock: VirtualClock) -> None:
    with Pool(1, 1, overflow="caller_runs", context=Context(clock=clock)) as pool:
        first = pool.options(delay=5).submit(pow, 2, 2)
        blocked = run_in_thread(lambda: pool.options(delay=5).submit(threading.current_thread))
        eventually(lambda: pool.dump().waiting == 1)
        clock.advance(5)
        first.result(PATIENCE)
        second = blocked.result(PATIENCE)
        clock.advance(5)
        assert second.result(PATIENCE).name.startswith(pool.name)


def test_a_task_that_waits_for_a_delayed_one_of_its_own_pool_runs_it(clock: VirtualClock) -> None:
    with Pool(1, context=Context(clock=clock)) as pool:

        def outer() -> int:
            return pool.options(delay=5).submit(pow, 2, 3).result() + 1

        future = pool.submit(outer)
        clock.wait_for_timers()
        clock.advance(5)
        assert future.result(PATIENCE) == 9


def test_a_pool_that_nobody_has_any_more_does_what_it_was_given(clock: VirtualClock) -> None:
    pool = Pool(1, drain_timeout=60, context=Context(clock=clock))
    future = pool.options(delay=5).submit(pow, 2, 3)
    pools = [pool]
    del pool
    with pytest.warns(ResourceWarning, match="was never closed"):
        _forget(pools)
    clock.wait_for_timers(2)
    clock.advance(5)
    assert future.result(PATIENCE) == 8


def _forget(things: list[Any]) -> None:
    things.clear()
    gc.collect()


def test_cancelled_by_the_pools_context(clock: VirtualClock) -> None:
    context = Context(clock=clock)
    pool = Pool(1, context=context)
    future = pool.options(delay=5).submit(pow, 2, 3)
    context.cancel("over")
    assert isinstance(_error(future), Cancelled)
    pool.close()


def _error(future: Any) -> BaseException | None:
    try:
        return future.exception(PATIENCE)
    except Cancelled as error:
        return error


def test_many_that_are_due_at_once(clock: VirtualClock) -> None:
    with Pool(2, context=Context(clock=clock)) as pool:
        futures = [pool.options(delay=1).submit(pow, n, 2) for n in range(2500)]
        clock.advance(1)
        assert [one.result(PATIENCE) for one in futures] == [n * n for n in range(2500)]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
def test_a_forked_process_does_not_run_what_its_parent_has_delayed() -> None:
    program = """
import os
from ion_actors import Pool, PoolForked

pool = Pool(1)
future = pool.options(delay=0.3).submit(pow, 2, 3)
if (child := os.fork()) == 0:
    try:
        future.result(5)
    except PoolForked:
        with Pool(1) as own:
            print("child", own.options(delay=0.1).submit(pow, 2, 2).result(5), flush=True)
    os._exit(0)
os.waitpid(child, 0)
print("parent", future.result(5), flush=True)
pool.close()
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert sorted(done.stdout.splitlines()) == ["child 4", "parent 8"]
    assert done.stderr == ""


@needs_threads_at_exit
def test_at_the_exit_of_the_interpreter_it_is_waited_for_as_long_as_a_drain_may_take() -> None:
    program = """
from ion_actors import Pool
pool = Pool(1, drain_timeout=1)
pool.options(delay=0.1).submit(print, "soon", flush=True)
pool.options(delay=3600).submit(print, "never", flush=True)
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout == "soon\n"


def test_the_process_backend_has_delays(quick_start: Any) -> None:
    with Pool(1, backend="process") as pool:
        assert pool.options(delay=0.05).submit(pow, 2, 3).result(PATIENCE) == 8
