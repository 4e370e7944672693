"""So many tasks of a key at a time: whatever becomes of them, and whoever runs them."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections import Counter
from typing import Any

import pytest

from ion_actors import (
    Backoff,
    Cancelled,
    CoDel,
    Context,
    DeadlockError,
    Pool,
    QueueFull,
    Retry,
    Submit,
    TaskDropped,
    TaskExpired,
    TaskPanicked,
    Worker,
)
from ion_actors.testing import VirtualClock
from ion_actors.workerpool.mailbox.mailbox import Mailbox
from ion_actors.workerpool.model.metrics import Tally
from ion_actors.workerpool.task_options import TaskTerms
from tests.interrupts import every_point, interrupt
from tests.workerpool.helpers import PATIENCE, Gate, busy, eventually, run_in_thread, until_waiting
from tests.workerpool.mailbox.test_keys_and_workers import FakeWorker, keyed_task


def die(gate: Gate) -> None:
    gate()
    raise SystemExit


@pytest.fixture
def gate():
    gate = Gate()
    yield gate
    gate.open()


class Watch:
    """Counts who is inside."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.inside: Counter[Any] = Counter()
        self.most: Counter[Any] = Counter()
        self.order: list[tuple[Any, int]] = []

    def __call__(self, key: Any, number: int) -> None:
        with self._lock:
            self.order.append((key, number))
            self.inside[key] += 1
            self.most[key] = max(self.most[key], self.inside[key])
        time.sleep(0)
        with self._lock:
            self.inside[key] -= 1


# -- how many ------------------------------------------------------------------------------


def test_as_many_of_a_key_run_as_the_limit_says_and_no_more(gate: Gate):
    with Pool(4) as pool:
        limited = pool.options(key="k", key_limit=3)
        futures = [limited.submit(gate) for _ in range(10)]
        gate.await_entered(3)
        assert pool.submit(int).result(PATIENCE) == 0, "the fourth worker is free for others"
        assert (pool.metrics().running, pool.metrics().queued) == (3, 7)
        gate.open()
        assert [one.result(PATIENCE) for one in futures] == ["through"] * 10


@pytest.mark.parametrize("queue_size", [0, 2, 100])
def test_no_limit_is_exceeded_under_load_and_each_key_begins_in_order(queue_size: int):
    watch = Watch()
    with Pool(6, queue_size) as pool:

        def produce(key: int) -> None:
            limited = pool.options(key=key, key_limit=key)
            for number in range(200):
                limited.submit(watch, key, number)

        for one in [run_in_thread(produce, key) for key in (1, 2, 3)]:
            one.result(PATIENCE)
        pool.drain()
    assert all(watch.most[key] <= key for key in (1, 2, 3)), watch.most
    assert [number for key, number in watch.order if key == 1] == list(range(200))


def test_by_default_it_is_one_and_options_add_up(gate: Gate):
    with Pool(3) as pool:
        limited = pool.options(key_limit=2).options(key="k").options(name="named")
        futures = [limited.submit(gate) for _ in range(3)]
        gate.await_entered(2)
        other = [pool.options(key="one").submit(gate) for _ in range(2)]
        gate.await_entered(1)
        assert pool.metrics().running == 3
        gate.open()
        assert {one.result(PATIENCE) for one in [*futures, *other]} == {"through"}


def test_of_different_limits_the_smallest_of_those_that_run_counts(gate: Gate):
    """As a lock for readers and writers does."""
    writer = Gate()
    with Pool(5) as pool:
        read, write = pool.options(key="k", key_limit=4), pool.options(key="k")
        readers = [read.submit(gate) for _ in range(2)]
        gate.await_entered(2)
        writing = write.submit(writer)
        later = [read.submit(gate) for _ in range(4)]
        assert pool.metrics().running == 2
        gate.open()
        writer.await_entered()
        assert not any(one.done() for one in later)
        assert pool.metrics().running == 1
        writer.open()
        assert all(one.result(PATIENCE) == "through" for one in [*readers, writing, *later])


def test_when_an_exclusive_task_is_over_all_that_waited_for_it_begin():
    """Not only one, on the worker that has become free: others are idle."""
    writer, readers = Gate(), Gate()
    with Pool(3) as pool:
        pool.options(key="k").submit(writer)
        writer.await_entered()
        waiting = [pool.options(key="k", key_limit=3).submit(readers) for _ in range(3)]
        writer.open()
        readers.await_entered(3)
        readers.open()
        assert [one.result(PATIENCE) for one in waiting] == ["through"] * 3


