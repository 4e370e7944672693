"""The clocks, interrupted at every point, the standard library's Python code included."""

from __future__ import annotations

import functools
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from ion_actors import Context
from ion_actors.clock import SystemClock, start_thread
from ion_actors.interruption import is_interruption
from ion_actors.testing import VirtualClock
from tests.interrupts import KINDS, LIBRARY, every_point, handle_signal, interrupt

PATIENCE = 30.0
NEVER = 1e9

kinds = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture
def handler() -> Iterator[None]:
    """A handler whose code is that of the interruptions in these tests."""
    before = signal.signal(signal.SIGUSR2, functools.partial(handle_signal))  # type: ignore[arg-type]
    yield
    signal.signal(signal.SIGUSR2, before)


def still_works(clock: SystemClock, where: str) -> None:
    """Another thread can plan, and what is planned happens."""
    happened = threading.Event()
    planner = threading.Thread(target=lambda: clock.call_at(0.0, happened.set), daemon=True)
    planner.start()
    assert happened.wait(PATIENCE), where


@kinds
@pytest.mark.parametrize("running", [False, True], ids=["no thread yet", "a thread"])
@pytest.mark.parametrize("heap", [0, 64], ids=["plain", "to be swept"])
def test_planning(kind: type[BaseException], running: bool, heap: int) -> None:
    def make(point: int) -> str:
        clock = SystemClock()
        for _ in range(heap):
            clock.call_at(NEVER, len).cancel()
        if running:
            still_works(clock, "before")
        fired = threading.Event()
        where, outcome = interrupt(point, lambda: clock.call_at(0.0, fired.set), kind, spared=())
        still_works(clock, where)
        assert isinstance(outcome, kind) or fired.wait(PATIENCE), where
        assert clock.timers == 0, where
        return where

    assert len(every_point(make)) > (10 if not running else 4)


@kinds
def test_parking_and_counting(kind: type[BaseException]) -> None:
    clock = SystemClock()
    taken = threading.Lock()
    taken.acquire()
    last = clock.call_at(NEVER, len)
    for call in (lambda: clock.park(taken, clock.monotonic() + 0.001), lambda: clock.timers):
        assert every_point(lambda point, call=call: interrupt(point, call, kind, spared=())[0])
        still_works(clock, "at last")
    last.cancel()


@kinds
def test_a_thread_begins_however_its_start_is_interrupted(kind: type[BaseException]) -> None:
    def make(point: int) -> str:
        begun = threading.Event()
        thread = threading.Thread(target=begun.set, daemon=True)
        where, outcome = interrupt(point, lambda: start_thread(thread), kind, spared=())
        began = begun.wait(PATIENCE if outcome is None else 0.2)
        assert began or "allocate" not in where, where
        if began:
            thread.join(PATIENCE)
            assert not thread.is_alive(), where
        return where

    assert len(every_point(make)) > 4


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="CPython's way of doing it")
def test_the_timer_thread_survives_what_is_thrown_into_it(
    throw: Callable[[int, type[BaseException]], int],
) -> None:
    clock = SystemClock()
    idents: list[int] = []
    for _ in range(5):
        known = threading.Event()
        clock.call_at(0.0, lambda known=known: (idents.append(threading.get_ident()), known.set()))
        assert known.wait(PATIENCE)
        assert throw(idents[-1], SystemExit) == 1
        clock.call_at(clock.monotonic() + 0.01, len)  # it is awake for this one
        still_works(clock, "thrown")


def test_a_timer_thread_that_is_dead_is_replaced() -> None:
    clock = SystemClock()
    clock._running = True  # as if it had been killed before it could say so
    late = threading.Event()
    clock.call_at(clock.monotonic() - 60, late.set)
    assert not late.wait(0.05)
    clock.call_at(NEVER, len).cancel()
    assert late.wait(PATIENCE)


