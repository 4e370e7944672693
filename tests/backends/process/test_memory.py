"""A task whose child process holds too much memory: it ends alone, and is named."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ion_actors import Backoff, PanicRecovery, Pool, Retry, TaskOutOfMemory, WorkerDied
from ion_actors.backends.process import ProcessBackend
from ion_actors.backends.process.parent import memory_guard
from ion_actors.backends.process.parent.memory_guard import Excess, MemoryGuard, pause
from ion_actors.testing import VirtualClock
from tests.backends.process import errands
from tests.backends.process.errands import MEGABYTE
from tests.workerpool.helpers import PATIENCE, eventually

pytestmark = [
    pytest.mark.usefixtures("no_child_is_left"),
    pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what a process holds"),
]

LIMIT = 200 * MEGABYTE


def ended(error: BaseException | None) -> TaskOutOfMemory:
    assert isinstance(error, TaskOutOfMemory), error
    return error


# -- when it looks, and what it decides --------------------------------------------------------


@given(st.integers(0, 1 << 40), st.integers(1, 1 << 40))
def test_the_next_look_comes_before_any_task_has_filled_the_room(held: int, limit: int) -> None:
    seconds = pause(held, limit)
    assert 0.01 <= seconds <= 0.5
    assert held + seconds * 4e9 <= max(limit, held + 0.01 * 4e9) * 1.000001


class FakeChild:
    """Has a task, and holds what it is told."""

    pid = os.getpid()

    def __init__(self) -> None:
        self.task: int | None = 1
        self.held: int | None = 0
        self.ended: list[tuple[Excess, int]] = []

    def task_under_way(self) -> int | None:
        return self.task

    def end_for(self, excess: Excess, task: int) -> None:
        self.ended.append((excess, task))


@pytest.fixture
def child(monkeypatch: pytest.MonkeyPatch) -> FakeChild:
    child = FakeChild()
    monkeypatch.setattr(memory_guard, "resident_memory", lambda _: child.held)
    monkeypatch.setattr(memory_guard, "_peak_of", lambda _: 0)
    return child


@pytest.fixture
def guard(clock: VirtualClock, child: FakeChild) -> Iterator[MemoryGuard]:
    guard = MemoryGuard(clock, 1000, child)
    assert guard.check_start()
    guard.begin()
    yield guard
    guard.end()
    assert clock.timers == 0


def test_who_holds_too_much_for_a_moment_is_ended(
    guard: MemoryGuard, child: FakeChild, clock: VirtualClock
) -> None:
    child.held = 1001
    clock.advance(0.05)
    assert not child.ended
    clock.advance(0.05)
    assert child.ended == [(Excess(1000, 1001), 1)]
    clock.advance(10)
    assert len(child.ended) == 1


def test_who_is_about_to_end_is_not(
    guard: MemoryGuard, child: FakeChild, clock: VirtualClock
) -> None:
    for task in (1, 2):
        child.task, child.held = task, 1001
        clock.advance(0.04)
    child.held = 999
    clock.advance(1)
    child.held = 1001
    clock.advance(0.04)
    assert not child.ended


def test_who_holds_far_too_much_is_ended_at_once(
    guard: MemoryGuard, child: FakeChild, clock: VirtualClock
) -> None:
    child.held = 2000
    clock.advance(0.01)
    assert [excess.peak for excess, _ in child.ended] == [2000]


def test_without_a_task_nobody_looks(
    guard: MemoryGuard, child: FakeChild, clock: VirtualClock
) -> None:
    child.task, child.held = None, 5000
    clock.advance(1)
    assert clock.timers == 0
    child.task = 2
    guard.begin()
    clock.advance(1)
    assert [task for _, task in child.ended] == [2]


def test_where_the_kernel_does_not_tell_nobody_looks(
    guard: MemoryGuard, child: FakeChild, clock: VirtualClock
) -> None:
    child.held = None
    assert guard.check_start()
    guard.begin()
    assert clock.timers == 0


# -- in earnest --------------------------------------------------------------------------------


@pytest.mark.parametrize("fn", [errands.hoard, errands.hoard_natively])
def test_the_task_ends_alone_and_the_error_names_it(
    fn: Callable[..., object], tmp_path: Path
) -> None:
    with Pool(2, backend=ProcessBackend(max_memory_per_child=LIMIT), name="p") as pool:
        other = pool.submit(errands.await_go, tmp_path / "mark", tmp_path / "go")
        task = pool.options(name="greedy").submit(fn, tmp_path, 2000 * MEGABYTE)
        error = ended(task.exception(PATIENCE))
        assert (error.task, error.limit) == ("greedy", LIMIT)
        assert error.worker.startswith("p-")
        assert error.peak > LIMIT
        assert "task 'greedy' was ended: its child process held " in str(error)
        assert "may hold 200.0 MB" in str(error)
        died = error.__cause__
        assert isinstance(died, WorkerDied)
        assert (died.memory_limit, died.memory_peak) == (LIMIT, error.peak)
        assert "was ended: it may hold 200.0 MB" in str(died)
        (tmp_path / "go").touch()
        assert other.result(PATIENCE) == "went"
        assert pool.submit(pow, 2, 3).result(PATIENCE) == 8
        numbers = pool.metrics()
        assert (numbers.panicked, numbers.completed, numbers.restarts) == (1, 2, 1)


def tries(folder: Path) -> int:
    return len(list(folder.iterdir()))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"retry_on_worker_death": 2}, 1),
        ({"retry": Retry(on=WorkerDied, backoff=Backoff(0.001))}, 1),
        ({"retry": Retry(attempts=2, on=TaskOutOfMemory, backoff=Backoff(0.001))}, 2),
    ],
)
def test_it_is_tried_again_only_if_that_is_said_of_memory(
    options: dict[str, object], expected: int, tmp_path: Path
) -> None:
    backend = ProcessBackend(max_memory_per_child=LIMIT)
    with Pool(1, backend=backend) as pool:
        greedy = pool.options(**options).submit(errands.hoard, tmp_path, 2000 * MEGABYTE, 0.001)  # type: ignore[arg-type]
        ended(greedy.exception(PATIENCE))
        assert tries(tmp_path) == expected
        assert pool.metrics().panicked == 1


def test_the_policy_is_asked_as_after_any_death(tmp_path: Path) -> None:
    asked: list[BaseException] = []
    recovery = PanicRecovery(handler=lambda panic: asked.append(panic.error))
    backend = ProcessBackend(max_memory_per_child=LIMIT)
    with Pool(1, backend=backend, panic_recovery=recovery) as pool:
        ended(pool.submit(errands.hoard, tmp_path, 2000 * MEGABYTE).exception(PATIENCE))
    assert [type(error) for error in asked] == [WorkerDied]


def test_who_cleans_up_in_time_goes_on(tmp_path: Path) -> None:
    with Pool(1, backend=ProcessBackend(max_memory_per_child=LIMIT)) as pool:
        assert pool.submit(errands.hoard, tmp_path, 100 * MEGABYTE).result(PATIENCE) == 10
        assert pool.metrics().restarts == 0


def test_a_start_that_takes_too_much_is_told_and_does_not_end_the_tasks(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    backend = ProcessBackend(max_memory_per_child=LIMIT)
    with Pool(1, backend=backend, initializer=errands.hold, initargs=(250 * MEGABYTE,)) as pool:
        for _ in range(2):
            assert pool.submit(errands.hoard, tmp_path, 50 * MEGABYTE).result(PATIENCE) == 5
        eventually(lambda: "more than max_memory_per_child when it has started" in caplog.text)
    told = [one for one in caplog.records if one.levelno == logging.WARNING]
    assert len(told) == 1


# -- before the kernel's killer ----------------------------------------------------------------


def new_group(name: str, limit: int) -> tuple[Path, Callable[[], int]]:
    """A cgroup with a limit of memory, and how many processes the kernel has killed there."""
    first, second = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
    try:
        if (first / "cgroup.procs").exists():
            group = first / name
            group.mkdir()
            (group / "memory.limit_in_bytes").write_text(str(limit))
            return group, lambda: count(group / "memory.oom_control")
        group = second / name
        group.mkdir()
        (group / "memory.max").write_text(str(limit))
        return group, lambda: count(group / "memory.events")
    except OSError as error:
        pytest.skip(f"no cgroup can be made here: {error}")


def count(events: Path) -> int:
    found = dict(line.split() for line in events.read_text().splitlines())
    return int(found.get("oom_kill", 0))


def enter(group: Path) -> None:
    """An initializer: this child is in the group from now on."""
    (group / "cgroup.procs").write_text(str(os.getpid()))


def test_the_task_ends_before_the_kernel_kills(tmp_path: Path) -> None:
    group, killed = new_group(f"ion_actors-{os.getpid()}", 3 * LIMIT)
    try:
        with Pool(
            1,
            backend=ProcessBackend(max_memory_per_child=LIMIT),
            initializer=enter,
            initargs=(group,),
        ) as pool:
            error = ended(pool.submit(errands.hoard, tmp_path, 3000 * MEGABYTE).exception(PATIENCE))
            assert LIMIT < error.peak < 3 * LIMIT
            assert killed() == 0
    finally:
        eventually(lambda: not (group / "cgroup.procs").read_text())
        group.rmdir()
