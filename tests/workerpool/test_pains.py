"""What hurts the users of other pools, by the numbers of the list that this library was made for.

Pains 1 to 13 and 15. What takes a process of its own (3, the end of the interpreter) is in
``tests/process``.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import contextvars
import gc
import itertools
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from ion_actors import (
    Backoff,
    BrokenPool,
    Cancelled,
    Close,
    Context,
    DeadlineExceeded,
    DeadlockError,
    DrainTimeout,
    Future,
    PanicRecovery,
    Pool,
    PoolClosed,
    QueueFull,
    TaskAbandoned,
    TaskPanicked,
    current_context,
)
from ion_actors.testing import RecordingMetrics, VirtualClock
from tests.workerpool.helpers import until_waiting

PATIENCE = 30.0
Occupy = Callable[[Pool], list[Future[Any]]]
Until = Callable[[Callable[[], object]], None]


def can_all_work_at_once(pool: Pool) -> bool:
    """Whether each of the pool's workers takes a task: none was lost."""
    together = threading.Barrier(pool.size)
    futures = [pool.submit(together.wait, PATIENCE) for _ in range(pool.size)]
    return sorted(one.result(PATIENCE) for one in futures) == list(range(pool.size))


# -- 1: an unbounded queue ---


def test_pain_1_the_queue_is_bounded_by_default() -> None:
    with Pool(1) as pool:
        assert pool.queue_size == 10_000


def test_pain_1_the_bound_is_exact_under_many_submitters(
    occupy: Occupy, gate: threading.Event, threads: ThreadPoolExecutor
) -> None:
    with Pool(2, 50) as pool:
        occupy(pool)
        begin = threading.Barrier(8)

        def offer() -> int:
            begin.wait(PATIENCE)
            accepted = 0
            for _ in range(50):
                try:
                    pool.try_submit(str)
                except QueueFull:
                    continue
                accepted += 1
            return accepted

        assert sum(one.result() for one in [threads.submit(offer) for _ in range(8)]) == 50
        numbers = pool.metrics()
        assert (numbers.queued, numbers.rejected) == (50, 8 * 50 - 50)
        gate.set()


def test_pain_1_a_cancelled_task_frees_its_place_at_once(occupy: Occupy) -> None:
    pool = Pool(1, 1)
    occupy(pool)
    waiting = pool.submit(str)
    with pytest.raises(QueueFull):
        pool.try_submit(str)
    assert waiting.cancel()
    pool.try_submit(str)
    pool.close(timeout=0)


def test_pain_1_submit_waits_for_room(
    occupy: Occupy, gate: threading.Event, threads: ThreadPoolExecutor, until: Until
) -> None:
    with Pool(1, 1) as pool:
        occupy(pool)
        pool.submit(str)
        blocked = threads.submit(pool.submit, str, 7)
        until_waiting(pool, 1)
        assert not blocked.done()
        gate.set()
        assert blocked.result(PATIENCE).result(PATIENCE) == "7"


# -- 2: no deadline for the shutdown ---


@pytest.mark.parametrize("verb", ["drain", "close"])
def test_pain_2_the_deadline_always_holds(
    verb: str, clock: VirtualClock, occupy: Occupy, threads: ThreadPoolExecutor
) -> None:
    pool = Pool(2, context=Context(clock=clock))
    stuck = occupy(pool)
    queued = [pool.submit(str) for _ in range(10)]
    ending = threads.submit(getattr(pool, verb), 5)
    clock.wait_for_timers(1)
    clock.advance(5)
    if verb == "drain":
        error = ending.exception(PATIENCE)
        assert isinstance(error, DrainTimeout)
        report = error.report
    else:
        report = ending.result(PATIENCE)
    assert len(report.running) == 2
    assert len(report.cancelled) == 10
    assert all(isinstance(one.exception(0), TaskAbandoned) for one in stuck)
    assert all(one.cancelled() for one in queued)


def test_pain_2_the_default_deadline_is_the_pools(
    clock: VirtualClock, occupy: Occupy, threads: ThreadPoolExecutor
) -> None:
    pool = Pool(1, drain_timeout=3, context=Context(clock=clock))
    occupy(pool)
    closing = threads.submit(pool.shutdown)
    clock.wait_for_timers(1)
    clock.advance(3)
    assert isinstance(closing.exception(PATIENCE), DrainTimeout)


