"""A task that fails is tried again, and waits for that outside of the workers."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import itertools
import logging
import os
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ion_actors import (
    Backoff,
    Cancelled,
    Context,
    DeadlineExceeded,
    DeadlockError,
    Directive,
    DrainTimeout,
    PanicRecovery,
    Pool,
    PoolMetrics,
    QueueFull,
    Retry,
    Submit,
    TaskDropped,
    TaskPanicked,
    TaskQuarantined,
    TaskState,
    Worker,
    WorkerDied,
    current_context,
)
from ion_actors.testing import RecordingMetrics, RecordingTracer, VirtualClock
from tests.inside import core_of
from tests.workerpool.helpers import PATIENCE, Gate, eventually, run_in_thread

STEADY = Backoff(initial=1, factor=2, maximum=100, jitter=0)
AT_ONCE = Backoff(initial=0, jitter=0)


class Flaky:
    """Fails the first so many times; then it returns how often it was called."""

    def __init__(
        self,
        times: int,
        error: Callable[[int], BaseException] = ConnectionError,
        before: Callable[[], object] = lambda: None,
    ) -> None:
        self.times = times
        self.runs = 0
        self.error = error
        self.before = before

    def __call__(self, *_: object) -> int:
        self.runs += 1
        self.before()
        if self.runs <= self.times:
            raise self.error(self.runs)
        return self.runs


def adds_up(numbers: PoolMetrics) -> bool:
    return numbers.submitted == (
        numbers.queued + numbers.running + numbers.completed + numbers.failed
        + numbers.panicked + numbers.cancelled
    )  # fmt: skip


def pass_waits(clock: VirtualClock, times: int, timers: int = 1) -> None:
    for _ in range(times):
        clock.wait_for_timers(timers)
        clock.advance_to_next()


def notes_of(error: BaseException | None) -> list[str]:
    return list(getattr(error, "__notes__", []))


# -- what it is for ----------------------------------------------------------------------------


def test_it_is_tried_again_after_the_backoff_until_it_succeeds(clock: VirtualClock) -> None:
    began: list[float] = []
    flaky = Flaky(3, before=lambda: began.append(clock.monotonic()))
    with Pool(1, context=Context(clock=clock)) as pool:
        future = pool.options(retry=Retry(attempts=5, backoff=STEADY)).submit(flaky)
        pass_waits(clock, 3)
        assert future.result(PATIENCE) == 4
    assert began == [0, 1, 3, 7]
    numbers = pool.metrics()
    assert (numbers.submitted, numbers.completed, numbers.failed) == (1, 1, 0)
    assert (numbers.retries, numbers.delayed, numbers.restarts) == (3, 0, 0)


def test_its_worker_is_free_while_it_waits(clock: VirtualClock) -> None:
    with Pool(1, context=Context(clock=clock)) as pool:
        future = pool.options(retry=Retry(backoff=STEADY)).submit(Flaky(1))
        clock.wait_for_timers()
        assert not future.running()
        assert not future.done()
        numbers = pool.metrics()
        assert (numbers.queued, numbers.delayed, numbers.running) == (1, 1, 0)
        assert adds_up(numbers)
        assert pool.submit(pow, 2, 3).result(PATIENCE) == 8
        clock.advance(1)
        assert future.result(PATIENCE) == 2


def test_it_ends_as_its_last_error_with_the_others_in_the_notes(clock: VirtualClock) -> None:
    flaky = Flaky(9, lambda run: ConnectionError(f"refused\n{run}"))
    with Pool(1, context=Context(clock=clock)) as pool:
        future = pool.options(retry=Retry(attempts=3, backoff=STEADY)).submit(flaky)
        pass_waits(clock, 2)
        error = future.exception(PATIENCE)
    assert type(error) is ConnectionError
    assert error.args == ("refused\n3",)
    assert notes_of(error) == [
        "try 1 failed after 0 s with ConnectionError: refused\\n1",
        "try 2 failed after 0 s with ConnectionError: refused\\n2",
        "try 3 was the last: attempts=3",
    ]
    numbers = pool.metrics()
    assert (numbers.failed, numbers.retries) == (1, 2)


def test_who_did_not_ask_for_it_is_not_tried_again_nor_annotated() -> None:
    flaky = Flaky(9)
    with Pool(1) as pool:
        assert notes_of(pool.submit(flaky).exception(PATIENCE)) == []
        once = pool.options(retry=Retry(attempts=1))
        assert notes_of(once.submit(flaky).exception(PATIENCE)) == []
        other = pool.options(retry=Retry(on=KeyError))
        assert notes_of(other.submit(flaky).exception(PATIENCE)) == []
    assert flaky.runs == 3


def test_an_error_that_is_not_meant_ends_it(clock: VirtualClock) -> None:
    flaky = Flaky(9, lambda run: ConnectionError() if run == 1 else KeyError("k"))
    with Pool(1, context=Context(clock=clock)) as pool:
        future = pool.options(retry=Retry(backoff=STEADY, on=(OSError,))).submit(flaky)
        pass_waits(clock, 1)
        error = future.exception(PATIENCE)
    assert type(error) is KeyError
    assert notes_of(error)[1:] == ["try 2 was the last: KeyError is not tried again"]


def test_the_deadline_of_the_policy_gives_up_at_once(clock: VirtualClock) -> None:
    retry = Retry(attempts=None, backoff=STEADY, deadline=5)
    with Pool(1, context=Context(clock=clock)) as pool:
        future = pool.options(retry=retry).submit(Flaky(99))
        pass_waits(clock, 2)  # at 1 and at 3; the next would be at 7
        error = future.exception(PATIENCE)
        assert clock.monotonic() == 3
    assert notes_of(error)[-1] == "try 3 was the last: deadline=5"


def test_the_deadline_of_the_policy_counts_from_the_end_of_a_delay(clock: VirtualClock) -> None:
    retry = Retry(attempts=None, backoff=STEADY, deadline=5)
    with Pool(1, context=Context(clock=clock)) as pool:
        future = pool.options(retry=retry, delay=60).submit(Flaky(99))
        pass_waits(clock, 3)
        assert notes_of(future.exception(PATIENCE))[-1] == "try 3 was the last: deadline=5"
        assert clock.monotonic() == 63


@pytest.mark.parametrize(
    ("hint", "waits"), [(30, 30), (0.5, 1), (None, 1), ("7", 1), (float("nan"), 1)]
)
def test_it_waits_at_least_as_long_as_its_error_says(
    clock: VirtualClock, hint: object, waits: float
) -> None:
    class Busy(Exception):
        retry_after = hint

    with Pool(1, context=Context(clock=clock)) as pool:
        future = pool.options(retry=Retry(backoff=STEADY)).submit(Flaky(1, Busy))
        clock.wait_for_timers()
        assert pool.dump().delayed[0].due_in == waits
        clock.advance(waits)
        assert future.result(PATIENCE) == 2


def test_an_error_that_never_wants_to_be_tried_again_is_not(clock: VirtualClock) -> None:
    class Open(Exception):
        retry_after = float("inf")

    flaky = Flaky(9, Open)
    with Pool(1, context=Context(clock=clock)) as pool:
        assert type(pool.options(retry=Retry()).submit(flaky).exception(PATIENCE)) is Open
    assert flaky.runs == 1


# -- the user's code ---------------------------------------------------------------------------


def test_a_predicate_decides_on_the_worker_in_the_tasks_context(clock: VirtualClock) -> None:
    seen: list[tuple[str, object, str | None]] = []
    variable = contextvars.ContextVar[str]("variable", default="none")

    def again(error: BaseException) -> bool:
        seen.append((threading.current_thread().name, current_context().clock, variable.get()))
        return "1" in str(error)

    with Pool(1, name="p", context=Context(clock=clock)) as pool:
        variable.set("the submitter's")
        future = pool.options(retry=Retry(backoff=STEADY, on=again)).submit(Flaky(9))
        pass_waits(clock, 1)
        assert future.exception(PATIENCE).args == (2,)
    assert seen == [("p-0", clock, "the submitter's")] * 2


def test_a_predicate_that_fails_is_logged_and_says_no(caplog: pytest.LogCaptureFixture) -> None:
    def fails(error: BaseException) -> bool:
        raise LookupError("in the predicate")

    with Pool(1) as pool:
        future = pool.options(retry=Retry(on=fails)).submit(Flaky(9))
        assert type(future.exception(PATIENCE)) is ConnectionError
        assert pool.submit(pow, 2, 3).result(PATIENCE) == 8
    assert "retry's on failed" in caplog.text


def test_an_error_that_cannot_be_shown_is_tried_again_all_the_same() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise LookupError

        @property
        def retry_after(self) -> float:
            raise SystemExit

    with Pool(1) as pool:
        future = pool.options(retry=Retry(backoff=AT_ONCE)).submit(Flaky(9, Mute))
        assert "Mute" in notes_of(future.exception(PATIENCE))[0]


def test_each_try_has_the_variables_of_the_submission() -> None:
    variable = contextvars.ContextVar[str]("variable")
    seen: list[str] = []

    def fails_once() -> str:
        seen.append(variable.get())
        variable.set("changed")
        if len(seen) == 1:
            raise ConnectionError
        return "done"

    variable.set("submitted")
    with Pool(1) as pool:
        future = pool.options(retry=Retry(backoff=AT_ONCE)).submit(fails_once)
        assert future.result(PATIENCE) == "done"
    assert seen == ["submitted", "submitted"]


def test_while_it_waits_nothing_holds_what_the_try_had_at_hand(clock: VirtualClock) -> None:
    class Thing:
        pass

    things: list[weakref.ref[Thing]] = []

    def fails() -> None:
        thing = Thing()
        things.append(weakref.ref(thing))
        raise ConnectionError(thing)

    with Pool(1, context=Context(clock=clock)) as pool:
        future = pool.options(retry=Retry(backoff=STEADY)).submit(fails)
        clock.wait_for_timers()
        pool.submit(pow, 2, 2).result(PATIENCE)
        gc.collect()
        assert things[0]() is None
        future.cancel()


# -- limits, contexts, cancellation ------------------------------------------------------------


def test_its_time_limit_counts_on_while_it_waits(clock: VirtualClock) -> None:
    with Pool(1, context=Context(clock=clock)) as pool:
        slow = Backoff(initial=30, maximum=30, jitter=0)
        future = pool.options(timeout=10, retry=Retry(backoff=slow)).submit(Flaky(9))
        clock.wait_for_timers(2)
        clock.advance(10)
        error = future.exception(PATIENCE)
        eventually(lambda: clock.timers == 0)
    assert type(error) is DeadlineExceeded
    assert notes_of(error) == ["try 1 failed after 0 s with ConnectionError: 1"]
    assert pool.metrics().cancelled == 1


@pytest.mark.parametrize("by", ["future", "context"])
def test_it_is_called_off_while_it_waits(clock: VirtualClock, by: str) -> None:
    with Pool(1, context=Context(clock=clock)) as pool, Context() as scope:
        future = pool.options(retry=Retry(backoff=STEADY)).submit(Flaky(9))
        clock.wait_for_timers()
        if by == "future":
            assert future.cancel()
        else:
            scope.cancel("enough")
        assert future.cancelled()
        with pytest.raises(Cancelled) as caught:
            future.result()
        assert notes_of(caught.value) == ["try 1 failed after 0 s with ConnectionError: 1"]
        eventually(lambda: clock.timers == 0)
        assert pool.metrics().delayed == 0
        assert adds_up(pool.metrics())


def test_a_task_whose_context_has_ended_is_not_tried_again() -> None:
    def fails() -> None:
        current_context().cancel("called off")
        raise ConnectionError

    with Pool(1) as pool:
        future = pool.options(retry=Retry(backoff=AT_ONCE)).submit(fails)
        assert type(future.exception(PATIENCE)) is ConnectionError
        assert pool.metrics().retries == 0


def test_once_it_has_begun_its_ttl_is_of_no_effect(clock: VirtualClock) -> None:
    with Pool(1, context=Context(clock=clock)) as pool:
        future = pool.options(ttl=0.5, retry=Retry(backoff=STEADY)).submit(Flaky(1))
        clock.wait_for_timers()
        clock.advance(1)
        assert future.result(PATIENCE) == 2


def test_a_stranger_that_settles_a_waiting_future_upsets_no_number(clock: VirtualClock) -> None:
    with Pool(1, context=Context(clock=clock)) as pool:
        future = pool.options(retry=Retry(backoff=STEADY)).submit(Flaky(9))
        clock.wait_for_timers()
        future.set_result(99)
        clock.advance(1)
        assert pool.submit(pow, 2, 2).result(PATIENCE) == 4
        assert adds_up(pool.metrics())
        assert pool.metrics().submitted == 2


# -- order -------------------------------------------------------------------------------------


def test_a_task_with_a_key_keeps_it_while_it_waits(clock: VirtualClock) -> None:
    order: list[str] = []

    def first() -> None:
        order.append("first")
        if len(order) == 1:
            raise ConnectionError

    with Pool(2, context=Context(clock=clock)) as pool:
        keyed = pool.options(key="k")
        one = keyed.options(retry=Retry(backoff=STEADY)).submit(first)
        clock.wait_for_timers()
        two = keyed.submit(order.append, "second")
        assert pool.options(key="other").submit(pow, 2, 2).result(PATIENCE) == 4
        assert not two.done()
        clock.advance(1)
        one.result(PATIENCE)
        two.result(PATIENCE)
        for _ in range(3):
            assert keyed.submit(pow, 2, 3).result(PATIENCE) == 8
    assert order == ["first", "first", "second"]


@pytest.mark.parametrize("end", ["cancelled", "failed"])
def test_a_key_is_free_when_it_has_ended(clock: VirtualClock, end: str) -> None:
    with Pool(1, context=Context(clock=clock)) as pool:
        keyed = pool.options(key="k")
        one = keyed.options(retry=Retry(attempts=2, backoff=STEADY)).submit(Flaky(9))
        clock.wait_for_timers()
        two = keyed.submit(pow, 2, 3)
        if end == "cancelled":
            one.cancel()
        else:
            clock.advance(1)
        assert two.result(PATIENCE) == 8


def test_what_is_tried_again_goes_first_in_the_order_of_time(clock: VirtualClock) -> None:
    order: list[str] = []

    def job(name: str) -> None:
        order.append(name)
        if order.count(name) == 1 and name != "new":
            raise ConnectionError

    with Pool(1, context=Context(clock=clock)) as pool:
        tasks = [
            pool.options(
                retry=Retry(backoff=Backoff(initial=wait, jitter=0, maximum=9))
            ).submit(job, str(wait))
            for wait in (3, 1, 2)
        ]  # fmt: skip
        eventually(lambda: pool.metrics().delayed == 3)
        gate = Gate()
        pool.submit(gate)
        gate.await_entered()
        tasks.append(pool.submit(job, "new"))
        for _ in range(3):
            clock.advance(1)
        gate.open()
        for one in tasks:
            one.result(PATIENCE)
    assert order == ["3", "1", "2", "1", "2", "3", "new"]


# -- bounds ------------------------------------------------------------------------------------


def test_those_that_wait_take_up_places(clock: VirtualClock) -> None:
    with Pool(1, 2, context=Context(clock=clock)) as pool:
        again = pool.options(retry=Retry(attempts=2, backoff=STEADY))
        failing = [again.submit(Flaky(1)) for _ in range(2)]
        eventually(lambda: pool.metrics().delayed == 2)
        with pytest.raises(QueueFull):
            again.try_submit(print)
        blocked = run_in_thread(lambda: again.submit(pow, 2, 3))
        eventually(lambda: pool.dump().waiting == 1)
        assert pool.submit(pow, 2, 2).result(PATIENCE) == 4, "others find the worker idle"
        clock.advance(1)
        assert [one.result(PATIENCE) for one in failing] == [2, 2]
        assert blocked.result(PATIENCE).result(PATIENCE) == 8


def test_who_waits_for_a_place_gets_that_of_one_that_was_called_off(clock: VirtualClock) -> None:
    for size, limit in ((1, 2), (2, 0)):
        with Pool(size, limit, context=Context(clock=clock)) as pool:
            again = pool.options(retry=Retry(attempts=2, backoff=STEADY))
            failing = []
            for _ in range(2):
                failing.append(again.submit(Flaky(1)))
                eventually(lambda: pool.metrics().running == 0)
            with pytest.raises(QueueFull):
                again.try_submit(print)
            blocked = run_in_thread(again.submit, pow, 2, 3)
            eventually(lambda: pool.dump().waiting == 1)
            assert failing[0].cancel()
            assert blocked.result(PATIENCE).result(PATIENCE) == 8
            clock.advance(1)
            assert failing[1].result(PATIENCE) == 2


def test_a_pool_without_a_queue_tries_again_too(clock: VirtualClock) -> None:
    with Pool(1, 0, context=Context(clock=clock)) as pool:
        future = pool.options(retry=Retry(backoff=STEADY)).submit(Flaky(1))
        clock.wait_for_timers()
        clock.advance(1)
        assert future.result(PATIENCE) == 2


# -- the end of the pool -----------------------------------------------------------------------


def test_a_drain_waits_for_the_next_try(clock: VirtualClock) -> None:
    pool = Pool(2, context=Context(clock=clock))
    future = pool.options(retry=Retry(backoff=STEADY)).submit(Flaky(2))
    clock.wait_for_timers()
    report = run_in_thread(lambda: pool.drain(30))
    clock.wait_for_timers(2)
    clock.advance(1)
    eventually(lambda: pool.metrics().retries == 2)
    clock.wait_for_timers(2)
    clock.advance(2)
    assert future.result(PATIENCE) == 3
    assert report.result(PATIENCE).completed == 1
    eventually(lambda: clock.timers == 0)


def test_a_drain_whose_time_is_up_reports_it(clock: VirtualClock) -> None:
    pool = Pool(1, context=Context(clock=clock))
    slow = Backoff(initial=60, maximum=60, jitter=0)
    future = pool.options(retry=Retry(backoff=slow), name="job").submit(Flaky(9))
    clock.wait_for_timers()
    ended = run_in_thread(lambda: pool.drain(10))
    clock.wait_for_timers(2)
    clock.advance(10)
    with pytest.raises(DrainTimeout) as caught:
        ended.result(PATIENCE)
    (unfinished,) = caught.value.report.cancelled
    assert (unfinished.name, unfinished.state) == ("job", TaskState.DELAYED)
    with pytest.raises(TaskDropped) as dropped:
        future.result(PATIENCE)
    assert len(notes_of(dropped.value)) == 1
    eventually(lambda: clock.timers == 0)


def test_closing_ends_it(clock: VirtualClock) -> None:
    pool = Pool(1, context=Context(clock=clock))
    letters: list[Any] = []
    pool.dead_letters.subscribe(letters.append)
    future = pool.options(retry=Retry(backoff=STEADY)).submit(Flaky(9))
    clock.wait_for_timers()
    report = pool.close(5)
    assert [one.state for one in report.cancelled] == [TaskState.DELAYED]
    assert future.cancelled()
    pool.dead_letters.join(PATIENCE)
    assert len(letters) == 1


def test_a_try_that_fails_while_the_pool_closes_is_the_last() -> None:
    gate = Gate()

    def fails() -> None:
        gate()
        raise ConnectionError

    pool = Pool(1)
    future = pool.options(retry=Retry(backoff=AT_ONCE)).submit(fails)
    gate.await_entered()
    pool.shutdown(wait=False)
    closing = run_in_thread(lambda: pool.close(PATIENCE))
    eventually(lambda: core_of(pool).spec.context.cancelled)
    gate.open()
    assert type(future.exception(PATIENCE)) is ConnectionError
    closing.result(PATIENCE)
    assert pool.metrics().retries == 0


# -- everywhere --------------------------------------------------------------------------------


def test_coroutines_are_tried_again() -> None:
    runs = itertools.count(1)

    async def flaky() -> int:
        await asyncio.sleep(0)
        if (run := next(runs)) < 3:
            raise ConnectionError
        return run

    with Pool(1) as pool:
        again = pool.options(retry=Retry(backoff=AT_ONCE))
        assert again.submit(flaky).result(PATIENCE) == 3

    async def main() -> int:
        async with Pool(1) as pool:
            again = pool.options(retry=Retry(backoff=AT_ONCE))
            first = await (await again.asubmit(Flaky(1)))
            return first + sum([one async for one in again.amap(Flaky(1), range(2))])

    assert asyncio.run(main()) == 2 + 2 + 3


@pytest.mark.parametrize("chunksize", [1, 3])
def test_maps_try_again_and_keep_their_order(chunksize: int) -> None:
    failed: set[int] = set()

    def flaky(number: int) -> int:
        if number % 3 == 0 and number not in failed:
            failed.add(number)
            raise ConnectionError
        return number

    with Pool(3) as pool:
        again = pool.options(retry=Retry(backoff=AT_ONCE))
        assert list(again.map(flaky, range(9), chunksize=chunksize)) == list(range(9))
        failed.clear()
        found = sorted(again.map_unordered(flaky, range(9), chunksize=chunksize))
        assert found == list(range(9))


class Keeper(Worker):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def call(self) -> int:
        self.calls += 1
        if self.calls == 1:
            raise ConnectionError
        return self.calls


def test_workers_with_state_keep_it() -> None:
    with Pool(1, worker=Keeper) as pool:
        again = pool.options(retry=Retry(backoff=AT_ONCE))
        assert again.call(Keeper.call).result(PATIENCE) == 2


def test_by_message_too() -> None:
    with Pool(1) as pool:
        message = Submit(Flaky(1), retry=Retry(backoff=AT_ONCE))
        assert pool.actor_ref.ask(message).result(PATIENCE) == 2


@pytest.mark.parametrize("key", [None, "k"])
def test_what_the_caller_ran_is_tried_again_by_a_worker(
    clock: VirtualClock, key: str | None
) -> None:
    with Pool(1, 1, overflow="caller_runs", context=Context(clock=clock)) as pool:
        gate = Gate()
        pool.submit(gate)
        gate.await_entered()
        filler = pool.submit(pow, 2, 2)
        names: list[str] = []
        flaky = Flaky(1, before=lambda: names.append(threading.current_thread().name))
        future = pool.options(retry=Retry(backoff=STEADY), key=key).submit(flaky)
        assert not future.done()
        gate.open()
        filler.result(PATIENCE)
        clock.advance(1)
        assert future.result(PATIENCE) == 2
        assert names == [threading.current_thread().name, f"{pool.name}-0"]
        again = pool.options(key=key).submit(pow, 2, 3)
        assert again.result(PATIENCE) == 8
        assert adds_up(pool.metrics())


def test_an_interruption_of_a_caller_is_the_callers() -> None:
    with Pool(1, 1, overflow="caller_runs") as pool:
        gate = Gate()
        pool.submit(gate)
        gate.await_entered()
        pool.submit(pow, 2, 2)
        again = pool.options(retry=Retry(backoff=AT_ONCE, on=BaseException))
        flaky = Flaky(9, lambda _: KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            again.submit(flaky)
        gate.open()
    assert flaky.runs == 1


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("key", [None, "k"])
def test_a_task_that_waits_for_one_of_its_own_pool(
    clock: VirtualClock, size: int, key: str | None
) -> None:
    with Pool(size, context=Context(clock=clock)) as pool:

        def outer() -> int:
            again = pool.options(retry=Retry(backoff=STEADY), key=key)
            return again.submit(Flaky(1)).result() + again.submit(pow, 2, 3).result()

        futures = [pool.submit(outer) for _ in range(size)]
        for _ in range(size):
            clock.wait_for_timers()
            clock.advance(1)
            if key is None:
                break
        for future in futures:
            eventually(lambda: clock.advance(1) or futures[0].done())
            eventually(lambda: clock.advance(1) or future.done())
            assert future.result(PATIENCE) == 10


def test_a_task_that_waits_for_one_of_its_own_key_is_told() -> None:
    with Pool(2) as pool:
        keyed = pool.options(key="k")

        def outer() -> int:
            return keyed.options(retry=Retry(backoff=AT_ONCE)).submit(Flaky(1)).result()

        with pytest.raises(DeadlockError):
            keyed.submit(outer).result(PATIENCE)


def test_a_task_without_help_that_waits_for_one_on_the_only_worker_is_told() -> None:
    with Pool(1, helping=False) as pool:

        def outer() -> int:
            return pool.options(retry=Retry(backoff=AT_ONCE)).submit(Flaky(1)).result()

        with pytest.raises(DeadlockError):
            pool.submit(outer).result(PATIENCE)


# -- workers that are lost ---------------------------------------------------------------------


def test_failures_and_deaths_are_counted_apart(clock: VirtualClock) -> None:
    def error(run: int) -> BaseException:
        return SystemExit(run) if run in (1, 3) else ConnectionError(run)

    flaky = Flaky(4, error)
    with Pool(1, context=Context(clock=clock)) as pool:
        again = pool.options(retry=Retry(attempts=3, backoff=STEADY), retry_on_worker_death=2)
        future = again.submit(flaky)
        pass_waits(clock, 2)
        assert future.result(PATIENCE) == 5
    numbers = pool.metrics()
    assert (numbers.restarts, numbers.retries, numbers.completed) == (2, 4, 1)
    assert (numbers.failed, numbers.panicked) == (0, 0)


def test_a_quarantined_task_has_its_failures_in_its_notes(clock: VirtualClock) -> None:
    flaky = Flaky(9, lambda run: ConnectionError(run) if run == 1 else SystemExit(run))
    with Pool(1, context=Context(clock=clock)) as pool:
        again = pool.options(retry=Retry(backoff=STEADY), retry_on_worker_death=1)
        future = again.submit(flaky)
        pass_waits(clock, 1)
        error = future.exception(PATIENCE)
    assert type(error) is TaskQuarantined
    assert len(error.history) == 2
    assert notes_of(error)[0].startswith("try 1 failed")


def test_a_death_is_no_failure_unless_it_is_named(clock: VirtualClock) -> None:
    with Pool(1, context=Context(clock=clock)) as pool:
        unnamed = pool.options(retry=Retry(backoff=STEADY)).submit(Flaky(1, SystemExit))
        assert type(unnamed.exception(PATIENCE)) is TaskPanicked
        named = pool.options(retry=Retry(attempts=2, backoff=STEADY, on=TaskPanicked))
        future, other = named.submit(Flaky(1, SystemExit)), named.submit(Flaky(9, SystemExit))
        eventually(lambda: pool.metrics().delayed == 2)
        clock.advance(1)
        assert future.result(PATIENCE) == 2
        error = other.exception(PATIENCE)
        assert type(error) is TaskPanicked
        assert notes_of(error)[-1] == "try 2 was the last: attempts=2"
    numbers = pool.metrics()
    assert (numbers.panicked, numbers.restarts, numbers.retries) == (2, 4, 2)


def test_a_broken_pool_tries_nothing_again() -> None:
    recovery = PanicRecovery(decide={ConnectionError: Directive.ESCALATE})
    pool = Pool(1, panic_recovery=recovery)
    again = pool.options(retry=Retry(backoff=AT_ONCE, on=(BaseException,)))
    future = again.submit(Flaky(9))
    assert type(future.exception(PATIENCE)) is TaskPanicked
    pool.close()


@pytest.mark.parametrize("died", [False, True])
def test_in_processes(tmp_path: Path, died: bool) -> None:
    def flaky(folder: Path) -> int:
        run = len(list(folder.iterdir()))
        (folder / str(run)).touch()
        if run == 0 and died:
            os._exit(3)
        if run < 2:
            raise ConnectionError(run)
        return run

    on = (WorkerDied, ConnectionError) if died else ConnectionError
    with Pool(1, backend="process") as pool:
        future = pool.options(retry=Retry(backoff=AT_ONCE, on=on)).submit(flaky, tmp_path)
        assert future.result(PATIENCE) == 2
        assert pool.metrics().retries == 2
        assert pool.metrics().restarts == died


# -- what is told ------------------------------------------------------------------------------


def test_each_try_is_told_and_traced(clock: VirtualClock) -> None:
    metrics, tracer = RecordingMetrics(), RecordingTracer()
    pool = Pool(1, context=Context(clock=clock), metrics=metrics, tracer=tracer)
    with pool:
        future = pool.options(retry=Retry(backoff=STEADY)).submit(Flaky(2))
        pass_waits(clock, 2)
        future.result(PATIENCE)
    assert metrics.count("ion_workerpool_tasks_submitted_total") == 1
    assert metrics.count("ion_workerpool_tasks_started_total") == 3
    assert metrics.count("ion_workerpool_tasks_retried_total") == 2
    assert metrics.count("ion_workerpool_tasks_completed_total", status="success") == 1
    assert metrics.observed("ion_workerpool_task_queue_seconds") == [0, 0, 0]
    assert [type(span.error) for span in tracer.spans()] == [
        ConnectionError, ConnectionError, type(None),
    ]  # fmt: skip
    assert [span.attributes.get("attempt") for span in tracer.spans()] == [None, 2, 3]


def test_the_dump_names_it_its_tries_and_its_error(clock: VirtualClock) -> None:
    with Pool(1, context=Context(clock=clock)) as pool:
        again = pool.options(retry=Retry(backoff=STEADY), name="job")
        future = again.submit(Flaky(9, lambda _: ValueError("of\nmany lines")))
        clock.wait_for_timers()
        (waiting,) = pool.dump().delayed
        assert (waiting.name, waiting.due_in, waiting.tries) == ("job", 1.0, 1)
        assert waiting.error == "ValueError: of\\nmany lines"
        line = "'job' waits for 1.000 s; 1 failed, the last one with ValueError: of\\nmany lines"
        assert line in str(pool.dump())
        future.cancel()


@pytest.mark.parametrize("retry", [3, "often", Retry])
def test_what_is_no_policy_is_refused(retry: Any) -> None:
    with Pool(1) as pool, pytest.raises(TypeError, match="retry must be a Retry"):
        pool.options(retry=retry)


def test_options_add_up() -> None:
    with Pool(1) as pool:
        named = pool.options(retry=Retry(backoff=AT_ONCE)).options(name="job")
        assert named.submit(Flaky(1)).result(PATIENCE) == 2


# -- under load --------------------------------------------------------------------------------


@pytest.mark.parametrize("keys", [0, 5])
def test_many_fail_and_are_cancelled_and_all_end(
    keys: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    stop = threading.Event()
    wrong: list[PoolMetrics] = []
    backoff = Backoff(initial=0.001, maximum=0.005)
    with Pool(3, 50) as pool:

        def look() -> None:
            while not stop.is_set():
                if not adds_up(numbers := pool.metrics()):
                    wrong.append(numbers)

        looking = run_in_thread(look)
        futures = []
        for number in range(600):
            again = pool.options(
                retry=Retry(attempts=3, backoff=backoff, on=Exception),
                key=number % keys if keys else None,
                retry_on_worker_death=1,
                delay=0.001 if number % 7 == 0 else None,
            )
            error = SystemExit if number % 50 == 0 else ConnectionError
            futures.append(again.submit(Flaky(number % 5, error)))
            if number % 11 == 0:
                futures[number // 2].cancel()
        pool.drain(PATIENCE)
        stop.set()
        looking.result(PATIENCE)
    assert wrong == []
    assert all(one.done() for one in futures)
    numbers = pool.metrics()
    assert (numbers.queued, numbers.running, numbers.delayed) == (0, 0, 0)
    assert numbers.submitted == 600
