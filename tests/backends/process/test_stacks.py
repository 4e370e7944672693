"""Where the tasks of child processes are: asked of the child, or seen from outside."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ion_actors import Context, DrainTimeout, Pool, StuckTask, TaskAbandoned, TaskPanicked
from ion_actors.backends.process import ProcessBackend
from ion_actors.testing import VirtualClock
from ion_actors.workerpool.messages import GetState
from ion_actors.workerpool.model.metrics import PoolState
from tests.backends.process import errands
from tests.workerpool.helpers import PATIENCE, eventually, run_in_thread

pytestmark = [
    pytest.mark.usefixtures("no_child_is_left"),
    pytest.mark.skipif(sys.platform != "linux", reason="a child is stopped by what is in /proc"),
]

MILD = ProcessBackend(grace=None)  # nothing is ever forced


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    return tmp_path / "mark"


@pytest.fixture
def pool() -> Iterator[Pool]:
    with Pool(1, backend=MILD, name="p") as pool:
        yield pool
        pool.close(0)


def begun(mark: Path) -> int:
    """The pid of the child, once its task has begun."""
    eventually(lambda: mark.exists() and mark.read_text())
    return int(mark.read_text())


def names(stack: str) -> list[str]:
    return re.findall(r'File ".*", line \d+, in (\w+)', stack)


def test_a_dump_shows_where_the_task_is_in_the_child(pool: Pool, mark: Path) -> None:
    pool.submit(errands.nap, mark)
    pid = begun(mark)
    eventually(lambda: pool.dump().workers[0].stack)
    (worker,) = pool.dump().workers
    assert names(worker.stack) == ["nap"]
    assert "time.sleep(FOREVER)" in worker.stack
    assert (worker.pid, worker.task, worker.starting) == (pid, "nap", False)
    assert re.search(rf"p-0: 'nap' for \d+\.\d+ s in process {pid}\n      File", str(pool.dump()))


def test_of_a_coroutine_it_shows_what_that_awaits(pool: Pool, mark: Path) -> None:
    pool.submit(errands.heed_in_coroutine, mark)
    begun(mark)
    eventually(lambda: names(pool.dump().workers[0].stack) == ["heed_in_coroutine", "sleep"])


def test_a_child_that_is_idle_is_not_asked(pool: Pool) -> None:
    pid = pool.submit(errands.pid).result(PATIENCE)
    eventually(lambda: pool.dump().workers[0].task is None)
    errands.stop(pid)
    began = time.monotonic()
    (worker,) = pool.dump().workers
    assert time.monotonic() - began < 0.5
    assert (worker.stack, worker.starting) == ("", False)
    assert str(pool.dump()).endswith("p-0: idle")
    os.kill(pid, signal.SIGCONT)


def test_who_is_stopped_does_not_answer_and_all_are_asked_at_once(tmp_path: Path) -> None:
    marks = [tmp_path / str(index) for index in range(4)]
    with Pool(4, backend=MILD) as pool:
        for mark in marks:
            pool.submit(errands.nap, mark)
        pids = [begun(mark) for mark in marks]
        for pid in pids[1:]:
            errands.stop(pid)
        began = time.monotonic()
        workers = {worker.pid: worker.stack for worker in pool.dump().workers}
        assert time.monotonic() - began < 2, "a second each, one after the other"
        assert names(workers.pop(pids[0])) == ["nap"]
        for pid, stack in workers.items():
            assert stack == f"(child process {pid} does not answer: it is stopped)\n"
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        for pid in pids:
            eventually(lambda: names(stack_in(pool, pid)) == ["nap"])
        pool.close(0)


def stack_in(pool: Pool, pid: int) -> str:
    (found,) = [one.stack for one in pool.dump().workers if one.pid == pid]
    return found


def test_native_code_that_holds_the_gil_is_seen_from_outside_and_not_disturbed(
    pool: Pool, mark: Path
) -> None:
    task = pool.submit(errands.spin_natively, mark)
    begun(mark)
    eventually(lambda: "does not answer" in pool.dump().workers[0].stack)
    for _ in range(2):
        (worker,) = pool.dump().workers
        assert "does not answer: perhaps native code holds the GIL" in worker.stack
        assert names(worker.stack) == ["spin_natively"]
    assert not task.done(), "a system call of the task was interrupted"
    os.kill(worker.pid or 0, signal.SIGABRT)
    with pytest.raises(TaskPanicked) as panicked:
        task.result(PATIENCE)
    words = panicked.value.__cause__.last_words  # type: ignore[union-attr]
    assert words.startswith("Fatal Python error: Aborted"), "what was asked for is no last word"


def test_a_worker_whose_child_is_starting_says_so(mark: Path) -> None:
    with Pool(1, backend=MILD, initializer=errands.nap, initargs=(mark,), name="p") as pool:
        assert pool.dump().workers[0].starting
        pid = begun(mark)
        eventually(lambda: names(pool.dump().workers[0].stack) == ["nap"])
        (worker,) = pool.dump().workers
        assert (worker.starting, worker.task) == (True, None)
        assert worker.stack.startswith(f"(child process {pid} is starting)\n")
        assert "p-0: starting\n" in str(pool.dump())
        pool.close(0)


def test_so_does_a_task_that_waits_for_its_child(tmp_path: Path) -> None:
    second, go = tmp_path / "second", tmp_path / "go"
    backend = ProcessBackend(max_tasks_per_child=1, grace=None)
    with Pool(1, backend=backend, initializer=errands.wait_if_there, initargs=(second, go)) as pool:
        pool.submit(Path.touch, second).result(PATIENCE)  # the next child waits in its initializer
        task = pool.submit(errands.pid)
        eventually(lambda: "wait_if_there" in pool.dump().workers[0].stack)
        (worker,) = pool.dump().workers
        assert (worker.task, worker.starting) == ("pid", True)
        assert "is starting)" in worker.stack
        go.touch()
        task.result(PATIENCE)


def test_a_warning_of_a_stuck_task_shows_it_and_the_supervisor_does_not_wait(
    clock: VirtualClock, mark: Path, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[StuckTask] = []
    with Pool(
        1, backend=MILD, context=Context(clock=clock), stuck_after=10, on_stuck=told.append
    ) as pool:
        pool.submit(errands.nap, mark)
        pid = begun(mark)
        errands.stop(pid)
        for _ in range(2):
            clock.wait_for_timers(1)
            clock.advance(5)
        began = time.monotonic()
        assert pool.actor_ref.ask(GetState()) is PoolState.RUNNING
        assert time.monotonic() - began < 0.5
        os.kill(pid, signal.SIGCONT)  # now it answers
        eventually(lambda: told)
        assert names(told[0].stack) == ["nap"]
        (record,) = [one for one in caplog.records if "has been running" in one.getMessage()]
        assert "time.sleep(FOREVER)" in record.getMessage()
        pool.close(0)


@pytest.mark.parametrize("verb", ["drain", "close"])
def test_an_abandoned_task_says_where_it_was(verb: str, mark: Path) -> None:
    pool = Pool(1, backend=MILD)
    task = pool.submit(errands.stubborn, mark)
    begun(mark)
    if verb == "drain":
        with pytest.raises(DrainTimeout) as late:
            pool.drain(2.0)
        report = late.value.report
    else:
        report = pool.close(2.0)
    error = task.exception(0)
    assert isinstance(error, TaskAbandoned)
    assert names(error.stack) == ["stubborn"]
    assert report.running[0].stack == error.stack


def test_one_that_is_asked_where_it_is_late_is_shown_as_of_then(
    clock: VirtualClock, tmp_path: Path
) -> None:
    """Asked when its context ends, and again shortly before it is abandoned."""
    mark, go = tmp_path / "mark", tmp_path / "go"
    pool = Pool(1, backend=MILD, context=Context(clock=clock))
    task = pool.submit(errands.first_here_then_there, mark, go)
    begun(mark)
    closed = run_in_thread(pool.close, 100.0)
    clock.wait_for_timers(2)  # its deadline, and when it is asked again
    go.touch()
    eventually(lambda: "in _there" in pool.dump().workers[0].stack)  # what was asked is answered
    clock.advance(99.95)
    pool.actor_ref.ask(GetState())  # answered once that is done
    assert "in _there" in pool.dump().workers[0].stack  # it is answered, too
    clock.advance(0.1)
    closed.result(PATIENCE)
    error = task.exception(0)
    assert isinstance(error, TaskAbandoned)
    assert names(error.stack) == ["first_here_then_there", "_there"]


def test_without_any_time_it_says_that(mark: Path) -> None:
    pool = Pool(1, backend=MILD)
    task = pool.submit(errands.nap, mark)
    begun(mark)
    pool.close(0)
    error: Any = task.exception(0)
    assert "answer)\n" in error.stack or names(error.stack) == ["nap"], "it may have been quick"
    assert "receive" not in error.stack


def test_a_task_that_has_not_reached_its_child_is_shown_in_this_process() -> None:
    gate = errands.SlowToPickle()
    with Pool(1, backend=MILD) as pool:
        task = pool.submit(errands.echo, gate)
        gate.entered.wait(PATIENCE)
        eventually(lambda: "__reduce__" in names(pool.dump().workers[0].stack))
        gate.go.set()
        task.result(PATIENCE)
