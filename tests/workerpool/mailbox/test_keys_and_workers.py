"""Tasks that wait for their key while workers come and go: nobody sleeps on what may begin."""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from typing import Any

import pytest

from ion_actors import Context, PanicRecovery, Pool, Retry, TaskPanicked
from ion_actors.futures import Future
from ion_actors.workerpool.mailbox.mailbox import Mailbox
from ion_actors.workerpool.mailbox.task import TaskFuture
from ion_actors.workerpool.model.metrics import Tally
from ion_actors.workerpool.task_options import TaskTerms
from ion_actors.workerpool.worker import deadlock
from tests.inside import core_of
from tests.workerpool.helpers import PATIENCE, Gate, eventually, run_in_thread, until_waiting


def dies(gate: Gate) -> None:
    gate()
    raise SystemExit


def test_a_drain_replaces_nobody_for_tasks_whose_key_is_taken() -> None:
    """A worker that found none that may begin was replaced by one that found none, and so on."""
    pool = Pool(2, panic_recovery=PanicRecovery(max_restarts=3))
    keyed, gate = pool.options(key="k"), Gate()
    keyed.submit(gate)
    gate.await_entered()
    rest = [keyed.submit(pow, 2, number) for number in range(3)]
    assert pool.submit(pow, 3, 2).result(PATIENCE) == 9  # so the other worker has a thread
    draining = run_in_thread(pool.drain)
    eventually(lambda: len(pool.dump().workers) == 1)
    gate.open()
    assert draining.result(PATIENCE)
    assert [one.result(0) for one in rest] == [1, 2, 4]
    assert pool.metrics().restarts == 0


def test_a_worker_that_dies_with_the_key_in_a_drain_is_replaced_for_the_rest() -> None:
    with Pool(2) as pool:
        keyed, gate, other = pool.options(key="k"), Gate(), Gate()
        dying = keyed.submit(dies, gate)
        rest = [keyed.submit(pow, 2, number) for number in range(3)]
        pool.submit(other)
        gate.await_entered()
        other.await_entered()
        draining = run_in_thread(pool.drain)
        eventually(lambda: pool.is_draining)
        gate.open()
        assert isinstance(dying.exception(PATIENCE), TaskPanicked)
        assert [one.result(PATIENCE) for one in rest] == [1, 2, 4], "while the other is busy"
        other.open()
        draining.result(PATIENCE)
    assert pool.metrics().restarts == 1


def test_who_waits_for_room_gets_it_when_a_key_is_passed_on() -> None:
    with Pool(2, 1) as pool:
        keyed, first, second = pool.options(key="k"), Gate(), Gate()
        keyed.submit(dies, first)
        first.await_entered()
        keyed.submit(second)
        waiting = run_in_thread(keyed.submit, int)
        until_waiting(pool, 1)
        first.open()
        second.await_entered()
        assert not waiting.result(PATIENCE).done()  # type: ignore[attr-defined]
        second.open()


class FakeWorker:
    """What a mailbox sees of a worker."""

    def __init__(self) -> None:
        self.slot: TaskFuture[Any] | None = None
        self.current: TaskFuture[Any] | None = None
        self.has_control = False
        self.doomed = False
        self.started_at = 0.0
        self.interrupted: list[Any] = []
        self.woken = 0

    def wake(self) -> None:
        self.woken += 1


def keyed_task(mailbox: Mailbox) -> TaskFuture[int]:
    task: TaskFuture[int] = TaskFuture()
    task.mailbox = mailbox
    task.terms, task.key = TaskTerms(ranked=True), "k"
    return task


@pytest.mark.parametrize("how", ["interrupted", "gone"])
def test_a_worker_that_does_not_come_for_the_next_task_of_its_key(how: str) -> None:
    """It has said that it would, and then there was something else for it."""
    mailbox = Mailbox("p", 10, 2, Context())
    one, other = FakeWorker(), FakeWorker()
    assert mailbox.park(other, Tally())
    assert mailbox.park(one, Tally())
    first, second = keyed_task(mailbox), keyed_task(mailbox)
    assert mailbox.offer_ranked(first)
    holder, idle = (one, other) if one.slot is first else (other, one)
    assert mailbox.offer_ranked(second)
    holder.slot = None
    mailbox.release(first, holder)
    assert idle.slot is None
    if how == "interrupted":
        mailbox.interrupt(holder)
    else:
        mailbox.discharge(holder, Tally())
    assert idle.slot is second
    assert idle.woken == 1


def test_who_waits_for_a_key_runs_the_task_if_nobody_is_left_to() -> None:
    with Pool(1, 1, overflow="caller_runs") as pool:
        keyed, first, begun = pool.options(key="k"), Gate(), Gate()

        def waits() -> int:
            begun()
            return task.result()

        waiting = pool.submit(waits)
        begun.await_entered()
        filler = pool.submit(int)  # the mailbox is full
        caller = run_in_thread(keyed.submit, first)  # so this has the key, and is no worker
        first.await_entered()
        assert filler.cancel()
        task = keyed.submit(pow, 2, 3)
        begun.open()
        mailbox = core_of(pool).mailbox
        eventually(lambda: any(seat.mailbox is mailbox for seat in list(deadlock.waits)))
        first.open()
        assert waiting.result(PATIENCE) == 8
        assert caller.result(PATIENCE)


def test_dropping_the_oldest_makes_room_although_more_are_queued_than_may_be() -> None:
    """As after a retry: the newest was neither queued nor dropped, and its future never ended."""
    mailbox = Mailbox("p", 2, 1, Context())
    tasks = [keyed_task(mailbox) for _ in range(3)]
    for task in tasks:
        task.fn, task.args, task.kwargs = int, (), None
        task.variables = contextvars.Context()
    assert all(mailbox.offer_ranked(task) for task in tasks[:2])
    mailbox.limit = mailbox._room = 1
    mailbox.drop_oldest(tasks[2])
    assert [task.done() for task in tasks] == [True, True, False]
    assert mailbox.backlog == 1


@pytest.mark.parametrize(
    "submit",
    [
        lambda pool, fn: pool.options(key="a", priority=1).options(name="b").submit(fn),
        lambda pool, fn: pool.options(key="a").options(retry=Retry(2)).submit(fn),
        lambda pool, fn: pool.options(key="b").options(key="a").submit(fn),
        lambda pool, fn: pool.options(key="a").submit_at(0.0, fn),
    ],
)
def test_a_key_stays_what_it_is_whatever_else_is_said(
    submit: Callable[[Pool, Callable[[], object]], Future[object]],
) -> None:
    with Pool(2) as pool:
        gate = Gate()
        first = pool.options(key="a").submit(gate)
        gate.await_entered()
        second = submit(pool, lambda: None)
        assert pool.options(key="c").submit(int).result(PATIENCE) == 0  # a worker is free
        assert not second.running()
        assert pool.metrics().queued == 1
        gate.open()
        assert first.result(PATIENCE) == "through"
        second.result(PATIENCE)
