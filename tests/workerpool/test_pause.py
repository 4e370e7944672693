"""A paused pool: nothing begins, whoever comes with it; and nothing is stranded afterwards."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import threading
from collections.abc import Callable, Iterator

import pytest

from ion_actors import (
    Cancelled,
    Close,
    CoDel,
    Context,
    DeadlockError,
    Drain,
    Pool,
    PoolClosed,
    PoolState,
    QueueFull,
    TaskDropped,
    TaskExpired,
    TaskPanicked,
)
from ion_actors.testing import VirtualClock
from ion_actors.workerpool.mailbox.mailbox import Mailbox
from ion_actors.workerpool.mailbox.protocols import PARKED, RETIRE
from ion_actors.workerpool.model.metrics import Tally
from tests.inside import resting
from tests.interrupts import every_point, interrupt
from tests.workerpool.helpers import PATIENCE, Gate, eventually, run_in_thread, until_waiting
from tests.workerpool.mailbox.test_keys_and_workers import FakeWorker, keyed_task


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.open()


def die(gate: Gate) -> None:
    gate()
    raise SystemExit


def take(number: int) -> int:
    return number


# -- nothing begins ------------------------------------------------------------------------


@pytest.mark.parametrize("begun", [False, True], ids=["new", "used"])
def test_nothing_begins_until_it_is_resumed(begun: bool):
    with Pool(2, 10) as pool:
        if begun:
            assert pool.submit(pow, 2, 2).result(PATIENCE) == 4
        pool.pause()
        assert pool.is_paused
        futures = [
            *(pool.submit(pow, 2, n) for n in range(3)),
            pool.options(key="k").submit(pow, 3, 1),
            pool.options(priority=5).submit(pow, 3, 2),
        ]
        assert (pool.metrics().queued, pool.metrics().running) == (5, 0)
        assert not any(one.done() or one.running() for one in futures)
        pool.resume()
        assert not pool.is_paused
        assert [one.result(PATIENCE) for one in futures] == [1, 2, 4, 3, 9]


def test_what_runs_goes_on_and_its_worker_begins_nothing_more(gate: Gate):
    with Pool(1, 10) as pool:
        running = pool.submit(gate)
        gate.await_entered()
        queued = pool.submit(int)
        pool.pause()
        gate.open()
        assert running.result(PATIENCE) == "through"
        eventually(lambda: pool.metrics().running == 0)
        eventually(lambda: resting(pool))  # its worker has looked
        assert pool.metrics().queued == 1
        assert not queued.running()
        pool.resume()
        assert queued.result(PATIENCE) == 0


def test_it_may_be_paused_and_resumed_any_number_of_times(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    with Pool(1, name="p") as pool:
        pool.resume()
        pool.pause()
        pool.pause()
        future = pool.submit(int)
        pool.resume()
        assert future.result(PATIENCE) == 0
        pool.resume()
    said = [one.getMessage() for one in caplog.handler.records if "p' " in one.getMessage()]
    assert said == ["pool 'p' is paused", "pool 'p' was resumed"]


def test_it_is_seen(gate: Gate):
    with Pool(1, name="p") as pool:
        pool.pause()
        assert repr(pool).startswith("<Pool 'p' paused, size=1")
        assert str(pool.dump()).startswith("pool 'p' is paused: 1 workers")
        assert (pool.metrics().paused, pool.dump().paused) == (True, True)
        assert pool.state is PoolState.RUNNING
        pool.resume()
        assert repr(pool).startswith("<Pool 'p' running, size=1")
        assert (pool.metrics().paused, pool.dump().paused) == (False, False)


def test_a_task_may_pause_and_resume_its_own_pool():
    with Pool(1) as pool:
        paused = pool.submit(pool.pause)
        assert paused.result(PATIENCE) is None
        after = pool.submit(int)
        assert pool.metrics().queued == 1
        pool.resume()
        assert after.result(PATIENCE) == 0


def test_workers_that_come_later_begin_nothing_either():
    with Pool(1) as pool:
        pool.pause()
        futures = [pool.submit(pow, 2, n) for n in range(6)]
        pool.resize(3)
        assert pool.metrics().queued == 6
        pool.resume()
        assert [one.result(PATIENCE) for one in futures] == [1, 2, 4, 8, 16, 32]


def test_a_worker_that_comes_while_nothing_waits_is_not_idle():
    with Pool(1) as pool:
        pool.pause()
        pool.resize(2)
        future = pool.submit(int)
        assert (pool.metrics().queued, pool.metrics().running) == (1, 0)
        pool.resume()
        assert future.result(PATIENCE) == 0


def test_the_successor_of_a_worker_that_dies_meanwhile_waits_too(gate: Gate):
    with Pool(1) as pool:
        again = pool.options(retry_on_worker_death=1).submit(die, gate)
        gate.await_entered()
        after = pool.submit(int)
        pool.pause()
        gate.open()
        eventually(lambda: pool.metrics().restarts == 1)
        eventually(lambda: pool.metrics().queued == 2)
        assert not again.done()
        pool.resume()
        assert isinstance(again.exception(PATIENCE), TaskPanicked)
        assert after.result(PATIENCE) == 0


def test_map_waits_and_goes_on():
    with Pool(2, 4) as pool:
        pool.pause()
        results = run_in_thread(lambda: list(pool.map(take, range(50))))
        until_waiting(pool, 1)
        pool.resume()
        assert results.result(PATIENCE) == list(range(50))


# -- full ----------------------------------------------------------------------------------


def test_it_accepts_as_much_as_there_is_room_for():
    with Pool(2, 3) as pool:
        pool.pause()
        futures = [pool.submit(take, n) for n in range(3)]
        with pytest.raises(QueueFull):
            pool.try_submit(take, 3)
        blocked = run_in_thread(pool.submit, take, 3)
        until_waiting(pool, 1)
        assert futures[0].cancel()
        fourth = blocked.result(PATIENCE)
        assert pool.metrics().queued == 3
        pool.resume()
        assert [one.result(PATIENCE) for one in [*futures[1:], fourth]] == [1, 2, 3]  # type: ignore[attr-defined]


def test_a_rendezvous_accepts_nothing_while_it_is_paused():
    with Pool(2, 0) as pool:
        pool.pause()
        with pytest.raises(QueueFull):
            pool.try_submit(int)
        waiting = [run_in_thread(pool.submit, take, n) for n in range(3)]
        until_waiting(pool, 3)
        pool.resume()
        assert [one.result(PATIENCE).result(PATIENCE) for one in waiting] == [0, 1, 2]  # type: ignore[attr-defined]


@pytest.mark.parametrize("queue_size", [0, 1])
def test_a_caller_runs_nothing_while_it_is_paused(queue_size: int):
    ran: list[int] = []
    with Pool(1, queue_size, overflow="caller_runs") as pool:
        pool.pause()
        callers = [run_in_thread(pool.submit, ran.append, n) for n in range(3)]
        until_waiting(pool, 3 - queue_size)
        assert ran == []
        pool.resume()
        for one in callers:
            one.result(PATIENCE).result(PATIENCE)  # type: ignore[attr-defined]
        assert sorted(ran) == [0, 1, 2]


def test_the_policies_that_drop_go_by_the_bound():
    with Pool(1, 1, overflow="drop_oldest") as pool:
        pool.pause()
        first, second = pool.submit(take, 1), pool.submit(take, 2)
        with pytest.raises(TaskDropped):
            first.result(PATIENCE)
        pool.resume()
        assert second.result(PATIENCE) == 2
    with Pool(1, 1, overflow="reject") as pool:
        pool.pause()
        kept = pool.submit(take, 1)
        with pytest.raises(QueueFull):
            pool.submit(take, 2)
        pool.resume()
        assert kept.result(PATIENCE) == 1


def test_a_pause_is_no_overload(clock: VirtualClock):
    policy = CoDel(target=1.0, interval=0.1)
    with Pool(1, context=Context(clock=clock), overflow=policy) as pool:
        pool.pause()
        futures = [pool.submit(clock.advance, 0.05) for _ in range(12)]
        clock.advance(60)
        pool.resume()
        assert [one.result(PATIENCE) for one in futures] == [None] * 12


def test_time_limits_count_on(clock: VirtualClock):
    with Pool(1, context=Context(clock=clock)) as pool:
        pool.pause()
        expiring = pool.options(ttl=1.0).submit(int)
        limited = pool.options(timeout=2.0).submit(int)
        lasting = pool.options(ttl=10.0).submit(int)
        clock.advance(2.0)
        with pytest.raises(TaskExpired):
            expiring.result(PATIENCE)
        with pytest.raises(TimeoutError):
            limited.result(PATIENCE)
        pool.resume()
        assert lasting.result(PATIENCE) == 0


def test_asubmit_waits_without_blocking_the_loop():
    with Pool(1, 0) as pool:
        pool.pause()

        async def main() -> int:
            waiting = asyncio.create_task(pool.asubmit(take, 7))
            await asyncio.to_thread(until_waiting, pool, 1)
            pool.resume()
            return await (await waiting)

        assert asyncio.run(main()) == 7


# -- tasks that wait for tasks -------------------------------------------------------------


def test_what_a_running_task_waits_for_is_a_part_of_it(gate: Gate):
    """It would not go on otherwise; its worker runs it, as ever, and nobody else's."""
    with Pool(1, 10) as pool:

        def outer() -> int:
            gate()
            return pool.submit(take, 1).result() + pool.submit(take, 2).result()

        running = pool.submit(outer)
        gate.await_entered()
        other = pool.submit(take, 5)
        pool.pause()
        gate.open()
        assert running.result(PATIENCE) == 3
        assert not other.done()
        pool.resume()
        assert other.result(PATIENCE) == 5


