"""A child that stops answering: it is found out, and one task panics."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ion_actors import Cancelled, Context, Pool, TaskPanicked, WorkerDied
from ion_actors.backends.process import ProcessBackend
from ion_actors.backends.process.parent.child_process import Child
from ion_actors.backends.process.parent.heartbeat import Heartbeat, Question, judge
from ion_actors.clock import Timer
from ion_actors.testing import VirtualClock
from tests.backends.process import errands
from tests.inside import child_of, control_of
from tests.workerpool.helpers import PATIENCE, eventually

pytestmark = [
    pytest.mark.usefixtures("no_child_is_left"),
    pytest.mark.skipif(sys.platform != "linux", reason="a child is stopped by what is in /proc"),
]

INTERVAL = 5.0


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    return tmp_path / "mark"


@pytest.fixture
def pool(clock: VirtualClock) -> Iterator[Pool]:
    backend = ProcessBackend(
        start_timeout=None, heartbeat=INTERVAL, grace=None, kill_after=INTERVAL
    )
    context = Context(clock=clock)
    with Pool(1, backend=backend, context=context, drain_timeout=None, name="p") as pool:
        yield pool
        pool.close(0)


def begun(mark: Path) -> int:
    """The pid of the child, once its task has begun."""
    eventually(lambda: mark.exists() and mark.read_text())
    return int(mark.read_text())


def test_what_is_asked() -> None:
    assert judge(None, None, heard=False, late=False) is None
    assert judge(None, 7, heard=False, late=False) == Question(7)
    assert judge(Question(7), 7, heard=True, late=False) == Question(7)
    assert judge(Question(7), 7, heard=False, late=False) == Question(7, lost=True)
    assert judge(Question(7), 7, heard=False, late=True) == Question(7)
    assert judge(Question(7), 8, heard=False, late=False) == Question(8)
    assert judge(Question(7), None, heard=False, late=False) is None


def test_a_process_that_is_stopped_is_found_out(
    pool: Pool, clock: VirtualClock, mark: Path
) -> None:
    task, queued = pool.submit(errands.heed, mark), pool.submit(pow, 2, 3)
    pid = begun(mark)
    errands.stop(pid)
    clock.advance(INTERVAL)  # it is asked
    clock.advance(INTERVAL - 1)
    assert not child_of(pool).silent
    clock.advance(1)  # it is aborted, and stopped as it is, hears nothing of that
    assert child_of(pool).silent
    assert not task.done()
    clock.advance(INTERVAL)
    with pytest.raises(TaskPanicked) as panicked:
        task.result(PATIENCE)
    died = panicked.value.__cause__
    assert isinstance(died, WorkerDied)
    assert "had not answered for 5 s, and was ended by SIGKILL" in str(died)
    assert (died.pid, died.signal) == (pid, "SIGKILL")
    assert queued.result(PATIENCE) == 8
    numbers = pool.metrics()
    assert (numbers.completed, numbers.panicked, numbers.restarts) == (1, 1, 1)


def test_native_code_that_never_returns_says_where_it_is(
    pool: Pool, clock: VirtualClock, mark: Path
) -> None:
    task = pool.submit(errands.spin_natively, mark)
    begun(mark)
    child = child_of(pool)
    while not child.silent:  # it may still have answered the first time
        clock.advance(INTERVAL)
    with pytest.raises(TaskPanicked) as panicked:
        task.result(PATIENCE)
    died = panicked.value.__cause__
    assert isinstance(died, WorkerDied)
    assert died.signal == "SIGABRT"
    assert "in spin_natively" in died.last_words


def test_who_is_busy_and_answers_goes_on(pool: Pool, clock: VirtualClock, mark: Path) -> None:
    task = pool.submit(errands.spin, mark)
    pid = begun(mark)
    child = child_of(pool)
    for _ in range(5):
        clock.advance(INTERVAL)
        eventually(lambda: _answer_is_there(child))
    assert not child.silent
    os.kill(pid, signal.SIGKILL)
    assert isinstance(task.exception(PATIENCE), TaskPanicked)


def _answer_is_there(child: Child) -> bool:
    try:
        return bool(control_of(child).recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return False


def test_who_is_idle_is_not_asked(pool: Pool, clock: VirtualClock) -> None:
    pid = pool.submit(errands.pid).result(PATIENCE)
    errands.stop(pid)
    for _ in range(5):
        clock.advance(INTERVAL)
    os.kill(pid, signal.SIGCONT)
    assert pool.submit(errands.pid).result(PATIENCE) == pid


def test_what_a_stopped_child_never_read_does_not_panic(pool: Pool, clock: VirtualClock) -> None:
    pid = pool.submit(errands.pid).result(PATIENCE)
    errands.stop(pid)
    task = pool.submit(errands.pid)
    eventually(lambda: child_of(pool).task_under_way() == 2)
    for _ in range(3):
        clock.advance(INTERVAL)
    assert task.result(PATIENCE) != pid
    assert pool.metrics().panicked == 0


class Frozen:
    """A patient that never answers, and the clock of a process that can be stopped."""

    def __init__(self) -> None:
        self.now = 0.0
        self.beats: list[Callable[[], object]] = []
        self.heard: list[str] = []

    def monotonic(self) -> float:
        return self.now

    def call_at(self, when: float, call: Callable[[], object]) -> Timer:
        self.beats.append(call)
        return Timer(when, call)

    def park(self, signal: threading.Lock, deadline: float | None) -> bool:
        raise AssertionError("nobody waits by this clock")

    def task_under_way(self) -> int:
        return 7

    def has_answered(self) -> bool:
        return False

    def ask(self) -> None:
        self.heard.append("asked")

    def give_up(self, task: int) -> None:
        self.heard.append(f"given up with {task}")


def test_who_asks_late_does_not_judge() -> None:
    frozen = Frozen()
    pulse = Heartbeat(frozen, INTERVAL, frozen)
    pulse.begin()
    for late in (0, 100, 0):  # seconds that this process was stopped for, too
        frozen.now += INTERVAL + late
        frozen.beats.pop()()
    assert frozen.heard == ["asked", "asked", "given up with 7"]
    pulse.end()
    frozen.beats.pop()()
    assert len(frozen.heard) == 3
    assert frozen.beats == []


def test_a_task_whose_context_has_ended_is_cancelled_all_the_same(
    pool: Pool, clock: VirtualClock, mark: Path
) -> None:
    task = pool.submit(errands.heed, mark)
    errands.stop(begun(mark))
    task.cancel()
    for _ in range(3):
        clock.advance(INTERVAL)
    with pytest.raises(Cancelled):
        task.result(PATIENCE)
    assert pool.submit(pow, 2, 3).result(PATIENCE) == 8
    assert pool.metrics().restarts == 0


def test_a_context_that_ends_later_does_not_save_a_child_that_was_given_up(
    pool: Pool, clock: VirtualClock, mark: Path
) -> None:
    task = pool.submit(errands.heed, mark)
    errands.stop(begun(mark))
    clock.advance(INTERVAL)
    clock.advance(INTERVAL)
    assert child_of(pool).silent
    task.cancel()
    clock.advance(INTERVAL)
    with pytest.raises(Cancelled):
        task.result(PATIENCE)
