"""The real clock: its timers, and the thread that comes and goes with them."""

from __future__ import annotations

import _thread
import gc
import logging
import math
import os
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest

from ion_actors.clock import SystemClock
from ion_actors.delivery import is_kept_free
from ion_actors.standby import STANDBY
from tests.inside import heap_of, timers_held_back

PATIENCE = 30.0


@pytest.fixture
def system():
    """A clock of the test's own; its thread must end by itself."""
    clock = SystemClock()
    before = set(threading.enumerate())
    yield clock
    for thread in set(threading.enumerate()) - before:
        thread.join(PATIENCE)
        assert not thread.is_alive()


def timer_threads():
    return [one for one in threading.enumerate() if one.name == "ion_actors-timer"]


def thread_of(clock):
    """The thread that makes the clock's calls."""
    found = []
    done = threading.Event()
    clock.call_at(0.0, lambda: (found.append(threading.current_thread()), done.set()))
    assert done.wait(PATIENCE)
    return found[0]


def test_timers_fire_in_the_order_of_their_moments(system):
    fired, last = [], threading.Event()
    start = system.monotonic() + 0.05  # all are planned by then, or they are late in order
    with timers_held_back(system):  # none fires before all are planned
        system.call_at(start + 0.003, last.set)
        for offset in (0.002, 0.0, 0.001):
            system.call_at(start + offset, lambda offset=offset: fired.append(offset))
    assert last.wait(PATIENCE)
    assert fired == [0.0, 0.001, 0.002]


def test_timers_of_one_moment_fire_in_the_order_of_planning(system):
    fired, last = [], threading.Event()
    with timers_held_back(system):
        for number in range(50):
            system.call_at(1.0, lambda number=number: fired.append(number))
        system.call_at(1.0, last.set)
    assert last.wait(PATIENCE)
    assert fired == list(range(50))


def test_a_timer_does_not_fire_before_its_moment(system):
    at = threading.Event()
    moment = system.monotonic() + 0.05
    times = []
    system.call_at(moment, lambda: (times.append(system.monotonic()), at.set()))
    assert at.wait(PATIENCE)
    assert times[0] >= moment


def test_an_earlier_timer_overtakes_one_that_is_waited_for(system):
    late = system.call_at(system.monotonic() + 3600, lambda: None)
    early = threading.Event()
    system.call_at(system.monotonic() + 0.01, early.set)
    assert early.wait(PATIENCE)
    late.cancel()


def test_a_cancelled_timer_never_fires(system):
    fired, last = [], threading.Event()
    with timers_held_back(system):
        system.call_at(1.0, lambda: fired.append("cancelled")).cancel()
        system.call_at(1.0, last.set)
    assert last.wait(PATIENCE)
    assert fired == []


def test_cancelling_drops_what_the_call_refers_to_at_once(system, without_gc):
    class Thing:
        def call(self): ...

    thing = Thing()
    timer = system.call_at(system.monotonic() + 3600, thing.call)
    timer.cancel()
    timer.cancel()  # does no harm
    gone = weakref.ref(thing)
    del thing
    assert gone() is None


def test_a_fired_timer_keeps_nothing(system):
    class Thing:
        def call(self): ...

    thing = Thing()
    gone = weakref.ref(thing)
    timer = system.call_at(0.0, thing.call)
    thread_of(system)  # makes a second call: the first is over
    del thing
    gc.collect()
    assert not timer.pending
    assert gone() is None


def test_an_error_in_a_call_is_logged_and_the_others_are_made(system, caplog):
    def fail():
        raise SystemExit("not the end of the timers")

    with caplog.at_level(logging.ERROR, "ion_actors"):
        system.call_at(0.0, fail)
        thread_of(system)
    assert "a timer's call failed" in caplog.text
    assert "not the end of the timers" in caplog.text


def test_without_timers_there_is_no_thread(system):
    thread = thread_of(system)
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert system.timers == 0


def test_the_thread_comes_back_for_the_next_timer(system):
    first = thread_of(system)
    first.join(PATIENCE)
    assert thread_of(system) is not first


def test_a_burst_of_timers_is_served_by_one_thread(system):
    assert len({thread_of(system) for _ in range(20)}) == 1


def test_the_thread_does_not_wait_for_a_cancelled_timer(system):
    thread = thread_of(system)
    system.call_at(system.monotonic() + 3600, lambda: None).cancel()
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_cancelled_timers_do_not_pile_up(system):
    moment = system.monotonic() + 3600
    kept = system.call_at(moment, lambda: None)
    for _ in range(20_000):
        system.call_at(moment, lambda: None).cancel()
    assert len(heap_of(system)) <= 2 * 64
    assert system.timers == 1
    kept.cancel()