def test_a_running_task_that_finds_no_room_runs_what_it_submits(gate: Gate):
    with Pool(1, 1) as pool:

        def outer() -> list[int]:
            gate()
            return [one.result() for one in [pool.submit(take, n) for n in range(3)]]

        running = pool.submit(outer)
        gate.await_entered()
        pool.pause()
        gate.open()
        assert running.result(PATIENCE) == [0, 1, 2]
        pool.resume()


def test_without_helping_a_task_waits_until_another_worker_is_resumed(gate: Gate):
    with Pool(2, helping=False) as pool:

        def outer() -> int:
            gate()
            return pool.submit(take, 1).result()

        running = pool.submit(outer)
        gate.await_entered()
        pool.pause()
        gate.open()
        eventually(lambda: pool.metrics().queued == 1)
        pool.resume()
        assert running.result(PATIENCE) == 1


def test_a_circle_of_waits_is_refused_as_ever(gate: Gate):
    with Pool(1, helping=False) as pool:

        def outer() -> int:
            gate()
            return pool.submit(take, 1).result()

        running = pool.submit(outer)
        gate.await_entered()
        pool.pause()
        gate.open()
        with pytest.raises(DeadlockError):
            running.result(PATIENCE)
        pool.resume()


# -- the end -------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("begun", [False, True], ids=["new", "used"])
def test_a_drain_resumes_it_and_finishes_everything(size: int, begun: bool):
    pool = Pool(size, drain_timeout=PATIENCE)
    if begun:
        pool.submit(int).result(PATIENCE)
    pool.pause()
    futures = [pool.submit(pow, 2, n) for n in range(10)]
    report = pool.drain()
    assert (report.completed, report.unfinished) == (10, ())
    assert [one.result(0) for one in futures] == [2**n for n in range(10)]
    assert not pool.is_paused
    assert pool.metrics().restarts == 0


