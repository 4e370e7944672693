"""Time for tests."""

from __future__ import annotations

import math
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ion_actors import Context, DeadlineExceeded
from ion_actors.clock import Clock, SystemClock
from ion_actors.testing import VirtualClock


def locked():
    lock = threading.Lock()
    lock.acquire()
    return lock


def test_it_is_a_clock_as_the_library_wants_it():
    asked: Clock = VirtualClock()
    promised = {name for name in vars(Clock) if not name.startswith("_")}
    assert promised <= set(dir(asked))
    assert promised <= set(dir(SystemClock()))


def test_time_stands_still_until_it_is_moved():
    clock = VirtualClock(start=100.0)
    assert clock.monotonic() == clock.monotonic() == 100.0
    clock.advance(2.5)
    assert clock.monotonic() == 102.5


@given(st.lists(st.floats(0.001, 100), max_size=20), st.lists(st.floats(0, 50), max_size=10))
def test_each_timer_fires_once_in_order_and_at_its_moment(moments, advances):
    clock, fired = VirtualClock(), []
    for number, moment in enumerate(moments):
        clock.call_at(moment, lambda key=(moment, number): fired.append((key, clock.monotonic())))
    for duration in advances:
        clock.advance(duration)
    due = sorted((moment, n) for n, moment in enumerate(moments) if moment <= clock.monotonic())
    assert [key for key, _ in fired] == due
    assert all(at == moment for (moment, _), at in fired)
    assert clock.timers == len(moments) - len(due)


def test_what_a_timer_plans_fires_in_the_same_advance_if_it_is_due():
    clock, fired = VirtualClock(), []

    def again():
        fired.append(clock.monotonic())
        clock.call_at(clock.monotonic() + 1, again)

    clock.call_at(1, again)
    clock.advance(3.5)
    assert fired == [1, 2, 3]
    assert clock.monotonic() == 3.5


def test_a_timer_for_now_or_earlier_fires_at_once():
    clock, fired = VirtualClock(10), []
    clock.call_at(10, lambda: fired.append("now"))
    clock.call_at(-math.inf, lambda: fired.append("long ago"))
    assert fired == ["now", "long ago"]
    assert clock.timers == 0


def test_a_cancelled_timer_does_not_fire():
    clock, fired = VirtualClock(), []
    clock.call_at(1, lambda: fired.append(1)).cancel()
    clock.advance(2)
    assert fired == []


def test_advance_to_next_goes_to_the_earliest_and_fires_all_of_that_moment():
    clock, fired = VirtualClock(), []
    clock.call_at(1, lambda: fired.append("cancelled")).cancel()
    for moment in (5, 3, 3):
        clock.call_at(moment, lambda moment=moment: fired.append(moment))
    assert clock.advance_to_next() == 3
    assert fired == [3, 3]
    assert clock.advance_to_next() == 2


def test_there_must_be_a_timer_to_advance_to():
    with pytest.raises(AssertionError, match="no timer"):
        VirtualClock().advance_to_next()


@pytest.mark.parametrize("duration", [-1, math.inf, math.nan, "1", None])
def test_time_moves_by_a_finite_number_of_seconds_and_not_backwards(duration):
    with pytest.raises((TypeError, ValueError), match="duration"):
        VirtualClock().advance(duration)


def test_parking_ends_when_the_time_has_come(threads):
    clock = VirtualClock()
    parked = threads.submit(clock.park, locked(), 10.0)
    clock.wait_for_timers(1)
    clock.advance(9.9)
    assert not parked.done()
    clock.advance(0.1)
    assert parked.result(30) is False


def test_parking_ends_when_the_signal_is_given(threads):
    clock, lock = VirtualClock(), locked()
    parked = threads.submit(clock.park, lock, 10.0)
    clock.wait_for_timers(1)
    lock.release()
    assert parked.result(30) is True
    assert clock.timers == 0


def test_parking_without_a_deadline_waits_for_the_signal_alone(threads):
    clock, lock = VirtualClock(), locked()
    parked = threads.submit(clock.park, lock, None)
    clock.advance(1e9)
    lock.release()
    assert parked.result(30) is True


def test_parking_at_a_past_deadline_only_looks():
    clock = VirtualClock(5)
    assert clock.park(locked(), 5) is False
    assert clock.park(threading.Lock(), 5) is True


def test_a_test_can_wait_until_so_many_sleep(clock, threads):
    context = Context(clock=clock)
    sleepers = [threads.submit(context.sleep, 60) for _ in range(8)]
    clock.wait_for_timers(8)
    clock.advance(60)
    assert [one.result(30) for one in sleepers] == [None] * 8
    assert clock.timers == 0


def test_waiting_for_sleepers_that_never_come_fails_with_the_numbers():
    clock = VirtualClock()
    clock.call_at(1, print)
    with pytest.raises(AssertionError, match=r"waited 0\.01 s for 2 timers, there are 1"):
        clock.wait_for_timers(2, patience=0.01)


def test_a_deadline_passes_when_the_clock_says_so(clock):
    context = Context(timeout=3600, clock=clock)
    clock.advance(3599)
    context.check()
    clock.advance(1)
    with pytest.raises(DeadlineExceeded):
        context.check()


def test_the_moments_of_its_timers_can_be_asked_for():
    clock = VirtualClock(start=1.0)
    timers = [clock.call_at(moment, lambda: None) for moment in (7.0, 3.0, 5.0)]
    timers[1].cancel()
    assert clock.moments == [5.0, 7.0]
    clock.advance(5)
    assert clock.moments == [7.0]
    timers[0].cancel()
    assert clock.moments == []


def test_timers_can_be_late():
    clock, fired = VirtualClock(), []
    clock.call_at(1, lambda: fired.append(clock.monotonic()))
    clock.lag(2)
    assert (clock.monotonic(), fired, clock.timers) == (2, [], 1)
    clock.advance(0)
    assert (clock.monotonic(), fired, clock.timers) == (2, [2], 0)
    for wrong in (-1, math.nan, math.inf):
        with pytest.raises(ValueError, match="duration"):
            clock.lag(wrong)


def test_a_timer_may_move_the_time_itself():
    clock, fired = VirtualClock(), []
    clock.call_at(1, lambda: clock.advance(5))
    clock.call_at(3, lambda: fired.append(clock.monotonic()))
    clock.advance(2)
    assert fired == [3]
    assert clock.monotonic() == 6  # it never goes back


def test_what_another_thread_plans_for_the_moment_that_comes_fires(monkeypatch):
    clock, fired = VirtualClock(), []
    find = clock._next_due

    def and_then_another_thread_plans(end):
        found = find(end)
        if found is None:  # nothing more is due, but has the moment come?
            clock.call_at(end, lambda: fired.append(clock.monotonic()))
        return found

    monkeypatch.setattr(clock, "_next_due", and_then_another_thread_plans)
    clock.advance(2)
    assert fired == [2]
    assert clock.timers == 0


def test_threads_that_move_the_time_take_turns(threads):
    clock, fired = VirtualClock(), []
    for moment in range(1, 401):
        clock.call_at(moment, lambda moment=moment: fired.append((moment, clock.monotonic())))
    barrier = threading.Barrier(4)

    def push():
        barrier.wait(30)
        for _ in range(100):
            clock.advance(1)

    for one in [threads.submit(push) for _ in range(4)]:
        one.result(30)
    assert fired == [(moment, moment) for moment in range(1, 401)]
