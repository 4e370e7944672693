"""How the pool takes the faults of a backend, each one at its moment."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ion_actors import (
    Backoff,
    BrokenPool,
    Cancelled,
    DeadlineExceeded,
    DrainTimeout,
    PanicRecovery,
    Pool,
    TaskAbandoned,
    TaskPanicked,
    TaskQuarantined,
    WorkerDied,
)
from tests.backends.scripted import Fate, Runner, Scripted
from tests.workerpool.helpers import PATIENCE

DEATHS = (Fate.DIES_BEFORE, Fate.DIES_IN, Fate.DIES_AFTER)
AT_ONCE = PanicRecovery(backoff=Backoff(initial=0.0))


@pytest.mark.parametrize("fate", DEATHS)
def test_a_death_is_the_panic_of_one_task(fate: Fate) -> None:
    backend = Scripted(calls=[Fate.WELL, fate])
    with Pool(1, backend=backend, name="p") as pool:
        futures = [pool.submit(pow, 2, n) for n in range(4)]
        assert futures[0].result(PATIENCE) == 1
        with pytest.raises(TaskPanicked) as panicked:
            futures[1].result(PATIENCE)
        assert isinstance(panicked.value.__cause__, WorkerDied)
        assert panicked.value.worker == "p-0"
        assert [one.result(PATIENCE) for one in futures[2:]] == [4, 8]
        numbers = pool.metrics()
        assert (numbers.completed, numbers.panicked, numbers.restarts) == (3, 1, 1)
    assert (backend.started, backend.stopped) == (2, 2)


@pytest.mark.parametrize("fate", DEATHS)
def test_a_death_can_be_tried_again(fate: Fate) -> None:
    backend = Scripted(calls=[fate, fate])
    with Pool(1, backend=backend) as pool:
        task = pool.options(retry_on_worker_death=2).submit(pow, 2, 5)
        assert task.result(PATIENCE) == 32
        assert pool.metrics().restarts == 2
        assert len(backend.begun) == (1 if fate is Fate.DIES_BEFORE else 3)


def test_a_task_that_always_kills_is_given_up() -> None:
    backend = Scripted(calls=[Fate.DIES_IN] * 3)
    with Pool(1, backend=backend) as pool:
        task = pool.options(retry_on_worker_death=2).submit(pow, 2, 5)
        with pytest.raises(TaskQuarantined) as given_up:
            task.result(PATIENCE)
        assert len(given_up.value.history) == 3
        assert pool.submit(pow, 2, 3).result(PATIENCE) == 8


def test_what_could_not_begin_is_begun_by_the_next_worker() -> None:
    backend = Scripted(calls=[Fate.NOT_READY, Fate.NOT_READY])
    with Pool(1, backend=backend, panic_recovery=AT_ONCE) as pool:
        futures = [pool.submit(pow, 2, n) for n in range(3)]
        assert [one.result(PATIENCE) for one in futures] == [1, 2, 4]
        numbers = pool.metrics()
        assert (numbers.completed, numbers.panicked, numbers.failed) == (3, 0, 0)
    assert backend.started == 3


def test_what_can_never_begin_breaks_the_pool() -> None:
    recovery = PanicRecovery(backoff=Backoff(initial=0.0, retries=1))
    backend = Scripted(calls=[Fate.NOT_READY], starts=[Fate.WELL] + [Fate.NOT_READY] * 5)
    pool = Pool(1, backend=backend, panic_recovery=recovery)
    with pytest.raises(BrokenPool) as broken:
        pool.submit(pow, 2, 3).result(PATIENCE)
    assert isinstance(broken.value.__cause__, WorkerDied)
    pool.close()
    assert pool.metrics().queued == 0


def test_a_start_that_fails_is_tried_again() -> None:
    backend = Scripted(starts=[Fate.NOT_READY, Fate.NOT_READY])
    with Pool(1, backend=backend, panic_recovery=AT_ONCE) as pool:
        assert pool.submit(pow, 2, 3).result(PATIENCE) == 8
        assert pool.metrics().restarts == 2


def test_what_is_hopeless_is_not_tried_again() -> None:
    backend = Scripted(starts=[Fate.HOPELESS])
    pool = Pool(1, backend=backend)
    with pytest.raises(BrokenPool, match="it is of no use"):
        pool.submit(pow, 2, 3).result(PATIENCE)
    pool.close()
    assert backend.started == 0


def test_too_many_deaths_break_the_pool() -> None:
    backend = Scripted(calls=[Fate.DIES_IN] * 3)
    pool = Pool(1, backend=backend, panic_recovery=PanicRecovery(max_restarts=2))
    futures = [pool.submit(pow, 2, n) for n in range(5)]
    errors = [one.exception(PATIENCE) for one in futures]
    assert [type(one) for one in errors] == [TaskPanicked] * 3 + [BrokenPool] * 2
    pool.close()


def test_what_never_answers_ends_with_its_context() -> None:
    backend = Scripted(calls=[Fate.NEVER_ANSWERS])
    with Pool(1, backend=backend, panic_recovery=PanicRecovery(max_restarts=0)) as pool:
        task = pool.submit(pow, 2, 3)
        assert backend.asked.acquire(timeout=PATIENCE)
        task.cancel()
        with pytest.raises(Cancelled):
            task.result(PATIENCE)


def test_what_never_answers_ends_with_its_time() -> None:
    backend = Scripted(calls=[Fate.NEVER_ANSWERS])
    with Pool(1, backend=backend) as pool, pytest.raises(DeadlineExceeded):
        pool.options(timeout=0.05).submit(pow, 2, 3).result(PATIENCE)


def test_a_runner_that_does_not_stop_cleanly_keeps_nobody(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def stop(runner: Runner, failure: BaseException | None = None) -> None:
        raise OSError("it will not let go")

    monkeypatch.setattr(Runner, "stop", stop)
    with Pool(2, backend=Scripted()) as pool:
        assert pool.submit(pow, 2, 3).result(PATIENCE) == 8
    assert pool.is_closed
    told = [one for one in caplog.records if "did not stop cleanly" in one.message]
    assert told
    assert all("it will not let go" in str(one.exc_info) for one in told)


def test_a_drain_ends_what_never_answers() -> None:
    backend = Scripted(calls=[Fate.NEVER_ANSWERS])
    pool = Pool(1, backend=backend)
    task = pool.submit(pow, 2, 3)
    assert backend.asked.acquire(timeout=PATIENCE)
    with pytest.raises(DrainTimeout):
        pool.drain(0.05)
    assert isinstance(task.exception(), Cancelled | TaskAbandoned)
    assert backend.stopped == 1


@given(
    fates=st.lists(st.sampled_from([*DEATHS, Fate.NOT_READY, Fate.WELL]), max_size=12),
    size=st.integers(1, 3),
    tasks=st.integers(1, 12),
)
def test_whatever_dies_each_task_ends_once(fates: list[Fate], size: int, tasks: int) -> None:
    backend = Scripted(calls=fates)
    with Pool(size, backend=backend, panic_recovery=AT_ONCE) as pool:
        futures = [pool.submit(pow, 2, n) for n in range(tasks)]
        errors = [one.exception(PATIENCE) for one in futures]
    deaths = [one for one in errors if one is not None]
    assert all(isinstance(one, TaskPanicked) for one in deaths)
    assert [one.result() for one in futures if not one.exception()] == [
        2**n for n in range(tasks) if errors[n] is None
    ]
    numbers = pool.metrics()
    assert (numbers.completed, numbers.panicked) == (tasks - len(deaths), len(deaths))
    assert numbers.submitted == tasks
    assert backend.started == backend.stopped