def test_pain_2_a_deadline_can_be_brought_forward_and_not_put_off(
    clock: VirtualClock, occupy: Occupy, threads: ThreadPoolExecutor, until: Until
) -> None:
    pool = Pool(1, context=Context(clock=clock))
    occupy(pool)
    endings = [threads.submit(pool.drain, 3600)]
    clock.wait_for_timers(1)
    endings.append(threads.submit(pool.drain, 2))
    endings.append(threads.submit(pool.drain, 7200))
    supervisor = pool.actor_ref._actor_weakref()
    assert supervisor is not None
    until(lambda: len(supervisor._requests) == 3)
    clock.advance(2)
    assert {type(one.exception(PATIENCE)) for one in endings} == {DrainTimeout}


# -- 4: context variables ---

USER = contextvars.ContextVar("user", default="nobody")


def as_user(name: str, call: Callable[[], Any]) -> Any:
    def run() -> Any:
        USER.set(name)
        return call()

    return contextvars.copy_context().run(run)


def test_pain_4_each_task_has_its_own_submitters_variables() -> None:
    with Pool(1) as pool:
        futures = [as_user(f"user {n}", lambda: pool.submit(USER.get)) for n in range(100)]
        assert [one.result() for one in futures] == [f"user {n}" for n in range(100)]


def test_pain_4_no_variable_leaks_into_the_next_task() -> None:
    with Pool(1) as pool:
        assert pool.submit(USER.set, "mallory").exception() is None
        assert pool.submit(USER.get).result() == "nobody"


def test_pain_4_workers_do_not_inherit_from_whoever_made_the_pool_or_woke_them() -> None:
    seen: list[str] = []
    pool = as_user("the first one", lambda: Pool(1, initializer=lambda: seen.append(USER.get())))
    with pool:
        assert pool.submit(USER.get).result() == "nobody"
        as_user("killer", lambda: pool.submit(exit)).exception()
        assert pool.submit(USER.get).result() == "nobody"
    assert seen == ["nobody", "nobody"]


def test_pain_4_a_tasks_variables_are_those_of_the_moment_of_submission(
    occupy: Occupy, gate: threading.Event
) -> None:
    def submit_and_change() -> Future[str]:
        future = pool.submit(USER.get)
        USER.set("changed later")
        return future

    with Pool(1) as pool:
        occupy(pool)
        future = as_user("at submission", submit_and_change)
        gate.set()
        assert future.result() == "at submission"


# -- 5: exceptions that nobody reads ---


def test_pain_5_an_exception_that_nobody_read_is_logged_by_the_tasks_name(
    caplog: pytest.LogCaptureFixture, without_gc: None, until: Until
) -> None:
    def logged() -> bool:
        # Without the GIL, what a thread made goes when that thread runs again.
        pool.submit(str).result(PATIENCE)
        return bool(caplog.records)

    with Pool(1) as pool:
        future = pool.options(name="nightly report").submit(int, "x")
        concurrent.futures.wait([future])
        assert not logged()
        del future
        until(logged)
    (record,) = caplog.records
    assert record.message == "the exception of task 'nightly report' was never read"
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ValueError)


@pytest.mark.parametrize("read", ["result", "exception", "get"])
def test_pain_5_an_exception_that_was_read_is_not_logged(
    read: str, caplog: pytest.LogCaptureFixture
) -> None:
    with Pool(1) as pool:
        future = pool.options(name="read").submit(int, "x")
        with contextlib.suppress(ValueError):
            getattr(future, read)()
        del future
        gc.collect()
    # Other tests' futures may be collected only now.
    assert "'read'" not in caplog.text


# -- 6: one bad worker ---


def test_pain_6_a_lost_worker_is_replaced() -> None:
    with Pool(3) as pool:
        for _ in range(10):
            pool.submit(exit).exception()
        assert can_all_work_at_once(pool)
    assert pool.metrics().restarts == 10


