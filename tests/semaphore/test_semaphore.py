"""The semaphore as its users have it: arguments, time, contexts, blocks, wrappers, hooks."""

from __future__ import annotations

import asyncio
import inspect
import logging
import math
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from ion_actors import (
    AcquireTimeout,
    Cancelled,
    Context,
    DeadlineExceeded,
    OverReleased,
    Pool,
    WeightExceedsCapacity,
    background,
    current_context,
)
from ion_actors.semaphore import Fairness, SemaphoreMetrics, WeightedSemaphore
from ion_actors.testing import RecordingMetrics, RecordingTracer, VirtualClock
from tests.semaphore.helpers import PATIENCE, in_thread, until_waiting

Acquire = Callable[..., Any]


def by_thread(semaphore: WeightedSemaphore, *args: Any, **how: Any) -> bool:
    return semaphore.acquire(*args, **how)


def by_coroutine(semaphore: WeightedSemaphore, *args: Any, **how: Any) -> bool:
    return asyncio.run(semaphore.aacquire(*args, **how))


both = pytest.mark.parametrize("acquire", [by_thread, by_coroutine])


# -- permits -----------------------------------------------------------------------------------


@both
def test_permits_are_taken_and_given_back(acquire: Acquire) -> None:
    one = WeightedSemaphore(5)
    assert acquire(one) is True
    assert acquire(one, 3) is True
    assert one.available == 1
    one.release(4)
    assert one.available == one.capacity == 5


def test_anybody_may_release_what_another_has_acquired() -> None:
    one = WeightedSemaphore(1)
    one.acquire()
    in_thread(one.release).result(PATIENCE)
    assert asyncio.run(one.aacquire()) is True


def test_a_try_never_waits() -> None:
    one = WeightedSemaphore(3)
    assert one.try_acquire(2) is True
    assert one.try_acquire(2) is False
    assert one.try_acquire() is True
    assert one.available == 0


@pytest.mark.parametrize("held", [0, 2])
def test_releasing_more_than_is_held_changes_nothing(held: int) -> None:
    one = WeightedSemaphore(4, name="disk")
    if held:
        one.acquire(held)
    with pytest.raises(OverReleased, match=f"'disk': 3 .* {held} are held") as caught:
        one.release(3)
    assert (caught.value.semaphore, caught.value.permits, caught.value.held) == ("disk", 3, held)
    assert one.available == 4 - held


@pytest.mark.parametrize(
    "ask", ["acquire", "aacquire", "try_acquire", "hold", "wrap_with"], ids=lambda ask: ask
)
def test_asking_for_more_than_there_are_fails_at_once(ask: str) -> None:
    one = WeightedSemaphore(4, name="disk")
    with pytest.raises(WeightExceedsCapacity, match=r"'disk' has 4 permits; 5 can") as caught:
        outcome = getattr(one, ask)(5)
        if inspect.iscoroutine(outcome):
            asyncio.run(outcome)
    assert (caught.value.permits, caught.value.capacity) == (5, 4)
    assert (one.available, one.waiting) == (4, 0)


@pytest.mark.parametrize("ask", ["acquire", "try_acquire", "release", "hold", "wrap_with"])
@pytest.mark.parametrize("n", [0, -1, True, 1.0, "1", None])
def test_what_is_no_number_of_permits_is_refused(ask: str, n: Any) -> None:
    one = WeightedSemaphore(4)
    one.acquire(2)
    kind = ValueError if type(n) is int else TypeError
    with pytest.raises(kind, match="n must be") as caught:
        getattr(one, ask)(n)
    assert repr(n) in str(caught.value)
    assert one.available == 2


@pytest.mark.parametrize(
    ("how", "kind"),
    [
        ({"timeout": -1}, ValueError),
        ({"timeout": math.nan}, ValueError),
        ({"timeout": "1"}, TypeError),
        ({"context": 1}, TypeError),
    ],
)
@pytest.mark.parametrize("free", [True, False])
def test_how_to_wait_is_checked_even_if_there_is_no_need_to(
    how: dict[str, Any], kind: type[Exception], free: bool
) -> None:
    one = WeightedSemaphore(1)
    if not free:
        one.acquire()
    with pytest.raises(kind, match=f"{next(iter(how))} must be"):
        one.acquire(**how)
    with pytest.raises(kind, match=f"{next(iter(how))} must be"):
        one.hold(**how)
    assert one.available == free


