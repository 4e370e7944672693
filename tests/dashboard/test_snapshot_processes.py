"""Snapshots of pools whose tasks run in child processes, or in the middle of others."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ion_actors
from ion_actors import Pool
from tests.backends.conftest import forkserver_runs, no_child_is_left, quick_start
from tests.workerpool.helpers import Gate, eventually

__all__ = ["forkserver_runs", "no_child_is_left", "quick_start"]

pytestmark = pytest.mark.usefixtures("no_child_is_left", "quick_start")

PATIENCE = 30.0
SECRET = "the-password-of-somebody"


def sit(gate: Gate, _: str) -> None:
    gate()


def test_a_task_in_a_child_process_is_seen_with_its_stack() -> None:
    gate = Gate()
    with Pool(1, name="children", backend="process") as pool:
        pool.options(name="in a child").submit(sit, gate, SECRET)
        gate.await_entered()
        found = pool.snapshot().as_dict()
        gate.open()
    assert found["backend"] == "process"
    (worker,) = found["workers"]
    assert (worker["task"], worker["state"]) == ("in a child", "busy")
    assert worker["pid"] not in (None, os.getpid())
    assert "in sit" in worker["stack"]
    assert SECRET not in json.dumps(found)


def _stands_still(pid: int) -> bool:
    """Whether all of its threads have heard of SIGSTOP."""
    states = Path(f"/proc/{pid}/task").glob("*/stat")
    return all(one.read_text().rpartition(")")[2].split()[0] == "T" for one in states)


def test_children_that_do_not_answer_take_a_second_together() -> None:
    gate = Gate()
    with (
        Pool(2, name="one", backend="process") as one,
        Pool(1, name="two", backend="process") as two,
    ):
        for pool in (one, one, two):
            pool.submit(gate)
        gate.await_entered(3)
        pids = [worker.pid for pool in (one, two) for worker in pool.snapshot().workers]
        try:
            for pid in pids:
                assert pid is not None
                os.kill(pid, signal.SIGSTOP)
                eventually(lambda pid=pid: _stands_still(pid))
            began = time.monotonic()
            quick = ion_actors.snapshot(stacks=False)
            took_without = time.monotonic() - began
            began = time.monotonic()
            found = ion_actors.snapshot()
            took = time.monotonic() - began
        finally:
            for pid in pids:
                assert pid is not None
                os.kill(pid, signal.SIGCONT)
        gate.open()
    shown = [worker for pool in found.pools for worker in pool.workers if worker.pid in pids]
    assert len(shown) == 3
    assert all("does not answer" in worker.stack for worker in shown), shown
    assert took < 2.5  # not one second each
    assert took_without < 0.5
    assert quick.pools


def test_a_worker_that_starts_says_so() -> None:
    gate, began = threading.Event(), threading.Event()

    def prepare() -> None:
        began.set()
        gate.wait(PATIENCE)

    with Pool(1, name="slow", initializer=prepare) as pool:
        began.wait(PATIENCE)
        (worker,) = pool.snapshot().workers
        gate.set()
        assert (worker.state, worker.task) == ("starting", None)
        assert "in prepare" in worker.stack
        eventually(lambda: pool.snapshot().workers[0].state == "idle")


def test_a_task_below_another_is_seen() -> None:
    gate, began = threading.Event(), threading.Event()

    def inner() -> None:
        began.set()
        gate.wait(PATIENCE)

    with Pool(1, name="nested") as pool:

        def outer() -> None:
            pool.options(name="inner").submit(inner).result(PATIENCE)

        pool.options(name="outer").submit(outer)
        began.wait(PATIENCE)
        (worker,) = pool.snapshot().workers
        gate.set()
    assert (worker.task, worker.interrupted) == ("inner", ("outer",))


def test_a_call_that_was_left_behind_is_seen(occupy: Callable[..., Any]) -> None:
    gate, began = threading.Event(), threading.Event()

    def block() -> None:
        began.set()
        gate.wait(PATIENCE)

    async def leave() -> None:
        import asyncio

        task = asyncio.ensure_future(asyncio.to_thread(block))
        await asyncio.to_thread(began.wait, PATIENCE)
        task.cancel()

    with Pool(1, name="left") as pool:
        pool.options(name="hasty").submit(leave).result(PATIENCE)
        found = pool.snapshot()
        gate.set()
    assert found.left_behind == ("hasty",)
    assert found.workers[0].state == "idle"


def test_a_retried_task_tells_of_its_failures(clock: Any) -> None:
    def fail() -> None:
        raise ValueError("no such invoice")

    context = ion_actors.Context(ion_actors.background(), clock=clock)
    with Pool(1, name="retried", context=context) as pool:
        backoff = ion_actors.Backoff(7.0, maximum=7.0, jitter=0.0)
        retry = ion_actors.Retry(attempts=2, backoff=backoff)
        pool.options(name="try", retry=retry).submit(fail)
        eventually(lambda: pool.metrics().delayed == 1)
        found = pool.snapshot()
        (waiting,) = found.waiting_tasks
        pool.close(0)
    assert (waiting.tries, "no such invoice" in waiting.error) == (1, True)
    assert waiting.due_in == 7.0
    assert (found.delayed, found.retries, found.queue_time) == (1, 1, None)


def test_of_many_coroutines_those_that_run_longest_are_told() -> None:
    async def wait() -> None:
        import asyncio

        await asyncio.Event().wait()

    with Pool(300, name="coroutines", backend="asyncio") as pool:
        for number in range(260):
            pool.options(name=f"wait {number}").submit(wait)
        eventually(lambda: pool.metrics().running == 260)
        eventually(lambda: "in wait" in pool.snapshot().workers[0].stack)
        found = pool.snapshot()
        pool.close(0)
    assert found.backend == "asyncio"
    assert (len(found.workers), found.more_workers) == (250, 50)
    assert {one.state for one in found.workers} == {"busy"}
    ages = [one.age for one in found.workers if one.age is not None]
    assert ages == sorted(ages, reverse=True)
