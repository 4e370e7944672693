"""What crosses to a child process and back, in a pool."""

from __future__ import annotations

import contextlib
import contextvars
import logging
import signal
import weakref
from collections.abc import Iterator
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import pytest

from ion_actors import Cancelled, Context, DeadlineExceeded, Output, Pool, TaskPanicked, WorkerDied
from ion_actors.backends.process import ProcessBackend
from ion_actors.testing import VirtualClock
from tests.backends.process import errands
from tests.inside import first_child
from tests.workerpool.helpers import eventually, is_alive

pytestmark = pytest.mark.usefixtures("no_child_is_left")

PATIENCE = 30.0

_request: contextvars.ContextVar[str] = contextvars.ContextVar("_request", default="none")


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    return tmp_path / "mark"


@pytest.fixture
def capturing() -> Iterator[Pool]:
    with Pool(1, backend=ProcessBackend(capture_output=True)) as pool:
        yield pool


def test_what_a_task_prints_is_its_futures(capturing: Pool) -> None:
    for words in ("one", "two"):
        future = capturing.submit(errands.say, words)
        future.result(PATIENCE)
        assert future.output == Output(f"{words}\n", f"{words.upper()}\n")
    quiet = capturing.submit(pow, 2, 2)
    quiet.result(PATIENCE)
    assert quiet.output == Output("", "")


def test_what_a_task_printed_before_it_failed_or_died(capturing: Pool) -> None:
    failed = capturing.submit(errands.say_and_fail, "one")
    assert isinstance(failed.exception(PATIENCE), ValueError)
    assert failed.output == Output("one\n", "ONE\n")
    died = capturing.submit(errands.say_and_die, "two")
    error = died.exception(PATIENCE)
    assert isinstance(error, TaskPanicked)
    assert isinstance(error.__cause__, WorkerDied)
    assert "TWO" in error.__cause__.last_words
    assert died.output == Output("two\n", "TWO\n")


def test_what_is_not_captured_is_not_kept() -> None:
    with Pool(1, backend="process") as pool:
        future = pool.submit(pow, 2, 2)
        future.result(PATIENCE)
    assert future.output is None


@pytest.mark.parametrize("wrapper", [None, lambda call: call])
def test_a_record_is_handled_in_the_variables_of_its_task(wrapper: Any) -> None:
    seen: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(_request.get())

    handler = Handler()
    logging.getLogger("errands").addHandler(handler)
    token = _request.set("r-7")
    try:
        with Pool(1, backend="process", task_wrapper=wrapper) as pool:
            pool.submit(errands.log, "x").result(PATIENCE)
    finally:
        _request.reset(token)
        logging.getLogger("errands").removeHandler(handler)
    assert seen == ["r-7"]


def test_a_result_that_takes_for_ever_to_pickle_can_be_cancelled(mark: Path) -> None:
    with Pool(1, backend=ProcessBackend(grace=0.05, kill_after=60)) as pool:
        pid = pool.submit(errands.pid).result(PATIENCE)
        future = pool.submit(errands.make_slow, mark)
        eventually(mark.exists)
        future.cancel()
        with pytest.raises(Cancelled):
            future.result(PATIENCE)
        assert pool.submit(errands.pid).result(PATIENCE) == pid


def test_a_signal_handler_that_logs_does_not_garble_the_messages(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logging.getLogger("errands"), "disabled", True)
    with Pool(1, backend="process") as pool:
        assert pool.submit(errands.log_in_a_signal_handler).result(PATIENCE) >= 50
        assert pool.metrics().panicked == 0


def test_a_loop_that_was_interrupted_anywhere_is_not_used_again(mark: Path) -> None:
    with Pool(1, backend=ProcessBackend(grace=0.05, kill_after=60)) as pool:
        future = pool.submit(errands.end_late_in_the_loop, mark)
        eventually(mark.exists)
        future.cancel()
        with pytest.raises(Cancelled):
            future.result(PATIENCE)
        for number in range(3):
            assert pool.submit(errands.double, number).result(PATIENCE) == 2 * number
        assert pool.submit(errands.pid).result(PATIENCE) == int(mark.read_text())