@pytest.mark.parametrize(
    ("how", "kind"),
    [
        ({"capacity": 0}, ValueError),
        ({"capacity": 1.5}, TypeError),
        ({"name": 1}, TypeError),
        ({"fairness": "fifo"}, TypeError),
        ({"acquire_timeout": -1}, ValueError),
        ({"logger": 1}, TypeError),
        ({"metrics": 1}, TypeError),
        ({"tracer": 1}, TypeError),
    ],
)
def test_what_makes_no_sense_is_refused(how: dict[str, Any], kind: type[Exception]) -> None:
    with pytest.raises(kind, match=f"{next(iter(how))} must"):
        WeightedSemaphore(**({"capacity": 1} | how))


def test_a_number_of_permits_may_be_of_a_kind_of_int() -> None:
    class Megabytes(int):
        def never(self, *_: object) -> Any:
            pytest.fail("its own arithmetic would be done under the lock")

        __add__ = __radd__ = __sub__ = __rsub__ = never

    one = WeightedSemaphore(Megabytes(4))
    one.acquire(Megabytes(3))
    assert one.try_acquire(Megabytes(2)) is False
    one.release(Megabytes(2))
    with one.hold(Megabytes(2)):
        assert one.available == 1
    one.release(Megabytes(1))
    assert one.available == 4


def test_one_that_nobody_uses_any_more_is_gone_at_once(without_gc: None) -> None:
    one = WeightedSemaphore(2, metrics=RecordingMetrics(), tracer=RecordingTracer())
    one.wrap(print)()
    with one.hold(2):
        assert one.try_acquire() is False
    gone = weakref.ref(one)
    del one
    assert gone() is None


# -- time --------------------------------------------------------------------------------------


@both
def test_a_wait_that_is_too_long_says_what_it_waited_for(
    acquire: Acquire, clock: VirtualClock
) -> None:
    one = WeightedSemaphore(4, name="disk")
    one.acquire(3)
    waiting = in_thread(acquire, one, 2, timeout=5.0, context=Context(clock=clock))
    clock.wait_for_timers(1)
    clock.advance(4.9)
    assert one.waiting == 1
    clock.advance(0.1)
    error = waiting.exception(PATIENCE)
    assert isinstance(error, AcquireTimeout)
    assert (error.semaphore, error.permits, error.timeout) == ("disk", 2, 5.0)
    text = "'disk': 2 of 4 permits could not be acquired within 5 s; free: 1, in line: 1"
    assert text in str(error)
    assert (one.available, one.waiting) == (1, 0)


@both
def test_no_time_at_all_is_a_try(acquire: Acquire) -> None:
    one = WeightedSemaphore(2)
    assert acquire(one, 2, timeout=0)
    with pytest.raises(AcquireTimeout):
        acquire(one, timeout=0)
    assert one.metrics().given_up == 0


@both
def test_the_semaphores_own_timeout_is_the_default(acquire: Acquire, clock: VirtualClock) -> None:
    one = WeightedSemaphore(1, acquire_timeout=5.0)
    one.acquire()
    with Context(clock=clock) as context:
        waits = [in_thread(acquire, one, context=context)]
        clock.wait_for_timers(1)
        waits.append(in_thread(acquire, one, timeout=7.0, context=context))
        clock.wait_for_timers(2)
        waits.append(in_thread(acquire, one, timeout=math.inf, context=context))
        until_waiting(one, 3)
        clock.advance(5.0)
        assert isinstance(waits[0].exception(PATIENCE), AcquireTimeout)
        clock.advance(2.0)
        assert isinstance(waits[1].exception(PATIENCE), AcquireTimeout)
        clock.advance(1e9)
        one.release()
        assert waits[2].result(PATIENCE) is True


def test_an_own_timeout_of_zero_makes_every_acquire_a_try() -> None:
    one = WeightedSemaphore(1, acquire_timeout=0)
    one.acquire()
    with pytest.raises(AcquireTimeout):
        one.acquire()


