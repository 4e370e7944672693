"""What a pool gives up can be subscribed to, and put back."""

from __future__ import annotations

import logging
import pickle
import threading
import weakref
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from ion_actors import (
    BrokenPool,
    Cancelled,
    Context,
    DeadLetter,
    DrainTimeout,
    DropReason,
    PanicRecovery,
    Pool,
    PoolClosed,
    QueueFull,
    TaskDropped,
    current_context,
)
from ion_actors.testing import VirtualClock
from ion_actors.workerpool.mailbox.dead_letters import DeadLetters
from ion_actors.workerpool.mailbox.task import TaskFuture
from tests.inside import core_of
from tests.workerpool.helpers import (
    PATIENCE,
    Gate,
    busy,
    eventually,
    run_in_thread,
    threads_of,
    until_waiting,
)


class Basket:
    """Keeps the dead letters of a pool."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.letters: list[DeadLetter] = []
        self.subscription = pool.dead_letters.subscribe(self.letters.append)

    def all(self) -> list[DeadLetter]:
        assert self.pool.dead_letters.join(PATIENCE)
        return self.letters

    def reasons(self) -> list[DropReason]:
        return [letter.reason for letter in self.all()]


def stray() -> None:
    raise SystemExit


def listens() -> None:
    current_context().wait()
    current_context().check()


def test_what_a_closed_pool_had_queued_is_told_in_order_with_its_call() -> None:
    pool = Pool(1, name="p")
    basket = Basket(pool)
    with busy(pool) as gate:
        first = pool.submit(divmod, 7, 2)
        pool.options(name="the second").submit(int, "12", base=8)
        closing = run_in_thread(pool.close)
        eventually(first.done)
        gate.open()
        closing.result(PATIENCE)
    one, two = basket.all()
    assert (one.pool, one.task, one.fn, one.args, one.kwargs) == ("p", "divmod", divmod, (7, 2), {})
    assert (two.task, two.fn, two.args, two.kwargs) == ("the second", int, ("12",), {"base": 8})
    assert one.reason is two.reason is DropReason.CLOSED
    assert isinstance(one.error, TaskDropped)
    with pytest.raises(TaskDropped, match="was closed before task 'divmod' could start") as raised:
        first.result(PATIENCE)
    assert raised.value.why is DropReason.CLOSED
    assert pool.metrics().dropped == {DropReason.CLOSED: 2}


def test_they_can_be_put_into_the_next_pool() -> None:
    pool = Pool(1)
    basket = Basket(pool)
    with busy(pool) as gate:
        pool.submit(divmod, 7, 2)
        pool.options(name="octal").submit(int, "12", base=8)
        closing = run_in_thread(pool.close)
        eventually(lambda: len(basket.letters) == 2)
        gate.open()
        closing.result(PATIENCE)
    with Pool(1) as successor:
        results = [letter.put_back(successor) for letter in basket.all()]
        assert [one.result(PATIENCE) for one in results] == [(3, 1), 10]
        again = basket.all()[1].put_back(successor.options(timeout=60, name="mine"))
        assert again.result(PATIENCE) == 10
        with pytest.raises(PoolClosed):
            basket.all()[0].put_back()


def test_a_subscriber_may_put_them_back_into_the_same_pool() -> None:
    """It runs on a thread of its own: so it may wait for room."""
    done: list[Any] = []
    with Pool(1, 1) as pool:
        pool.dead_letters.subscribe(lambda letter: done.append(letter.put_back().result(PATIENCE)))
        with busy(pool):
            task = pool.submit(divmod, 7, 2)
            dropped = TaskDropped("away with it", task="divmod", why=DropReason.OLDEST)
            assert core_of(pool).mailbox.withdraw(task, dropped)  # type: ignore[arg-type]
        assert pool.dead_letters.join(PATIENCE)
    assert done == [(3, 1)]
    assert pool.metrics().dropped == {DropReason.OLDEST: 1}


def test_what_was_running_is_told_as_stopped_or_abandoned(clock: VirtualClock) -> None:
    pool = Pool(2, context=Context(clock=clock))
    basket = Basket(pool)
    gate = Gate()
    abandoned = pool.submit(gate)
    stopped = pool.submit(listens)
    gate.await_entered()
    eventually(lambda: pool.metrics().running == 2)
    draining = run_in_thread(pool.drain, 10)
    clock.wait_for_timers(1)
    clock.advance(9.95)
    assert isinstance(stopped.exception(PATIENCE), Cancelled)
    eventually(lambda: basket.letters)
    clock.advance(0.05)
    report = draining.exception(PATIENCE).report  # type: ignore[union-attr]
    gate.open()
    assert [(one.fn, one.reason, one.at) for one in basket.all()] == [
        (listens, DropReason.STOPPED, 9.95),
        (gate, DropReason.ABANDONED, 10.0),
    ]
    assert basket.letters[1].error is abandoned.exception(PATIENCE)
    assert [one.fn for one in report.unfinished] == [one.fn for one in basket.letters]


def test_an_abandoned_task_that_ends_late_is_told_once() -> None:
    pool = Pool(1)
    basket = Basket(pool)
    gate = Gate()

    def late() -> None:
        gate()
        current_context().check()

    pool.submit(late)
    gate.await_entered()
    with pytest.raises(DrainTimeout):
        pool.drain(0)
    gate.open()
    eventually(lambda: not threads_of(pool))
    assert basket.reasons() == [DropReason.ABANDONED]


def test_what_a_broken_pool_had_queued_is_told() -> None:
    pool = Pool(1, panic_recovery=PanicRecovery(max_restarts=0))
    basket = Basket(pool)
    with busy(pool):
        pool.submit(stray)
        pool.submit(divmod, 7, 2)
    eventually(lambda: pool.is_closed)
    (letter,) = basket.all()
    assert (letter.fn, letter.reason) == (divmod, DropReason.CLOSED)
    assert isinstance(letter.error, BrokenPool)


def test_a_submitter_that_waits_when_the_pool_is_closed_is_told_of() -> None:
    pool = Pool(1, 0)
    basket = Basket(pool)
    with busy(pool) as gate:
        waiting = run_in_thread(pool.submit, divmod, 7, 2)
        until_waiting(pool, 1)
        closing = run_in_thread(pool.close)
        assert isinstance(waiting.exception(PATIENCE), PoolClosed)
        gate.open()
        closing.result(PATIENCE)
    (letter,) = basket.all()
    assert (letter.task, letter.args, letter.reason) == ("divmod", (7, 2), DropReason.REFUSED)
    assert isinstance(letter.error, PoolClosed)
    with pytest.raises(PoolClosed):
        pool.submit(divmod, 7, 2)
    assert len(basket.all()) == 1, "who has the error at once has the call at hand, too"


def test_the_end_of_the_pools_context_is_the_pools_end() -> None:
    context, other = Context(), Context()
    pool = Pool(1, context=context)
    basket = Basket(pool)
    with busy(pool):
        pool.submit(divmod, 7, 2)
        pool.options(context=other).submit(divmod, 9, 2)
        context.cancel()
        eventually(lambda: pool.metrics().queued == 0)
    eventually(lambda: pool.is_closed)
    assert sorted(one.args for one in basket.all()) == [(7, 2), (9, 2)]
    assert set(basket.reasons()) == {DropReason.CLOSED}
    assert pool.metrics().dropped == {DropReason.CLOSED: 2}


def test_what_its_submitter_wished_is_no_dead_letter(clock: VirtualClock) -> None:
    with Pool(1, 2, context=Context(clock=clock)) as pool:
        basket = Basket(pool)
        with busy(pool):
            assert pool.submit(divmod, 7, 2).cancel()
            pool.options(timeout=5).submit(divmod, 7, 2)
            clock.advance(5)
            pool.submit(divmod, 7, 2)
            pool.submit(divmod, 7, 2)
            with pytest.raises(QueueFull):
                pool.try_submit(divmod, 7, 2)
        failed = pool.submit(divmod, 1, 0)
        panicked = pool.submit(stray)
        assert failed.exception(PATIENCE)
        assert panicked.exception(PATIENCE)
    assert basket.all() == []


def test_a_subscriber_that_raises_is_logged_and_keeps_nobody_from_the_rest(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def bad(letter: DeadLetter) -> None:
        raise SystemExit("mine")

    pool = Pool(1)
    pool.dead_letters.subscribe(bad)
    basket = Basket(pool)
    drop(pool, 2)
    assert len(basket.all()) == 2
    assert len([one for one in caplog.records if "a subscriber failed" in one.getMessage()]) == 2


def drop(pool: Pool, tasks: int) -> None:
    """End the pool with so many tasks in its queue."""
    with busy(pool) as gate:
        for number in range(tasks):
            pool.submit(divmod, number, 1)
        closing = run_in_thread(pool.close)
        eventually(lambda: pool.metrics().cancelled == tasks)
        gate.open()
        closing.result(PATIENCE)


def test_who_unsubscribes_hears_no_more() -> None:
    with Pool(1) as pool:
        basket = Basket(pool)
        basket.subscription.remove()
        basket.subscription.remove()
        drop(pool, 1)
    assert basket.all() == []


def test_a_slow_subscriber_does_not_hold_up_the_end_and_misses_nothing() -> None:
    pool = Pool(1)
    gate = Gate()
    seen: list[tuple[Any, ...]] = []

    def slow(letter: DeadLetter) -> None:
        if not seen:
            gate()
        seen.append(letter.args)
        assert threading.current_thread().name == f"{pool.name}-dead-letters"
        assert not pool.dead_letters.join(), "it cannot wait for itself"

    pool.dead_letters.subscribe(slow)
    drop(pool, 100)
    assert pool.is_closed
    gate.await_entered()
    assert not pool.dead_letters.join(0)
    gate.open()
    assert pool.dead_letters.join(PATIENCE)
    assert seen == [(number, 1) for number in range(100)]


def test_nobody_subscribed_holds_nothing(without_gc: None) -> None:
    class Argument:
        pass

    argument = Argument()
    held = weakref.ref(argument)
    pool = Pool(1)
    assert core_of(pool).mailbox.notices.letters is None
    Basket(pool).subscription.remove()
    with busy(pool) as gate:
        pool.submit(repr, argument)
        del argument
        closing = run_in_thread(pool.close)
        eventually(lambda: pool.metrics().cancelled == 1)
        gate.open()
        closing.result(PATIENCE)
    del closing
    eventually(lambda: held() is None)


def test_each_unfinished_task_of_the_report_is_a_dead_letter() -> None:
    pool = Pool(3, 100)
    basket = Basket(pool)
    gate = Gate()
    for _ in range(2):
        pool.submit(listens)
    pool.submit(gate)
    gate.await_entered()
    eventually(lambda: pool.metrics().running == 3)
    for number in range(50):
        pool.submit(divmod, number, 1)
    with pytest.raises(DrainTimeout) as late:
        pool.drain(0.02)
    gate.open()
    unfinished = Counter((one.fn, one.args) for one in late.value.report.unfinished)
    assert Counter((one.fn, one.args) for one in basket.all()) == unfinished
    assert sum(pool.metrics().dropped.values()) == len(basket.letters) == 53


def test_the_letter_is_there_before_anybody_can_see_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended: list[str] = []
    there: list[list[str]] = []
    monkeypatch.setattr(DeadLetters, "tell", lambda self: None)  # nobody comes to tell of them
    for ending in ("end_early", "fail"):
        real = getattr(TaskFuture, ending)

        def end(task: TaskFuture[Any], *args: Any, real: Callable[..., Any] = real) -> Any:
            if not task.done():  # a worker that comes too late tries in vain
                ended.append(task.task_name())
                there.append([letter.task for letter in pool.dead_letters._bus._queue])
            return real(task, *args)

        monkeypatch.setattr(TaskFuture, ending, end)
    pool = Pool(2)
    basket = Basket(pool)
    gate = Gate()
    pool.options(name="abandoned").submit(gate)
    stopped = pool.options(name="stopped").submit(listens)
    gate.await_entered()
    eventually(lambda: pool.metrics().running == 2)
    pool.options(name="dropped").submit(pow, 2, 3)
    closing = run_in_thread(pool.close, 60)
    assert stopped.exception(PATIENCE)
    pool.close(0)
    closing.result(PATIENCE)
    gate.open()
    # A process that is asked to stop may do so before the other task hears of it.
    assert ended[0] == "dropped"
    assert sorted(ended) == ["abandoned", "dropped", "stopped"]
    assert there == [ended[:1], ended[:2], ended]
    assert [letter.task for letter in basket.all()] == there[-1], "join() has them told, too"


def test_a_letter_can_be_pickled_and_then_needs_a_pool() -> None:
    pool = Pool(1)
    basket = Basket(pool)
    drop(pool, 1)
    (letter,) = basket.all()
    copied = pickle.loads(pickle.dumps(letter))
    assert (copied.task, copied.args, copied.reason) == ("divmod", (0, 1), DropReason.CLOSED)
    with pytest.raises(TypeError, match="pool must be given"):
        copied.put_back()
    with Pool(1) as successor:
        assert copied.put_back(successor).result(PATIENCE) == (0, 0)


def test_what_makes_no_sense_is_refused() -> None:
    with Pool(1) as pool:
        with pytest.raises(TypeError, match="callback must be callable, not 3"):
            pool.dead_letters.subscribe(3)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="timeout must be zero or more"):
            pool.dead_letters.join(-1)


def test_the_log_is_quiet(caplog: pytest.LogCaptureFixture) -> None:
    pool = Pool(1)
    basket = Basket(pool)
    with caplog.at_level(logging.WARNING, "ion_actors"):
        drop(pool, 3)
        assert len(basket.all()) == 3
    assert caplog.records == []
