"""Metrics and done-callbacks are the user's code: no supervisor and no clock waits for them."""

from __future__ import annotations

import concurrent.futures
import threading
import time
from collections.abc import Iterator

import pytest

from ion_actors import Pool
from ion_actors.clock import system_clock
from ion_actors.observe import HOOKS
from ion_actors.workerpool.messages import Drain
from tests.workerpool.helpers import threads_of

PATIENCE = 30.0


class BlockingMetrics:
    """As one whose server does not answer, once a task was dropped."""

    def __init__(self) -> None:
        self.begun, self.gate = threading.Event(), threading.Event()
        self.thread: threading.Thread | None = None
        self.cancelled = 0

    def inc(self, name: str, **labels: str) -> None:
        if name.endswith("completed_total") and labels["status"] == "cancelled":
            self.thread = threading.current_thread()
            self.begun.set()
            self.gate.wait(PATIENCE)
            self.cancelled += 1

    def add(self, name: str, value: float, **labels: str) -> None: ...

    gauge = histogram = add


@pytest.fixture
def metrics() -> Iterator[BlockingMetrics]:
    found = BlockingMetrics()
    yield found
    found.gate.set()
    assert HOOKS.flush(PATIENCE)


def test_a_close_drops_tasks_while_a_metric_blocks(metrics):
    hold, begun = threading.Event(), threading.Event()
    pool = Pool(1, metrics=metrics)
    held = pool.submit(lambda: (begun.set(), hold.wait(PATIENCE)))
    assert begun.wait(PATIENCE)
    queued = [pool.submit(int) for _ in range(3)]
    closed = threading.Thread(target=pool.close, args=(PATIENCE,))
    closed.start()
    assert metrics.begun.wait(PATIENCE)
    assert not concurrent.futures.wait(queued, PATIENCE).not_done
    hold.set()
    closed.join(PATIENCE / 2)
    assert not closed.is_alive()
    assert held.done()
    assert metrics.thread is not None
    assert metrics.thread.name == "ion_actors-hooks"
    metrics.gate.set()
    assert HOOKS.flush(PATIENCE)
    assert metrics.cancelled == 3


def test_the_clock_drops_a_task_while_a_metric_blocks(metrics):
    hold, begun, later = threading.Event(), threading.Event(), threading.Event()
    with Pool(1, metrics=metrics) as pool:
        pool.submit(lambda: (begun.set(), hold.wait(PATIENCE)))
        assert begun.wait(PATIENCE)
        expired = pool.options(ttl=0.01).submit(int)
        assert not concurrent.futures.wait([expired], PATIENCE).not_done
        assert metrics.begun.wait(PATIENCE)
        system_clock.call_at(system_clock.monotonic(), later.set)
        assert later.wait(PATIENCE)
        assert metrics.thread is not None
        assert metrics.thread.name == "ion_actors-hooks"
        hold.set()


def test_a_callback_of_a_reply_does_not_block_the_supervisor():
    gate, called = threading.Event(), threading.Event()
    pool = Pool(1)
    reply = pool.actor_ref.ask(Drain(PATIENCE), block=False)
    threads: list[threading.Thread] = []

    def block(_: object) -> None:
        threads.append(threading.current_thread())
        called.set()
        gate.wait(PATIENCE)

    reply.add_done_callback(block)  # type: ignore[attr-defined]
    assert called.wait(PATIENCE)
    began = time.monotonic()
    pool.close(PATIENCE)
    assert time.monotonic() - began < PATIENCE / 2
    assert threads_of(pool) == []
    gate.set()
    threads[0].join(PATIENCE)