# -- contexts ----------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("explicit", [True, False])
def test_the_end_of_the_context_ends_the_wait(acquire: Acquire, explicit: bool) -> None:
    one = WeightedSemaphore(1)
    one.acquire()
    context = Context()

    def wait() -> None:
        if explicit:
            acquire(one, context=context)
        with context:
            acquire(one)

    waiting = in_thread(wait)
    until_waiting(one, 1)
    context.cancel("enough")
    error = waiting.exception(PATIENCE)
    assert type(error) is Cancelled
    assert str(error) == "enough"
    assert one.waiting == 0


@both
def test_the_contexts_deadline_is_told_from_the_timeout(
    acquire: Acquire, clock: VirtualClock
) -> None:
    one = WeightedSemaphore(1)
    one.acquire()
    context = Context(timeout=3.0, clock=clock)
    waiting = in_thread(acquire, one, timeout=5.0, context=context)
    clock.wait_for_timers(2)
    clock.advance(3.0)
    assert type(waiting.exception(PATIENCE)) is DeadlineExceeded


@both
def test_under_a_context_that_has_ended_nothing_is_taken(acquire: Acquire) -> None:
    one = WeightedSemaphore(1)
    context = Context()
    context.cancel()
    with pytest.raises(Cancelled):
        acquire(one, context=context)
    with context, pytest.raises(Cancelled):
        acquire(one)
    assert one.available == 1
    with context, background():
        assert acquire(one)


def test_an_explicit_context_stands_in_for_the_current_one() -> None:
    one = WeightedSemaphore(1)
    ended = Context()
    ended.cancel()
    with ended:
        assert one.acquire(context=background())


# -- blocks ------------------------------------------------------------------------------------


def test_a_block_holds_its_permits_as_long_as_it_lasts() -> None:
    one = WeightedSemaphore(5)
    with one.hold(3):
        assert one.available == 2
    with pytest.raises(ZeroDivisionError), one.hold(2):
        raise ZeroDivisionError
    assert one.available == 5


def test_an_async_block_is_made_in_the_same_way() -> None:
    async def main() -> None:
        one = WeightedSemaphore(5)
        async with one.hold(3):
            assert one.available == 2
        with pytest.raises(ZeroDivisionError):
            async with one.hold():
                raise ZeroDivisionError
        assert one.available == 5

    asyncio.run(main())


def test_one_hold_may_be_kept_and_be_entered_by_many() -> None:
    one = WeightedSemaphore(5)
    hold = one.hold(2)
    with hold, hold:
        assert one.available == 1
    with hold:
        assert one.available == 3


def test_a_block_has_the_timeout_and_the_context_of_an_acquire(clock: VirtualClock) -> None:
    one = WeightedSemaphore(1)
    ended = Context()
    ended.cancel()
    with pytest.raises(Cancelled), one.hold(context=ended):
        pytest.fail("it was entered")
    with one.hold(), pytest.raises(AcquireTimeout), one.hold(timeout=0):
        pytest.fail("it was entered")
    with pytest.raises(ValueError, match="timeout must be"):
        one.hold(timeout=-1)
    assert one.available == 1


# -- wrappers ----------------------------------------------------------------------------------


def test_a_wrapped_function_holds_a_permit_for_each_call() -> None:
    one = WeightedSemaphore(4)

    @one.wrap
    def light(factor: int) -> int:
        """How many are free."""
        return one.available * factor

    @one.wrap_with(3)
    def heavy() -> int:
        return one.available

    assert (light(10), heavy(), one.available) == (30, 1, 4)
    assert (light.__name__, light.__doc__) == ("light", "How many are free.")


def test_a_wrapped_coroutine_waits_without_blocking_the_loop() -> None:
    one = WeightedSemaphore(2)
    peak = running = 0

    @one.wrap_with(1)
    async def work() -> None:
        nonlocal peak, running
        running += 1
        peak = max(peak, running)
        await asyncio.sleep(0)
        running -= 1

    async def main() -> None:
        await asyncio.gather(*(work() for _ in range(10)))

    asyncio.run(main())
    assert (peak, one.available) == (2, 2)


def test_a_wrapper_with_a_timeout_does_not_make_the_call() -> None:
    one = WeightedSemaphore(1)
    one.acquire()
    with pytest.raises(AcquireTimeout):
        one.wrap_with(timeout=0)(pytest.fail)("it was called")


