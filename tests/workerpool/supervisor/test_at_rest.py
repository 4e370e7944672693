"""Workers get their threads when they are needed for the first time."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait

import pytest

from ion_actors import BrokenPool, Pool
from ion_actors.testing import assert_no_leaks
from ion_actors.workerpool.model.backoff import Backoff
from ion_actors.workerpool.model.recovery import PanicRecovery
from ion_actors.workerpool.worker.worker import PoolWorker
from tests.inside import resting
from tests.workerpool.helpers import PATIENCE, Gate, busy, eventually, threads_of


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The names of all workers whose threads were started, in that order."""
    names: list[str] = []
    real = PoolWorker.start_thread

    def start_thread(self: PoolWorker) -> None:
        names.append(self.name)
        real(self)

    monkeypatch.setattr(PoolWorker, "start_thread", start_thread)
    return names


def all_idle(pool: Pool) -> bool:
    return resting(pool) == pool.size


def test_a_pool_at_rest_has_only_its_supervisor(started: list[str]) -> None:
    with Pool(8, name="rests") as pool:
        assert [one.name for one in threads_of(pool)] == ["rests-supervisor"]
    assert started == []


def test_as_many_begin_as_are_needed_at_a_time(started: list[str]) -> None:
    gate = Gate()
    with Pool(8, name="p") as pool:
        for _ in range(3):
            pool.submit(gate)
        gate.await_entered(3)
        assert started == ["p-0", "p-1", "p-2"]
        gate.open()


def test_one_who_waits_for_each_task_keeps_one_thread_busy(started: list[str]) -> None:
    with Pool(8, name="p") as pool:
        for number in range(50):
            assert pool.submit(int, number).result() == number
            eventually(lambda: all_idle(pool))
    assert started == ["p-0"]


def test_first_submissions_at_once_begin_each_worker_once(
    started: list[str], threads: ThreadPoolExecutor
) -> None:
    together, gate = threading.Barrier(8), Gate()
    with Pool(8) as pool:

        def submit() -> None:
            together.wait(PATIENCE)
            pool.submit(gate)

        done, _ = wait([threads.submit(submit) for _ in range(8)], PATIENCE)
        gate.await_entered(8)
        gate.open()
    assert len(done) == 8
    assert len(started) == len(set(started)) == 8


def test_with_an_initializer_all_begin_at_once(started: list[str]) -> None:
    together = threading.Barrier(4)
    with Pool(3, initializer=together.wait):
        together.wait(PATIENCE)  # nobody has submitted anything
        assert len(started) == 3


@pytest.mark.parametrize("end", [Pool.drain, Pool.close, Pool.shutdown])
def test_who_was_never_needed_goes_without_a_thread(end: object, started: list[str]) -> None:
    pool = Pool(8)
    assert pool.submit(str, 1).result() == "1"
    eventually(lambda: all_idle(pool))
    end(pool)  # type: ignore[operator]
    assert len(started) == 1
    assert pool.is_closed
    assert pool.metrics().completed == 1


def test_growing_and_shrinking_at_rest_needs_no_thread(started: list[str]) -> None:
    with Pool(2) as pool:
        pool.resize(20)
        assert len(pool.dump().workers) == 20
        pool.resize(1)
        assert len(pool.dump().workers) == 1
        assert started == []
        assert pool.submit(str, 1).result() == "1"


def test_who_was_just_handed_a_task_is_not_let_go() -> None:
    for _ in range(200):
        pool = Pool(2)
        future = pool.submit(str, 1)
        pool.resize(1)
        pool.drain()
        assert future.result(0) == "1"


def test_a_task_that_meets_the_close_has_an_outcome() -> None:
    for _ in range(200):
        pool = Pool(2)
        future = pool.submit(str, 1)
        pool.close()
        assert future.done()


def test_those_with_a_thread_are_preferred_to_new_ones(started: list[str]) -> None:
    with Pool(2, name="p") as pool:
        with busy(pool):
            pass
        eventually(lambda: all_idle(pool))
        pool.resize(4)
        gate = Gate()
        for _ in range(2):
            pool.submit(gate)
        gate.await_entered(2)
        gate.open()
        assert started == ["p-0", "p-1"]


def test_the_successor_of_a_lost_worker_waits_to_be_needed(started: list[str]) -> None:
    with Pool(1, name="p", panic_recovery=PanicRecovery(is_panic=ValueError)) as pool:
        pool.submit(int, "x").exception()
        eventually(lambda: all_idle(pool))
        assert started == ["p-0"]
        assert pool.metrics().restarts == 1
        assert pool.submit(str, 1).result() == "1"
        assert started == ["p-0", "p-0"]


def test_without_another_thread_the_tasks_go_to_those_there_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gate, refused = Gate(), threading.Event()
    with Pool(2, panic_recovery=PanicRecovery(backoff=Backoff(initial=60, maximum=60))) as pool:
        blocked = pool.submit(gate)
        gate.await_entered()

        def no_more(self: PoolWorker) -> None:
            refused.set()
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(PoolWorker, "start_thread", no_more)
        future = pool.submit(str, 1)  # the submitter is not told: the task is accepted
        assert refused.wait(PATIENCE)
        gate.open()
        assert future.result(PATIENCE) == "1"
        assert blocked.result(PATIENCE) == "through"
        monkeypatch.undo()


def test_a_thread_that_began_after_all_forgets_the_failures(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real, fails = PoolWorker.start_thread, []

    def every_second_fails(self: PoolWorker) -> None:
        fails.append(len(fails) % 2 == 0)
        if fails[-1]:
            raise RuntimeError("can't start new thread")
        real(self)

    monkeypatch.setattr(PoolWorker, "start_thread", every_second_fails)
    policy = PanicRecovery(
        is_panic=ValueError, max_restarts=None, backoff=Backoff(initial=0.001, retries=1)
    )
    with Pool(1, panic_recovery=policy) as pool:
        for _ in range(5):  # each time a thread is refused once
            error = pool.submit(int, "x").exception(PATIENCE)
            assert error is not None
            assert not isinstance(error, BrokenPool)
    assert len(fails) == 10


def test_a_forgotten_pool_that_was_never_used_is_gone() -> None:
    def forget() -> None:
        Pool(4)
        gc.collect()

    with assert_no_leaks(), pytest.warns(ResourceWarning, match="never closed"):
        forget()