def test_when_an_exclusive_task_that_waits_is_cancelled_those_behind_it_begin(gate: Gate):
    with Pool(3) as pool:
        read = pool.options(key="k", key_limit=3)
        reading = read.submit(gate)
        gate.await_entered()
        writing = pool.options(key="k").submit(int)
        later = [read.submit(gate) for _ in range(2)]
        assert writing.cancel()
        gate.await_entered(2)
        gate.open()
        assert all(one.result(PATIENCE) for one in [reading, *later])


# -- fair ----------------------------------------------------------------------------------


def test_a_key_with_ten_thousand_tasks_does_not_starve_another():
    order: list[str] = []
    with Pool(2, 10_001) as pool:
        with busy(pool):
            hot = pool.options(key="hot", key_limit=2)
            for _ in range(10_000):
                hot.submit(order.append, "hot")
            pool.options(key="cold", key_limit=2).submit(order.append, "cold")
        pool.drain()
    assert order.index("cold") <= 4
    assert len(order) == 10_001


def test_a_priority_goes_before_a_turn():
    order: list[str] = []
    with Pool(1, 100) as pool:
        with busy(pool):
            for name, priority in [("a", 0), ("b", 0), ("a", 0), ("c", 1), ("c", 1)]:
                pool.options(key=name, priority=priority).submit(order.append, name)
        pool.drain()
    assert order == ["c", "c", "a", "b", "a"]


# -- full ----------------------------------------------------------------------------------


def test_a_rendezvous_hands_over_when_there_is_room_for_the_key(gate: Gate):
    second = Gate()
    with Pool(4, 0) as pool:
        limited = pool.options(key="k", key_limit=2)
        limited.submit(gate)
        limited.submit(second)
        gate.await_entered()
        second.await_entered()
        with pytest.raises(QueueFull):
            limited.try_submit(int)
        third = run_in_thread(limited.submit, int)
        until_waiting(pool, 1)
        assert pool.submit(int).result(PATIENCE) == 0
        gate.open()
        assert third.result(PATIENCE).result(PATIENCE) == 0  # type: ignore[attr-defined]
        second.open()


def test_a_caller_counts_and_waits_if_there_is_no_room_for_the_key(gate: Gate):
    with Pool(1, 1, overflow="caller_runs") as pool:
        limited = pool.options(key="k", key_limit=2)
        with busy(pool) as own:
            pool.submit(int)  # the mailbox is full
            callers = [run_in_thread(limited.submit, gate) for _ in range(2)]
            gate.await_entered(2)
            third = run_in_thread(limited.submit, int)
            until_waiting(pool, 1)
            gate.open()
            assert [one.result(PATIENCE).result(PATIENCE) for one in callers] == ["through"] * 2  # type: ignore[attr-defined]
            own.open()
        assert third.result(PATIENCE).result(PATIENCE) == 0  # type: ignore[attr-defined]


def test_what_is_dropped_for_the_newest_lets_those_behind_it_begin(gate: Gate):
    with Pool(3, 2, overflow="drop_oldest") as pool:
        read = pool.options(key="k", key_limit=3)
        reading = read.submit(gate)
        gate.await_entered()
        writing = pool.options(key="k").submit(int)
        later = read.submit(gate)
        newest = pool.options(key="k", key_limit=3).submit(gate)  # drops the writer
        with pytest.raises(TaskDropped):
            writing.result(PATIENCE)
        gate.await_entered(2)
        gate.open()
        assert all(one.result(PATIENCE) for one in [reading, later, newest])


def test_what_is_shed_does_not_count_among_those_that_run(clock: VirtualClock, gate: Gate):
    policy = CoDel(target=0.01, interval=0.1)
    with Pool(2, context=Context(clock=clock), overflow=policy) as pool:
        limited = pool.options(key="k", key_limit=2)
        running = [limited.submit(gate) for _ in range(2)]
        gate.await_entered(2)
        waiting = [limited.submit(int) for _ in range(20)]
        clock.advance(10)
        gate.open()
        for one in [*running, *waiting]:
            assert isinstance(one.exception(PATIENCE), TaskDropped | None)
        assert limited.submit(int).result(PATIENCE) == 0


def test_what_expires_lets_those_behind_it_begin(clock: VirtualClock, gate: Gate):
    with Pool(2, context=Context(clock=clock)) as pool:
        read = pool.options(key="k", key_limit=2)
        reading = read.submit(gate)
        gate.await_entered()
        writing = pool.options(key="k", ttl=1.0).submit(int)
        later = read.submit(gate)
        clock.advance(1.0)
        with pytest.raises(TaskExpired):
            writing.result(PATIENCE)
        gate.await_entered()
        gate.open()
        assert [one.result(PATIENCE) for one in (reading, later)] == ["through"] * 2


