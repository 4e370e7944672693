"""What becomes of a worker whose task raised: RESUME, RESTART, STOP, ESCALATE."""

from __future__ import annotations

import logging
import threading

import pytest

from ion_actors import (
    BrokenPool,
    Cancelled,
    ChildUnavailable,
    Context,
    Directive,
    Panic,
    PanicRecovery,
    Pool,
    PoolClosed,
    TaskPanicked,
    current_context,
)
from ion_actors.supervision import Supervisor, child
from tests.workerpool.helpers import PATIENCE, Gate, busy, eventually, run_in_thread, why_broken


class Broken(Exception):
    """Whoever raises this is not worth keeping."""


def raises(error: BaseException) -> None:
    raise error


def policy(directive: Directive, **more: object) -> PanicRecovery:
    return PanicRecovery(decide={Broken: directive}, **more)  # type: ignore[arg-type]


def test_resume_is_a_failure_and_costs_nothing() -> None:
    with Pool(1, panic_recovery=PanicRecovery(decide={SystemExit: Directive.RESUME})) as pool:
        thread = pool.submit(threading.get_ident).result(PATIENCE)
        with pytest.raises(SystemExit):
            pool.submit(raises, SystemExit(3)).result(PATIENCE)
        assert pool.submit(threading.get_ident).result(PATIENCE) == thread
        assert (pool.metrics().failed, pool.metrics().restarts) == (1, 0)


def test_restart_replaces_the_worker() -> None:
    with Pool(1, panic_recovery=policy(Directive.RESTART)) as pool:
        with pytest.raises(TaskPanicked):
            pool.submit(raises, Broken()).result(PATIENCE)
        assert pool.submit(pow, 2, 3).result(PATIENCE) == 8
        assert (pool.metrics().panicked, pool.metrics().restarts, pool.size) == (1, 1, 1)


def test_stop_makes_the_pool_one_smaller(caplog: pytest.LogCaptureFixture) -> None:
    told: list[Panic] = []
    with Pool(3, panic_recovery=policy(Directive.STOP, handler=told.append)) as pool:
        with pytest.raises(TaskPanicked) as panicked:
            pool.submit(raises, Broken()).result(PATIENCE)
        assert isinstance(panicked.value.__cause__, Broken)
        assert pool.size == pool.metrics().size == 2
        assert pool.metrics().restarts == 0
        assert [panic.directive for panic in told] == [Directive.STOP]
        with busy(pool):  # both of those who are left
            assert pool.metrics().running == 2
        eventually(lambda: len(pool.dump().workers) == 2)
    assert "not replaced; 2 are left" in caplog.text


def test_a_pool_that_lost_workers_can_be_resized_both_ways() -> None:
    with Pool(4, panic_recovery=policy(Directive.STOP)) as pool:
        for left in (3, 2):
            pool.submit(raises, Broken()).exception(PATIENCE)
            assert pool.size == left
        pool.resize(5)
        with busy(pool):
            assert pool.metrics().running == 5
        pool.resize(1)
        eventually(lambda: len(pool.dump().workers) == 1)
        assert pool.submit(pow, 2, 3).result(PATIENCE) == 8
        names = {worker.name for worker in pool.dump().workers}
        assert len(names) == 1


def test_with_its_last_worker_the_pool_breaks_and_nothing_stays_pending() -> None:
    pool = Pool(1, 10, panic_recovery=policy(Directive.STOP))
    gate = Gate()

    def waits_and_raises() -> None:
        gate()
        raise Broken

    last = pool.submit(waits_and_raises)
    gate.await_entered()
    queued = [pool.submit(pow, 2, 2) for _ in range(5)]
    gate.open()
    assert isinstance(last.exception(PATIENCE), TaskPanicked)
    for future in queued:
        with pytest.raises(BrokenPool, match="last worker"):
            future.result(PATIENCE)
    assert isinstance(why_broken(pool).__cause__, Broken)
    pool.drain()


def test_the_last_worker_may_go_in_a_drain_that_has_nothing_more_to_do() -> None:
    pool = Pool(1, panic_recovery=policy(Directive.STOP))
    gate = Gate()

    def waits_and_raises() -> None:
        gate()
        raise Broken

    last = pool.submit(waits_and_raises)
    gate.await_entered()
    draining = run_in_thread(pool.drain)
    eventually(lambda: pool.is_draining)
    gate.open()
    assert isinstance(last.exception(PATIENCE), TaskPanicked)
    assert draining.result(PATIENCE).panicked == 1  # type: ignore[attr-defined]
    with pytest.raises(PoolClosed):  # and is not broken
        pool.submit(int)


def test_escalate_breaks_the_pool(caplog: pytest.LogCaptureFixture) -> None:
    told: list[Panic] = []
    pool = Pool(2, 10, panic_recovery=policy(Directive.ESCALATE, handler=told.append))
    with pytest.raises(TaskPanicked):
        pool.options(name="the task").submit(raises, Broken()).result(PATIENCE)
    with pytest.raises(BrokenPool, match="the task") as refused:
        pool.submit(pow, 2, 2)
    assert isinstance(refused.value.__cause__, Broken)
    assert [panic.directive for panic in told] == [Directive.ESCALATE]
    pool.drain()
    assert "is broken" in caplog.text


def test_what_is_escalated_reaches_the_supervisor_above() -> None:
    kwargs = {"size": 1, "panic_recovery": policy(Directive.ESCALATE)}
    with Supervisor([child(Pool, id="pool", kwargs=kwargs)]) as tree:
        first = tree["pool"]
        first.submit(raises, Broken()).exception(PATIENCE)
        eventually(lambda: the_pool(tree) not in (None, first))
        assert tree["pool"].submit(pow, 2, 3).result(PATIENCE) == 8


def the_pool(tree: Supervisor) -> object:
    try:
        return tree["pool"]
    except ChildUnavailable:
        return None


def test_a_task_that_was_cancelled_is_not_decided_on() -> None:
    asked: list[BaseException] = []

    def decide(error: BaseException) -> Directive:
        asked.append(error)
        return Directive.ESCALATE

    entered = threading.Event()

    def waits() -> None:
        entered.set()
        current_context().sleep(PATIENCE)

    with Pool(1, panic_recovery=PanicRecovery(decide=decide)) as pool:
        context = Context()
        future = pool.options(context=context).submit(waits)
        assert entered.wait(PATIENCE)
        context.cancel()
        assert isinstance(future.exception(PATIENCE), Cancelled)
        assert pool.submit(pow, 2, 3).result(PATIENCE) == 8
    assert not asked


@pytest.mark.parametrize("answer", ["restart", ZeroDivisionError("no idea")])
def test_a_decision_that_fails_is_logged_and_does_not_count(
    answer: object, caplog: pytest.LogCaptureFixture
) -> None:
    def decide(error: BaseException) -> object:
        if isinstance(answer, BaseException):
            raise answer
        return answer

    with Pool(1, panic_recovery=PanicRecovery(decide=decide)) as pool:  # type: ignore[arg-type]
        with pytest.raises(Broken):
            pool.submit(raises, Broken()).result(PATIENCE)
        with pytest.raises(TaskPanicked):
            pool.submit(raises, SystemExit()).result(PATIENCE)
    faults = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert sum("decide or is_panic failed" in record.getMessage() for record in faults) == 2