def test_as_a_pools_task_wrapper_it_limits_the_tasks_that_run() -> None:
    one = WeightedSemaphore(2)
    lock, together = threading.Lock(), threading.Barrier(2)
    peak = running = 0

    def work() -> None:
        nonlocal peak, running
        with lock:
            running += 1
            peak = max(peak, running)
        together.wait(PATIENCE)
        with lock:
            running -= 1

    with Pool(6, task_wrapper=one.wrap) as pool:
        for future in [pool.submit(work) for _ in range(20)]:
            future.result(PATIENCE)
    assert (peak, one.available) == (2, 2)


def test_a_task_that_waits_for_permits_ends_with_its_pool() -> None:
    one = WeightedSemaphore(1)
    one.acquire()
    pool = Pool(2)
    waiting = [pool.submit(one.acquire) for _ in range(2)]
    until_waiting(one, 2)
    report = pool.close()
    assert all(isinstance(future.exception(), Cancelled) for future in waiting)
    assert report.running == ()
    assert (one.available, one.waiting) == (0, 0)


def test_a_tasks_time_limit_ends_its_wait(clock: VirtualClock) -> None:
    one = WeightedSemaphore(1)
    one.acquire()
    with Pool(1, context=Context(clock=clock)) as pool:
        waiting = pool.options(timeout=5.0).submit(one.acquire)
        until_waiting(one, 1)
        clock.advance(5.0)
        assert isinstance(waiting.exception(PATIENCE), DeadlineExceeded)
        until_waiting(one, 0)


# -- facts -------------------------------------------------------------------------------------


def test_it_says_what_it_is() -> None:
    one = WeightedSemaphore(4, name="disk", fairness=Fairness.LIFO)
    one.acquire(3)
    assert (one.name, one.capacity, one.fairness) == ("disk", 4, Fairness.LIFO)
    assert repr(one) == "<WeightedSemaphore 'disk' lifo, available=1/4, waiting=0>"


def test_one_without_a_name_is_given_one_of_its_own() -> None:
    names = {WeightedSemaphore(1).name for _ in range(2)}
    assert len(names) == 2
    assert all(name.startswith("semaphore-") for name in names)


def test_the_numbers_are_those_of_one_moment() -> None:
    one = WeightedSemaphore(4)
    one.acquire(3)
    context = Context()
    waiting = [in_thread(one.acquire, 2, context=context) for _ in range(2)]
    until_waiting(one, 2)
    assert one.metrics() == SemaphoreMetrics(4, 1, 2, 1, 0)
    context.cancel()
    assert all(isinstance(one.exception(PATIENCE), Cancelled) for one in waiting)
    assert one.metrics() == SemaphoreMetrics(4, 1, 0, 1, 2)


# -- hooks -------------------------------------------------------------------------------------

TOTAL = "ion_semaphore_acquisitions_total"


@both
def test_the_metrics_tell_of_every_acquisition(acquire: Acquire, clock: VirtualClock) -> None:
    told = RecordingMetrics()
    one = WeightedSemaphore(2, name="disk", metrics=told)
    acquire(one, 2)
    assert told.last("ion_semaphore_current_permits", semaphore="disk") == 0
    assert one.try_acquire() is False
    with pytest.raises(AcquireTimeout):
        acquire(one, timeout=0)

    context = Context(clock=clock)
    late = in_thread(acquire, one, timeout=1.0, context=context)
    clock.wait_for_timers(1)
    assert told.last("ion_semaphore_waiting", semaphore="disk") == 1
    clock.advance(1.0)
    assert late.exception(PATIENCE)
    granted = in_thread(acquire, one, timeout=10.0, context=context)
    clock.wait_for_timers(1)
    clock.advance(3.0)
    one.release(2)
    assert granted.result(PATIENCE)
    one.acquire()
    cancelled = in_thread(acquire, one, context=context)
    until_waiting(one, 1)
    context.cancel()
    assert cancelled.exception(PATIENCE)

    counts = {"success": 3, "denied": 2, "timeout": 1, "cancelled": 1}
    for status, count in counts.items():
        assert told.count(TOTAL, semaphore="disk", status=status) == count, status
    assert told.count(TOTAL) == sum(counts.values())
    assert told.observed("ion_semaphore_acquire_duration_seconds") == [0.0, 3.0, 0.0]
    assert told.last("ion_semaphore_waiting") == 0
    one.release(2)
    assert told.last("ion_semaphore_current_permits") == 2