def test_sweeping_loses_no_live_timer(system):
    fired, last = [], threading.Event()
    base = system.monotonic()
    with timers_held_back(system):
        for number in range(1000):
            system.call_at(base + number * 1e-6, lambda number=number: fired.append(number))
            system.call_at(base, lambda: fired.append("cancelled")).cancel()
        system.call_at(base + 0.01, last.set)
    assert last.wait(PATIENCE)
    assert fired == list(range(1000))


def test_a_timer_may_be_planned_by_a_finalizer_while_one_is_planned(system):
    # The lock was not reentrant: the thread waited for itself.
    done = threading.Event()
    with timers_held_back(system):
        system.call_at(0.0, done.set)
        system.call_at(system.monotonic() + 60, done.set).cancel()
    assert done.wait(PATIENCE)


def test_many_threads_plan_and_cancel_at_once(system, threads):
    count, fired = 8, []
    barrier = threading.Barrier(count)

    def work():
        barrier.wait(PATIENCE)
        for number in range(500):
            timer = system.call_at(
                system.monotonic() + (number % 3) * 1e-5, lambda: fired.append(1)
            )
            if number % 2:
                timer.cancel()
            else:
                kept.append(timer)

    kept = []
    for done in [threads.submit(work) for _ in range(count)]:
        done.result(PATIENCE)
    last = threading.Event()
    system.call_at(system.monotonic() + 0.001, last.set)
    assert last.wait(PATIENCE)
    assert not any(timer.pending for timer in kept)
    assert len(fired) >= len(kept)


def test_if_no_thread_can_be_started_whoever_waits_fires_the_timers(system, monkeypatch):
    def refuse(self):
        raise RuntimeError("can't start new thread")

    fired = []
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        system.call_at(system.monotonic() + 0.01, lambda: fired.append(is_kept_free()))
        assert system.timers == 1
        assert not system.park(locked(), system.monotonic() + 0.2)
    assert fired == [True]  # as on the clock's own thread
    assert not is_kept_free()
    assert not STANDBY.busy
    assert thread_of(system)


def test_the_timer_thread_is_tried_again_by_those_who_wait(system, monkeypatch):
    def refuse(self):
        raise RuntimeError("can't start new thread")

    fired, signal = [], locked()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        system.call_at(
            system.monotonic() + 0.3,
            lambda: (fired.append(threading.current_thread()), signal.release()),
        )
    assert system.park(signal, system.monotonic() + PATIENCE)
    assert fired[0].name == "ion_actors-timer"


# -- parking -----------------------------------------------------------------------------


def locked():
    lock = threading.Lock()
    lock.acquire()
    return lock


def test_parking_ends_when_the_signal_is_given(system):
    lock = locked()
    system.call_at(0.0, lock.release)
    assert system.park(lock, None) is True


def test_parking_ends_at_the_deadline(system):
    deadline = system.monotonic() + 0.01
    assert system.park(locked(), deadline) is False
    assert system.monotonic() >= deadline


def test_parking_with_a_deadline_long_past_only_looks(system):
    assert system.park(locked(), -math.inf) is False
    assert system.park(threading.Lock(), -math.inf) is True


@pytest.mark.parametrize("deadline", [1e300, sys.float_info.max])
def test_parking_until_the_end_of_time_is_no_overflow(system, deadline):
    lock = locked()
    system.call_at(0.0, lock.release)
    assert system.park(lock, deadline) is True


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_starts_with_no_timers(system):
    timer = system.call_at(system.monotonic() + 3600, lambda: None)
    with timers_held_back(system):  # which the child must not wait for
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                done = threading.Event()
                started_empty = system.timers == 0
                system.call_at(0.0, done.set)
                code = 0 if started_empty and done.wait(PATIENCE) else 2
            finally:
                os._exit(code)  # whatever happens, it must not go on as a second test run
    timer.cancel()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.parametrize("patience", [None, 60.0])
def test_a_signal_that_did_not_wake_the_main_thread_is_heard_all_the_same(
    patience: float | None, threads: ThreadPoolExecutor
) -> None:
    """One that came just before it blocked is only noted; interrupt_main() notes one."""
    taken = threading.Lock()
    taken.acquire()
    waiting = threading.Event()

    def interrupt() -> None:
        waiting.wait(30)
        _thread.interrupt_main()

    interrupting = threads.submit(interrupt)
    clock = SystemClock()
    with pytest.raises(KeyboardInterrupt):  # the wait may be over before it begins
        waiting.set()
        clock.park(taken, None if patience is None else clock.monotonic() + patience)
    interrupting.result(30)
