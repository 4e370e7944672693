"""Tasks that wait for their time, with an interruption at every point of what is done for them."""

from __future__ import annotations

import itertools
import logging
import threading

import pytest

from ion_actors import Backoff, Context, PanicRecovery, Pool, PoolMetrics, Retry
from ion_actors.testing import VirtualClock
from tests.interrupts import KINDS, every_point, interrupt
from tests.workerpool.helpers import PATIENCE, eventually
from tests.workerpool.worker.test_thrown_in import Thrower, quiet, unheard

__all__ = ["unheard"]

AT_ONCE = Retry(attempts=3, backoff=Backoff(initial=0, jitter=0))

_names = itertools.count()


def adds_up(numbers: PoolMetrics) -> bool:
    return numbers.submitted == (
        numbers.queued + numbers.running + numbers.completed + numbers.failed
        + numbers.panicked + numbers.cancelled
    )  # fmt: skip


class FailsOnce:
    """Fails at its first call."""

    def __init__(self) -> None:
        self.runs = 0

    def __call__(self) -> int:
        self.runs += 1
        if self.runs == 1:
            raise ConnectionError
        return self.runs


def live(point: int, error: type[BaseException], key: str | None) -> str:
    """A pool's life with an exception thrown into its worker. Returns where, if anywhere."""
    name = f"retried-{next(_names)}"
    thrower = Thrower(f"{name}-0", point, error)
    recovery = PanicRecovery(max_restarts=None)
    threading.setprofile(thrower)
    try:
        pool = Pool(1, name=name, logger=quiet(), panic_recovery=recovery)
        tasks = pool.options(retry=AT_ONCE, key=key)
        futures = [tasks.submit(FailsOnce() if number % 2 else int) for number in range(4)]
        for future in futures:
            future.exception(PATIENCE)
    except BaseException as found:
        found.add_note(thrower.where)
        raise
    finally:
        threading.setprofile(None)
    assert pool.drain(PATIENCE).elapsed < PATIENCE / 2, thrower.where
    numbers = pool.metrics()
    assert adds_up(numbers), (numbers, thrower.where)
    assert numbers.submitted == 4, (numbers, thrower.where)
    assert (numbers.running, numbers.queued, numbers.delayed) == (0, 0, 0), thrower.where
    return thrower.where


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("key", [None, "k"])
@pytest.mark.parametrize("error", [SystemExit, TimeoutError])
def test_thrown_into_a_worker_whose_tasks_are_tried_again(
    error: type[BaseException], key: str | None
) -> None:
    found = []
    for point in itertools.count(0, 3):
        where = live(point, error, key)
        if not where:
            break
        found.append(where)
    assert len(found) > 60
    assert any("postpone" in where for where in found)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", KINDS)
def test_an_interrupted_submission_of_a_delayed_task_harms_nobody(
    kind: type[BaseException], clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    with Pool(1, context=Context(clock=clock)) as pool:
        later = pool.options(delay=1)

        def make(point: int) -> str:
            where, _ = interrupt(point, lambda: later.submit(int), kind)
            assert adds_up(pool.metrics()), where
            other = later.submit(pow, 2, 3)
            clock.advance(1)
            assert other.result(PATIENCE) == 8, where
            eventually(lambda: pool.metrics().queued == 0, where)
            return where

        assert len(every_point(make)) > 20


@pytest.mark.timeout(300)
@pytest.mark.parametrize("key", [None, "k"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_interrupted_clock_loses_no_task(
    kind: type[BaseException], key: str | None, clock: VirtualClock
) -> None:
    with Pool(2, context=Context(clock=clock)) as pool:
        later = pool.options(delay=1, key=key)

        def make(point: int) -> str:
            futures = [later.submit(pow, 2, number) for number in range(3)]
            failing = pool.options(
                key=key, retry=Retry(backoff=Backoff(initial=1, jitter=0))
            ).submit(FailsOnce())
            eventually(lambda: pool.metrics().delayed == 4)
            where, _ = interrupt(point, lambda: clock.advance(1), kind)
            clock.advance(1)
            eventually(lambda: all(one.done() for one in (*futures, failing)), where)
            assert [one.result() for one in futures] == [1, 2, 4], where
            assert failing.result() == 2, where
            assert adds_up(pool.metrics()), where
            assert pool.metrics().queued == 0, where
            return where

        assert len(every_point(make)) > 20
    assert clock.timers == 0
