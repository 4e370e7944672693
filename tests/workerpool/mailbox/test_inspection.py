"""A look at what waits, and a purge of it: facts of one moment, without the user's code."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from dataclasses import FrozenInstanceError

import pytest

from ion_actors import (
    Backoff,
    Cancelled,
    Context,
    DeadLetter,
    DropReason,
    Pool,
    PoolClosed,
    QueuedTask,
    Retry,
    TaskDropped,
)
from ion_actors.testing import VirtualClock
from tests.workerpool.helpers import PATIENCE, Gate, eventually, run_in_thread, until_waiting

SECRET = "hunter2"


@pytest.fixture
def pool(clock: VirtualClock) -> Iterator[Pool]:
    """Paused, in virtual time."""
    with Pool(2, 10, name="p", context=Context(clock=clock)) as pool:
        pool.pause()
        yield pool
        pool.purge()


# -- a look --------------------------------------------------------------------------------


def test_what_waits_is_listed_in_the_order_of_acceptance(pool: Pool, clock: VirtualClock):
    pool.submit(pow, 2, 3)
    clock.advance(2.0)
    pool.options(key="k", key_limit=3, priority=7, ttl=10.0, timeout=30.0, name="mine").submit(int)
    clock.advance(1.0)
    begin = clock.monotonic()
    first, second = pool.queued()
    assert first == QueuedTask(name="pow", age=3.0)
    assert second == QueuedTask(
        name="mine", age=1.0, key="k", key_limit=3, priority=7, expires_in=9.0, deadline=begin + 29
    )
    pool.options(ttl=5).submit(int)
    assert pool.queued()[-1].age == 0.0


def test_what_waits_for_its_time_comes_last(pool: Pool, clock: VirtualClock):
    pool.options(delay=9.0, ttl=1.0).submit(int)
    pool.options(delay=5.0, key="k").submit(abs, -1)
    pool.submit(pow, 2, 3)
    clock.advance(2.0)
    found = pool.queued()
    assert [(one.name, one.age, one.due_in) for one in found] == [
        ("pow", 2.0, None), ("abs", 2.0, 3.0), ("int", 2.0, 7.0)
    ]  # fmt: skip
    assert found[2].expires_in == 8.0
    clock.advance(3.0)
    assert [(one.name, one.due_in) for one in pool.queued()] == [
        ("pow", None), ("abs", None), ("int", 4.0)
    ]  # fmt: skip


def fail(gate: Gate) -> None:
    gate()
    raise OSError("not now")


def test_what_waits_for_another_try_is_in_it_and_can_be_purged(clock: VirtualClock):
    gate = Gate()
    with Pool(1, context=Context(clock=clock)) as pool:
        retry = Retry(attempts=3, backoff=Backoff(initial=5.0, maximum=5.0, jitter=0.0))
        future = pool.options(retry=retry, key="k").submit(fail, gate)
        gate.await_entered()
        gate.open()
        eventually(lambda: pool.metrics().delayed == 1)
        (task,) = pool.queued()
        assert (task.name, task.key, task.age, task.due_in) == ("fail", "k", 0.0, 5.0)
        assert pool.purge(lambda task: task.due_in is not None) == 1
        with pytest.raises(TaskDropped, match="purged"):
            future.result(0)
        assert pool.options(key="k").submit(int).result(PATIENCE) == 0


def test_what_runs_and_what_waits_for_room_is_not_in_it():
    gate = Gate()
    with Pool(1, 1) as pool:
        pool.options(name="running").submit(gate)
        gate.await_entered()
        pool.options(name="queued").submit(int)
        waiting = run_in_thread(pool.options(name="waiting").submit, int)
        until_waiting(pool, 1)
        assert [one.name for one in pool.queued()] == ["queued"]
        gate.open()
        waiting.result(PATIENCE)
        pool.drain()
        assert pool.queued() == []


def test_a_cancelled_one_is_not_in_it(pool: Pool):
    futures = [pool.submit(int) for _ in range(5)]
    futures[2].cancel()
    assert len(pool.queued()) == 4


def test_the_age_of_one_that_had_to_wait_for_room_counts_from_its_acceptance(
    pool: Pool, clock: VirtualClock
):
    first, *_ = [pool.submit(int) for _ in range(10)]
    waiting = run_in_thread(pool.options(name="late").submit, int)
    until_waiting(pool, 1)
    clock.advance(5.0)
    first.cancel()
    waiting.result(PATIENCE)
    clock.advance(1.0)
    assert [one.age for one in pool.queued() if one.name == "late"] == [1.0]


def test_arguments_are_shown_to_those_who_ask_and_in_no_repr(pool: Pool):
    pool.submit(print, SECRET, end=SECRET)
    (plain,) = pool.queued()
    assert (plain.args, plain.kwargs) == (None, None)
    (asked,) = pool.queued(arguments=True)
    assert (asked.args, asked.kwargs) == ((SECRET,), {"end": SECRET})
    assert SECRET not in repr(asked)
    assert asked == plain
    assert hash(asked) == hash(plain)


def test_facts_are_frozen(pool: Pool):
    pool.submit(int)
    with pytest.raises(FrozenInstanceError):
        pool.queued()[0].age = 0.0  # type: ignore[misc]


class Hostile:
    """Whose code would use the pool, and so would hang or be seen, if it ran."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.armed = False
        self.ran: list[str] = []

    def _run(self, name: str) -> None:
        if self.armed:
            self.ran.append(name)

    def __hash__(self) -> int:
        self._run("hash")
        return 1

    def __eq__(self, other: object) -> bool:
        self._run("eq")
        return self is other

    def __repr__(self) -> str:
        self._run("repr")
        return "hostile"

    def __call__(self) -> None:
        self._run("call")

    @property
    def __name__(self) -> str:
        self._run("name")
        return "hostile"