# -- how it ends ---------------------------------------------------------------------------


@pytest.mark.parametrize("queue_size", [0, 4])
def test_there_is_room_again_whatever_became_of_a_task(queue_size: int):
    with Pool(2, queue_size) as pool:
        limited = pool.options(key="k", key_limit=2)
        ends = [
            limited.submit(int, "x"),
            limited.submit(die, opened()),
            limited.submit(asyncio.sleep, 0),
            limited.options(timeout=100).submit(int),
        ]
        assert limited.submit(int).result(PATIENCE) == 0
        assert [type(one.exception(PATIENCE)) for one in ends] == [
            ValueError, TaskPanicked, type(None), type(None),
        ]  # fmt: skip
        after = Gate()
        both = [limited.submit(after) for _ in range(2)]
        after.await_entered(2)
        after.open()
        assert [one.result(PATIENCE) for one in both] == ["through"] * 2


def opened() -> Gate:
    gate = Gate()
    gate.open()
    return gate


def test_a_task_that_is_tried_again_is_the_next_of_its_key(gate: Gate):
    with Pool(2) as pool:
        limited = pool.options(key="k", key_limit=2, retry_on_worker_death=1)
        dying = limited.submit(die, gate)
        other = limited.submit(gate)
        gate.await_entered(2)
        after = limited.submit(pow, 2, 3)
        gate.open()
        assert isinstance(dying.exception(PATIENCE), TaskPanicked)
        assert (other.result(PATIENCE), after.result(PATIENCE)) == ("through", 8)
        assert pool.metrics().restarts == 2


def test_between_two_tries_a_task_keeps_its_place(clock: VirtualClock):
    with Pool(3, context=Context(clock=clock)) as pool:
        limited = pool.options(key="k", key_limit=2)
        retry = Retry(attempts=2, backoff=Backoff(initial=5.0, maximum=5.0, jitter=0.0))
        failing = limited.options(retry=retry).submit(int, "x")
        eventually(lambda: pool.metrics().delayed == 1)
        hold = Gate()
        beside, after = limited.submit(hold), limited.submit(int)
        hold.await_entered()
        assert pool.submit(int).result(PATIENCE) == 0
        assert (pool.metrics().queued, pool.metrics().running) == (2, 1)
        clock.advance(5.0)
        assert isinstance(failing.exception(PATIENCE), ValueError)
        assert after.result(PATIENCE) == 0
        hold.open()
        assert beside.result(PATIENCE) == "through"


def test_a_future_that_a_stranger_settles_gives_up_its_place_and_no_other(gate: Gate):
    with Pool(1) as pool:
        with busy(pool):
            keyed = pool.options(key="k")
            settled, after = keyed.submit(int), keyed.submit(pow, 2, 3)
            settled.set_result(7)
        assert after.result(PATIENCE) == 8
        assert settled.result(0) == 7


def test_a_drain_finishes_them_and_a_close_drops_them(gate: Gate):
    with Pool(3) as pool:
        futures = [pool.options(key="k", key_limit=2).submit(pow, n, 2) for n in range(50)]
    assert [one.result(0) for one in futures] == [n * n for n in range(50)]
    pool = Pool(3)
    limited = pool.options(key="k", key_limit=2)
    running = [limited.submit(gate) for _ in range(2)]
    gate.await_entered(2)
    waiting = [limited.submit(int) for _ in range(5)]
    closing = run_in_thread(pool.close)
    for one in waiting:
        with pytest.raises(Cancelled):
            one.result(PATIENCE)
    gate.open()
    closing.result(PATIENCE)
    assert all(one.done() for one in running)


# -- nested waits --------------------------------------------------------------------------


def test_a_task_may_wait_for_another_of_its_key_while_there_is_room():
    with Pool(1) as pool:
        limited = pool.options(key="k", key_limit=2)
        assert limited.submit(lambda: limited.submit(pow, 2, 3).result() + 1).result(PATIENCE) == 9


def test_a_task_that_waits_for_one_too_many_of_its_own_key_is_told():
    with Pool(4) as pool:
        limited = pool.options(key="k", key_limit=2)

        def deep(levels: int) -> int:
            return 0 if levels == 0 else 1 + limited.submit(deep, levels - 1).result()

        assert limited.submit(deep, 1).result(PATIENCE) == 1
        with pytest.raises(DeadlockError, match="deep"):
            limited.submit(deep, 2).result(PATIENCE)


