"""A task that took its worker down is tried again, but not for ever."""

from __future__ import annotations

import contextvars
import gc
import logging
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ion_actors import (
    BrokenPool,
    Cancelled,
    Context,
    DeadLetter,
    DeadlineExceeded,
    DropReason,
    Panic,
    PanicRecovery,
    Pool,
    PoolMetrics,
    Submit,
    TaskDropped,
    TaskPanicked,
    TaskQuarantined,
    current_context,
)
from ion_actors.testing import RecordingMetrics, RecordingTracer, VirtualClock
from ion_actors.workerpool.model.outcomes import Directive
from ion_actors.workerpool.worker.failure import RetryDecision, decide_retry
from tests import rounds
from tests.inside import core_of
from tests.workerpool.helpers import PATIENCE, Gate, busy, eventually, run_in_thread


class Stray(BaseException):
    """Takes a worker down."""


class Poison:
    """Takes down its worker the first so many times; then it returns."""

    def __init__(self, times: int, before: Callable[[], object] = lambda: None) -> None:
        self.times = times
        self.runs = 0
        self.before = before

    def __call__(self) -> int:
        self.runs += 1
        self.before()
        if self.runs <= self.times:
            raise Stray(self.runs)
        return self.runs


def adds_up(numbers: PoolMetrics) -> bool:
    return numbers.submitted == (
        numbers.queued + numbers.running + numbers.completed + numbers.failed
        + numbers.panicked + numbers.cancelled
    )  # fmt: skip


def unheard() -> logging.Logger:
    """A log that nobody keeps."""
    logger = logging.getLogger("unheard")
    logger.setLevel(logging.CRITICAL + 1)
    return logger


# -- the decision ----------------------------------------------------------------------------


@given(st.integers(1, 9), st.integers(0, 9), st.sampled_from(Directive), st.booleans())
def test_it_is_tried_as_often_as_it_may_be_and_no_more(deaths, retries, directive, ended):
    end = decide_retry(deaths=deaths, retries=retries, directive=directive, ended=ended)
    if directive is Directive.ESCALATE or not retries:
        assert end is RetryDecision.PANICKED, (
            "it never asked to be tried again, or there is no pool left"
        )
    elif ended:
        assert end is RetryDecision.CANCELLED
    else:
        assert end is (RetryDecision.AGAIN if deaths <= retries else RetryDecision.QUARANTINED)


# -- the pool --------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 3])
def test_it_is_run_again_on_another_worker_and_ends_once(size: int) -> None:
    told: list[Panic] = []
    poison = Poison(2)
    with Pool(size, panic_recovery=told.append) as pool:
        future = pool.options(retry_on_worker_death=2, name="job").submit(poison)
        assert future.result(PATIENCE) == 3
    numbers = pool.metrics()
    assert (numbers.submitted, numbers.completed, numbers.panicked) == (1, 1, 0)
    assert numbers.restarts == 2
    assert numbers.dropped == {}
    assert [one.task for one in told] == ["job", "job"], "the handler is told of each"


