"""Where no thread at all can be started, not even for what need not block: who waits helps out."""

from __future__ import annotations

import _thread
import asyncio
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from ion_actors import Context, DeadlineExceeded, Pool, TaskExpired, clock, delivery
from ion_actors.context import current_context
from ion_actors.logs import flush
from ion_actors.semaphore import WeightedSemaphore
from ion_actors.standby import STANDBY

PATIENCE = 30.0


class System:
    def __init__(self) -> None:
        self.full = False

    def fill(self) -> None:
        """No more threads from now on; the clock has none."""
        while any(one.name == "ion_actors-timer" for one in threading.enumerate()):
            threading.Event().wait(0.01)
        self.full = True

    def limited(self, start: Any) -> Any:
        def limited(*args: Any) -> Any:
            if self.full:
                raise RuntimeError("can't start new thread")
            return start(*args)

        return limited


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> Iterator[System]:
    system = System()
    monkeypatch.setattr(threading.Thread, "start", system.limited(threading.Thread.start))
    raw = system.limited(_thread.start_new_thread)
    monkeypatch.setattr(_thread, "start_new_thread", raw)
    monkeypatch.setattr(clock, "start_new_thread", raw)
    yield system
    system.full = False
    assert flush(PATIENCE)
    assert delivery.FINALIZERS.flush(PATIENCE)
    assert not STANDBY.busy or STANDBY.attend() is None


@pytest.fixture
def pool() -> Iterator[Pool]:
    """Of one worker, which has its thread."""
    with Pool(1) as pool:
        pool.submit(int).result(PATIENCE)
        yield pool


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    gate = threading.Event()
    yield gate
    gate.set()


def test_tasks_have_their_time_limits(system: System, pool: Pool) -> None:
    system.fill()
    future = pool.options(timeout=0.05).submit(lambda: current_context().wait(timeout=PATIENCE))
    with pytest.raises(DeadlineExceeded):
        future.result(PATIENCE)


def test_a_task_expires_while_it_is_queued(
    system: System, pool: Pool, gate: threading.Event
) -> None:
    pool.submit(gate.wait)
    system.fill()
    with pytest.raises(TaskExpired):
        pool.options(ttl=0.05).submit(int).result(PATIENCE)


def test_contexts_and_semaphores_keep_their_deadlines_without_any_pool(system: System) -> None:
    semaphore = WeightedSemaphore(1)
    semaphore.acquire()
    system.fill()
    assert Context(timeout=0.05).wait(timeout=PATIENCE)
    with pytest.raises(DeadlineExceeded):
        semaphore.acquire(context=Context(timeout=0.05))


def test_a_callback_that_nobody_would_call_is_refused(system: System) -> None:
    context = Context(timeout=PATIENCE)
    system.fill()
    with pytest.raises(RuntimeError, match="can't start new thread"):
        context.add_callback(lambda: None)
    assert not context.cancelled
    assert clock.system_clock.timers == 0


def test_once_there_are_threads_again_callbacks_are_taken_though_jobs_are_left(
    system: System,
) -> None:
    tried = threading.Event()
    STANDBY.ask(lambda: tried.set() or None)  # nobody has come to it since
    assert STANDBY.neglected
    context = Context(timeout=PATIENCE)
    called = threading.Event()
    context.add_callback(called.set)
    assert tried.wait(PATIENCE)
    context.cancel()
    assert called.wait(PATIENCE)


def test_coroutines_are_woken_on_their_loop(system: System) -> None:
    async def both() -> tuple[bool, bool]:
        system.fill()
        ended = await Context(timeout=0.05).await_(timeout=PATIENCE)
        return ended, await Context().await_(timeout=0.05)

    assert asyncio.run(both()) == (True, False)


def test_a_callback_that_blocks_holds_up_neither_the_pool_nor_its_end(
    system: System, gate: threading.Event
) -> None:
    pool = Pool(1)
    begun = threading.Event()
    pool.submit(lambda: (begun.set(), gate.wait(PATIENCE)))
    assert begun.wait(PATIENCE)
    queued = pool.submit(int)
    called = threading.Event()
    queued.add_done_callback(lambda _: (called.set(), gate.wait(PATIENCE)))
    system.fill()
    began = time.monotonic()
    pool.close(0.05)
    assert time.monotonic() - began < PATIENCE / 2
    assert called.wait(PATIENCE)  # as the supervisor's last act


def test_callbacks_are_made_though_no_thread_comes(
    system: System, pool: Pool, gate: threading.Event
) -> None:
    pool.submit(gate.wait)
    told: list[str] = []
    called = threading.Event()
    system.fill()
    future = pool.options(ttl=0.01).submit(int)
    future.add_done_callback(lambda _: (told.append(threading.current_thread().name), called.set()))
    assert called.wait(PATIENCE)
    assert len(told) == 1


def test_callbacks_get_a_thread_as_soon_as_there_is_one(
    system: System, pool: Pool, gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "_LAST_RESORT", PATIENCE)
    pool.submit(gate.wait)
    told: list[str] = []
    called = threading.Event()
    system.fill()
    future = pool.options(ttl=0.01).submit(int)
    future.add_done_callback(lambda _: (told.append(threading.current_thread().name), called.set()))
    while not delivery.CALLBACK_THREADS.pending:
        threading.Event().wait(0.001)
    system.full = False
    assert called.wait(PATIENCE)
    assert told == ["ion_actors-callbacks"]


def test_dead_letters_are_told_once_there_is_a_thread(
    system: System, pool: Pool, gate: threading.Event
) -> None:
    letters: list[Any] = []
    told = threading.Event()
    pool.dead_letters.subscribe(lambda letter: (letters.append(letter), told.set()))
    pool.submit(gate.wait)
    system.fill()
    future = pool.options(ttl=0.01).submit(int)
    with pytest.raises(TaskExpired):
        future.result(PATIENCE)
    assert letters == []
    system.full = False
    assert told.wait(PATIENCE)  # nothing else happens to the pool
    assert len(letters) == 1


def test_a_signal_drains_the_pool(system: System) -> None:
    passed_on = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: passed_on.set())
    try:
        pool = Pool(1)
        assert pool.submit(int).result(PATIENCE) == 0
        gate = threading.Event()
        future = pool.submit(gate.wait, PATIENCE)
        with pool.drain_on_signal(timeout=PATIENCE):
            system.fill()
            signal.raise_signal(signal.SIGTERM)  # raises nothing here
            assert pool.is_draining
            assert not passed_on.wait(1.5)  # it waits for the drain, also past the last resort
            gate.set()
            # Again and again: CPython does not wake this thread for a signal that comes just
            # before it begins to wait.
            assert any(passed_on.wait(0.01) for _ in range(int(PATIENCE * 100)))
        assert pool.is_closed
        assert future.result(PATIENCE)
    finally:
        signal.signal(signal.SIGTERM, before)