def test_pain_6_a_replacement_is_initialised_afresh() -> None:
    state = threading.local()
    numbers = itertools.count()

    def connect() -> None:
        state.connection = next(numbers)

    with Pool(1, initializer=connect) as pool:
        assert pool.submit(lambda: state.connection).result() == 0
        pool.submit(exit).exception()
        assert pool.submit(lambda: state.connection).result() == 1


def test_pain_6_a_worker_that_fails_to_start_a_few_times_is_tried_again() -> None:
    attempts = itertools.count()

    def flaky() -> None:
        if next(attempts) < 3:
            raise ConnectionError

    policy = PanicRecovery(backoff=Backoff(initial=0.001, retries=5))
    with Pool(1, initializer=flaky, panic_recovery=policy) as pool:
        assert pool.submit(str, 1).result(PATIENCE) == "1"


# -- 7: endless tight restarts ---


def test_pain_7_restarts_wait_longer_each_time_and_end(clock: VirtualClock, until: Until) -> None:
    tried: list[float] = []

    def broken() -> None:
        tried.append(clock.monotonic())
        raise ConnectionError("down")

    policy = PanicRecovery(backoff=Backoff(initial=1, factor=2, maximum=100, jitter=0, retries=4))
    pool = Pool(1, initializer=broken, panic_recovery=policy, context=Context(clock=clock))
    waiting = pool.submit(str)
    for _ in range(4):
        clock.wait_for_timers(1)
        clock.advance_to_next()
    with pytest.raises(BrokenPool) as caught:
        waiting.result(PATIENCE)
    assert tried == [0, 1, 3, 7, 15]
    assert isinstance(caught.value.__cause__, ConnectionError)
    until(lambda: pool.is_closed)


def test_pain_7_too_many_restarts_in_too_short_a_time_break_the_pool(
    occupy: Occupy, gate: threading.Event, until: Until
) -> None:
    pool = Pool(1, panic_recovery=PanicRecovery(max_restarts=3, within=60))
    occupy(pool)
    deadly = [pool.submit(exit) for _ in range(4)]
    waiting = [pool.submit(str) for _ in range(5)]
    gate.set()
    assert all(isinstance(one.exception(PATIENCE), TaskPanicked) for one in deadly)
    assert all(isinstance(one.exception(PATIENCE), BrokenPool) for one in waiting)
    until(lambda: pool.is_closed)
    with pytest.raises(BrokenPool, match="more than 3 restarts in 60"):
        pool.submit(str)


def test_pain_7_restarts_far_apart_do_not_add_up(clock: VirtualClock) -> None:
    policy = PanicRecovery(max_restarts=1, within=60)
    with Pool(1, panic_recovery=policy, context=Context(clock=clock)) as pool:
        for _ in range(5):
            assert isinstance(pool.submit(exit).exception(PATIENCE), TaskPanicked)
            clock.advance(61)
        assert pool.submit(str, 1).result(PATIENCE) == "1"


# -- 8: a poison task ---


def test_pain_8_a_deadly_task_kills_one_worker_and_is_not_tried_again() -> None:
    runs: list[None] = []

    def poison() -> None:
        runs.append(None)
        raise SystemExit

    with Pool(2) as pool:
        assert isinstance(pool.submit(poison).exception(), TaskPanicked)
        assert can_all_work_at_once(pool)
    assert len(runs) == pool.metrics().restarts == 1


# -- 9: a worker whose task timed out ---


def test_pain_9_the_slot_of_an_overrun_task_stays_taken(
    clock: VirtualClock, gate: threading.Event
) -> None:
    started = threading.Event()

    def deaf() -> None:
        started.set()
        gate.wait(PATIENCE)

    with Pool(1, 0, context=Context(clock=clock)) as pool:
        overrun = pool.options(timeout=1).submit(deaf)
        assert started.wait(PATIENCE)
        clock.advance(1)
        with pytest.raises(DeadlineExceeded):
            overrun.result(PATIENCE)
        with pytest.raises(QueueFull):  # only an idle worker could take it
            pool.try_submit(str)
        gate.set()
        assert pool.submit(str, 1).result(PATIENCE) == "1"


