"""Submitting: the three verbs, the bound, the order, and who may wait how long."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import math
import queue
import threading
from concurrent.futures import CancelledError, wait
from typing import Any

import pytest

from ion_actors import (
    Cancelled,
    Context,
    DeadlineExceeded,
    Pool,
    PoolClosed,
    QueueFull,
    background,
    current_context,
)
from ion_actors.testing import RecordingMetrics, VirtualClock
from tests.inside import ancestors_of, callbacks_on, core_of, places_in
from tests.workerpool.helpers import PATIENCE, Gate, busy, run_in_thread, until_waiting


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"size": 0}, ValueError, "size must be at least 1, not 0"),
        ({"size": -2}, ValueError, "size must be at least 1, not -2"),
        ({"size": "4"}, TypeError, "size must be a whole number, not '4'"),
        ({"size": True}, TypeError, "size must be a whole number, not True"),
        ({"size": 2.0}, TypeError, "size must be a whole number, not 2.0"),
        ({"queue_size": -1}, ValueError, "queue_size must be at least 0, not -1"),
        ({"queue_size": False}, TypeError, "queue_size must be a whole number, not False"),
        ({"drain_timeout": math.nan}, ValueError, "drain_timeout must be .* not nan"),
        ({"drain_timeout": -1}, ValueError, "drain_timeout must be .* not -1"),
        ({"drain_timeout": "1"}, TypeError, "drain_timeout must be .* not '1'"),
        ({"name": 7}, TypeError, "name must be a string or None, not 7"),
        ({"context": 7}, TypeError, "context must be a Context or None, not 7"),
        ({"logger": 7}, TypeError, "logger must be a logging.Logger, not 7"),
        ({"metrics": 7}, TypeError, "metrics must have inc, add, gauge and histogram; 7 does not"),
        ({"tracer": 7}, TypeError, "tracer must have start"),
        ({"panic_recovery": 7}, TypeError, "panic_recovery must be .* not 7"),
        ({"task_wrapper": 7}, TypeError, "task_wrapper must be callable or None, not 7"),
        ({"initializer": 7}, TypeError, "initializer must be callable or None, not 7"),
    ],
)
def test_a_senseless_argument_is_named_with_its_value(
    arguments: dict[str, object], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        Pool(**arguments)  # type: ignore[arg-type]


def test_a_task_that_cannot_be_called_is_refused_at_submit() -> None:
    with Pool(1) as pool, pytest.raises(TypeError, match="must be callable, not 42"):
        pool.submit(42)  # type: ignore[call-overload]


@pytest.mark.parametrize("timeout", [-1, math.nan, "3", True])
def test_a_senseless_task_timeout_is_refused(timeout: object) -> None:
    with Pool(1) as pool, pytest.raises((TypeError, ValueError), match="timeout"):
        pool.options(timeout=timeout)  # type: ignore[arg-type]


def test_no_keyword_is_reserved() -> None:
    def echo(**keywords: object) -> dict[str, object]:
        return keywords

    with Pool(1) as pool:
        keywords = {"self": 1, "fn": 2, "timeout": 3, "context": 4, "name": 5}
        assert pool.submit(echo, **keywords).result() == keywords


def test_the_bound_is_exact_and_try_submit_never_waits() -> None:
    with Pool(2, 3, name="narrow") as pool, busy(pool) as gate:
        for _ in range(3):
            pool.try_submit(gate)
        with pytest.raises(QueueFull, match="'narrow'") as refused:
            pool.try_submit(gate)
        assert refused.value.pool == "narrow"
        assert refused.value.queue_size == 3
        assert isinstance(refused.value, queue.Full)
        assert pool.metrics().queued == 3
        assert pool.metrics().rejected == 1


def test_a_rendezvous_needs_an_idle_worker() -> None:
    with Pool(1, 0) as pool:
        with busy(pool) as gate, pytest.raises(QueueFull):
            pool.try_submit(gate)
        assert pool.submit(pow, 2, 3).result(PATIENCE) == 8


def test_a_rendezvous_waits_for_its_worker() -> None:
    with Pool(1, 0) as pool:
        with busy(pool):
            blocked = run_in_thread(pool.submit, pow, 2, 5)
            until_waiting(pool, 1)
            assert pool.metrics().queued == 0
        assert blocked.result(PATIENCE).result(PATIENCE) == 32  # type: ignore[attr-defined]


def test_a_new_pool_of_idle_workers_accepts_as_many_as_it_has() -> None:
    gate = Gate()
    with Pool(3, 0) as pool:
        for _ in range(3):
            pool.try_submit(gate)
        with pytest.raises(QueueFull):
            pool.try_submit(gate)
        gate.open()


def test_blocked_submitters_are_served_in_the_order_they_came() -> None:
    order: list[int] = []
    with Pool(1, 1) as pool:
        with busy(pool):
            pool.submit(order.append, 0)
            blocked = []
            for number in (1, 2, 3):
                blocked.append(run_in_thread(pool.submit, order.append, number))
                until_waiting(pool, number)
        for future in blocked:
            future.result(PATIENCE)
    assert order == [0, 1, 2, 3]


def test_nobody_overtakes_a_blocked_submitter() -> None:
    with Pool(1, 1) as pool, busy(pool):
        queued = pool.submit(pow, 2, 1)
        blocked = run_in_thread(pool.submit, pow, 2, 2)
        until_waiting(pool, 1)
        queued.cancel()  # the room is the waiter's
        assert blocked.result(PATIENCE) is not None
        with pytest.raises(QueueFull):
            pool.try_submit(pow, 2, 3)


def test_tasks_of_one_submitter_begin_in_order() -> None:
    begun: list[int] = []
    with Pool(1, 500) as pool:
        for number in range(1000):
            pool.submit(begun.append, number)
    assert begun == list(range(1000))


@pytest.mark.parametrize("end", ["drain", "close"])
def test_the_end_of_the_pool_releases_a_blocked_submitter(end: str) -> None:
    with Pool(1, 0, name="ending") as pool, busy(pool) as gate:
        blocked = run_in_thread(pool.submit, pow, 2, 2)
        until_waiting(pool, 1)
        ending = run_in_thread(getattr(pool, end))
        with pytest.raises(PoolClosed, match="'ending'"):
            blocked.result(PATIENCE)
        gate.open()
        ending.result(PATIENCE)


def test_the_end_of_its_context_releases_a_blocked_submitter() -> None:
    clock = VirtualClock()
    with Pool(1, 0) as pool, busy(pool):
        context = Context(clock=clock, timeout=5)

        def submit() -> object:
            with context:
                return pool.submit(pow, 2, 2)

        blocked = run_in_thread(submit)
        until_waiting(pool, 1)
        clock.advance(5)
        with pytest.raises(DeadlineExceeded):
            blocked.result(PATIENCE)
        assert pool.metrics().rejected == 1


def test_submitting_under_a_context_that_has_ended_is_refused() -> None:
    with Pool(1) as pool:
        context = Context()
        context.cancel("too late")
        with pytest.raises(Cancelled, match="too late"):
            pool.options(context=context).submit(pow, 2, 2)
        assert pool.metrics().submitted == 0


def test_asubmit_waits_for_room_without_blocking_the_loop() -> None:
    async def main(pool: Pool, gate: Gate) -> int:
        waiting = asyncio.ensure_future(pool.asubmit(pow, 2, 6))
        await asyncio.to_thread(until_waiting, pool, 1)
        assert not waiting.done()
        gate.open()
        return await (await waiting)

    with Pool(1, 0) as pool, busy(pool) as gate:
        assert asyncio.run(main(pool, gate)) == 64


def test_cancelling_asubmit_while_it_waits_submits_nothing() -> None:
    async def main(pool: Pool) -> None:
        waiting = asyncio.ensure_future(pool.asubmit(pow, 2, 6))
        await asyncio.to_thread(until_waiting, pool, 1)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    with Pool(1, 0) as pool:
        with busy(pool):
            asyncio.run(main(pool))
        assert pool.metrics().submitted == 1  # the gate
        assert pool.metrics().rejected == 1


def test_a_cancelled_queued_task_frees_its_place_at_once_and_is_announced() -> None:
    with Pool(1, 1) as pool, busy(pool) as gate:
        queued = pool.submit(gate)
        assert queued.cancel()
        assert queued.cancel()  # and again
        assert queued.cancelled()
        assert not wait([queued], timeout=0).not_done
        assert pool.metrics().queued == 0
        pool.try_submit(pow, 2, 2)
        with pytest.raises(CancelledError, match="cancelled"):
            queued.result()


def test_cancelling_a_running_task_asks_it_to_stop() -> None:
    begun = threading.Event()

    def listens() -> None:
        begun.set()
        current_context().sleep(PATIENCE)

    with Pool(1) as pool:
        future = pool.submit(listens)
        assert begun.wait(PATIENCE)
        assert future.cancel() is False
        with pytest.raises(Cancelled, match="listens"):
            future.result(PATIENCE)
        assert pool.metrics().cancelled == 1
        assert future.cancel() is False


def test_cancelling_by_the_thousand_leaves_no_heap_of_dead_tasks() -> None:
    with Pool(1, 10) as pool, busy(pool):
        for _ in range(5000):
            assert pool.submit(pow, 2, 2).cancel()
        assert len(places_in(pool)) < 200
        assert pool.metrics().cancelled == 5000


def test_context_variables_are_those_of_each_submission() -> None:
    user: contextvars.ContextVar[str] = contextvars.ContextVar("user", default="nobody")
    with Pool(1) as pool:
        seen = []
        for name in ("ann", "bob"):
            user.set(name)
            seen.append(pool.submit(user.get).result(PATIENCE))
        assert seen == ["ann", "bob"]
        assert contextvars.Context().run(lambda: pool.submit(user.get)).result() == "nobody"


def test_what_a_task_sets_stays_with_it() -> None:
    user: contextvars.ContextVar[str] = contextvars.ContextVar("user", default="nobody")
    with Pool(1) as pool:
        pool.submit(user.set, "mallory").result(PATIENCE)
        assert pool.submit(user.get).result(PATIENCE) == "nobody"


def test_a_task_ends_with_the_context_of_its_submitter() -> None:
    with Pool(1) as pool:
        begun = threading.Event()

        def listens() -> None:
            begun.set()
            current_context().sleep(PATIENCE)

        context = Context()
        future = pool.options(context=context).submit(listens)
        assert begun.wait(PATIENCE)
        context.cancel("not wanted any more")
        with pytest.raises(Cancelled, match="not wanted"):
            future.result(PATIENCE)


def test_a_queued_task_ends_with_the_context_of_its_submitter() -> None:
    ran: list[int] = []
    with Pool(1) as pool, busy(pool):
        with Context() as context:
            future = pool.submit(ran.append, 1)
        context.cancel("not wanted any more")
        assert future.cancelled()
        assert pool.metrics().queued == 0
    assert not ran


def test_a_task_submitted_by_a_task_ends_with_it() -> None:
    inner_begun, inner_ended = threading.Event(), threading.Event()

    def inner() -> None:
        inner_begun.set()
        current_context().wait()
        inner_ended.set()

    def outer(pool: Pool) -> None:
        pool.submit(inner)
        current_context().wait()

    with Pool(2) as pool:
        future = pool.submit(outer, pool)
        assert inner_begun.wait(PATIENCE)
        future.cancel()
        assert inner_ended.wait(PATIENCE)


def test_the_context_of_a_task_follows_it_into_other_threads() -> None:
    begun = threading.Event()

    async def asks_elsewhere() -> None:
        def listens() -> None:
            begun.set()
            current_context().sleep(PATIENCE)

        await asyncio.to_thread(listens)

    with Pool(1) as pool:
        future = pool.submit(asks_elsewhere)
        assert begun.wait(PATIENCE)
        future.cancel()
        with pytest.raises(Cancelled):
            future.result(PATIENCE)


def test_a_context_can_be_taken_as_an_argument() -> None:
    with Pool(1) as pool:
        seen = pool.options(pass_context=True).submit(lambda context, x: (context, x), 3)
        context, x = seen.result(PATIENCE)
        assert isinstance(context, Context)
        assert x == 3
    assert context.cancelled  # it ended with the pool
    assert current_context() is background()


def test_a_time_limit_ends_a_queued_task_in_its_time() -> None:
    clock = VirtualClock()
    with Pool(1, context=Context(clock=clock)) as pool, busy(pool):
        future = pool.options(timeout=2, name="hasty").submit(pow, 2, 2)
        clock.advance(1.9)
        assert not future.done()
        clock.advance(0.1)
        with pytest.raises(DeadlineExceeded, match="hasty"):
            future.result(0)
        assert pool.metrics().queued == 0


def test_a_task_that_overruns_its_limit_fails_at_once_and_keeps_its_worker() -> None:
    clock = VirtualClock()
    gate = Gate()
    with Pool(1, 1, context=Context(clock=clock)) as pool:
        future = pool.options(timeout=2).submit(gate)
        gate.await_entered()
        clock.advance(2)
        with pytest.raises(DeadlineExceeded):
            future.result(PATIENCE)
        pool.try_submit(pow, 2, 2)
        with pytest.raises(QueueFull):  # the worker is not back yet
            pool.try_submit(pow, 2, 2)
        gate.open()
    numbers = pool.metrics()
    assert (numbers.cancelled, numbers.completed) == (1, 1)


def test_the_limit_of_a_blocked_submission_counts_from_when_it_is_accepted() -> None:
    clock = VirtualClock()
    with Pool(1, 1, context=Context(clock=clock)) as pool, busy(pool):
        first = pool.submit(pow, 2, 2)
        blocked = run_in_thread(functools.partial(pool.options(timeout=10).submit, pow, 2, 3))
        until_waiting(pool, 1)
        clock.advance(8)
        first.cancel()
        future = blocked.result(PATIENCE)
        clock.advance(8)
        assert not future.done()  # type: ignore[attr-defined]
        clock.advance(2)
        assert isinstance(future.exception(0), DeadlineExceeded)  # type: ignore[attr-defined]


def test_options_add_up() -> None:
    with Pool(1) as pool:
        submitter = pool.options(name="one").options(timeout=5)
        gate = Gate()
        task = submitter.submit(gate)
        gate.await_entered()
        assert [worker.task for worker in pool.dump().workers] == ["one"]
        gate.open()
        assert task.result(PATIENCE) == "through"
        remaining = submitter.submit(lambda: current_context().remaining()).result(PATIENCE)
        assert 0 < remaining <= 5


def test_a_task_that_ends_with_its_pool_only_is_registered_nowhere() -> None:
    with Pool(1, metrics=RecordingMetrics()) as pool, busy(pool):
        context = core_of(pool).spec.context
        before = len(callbacks_on(context))
        task = pool.options(name="plain but for its name").submit(abs, -1)
        assert len(callbacks_on(context)) == before
        with Context():
            other = pool.submit(abs, -2)
        assert len(callbacks_on(context)) == before + 1  # it can end before the pool does
    assert (task.result(), other.result()) == (1, 2)


def inside() -> Context:
    return current_context()


@pytest.mark.parametrize("options", [{"name": "n"}, {"priority": 3}, {"key": "k"}], ids=str)
def test_a_task_with_a_label_has_a_context_of_its_own_once_it_is_asked_for(
    options: dict[str, Any],
) -> None:
    gate = Gate()

    def waits() -> None:
        gate.entered.release()
        current_context().wait(timeout=PATIENCE)
        current_context().check()

    with Pool(2) as pool:
        one, other = pool.options(**options).submit(waits), pool.submit(gate)
        gate.await_entered(2)
        assert not one.cancel()  # it runs: its context ends
        with pytest.raises(Cancelled):
            one.result(PATIENCE)
        gate.open()
        assert other.result(PATIENCE) == "through"
        with background():
            assert pool.options(**options).submit(inside).result(PATIENCE) is not background()
        with Context() as mine:
            inner = pool.options(**options).submit(inside).result(PATIENCE)
            mine.cancel()
            assert inner.cancelled


def test_coroutine_functions_run_to_completion_on_the_workers_own_loop() -> None:
    async def which_loop() -> asyncio.AbstractEventLoop:
        await asyncio.sleep(0)
        return asyncio.get_running_loop()

    with Pool(1) as pool:
        loops = {pool.submit(which_loop).result(PATIENCE) for _ in range(3)}
        assert len(loops) == 1
    assert loops.pop().is_closed()


def test_a_coroutine_is_really_cancelled_and_cleans_up() -> None:
    begun, cleaned = threading.Event(), threading.Event()

    async def works() -> None:
        try:
            begun.set()
            await asyncio.sleep(PATIENCE)
        finally:
            cleaned.set()

    with Pool(1) as pool:
        future = pool.submit(works)
        assert begun.wait(PATIENCE)
        future.cancel()
        with pytest.raises(Cancelled):
            future.result(PATIENCE)
        assert cleaned.is_set()
        assert pool.submit(pow, 2, 2).result(PATIENCE) == 4


def test_what_a_coroutine_leaves_behind_is_cancelled() -> None:
    left: list[asyncio.Task[None]] = []

    async def leaves_something() -> None:
        left.append(asyncio.ensure_future(asyncio.sleep(PATIENCE)))
        await asyncio.sleep(0)

    with Pool(1) as pool:
        pool.submit(leaves_something).result(PATIENCE)
        pool.submit(pow, 2, 2).result(PATIENCE)
        assert left[0].cancelled()


def test_a_coroutine_that_cancels_itself_does_not_take_its_worker_down() -> None:
    async def gives_up() -> None:
        raise asyncio.CancelledError

    with Pool(1) as pool:
        with pytest.raises(Cancelled):
            pool.submit(gives_up).result(PATIENCE)
        assert pool.metrics().restarts == 0


def test_a_chain_of_tasks_that_submit_their_successor_does_not_grow() -> None:
    done = threading.Event()
    depths: list[int] = []

    def step(pool: Pool, left: int) -> None:
        depths.append(ancestors_of(current_context()))
        pool.submit(step, pool, left - 1) if left else done.set()

    with Pool(1) as pool:
        pool.submit(step, pool, 2000)
        assert done.wait(PATIENCE)
    assert max(depths) < 10


def test_options_that_were_made_before_are_checked_by_type_nevertheless() -> None:
    with Pool(1) as pool:
        assert pool.options(priority=1, timeout=90).submit(int).result(PATIENCE) == 0
        for wrong in ({"priority": True}, {"timeout": True}, {"priority": 1.0}, {"ttl": "1"}):
            for _ in range(2):
                with pytest.raises(TypeError):
                    pool.options(**wrong)
        for _ in range(2):
            with pytest.raises(ValueError, match="timeout"):
                pool.options(timeout=-1.0)


def test_options_made_for_each_task_do_not_mix() -> None:
    with Pool(1) as pool:
        first, second = pool.options(name="first"), pool.options(name="second", timeout=60.0)
        assert "'first'" in repr(first.submit(int))
        assert "'second'" in repr(second.submit(int))
        assert "'third'" in repr(second.options(name="third").submit(int))
        assert "'second'" in repr(pool.options(name="second").submit(int))
        with pytest.raises(DeadlineExceeded):
            pool.options(name="second", timeout=0.0).submit(int).result(PATIENCE)