def test_a_context_that_ran_out_of_time_counts_as_a_timeout(clock: VirtualClock) -> None:
    told = RecordingMetrics()
    one = WeightedSemaphore(1, metrics=told)
    one.acquire()
    waiting = in_thread(one.acquire, context=Context(timeout=1.0, clock=clock))
    until_waiting(one, 1)
    clock.advance(1.0)
    assert waiting.exception(PATIENCE)
    assert told.count(TOTAL, status="timeout") == 1


@both
def test_the_tracer_sees_the_waits(acquire: Acquire) -> None:
    tracer = RecordingTracer()
    one = WeightedSemaphore(2, name="disk", tracer=tracer)
    acquire(one, 2)
    assert tracer.spans() == []
    context = Context()
    waits = [in_thread(acquire, one), in_thread(acquire, one, 2, context=context)]
    until_waiting(one, 2)
    one.release()
    context.cancel()
    errors = {one.exception(PATIENCE) for one in waits}
    assert {span.name for span in tracer.spans()} == {"ion_semaphore_acquire"}
    assert sorted(span.attributes["permits"] for span in tracer.spans()) == [1, 2]
    assert all(span.attributes["semaphore"] == "disk" for span in tracer.spans())
    assert {span.error for span in tracer.spans()} == errors
    assert all(span.finishes == 1 for span in tracer.spans())


def test_the_log_tells_of_the_waits(caplog: pytest.LogCaptureFixture, clock: VirtualClock) -> None:
    one = WeightedSemaphore(2, name="disk")
    one.acquire(2)
    with caplog.at_level(logging.DEBUG, "ion_actors.semaphore"):
        late = in_thread(one.acquire, timeout=1.0, context=Context(clock=clock))
        clock.wait_for_timers(1)
        clock.advance(1.0)
        assert late.exception(PATIENCE)
    began, ended = caplog.records
    assert "'disk': a caller waits for 1 permits, 0 are free" in began.getMessage()
    assert "a wait for 1 permits ended without any: semaphore 'disk'" in ended.getMessage()
    assert (ended.__dict__["semaphore"], ended.__dict__["permits"]) == ("disk", 1)


class Broken:
    """Hooks that always fail."""

    def fail(self, *_: object, **__: object) -> Any:
        raise RuntimeError("a hook failed")

    inc = add = gauge = histogram = start = log = fail


@both
def test_hooks_that_fail_change_nothing(acquire: Acquire, caplog: pytest.LogCaptureFixture) -> None:
    broken: Any = Broken()
    one = WeightedSemaphore(2, logger=broken, metrics=broken, tracer=broken)
    assert acquire(one, 2)
    assert one.try_acquire() is False
    waiting = in_thread(acquire, one)
    until_waiting(one, 1)
    one.release(2)
    assert waiting.result(PATIENCE)
    one.release()
    assert one.available == 2
    assert "a hook failed" in caplog.text


def test_hooks_may_use_the_semaphore() -> None:
    """None is called under the lock."""

    class Curious(RecordingMetrics):
        def inc(self, name: str, **labels: str) -> None:
            assert in_thread(one.metrics).result(PATIENCE)
            super().inc(name, **labels)

    one = WeightedSemaphore(2, metrics=Curious())
    with one.hold(2):
        assert one.try_acquire() is False


def test_the_current_context_is_that_of_the_task() -> None:
    """The fast path looks for one without asking; this is where it could be overlooked."""
    one = WeightedSemaphore(1)

    def work() -> None:
        current_context().cancel("by itself")
        one.acquire()

    def work_in_the_dark() -> None:
        started.set()
        assert go_on.wait(PATIENCE)
        one.acquire()

    started, go_on = threading.Event(), threading.Event()
    with Pool(1) as pool:
        assert isinstance(pool.submit(work).exception(PATIENCE), Cancelled)
        future = pool.submit(work_in_the_dark)
        started.wait(PATIENCE)
        future.cancel()
        go_on.set()
        assert isinstance(future.exception(PATIENCE), Cancelled)
    assert one.available == 1