def test_a_timer_thread_that_hangs_in_a_call_is_replaced() -> None:
    clock = SystemClock()
    hanging, go_on, late = threading.Event(), threading.Event(), threading.Event()
    clock.call_at(0.0, lambda: (hanging.set(), go_on.wait(PATIENCE)))
    assert hanging.wait(PATIENCE)
    clock._started_at -= 60
    clock.call_at(clock.monotonic() - 60, late.set)
    clock.call_at(NEVER, len).cancel()
    assert late.wait(PATIENCE)
    go_on.set()


# -- whose an exception is ---------------------------------------------------------------------


@kinds
@pytest.mark.usefixtures("handler")
def test_an_interruption_is_told_from_an_error_of_the_callback(kind: type[BaseException]) -> None:
    def raised(call: Callable[[], object]) -> BaseException:
        try:
            call()
        except BaseException as error:
            return error
        raise AssertionError("it raises")

    assert is_interruption(raised(lambda: handle_signal(kind)))
    assert not is_interruption(raised(lambda: sys.exit(1)))
    assert not is_interruption(raised(lambda: int("x")))


@pytest.mark.usefixtures("handler")
def test_what_a_worker_thread_raises_is_no_interruption(threads: ThreadPoolExecutor) -> None:
    assert not threads.submit(is_interruption, KeyboardInterrupt()).result(PATIENCE)


@kinds
@pytest.mark.usefixtures("handler")
@pytest.mark.parametrize(
    "move", [lambda clock: clock.advance(9), lambda clock: clock.advance_to_next()]
)
def test_an_interruption_of_a_fired_call_comes_out_after_all_others(
    clock: VirtualClock, kind: type[BaseException], move: Callable[[VirtualClock], object]
) -> None:
    made: list[int] = []
    clock.call_at(5, lambda: made.append(1))
    clock.call_at(5, lambda: handle_signal(kind))
    clock.call_at(5, lambda: made.append(2))
    with pytest.raises(kind):
        move(clock)
    assert made == [1, 2]
    assert clock.timers == 0


@kinds
@pytest.mark.usefixtures("handler")
def test_an_interruption_of_a_callback_of_a_context_comes_out_after_all_others(
    clock: VirtualClock, kind: type[BaseException]
) -> None:
    told: list[str] = []
    for end in (Context.cancel, lambda context: clock.advance(4), None):
        context = Context(timeout=3, clock=clock)
        child = Context(context)
        context.add_callback(lambda: told.append("before"))
        context.add_callback(lambda: handle_signal(kind))
        child.add_callback(lambda: told.append("child"))
        context.add_callback(lambda: told.append("after"))
        with pytest.raises(kind):
            if end is None:
                with context:
                    raise ZeroDivisionError
            end(context)
        assert context.cancelled
        assert told == ["before", "child", "after"]
        told.clear()
        with pytest.raises(kind):
            context.add_callback(lambda: handle_signal(kind))


# -- the real thing ----------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs signals")
@pytest.mark.skipif(
    sys.version_info[:2] == (3, 14),
    reason="a signal may leave any lock locked (CPython issue 148874)",
)
@pytest.mark.parametrize("kind", ["KeyboardInterrupt", "TimeoutError"])
def test_signals_at_random_moments_stop_no_timer(kind: str) -> None:
    program = f"""
        import random, signal, sys, threading, time
        from ion_actors import Context
        from ion_actors.clock import system_clock

        armed, hits, rnd = False, 0, random.Random(3)

        def handler(*_):
            if armed:
                raise {kind}

        signal.signal(signal.SIGALRM, handler)
        until = time.monotonic() + 3
        while time.monotonic() < until:
            signal.setitimer(signal.ITIMER_REAL, rnd.uniform(1e-5, 5e-4))
            try:
                armed = True
                try:
                    for _ in range(40):
                        with Context(timeout=5) as context:
                            context.add_callback(len).remove()
                finally:
                    armed = False
            except {kind}:
                hits += 1
        signal.setitimer(signal.ITIMER_REAL, 0)
        done = threading.Event()
        threading.Thread(target=lambda: system_clock.call_at(0, done.set), daemon=True).start()
        sys.exit(0 if done.wait(20) and hits > 50 else f"after {{hits}} interruptions")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True, text=True, timeout=90, check=False,
        env={"PYTHONPATH": str(LIBRARY.parent)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