def test_nothing_of_the_users_runs_in_a_look(pool: Pool):
    hostile = Hostile(pool)
    pool.options(key=hostile).submit(hostile)
    pool.submit(functools.partial(hostile, hostile), hostile)
    hostile.armed = True
    found = pool.queued(arguments=True)
    hostile.armed = False
    assert hostile.ran == []
    assert [one.name for one in found] == ["Hostile", "Hostile"]
    assert found[0].key is hostile


# -- a purge -------------------------------------------------------------------------------


def test_a_purge_ends_what_the_predicate_picks_and_says_how_many(pool: Pool):
    letters: list[DeadLetter] = []
    pool.dead_letters.subscribe(letters.append)
    kept = pool.options(name="kept").submit(pow, 2, 3)
    gone = [pool.options(name="gone", key=n).submit(pow, 2, n) for n in range(3)]
    assert pool.purge(lambda task: task.name == "gone") == 3
    for future in gone:
        assert future.cancelled()
        with pytest.raises(TaskDropped, match="task 'gone' was purged from the queue of pool 'p'"):
            future.result(0)
        with pytest.raises(Cancelled):
            future.exception(0)
    assert pool.metrics().dropped == {DropReason.PURGED: 3}
    assert (pool.metrics().queued, pool.metrics().cancelled) == (1, 3)
    pool.dead_letters.join(PATIENCE)
    assert [(one.task, one.args, one.reason) for one in letters] == [
        ("gone", (2, n), DropReason.PURGED) for n in range(3)
    ]
    back = letters[2].put_back()
    pool.resume()
    assert (kept.result(PATIENCE), back.result(PATIENCE)) == (8, 4)


def test_without_a_predicate_everything_goes_and_makes_room(pool: Pool):
    for number in range(10):
        pool.options(key=number % 2, priority=number).submit(int)
    waiting = run_in_thread(pool.submit, pow, 2, 3)
    until_waiting(pool, 1)
    assert pool.purge() == 10
    assert waiting.result(PATIENCE).cancelled() is False  # type: ignore[attr-defined]
    assert [one.name for one in pool.queued()] == ["pow"], "who waited for room has it now"
    assert pool.purge() == 1
    assert pool.purge() == 0


