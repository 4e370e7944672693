"""Ctrl-C, at every point at which CPython lets it in: no permit is lost, nobody sleeps on."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import Future
from typing import Any

import pytest

from ion_actors import AcquireTimeout, Context
from ion_actors.semaphore import Fairness, WeightedSemaphore
from ion_actors.testing import RecordingMetrics, RecordingTracer
from tests.interrupts import KINDS, LIBRARY, Helped, Interrupted, every_point, interrupt
from tests.semaphore.helpers import PATIENCE, eventually, in_thread, until_waiting

#: What is interrupted at its very entry has not begun, and nothing can be done about it there.
ENTRIES = ("call in WeightedSemaphore.release:", "call in Permits.give_back:")

kinds = pytest.mark.parametrize("kind", KINDS)
observed = pytest.mark.parametrize("observed", [False, True], ids=["plain", "observed"])


def semaphore(capacity: int, observed: bool, **options: Any) -> WeightedSemaphore:
    if observed:
        options |= {"metrics": RecordingMetrics(), "tracer": RecordingTracer()}
    return WeightedSemaphore(capacity, **options)


@kinds
@observed
@pytest.mark.parametrize("verb", ["acquire", "try_acquire", "__enter__"])
def test_taking_free_permits(verb: str, observed: bool, kind: type[BaseException]) -> None:
    def make(point: int) -> str:
        one = semaphore(3, observed)
        call = one.hold(2).__enter__ if verb == "__enter__" else lambda: getattr(one, verb)(2)
        where, outcome = interrupt(point, call, kind)
        assert not where or isinstance(outcome, kind), where
        lost = 0 if isinstance(outcome, kind) else 2
        assert one.available == 3 - lost, where
        return where

    assert len(every_point(make)) > 3


@kinds
@observed
@pytest.mark.parametrize("fairness", Fairness)
@pytest.mark.parametrize("ending", ["granted", "cancelled", "late"])
def test_waiting(
    ending: str, fairness: Fairness, observed: bool, kind: type[BaseException]
) -> None:
    def make(point: int) -> str:
        one = semaphore(3, observed, fairness=fairness)
        one.acquire(2)

        def happens() -> None:
            if ending == "granted":
                one.release(2)
            elif ending == "cancelled":
                context.cancel()
            else:
                clock.advance(5.0)

        clock = Helped(happens)
        context = Context(clock=clock)
        call = lambda: one.acquire(3, timeout=5.0, context=context)  # noqa: E731
        where, outcome = interrupt(point, call, kind)
        assert not where or isinstance(outcome, kind), where

        if one.available < 3 and outcome is not True:
            one.release(2)  # the world did not get that far
        assert one.available == (0 if outcome is True else 3), where
        assert one.waiting == 0, where
        assert clock.timers == 0 or isinstance(outcome, kind), where
        return where

    assert len(every_point(make)) > 20


@observed
def test_an_interrupted_release_has_happened_and_wakes_whom_it_serves(observed: bool) -> None:
    def make(point: int) -> str:
        one = semaphore(4, observed)
        one.acquire(4)
        waits = [in_thread(one.acquire, permits) for permits in (2, 1, 1)]
        until_waiting(one, 3)
        where, _ = interrupt(point, lambda: one.release(4))
        if one.waiting == 3:
            assert where.startswith(ENTRIES), where
            one.release(4)
        assert all(wait.result(PATIENCE) for wait in waits), where
        assert (one.available, one.waiting) == (0, 0), where
        return where

    assert len(every_point(make)) > 5


def test_a_block_that_is_interrupted_as_it_ends_gives_its_permits_back() -> None:
    def make(point: int) -> str:
        semaphore = WeightedSemaphore(2)
        block = semaphore.hold(2)
        block.__enter__()
        where, _ = interrupt(point, lambda: block.__exit__(None, None, None))
        if not where.startswith("call in Hold.__exit__"):  # before its first step
            assert semaphore.available == 2, where
        return where

    assert len(every_point(make)) > 3


def test_an_interrupted_giving_up_wakes_those_behind() -> None:
    def make(point: int) -> str:
        one = WeightedSemaphore(4)
        one.acquire(2)
        behind: list[Future[Any]] = []

        def others_come() -> None:
            behind.extend(in_thread(one.acquire) for _ in range(2))
            until_waiting(one, 3)
            clock.advance(5.0)

        clock = Helped(others_come)
        context = Context(clock=clock)
        where, outcome = interrupt(point, lambda: one.acquire(4, timeout=5.0, context=context))
        assert isinstance(outcome, Interrupted | AcquireTimeout)
        assert all(wait.result(PATIENCE) for wait in behind), where
        assert (one.available, one.waiting) == (2 - len(behind), 0), where
        return where

    assert len(every_point(make)) > 20


def test_an_interrupted_coroutine() -> None:
    """asyncio cancels at an await; a KeyboardInterrupt may come anywhere else, too."""

    def make(point: int) -> str:
        one = WeightedSemaphore(3)
        one.acquire(2)

        async def main() -> object:
            asyncio.get_running_loop().call_soon(one.release, 2)
            return await one.aacquire(3)

        # The interruption goes through the loop, which is then closed with the task pending.
        where, outcome = interrupt(point, lambda: run_without_mercy(main()))
        if one.available == 1:
            one.release(2)  # the loop did not get that far
        assert one.available == (0 if outcome is True else 3), where
        assert one.waiting == 0, where
        return where

    assert len(every_point(make)) > 10


def run_without_mercy(coroutine: Any) -> Any:
    """As asyncio.run(), which would cancel what is left; here it is destroyed."""
    loop = asyncio.new_event_loop()
    task = loop.create_task(coroutine)
    try:
        return loop.run_until_complete(task)
    finally:
        if task.done():
            task.exception()
        else:
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            coroutine.close()
        loop.close()


# -- the real thing ----------------------------------------------------------------------------


@pytest.mark.skipif(os.name == "nt", reason="signals are another thing there")
def test_ctrl_c_ends_a_wait_and_leaves_the_line_in_order() -> None:
    program = """
        import signal, threading, os
        from ion_actors.semaphore import WeightedSemaphore

        one = WeightedSemaphore(4)
        one.acquire(2)
        behind = []

        def interrupt():
            while one.waiting < 1:
                pass
            other = threading.Thread(target=lambda: behind.append(one.acquire()))
            other.start()
            while one.waiting < 2:
                pass
            os.kill(os.getpid(), signal.SIGINT)
            other.join()

        helper = threading.Thread(target=interrupt)
        helper.start()
        try:
            with one.hold(4):
                print("never")
        except KeyboardInterrupt:
            helper.join()
            print("interrupted", one.available, one.waiting, behind)
    """
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program)],
        capture_output=True, text=True, timeout=PATIENCE, check=False,
        env={**os.environ, "PYTHONPATH": str(LIBRARY.parent)},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "interrupted 1 0 [True]\n"), done.stderr


@pytest.mark.skipif(os.name == "nt", reason="signals are another thing there")
@pytest.mark.skipif(
    threading.current_thread() is not threading.main_thread(), reason="signals go to the main one"
)
def test_a_signal_handler_may_release_at_any_time() -> None:
    """It runs in the midst of other calls of the same thread, perhaps under the lock."""
    one = WeightedSemaphore(10_000)
    one.acquire(5_000)
    handled = 0

    def release_one(*_: object) -> None:
        nonlocal handled
        handled += 1
        one.release()

    before = signal.signal(signal.SIGALRM, release_one)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    try:
        while handled < 200:
            one.acquire(3)
            one.try_acquire(2) and one.release(2)
            one.release(3)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert one.available == 5_000 + handled


def test_a_finalizer_may_release_at_any_time() -> None:
    one = WeightedSemaphore(1)

    class Permit:
        def __init__(self) -> None:
            one.acquire()

        def __del__(self) -> None:
            one.release()

    Permit()
    eventually(lambda: one.available == 1)
