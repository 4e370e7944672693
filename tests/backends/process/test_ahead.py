"""Small tasks are sent to a child before their turn, and taken back if they have not begun."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ion_actors import (
    Backoff,
    Cancelled,
    DeadlineExceeded,
    IonError,
    PanicRecovery,
    Pool,
    TaskNotPicklable,
    TaskPanicked,
    WorkerDied,
)
from ion_actors.backends import window
from ion_actors.backends.process import ProcessBackend
from ion_actors.backends.process.parent import child_process, line
from tests.backends.process import errands
from tests.inside import child_of
from tests.workerpool.helpers import PATIENCE, eventually

pytestmark = [
    pytest.mark.usefixtures("no_child_is_left"),
    pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing can be taken back"),
]

TIRELESS = PanicRecovery(max_restarts=None, backoff=Backoff(initial=0.0, retries=1000))


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No task counts as long, however busy the machine is."""
    monkeypatch.setattr(child_process, "LONG", 2 * PATIENCE)
    for module in (window, line):
        monkeypatch.setattr(module, "WORK", PATIENCE)


@pytest.fixture
def pool() -> Iterator[Pool]:
    """It has one worker, which knows that its tasks are short."""
    with Pool(
        1, backend=ProcessBackend(grace=0.0, kill_after=0.0), panic_recovery=TIRELESS
    ) as made:
        warm_up(made)
        yield made


def warm_up(pool: Pool) -> None:
    for _ in range(12):
        assert pool.submit(errands.echo, 1).result(PATIENCE) == 1


def at_once(pool: Pool, *calls: tuple[Any, ...]) -> list[Future[Any]]:
    """Submit these so that all are queued when the first one is handed over."""
    pool.pause()
    futures: list[Future[Any]] = [pool.submit(*call) for call in calls]
    pool.resume()
    return futures


def notes(folder: Path) -> list[str]:
    return [one.name for one in folder.iterdir() if one.name.startswith("tmp")]


def test_each_runs_once_and_in_order(pool: Pool) -> None:
    calls = [(errands.keep_order, number) for number in range(50)]
    assert [one.result(PATIENCE) for one in at_once(pool, *calls)] == list(range(1, 51))
    numbers = pool.metrics()
    assert (numbers.completed, numbers.running, numbers.queued) == (62, 0, 0)


@pytest.mark.usefixtures("patient")
def test_what_is_ahead_is_running_and_ends_with_its_context_before_it_begins(
    pool: Pool, tmp_path: Path
) -> None:
    mark, go = tmp_path / "mark", tmp_path / "go"
    hold, first, second = at_once(
        pool, (errands.await_go, mark, go), (errands.note, tmp_path), (errands.note, tmp_path)
    )
    eventually(second.running)
    eventually(mark.exists)  # else it is taken back, too, and sent again after a while
    first.cancel()
    go.touch()
    assert hold.result(PATIENCE) == "went"
    with pytest.raises(Cancelled):
        first.result(PATIENCE)
    assert second.result(PATIENCE) is None
    assert len(notes(tmp_path)) == 1


def test_a_time_limit_ends_what_is_ahead_before_it_begins(pool: Pool, tmp_path: Path) -> None:
    mark, go = tmp_path / "mark", tmp_path / "go"
    pool.pause()
    hold = pool.submit(errands.await_go, mark, go)
    limited = pool.options(timeout=0.2).submit(errands.note, tmp_path)
    pool.resume()
    with pytest.raises(DeadlineExceeded):
        limited.result(PATIENCE)
    assert not hold.done()
    go.touch()
    assert hold.result(PATIENCE) == "went"
    assert notes(tmp_path) == []


def test_a_long_task_keeps_nothing_from_another_worker(tmp_path: Path) -> None:
    with Pool(2, backend="process") as pool:
        go = tmp_path / "go"
        for number in range(12):
            pair = at_once(pool, *[(errands.await_other, tmp_path, number, n) for n in range(2)])
            assert [one.result(PATIENCE) for one in pair] == [None, None]
        hold = (errands.await_go, tmp_path / "mark", go)
        held, *others = at_once(pool, hold, *[(errands.echo, number) for number in range(30)])
        assert [one.result(PATIENCE) for one in others] == list(range(30))
        assert not held.done()
        go.touch()
        assert held.result(PATIENCE) == "went"


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("place", [0, 1, 3])
@pytest.mark.parametrize("crash", [(errands.segfault,), (errands.leave, 3)], ids=["crash", "exit"])
def test_a_crash_costs_the_task_that_has_begun(
    pool: Pool, tmp_path: Path, place: int, crash: tuple[Any, ...]
) -> None:
    calls: list[tuple[Any, ...]] = [(errands.note, tmp_path) for _ in range(6)]
    calls[place] = crash
    futures = at_once(pool, *calls)
    for number, one in enumerate(futures):
        if number == place:
            with pytest.raises(TaskPanicked) as panicked:
                one.result(PATIENCE)
            assert isinstance(panicked.value.__cause__, WorkerDied)
        else:
            assert one.result(PATIENCE) is None
    assert len(notes(tmp_path)) == 5