def test_a_drain_of_a_paused_pool_uses_all_its_workers():
    gates = [Gate() for _ in range(3)]
    pool = Pool(3)
    pool.pause()
    futures = [pool.submit(gate) for gate in gates]
    draining = run_in_thread(pool.drain)
    for gate in gates:
        gate.await_entered()
    for gate in gates:
        gate.open()
    draining.result(PATIENCE)
    assert [one.result(0) for one in futures] == ["through"] * 3


def leave_a_block(pool: Pool) -> None:
    with pool:
        pass


def ask_the_actor(pool: Pool) -> None:
    pool.actor_ref.ask(Drain(PATIENCE))


@pytest.mark.parametrize("end", [leave_a_block, ask_the_actor, Pool.shutdown])
def test_every_way_to_drain_resumes_it(end: Callable[[Pool], object]):
    pool = Pool(2)
    pool.pause()
    future = pool.submit(pow, 2, 3)
    end(pool)
    assert future.result(PATIENCE) == 8
    pool.drain()


@pytest.mark.filterwarnings("ignore:.*was never closed")
def test_a_paused_pool_that_is_forgotten_is_drained():
    pool = Pool(1)
    pool.pause()
    future = pool.submit(pow, 2, 3)
    del pool
    gc.collect()
    assert future.result(PATIENCE) == 8


def ask_the_actor_to_close(pool: Pool) -> None:
    pool.actor_ref.ask(Close(PATIENCE))


