"""Finalizers of what users gave to a pool run where they may block."""

from __future__ import annotations

import concurrent.futures
import contextlib
import contextvars
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from ion_actors import Close, Context, Future, Pool
from ion_actors.delivery import FINALIZERS, is_kept_free
from ion_actors.testing import VirtualClock
from ion_actors.workerpool.model.backoff import Backoff
from ion_actors.workerpool.model.recovery import PanicRecovery

PATIENCE = 30.0
LIMIT = 0.02
GLANCE = 0.01

#: Without the GIL an object belongs to the thread that has made it. Its finalizer runs there, as
#: soon as that thread runs Python code again, whoever has released the last reference.
WITHOUT_GIL = not getattr(sys, "_is_gil_enabled", lambda: True)()
LEAVINGS_NAMES = {"ion_actors-finalizers", *(["MainThread"] if WITHOUT_GIL else [])}

variable = contextvars.ContextVar[object]("variable")


class Recorder:
    """Notes the threads on which the finalizers of what it makes run."""

    def __init__(self) -> None:
        self.threads: list[str] = []
        self.free_of_locks: list[bool] = []
        self.pool: Pool | None = None
        self.done = threading.Event()

    def thing(self) -> Thing:
        return Thing(self)

    def await_finalizer(self) -> None:
        """Wait in this thread, which goes on running code: see :data:`WITHOUT_GIL`."""
        for _ in range(int(PATIENCE / GLANCE)):
            if self.done.wait(GLANCE):
                return
        raise AssertionError("it was never finalized")

    def finalized(self) -> None:
        self.threads.append(threading.current_thread().name)
        if (pool := self.pool) is not None:
            asks = threading.Thread(target=pool.metrics, daemon=True)
            asks.start()
            asks.join(PATIENCE)
            self.free_of_locks.append(not asks.is_alive())
        self.done.set()


class Thing:
    """An argument, a key, a value of a context variable, what a frame refers to."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder

    def __call__(self) -> None:
        """It may be a task, too."""

    def __del__(self) -> None:
        self.recorder.finalized()


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@contextlib.contextmanager
def busy_pool(recorder: Recorder) -> Iterator[Pool]:
    gate, begun = threading.Event(), threading.Event()
    with Pool(size=1, name="p") as pool:
        recorder.pool = pool
        pool.submit(lambda: (begun.set(), gate.wait(PATIENCE)))
        assert begun.wait(PATIENCE)
        try:
            yield pool
        finally:
            gate.set()


def argument(pool: Pool, thing: Thing) -> None:
    pool.options(timeout=LIMIT).submit(print, thing)


def function(pool: Pool, thing: Thing) -> None:
    pool.options(ttl=LIMIT).submit(thing)


def value_of_a_variable(pool: Pool, thing: Thing) -> None:
    variable.set(thing)
    pool.options(timeout=LIMIT).submit(print)


def key(pool: Pool, thing: Thing) -> None:
    pool.options(timeout=LIMIT, key=thing).submit(print)


def under_a_deadline(pool: Pool, thing: Thing) -> None:
    with Context(timeout=LIMIT):
        pool.submit(print, thing)


@pytest.mark.parametrize("give", [argument, function, value_of_a_variable, key, under_a_deadline])
def test_those_of_a_task_whose_time_is_up_do_not_keep_the_clock(
    give: Callable[[Pool, Thing], None], recorder: Recorder
):
    with busy_pool(recorder) as pool:
        contextvars.Context().run(lambda: give(pool, recorder.thing()))
        recorder.await_finalizer()
    assert len(recorder.threads) == 1
    assert LEAVINGS_NAMES.issuperset(recorder.threads)
    assert recorder.free_of_locks == [True]


def test_time_limits_go_on_while_one_blocks():
    gate = threading.Event()

    class Connection:
        def __del__(self) -> None:
            gate.wait(PATIENCE)

    with Pool(size=1) as pool:
        pool.submit(gate.wait)
        given: list[Future[None]] = []

        def give() -> None:
            given.append(pool.options(timeout=LIMIT).submit(print, Connection()))
            while not gate.wait(GLANCE):
                pass  # without the GIL the finalizer runs here

        thread = threading.Thread(target=give)
        thread.start()
        while not given:
            gate.wait(GLANCE)
        assert given[0].exception(PATIENCE)
        with Context(timeout=LIMIT) as context:
            assert context.wait(timeout=PATIENCE)
        second = pool.options(timeout=LIMIT).submit(print)
        began = time.monotonic()
        assert second.exception(PATIENCE)
        assert time.monotonic() - began < 4  # after 5 s a clock whose thread hangs gets another one
        gate.set()
        thread.join()


def test_those_of_a_queue_that_is_dropped_do_not_keep_the_supervisor(recorder: Recorder):
    with busy_pool(recorder) as pool:
        future = pool.options(key=recorder.thing()).submit(print, recorder.thing())
        pool.actor_ref.tell(Close(PATIENCE))
        assert concurrent.futures.wait([future], PATIENCE).done
        del future
    recorder.await_finalizer()
    assert FINALIZERS.flush(PATIENCE)
    assert not [name for name in recorder.threads if name.endswith("-supervisor")]


def test_those_of_what_a_failed_initializer_had_at_hand_do_not_keep_the_supervisor(
    recorder: Recorder,
):
    tries = []

    def initialize() -> None:
        connection = recorder.thing()
        tries.append(1)
        if len(tries) < 3:
            raise ConnectionError(f"refused with {type(connection).__name__}")

    policy = PanicRecovery(backoff=Backoff(initial=0.0))
    silent = logging.getLogger("silent")  # what is logged is held for longer
    silent.disabled = True
    with Pool(size=1, initializer=initialize, panic_recovery=policy, logger=silent) as pool:
        assert pool.submit(pow, 2, 3).result(PATIENCE) == 8
    assert FINALIZERS.flush(PATIENCE)
    assert not [name for name in recorder.threads if name.endswith("-supervisor")]
    assert len(recorder.threads) == 3


def test_those_of_a_callback_of_a_context_do_not_keep_the_clock(recorder: Recorder):
    Context(timeout=LIMIT).add_callback(recorder.thing())
    recorder.await_finalizer()
    assert "ion_actors-timer" not in recorder.threads


def test_a_running_task_keeps_what_it_was_given(recorder: Recorder, clock: VirtualClock):
    thing = recorder.thing()
    begun, ended = threading.Event(), threading.Event()
    kept = []

    def task(given: Thing) -> None:
        begun.set()
        assert ended.wait(PATIENCE)
        kept.append(not is_kept_free() and not given.recorder.threads)

    with Pool(size=1, context=Context(clock=clock)) as pool:
        future = pool.options(timeout=1.0).submit(task, thing)
        del thing
        assert begun.wait(PATIENCE)
        clock.advance(1.0)
        assert future.exception(PATIENCE)
        ended.set()
    recorder.await_finalizer()
    assert kept == [True]
    assert len(recorder.threads) == 1