def test_after_its_last_try_it_is_quarantined_with_its_history(
    clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    letters: list[DeadLetter] = []
    poison = Poison(9, lambda: clock.advance(1.5))
    with Pool(1, name="p", context=Context(clock=clock)) as pool:
        pool.dead_letters.subscribe(letters.append)
        future = pool.options(retry_on_worker_death=2, name="job").submit(poison)
        error = future.exception(PATIENCE)
        assert pool.submit(pow, 2, 2).result(PATIENCE) == 4, "the rest goes on"
        assert pool.dead_letters.join(PATIENCE)
    assert type(error) is TaskQuarantined
    assert isinstance(error.__cause__, Stray)
    assert (error.task, error.worker) == ("job", "p-0")
    assert [(one.worker, one.error.args, one.at, one.age) for one in error.history] == [
        ("p-0", (1,), 1.5, 1.5), ("p-0", (2,), 3.0, 1.5), ("p-0", (3,), 4.5, 1.5),
    ]  # fmt: skip
    assert "took down 3 workers, one after the other (p-0, p-0, p-0)" in str(error)
    numbers = pool.metrics()
    assert (numbers.panicked, numbers.completed, numbers.restarts) == (1, 1, 3)
    assert numbers.dropped == {DropReason.QUARANTINED: 1}
    (letter,) = letters
    assert (letter.task, letter.fn, letter.reason) == ("job", poison, DropReason.QUARANTINED)
    assert letter.history == error.history
    assert letter.error is error
    assert "is quarantined" in caplog.text


def test_who_did_not_ask_for_it_is_not_tried_again() -> None:
    poison, other = Poison(1), Poison(1)
    with Pool(1) as pool:
        assert type(pool.submit(poison).exception(PATIENCE)) is TaskPanicked
        again = pool.options(retry_on_worker_death=0)
        assert type(again.submit(other).exception(PATIENCE)) is TaskPanicked
    assert (poison.runs, other.runs) == (1, 1)


def test_a_failure_is_not_tried_again() -> None:
    with Pool(1) as pool, pytest.raises(ZeroDivisionError):
        pool.options(retry_on_worker_death=5).submit(divmod, 1, 0).result(PATIENCE)
    assert pool.metrics().failed == 1


def test_it_is_the_next_to_be_run_and_a_full_queue_has_room_for_it() -> None:
    order: list[str] = []
    with Pool(1, 2) as pool:
        gate = Gate()
        poison = Poison(1, lambda: order.append("poison"))

        def first() -> None:
            if not order:
                gate()
            poison()

        future = pool.options(retry_on_worker_death=1).submit(first)
        gate.await_entered()
        others = [pool.submit(order.append, name) for name in ("a", "b")]
        gate.open()
        future.result(PATIENCE)
        for one in others:
            one.result(PATIENCE)
    assert order == ["poison", "poison", "a", "b"]


def test_it_can_be_cancelled_while_it_waits_for_its_next_try() -> None:
    with Pool(1) as pool:
        hold = Gate()
        policy_told = threading.Event()

        def initializer() -> None:
            if policy_told.is_set():
                hold()

        policy_told.clear()
        with Pool(1, initializer=initializer) as frail:
            poison = Poison(1, policy_told.set)
            future = frail.options(retry_on_worker_death=1).submit(poison)
            hold.await_entered()
            assert not future.running()
            assert frail.metrics().queued == 1
            assert future.cancel()
            hold.open()
        assert poison.runs == 1
        assert (frail.metrics().cancelled, frail.metrics().panicked) == (1, 0)
        assert pool.metrics().submitted == 0


def test_a_context_that_ended_meanwhile_ends_it() -> None:
    context = Context()
    letters: list[DeadLetter] = []
    with Pool(1) as pool:
        pool.dead_letters.subscribe(letters.append)
        again = pool.options(retry_on_worker_death=3, context=context, name="job")
        poison = Poison(1, context.cancel)
        error = again.submit(poison).exception(PATIENCE)
        assert type(error) is Cancelled
        assert error.task == "job"
        assert isinstance(error.__cause__, Stray)
        assert pool.dead_letters.join(PATIENCE)
    assert poison.runs == 1
    assert (pool.metrics().cancelled, pool.metrics().panicked, letters) == (1, 0, [])


def test_its_time_limit_is_for_all_tries_together(clock: VirtualClock) -> None:
    poison = Poison(99, lambda: clock.advance(2))
    with Pool(1, context=Context(clock=clock)) as pool:
        again = pool.options(retry_on_worker_death=99, timeout=5)
        with pytest.raises(DeadlineExceeded):
            again.submit(poison).result(PATIENCE)
    assert poison.runs == 3
    assert adds_up(pool.metrics())


def test_its_ttl_is_for_the_first_wait_only(clock: VirtualClock) -> None:
    poison = Poison(3, lambda: clock.advance(2))
    with Pool(1, context=Context(clock=clock)) as pool:
        assert pool.options(retry_on_worker_death=3, ttl=1).submit(poison).result(PATIENCE) == 4


def test_a_drain_waits_for_its_next_try() -> None:
    gate = Gate()
    poison = Poison(2, gate)
    pool = Pool(1)
    future = pool.options(retry_on_worker_death=2).submit(poison)
    gate.await_entered()
    draining = run_in_thread(pool.drain)
    eventually(lambda: pool.is_draining)
    gate.open()
    report = draining.result(PATIENCE)
    assert future.result(0) == 3
    assert (report.completed, report.panicked, report.unfinished) == (1, 0, ())  # type: ignore[attr-defined]


def test_a_close_ends_it_as_if_it_had_never_begun() -> None:
    gate = Gate()
    letters: list[DeadLetter] = []

    def panics() -> None:
        gate()
        raise Stray

    pool = Pool(1)
    pool.dead_letters.subscribe(letters.append)
    future = pool.options(retry_on_worker_death=2).submit(panics)
    gate.await_entered()
    closing = run_in_thread(pool.close)
    eventually(lambda: core_of(pool).spec.context.cancelled)
    gate.open()
    closing.result(PATIENCE)
    error = future.exception(0)
    assert isinstance(error, TaskDropped)
    assert error.why is DropReason.CLOSED
    assert isinstance(error.__cause__, Stray)
    assert pool.dead_letters.join(PATIENCE)
    assert [(one.reason, len(one.history)) for one in letters] == [(DropReason.CLOSED, 1)]
    assert (pool.metrics().cancelled, pool.metrics().panicked) == (1, 0)


def test_a_pool_that_breaks_of_it_says_so() -> None:
    recovery = PanicRecovery(max_restarts=1)
    pool = Pool(1, panic_recovery=recovery)
    letters: list[DeadLetter] = []
    pool.dead_letters.subscribe(letters.append)
    future = pool.options(retry_on_worker_death=99).submit(Poison(99))
    assert isinstance(future.exception(PATIENCE), BrokenPool)
    eventually(lambda: pool.is_closed)
    assert pool.dead_letters.join(PATIENCE)
    assert [(one.reason, len(one.history)) for one in letters] == [(DropReason.CLOSED, 2)]
    assert adds_up(pool.metrics())


def test_what_is_escalated_is_not_tried_again() -> None:
    recovery = PanicRecovery(decide=lambda error: Directive.ESCALATE)
    pool = Pool(1, panic_recovery=recovery)
    poison = Poison(1)
    future = pool.options(retry_on_worker_death=9).submit(poison)
    assert type(future.exception(PATIENCE)) is TaskPanicked
    eventually(lambda: pool.is_closed)
    assert poison.runs == 1


def test_the_hooks_are_told_of_one_end_and_of_each_try() -> None:
    metrics, tracer = RecordingMetrics(), RecordingTracer()
    with Pool(1, name="p", metrics=metrics, tracer=tracer) as pool:
        pool.options(retry_on_worker_death=1).submit(Poison(1)).result(PATIENCE)
        pool.options(retry_on_worker_death=1).submit(Poison(9)).exception(PATIENCE)

    def counted(name: str, **labels: str) -> float:
        return metrics.count(f"ion_workerpool_tasks_{name}_total", pool="p", **labels)

    assert counted("submitted") == 2
    assert counted("started") == 4
    assert counted("retried") == 2
    assert counted("completed", status="success") == 1
    assert counted("completed", status="panic") == 1
    assert counted("dropped", reason="quarantined") == 1
    assert [type(one.error) for one in tracer.spans()] == [Stray, type(None), Stray, Stray]


def test_each_try_sees_the_variables_as_they_were_submitted() -> None:
    variable = contextvars.ContextVar("variable", default="as submitted")
    seen: list[Any] = []

    def look() -> None:
        seen.append((variable.get(), current_context()))
        variable.set("changed by a try")

    with Pool(1) as pool:
        pool.options(retry_on_worker_death=2).submit(Poison(2, look)).result(PATIENCE)
    assert [one for one, _ in seen] == ["as submitted"] * 3
    assert len({id(context) for _, context in seen}) == 1, "they are one task"


def test_tasks_of_a_key_stay_in_order_and_one_at_a_time() -> None:
    order: list[str] = []
    running = threading.Lock()

    def note(name: str) -> None:
        assert running.acquire(blocking=False), "two of one key at a time"
        order.append(name)
        running.release()

    with Pool(4) as pool:
        keyed = pool.options(key="k", retry_on_worker_death=3)
        with busy(pool):
            futures = [
                keyed.submit(Poison(times, lambda name=name: note(name)))  # type: ignore[misc]
                for name, times in (("a", 2), ("b", 0), ("c", 1), ("d", 0))
            ]
        for one in futures:
            one.result(PATIENCE)
    assert order == ["a", "a", "a", "b", "c", "c", "d"]


def test_a_task_that_waits_for_it_has_its_result() -> None:
    """It was claimed by the waiting worker, whose queue still has its old place."""
    with Pool(1, 1000) as pool:
        poison = Poison(2)

        def outer() -> Any:
            filler = [pool.submit(pow, 2, 2) for _ in range(100)]
            inner = pool.options(retry_on_worker_death=2).submit(poison)
            result = inner.result()
            return result, [one.result() for one in filler]

        result, filler = pool.submit(outer).result(PATIENCE)
    assert result == 3
    assert filler == [4] * 100
    numbers = pool.metrics()
    assert (numbers.submitted, numbers.completed) == (102, 102)


def test_a_message_can_ask_for_it() -> None:
    with Pool(1) as pool:
        future = pool.actor_ref.ask(Submit(Poison(1), retry_on_worker_death=1))
        assert future.result(PATIENCE) == 2


@pytest.mark.parametrize(
    ("value", "error"), [(-1, ValueError), (1.5, TypeError), (True, TypeError)]
)
def test_what_makes_no_sense_is_refused(value: Any, error: type[Exception]) -> None:
    with Pool(1) as pool, pytest.raises(error, match="retry_on_worker_death must be"):
        pool.options(retry_on_worker_death=value)


def test_a_future_that_is_kept_keeps_nothing_of_the_tries_before(without_gc: None) -> None:
    class Cargo:
        pass

    held: list[weakref.ref[Cargo]] = []

    def look() -> None:
        cargo = Cargo()
        held.append(weakref.ref(cargo))
        if len(held) < 3:
            raise Stray

    with Pool(1, logger=unheard()) as pool:
        future = pool.options(retry_on_worker_death=2).submit(look)
        future.result(PATIENCE)
        assert pool.submit(pow, 2, 2).result(PATIENCE) == 4
    eventually(lambda: [ref() for ref in held] == [None] * 3)
    gc.collect()


@settings(max_examples=rounds(20, thorough=150))
@given(
    st.integers(1, 3),
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), min_size=1, max_size=25),
)
def test_every_task_ends_once_whatever_dies(size: int, tasks: list[tuple[int, int]]) -> None:
    with Pool(size, 100, logger=unheard()) as pool:
        futures = [
            pool.options(retry_on_worker_death=retries).submit(Poison(times))
            for times, retries in tasks
        ]
        while not all(one.done() for one in futures):
            assert adds_up(pool.metrics())
        for future, (times, retries) in zip(futures, tasks, strict=True):
            if times <= retries:
                assert future.result(0) == times + 1
            else:
                quarantined = isinstance(future.exception(0), TaskQuarantined)
                assert quarantined == (retries > 0)
    numbers = pool.metrics()
    assert adds_up(numbers)
    assert numbers.submitted == len(tasks)
    assert numbers.panicked == sum(times > retries for times, retries in tasks)
    assert numbers.restarts <= sum(min(times, retries + 1) for times, retries in tasks)
