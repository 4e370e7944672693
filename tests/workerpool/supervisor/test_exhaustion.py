"""Where no thread can be started: everybody is told, and a pool works with those it has."""

import asyncio
import concurrent.futures
import logging
import threading
from collections.abc import Iterator

import pytest

from ion_actors import Backoff, BrokenPool, PanicRecovery, Pool, TaskDropped
from ion_actors.logs import flush

PATIENCE = 30.0
QUICK = PanicRecovery(backoff=Backoff(initial=0.001, maximum=0.01, jitter=0, retries=2))


class System:
    """Lets so many threads be started, and no more."""

    def __init__(self) -> None:
        self.room = 10**9
        self.refused = threading.Event()  # was a worker of the pool "few"

    def take(self, name: str) -> None:
        """One more thread is to be started."""
        if self.room <= 0:
            if name.startswith("few-"):
                self.refused.set()
            raise RuntimeError("can't start new thread")
        if not name.startswith("ion_actors-"):  # the library's helpers come and go as they like
            self.room -= 1


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> Iterator[System]:
    system = System()
    start = threading.Thread.start

    def limited(thread: threading.Thread) -> None:
        system.take(thread.name)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)
    yield system
    system.room = 10**9


def meet(barrier: threading.Barrier) -> int:
    return barrier.wait(PATIENCE)


def test_a_pool_works_with_the_workers_that_could_be_started(
    system: System, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    with Pool(8, name="few", panic_recovery=QUICK) as pool:
        system.room = 3
        futures = [pool.submit(pow, 2, n) for n in range(50)]
        gate, begun = threading.Event(), threading.Semaphore(0)
        held = [pool.submit(lambda: (begun.release(), gate.wait(PATIENCE))) for _ in range(8)]
        for _ in range(3):  # three are at it; for the others there is no thread
            assert begun.acquire(timeout=PATIENCE)
        assert system.refused.wait(PATIENCE)
        for _ in range(10):  # more often than the policy tries
            system.refused.clear()
            assert system.refused.wait(PATIENCE)
        assert pool.state.name == "RUNNING"
        gate.set()
        assert [one.result(PATIENCE) for one in futures] == [2**n for n in range(50)]
        assert all(one.result(PATIENCE) for one in held)
        # There is room again: all eight come.
        system.room = 10**9
        barrier = threading.Barrier(8)
        together = [pool.submit(meet, barrier) for _ in range(8)]
        assert sorted(one.result(PATIENCE) for one in together) == list(range(8))
    said = [one.getMessage() for one in caplog.records if "workers, and tries again" in one.message]
    assert len(said) == 1, caplog.text
    assert "of 8 workers" in said[0]
    assert "can't start new thread" in said[0]
    assert not [one for one in caplog.records if one.levelno >= logging.CRITICAL]


def test_without_any_worker_the_pool_breaks_when_the_policy_says_so(system: System) -> None:
    pool = Pool(2, panic_recovery=QUICK)
    system.room = 0
    future = pool.submit(int)
    with pytest.raises(BrokenPool, match="can't start new thread"):
        future.result(PATIENCE)
    system.room = 10**9
    pool.close(PATIENCE)


def test_a_failed_start_is_tried_again_without_another_thread(system: System) -> None:
    patient = PanicRecovery(backoff=Backoff(initial=0.001, maximum=0.01, retries=10**6))
    with Pool(1, name="few", panic_recovery=patient) as pool:
        system.room = 0  # for the clock's thread, too
        future = pool.submit(pow, 2, 3)
        for _ in range(5):
            assert system.refused.wait(PATIENCE)
            system.refused.clear()
        system.room = 10**9
        assert future.result(PATIENCE) == 8


def test_a_drain_ends_in_time_without_the_clocks_thread(system: System) -> None:
    gate, entered = threading.Event(), threading.Event()
    pool = Pool(1)
    running = pool.options(name="held").submit(lambda: (entered.set(), gate.wait(PATIENCE)))
    assert entered.wait(PATIENCE)
    queued = pool.submit(int)
    system.room = 0
    report = pool.close(0.05)
    assert [one.name for one in report.running] == ["held"]
    with pytest.raises(TaskDropped):
        queued.result(PATIENCE)
    assert running.done()
    gate.set()


def test_everybody_is_told_of_the_end(system: System) -> None:
    gate, entered, told = threading.Event(), threading.Event(), []
    pool = Pool(1)
    pool.submit(lambda: (entered.set(), gate.wait(PATIENCE)))
    assert entered.wait(PATIENCE)
    queued = [pool.submit(int) for _ in range(5)]
    for one in queued:
        one.add_done_callback(told.append)

    async def awaits() -> object:
        waiter = asyncio.ensure_future(_outcome(queued[0]))
        await asyncio.sleep(0)
        system.room = 0
        pool.close(0.01)
        return await waiter

    assert isinstance(asyncio.run(awaits()), TaskDropped)
    assert not concurrent.futures.wait(queued, PATIENCE).not_done
    assert set(map(id, told)) == set(map(id, queued))
    gate.set()
    system.room = 10**9
    assert flush(PATIENCE)


async def _outcome(future: object) -> object:
    try:
        return await future  # type: ignore[misc]
    except TaskDropped as error:
        return error


def test_a_time_to_live_needs_no_thread(system: System) -> None:
    gate, entered = threading.Event(), threading.Event()
    with Pool(1) as pool:
        pool.submit(lambda: (entered.set(), gate.wait(PATIENCE)))
        assert entered.wait(PATIENCE)
        system.room = 0
        expired = pool.options(ttl=1e-9).submit(int)
        gate.set()
        with pytest.raises(TaskDropped):
            expired.result(PATIENCE)


def test_no_supervisor_no_pool(system: System) -> None:
    system.room = 0
    with pytest.raises(RuntimeError, match="can't start new thread"):
        Pool(1)
