"""What a context promises, one thing at a time."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import math
import threading
import weakref

import pytest

from ion_actors import Cancelled, Context, DeadlineExceeded, Future, background, current_context
from ion_actors.clock import system_clock
from ion_actors.testing import VirtualClock
from tests.inside import callbacks_on, places_on

# -- making ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "kind", "said"),
    [
        ({"parent": "x"}, TypeError, "parent must be a Context or None, not 'x'"),
        ({"timeout": -1}, ValueError, "timeout must be zero or more seconds, or None, not -1"),
        ({"timeout": math.nan}, ValueError, "timeout .* not nan"),
        ({"timeout": True}, TypeError, "timeout .* not True"),
        ({"timeout": "1"}, TypeError, "timeout .* not '1'"),
        ({"deadline": math.nan}, ValueError, "deadline .* not nan"),
        ({"deadline": "1"}, TypeError, "deadline .* not '1'"),
        ({"timeout": 1, "deadline": 2}, TypeError, "not both: 1 and 2"),
    ],
)
def test_senseless_arguments_are_refused_by_name_and_value(wrong, kind, said):
    with pytest.raises(kind, match=said):
        Context(**wrong)


def test_a_timeout_counts_from_now(clock):
    clock.advance(100)
    context = Context(timeout=5, clock=clock)
    assert context.deadline == 105
    assert context.remaining() == 5


def test_endless_limits_are_none():
    assert Context(timeout=math.inf).deadline is None
    assert Context(deadline=math.inf).deadline is None


def test_a_timeout_of_zero_has_passed_already(clock):
    assert Context(timeout=0, clock=clock).cancelled


def test_the_current_context_is_the_parent_by_default():
    with Context() as parent:
        child = Context()
    parent.cancel("so")
    assert child.reason == "so"


def test_a_childs_later_deadline_counts_for_nothing(clock):
    parent = Context(timeout=1, clock=clock)
    assert Context(parent, timeout=5).deadline == 1


def test_a_child_goes_by_its_parents_clock(clock):
    parent = Context(clock=clock)
    assert Context(parent).clock is clock
    assert Context().clock is system_clock


def test_moments_of_another_clock_are_not_mistaken_for_ones_own(clock):
    # The parent's deadline, 1 second after this machine was started, had long passed for the child.
    parent = Context(timeout=1, clock=clock)
    child = Context(parent, clock=VirtualClock(start=1e6))
    assert child.deadline is None
    child.check()
    told = []
    child.add_callback(lambda: told.append(child.reason))
    clock.advance(1)
    assert told == ["the deadline has passed"]
    with pytest.raises(DeadlineExceeded):
        child.check()


# -- ending ------------------------------------------------------------------------------


def test_only_the_first_cancellation_counts():
    context = Context()
    assert context.cancel("first") is True
    assert context.cancel("second") is False
    assert context.reason == "first"


def test_a_child_does_not_end_its_parent():
    parent = Context()
    Context(parent).cancel()
    assert not parent.cancelled
    assert parent.reason is None


def test_each_check_raises_an_error_of_its_own():
    context = Context()
    context.cancel("why")
    raised = []
    for _ in range(2):
        with pytest.raises(Cancelled, match="why") as caught:
            context.check()
        raised.append(caught.value)
    assert raised[0] is not raised[1]


def test_the_background_never_ends():
    assert not background().cancelled
    assert background().remaining() is None
    with pytest.raises(RuntimeError, match="cannot be cancelled"):
        background().cancel()
    background().add_callback(print).remove()


def test_repr_tells_how_it_is(clock):
    context = Context(timeout=2.5, clock=clock)
    assert "alive 2.500 s left" in repr(context)
    context.cancel("enough")
    assert "ended: enough" in repr(context)
    assert repr(Context(clock=clock)).endswith("alive>")


# -- callbacks ---------------------------------------------------------------------------


def test_a_callback_runs_once_when_the_context_ends():
    context, told = Context(), []
    context.add_callback(lambda: told.append(context.reason))
    context.cancel("x")
    context.cancel("y")
    assert told == ["x"]


def test_callbacks_run_in_the_order_they_were_added():
    context, told = Context(), []
    for number in range(10):
        context.add_callback(lambda number=number: told.append(number))
    context.cancel()
    assert told == list(range(10))


def test_a_callback_on_an_ended_context_runs_now():
    context, told = Context(), []
    context.cancel()
    context.add_callback(lambda: told.append(1))
    assert told == [1]


def test_a_removed_callback_does_not_run_and_removing_twice_does_no_harm():
    context, told = Context(), []
    registration = context.add_callback(lambda: told.append(1))
    registration.remove()
    registration.remove()
    context.cancel()
    registration.remove()
    assert told == []


def test_the_same_callback_can_be_added_twice_and_removed_once():
    context, told = Context(), []
    callback = lambda: told.append(1)  # noqa: E731
    context.add_callback(callback)
    context.add_callback(callback).remove()
    context.cancel()
    assert told == [1]


def test_a_callback_hears_of_a_grandparents_end():
    grandparent = Context()
    child, told = Context(Context(grandparent)), []
    child.add_callback(lambda: told.append(child.reason))
    grandparent.cancel("from above")
    assert told == ["from above"]


def test_a_callback_hears_of_the_deadline_without_being_asked(clock):
    context, told = Context(Context(timeout=10, clock=clock)), []
    context.add_callback(lambda: told.append(clock.monotonic()))
    clock.advance(100)
    assert told == [10]


def test_an_error_in_a_callback_is_logged_and_the_others_run(caplog):
    context, told = Context(), []

    def fail():
        raise SystemExit("a callback must not end the program")

    context.add_callback(fail)
    context.add_callback(lambda: told.append(1))
    with caplog.at_level(logging.ERROR, "ion_actors"):
        context.cancel()
    assert told == [1]
    assert "a callback of a context failed" in caplog.text


def test_a_callback_may_use_its_context():
    context, told = Context(), []

    def again():
        context.cancel("again")
        context.add_callback(lambda: told.append(context.reason))

    context.add_callback(again)
    context.cancel("once")
    assert told == ["once"]


def test_a_callback_may_remove_another_that_is_about_to_run():
    context, told = Context(), []
    context.add_callback(lambda: second.remove())  # noqa: PLW0108
    second = context.add_callback(lambda: told.append("second"))
    context.cancel()
    assert told in ([], ["second"])  # it had begun or not; nothing breaks


# -- nothing is left behind --------------------------------------------------------------


def test_a_hundred_thousand_short_lived_children_leave_nothing_behind(clock):
    parent = Context(timeout=1e9, clock=clock)
    for _ in range(50_000):
        child = Context(parent)
        registration = child.add_callback(print)
        registration.remove()
        Context(parent)
    assert places_on(parent) == 0
    assert clock.timers == 0
    del child, registration
    gc.collect()
    assert not [one for one in gc.get_referrers(parent) if isinstance(one, Context)]


def test_children_that_are_dropped_with_their_callbacks_go_when_they_end(without_gc):
    parent = Context()
    child = Context(parent)
    child.add_callback(print)
    gone = weakref.ref(child)
    child.cancel()
    del child
    assert gone() is None
    assert places_on(parent) == 0


def test_a_context_without_callbacks_is_freed_without_the_collector(without_gc):
    context = Context(Context(timeout=60))
    gone = weakref.ref(context)
    del context
    assert gone() is None


def test_a_callback_is_dropped_once_it_has_run(without_gc):
    class Thing:
        def call(self): ...

    thing, context = Thing(), Context()
    registration = context.add_callback(thing.call)
    gone = weakref.ref(thing)
    del thing
    context.cancel()
    assert gone() is None
    del registration


def test_the_timer_goes_with_the_last_callback(clock):
    context = Context(timeout=10, clock=clock)
    first, second = context.add_callback(print), context.add_callback(print)
    assert clock.timers == 1
    first.remove()
    assert clock.timers == 1
    second.remove()
    assert clock.timers == 0
    third = context.add_callback(print)  # and comes back
    assert clock.timers == 1
    third.remove()


def test_a_wait_leaves_nothing_behind(clock):
    parent = Context(clock=clock)
    context, future = Context(parent, timeout=10), Future()
    for _ in range(3):
        assert context.wait(future, timeout=0) is False
    assert places_on(parent) == places_on(context) == 0
    assert future._done_callbacks == []
    assert clock.timers == 0


# -- waiting in a thread -----------------------------------------------------------------


class _EqualToAll:
    """A done-callback that is equal to all others, and says when it is compared."""

    def __init__(self):
        self.calls = self.comparisons = 0

    def __call__(self, future):
        self.calls += 1

    def __eq__(self, other):
        self.comparisons += 1
        return True

    __hash__ = None


def test_a_wait_takes_back_no_callback_but_its_own():
    given_up, awaited = Future(), Future()
    theirs = _EqualToAll()
    given_up.add_done_callback(theirs)
    awaited.add_done_callback(theirs)
    context = Context()

    async def wait():
        assert not await context.await_(awaited, timeout=0.001)

    assert not context.wait(given_up, timeout=0.001)
    asyncio.run(wait())
    for future in (given_up, awaited):
        assert len(future._done_callbacks) == 1
        future.set(None)
    assert (theirs.calls, theirs.comparisons) == (2, 0)


def test_sleep_ends_after_its_time(clock, threads):
    sleeper = threads.submit(Context(clock=clock).sleep, 5)
    clock.wait_for_timers(1)
    clock.advance(5)
    assert sleeper.result(30) is None


def test_sleep_for_no_time_only_looks(clock):
    Context(clock=clock).sleep(0)
    ended = Context(clock=clock)
    ended.cancel("over")
    with pytest.raises(Cancelled, match="over"):
        ended.sleep(0)


def test_sleep_wakes_when_the_context_is_cancelled(clock, threads):
    context = Context(clock=clock)
    sleeper = threads.submit(context.sleep, 3600)
    clock.wait_for_timers(1)
    context.cancel("get up")
    with pytest.raises(Cancelled, match="get up"):
        sleeper.result(30)


def test_sleep_wakes_when_a_parents_deadline_passes(clock, threads):
    context = Context(Context(timeout=10, clock=clock))
    sleeper = threads.submit(context.sleep, 3600)
    clock.wait_for_timers(2)  # the sleep and the deadline
    clock.advance(10)
    with pytest.raises(DeadlineExceeded):
        sleeper.result(30)


@pytest.mark.parametrize("duration", [-1, math.inf, math.nan, "1", None])
def test_sleep_takes_a_finite_number_of_seconds(duration):
    with pytest.raises((TypeError, ValueError), match="duration"):
        Context().sleep(duration)


def test_wait_without_a_future_tells_whether_the_context_ended(clock, threads):
    context = Context(clock=clock)
    assert context.wait(timeout=0) is False
    waiting = threads.submit(context.wait)
    context.cancel()
    assert waiting.result(30) is True
    assert context.wait() is True


def test_wait_ends_when_the_future_is_done(threads):
    future, context = Future(), Context()
    waiting = threads.submit(context.wait, future)
    future.set_result(1)
    assert waiting.result(30) is True


def test_wait_raises_when_the_context_ends_first(threads):
    context = Context()
    waiting = threads.submit(context.wait, Future())
    context.cancel("not wanted")
    with pytest.raises(Cancelled, match="not wanted"):
        waiting.result(30)


def test_wait_prefers_a_result_that_is_there_to_an_end():
    future, context = Future(), Context()
    future.set_result(1)
    context.cancel()
    assert context.wait(future) is True


def test_wait_gives_up_when_its_time_is_up(clock, threads):
    waiting = threads.submit(Context(clock=clock).wait, Future(), 7)
    clock.wait_for_timers(1)
    clock.advance(7)
    assert waiting.result(30) is False


def test_the_real_clock_ends_a_wait():
    with pytest.raises(DeadlineExceeded):
        Context(timeout=0.01).sleep(60)
    assert Context().wait(timeout=0.01) is False


# -- waiting in a coroutine --------------------------------------------------------------


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 20))


def test_asleep_ends_after_its_time(clock):
    async def main():
        sleeper = asyncio.ensure_future(Context(clock=clock).asleep(5))
        await asyncio.sleep(0)
        clock.advance(5)
        assert await sleeper is None

    run(main())


def test_asleep_wakes_when_another_thread_cancels(clock):
    async def main():
        context = Context(clock=clock)
        sleeper = asyncio.ensure_future(context.asleep(3600))
        await asyncio.sleep(0)
        await asyncio.to_thread(context.cancel, "get up")
        with pytest.raises(Cancelled, match="get up"):
            await sleeper
        assert clock.timers == 0

    run(main())


@pytest.mark.parametrize("duration", [-1, math.inf, "1"])
def test_asleep_takes_a_finite_number_of_seconds(duration):
    with pytest.raises((TypeError, ValueError), match="duration"):
        run(Context().asleep(duration))


def test_await_ends_when_the_future_is_done_and_leaves_nothing(clock):
    async def main():
        future, context = Future(), Context(clock=clock)
        assert await context.await_(future, timeout=0) is False
        assert future._done_callbacks == []
        waiting = asyncio.ensure_future(context.await_(future))
        await asyncio.sleep(0)
        await asyncio.to_thread(future.set_result, 1)
        assert await waiting is True
        assert places_on(context) == 0

    run(main())


def test_await_raises_when_the_context_ends_first():
    async def main():
        context = Context()
        waiting = asyncio.ensure_future(context.await_(Future()))
        await asyncio.sleep(0)
        context.cancel("not wanted")
        with pytest.raises(Cancelled, match="not wanted"):
            await waiting

    run(main())


def test_cancelling_an_awaiter_leaves_nothing_behind(clock):
    async def main():
        future, context = Future(), Context(timeout=60, clock=clock)
        waiting = asyncio.ensure_future(context.await_(future, timeout=30))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert (places_on(context), clock.timers, future._done_callbacks) == (0, 0, [])

    run(main())


def test_an_end_after_the_loop_is_closed_harms_nobody(caplog):
    context = Context()

    async def main():
        task = asyncio.ensure_future(context.await_(Future()))
        await asyncio.sleep(0)
        return task

    loop = asyncio.new_event_loop()
    task = loop.run_until_complete(main())
    task._log_destroy_pending = False  # what asyncio says of it is not the point here
    loop.close()
    with caplog.at_level(logging.WARNING, "ion_actors"):
        context.cancel()
    assert caplog.text == ""
    task.get_coro().close()


# -- being current -----------------------------------------------------------------------


def test_outside_of_everything_the_background_is_current():
    assert contextvars.Context().run(current_context) is background()


def test_a_block_makes_its_context_current_and_restores_the_one_before():
    outer, inner = Context(), Context()
    with outer as entered:
        assert entered is current_context() is outer
        with inner:
            assert current_context() is inner
        assert current_context() is outer
    assert current_context() is background()


def test_leaving_a_block_normally_does_not_end_its_context():
    with Context() as context:
        pass
    assert not context.cancelled


def test_leaving_a_block_by_an_exception_ends_its_context():
    context = Context()
    with pytest.raises(ZeroDivisionError), context:
        1 / 0  # noqa: B018
    assert context.reason == "its block was left by ZeroDivisionError"
    assert current_context() is background()


def test_a_block_can_be_entered_again_and_within_itself():
    context = Context()
    with context, context:
        assert current_context() is context
    with context:
        assert current_context() is context
    assert current_context() is background()


def test_a_block_of_the_background_detaches_from_the_current_context():
    with Context() as context:
        with background():
            assert current_context() is background()
            child = Context()
        assert current_context() is context
    context.cancel()
    assert not child.cancelled


def test_an_exception_in_a_block_of_the_background_passes_unchanged():
    # It was replaced by "the background context cannot be cancelled".
    with pytest.raises(ZeroDivisionError), background():
        1 / 0  # noqa: B018


def test_a_new_thread_starts_without_a_context_and_to_thread_with_it(threads):
    async def main():
        return await asyncio.to_thread(current_context)

    with Context() as context:
        started = []
        thread = threading.Thread(
            target=contextvars.Context().run, args=(lambda: started.append(current_context()),)
        )
        thread.start()
        thread.join()
        assert started == [background()]
        assert asyncio.run(main()) is context
        assert threads.submit(contextvars.copy_context().run, current_context).result() is context


def test_one_context_can_be_entered_by_many_threads_at_once(threads):
    context, barrier = Context(), threading.Barrier(8)

    def work():
        for _ in range(100):
            barrier.wait(30)
            with context:
                assert current_context() is context
                barrier.wait(30)
            assert current_context() is background()

    for one in [threads.submit(work) for _ in range(8)]:
        one.result(20)


# -- long chains -------------------------------------------------------------------------


def test_a_context_that_passes_through_is_left_out_of_the_chain():
    root = Context()
    current, refs = root, []
    for _ in range(10_000):  # a task that submits its successor and ends, again and again
        successor = Context(current)
        successor.check()
        if current is not root:
            current.pass_through()
        refs.append(weakref.ref(current))
        current = successor
    current.check()
    gc.collect()
    assert sum(one() is not None for one in refs) <= 3
    root.cancel("all of you")
    assert current.reason == "all of you"


def test_who_passes_through_still_passes_on_that_it_has_ended():
    middle = Context()
    child = Context(middle)
    middle.cancel("ended")
    middle.pass_through()
    assert child.reason == "ended"
    assert Context(middle).reason == "ended"


def test_a_chain_with_listeners_does_not_grow_either(clock):
    # Each successor listens; the links of all its predecessors were kept, and more of them with
    # every task, until following them ended in a RecursionError.
    root = Context(timeout=1e9, clock=clock)
    current, told, refs = root, [], []
    registration = root.add_callback(print)
    for number in range(5_000):
        successor = Context(current)
        following = successor.add_callback(lambda number=number: told.append(number))
        registration.remove()
        if current is not root:
            current.pass_through()
        refs.append(weakref.ref(current))
        current, registration = successor, following
    gc.collect()
    assert sum(one() is not None for one in refs) <= 3
    assert len(callbacks_on(root)) == 1
    root.cancel()
    assert told == [4_999]
    assert clock.timers == 0


def test_listeners_below_one_that_passes_through_hear_of_the_end_above_it():
    root = Context()
    middle = Context(root)
    child, told = Context(middle), []
    child.add_callback(lambda: told.append(child.reason))
    middle.pass_through()
    assert places_on(middle) == 0
    root.cancel("from above")
    assert told == ["from above"]


def test_ones_own_listeners_stay_when_one_passes_through():
    root = Context()
    middle, told = Context(root), []
    middle.add_callback(lambda: told.append("middle"))
    Context(middle).add_callback(lambda: told.append("child"))
    middle.pass_through()
    root.cancel()
    assert sorted(told) == ["child", "middle"]


DEEP = 5_000  # far beyond the limit of recursion


def test_a_deep_chain_of_blocks_ends_as_one(clock):
    root = Context(clock=clock)
    chain, told = [root], []
    for _ in range(DEEP):
        chain.append(Context(chain[-1]))
    assert not chain[-1].cancelled
    chain[-1].add_callback(lambda: told.append(1))
    chain[DEEP // 2].add_callback(lambda: told.append(2)).remove()
    root.cancel("all")
    assert told == [1]
    assert {one.reason for one in chain} == {"all"}
    assert not any(places_on(one) for one in chain)


def test_a_deep_chain_of_listeners_is_given_up_as_one():
    root = Context()
    current = root
    for _ in range(DEEP):
        current = Context(current)
    registration = current.add_callback(print)
    assert places_on(root) == 1
    registration.remove()
    assert places_on(root) == 0


def test_a_deep_chain_that_nobody_listened_to_finds_out_when_asked():
    root = Context()
    current = root
    for _ in range(DEEP):
        current = Context(current)
    root.cancel("found out")
    assert current.reason == "found out"


def test_cancelling_after_the_deadline_is_too_late(clock):
    context = Context(timeout=1, clock=clock)
    clock.advance(1)
    assert context.cancel("late") is False
    assert context.reason == "the deadline has passed"