@pytest.mark.usefixtures("patient")
def test_a_kill_from_outside_costs_the_task_that_has_begun(pool: Pool, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    hold, *others = at_once(
        pool, (errands.await_go, mark, tmp_path / "never"), *[(errands.note, tmp_path)] * 3
    )
    eventually(others[-1].running)
    eventually(mark.exists)
    os.kill(child_of(pool).pid, signal.SIGKILL)
    assert [one.result(PATIENCE) for one in others] == [None] * 3
    assert isinstance(hold.exception(PATIENCE), TaskPanicked)
    assert len(notes(tmp_path)) == 3


@pytest.mark.usefixtures("patient")
def test_what_must_end_by_force_takes_no_other_with_it(pool: Pool, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    reluctant, *others = at_once(pool, (errands.stubborn, mark), *[(errands.note, tmp_path)] * 3)
    eventually(mark.exists)
    eventually(others[-1].running)
    reluctant.cancel()
    with pytest.raises(Cancelled):
        reluctant.result(PATIENCE)
    assert [one.result(PATIENCE) for one in others] == [None] * 3
    assert len(notes(tmp_path)) == 3
    assert pool.metrics().panicked == 0


@pytest.mark.usefixtures("patient")
def test_nothing_begins_behind_a_task_that_has_failed() -> None:
    """Its pool may replace the worker: here, the error counts as a panic."""
    recovery = replace(TIRELESS, is_panic=KeyError)
    with Pool(1, backend="process", panic_recovery=recovery) as pool:
        warm_up(pool)
        before = child_of(pool).pid
        first, *others = at_once(pool, (errands.fail, KeyError(1)), *[(errands.pid,)] * 4)
        with pytest.raises(TaskPanicked):
            first.result(PATIENCE)
        assert before not in [one.result(PATIENCE) for one in others]


@pytest.mark.usefixtures("patient")
def test_what_fails_costs_only_itself(pool: Pool) -> None:
    lock = threading.Lock()
    calls: list[tuple[Any, ...]] = []
    for number in range(12):
        calls += [(errands.echo, number), (errands.fail, KeyError(number)), (errands.echo, lock)]
    futures = at_once(pool, *calls, (errands.make_unwelcome,), (errands.echo, 1))
    for number in range(12):
        fine, failed, refused = futures[3 * number : 3 * number + 3]
        assert fine.result(PATIENCE) == number
        with pytest.raises(KeyError):
            failed.result(PATIENCE)
        with pytest.raises(TaskNotPicklable):
            refused.result(PATIENCE)
    with pytest.raises(TaskNotPicklable):
        futures[-2].result(PATIENCE)
    assert futures[-1].result(PATIENCE) == 1
    assert pool.metrics().restarts == 0


def test_no_child_gets_more_than_its_share(tmp_path: Path) -> None:
    with Pool(1, backend=ProcessBackend(max_tasks_per_child=5)) as pool:
        warm_up(pool)
        pids = [one.result(PATIENCE) for one in at_once(pool, *[(errands.pid,)] * 43)]
        assert pids == sorted(pids, key=pids.index)
        assert max(map(pids.count, pids)) <= 5
        assert len(set(pids)) <= 10


@pytest.mark.usefixtures("patient")
def test_a_callback_may_wait_for_what_is_ahead(pool: Pool) -> None:
    found: list[object] = []
    told = threading.Event()
    pool.pause()
    first = pool.submit(errands.echo, 1)
    others = [pool.submit(errands.echo, number) for number in range(2, 6)]

    def wait(_: object) -> None:
        found.append(others[0].result(PATIENCE))
        told.set()

    first.add_done_callback(wait)
    pool.resume()
    assert told.wait(PATIENCE)
    assert found == [2]


@pytest.mark.usefixtures("patient")
def test_nothing_is_pending_when_the_pool_closes(pool: Pool, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    futures = at_once(pool, (errands.nap, mark), *[(errands.note, tmp_path)] * 5)
    eventually(mark.exists)
    pool.close(PATIENCE)
    assert all(one.done() for one in futures)
    for one in futures:
        with pytest.raises(IonError):
            one.result(0)
    assert notes(tmp_path) == []
    numbers = pool.metrics()
    assert (numbers.running, numbers.queued, numbers.completed) == (0, 0, 12)


@pytest.mark.usefixtures("patient")
def test_a_drain_runs_what_is_ahead(pool: Pool, tmp_path: Path) -> None:
    futures = at_once(pool, *[(errands.note, tmp_path)] * 20)
    pool.drain(PATIENCE)
    assert [one.result(0) for one in futures] == [None] * 20
    assert len(notes(tmp_path)) == 20


def test_a_child_that_reads_nothing_loses_nothing(pool: Pool, tmp_path: Path) -> None:
    child = child_of(pool)
    errands.stop(child.pid)
    futures = at_once(pool, *[(errands.note, tmp_path)] * 5)
    eventually(lambda: futures[0].running() and not futures[-1].running())  # they are taken back
    os.kill(child.pid, signal.SIGKILL)
    assert [one.result(PATIENCE) for one in futures] == [None] * 5
    assert len(notes(tmp_path)) == 5
    assert pool.metrics().panicked == 0


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize(
    "settings", [{"capture_output": True}, {"max_memory_per_child": 10**10}], ids=str
)
def test_some_children_are_sent_nothing_ahead(settings: dict[str, Any], tmp_path: Path) -> None:
    with Pool(1, backend=ProcessBackend(**settings)) as pool:
        warm_up(pool)
        go, mark = tmp_path / "go", tmp_path / "mark"
        hold, other = at_once(pool, (errands.await_go, mark, go), (errands.echo, 1))
        eventually(mark.exists)
        assert not other.running()
        go.touch()
        assert (hold.result(PATIENCE), other.result(PATIENCE)) == ("went", 1)


def test_replies_with_large_buffers_and_streams_come_between(pool: Pool) -> None:
    calls: list[tuple[Any, ...]] = []
    for number in range(10):
        calls += [(errands.echo, number), (errands.echo, bytes(300_000)), (errands.echo, number)]
    found = [one.result(PATIENCE) for one in at_once(pool, *calls)]
    assert found == [value for n in range(10) for value in (n, bytes(300_000), n)]
