"""What ended tasks leave running in threads: it is named, and nobody waits for it for long."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator

import pytest

from ion_actors import Cancelled, Context, DeadlineExceeded, Pool, TaskState

PATIENCE = 30.0


class Gate:
    """A call that is stuck until the test is over."""

    def __init__(self) -> None:
        self.begun, self.opened = threading.Event(), threading.Event()
        self.threads: list[threading.Thread] = []

    def wait(self) -> str:
        self.threads.append(threading.current_thread())
        self.begun.set()
        assert self.opened.wait(PATIENCE)
        return "open"

    def open(self) -> None:
        self.opened.set()
        for one in self.threads:
            one.join(PATIENCE)


@pytest.fixture
def gate() -> Iterator[Gate]:
    found = Gate()
    yield found
    found.open()


def leave(pool: Pool, gate: Gate) -> None:
    """Have a task end by its context while its call is stuck."""

    async def stuck_job() -> None:
        await asyncio.to_thread(gate.wait)

    context = Context()
    future = pool.options(context=context).submit(stuck_job)
    assert gate.begun.wait(PATIENCE)
    context.cancel()
    assert isinstance(future.exception(PATIENCE), Cancelled)
    assert pool.submit(int).result(PATIENCE) == 0  # the worker is free: the task is over


@pytest.mark.parametrize("end", ["drain", "close"])
def test_the_end_names_it_and_does_not_wait_for_it(gate, caplog, end):
    pool = Pool(1, name="p")
    leave(pool, gate)
    assert [name.rpartition(".")[2] for name in pool.dump().left_behind] == ["stuck_job"]
    assert "stuck_job' has ended, and left a call running" in str(pool.dump())
    assert pool.metrics().running == 0
    began = time.monotonic()
    report = getattr(pool, end)(PATIENCE)
    assert time.monotonic() - began < PATIENCE / 2
    (left,) = report.unfinished
    assert left.state is TaskState.LEFT_BEHIND
    assert left.name.endswith("stuck_job")
    assert left.worker == "p-0"
    assert left.age is not None
    assert left.age > 0
    assert "in wait" in left.stack
    assert "stuck_job (p-0)" in str(report)
    assert "has left a call behind" in caplog.text


def test_at_the_end_of_its_time_a_drain_names_it_and_raises_nothing(gate):
    pool = Pool(1)
    leave(pool, gate)
    (left,) = pool.drain(0.05).running
    assert left.state is TaskState.LEFT_BEHIND


def test_what_ends_in_a_moment_is_waited_for(gate):
    pool = Pool(1)
    leave(pool, gate)
    ended = threading.Thread(target=lambda: report.append(pool.drain(PATIENCE)))
    report = []  # type: ignore[var-annotated]
    ended.start()
    gate.open()
    ended.join(PATIENCE)
    assert report[0].unfinished == ()
    assert pool.dump().left_behind == ()


def test_it_is_not_left_behind_while_its_task_runs(gate):
    async def job() -> str:
        return await asyncio.to_thread(gate.wait)

    with Pool(1) as pool:
        future = pool.submit(job)
        assert gate.begun.wait(PATIENCE)
        assert pool.dump().left_behind == ()
        gate.opened.set()
        assert future.result(PATIENCE) == "open"
        assert pool.dump().left_behind == ()


def test_what_was_not_awaited_is_left_behind_too(gate):
    async def forgetful() -> str:
        asyncio.get_running_loop().run_in_executor(None, gate.wait)
        await asyncio.to_thread(gate.begun.wait)
        return "done"

    pool = Pool(1)
    assert pool.submit(forgetful).result(PATIENCE) == "done"
    (left,) = pool.drain(PATIENCE).running
    assert left.name.endswith("forgetful")


def test_a_caller_that_runs_a_task_does_not_wait_for_it(gate):
    hold = threading.Event()

    async def stuck_job() -> None:
        await asyncio.to_thread(gate.wait)

    pool = Pool(1, queue_size=0, overflow="caller_runs")
    begun = threading.Event()
    pool.submit(lambda: (begun.set(), hold.wait(PATIENCE)))
    assert begun.wait(PATIENCE)
    began = time.monotonic()
    future = pool.options(timeout=0.1).submit(stuck_job)
    assert isinstance(future.exception(PATIENCE), DeadlineExceeded)
    assert time.monotonic() - began < PATIENCE / 2
    hold.set()
    (left,) = pool.drain(PATIENCE).running
    assert left.name.endswith("stuck_job")


def test_each_pool_names_its_own(gate):
    with Pool(1) as other:
        pool = Pool(1)
        leave(pool, gate)
        assert other.dump().left_behind == ()
        assert other.drain(PATIENCE).running == ()
        assert len(pool.drain(PATIENCE).running) == 1


def test_many_calls_run_at_once_and_their_threads_are_used_again():
    async def job() -> int:
        def meet() -> str:
            barrier.wait()
            return threading.current_thread().name

        barrier = threading.Barrier(4, timeout=PATIENCE)
        names = set[str]()
        for _ in range(3):
            names.update(await asyncio.gather(*[asyncio.to_thread(meet) for _ in range(4)]))
        return len(names)

    with Pool(1) as pool:
        assert pool.submit(job).result(PATIENCE) <= 8


def test_the_interpreter_exits_in_time():
    source = """
        import asyncio, atexit, threading, time
        from ion_actors import Pool

        async def stuck():
            await asyncio.to_thread(threading.Event().wait)

        pool = Pool(1)
        pool.options(timeout=0.1).submit(stuck).exception()
        began = time.monotonic()
        atexit.register(lambda: print(time.monotonic() - began < 15))
        """
    command = [sys.executable, "-c", textwrap.dedent(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "True")
    assert "has left a call behind" in done.stderr
