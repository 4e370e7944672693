"""What becomes of tasks for which there is no room, or no time."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable

import pytest

from ion_actors import (
    Cancelled,
    CoDel,
    Context,
    DrainTimeout,
    DropReason,
    Future,
    Overflow,
    PanicRecovery,
    Pool,
    PoolClosed,
    QueueFull,
    TaskDropped,
    TaskExpired,
    TaskPanicked,
    background,
    current_context,
    report_progress,
)
from ion_actors.testing import RecordingMetrics, VirtualClock
from tests.interrupts import KINDS, every_point, interrupt
from tests.workerpool.helpers import PATIENCE, Gate, busy, eventually, run_in_thread, until_waiting

DROPPING = {Overflow.DROP_NEWEST: DropReason.NEWEST, Overflow.DROP_OLDEST: DropReason.OLDEST}


def counts_add_up(pool: Pool) -> bool:
    now = pool.metrics()
    ended = now.completed + now.failed + now.panicked + now.cancelled
    return now.submitted == now.queued + now.running + ended


# -- policies ------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["submit", "try_submit", "asubmit"])
@pytest.mark.parametrize("policy", [Overflow.REJECT, CoDel()])
def test_reject_refuses_at_once(policy: Overflow | CoDel, verb: str):
    with Pool(1, 1, overflow=policy) as pool, busy(pool):
        kept = pool.submit(int)
        with pytest.raises(QueueFull):
            submitted(pool, verb)
        assert pool.metrics().rejected == 1
        assert not kept.done()


def submitted(pool: Pool, verb: str):
    if verb == "asubmit":

        async def main():
            return await pool.asubmit(int)

        return asyncio.run(main())
    return getattr(pool, verb)(int)


@pytest.mark.parametrize("verb", ["submit", "try_submit", "asubmit"])
def test_drop_newest_keeps_what_waits(verb: str):
    with Pool(1, 2, overflow="drop_newest") as pool:
        with busy(pool):
            kept = [pool.submit(int), pool.submit(int)]
            dropped = submitted(pool, verb)
            assert dropped.cancelled()
            with pytest.raises(TaskDropped, match="2 tasks are waiting") as caught:
                dropped.result()
            assert caught.value.why is DropReason.NEWEST
            assert pool.metrics().dropped == {DropReason.NEWEST: 1}
            assert counts_add_up(pool)
        assert [one.result(PATIENCE) for one in kept] == [0, 0]


@pytest.mark.parametrize("verb", ["submit", "try_submit", "asubmit"])
def test_drop_oldest_makes_room(verb: str):
    with Pool(1, 2, overflow="drop_oldest") as pool:
        with busy(pool):
            first, second = pool.submit(int), pool.submit(int)
            newest = submitted(pool, verb)
            assert first.cancelled()
            with pytest.raises(TaskDropped) as caught:
                first.result()
            assert caught.value.why is DropReason.OLDEST
            assert counts_add_up(pool)
        assert [second.result(PATIENCE), newest.result(PATIENCE)] == [0, 0]


def test_drop_oldest_passes_over_what_was_cancelled():
    with Pool(1, 3, overflow="drop_oldest") as pool:
        with busy(pool):
            tasks = [pool.submit(int) for _ in range(3)]
            tasks[0].cancel()
            kept = pool.submit(int)
            assert [one.done() for one in tasks] == [True, False, False]
            pool.submit(int)
            assert [one.done() for one in tasks] == [True, True, False]
        assert kept.result(PATIENCE) == 0


def test_drop_oldest_goes_by_acceptance_and_not_by_rank():
    with Pool(1, 2, overflow="drop_oldest") as pool, busy(pool):
        first = pool.options(priority=-1).submit(int)
        second = pool.options(priority=5).submit(int)
        third = pool.options(priority=9).submit(int)
        assert [first.done(), second.done(), third.done()] == [True, False, False]


@pytest.mark.parametrize("policy", list(DROPPING))
def test_without_a_queue_the_new_one_is_dropped(policy: Overflow):
    with Pool(1, 0, overflow=policy) as pool, busy(pool):
        dropped = pool.submit(int)
        with pytest.raises(TaskDropped) as caught:
            dropped.result()
        assert caught.value.why is DROPPING[policy]


@pytest.mark.parametrize("policy", list(Overflow))
def test_no_policy_accepts_anything_at_the_end(policy: Overflow):
    pool = Pool(1, 1, overflow=policy)
    with busy(pool):
        pool.submit(int)
        closing = run_in_thread(pool.drain)
        eventually(lambda: pool.is_draining)
        with pytest.raises(PoolClosed):
            pool.submit(int)
    closing.result(PATIENCE)


def test_what_is_dropped_runs_its_callbacks_and_lets_go_of_its_arguments():
    heard: list[bool] = []
    with Pool(1, 1, overflow="drop_oldest") as pool, busy(pool):
        first = pool.submit(len, "argument")
        first.add_done_callback(lambda one: heard.append(one.cancelled()))
        pool.submit(int)
        assert heard == [True]
        assert first.args == ()


def test_hooks_are_told_of_what_is_dropped():
    metrics = RecordingMetrics()
    with Pool(1, 1, overflow="drop_newest", metrics=metrics, name="p") as pool, busy(pool):
        for _ in range(3):
            pool.submit(int)
    assert metrics.count("ion_workerpool_tasks_dropped_total", pool="p", reason="newest") == 2
    done = "ion_workerpool_tasks_completed_total"
    assert metrics.count(done, pool="p", status="cancelled") == 2
    assert metrics.count("ion_workerpool_tasks_submitted_total", pool="p") == 4


@pytest.mark.parametrize("policy", list(DROPPING))
def test_eight_threads_at_a_pool_that_drops(policy: Overflow):
    with Pool(2, 4, overflow=policy) as pool:
        start = threading.Barrier(8)

        def produce() -> list:
            start.wait(PATIENCE)
            return [pool.submit(int) for _ in range(500)]

        made = [run_in_thread(produce) for _ in range(8)]
        futures = [one for found in made for one in found.result(PATIENCE)]
        pool.drain()
        ended = Counter("dropped" if one.cancelled() else one.result() for one in futures)
        now = pool.metrics()
        assert now.submitted == 4000
        assert ended[0] == now.completed
        assert ended["dropped"] == now.cancelled == now.dropped.get(DROPPING[policy], 0)


# -- the caller runs it --------------------------------------------------------------------


def test_the_caller_runs_what_finds_no_room():
    with Pool(1, 1, overflow="caller_runs") as pool:
        with busy(pool):
            queued = pool.submit(threading.get_ident)
            own = pool.submit(threading.get_ident)
            assert own.result(0) == threading.get_ident()
            assert not queued.done()
            assert pool.metrics().completed == 1
            assert counts_add_up(pool)
        assert queued.result(PATIENCE) != threading.get_ident()


def full(pool: Pool, gate: Gate) -> None:
    """Take up its one worker and its one place."""
    pool.submit(gate)
    gate.await_entered()
    pool.submit(int)


@pytest.fixture
def gate():
    one = Gate()
    yield one
    one.open()


def test_what_the_caller_runs_fails_and_panics_as_anywhere(gate: Gate):
    told = []
    with Pool(1, 1, overflow="caller_runs", panic_recovery=told.append) as pool:
        full(pool, gate)
        failed, panicked = pool.submit(int, "x"), pool.submit(raise_it, SystemExit(3))
        assert isinstance(failed.exception(0), ValueError)
        error = panicked.exception(0)
        assert isinstance(error, TaskPanicked)
        assert isinstance(error.__cause__, SystemExit)
        now = pool.metrics()
        assert (now.failed, now.panicked, now.restarts) == (1, 1, 0)
        assert [panic.error for panic in told] == [error.__cause__]
        gate.open()


def raise_it(error: BaseException) -> None:
    raise error


def test_what_the_caller_runs_is_hooked_and_wrapped_as_anywhere(gate: Gate):
    metrics, wrapped = RecordingMetrics(), []

    def wrapper(call):
        wrapped.append(threading.get_ident())
        return call

    with Pool(
        1, 1, overflow="caller_runs", metrics=metrics, task_wrapper=wrapper, name="p"
    ) as pool:
        full(pool, gate)
        wrapped.clear()
        assert pool.submit(pow, 2, 3).result(0) == 8
        assert pool.submit(int, "x").exception(0) is not None
        assert isinstance(pool.submit(raise_it, SystemExit(3)).exception(0), TaskPanicked)
        assert wrapped == [threading.get_ident()] * 3
        ended = "ion_workerpool_tasks_completed_total"
        for status in ("success", "error", "panic"):
            assert metrics.count(ended, pool="p", status=status) == 1
        assert len(metrics.observed("ion_workerpool_task_run_seconds", pool="p")) == 3
        gate.open()


def test_a_panic_handler_that_fails_does_not_reach_the_caller(
    gate: Gate, caplog: pytest.LogCaptureFixture
):
    def handler(panic):
        raise LookupError("the handler's own")

    with Pool(1, 1, overflow="caller_runs", panic_recovery=handler) as pool:
        full(pool, gate)
        assert isinstance(pool.submit(raise_it, SystemExit(3)).exception(0), TaskPanicked)
        gate.open()
    (record,) = [one for one in caplog.records if "panic handler failed" in one.message]
    assert "the handler's own" in str(record.exc_info)


def test_ctrl_c_while_the_caller_runs_a_task_is_the_callers(gate: Gate):
    with Pool(1, 1, overflow="caller_runs") as pool:
        full(pool, gate)
        with pytest.raises(KeyboardInterrupt):
            pool.submit(raise_it, KeyboardInterrupt())
        eventually(lambda: pool.metrics().running == 1)
        assert pool.metrics().panicked == 1
        gate.open()


def test_a_soft_time_limit_while_the_caller_runs_a_task_is_the_callers(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
):
    class SoftLimit(Exception):
        pass

    def exceeded(signum: int, frame: object) -> None:
        raise SoftLimit

    before = signal.signal(signal.SIGUSR1, exceeded)
    try:
        with Pool(1, 1, overflow="caller_runs") as pool:
            full(pool, gate)
            with pytest.raises(SoftLimit):
                pool.submit(signal.raise_signal, signal.SIGUSR1)
            eventually(lambda: pool.metrics().running == 1)
            assert pool.metrics().failed == 1
            gate.open()
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_task_of_the_callers_that_panicked_runs_no_more_while_its_handler_does(gate: Gate):
    seen = []

    def handler(panic):
        seen.append(pool.metrics())

    with Pool(1, 1, overflow="caller_runs", panic_recovery=handler) as pool:
        full(pool, gate)
        pool.submit(raise_it, SystemExit(3)).exception(0)
        assert [(one.running, one.panicked) for one in seen] == [(1, 1)]
        gate.open()


@pytest.mark.parametrize("kind", KINDS)
def test_an_interruption_strands_no_task_that_the_caller_runs(
    gate: Gate, kind: type[BaseException]
) -> None:
    with Pool(1, 1, overflow="caller_runs") as pool:
        full(pool, gate)

        def make(point: int) -> str:
            before = pool.metrics()
            where, _ = interrupt(point, lambda: pool.submit(int), kind)
            eventually(lambda: pool.metrics().running == 1)
            eventually(lambda: counts_add_up(pool))
            assert pool.metrics().queued == before.queued, where
            eventually(lambda: len(pool.dump().workers) == 1)
            return where

        assert len(every_point(make)) > 10
        gate.open()


def test_the_caller_runs_it_under_the_tasks_own_context(gate: Gate):
    def look():
        context = current_context()
        return context, context.remaining()

    with Pool(1, 1, overflow="caller_runs") as pool:
        full(pool, gate)
        with Context() as mine:
            context, remaining = pool.options(timeout=100).submit(look).result(0)
            assert current_context() is mine
        assert context is not mine
        assert 0 < remaining <= 100
        gate.open()


def test_the_caller_runs_coroutines_also_below_a_running_loop(gate: Gate):
    async def answer():
        await asyncio.sleep(0)
        return threading.get_ident()

    async def main():
        return pool.submit(answer).result(0)

    with Pool(1, 1, overflow="caller_runs") as pool:
        full(pool, gate)
        assert pool.submit(answer).result(0) == threading.get_ident()
        assert asyncio.run(main()) == threading.get_ident()
        gate.open()


def test_nobody_runs_anything_for_try_submit_and_asubmit(gate: Gate):
    async def main():
        waiting = asyncio.ensure_future(pool.asubmit(threading.get_ident))
        await asyncio.sleep(0)
        gate.open()
        return await (await waiting)

    with Pool(1, 1, overflow="caller_runs") as pool:
        full(pool, gate)
        with pytest.raises(QueueFull):
            pool.try_submit(int)
        assert asyncio.run(main()) != threading.get_ident()


def test_a_drain_waits_for_the_caller_and_reports_it(gate: Gate, clock: VirtualClock):
    inner = Gate()
    pool = Pool(1, 1, overflow="caller_runs", context=Context(clock=clock), name="p")
    full(pool, gate)
    caller = run_in_thread(pool.submit, inner)
    inner.await_entered()
    gate.open()
    assert any("caller" in worker.name for worker in pool.dump().workers)
    eventually(lambda: pool.metrics().completed == 2)
    draining = run_in_thread(pool.drain, 10.0)
    clock.wait_for_timers()
    clock.advance(10.0)
    with pytest.raises(DrainTimeout) as caught:
        draining.result(PATIENCE)
    assert [one.name for one in caught.value.report.running] == ["Gate"]
    assert "caller" in caught.value.report.running[0].worker
    inner.open()
    caller.result(PATIENCE)


def test_a_task_that_fills_its_own_pool_is_helped_and_not_run_by_a_caller():
    def nested(depth: int) -> int:
        if depth == 0:
            return 0
        return sum(one.result() for one in [pool.submit(nested, depth - 1) for _ in range(3)]) + 1

    with Pool(1, 1, overflow="caller_runs") as pool:
        assert pool.submit(nested, 3).result(PATIENCE) == 13


def test_a_caller_waits_for_a_key_that_is_taken(gate: Gate):
    order: list[int] = []
    with Pool(1, 1, overflow="caller_runs") as pool:
        keyed = pool.options(key="k")
        keyed.submit(gate)
        gate.await_entered()
        keyed.submit(order.append, 1)
        second = run_in_thread(keyed.submit, order.append, 2)
        until_waiting(pool, 1)
        assert order == []
        gate.open()
        second.result(PATIENCE).result(PATIENCE)
        assert order == [1, 2]


# -- time to live --------------------------------------------------------------------------


def test_a_task_that_waits_too_long_is_dropped(clock: VirtualClock):
    with Pool(1, 5, context=Context(clock=clock)) as pool, busy(pool):
        stale = pool.options(ttl=2.0, name="it").submit(int)
        fresh = pool.options(ttl=3.0).submit(int)
        clock.advance(2.0)
        with pytest.raises(TaskExpired, match=r"'it' was dropped: .* more than 2 s") as caught:
            stale.result(0)
        assert caught.value.ttl == 2.0
        assert caught.value.why is DropReason.EXPIRED
        assert not fresh.done()
        assert pool.metrics().dropped == {DropReason.EXPIRED: 1}
        assert pool.metrics().queued == 1
        assert counts_add_up(pool)


def test_a_task_that_has_begun_does_not_expire(clock: VirtualClock, gate: Gate):
    with Pool(1, 5, context=Context(clock=clock)) as pool:
        task = pool.options(ttl=2.0).submit(gate)
        gate.await_entered()
        eventually(lambda: clock.timers == 0)
        clock.advance(10.0)
        gate.open()
        assert task.result(PATIENCE) == "through"


def test_the_time_to_live_begins_with_acceptance(clock: VirtualClock):
    with Pool(1, 1, context=Context(clock=clock)) as pool, busy(pool) as gate:
        blocker = pool.submit(int)
        late = run_in_thread(pool.options(ttl=2.0).submit, int)
        until_waiting(pool, 1)
        clock.advance(5.0)
        blocker.cancel()  # now there is room
        task = late.result(PATIENCE)
        clock.advance(1.5)
        assert not task.done()
        gate.open()
        assert task.result(PATIENCE) == 0


class LateClock(VirtualClock):
    """Its timers do not come in time."""

    def advance(self, duration: float) -> None:
        self._now += duration


def test_no_task_begins_late_even_if_its_timer_is():
    clock = LateClock()
    began = []
    with Pool(1, 5, context=Context(clock=clock)) as pool:
        with busy(pool):
            stale = pool.options(ttl=2.0).submit(began.append, 1)
            clock.advance(3.0)
        with pytest.raises(TaskExpired):
            stale.result(PATIENCE)
        assert pool.submit(int).result(PATIENCE) == 0
        assert began == []
        assert pool.metrics().dropped == {DropReason.EXPIRED: 1}
        assert pool.metrics().cancelled == 1
        assert counts_add_up(pool)


@pytest.mark.parametrize("bad", [-1, "1", True])
def test_a_senseless_ttl_is_refused(bad: object):
    with Pool(1) as pool, pytest.raises((TypeError, ValueError), match="ttl"):
        pool.options(ttl=bad)  # type: ignore[arg-type]


# -- priority ------------------------------------------------------------------------------


def order_of(pool: Pool, submissions: list[tuple[int, int]]) -> list[int]:
    order: list[int] = []
    with busy(pool):
        for number, priority in submissions:
            pool.options(priority=priority).submit(order.append, number)
    pool.drain()
    return order


def test_the_more_urgent_begins_first_and_equals_in_their_order():
    given = [(0, 0), (1, 5), (2, 0), (3, 5), (4, -1), (5, 1)]
    assert order_of(Pool(1, 100), given) == [1, 3, 5, 0, 2, 4]


def test_a_stream_of_urgent_tasks_does_not_starve_the_others():
    pool, order = Pool(1, 4), []
    gates = [Gate() for _ in range(12)]
    urgent = pool.options(priority=1)
    pool.submit(gates[0])
    gates[0].await_entered()
    patient = pool.submit(order.append, "patient")
    for number, one in enumerate(gates[1:]):
        urgent.submit(one).add_done_callback(lambda _, number=number: order.append(number))
        gates[number].open()
        if not patient.done():
            eventually(lambda one=one: patient.done() or one.entered._value)
    for one in gates:
        one.open()
    pool.drain()
    # One level is worth as many places as there are in the queue, its own included: 4.
    assert order.index("patient") == 3


def test_what_was_queued_before_the_first_priority_keeps_its_order():
    with Pool(1, 100) as pool:
        order: list[str] = []
        with busy(pool):
            plain = [pool.submit(order.append, name) for name in "abc"]
            pool.options(priority=1).submit(order.append, "urgent")
            plain[1].cancel()
            pool.submit(order.append, "d")
        pool.drain()
        assert order == ["urgent", "a", "c", "d"]


@pytest.mark.parametrize("bad", [1.5, "high", True])
def test_a_senseless_priority_is_refused(bad: object):
    with Pool(1) as pool, pytest.raises(TypeError, match="priority"):
        pool.options(priority=bad)  # type: ignore[arg-type]


# -- keys ----------------------------------------------------------------------------------


def test_tasks_of_a_key_run_one_at_a_time_and_in_order():
    order: dict[int, list[int]] = {key: [] for key in range(3)}
    inside = Counter()
    clashes = []

    def step(key: int, number: int) -> None:
        inside[key] += 1
        clashes.extend([key] * (inside[key] - 1))
        order[key].append(number)
        time.sleep(0)
        inside[key] -= 1

    with Pool(4, 16) as pool:
        start = threading.Barrier(3)

        def produce(key: int) -> None:
            keyed = pool.options(key=key)
            start.wait(PATIENCE)
            for number in range(300):
                keyed.submit(step, key, number)

        for one in [run_in_thread(produce, key) for key in order]:
            one.result(PATIENCE)
        pool.drain()
    assert clashes == []
    assert order == {key: list(range(300)) for key in order}


def test_a_hot_key_does_not_hold_up_the_rest(gate: Gate):
    with Pool(2, 3) as pool:
        hot = pool.options(key="hot")
        hot.submit(gate)
        gate.await_entered()
        waiting = [hot.submit(int) for _ in range(3)]  # the mailbox is full of them
        assert pool.submit(int).result(PATIENCE) == 0
        assert pool.options(key="other").submit(int).result(PATIENCE) == 0
        assert pool.metrics().queued == 3
        gate.open()
        assert [one.result(PATIENCE) for one in waiting] == [0, 0, 0]


def test_who_waits_for_room_behind_a_hot_key_is_taken_by_an_idle_worker(gate: Gate):
    with Pool(2, 2) as pool:
        hot = pool.options(key="hot")
        hot.submit(gate)
        gate.await_entered()
        queued = [hot.submit(int) for _ in range(2)]
        with busy_one(pool) as other:
            blocked = run_in_thread(pool.submit, int)
            until_waiting(pool, 1)
        other.result(PATIENCE)
        assert blocked.result(PATIENCE).result(PATIENCE) == 0
        assert not queued[0].done()
        gate.open()


class busy_one:  # used like busy()
    """One more worker is busy inside the block."""

    def __init__(self, pool: Pool) -> None:
        self.gate = Gate()
        self.task = pool.submit(self.gate)
        self.gate.await_entered()

    def __enter__(self):
        return self.task

    def __exit__(self, *_: object) -> None:
        self.gate.open()


@pytest.mark.parametrize("queue_size", [0, 4])
def test_a_key_is_free_again_whatever_became_of_its_task(queue_size: int):
    with Pool(2, queue_size) as pool:
        keyed = pool.options(key="k")
        ends = [
            keyed.submit(int, "x"),
            keyed.submit(raise_it, SystemExit()),
            keyed.submit(asyncio.sleep, 0),
            keyed.options(timeout=100).submit(int),
        ]
        assert keyed.submit(int).result(PATIENCE) == 0
        assert [type(one.exception(PATIENCE)) for one in ends] == [
            ValueError, TaskPanicked, type(None), type(None),
        ]  # fmt: skip


def test_a_cancelled_task_of_a_key_lets_the_next_begin(gate: Gate):
    with Pool(1, 10) as pool:
        with busy(pool):
            keyed = pool.options(key="k")
            first, second = keyed.submit(int), keyed.submit(int)
            assert first.cancel()
        assert second.result(PATIENCE) == 0


def test_a_task_that_overran_keeps_its_key_until_it_really_ends(clock: VirtualClock, gate: Gate):
    with Pool(2, 10, context=Context(clock=clock)) as pool:
        keyed = pool.options(key="k")
        overrun = keyed.options(timeout=1.0).submit(gate)
        gate.await_entered()
        second = keyed.submit(int)
        clock.advance(1.0)
        assert isinstance(overrun.exception(PATIENCE), TimeoutError)
        assert pool.submit(int).result(PATIENCE) == 0
        assert not second.done()
        gate.open()
        assert second.result(PATIENCE) == 0


def test_a_task_that_waits_for_another_of_its_own_key_is_told():
    from ion_actors import DeadlockError

    with Pool(2, 10) as pool:
        keyed = pool.options(key="k")
        with pytest.raises(DeadlockError, match="'outer'"):
            keyed.options(name="outer").submit(lambda: keyed.submit(int).result()).result(PATIENCE)


def test_a_rendezvous_hands_over_when_the_key_is_free(gate: Gate):
    with Pool(2, 0) as pool:
        keyed = pool.options(key="k")
        keyed.submit(gate)
        gate.await_entered()
        with pytest.raises(QueueFull):
            keyed.try_submit(int)
        second = run_in_thread(keyed.submit, int)
        until_waiting(pool, 1)
        assert pool.submit(int).result(PATIENCE) == 0
        gate.open()
        assert second.result(PATIENCE).result(PATIENCE) == 0


def test_a_drain_finishes_the_lines_of_all_keys():
    done: list[int] = []
    with Pool(3, 100) as pool, busy(pool):
        for number in range(30):
            pool.options(key=number % 2).submit(done.append, number)
    assert sorted(done) == list(range(30))
    assert [n for n in done if n % 2] == list(range(1, 30, 2))


def test_a_close_drops_the_lines_of_all_keys(gate: Gate):
    pool = Pool(2, 100)
    keyed = pool.options(key="k")
    keyed.submit(gate)
    gate.await_entered()
    waiting = [keyed.submit(int) for _ in range(5)]
    closing = run_in_thread(pool.close)
    for one in waiting:
        with pytest.raises(Cancelled):
            one.result(PATIENCE)
    gate.open()
    closing.result(PATIENCE)
    assert pool.metrics().queued == 0


def test_ctrl_c_while_a_task_with_a_key_is_submitted_keeps_no_key():
    with Pool(2, 4) as pool:
        keyed = pool.options(key="k")
        pool.submit(int).result(PATIENCE)

        def make(point: int) -> str:
            where, _ = interrupt(point, lambda: keyed.submit(int))
            assert keyed.submit(int).result(PATIENCE) == 0, where
            return where

        assert len(every_point(make)) > 20


def cancel(pool: Pool, waiting: list[Future[int]]) -> object:
    return waiting[0].cancel()


def purge(pool: Pool, waiting: list[Future[int]]) -> object:
    return pool.purge()


def submit_one_more(pool: Pool, waiting: list[Future[int]]) -> object:
    return pool.submit(int)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", [{}, {"key": "k"}], ids=["plain", "keyed"])
@pytest.mark.parametrize("call", [cancel, purge, submit_one_more])
def test_whoever_is_interrupted_while_ending_a_queued_task_leaves_none_pending(
    call: Callable[[Pool, list[Future[int]]], object],
    options: dict[str, object],
    kind: type[BaseException],
) -> None:
    """Neither the task itself nor any other: they are queued, or they have ended and say so."""
    told: Counter[Future[int]] = Counter()

    def tell(future: Future[int]) -> None:
        told[future] += 1

    every: list[Future[int]] = []
    with Pool(1, 2, overflow="drop_oldest") as pool, busy(pool):

        def make(point: int) -> str:
            waiting = [pool.options(**options).submit(int) for _ in range(2)]  # type: ignore[arg-type]
            every.extend(waiting)
            for one in waiting:
                one.add_done_callback(tell)
            where, _ = interrupt(point, lambda: call(pool, waiting), kind)
            assert counts_add_up(pool), where
            pending = sum(not one.done() for one in waiting)
            assert pool.metrics().queued in (pending, pending + 1), where
            for one in waiting:
                one.cancel()
            pool.purge()
            return where

        assert len(every_point(make)) > 10
    assert all(one.done() for one in every)
    assert set(told.values()) == {1}
    assert len(told) == len(every)


def test_an_unhashable_key_is_refused():
    with Pool(1) as pool, pytest.raises(TypeError, match=r"key must be hashable, not \[\]"):
        pool.options(key=[])  # type: ignore[arg-type]


def was_cancelled(future: Future[object]) -> bool:
    """In the queue, or on its way to its worker."""
    return future.cancelled() or isinstance(future.exception(0), Cancelled)


def test_random_tasks_with_keys_priorities_and_cancellations_all_end():
    done: list[tuple[int, int]] = []
    with Pool(4, 8) as pool:

        def produce(seed: int) -> list:
            made = []
            for number in range(400):
                options = pool.options(
                    key=None if number % 3 == 0 else (seed, number % 2), priority=number % 4
                )
                made.append(options.submit(done.append, (seed, number)))
                if number % 7 == 0:
                    made[-1].cancel()
            return made

        futures = [one for job in [run_in_thread(produce, seed) for seed in range(6)]
                   for one in job.result(PATIENCE)]  # fmt: skip
        pool.drain()
        cancelled = sum(was_cancelled(one) for one in futures)
        assert len(done) + cancelled == len(futures) == 2400
        assert pool.metrics().completed == len(done)
    for seed in range(6):
        for parity in (0, 1):
            line = [n for s, n in done if s == seed and n % 3 and n % 2 == parity]
            assert line == sorted(line)


# -- shedding by delay ---------------------------------------------------------------------


class Load:
    """Tasks that come at ten times the rate at which one worker ends them, in virtual time."""

    SERVICE = 0.1
    STEP = 0.01  # a tenth of it

    def __init__(self, **options: object) -> None:
        self.clock = VirtualClock()
        self.pool = Pool(1, context=Context(clock=self.clock), **options)
        self.waits: list[float] = []
        self.most = 0
        self.futures: list = []

    def work(self, submitted_at: float) -> None:
        self.waits.append(self.clock.monotonic() - submitted_at)
        current_context().sleep(self.SERVICE)

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds / self.STEP)):
            with contextlib.suppress(QueueFull):  # counted by the pool
                self.futures.append(self.pool.submit(self.work, self.clock.monotonic()))
            self.most = max(self.most, self.pool.metrics().queued)
            self.clock.wait_for_timers(1)  # the worker sleeps
            self.clock.advance(self.STEP)

    def futures_add_up(self) -> bool:
        ended = sum(future.done() for future in self.futures)
        now = self.pool.metrics()
        return ended + now.queued + now.running == len(self.futures)

    def end(self) -> None:
        self.pool.close(None)


@pytest.mark.parametrize(
    ("options", "longest"),
    [
        ({"queue_size": 20, "overflow": "reject"}, 2.25),
        ({"queue_size": 20, "overflow": "drop_newest"}, 2.25),
        ({"queue_size": 20, "overflow": "drop_oldest"}, 0.3),
        ({"queue_size": 5000, "overflow": CoDel(target=0.2, interval=1.0)}, 2.3),
    ],
    ids=["reject", "drop_newest", "drop_oldest", "codel"],
)
def test_a_minute_at_ten_times_the_capacity(options: dict[str, object], longest: float):
    load = Load(**options)
    try:
        load.run(60.0)
        now = load.pool.metrics()
        assert counts_add_up(load.pool)
        assert len(load.waits) >= 0.9 * 60 / load.SERVICE  # the worker was kept busy
        assert now.rejected + now.cancelled >= 0.8 * 6000
        assert load.most <= min(now.queue_size, 300)
        assert max(load.waits) <= longest
        eventually(load.futures_add_up)  # a task may be ending at this moment
    finally:
        load.end()


def drop_of(future: Future[object]) -> TaskDropped | None:
    """The error of a task that was dropped."""
    if not future.done():
        return None
    try:
        error = future.exception(0)
    except Cancelled as cancelled:
        error = cancelled
    return error if isinstance(error, TaskDropped) else None


@pytest.mark.parametrize("overflow", ["drop_newest", "drop_oldest", CoDel(0.2, 1.0)])
def test_what_is_dropped_for_overload_says_when_to_try_again(overflow: str | CoDel):
    load = Load(queue_size=20, overflow=overflow)
    try:
        load.run(10.0)
        dropped = [found for one in load.futures if (found := drop_of(one)) is not None]
        assert len(dropped) > 50
        wait = dropped[-1].retry_after
        assert wait is not None
        # 20 wait. Those that are shed are gone in no time, so the queue is shorter than it looks.
        least = 0.0 if isinstance(overflow, CoDel) else 0.8 * 20 * load.SERVICE
        assert least < wait < 1.2 * 22 * load.SERVICE
    finally:
        load.end()


def test_once_the_overload_is_known_what_runs_has_waited_little():
    load = Load(queue_size=5000, overflow=CoDel(target=0.2, interval=1.0))
    try:
        load.run(20.0)
        assert max(load.waits[60:]) <= 0.4 + load.SERVICE
        assert load.pool.metrics().dropped[DropReason.SHED] > 1000
    finally:
        load.end()


def test_what_is_shed_says_so(clock: VirtualClock):
    policy = CoDel(target=1.0, interval=10.0)
    gates = [Gate() for _ in range(4)]
    with Pool(1, 100, context=Context(clock=clock), overflow=policy, name="p") as pool:
        try:
            tasks = [pool.submit(one) for one in gates]
            for one in gates[:2]:
                one.await_entered()
                clock.advance(11.0)
                one.open()
            with pytest.raises(TaskDropped, match=r"shed: .* pool 'p' is overloaded") as caught:
                tasks[2].result(PATIENCE)
            assert caught.value.why is DropReason.SHED
        finally:
            for one in gates:
                one.open()


def test_the_queue_full_error_is_a_queue_full_error():
    with Pool(1, 0, overflow=Overflow.REJECT) as pool, busy(pool), pytest.raises(queue.Full):
        pool.submit(int)


def test_a_caller_that_ends_the_pool_does_not_wait_for_itself() -> None:
    """Its progress is its own, too, and its panic handler is not under its context."""
    contexts: list[object] = []
    recovery = PanicRecovery(handler=lambda _: contexts.append(current_context()))
    pool = Pool(1, 0, overflow="caller_runs", panic_recovery=recovery)

    def ends() -> int:
        report_progress(0.5, "half")
        return len(pool.close(PATIENCE).running)

    with busy(pool):
        future = pool.submit(ends)
    assert future.result(PATIENCE) == 2  # an interim report: the task at the gate, and itself
    assert future.progress is not None
    pool.close()

    def dies() -> None:
        current_context().cancel("by itself")
        raise SystemExit

    with Pool(1, 0, overflow="caller_runs", panic_recovery=recovery) as other, busy(other):
        assert other.submit(dies).exception(PATIENCE) is not None
    assert contexts == [background()]