def test_a_task_waits_for_its_key_as_long_as_another_that_has_it_goes_on(gate: Gate):
    with Pool(3) as pool:
        limited = pool.options(key="k", key_limit=2)
        other = limited.submit(gate)
        gate.await_entered()
        began = threading.Event()

        def waits() -> int:
            inner = limited.submit(pow, 2, 3)
            began.set()
            return inner.result()

        waiting = limited.submit(waits)
        assert began.wait(PATIENCE)
        assert not waiting.done()
        gate.open()
        assert waiting.result(PATIENCE) == 8
        assert other.result(PATIENCE) == "through"


# -- other ways to submit ------------------------------------------------------------------


class Counting(Worker):
    def add(self, number: int) -> int:
        return number + 1


def test_it_holds_for_map_and_asubmit_and_proxies_and_messages():
    with Pool(3, worker=Counting) as pool:
        limited = pool.options(key="k", key_limit=2)
        assert list(limited.map(abs, range(20), chunksize=3)) == list(range(20))
        assert sorted(limited.map_unordered(abs, range(9))) == list(range(9))
        assert limited.proxy(Counting).add(1).result(PATIENCE) == 2  # type: ignore[attr-defined]
        assert limited.call(Counting.add, 2).result(PATIENCE) == 3

        async def both() -> list[int]:
            first = await limited.asubmit(abs, -1)
            return [await first, *[one async for one in limited.amap(abs, range(3))]]

        assert asyncio.run(both()) == [1, 0, 1, 2]
        message = Submit(abs, (-4,), key="k", key_limit=2)
        assert pool.actor_ref.ask(message).result(PATIENCE) == 4


# -- what makes no sense -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "error", "says"),
    [
        (0, ValueError, "key_limit must be at least 1, not 0"),
        (-3, ValueError, "key_limit must be at least 1, not -3"),
        (1.5, TypeError, r"key_limit must be a whole number, not 1\.5"),
        ("2", TypeError, "key_limit must be a whole number, not '2'"),
        (True, TypeError, "key_limit must be a whole number, not True"),
    ],
)
def test_a_senseless_limit_is_refused(bad: object, error: type[Exception], says: str):
    with Pool(1) as pool, pytest.raises(error, match=says):
        pool.options(key="k", key_limit=bad)  # type: ignore[arg-type]


def test_a_limit_without_a_key_is_refused_when_a_task_comes_with_it():
    with Pool(1) as pool:
        for options in (pool.options(key_limit=2), pool.options(key_limit=2, priority=1)):
            with pytest.raises(ValueError, match="key_limit=2 limits nothing without a key"):
                options.submit(int)
        assert pool.metrics().submitted == 0


# -- interruptions -------------------------------------------------------------------------


def test_ctrl_c_while_a_task_is_queued_behind_its_key_loses_no_other():
    gate = Gate()
    with Pool(3) as pool:
        limited = pool.options(key="k", key_limit=2)
        running = [limited.submit(gate) for _ in range(2)]
        gate.await_entered(2)

        def make(point: int) -> str:
            where, _ = interrupt(point, lambda: limited.submit(int))
            return where

        assert len(every_point(make)) > 10
        after = limited.submit(pow, 2, 3)
        gate.open()
        assert after.result(PATIENCE) == 8
        assert [one.result(PATIENCE) for one in running] == ["through"] * 2
        eventually(lambda: pool.metrics().queued == pool.metrics().running == 0)


@pytest.mark.parametrize("comes", [True, False])
def test_one_release_wakes_as_many_as_may_begin(comes: bool):
    mailbox = Mailbox("p", 10, 3, Context())
    workers = [FakeWorker() for _ in range(3)]
    for worker in workers:
        assert mailbox.park(worker, Tally())
    tasks = [keyed_task(mailbox) for _ in range(4)]
    for task in tasks:
        task.variables = contextvars.Context()
    for task in tasks[1:]:
        task.terms = TaskTerms(ranked=True, key_limit=3)
    assert all(mailbox.offer_ranked(task) for task in tasks)
    (holder,) = [one for one in workers if one.slot is tasks[0]]
    assert [one.slot for one in workers if one is not holder] == [None, None]
    mailbox.release(tasks[0], holder if comes else None)
    assert {one.slot for one in workers if one is not holder} == {tasks[1], tasks[2]}