@pytest.mark.parametrize("begun", [False, True], ids=["new", "used"])
@pytest.mark.parametrize("end", [Pool.close, ask_the_actor_to_close])
def test_a_close_begins_nothing(end: Callable[[Pool], object], begun: bool):
    ran: list[int] = []
    pool = Pool(3)
    if begun:
        for one in [pool.submit(int) for _ in range(3)]:
            one.result(PATIENCE)
    pool.pause()
    futures = [pool.submit(ran.append, n) for n in range(20)]
    end(pool)
    pool.close()
    assert ran == []
    for one in futures:
        with pytest.raises(TaskDropped, match="closed"):
            one.result(0)
    assert not pool.is_paused


def test_a_shutdown_that_cancels_begins_nothing():
    ran: list[int] = []
    pool = Pool(3)
    for one in [pool.submit(int) for _ in range(3)]:
        one.result(PATIENCE)
    pool.pause()
    futures = [pool.submit(ran.append, n) for n in range(20)]
    pool.shutdown(cancel_futures=True)
    assert (ran, [one.cancelled() for one in futures]) == ([], [True] * 20)


def test_the_end_of_its_context_ends_it():
    context = Context()
    pool = Pool(2, context=context)
    pool.pause()
    future = pool.submit(int)
    context.cancel("enough")
    with pytest.raises(TaskDropped):
        future.result(PATIENCE)
    pool.close()


def test_those_who_wait_for_room_learn_of_the_end():
    pool = Pool(1, 1)
    pool.pause()
    first = pool.submit(int)
    waiting = run_in_thread(pool.submit, int)
    until_waiting(pool, 1)
    pool.drain()
    with pytest.raises(PoolClosed):
        waiting.result(PATIENCE)
    assert first.result(0) == 0


def test_a_pool_at_its_end_is_not_paused_and_resuming_does_nothing(gate: Gate):
    pool = Pool(1)
    pool.submit(gate)
    gate.await_entered()
    draining = run_in_thread(pool.drain)
    eventually(lambda: pool.is_draining)
    with pytest.raises(PoolClosed):
        pool.pause()
    pool.resume()
    gate.open()
    draining.result(PATIENCE)
    with pytest.raises(PoolClosed):
        pool.pause()
    pool.resume()


def test_a_worker_that_looks_between_the_refusal_and_the_end_of_the_queue_is_woken():
    """It begins nothing, and does not go before a drain has resumed what it was to finish."""
    mailbox, worker, tally = Mailbox("p", 10, 1, Context()), FakeWorker(), Tally()
    assert mailbox.park(worker, tally)
    mailbox.pause()
    task = keyed_task(mailbox)
    task.fn, task.args, task.kwargs, task.variables = int, (), None, contextvars.Context()
    assert mailbox.offer_ranked(task)
    mailbox.refuse(lambda: PoolClosed("closed"))
    mailbox.unpark(worker)
    assert mailbox.take(worker) is PARKED
    assert len(mailbox.drop_queue(lambda _: Cancelled("closed"))) == 1
    assert worker.woken == 1
    mailbox.unpark(worker)
    assert mailbox.take(worker) is RETIRE


# -- races and interruptions ---------------------------------------------------------------


def test_pauses_at_any_time_lose_nothing():
    over = threading.Event()
    done: list[int] = []
    with Pool(4, 8) as pool:

        def toggle() -> int:
            times = 0
            while not over.is_set():
                pool.pause()
                pool.resume()
                times += 1
            return times

        toggling = run_in_thread(toggle)

        def produce(start: int) -> None:
            tasks = pool.options(key=start, key_limit=2) if start % 2 else pool
            for number in range(200):
                tasks.submit(done.append, start * 1000 + number)

        for one in [run_in_thread(produce, start) for start in range(4)]:
            one.result(PATIENCE)
        over.set()
        assert toggling.result(PATIENCE) > 0  # type: ignore[operator]
        pool.drain()
        assert len(done) == pool.metrics().completed == 800


def test_ctrl_c_in_pause_and_resume_strands_nobody():
    with Pool(3) as pool:
        for one in [pool.submit(int) for _ in range(3)]:
            one.result(PATIENCE)

        def pause(point: int) -> str:
            where, _ = interrupt(point, pool.pause)
            pool.resume()
            assert pool.submit(int).result(PATIENCE) == 0, where
            return where

        def resume(point: int) -> str:
            eventually(lambda: resting(pool) == 3)
            pool.pause()
            futures = [pool.submit(int) for _ in range(5)]
            where, _ = interrupt(point, pool.resume)
            if pool.is_paused:
                pool.resume()
            assert [one.result(PATIENCE) for one in futures] == [0] * 5, where
            return where

        assert len(every_point(pause)) > 3
        assert len(every_point(resume)) > 8
