"""The tasks of a Ray actor, in a thread and without Ray: above all, how they are ended by force."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ion_actors import Cancelled, DeadlineExceeded
from ion_actors.backends.process.transport.messages import Cancel, raise_packed
from ion_actors.backends.process.transport.pickling import pack_call
from ion_actors.backends.ray.task_actor import ActorServer
from ion_actors.backends.ray.wire import Batch, Call, CallEnd, PlaceOf
from tests import rounds
from tests.backends.process import errands
from tests.workerpool.helpers import PATIENCE, eventually


class Server:
    """One, and its thread of tasks."""

    def __init__(self, thread: ThreadPoolExecutor) -> None:
        self.server = ActorServer()
        self.stretch = 0
        self._thread = thread

    def submit(self, number: int, fn: Any, *args: Any, references: Any = ()) -> Future[Any]:
        """Have it run a task alone, in the stretch of the line that it is in by then."""
        call = Call(number, references, pack_call(str, fn, args, None))

        def run() -> Any:
            head = Batch(self.stretch, 0, [call]).arguments()[0]
            answer = self.server.run(Batch.of(head, references))
            self.stretch += answer.cut
            return answer.sent()

        return self._thread.submit(run)

    def run(self, number: int, fn: Any, *args: Any, references: Any = ()) -> Any:
        return answer(self.submit(number, fn, *args, references=references))


def answer(future: Future[Any]) -> Any:
    (reply,) = CallEnd.of(future.result(PATIENCE)).replies
    if not reply.fine:
        raise_packed(reply.packed, str)
    return reply.value(str, writable=True)


@pytest.fixture
def server() -> Iterator[Server]:
    with ThreadPoolExecutor(1) as thread:
        found = Server(thread)
        yield found
        thread.submit(found.server.stop, None).result(PATIENCE)


def await_mark(mark: Path) -> None:
    eventually(lambda: mark.exists() and mark.read_text())


def test_results_errors_and_coroutines(server: Server) -> None:
    assert server.run(1, pow, 2, 5) == 32
    with pytest.raises(KeyError, match="lost"):
        server.run(2, errands.fail, KeyError("lost"))
    assert server.run(3, errands.double, 21) == 42
    with pytest.raises(TypeError, match="generator"):
        server.run(4, _generate)


def _generate() -> Iterator[int]:
    yield 1


def test_references(server: Server) -> None:
    assert server.run(1, pow, PlaceOf(1), PlaceOf(0), references=(3, 2)) == 8


@pytest.mark.parametrize(("expired", "error"), [(False, Cancelled), (True, DeadlineExceeded)])
def test_a_busy_loop_is_ended_by_force(
    server: Server, tmp_path: Path, expired: bool, error: type[Exception]
) -> None:
    mark = tmp_path / "mark"
    task = server.submit(1, errands.spin, mark)
    await_mark(mark)
    server.server.cancel(Cancel(1, expired, "enough", forced=True))
    with pytest.raises(error):
        answer(task)
    assert server.run(2, pow, 2, 5) == 32


def test_a_cancel_that_comes_before_its_task(server: Server, tmp_path: Path) -> None:
    server.server.cancel(Cancel(1, False, "enough", forced=True))
    with pytest.raises(Cancelled):
        server.run(1, errands.spin, tmp_path / "mark")
    assert server.run(2, pow, 2, 5) == 32


def test_a_cancel_that_comes_late_does_not_reach_the_next_task(
    server: Server, tmp_path: Path
) -> None:
    assert server.run(1, pow, 2, 5) == 32
    mark, go = tmp_path / "mark", tmp_path / "go"
    task = server.submit(2, errands.await_go, mark, go)
    await_mark(mark)
    server.server.cancel(Cancel(1, False, "enough", forced=True))
    go.touch()
    assert answer(task) == "went"


def test_no_task_is_ended_for_another(server: Server) -> None:
    """A cancel that comes when its task ends hits that, or nothing."""
    for number in range(1, rounds(300, thorough=5000), 2):
        begun = threading.Event()
        _BEGUN[number] = begun.set
        short, after = server.submit(number, _count, number), server.submit(number + 1, _sum)
        begun.wait(PATIENCE)
        server.server.cancel(Cancel(number, False, "enough", forced=True))
        with contextlib.suppress(Cancelled):
            assert answer(short) == number
        assert answer(after) == 499_500 // 10


_BEGUN: dict[int, Callable[[], object]] = {}


def _count(number: int) -> int:
    _BEGUN.pop(number)()
    until = time.perf_counter() + number % 5 * 1e-5
    while time.perf_counter() < until:
        pass
    return number


def _sum() -> int:
    return sum(range(1000)) // 10


def test_a_profiler_works_after_a_task_was_ended_by_force() -> None:
    """In CPython 3.11 it does not while an exception may be pending in any thread."""
    program = """
        import sys, threading
        from ion_actors.backends.process.transport.messages import Cancel
        from ion_actors.backends.process.transport.pickling import pack_call
        from ion_actors.backends.ray.task_actor import ActorServer
        from ion_actors.backends.ray.wire import Batch, Call

        def spin():
            begun.set()
            while True:
                pass

        server, begun, over = ActorServer(), threading.Event(), threading.Event()

        def serve():
            call = Call(1, (), pack_call(str, spin, (), None))
            server.run(Batch.of(Batch(0, 0, [call]).arguments()[0], ()))
            over.set()
            stay.wait()  # what a thread leaves pending counts as long as it lives, and longer

        stay = threading.Event()
        threading.Thread(target=serve, daemon=True).start()
        begun.wait()
        server.cancel(Cancel(1, False, "enough", forced=True))
        over.wait()
        sys.setprofile(lambda *_: None)
        (lambda: None)()
        print("profiled")
    """
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert (ended.returncode, ended.stdout) == (0, "profiled\n"), ended.stderr