def test_pain_9_the_late_result_of_an_overrun_task_is_fenced(
    clock: VirtualClock, gate: threading.Event
) -> None:
    started = threading.Event()

    def deaf() -> str:
        started.set()
        gate.wait(PATIENCE)
        return "too late"

    with Pool(1, context=Context(clock=clock)) as pool:
        overrun = pool.options(timeout=1).submit(deaf)
        assert started.wait(PATIENCE)
        clock.advance(1)
        gate.set()
    assert isinstance(overrun.exception(PATIENCE), DeadlineExceeded)
    numbers = pool.metrics()
    assert (numbers.completed, numbers.cancelled, numbers.running) == (0, 1, 0)


# -- 10: races that lose workers ---


@pytest.mark.parametrize("queue_size", [0, 1, 16])
def test_pain_10_no_hand_off_loses_a_worker_or_a_task(
    queue_size: int, threads: ThreadPoolExecutor
) -> None:
    endings: Counter[str] = Counter()
    lock = threading.Lock()

    def note(future: Future[Any]) -> None:
        with lock:
            endings["cancelled" if future.cancelled() else type(future.exception()).__name__] += 1

    def hammer(seed: int) -> None:
        for number in range(300):
            future = pool.submit(exit if (seed + number) % 50 == 0 else str)
            future.add_done_callback(note)
            if number % 3 == 0:
                future.cancel()

    with Pool(4, queue_size) as pool:
        for one in [threads.submit(hammer, seed) for seed in range(8)]:
            one.result(PATIENCE)
        assert can_all_work_at_once(pool)
    numbers = pool.metrics()
    assert sum(endings.values()) == 8 * 300
    assert numbers.submitted == 8 * 300 + pool.size
    assert numbers.restarts == endings["TaskPanicked"] == numbers.panicked


# -- 11: races of cancel and start ---


def test_pain_11_a_task_either_runs_or_is_cancelled_and_ends_once(
    threads: ThreadPoolExecutor,
) -> None:
    with Pool(2, 1000) as pool:
        for _ in range(300):
            ran = threading.Event()
            begin = threading.Barrier(3)
            ended: list[object] = []
            futures: list[Future[Any]] = []

            def submit(
                ran: Any = ran, begin: Any = begin, ended: Any = ended, futures: Any = futures
            ) -> None:
                future = pool.submit(ran.set)
                future.add_done_callback(ended.append)
                futures.append(future)
                begin.wait(PATIENCE)

            def cancel(begin: Any = begin, futures: Any = futures) -> bool:
                begin.wait(PATIENCE)
                return bool(futures[0].cancel())

            submit_done = threads.submit(submit)
            cancels = [threads.submit(cancel) for _ in range(2)]
            submit_done.result(PATIENCE)
            claims = {one.result(PATIENCE) for one in cancels}
            assert not concurrent.futures.wait(futures, PATIENCE).not_done
            assert len(ended) == 1
            if claims & {True}:
                assert futures[0].cancelled()
            if futures[0].cancelled():
                assert not ran.is_set()


def test_pain_11_cancelling_many_queued_tasks_while_they_are_taken() -> None:
    for _ in range(20):
        ran: list[int] = []
        with Pool(3, 1000) as pool:
            futures = [pool.submit(ran.append, number) for number in range(500)]
            claimed = {number for number in reversed(range(500)) if futures[number].cancel()}
        assert all(one.done() for one in futures)
        assert not claimed & set(ran)
        stopped = {n for n in range(500) if n not in claimed and n not in set(ran)}
        # Handed out already, and asked to stop before they began.
        assert all(isinstance(futures[n].exception(), Cancelled) for n in stopped)
        assert len(ran) == len(set(ran))


def test_pain_11_the_end_of_an_abandoned_worker_is_fenced(gate: threading.Event) -> None:
    started = threading.Event()

    def deaf() -> str:
        started.set()
        gate.wait(PATIENCE)
        raise SystemExit

    pool = Pool(1)
    stuck = pool.submit(deaf)
    assert started.wait(PATIENCE)
    pool.close(timeout=0)
    before = pool.metrics()
    gate.set()
    for one in threading.enumerate():
        if one.name.startswith(f"{pool.name}-"):
            one.join(PATIENCE)
    assert isinstance(stuck.exception(), TaskAbandoned)
    assert pool.metrics() == before
    assert (before.cancelled, before.panicked, before.restarts) == (1, 0, 0)


