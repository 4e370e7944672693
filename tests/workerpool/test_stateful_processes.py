"""Workers with state whose state is in a child process, or in any thread that has no host."""

from __future__ import annotations

import functools
import os
import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pykka
import pytest

from ion_actors import (
    Backoff,
    BrokenPool,
    Cancelled,
    PanicRecovery,
    Pool,
    TaskPanicked,
    Worker,
    WorkerDied,
    current_context,
)
from ion_actors.actors.stateful import Fetch, Method, MoveIn, MoveOut, Receive, Residence, here
from ion_actors.backends.process import ProcessBackend
from tests.workerpool.helpers import PATIENCE, eventually, run_in_thread, why_broken


class Diary(Worker):
    """Counts, and writes what happens to it into a file."""

    count: int

    def __init__(self, path: Path, start: int = 0) -> None:
        super().__init__()
        self.path = path
        self.count = start

    def note(self, what: str) -> None:
        with self.path.open("a") as file:
            file.write(f"{what}\n")

    def on_start(self) -> None:
        self.note("start")

    def on_stop(self) -> None:
        self.note("stop")

    def on_failure(self, exception_type: Any, exception_value: Any, traceback: Any) -> None:
        self.note(repr(exception_value))

    def panic(self) -> None:
        raise SystemExit(3)

    def on_receive(self, message: Any) -> Any:
        if message == "die":
            os._exit(7)
        if message == "fail":
            raise ValueError(message)
        self.note(str(message))
        if message == "sleep":
            current_context().sleep(PATIENCE)
        return os.getpid(), self.count

    def add(self, amount: int) -> int:
        self.count += amount
        return self.count

    async def add_later(self, amount: int) -> int:
        return self.add(amount)

    def crash(self) -> None:
        os._exit(3)

    def leave(self) -> None:
        self.stop()

    def write(self, *messages: str) -> None:
        for message in messages:
            self.actor_ref.tell(message)

    def write_and_ask(self) -> Any:
        self.stop()
        return self.actor_ref.ask("too late", block=False)


class Late(Worker):
    async def on_start(self) -> None:  # type: ignore[override]
        """A coroutine, for which there is no loop."""


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    path = tmp_path / "notes"
    path.touch()
    return path


@pytest.fixture
def worker(notes: Path) -> functools.partial[Diary]:
    return functools.partial(Diary, notes, start=10)


def lines(notes: Path) -> list[str]:
    return notes.read_text().split("\n")[:-1]


# -- in a child process --------------------------------------------------------------------


def test_the_state_is_in_the_child(worker: functools.partial[Diary], notes: Path) -> None:
    with Pool(1, worker=worker, backend="process") as pool:
        diary = pool.proxy()
        assert [diary.add(1).result(PATIENCE) for _ in range(2)] == [11, 12]
        assert diary.count.result(PATIENCE) == 12
        assert pool.call(Diary.add_later, 3).result(PATIENCE) == 15
        assert list(pool.map(pool.method(Diary.add), [1, 2])) == [16, 18]
        pid, count = pool.ask("asked").result(PATIENCE)
        assert (pid != os.getpid(), count) == (True, 18)
    assert lines(notes) == ["start", "asked", "stop"]


def test_a_crash_of_the_child_loses_its_state_only(
    worker: functools.partial[Diary], notes: Path
) -> None:
    with Pool(1, worker=worker, backend="process") as pool:
        pool.call(Diary.add, 5).result(PATIENCE)
        with pytest.raises(TaskPanicked, match=r"Diary\.crash") as panicked:
            pool.call(Diary.crash).result(PATIENCE)
        assert isinstance(panicked.value.__cause__, WorkerDied)
        assert pool.call(Diary.add, 5).result(PATIENCE) == 15
    assert lines(notes) == ["start", "start", "stop"]


def test_a_panic_is_what_it_fails_with_before_its_successor_starts(
    worker: functools.partial[Diary], notes: Path
) -> None:
    with Pool(1, worker=worker, backend="process") as pool:
        with pytest.raises(TaskPanicked, match=r"Diary\.panic"):
            pool.call(Diary.panic).result(PATIENCE)
        assert pool.call(Diary.add, 1).result(PATIENCE) == 11
    assert lines(notes) == ["start", "SystemExit(3)", "start", "stop"]


def test_a_failure_that_is_told_to_one_that_has_done_nothing_is_not_its_own(
    worker: functools.partial[Diary], notes: Path
) -> None:
    backend = ProcessBackend(max_tasks_per_child=1)
    with Pool(1, worker=worker, backend=backend) as pool:
        pool.call(Diary.panic).exception(PATIENCE)
        assert pool.call(Diary.add, 1).result(PATIENCE) == 11
    assert "SystemExit(3)" not in lines(notes)
    assert lines(notes).count("start") == lines(notes).count("stop")


def test_a_broadcast_reaches_each_child(worker: functools.partial[Diary], notes: Path) -> None:
    with Pool(2, worker=worker, backend="process") as pool:
        answers = [answer.result(PATIENCE) for answer in pool.broadcast("hello")]
        assert len({pid for pid, _ in answers} - {os.getpid()}) == 2
        for answer in pool.broadcast("fail"):
            with pytest.raises(ValueError, match="fail"):
                answer.result(PATIENCE)
        for answer in pool.broadcast("die"):
            with pytest.raises(TaskPanicked, match=r"Diary\.on_receive"):
                answer.result(PATIENCE)
        assert len(pool.broadcast("again")) == 2
        assert pool.metrics().panicked == 0
    assert lines(notes).count("hello") == lines(notes).count("again") == 2


