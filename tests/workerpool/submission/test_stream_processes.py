"""Streams from child processes: what crosses, crashes, force, and how much memory that takes."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ion_actors import Pool, TaskNotPicklable, TaskPanicked, WorkerDied
from ion_actors.backends.process import ProcessBackend
from tests.workerpool.helpers import PATIENCE, eventually
from tests.workerpool.submission.streams import (
    ENDLESS,
    arrays,
    await_note,
    count,
    count_async,
    dies,
    fails,
    note,
    notes,
    pieces,
    works_for_long,
    yields_a_lock,
    yields_what_cannot_be_rebuilt,
)

pytestmark = pytest.mark.usefixtures("no_child_is_left")

MIB = 1 << 20
WITH_GIL = getattr(sys, "_is_gil_enabled", lambda: True)()
HASTY = ProcessBackend(grace=0.1, kill_after=10)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a generator writes what happens to it."""
    return tmp_path / "notes"


def test_an_error_has_the_traceback_of_its_process() -> None:
    with Pool(1, backend="process") as pool:
        stream = pool.stream(fails, 1)
        assert next(stream) == 0
        with pytest.raises(LookupError) as caught:
            next(stream)
        assert "in fails" in "".join(caught.value.__notes__)


def test_a_crash_comes_after_the_items_that_had_arrived() -> None:
    with Pool(1, backend="process") as pool:
        stream = pool.stream(dies, 5)
        assert [next(stream) for _ in range(5)] == [0, 1, 2, 3, 4]
        with pytest.raises(TaskPanicked) as caught:
            next(stream)
        assert isinstance(caught.value.__cause__, WorkerDied)
        assert caught.value.__cause__.exitcode == 3
        assert [*pool.stream(count, 3)] == [0, 1, 2]


def test_a_large_item_that_cannot_be_rebuilt_here_ends_it(path: Path) -> None:
    with Pool(1, backend="process") as pool:
        stream = pool.stream(yields_what_cannot_be_rebuilt, path, 200_000)
        assert next(stream) == 1
        with pytest.raises(TaskNotPicklable, match="cannot be rebuilt from its pickle: KeyError"):
            next(stream)
        await_note(path, "closed")
        assert [*stream] == []


def own_pid(until: int) -> Iterator[int]:
    for _ in range(until):
        yield os.getpid()


def test_a_child_that_is_killed_while_it_waits_for_room() -> None:
    with Pool(1, backend="process") as pool:
        stream = pool.stream(own_pid, ENDLESS, buffersize=2)
        os.kill(next(stream), signal.SIGKILL)
        with pytest.raises(TaskPanicked, match="SIGKILL"):
            list(stream)
        assert 1 <= stream.delivered <= 4


def test_an_item_that_cannot_be_sent_ends_it() -> None:
    with Pool(1, backend="process") as pool:
        stream = pool.stream(yields_a_lock)
        assert next(stream) == 1
        with pytest.raises(TaskNotPicklable, match="an item of task 'yields_a_lock'"):
            next(stream)
        assert [*pool.stream(own_pid, 1)] == [pool.submit(os.getpid).result(PATIENCE)]


def test_an_item_that_cannot_be_rebuilt_here_ends_it(path: Path) -> None:
    with Pool(1, backend="process") as pool:
        pid = pool.submit(os.getpid).result(PATIENCE)
        stream = pool.stream(yields_what_cannot_be_rebuilt, path)
        assert next(stream) == 1
        with pytest.raises(TaskNotPicklable, match="cannot be rebuilt from its pickle: KeyError"):
            next(stream)
        assert notes(path) == ["closed"]
        assert pool.submit(os.getpid).result(PATIENCE) == pid


def test_a_generator_that_is_at_work_is_forced_to_its_finally(path: Path) -> None:
    with Pool(1, backend=HASTY) as pool:
        with pool.stream(works_for_long, path) as stream:
            assert next(stream) == 1
        await_note(path, "closed")
        eventually(stream.future.done)
        assert pool.metrics().cancelled == 1


def test_a_child_that_runs_one_task_only_streams_it_to_its_end() -> None:
    with Pool(1, backend=ProcessBackend(max_tasks_per_child=1)) as pool:
        streams = [pool.stream(own_pid, 20, buffersize=30) for _ in range(2)]
        eventually(lambda: all(one.future.done() for one in streams))
        found = [set(stream) for stream in streams]
        assert [len(one) for one in found] == [1, 1]
        assert found[0] != found[1]


@pytest.mark.parametrize("make", [pieces, arrays])
def test_large_items_are_as_they_were_and_stay(make: Any) -> None:
    with Pool(1, backend="process") as pool:
        kept = list(pool.stream(make, 40, 200_000, buffersize=3))
        later = list(pool.stream(make, 3, 200_000))
    for number, item in enumerate([*kept, *later]):
        expected = number % 256 if number < 40 else number - 40
        assert bytes(item) == bytes([expected]) * 200_000


def test_items_wait_outside_of_this_process_until_they_are_read(no_child_is_left: None) -> None:
    with Pool(1, backend=ProcessBackend(max_tasks_per_child=1)) as pool:
        assert len([*pool.stream(pieces, 2, MIB)]) == 2
        before = resident()
        stream = pool.stream(pieces, 60, MIB, buffersize=61)
        eventually(stream.future.done)
        assert resident() - before < 16 * MIB
    # The child has ended, and what it had sent can be read nevertheless.
    assert [*stream] == list(pieces(60, MIB))


def test_a_gigabyte_passes_through_four_places(threads: ThreadPoolExecutor) -> None:
    """Four children at a time; what is measured is what this process holds more than before."""
    with Pool(4, backend="process") as pool:
        for stream in [pool.stream(pieces, 2, MIB) for _ in range(4)]:
            assert len(list(stream)) == 2
        before, most = resident(), 0
        streams = [pool.stream(pieces, 256, MIB, buffersize=4) for _ in range(4)]
        sizes = [threads.submit(lambda one=one: sum(map(len, one))) for one in streams]
        while not all(one.done() for one in sizes):
            most = max(most, resident() - before)
            time.sleep(0.01)
        assert [one.result(PATIENCE) for one in sizes] == [256 * MIB] * 4
    # Without the GIL, memory that one thread frees for another is given back later.
    assert most <= (64 if WITH_GIL else 256) * MIB


def resident() -> int:
    """Bytes of memory that this process holds."""
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGESIZE")


@pytest.mark.parametrize("fn", [count, count_async])
def test_many_streams_one_after_the_other_leave_nothing(fn: Any) -> None:
    with Pool(2, backend="process") as pool:
        for turn in range(100):
            with pool.stream(fn, turn % 7, buffersize=2) as stream:
                for item in stream:
                    if item == 3:
                        break
        assert [*pool.stream(fn, 4)] == [0, 1, 2, 3]
        eventually(lambda: pool.metrics().running == 0)
        numbers = pool.metrics()
        assert numbers.submitted == numbers.completed + numbers.cancelled == 101
        assert numbers.restarts == 0


def prints(path: Path) -> Iterator[int]:
    for number in range(3):
        print("line", number)
        note(path, "printed")
        yield number


def test_output_is_captured_to_its_end(path: Path) -> None:
    with Pool(1, backend=ProcessBackend(capture_output=True)) as pool:
        stream = pool.stream(prints, path)
        assert [*stream] == [0, 1, 2]
        output = stream.future.output
        assert output is not None
        assert output.stdout == "line 0\nline 1\nline 2\n"