# -- 12: drain says done too early, or never ---


def test_pain_12_drain_returns_only_when_all_that_was_accepted_has_ended(
    threads: ThreadPoolExecutor,
) -> None:
    for _ in range(20):
        ran: list[None] = []
        begin = threading.Barrier(5)
        pool = Pool(2, 64)

        def flood(
            pool: Pool = pool, begin: threading.Barrier = begin, ran: list[None] = ran
        ) -> list[Future[None]]:
            accepted = []
            begin.wait(PATIENCE)
            try:
                while True:
                    accepted.append(pool.submit(ran.append, None))
            except PoolClosed:
                return accepted

        flooding = [threads.submit(flood) for _ in range(4)]
        begin.wait(PATIENCE)
        pool.drain()
        done_at_return = len(ran)
        accepted = [one for part in flooding for one in part.result(PATIENCE)]
        assert all(one.done() for one in accepted)
        assert len(accepted) == done_at_return == len(ran) == pool.metrics().completed


def test_pain_12_drain_releases_blocked_submitters(
    occupy: Occupy, gate: threading.Event, threads: ThreadPoolExecutor, until: Until
) -> None:
    pool = Pool(1, 1)
    occupy(pool)
    queued = pool.submit(str, 1)
    blocked = [threads.submit(pool.submit, str) for _ in range(3)]
    until_waiting(pool, 3)
    draining = threads.submit(pool.drain)
    for one in blocked:
        assert isinstance(one.exception(PATIENCE), PoolClosed)
    gate.set()
    assert draining.result(PATIENCE).completed == 2
    assert queued.result() == "1"


@pytest.mark.parametrize("verb", ["drain", "close", "shutdown"])
def test_pain_12_the_end_can_be_asked_for_by_a_task(verb: str) -> None:
    pool = Pool(1)
    asked = pool.submit(getattr(pool, verb))
    concurrent.futures.wait([asked], PATIENCE)
    assert asked.done()
    pool.drain()
    assert pool.is_closed


# -- 13: nested submission ---


def test_pain_13_a_task_may_submit_and_not_wait() -> None:
    with Pool(1) as pool:
        inner = pool.submit(lambda: pool.submit(str, 1)).result(PATIENCE)
        assert inner.result(PATIENCE) == "1"


def test_pain_13_a_task_may_wait_for_its_sibling() -> None:
    with Pool(1, 0) as pool:
        assert pool.submit(lambda: pool.submit(str, 1).result()).result(PATIENCE) == "1"


def test_pain_13_the_first_program_of_cpythons_warning_ends() -> None:
    # In https://docs.python.org/3/library/concurrent.futures.html, two tasks wait for each other.
    both = threading.Barrier(3)

    def wait_for(name: str) -> object:
        both.wait(PATIENCE)
        return futures[name].result()

    with Pool(2) as pool:
        futures = {"a": pool.submit(wait_for, "b"), "b": pool.submit(wait_for, "a")}
        both.wait(PATIENCE)
        assert isinstance(futures["a"].exception(PATIENCE), DeadlockError)


def test_pain_13_without_helping_the_deadlock_is_an_error() -> None:
    with Pool(1, helping=False) as pool:
        outer = pool.submit(lambda: pool.submit(str).result())
        assert isinstance(outer.exception(PATIENCE), DeadlockError)


@pytest.mark.parametrize("verb", ["drain", "close"])
def test_pain_13_a_task_that_waits_for_its_sibling_in_vain_has_an_end(
    verb: str, clock: VirtualClock, threads: ThreadPoolExecutor
) -> None:
    inner: list[Future[str]] = []
    submitted = threading.Event()

    def outer() -> str:
        inner.append(pool.submit(str))
        submitted.set()
        current_context().wait(inner[0])
        return inner[0].result(0)

    pool = Pool(1, context=Context(clock=clock), helping=False)
    waiting = pool.submit(outer)
    assert submitted.wait(PATIENCE)
    ending = threads.submit(getattr(pool, verb), 1)
    if verb == "drain":
        clock.wait_for_timers(1)
        clock.advance(0.95)  # the queue is dropped before the deadline, so the outer task ends
    concurrent.futures.wait([ending], PATIENCE)
    assert inner[0].cancelled()
    assert isinstance(waiting.exception(PATIENCE), Cancelled)