def test_a_broadcast_in_a_child_ends_with_the_pool(
    worker: functools.partial[Diary], notes: Path
) -> None:
    pool = Pool(1, worker=worker, backend="process")
    (answer,) = pool.broadcast("sleep")
    eventually(lambda: "sleep" in lines(notes))
    report = pool.close()
    assert isinstance(answer.exception(PATIENCE), Cancelled)
    assert report.elapsed < PATIENCE / 2


def test_messages_to_oneself_are_answered_after_the_call(
    worker: functools.partial[Diary], notes: Path
) -> None:
    with Pool(1, worker=worker, backend="process") as pool:
        pool.call(Diary.write, "one", "fail", "two").result(PATIENCE)
        assert pool.call(Diary.add, 1).result(PATIENCE) == 11
    assert lines(notes) == ["start", "one", "two", "stop"]


def test_one_that_stops_itself_is_made_anew_for_the_next_call(
    worker: functools.partial[Diary], notes: Path
) -> None:
    with Pool(1, worker=worker, backend="process") as pool:
        pool.call(Diary.add, 5).result(PATIENCE)
        pool.call(Diary.leave).result(PATIENCE)
        assert pool.call(Diary.add, 1).result(PATIENCE) == 11
        assert pool.metrics().restarts == 0
    assert lines(notes) == ["start", "stop"] * 2


def test_a_start_that_fails_there_breaks_the_pool() -> None:
    policy = PanicRecovery(backoff=Backoff(retries=0))
    pool = Pool(1, worker=Late, backend="process", panic_recovery=policy)
    with pytest.raises(BrokenPool):
        pool.ask(1).result(PATIENCE)
    pool.drain()
    assert isinstance(why_broken(pool).__cause__, TypeError)
    assert "plain methods" in str(why_broken(pool).__cause__)


# -- in a thread without a host: what the child does, without the child ---------------------


def alone(worker: functools.partial[Diary], script: Callable[[], Any]) -> Any:
    """What comes of a script in a thread where such an actor has moved in."""

    def run() -> Any:
        MoveIn(Residence.checked(worker), None, ())()
        try:
            return script()
        finally:
            MoveOut()(None)

    return run_in_thread(run).result(PATIENCE)


def test_calls_find_who_lives_in_their_thread(
    worker: functools.partial[Diary], notes: Path
) -> None:
    def script() -> list[Any]:
        made = (Method("Diary", "add"), Fetch("Diary", "count"), Receive("Diary"))
        add, fetch, receive = pickle.loads(pickle.dumps(made))
        return [add(2), fetch(), receive("hi")]

    assert alone(worker, script) == [12, 12, (os.getpid(), 12)]
    assert lines(notes) == ["start", "hi", "stop"]
    with pytest.raises(RuntimeError, match="can only run in a worker"):
        Fetch("Diary", "count")()


def test_what_comes_after_it_has_stopped_is_answered_as_too_late(
    worker: functools.partial[Diary], notes: Path
) -> None:
    def script() -> Any:
        reply = Method("Diary", "write_and_ask")()
        with pytest.raises(pykka.ActorDeadError):
            reply.get(timeout=PATIENCE)
        return Method("Diary", "add")(1)

    assert alone(worker, script) == 11
    assert lines(notes) == ["start", "stop"] * 2


def test_what_it_is_asked_from_elsewhere_is_answered_after_the_next_call(
    worker: functools.partial[Diary], notes: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def script() -> None:
        assert here.resident is not None
        ref = here.resident.actor.actor_ref
        answer, failure, stopped = (
            ref.ask("hi", block=False), ref.ask("fail", block=False), ref.stop(block=False)
        )  # fmt: skip
        Method("Diary", "add")(1)
        assert answer.get(timeout=PATIENCE) == (os.getpid(), 11)
        with pytest.raises(ValueError, match="fail"):
            failure.get(timeout=PATIENCE)
        assert stopped.get(timeout=PATIENCE)
        assert not ref.is_alive()
        ref.actor_stopped.clear()  # as one sees it who looked a moment ago
        with pytest.raises(pykka.ActorDeadError):
            ref.ask("late", timeout=PATIENCE)

    alone(worker, script)
    assert lines(notes) == ["start", "hi", "stop"]
    assert "failed on message 'fail'" in caplog.text


def test_threads_do_not_see_each_others(worker: functools.partial[Diary]) -> None:
    meeting = threading.Barrier(2)

    def script() -> int:
        meeting.wait(PATIENCE)
        try:
            return Method("Diary", "add")(1)  # type: ignore[no-any-return]
        finally:
            meeting.wait(PATIENCE)

    both = [run_in_thread(alone, worker, script) for _ in range(2)]
    assert [one.result(PATIENCE) for one in both] == [11, 11]
    eventually(lambda: here.resident is None)


class Courier(Worker):
    """It writes to itself, and answers by a coroutine, for which there is no loop at that time."""

    def write(self) -> None:
        self.answer = self.actor_ref.ask("a letter", block=False)

    def read(self) -> str:
        try:
            return str(self.answer.get(timeout=PATIENCE))
        except TypeError as error:
            return f"TypeError: {error}"

    async def on_receive(self, message: Any) -> Any:
        return message


def test_a_coroutine_cannot_answer_what_an_instance_sends_to_itself() -> None:
    with Pool(1, worker=Courier, backend=ProcessBackend()) as pool:
        pool.proxy().write().result(PATIENCE)
        assert "must be plain methods" in pool.proxy().read().result(PATIENCE)
        assert pool.ask("a question").result(PATIENCE) == "a question"
