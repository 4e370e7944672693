"""A child that dies before it has read the task that it was given: the task has not begun."""

from __future__ import annotations

import fcntl
import os
import signal
import struct
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ion_actors import Cancelled, Pool, TaskPanicked, WorkerDied
from ion_actors.backends.process import ProcessBackend
from ion_actors.backends.process.parent.child_process import Child
from ion_actors.backends.process.parent.runner import _TRIES
from tests.backends.process import errands
from tests.inside import child_of, tasks_to
from tests.workerpool.helpers import PATIENCE, eventually

pytestmark = [
    pytest.mark.usefixtures("no_child_is_left"),
    pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody says what was not read"),
]


def unread(child: Child) -> int:
    """Bytes of tasks that it was sent and has not read."""
    found: tuple[int] = struct.unpack("i", fcntl.ioctl(tasks_to(child), termios.TIOCOUTQ, b"-" * 4))
    return found[0]


@contextmanager
def deaf(pool: Pool) -> Iterator[Child]:
    """Its child reads nothing, and is idle."""
    pid = pool.submit(errands.pid).result(PATIENCE)
    errands.stop(pid)
    yield child_of(pool)


@pytest.mark.parametrize("size", [10, 10_000_000])
def test_what_it_had_not_read_is_done_by_the_next_one(tmp_path: Path, size: int) -> None:
    with Pool(1, backend="process") as pool:
        with deaf(pool) as child:
            task = pool.submit(errands.note, tmp_path, b"x" * size)
            eventually(lambda: unread(child))
            os.kill(child.pid, signal.SIGKILL)
        assert task.result(PATIENCE) is None
        numbers = pool.metrics()
        assert (numbers.completed, numbers.panicked, numbers.restarts) == (2, 0, 0)
    assert len(list(tmp_path.iterdir())) == 1


def test_what_was_cancelled_meanwhile_is_not_begun_at_all(tmp_path: Path) -> None:
    with Pool(1, backend=ProcessBackend(grace=0.0, kill_after=0.0)) as pool:
        with deaf(pool) as child:
            task = pool.submit(errands.note, tmp_path)
            eventually(lambda: unread(child))
            task.cancel()
        with pytest.raises(Cancelled):
            task.result(PATIENCE)
        assert pool.submit(pow, 2, 3).result(PATIENCE) == 8
    assert list(tmp_path.iterdir()) == []


def test_what_it_had_read_may_have_begun(tmp_path: Path) -> None:
    with Pool(1, backend="process") as pool:
        task = pool.submit(errands.stop_answering, tmp_path / "mark")
        eventually((tmp_path / "mark").exists)
        child = child_of(pool)
        assert unread(child) == 0
        os.kill(child.pid, signal.SIGKILL)
        with pytest.raises(TaskPanicked):
            task.result(PATIENCE)


def test_a_task_that_no_child_survives_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[int] = []
    really_give = vars(Child)["_give"]

    def give(self: Child, *sent: Any) -> None:
        killed.append(self.pid)
        os.kill(self.pid, signal.SIGKILL)
        eventually(self.has_ended)
        really_give(self, *sent)

    with Pool(1, backend="process") as pool:
        assert pool.submit(pow, 2, 3).result(PATIENCE) == 8
        with monkeypatch.context() as patched:
            patched.setattr(Child, "_give", give)
            with pytest.raises(TaskPanicked) as panicked:
                pool.submit(pow, 2, 3).result(PATIENCE)
        assert isinstance(panicked.value.__cause__, WorkerDied)
        assert len(set(killed)) == _TRIES
        assert pool.submit(pow, 2, 4).result(PATIENCE) == 16