def test_a_result_that_is_interrupted_on_its_way_loses_no_memory(mark: Path) -> None:
    np = pytest.importorskip("numpy")
    size = 64 * 1024 * 1024
    with Pool(1, backend=ProcessBackend(grace=0.0, kill_after=60)) as pool:
        pid = pool.submit(errands.pid).result(PATIENCE)
        pool.submit(errands.zeros, 1).result(PATIENCE)  # an import had better not be interrupted
        for number in range(12):
            late = 0.001 + 0.002 * number  # at different places of its way
            future = pool.options(timeout=late).submit(errands.zeros, size)
            with contextlib.suppress(DeadlineExceeded):
                assert len(future.result(PATIENCE)) == size
            del future
        assert isinstance(pool.submit(errands.zeros, 10).result(PATIENCE), np.ndarray)
        assert pool.submit(errands.pid).result(PATIENCE) == pid
        assert pool.submit(errands.shelved).result(PATIENCE) <= 4 * size


def test_what_a_task_forks_does_not_write_into_its_result(mark: Path, tmp_path: Path) -> None:
    pytest.importorskip("numpy")
    go = tmp_path / "go"
    with Pool(1, backend="process") as pool:
        future = pool.submit(errands.fork_and_return_array, 1_000_000, mark, go)
        found = future.result(PATIENCE)
        eventually(mark.exists)
        fork = int(mark.read_text())
        go.touch()
        eventually(lambda: not is_alive(fork))
        assert (found == 1).all()


def test_a_child_with_too_much_memory_that_forks_have_seen_is_replaced() -> None:
    np = pytest.importorskip("numpy")
    array = np.zeros(50_000_000, dtype=np.uint8)
    with Pool(1, backend="process") as pool:
        pids = [pool.submit(errands.fork_with, array).result(PATIENCE) for _ in range(7)]
        assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [3, 3, 1]
        assert pool.metrics().restarts == 0


def test_what_a_task_forks_can_log_while_others_do(
    mark: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("errands"), "disabled", True)  # it is much
    with Pool(1, backend="process") as pool:
        pool.submit(errands.fork_while_others_log, mark).result(PATIENCE)
    assert mark.read_text() == "from the fork\n" * 20


def test_a_signal_that_the_parent_blocks_is_not_blocked_in_the_child(mark: Path) -> None:
    resource_tracker.ensure_running()  # its start would unblock it in the thread that does it
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        backend = ProcessBackend(start_method="spawn", grace=0.05, kill_after=60)
        with Pool(1, backend=backend) as pool:
            future = pool.submit(errands.nap, mark)
            eventually(mark.exists)
            future.cancel()
            with pytest.raises(Cancelled):
                future.result(PATIENCE)
        assert mark.with_suffix(".finally").exists()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def test_a_child_that_is_started_ahead_may_wait(mark: Path, clock: VirtualClock) -> None:
    backend = ProcessBackend(max_tasks_per_child=1, start_timeout=10)
    context = Context(clock=clock)
    with Pool(1, backend=backend, context=context, drain_timeout=None) as pool:
        assert pool.submit(pow, 2, 3).result(PATIENCE) == 8
        eventually(lambda: first_child(pool) is not None)
        ahead = first_child(pool)
        assert ahead is not None
        clock.advance(60)
        assert pool.submit(errands.pid).result(PATIENCE) == ahead.pid


class Watched:
    pass


@pytest.mark.usefixtures("without_gc")
def test_a_future_with_an_error_is_freed_without_the_garbage_collector() -> None:
    with Pool(1, backend="process") as pool:
        for call in (
            (errands.fail, ValueError("x")),
            (errands.make_unwelcome,),
            (errands.pid, errands.Unwelcome()),
            (errands.pid, Watched),
        ):
            future = pool.submit(*call)
            future.exception(PATIENCE)
            watched = weakref.ref(future)
            del future
            eventually(lambda: watched() is None)


def test_arrays_cross_without_being_copied_and_their_places_are_used_again() -> None:
    np = pytest.importorskip("numpy")
    with Pool(1, backend="process") as pool:
        array = np.arange(1_000_000.0)
        for _ in range(20):
            found = pool.submit(errands.echo, array).result(PATIENCE)
            assert (found == array).all()
            found += 1
        assert array[0] == 0
        del found