def test_pain_13_a_wait_for_a_sibling_can_be_cancelled() -> None:
    submitted = threading.Event()

    def outer() -> str:
        inner = pool.submit(str)
        submitted.set()
        current_context().wait(inner)
        return inner.result(0)

    with Pool(1, helping=False) as pool:
        waiting = pool.submit(outer)
        assert submitted.wait(PATIENCE)
        waiting.cancel()
        assert isinstance(waiting.exception(PATIENCE), Cancelled)


def test_pain_13_a_task_that_is_blocked_by_its_own_full_pool_is_released_by_close(
    until: Until, gate: threading.Event
) -> None:
    pool = Pool(2, 0, helping=False)
    pool.submit(gate.wait, PATIENCE)
    blocked = pool.submit(lambda: pool.submit(str))
    until_waiting(pool, 1)
    closing = pool.actor_ref.ask(Close(), block=False)
    assert isinstance(blocked.exception(PATIENCE), PoolClosed | Cancelled)
    gate.set()
    closing.get(timeout=PATIENCE)


# -- 15: the pool's own machinery ---


def test_pain_15_a_replacement_takes_up_the_backlog(occupy: Occupy, gate: threading.Event) -> None:
    with Pool(1) as pool:
        occupy(pool)
        deadly = pool.submit(exit)
        backlog = [pool.submit(str, number) for number in range(100)]
        gate.set()
        assert [one.result(PATIENCE) for one in backlog] == [str(n) for n in range(100)]
        assert isinstance(deadly.exception(), TaskPanicked)


def test_pain_15_the_end_of_all_workers_at_once_blocks_nobody(threads: ThreadPoolExecutor) -> None:
    with Pool(4, 0) as pool:
        together = threading.Barrier(4)

        def die() -> None:
            together.wait(PATIENCE)
            raise SystemExit

        deadly = [pool.submit(die) for _ in range(4)]
        after = [threads.submit(pool.submit, str, 1) for _ in range(8)]
        assert [one.result(PATIENCE).result(PATIENCE) for one in after] == ["1"] * 8
        assert all(isinstance(one.exception(PATIENCE), TaskPanicked) for one in deadly)


def test_pain_15_a_supervisor_that_fails_again_and_again_breaks_the_pool_and_hangs_nobody(
    occupy: Occupy, monkeypatch: pytest.MonkeyPatch, gate: threading.Event
) -> None:
    pool = Pool(1)
    occupy(pool)
    deadly, waiting = pool.submit(exit), pool.submit(str)

    def bug(self: object) -> bool:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("ion_actors.workerpool.supervisor.roster.Roster.wanted", bug)
    gate.set()
    # Abandoned, if the pool's end was quicker than its worker, which was at what a panic entails.
    assert isinstance(deadly.exception(PATIENCE), TaskPanicked | TaskAbandoned)
    assert isinstance(waiting.exception(PATIENCE), BrokenPool)
    with pytest.raises(BrokenPool):
        pool.submit(str)
    with contextlib.suppress(BrokenPool):  # if its own end has failed, too
        pool.close(timeout=5)
    assert pool.is_closed


# -- and also ---


def test_the_time_in_the_queue_is_measured_and_not_only_its_depth(
    clock: VirtualClock, occupy: Occupy, gate: threading.Event
) -> None:
    told = RecordingMetrics()
    with Pool(1, metrics=told, context=Context(clock=clock)) as pool:
        occupy(pool)
        waiting = pool.submit(str)
        clock.advance(4)
        gate.set()
        waiting.result(PATIENCE)
    assert told.observed("ion_workerpool_task_queue_seconds") == [0, 4]
    assert told.observed("ion_workerpool_task_run_seconds") == [4, 0]