def test_the_predicate_sees_arguments_if_that_is_asked_for(pool: Pool):
    for number in range(6):
        pool.submit(pow, 2, number)
    assert pool.purge(lambda task: task.args is not None) == 0
    assert pool.purge(lambda task: task.args[1] % 2, arguments=True) == 3
    assert [one.args for one in pool.queued(arguments=True)] == [(2, 0), (2, 2), (2, 4)]


def test_a_predicate_may_use_the_pool_and_what_begins_meanwhile_is_not_touched():
    with Pool(1) as pool:
        pool.pause()
        first, second = pool.submit(pow, 2, 1), pool.submit(pow, 2, 2)
        seen: list[str] = []

        def all_of_them(task: QueuedTask) -> bool:
            if not seen:
                pool.resume()
                assert second.result(PATIENCE) == 4
            seen.append(task.name)
            return True

        assert pool.purge(all_of_them) == 0
        assert (first.result(0), seen) == (2, ["pow", "pow"])


def test_a_predicate_that_raises_purges_nothing(pool: Pool):
    futures = [pool.submit(int) for _ in range(3)]
    with pytest.raises(ZeroDivisionError):
        pool.purge(lambda task: 1 / 0)
    assert not any(one.done() for one in futures)
    assert len(pool.queued()) == 3


def test_callbacks_run_and_may_submit(pool: Pool):
    again: list[object] = []
    future = pool.submit(pow, 2, 3)
    future.add_done_callback(lambda one: again.append(pool.submit(abs, -1)))
    assert pool.purge() == 1
    assert len(again) == 1
    assert [one.name for one in pool.queued()] == ["abs"]


def test_a_purge_of_those_that_stand_in_the_way_of_their_key_lets_others_begin():
    gate = Gate()
    with Pool(2) as pool:
        read = pool.options(key="k", key_limit=2)
        read.submit(gate)
        gate.await_entered()
        pool.options(key="k", name="writer").submit(int)
        later = read.submit(gate)
        assert pool.purge(lambda task: task.name == "writer") == 1
        gate.await_entered()
        gate.open()
        assert later.result(PATIENCE) == "through"


def test_purges_and_workers_share_the_queue_without_losing_a_task():
    over, purged = threading.Event(), []
    with Pool(3, 50) as pool:

        def sweep() -> None:
            while not over.is_set():
                purged.append(pool.purge(lambda task: task.priority > 0))

        sweeping = run_in_thread(sweep)
        futures = [pool.options(priority=n % 2).submit(abs, n) for n in range(600)]
        over.set()
        sweeping.result(PATIENCE)
        pool.drain()
        numbers = pool.metrics()
    ended = [one.cancelled() for one in futures]
    assert sum(purged) == sum(ended) == numbers.cancelled
    assert numbers.completed == 600 - sum(purged)
    assert not any(ended[::2])


def test_a_closed_pool_has_nothing_to_show_or_to_purge():
    pool = Pool(1)
    pool.close()
    assert (pool.queued(), pool.purge()) == ([], 0)
    with pytest.raises(PoolClosed):
        pool.submit(int)


def test_in_a_drain_what_is_left_can_be_purged():
    gate = Gate()
    pool = Pool(1)
    pool.submit(gate)
    gate.await_entered()
    left = [pool.submit(int) for _ in range(3)]
    draining = run_in_thread(pool.drain)
    eventually(lambda: pool.is_draining)
    assert len(pool.queued()) == 3
    assert pool.purge() == 3
    gate.open()
    report = draining.result(PATIENCE)
    assert report.completed == 1  # type: ignore[attr-defined]
    assert all(one.cancelled() for one in left)


def test_what_makes_no_sense_is_refused(pool: Pool):
    with pytest.raises(TypeError, match="predicate must be callable or None, not 3"):
        pool.purge(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="arguments must be True or False, not 'yes'"):
        pool.queued(arguments="yes")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="arguments must be True or False, not 1"):
        pool.purge(arguments=1)  # type: ignore[arg-type]
