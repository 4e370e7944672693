"""A pool whose tasks run in child processes."""

from __future__ import annotations

import functools
import logging
import os
import signal
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ion_actors import (
    Backoff,
    BrokenPool,
    Cancelled,
    Context,
    DeadlineExceeded,
    DrainTimeout,
    PanicRecovery,
    Pool,
    Progress,
    TaskNotPicklable,
    TaskPanicked,
    Worker,
    WorkerDied,
)
from ion_actors.backends.process import ProcessBackend
from ion_actors.backends.process.parent import runner
from ion_actors.backends.process.parent.child_process import Child
from ion_actors.backends.process.parent.memory_guard import MemoryGuard
from ion_actors.testing import VirtualClock
from tests.backends.process import errands
from tests.workerpool.helpers import PATIENCE, eventually, is_alive

pytestmark = pytest.mark.usefixtures("no_child_is_left")


class Named(Worker):
    def __init__(self, lock: object) -> None:
        super().__init__()


HASTY = ProcessBackend(grace=0.1, kill_after=0.1)
MILD = ProcessBackend(grace=None)  # nothing is ever forced


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """What a task makes to say that it has begun."""
    return tmp_path / "mark"


def await_mark(mark: Path) -> int:
    """Wait until the task has begun. Returns the pid of its child."""
    eventually(lambda: mark.exists() and mark.read_text())
    return int(mark.read_text())


# -- what is as in every pool ------------------------------------------------------------------


def test_a_task_runs_in_a_child_process() -> None:
    with Pool(1, backend="process") as pool:
        first = pool.submit(errands.pid).result(PATIENCE)
        assert first != os.getpid()
        assert pool.submit(errands.pid).result(PATIENCE) == first


def test_each_worker_has_a_child_of_its_own(mark: Path, tmp_path: Path) -> None:
    with Pool(2, backend=HASTY) as pool:
        other = tmp_path / "other"
        futures = [pool.submit(errands.heed, mark), pool.submit(errands.heed, other)]
        assert await_mark(mark) != await_mark(other)
        for future in futures:
            future.cancel()


def test_an_exception_of_a_task_is_its_futures() -> None:
    with Pool(1, backend="process") as pool:
        with pytest.raises(KeyError, match="lost"):
            pool.submit(errands.fail, KeyError("lost")).result(PATIENCE)
        assert pool.metrics().failed == 1
        assert pool.submit(pow, 2, 3).result(PATIENCE) == 8


def test_coroutines_run_in_the_child() -> None:
    with Pool(1, backend="process") as pool:
        assert pool.submit(errands.double, 21).result(PATIENCE) == 42


def test_a_map_in_chunks() -> None:
    with Pool(2, backend="process") as pool:
        assert list(pool.map(abs, range(-100, 0), chunksize=7)) == list(range(100, 0, -1))


def test_the_results_before_an_error_in_a_chunk_are_not_lost() -> None:
    with Pool(1, backend="process") as pool:
        found: list[float] = []
        with pytest.raises(ZeroDivisionError):
            found.extend(pool.map(pow, (2, 0, 3, 0), (-1, 1, -1, -1), chunksize=4))
        assert found == [2**-1, 0, 3**-1]


def test_what_cannot_be_pickled_fails_alone() -> None:
    with Pool(1, backend="process") as pool:
        pid = pool.submit(errands.pid).result(PATIENCE)
        for what, future in {
            "argument 2": pool.submit(pow, 1, threading.Lock()),
            "the result": pool.submit(threading.Lock),
            "the call": pool.submit(errands.pid, errands.Unwelcome()),
        }.items():
            with pytest.raises(TaskNotPicklable, match=what) as refused:
                future.result(PATIENCE)
            assert refused.value.what == what
            assert refused.value.task in {"pow", "lock", "allocate_lock", "pid"}
            assert refused.value.task in str(refused.value)
        with pytest.raises(TaskNotPicklable, match="the result of task 'make_unwelcome'"):
            pool.submit(errands.make_unwelcome).result(PATIENCE)
        assert isinstance(pool.submit(errands.deep, 100_000).exception(PATIENCE), TaskNotPicklable)
        assert pool.submit(errands.pid).result(PATIENCE) == pid
        assert pool.metrics().failed == 5


def test_large_messages_cross_both_ways() -> None:
    data = bytes(range(256)) * 40_000
    with Pool(1, backend="process") as pool:
        assert pool.submit(errands.echo, data).result(PATIENCE) == data


def test_the_tasks_run_in_the_main_thread_and_do_not_hear_ctrl_c() -> None:
    with Pool(1, backend="process") as pool:
        found = pool.submit(errands.hear_ctrl_c).result(PATIENCE)
        assert found == (True, True)


def test_an_initializer_runs_in_each_child() -> None:
    with Pool(1, backend="process", initializer=errands.settle, initargs=("x",)) as pool:
        assert pool.submit(errands.settled).result(PATIENCE) == ["x"]
        pool.submit(errands.leave, 1).exception(PATIENCE)
        assert pool.submit(errands.settled).result(PATIENCE) == ["x"]


def test_an_initializer_that_fails_is_tried_again(mark: Path) -> None:
    recovery = PanicRecovery(backoff=Backoff(initial=0.0))
    with Pool(
        1, backend="process", initializer=errands.fail_to_settle, initargs=(mark,),
        panic_recovery=recovery,
    ) as pool:  # fmt: skip
        assert pool.submit(pow, 2, 3).result(PATIENCE) == 8
        assert pool.metrics().restarts == 2


def test_an_initializer_that_always_fails_breaks_the_pool() -> None:
    recovery = PanicRecovery(backoff=Backoff(initial=0.0, retries=1))
    pool = Pool(
        1, backend="process", initializer=errands.fail, initargs=(OSError("no"),),
        panic_recovery=recovery,
    )  # fmt: skip
    with pytest.raises(BrokenPool) as broken:
        pool.submit(pow, 2, 3).result(PATIENCE)
    assert isinstance(broken.value.__cause__, OSError)
    pool.close()


def test_a_child_that_is_not_ready_in_time_is_killed() -> None:
    recovery = PanicRecovery(backoff=Backoff(retries=0))
    backend = ProcessBackend(start_timeout=0.2)
    pool = Pool(1, backend=backend, initializer=errands.wait_for_ever, panic_recovery=recovery)
    with pytest.raises(BrokenPool) as broken:
        pool.submit(pow, 2, 3).result(PATIENCE)
    assert "not ready" in str(broken.value.__cause__)
    pool.close()


def test_a_close_does_not_wait_for_an_initializer() -> None:
    pool = Pool(1, backend="process", initializer=errands.wait_for_ever)
    assert pool.close(PATIENCE).elapsed < PATIENCE / 2


def test_a_wrapper_is_called_in_the_worker_and_its_task_in_the_child() -> None:
    seen = []

    def wrapper(call: Callable[[], object]) -> Callable[[], object]:
        seen.append(os.getpid())
        return lambda: (call(), "wrapped")

    with Pool(1, backend="process", task_wrapper=wrapper) as pool:
        inner, outer = pool.submit(errands.pid).result(PATIENCE)  # type: ignore[misc]
        assert (seen, outer) == ([os.getpid()], "wrapped")
        assert inner != os.getpid()


# -- what goes along ---------------------------------------------------------------------------


def test_context_variables_go_with_the_task_and_stay_with_it() -> None:
    with Pool(1, backend="process") as pool:
        token = errands.number.set(7)
        try:
            assert pool.submit(errands.get_number).result(PATIENCE) == 7
            assert pool.submit(errands.set_number, 8).result(PATIENCE) == 8
            assert pool.submit(errands.get_number).result(PATIENCE) == 7
        finally:
            errands.number.reset(token)
        assert pool.submit(errands.get_number).result(PATIENCE) == 0


def test_log_records_come_out_of_the_parents_handlers(caplog: pytest.LogCaptureFixture) -> None:
    with Pool(1, backend="process") as pool:
        pool.submit(errands.log, "from afar").result(PATIENCE)
        assert caplog.record_tuples == [("errands", logging.WARNING, "from afar")]
        assert caplog.records[0].process != os.getpid()


def test_what_is_logged_between_tasks_comes_out_at_the_latest_at_the_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with Pool(1, backend="process") as pool:
        pool.submit(errands.log_in_a_thread, "late").result(PATIENCE)
    assert [record.getMessage() for record in caplog.records] == ["late"]


def test_a_task_that_talks_for_ever_can_be_stopped(
    mark: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Pool(1, backend=ProcessBackend(grace=0.05, kill_after=60)) as pool:
        for _ in range(10):
            future = pool.submit(errands.log_for_ever, mark)
            pid = await_mark(mark)
            future.cancel()
            with pytest.raises(Cancelled):
                future.result(PATIENCE)
            assert pool.submit(errands.pid).result(PATIENCE) == pid
            mark.unlink()
        caplog.clear()


def test_warnings_are_shown_in_the_parent() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with Pool(1, backend="process") as pool:
            pool.submit(errands.warn, "careful").result(PATIENCE)
    assert [str(one.message) for one in caught] == ["careful"]


def test_progress_is_seen_while_the_task_runs(mark: Path) -> None:
    with Pool(1, backend="process") as pool:
        future = pool.submit(errands.progress, mark)
        eventually(lambda: future.progress == Progress(0.5, "half of it"))
        future.cancel()


def test_what_a_task_forks_cannot_disturb_it(mark: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Pool(1, backend="process") as pool:
        pool.submit(errands.fork_and_log, mark).result(PATIENCE)
        assert await_mark(mark)
        assert pool.submit(pow, 2, 3).result(PATIENCE) == 8
    assert caplog.records == []


# -- crashes -----------------------------------------------------------------------------------

CRASHES = {
    "os._exit": (functools.partial(errands.leave, 3), 3, None),
    "segfault": (errands.segfault, -signal.SIGSEGV, "SIGSEGV"),
    "kill -9": (functools.partial(errands.kill_self, signal.SIGKILL), -signal.SIGKILL, "SIGKILL"),
    "abort": (os.abort, -signal.SIGABRT, "SIGABRT"),
}


@pytest.mark.parametrize("how", CRASHES)
def test_a_crash_takes_one_task_down_and_no_other(how: str) -> None:
    crash, exitcode, signame = CRASHES[how]
    with Pool(2, 100, backend="process", name="p") as pool:
        before = [pool.submit(pow, 2, n) for n in range(20)]
        crashed = pool.submit(crash)
        after = [pool.submit(pow, 3, n) for n in range(20)]
        with pytest.raises(TaskPanicked) as panicked:
            crashed.result(PATIENCE)
        died = panicked.value.__cause__
        assert isinstance(died, WorkerDied)
        assert (died.exitcode, died.signal) == (exitcode, signame)
        assert died.worker == panicked.value.worker
        assert [one.result(PATIENCE) for one in before] == [2**n for n in range(20)]
        assert [one.result(PATIENCE) for one in after] == [3**n for n in range(20)]
        numbers = pool.metrics()
        assert (numbers.completed, numbers.panicked, numbers.restarts) == (40, 1, 1)


def test_the_last_words_say_where_it_was() -> None:
    with Pool(1, backend="process") as pool:
        died = pool.submit(errands.segfault).exception(PATIENCE).__cause__  # type: ignore[union-attr]
        assert isinstance(died, WorkerDied)
        assert "Segmentation fault" in died.last_words
        assert "in segfault" in died.last_words
        assert died.last_words in str(died)


def test_an_exit_of_the_interpreter_is_a_panic_as_in_a_thread() -> None:
    with Pool(1, backend="process") as pool:
        pid = pool.submit(errands.pid).result(PATIENCE)
        with pytest.raises(TaskPanicked) as panicked:
            pool.submit(errands.fail, SystemExit(3)).result(PATIENCE)
        assert isinstance(panicked.value.__cause__, SystemExit)
        assert pool.submit(errands.pid).result(PATIENCE) != pid


def test_a_child_that_dies_while_idle_takes_nothing_down() -> None:
    with Pool(1, backend="process") as pool:
        pid = pool.submit(errands.pid).result(PATIENCE)
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: not Path(f"/proc/{pid}").exists())
        assert pool.submit(errands.pid).result(PATIENCE) != pid
        assert pool.metrics().panicked == 0


def test_a_stream_that_is_kept_open_by_another_does_not_hide_a_death(mark: Path) -> None:
    with Pool(1, backend="process") as pool:
        died = pool.submit(errands.fork_and_die, mark).exception(PATIENCE).__cause__  # type: ignore[union-attr]
        assert isinstance(died, WorkerDied)
        assert died.exitcode == 7
    grandchild = int(mark.read_text())
    mark.unlink()
    eventually(lambda: not is_alive(grandchild))


def test_a_fork_in_a_task_answers_nothing(mark: Path) -> None:
    with Pool(1, backend="process") as pool:
        assert pool.submit(errands.fork_and_return, mark).result(PATIENCE) == await_mark(mark)
        assert pool.submit(pow, 2, 3).result(PATIENCE) == 8


@pytest.mark.parametrize(
    "mischief", [errands.write_to_all_descriptors, errands.close_all_descriptors]
)
def test_mischief_with_the_descriptors_is_a_death(mischief: Callable[[], None]) -> None:
    with Pool(1, backend="process") as pool:
        found = pool.submit(mischief).exception(PATIENCE)
        assert isinstance(found, TaskPanicked)
        assert isinstance(found.__cause__, WorkerDied)
        assert pool.submit(pow, 2, 3).result(PATIENCE) == 8


def test_streams_that_a_task_closes_are_its_own() -> None:
    with Pool(1, backend="process") as pool:
        pool.submit(errands.close_streams).result(PATIENCE)
        assert pool.submit(pow, 2, 3).result(PATIENCE) == 8


# -- cancellation ------------------------------------------------------------------------------


def test_a_cancelled_task_can_end_itself(mark: Path) -> None:
    with Pool(1, backend=MILD) as pool:
        future = pool.submit(errands.heed_and_answer, mark)
        pid = await_mark(mark)
        future.cancel()
        assert future.result(PATIENCE) == "the future of task 'heed_and_answer' was cancelled"
        assert pool.submit(errands.pid).result(PATIENCE) == pid


@pytest.mark.parametrize("task", [errands.heed, errands.heed_in_coroutine])
def test_a_wait_under_the_context_ends_with_it(mark: Path, task: Callable[..., None]) -> None:
    context = Context()
    with Pool(1, backend=MILD) as pool:
        future = pool.options(context=context).submit(task, mark)
        pid = await_mark(mark)
        context.cancel("enough")
        with pytest.raises(Cancelled, match="enough"):
            future.result(PATIENCE)
        assert pool.submit(errands.pid).result(PATIENCE) == pid


def test_the_deadline_is_known_in_the_child() -> None:
    with Pool(1, backend="process") as pool:
        assert pool.submit(errands.remaining).result(PATIENCE) is None
        found = pool.options(timeout=100).submit(errands.remaining).result(PATIENCE)
        assert found is not None
        assert 90 < found <= 100
        later = pool.options(timeout=100).submit(errands.remaining_later, 0.5).result(PATIENCE)
        assert later is not None
        assert later <= 99.5


def test_sigterm_lets_a_task_clean_up_and_keeps_the_child(mark: Path) -> None:
    with Pool(1, backend=ProcessBackend(grace=0.05, kill_after=60)) as pool:
        future = pool.submit(errands.nap, mark)
        pid = await_mark(mark)
        future.cancel()
        with pytest.raises(Cancelled):
            future.result(PATIENCE)
        assert mark.with_suffix(".finally").exists()
        assert pool.submit(errands.pid).result(PATIENCE) == pid
        assert pool.metrics().cancelled == 1


def test_sigterm_that_comes_from_elsewhere_is_not_for_the_task(mark: Path) -> None:
    with Pool(1, backend="process") as pool:
        future = pool.submit(errands.heed_and_answer, mark)
        pid = await_mark(mark)
        for _ in range(3):
            os.kill(pid, signal.SIGTERM)  # as a service manager does, which tells all processes
        assert pool.submit(pow, 2, 3).cancel()
        future.cancel()
        assert future.result(PATIENCE) == "the future of task 'heed_and_answer' was cancelled"
        os.kill(pid, signal.SIGTERM)
        assert pool.submit(errands.pid).result(PATIENCE) == pid


def test_sigterm_to_what_a_task_has_forked_is_for_that() -> None:
    with Pool(1, backend="process") as pool:
        assert pool.submit(errands.terminate_a_fork).result(PATIENCE) == -signal.SIGTERM


@pytest.mark.parametrize(
    "task",
    [
        errands.nap_after_a_destructor,
        errands.nap_after_a_destructor_with_a_quick_signal,
        errands.nap_with_a_callback_that_blocks,
    ],
)
def test_sigterm_reaches_a_task_wherever_it_is(mark: Path, task: Callable[..., None]) -> None:
    with Pool(1, backend=ProcessBackend(grace=0.05, kill_after=60)) as pool:
        future = pool.submit(task, mark)
        pid = await_mark(mark)
        future.cancel()
        with pytest.raises(Cancelled):
            future.result(PATIENCE)
        assert mark.with_suffix(".finally").exists()
        assert pool.submit(errands.pid).result(PATIENCE) == pid


def test_a_child_that_was_interrupted_in_an_import_is_replaced(tmp_path: Path, mark: Path) -> None:
    with Pool(1, backend=ProcessBackend(grace=0.05, kill_after=60)) as pool:
        pid = pool.submit(errands.pid).result(PATIENCE)
        future = pool.submit(errands.import_slowly, tmp_path, mark)
        eventually(mark.exists)
        future.cancel()
        with pytest.raises(Cancelled):
            future.result(PATIENCE)
        assert pool.submit(errands.pid).result(PATIENCE) != pid
        assert (pool.metrics().panicked, pool.metrics().restarts) == (0, 0)


def test_a_child_that_is_told_to_end_while_it_starts_ends_after_its_grace(mark: Path) -> None:
    backend = ProcessBackend(max_tasks_per_child=1, grace=0.1, kill_after=600)
    initializer = functools.partial(errands.wait_from_the_second_time_on, mark)
    with Pool(1, backend=backend, initializer=initializer, drain_timeout=None) as pool:
        assert pool.submit(pow, 2, 3).result(PATIENCE) == 8


@pytest.mark.parametrize("task", [errands.stubborn, errands.stop_answering, errands.spin_natively])
def test_what_does_not_end_is_killed(mark: Path, task: Callable[..., None]) -> None:
    with Pool(1, backend=HASTY, panic_recovery=PanicRecovery(max_restarts=0)) as pool:
        future = pool.submit(task, mark)
        pid = await_mark(mark)
        future.cancel()
        with pytest.raises(Cancelled, match="was cancelled"):
            future.result(PATIENCE)
        assert pool.submit(errands.pid).result(PATIENCE) != pid
        numbers = pool.metrics()
        assert (numbers.cancelled, numbers.panicked, numbers.restarts) == (1, 0, 0)


def test_a_time_limit_stops_a_busy_loop(mark: Path) -> None:
    with Pool(1, backend=HASTY) as pool:
        future = pool.options(timeout=0.5).submit(errands.spin, mark)
        with pytest.raises(DeadlineExceeded):
            future.result(PATIENCE)
        assert pool.submit(pow, 2, 3).result(PATIENCE) == 8  # its worker is free again


def test_the_signals_go_by_the_pools_clock(clock: VirtualClock, mark: Path) -> None:
    backend = ProcessBackend(start_timeout=None, grace=5, kill_after=7)
    context = Context(clock=clock)
    with Pool(1, backend=backend, context=context, drain_timeout=None) as pool:
        future = pool.submit(errands.stubborn, mark)
        await_mark(mark)
        future.cancel()
        clock.wait_for_timers(1)
        clock.advance(5)
        eventually(mark.with_suffix(".asked").exists)
        assert not future.done()
        clock.advance(7)
        with pytest.raises(Cancelled):
            future.result(PATIENCE)
        assert pool.submit(pow, 2, 3).result(PATIENCE) == 8


# -- the end -----------------------------------------------------------------------------------


@pytest.mark.parametrize("task", [errands.spin, errands.stubborn, errands.spin_natively])
def test_a_close_keeps_its_time_against_any_task(mark: Path, task: Callable[..., None]) -> None:
    pool = Pool(1, backend=MILD)
    future = pool.submit(task, mark)
    pid = await_mark(mark)
    report = pool.close(0.2)
    assert [one.name for one in report.running] == [task.__name__]
    assert isinstance(future.exception(), Cancelled)
    assert not is_alive(pid)


def test_a_drain_keeps_its_time_against_any_task(mark: Path) -> None:
    pool = Pool(1, backend=MILD)
    pool.submit(errands.stubborn, mark)
    pid = await_mark(mark)
    with pytest.raises(DrainTimeout):
        pool.drain(0.2)
    assert not is_alive(pid)


def test_a_thread_that_a_task_leaves_behind_does_not_keep_the_pool() -> None:
    with Pool(1, backend=HASTY) as pool:
        assert pool.submit(errands.leave_a_thread).result(PATIENCE) == "left"
        pid = pool.submit(errands.pid).result(PATIENCE)
    assert not is_alive(pid)


def test_after_the_end_no_child_is_left() -> None:
    with Pool(2, backend="process") as pool:
        pids = {pool.submit(errands.pid).result(PATIENCE) for _ in range(10)}
    assert not any(map(is_alive, pids))


@pytest.mark.parametrize("backend", ["thread", "process"])
def test_a_task_can_have_a_pool_of_its_own(backend: str) -> None:
    with Pool(1, backend="process") as pool:
        assert pool.submit(errands.squares_in_a_pool, backend).result(PATIENCE) == [0, 1, 4, 9, 16]


def test_a_pool_cannot_be_sent() -> None:
    with (
        Pool(1, backend="process", name="p") as pool,
        pytest.raises(TaskNotPicklable, match=r"argument 1.*'p' lives in this process"),
    ):
        pool.submit(errands.echo, pool).result(PATIENCE)


# -- settings ----------------------------------------------------------------------------------


def test_a_child_is_replaced_when_it_has_done_its_share() -> None:
    with Pool(1, backend=ProcessBackend(max_tasks_per_child=3)) as pool:
        pids = [pool.submit(errands.pid).result(PATIENCE) for _ in range(7)]
        assert pids == [pids[0]] * 3 + [pids[3]] * 3 + [pids[6]]
        assert len(set(pids)) == 3
        assert pool.metrics().restarts == 0


def test_a_next_child_that_cannot_be_started_is_tried_again_with_the_next_task(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    left = [True, False]

    def once_in_vain(*args: Any) -> Child:
        if left and not left.pop(0):
            raise OSError("no more processes")
        return Child(*args)

    monkeypatch.setattr(runner, "Child", once_in_vain)
    with Pool(1, backend=ProcessBackend(max_tasks_per_child=1)) as pool:
        pids = {pool.submit(errands.pid).result(PATIENCE) for _ in range(3)}
        assert len(pids) == 3
        assert (pool.metrics().panicked, pool.metrics().restarts) == (0, 0)
    (record,) = [one for one in caplog.records if "cannot start a child" in one.message]
    assert "no more processes" in str(record.exc_info)


def test_a_child_that_holds_too_much_memory_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MemoryGuard, "begin", lambda _: None)  # the task is over before a look
    with Pool(1, backend=ProcessBackend(max_memory_per_child=150_000_000)) as pool:
        first = pool.submit(errands.hold, 1_000).result(PATIENCE)
        assert pool.submit(errands.hold, 200_000_000).result(PATIENCE) == first
        assert pool.submit(errands.pid).result(PATIENCE) != first


def test_the_environment_and_the_niceness_are_the_childs() -> None:
    backend = ProcessBackend(env={"ION_TEST": "yes"}, nice=3)
    before = os.nice(0)
    with Pool(1, backend=backend) as pool:
        assert pool.submit(errands.getenv, "ION_TEST").result(PATIENCE) == "yes"
        assert pool.submit(errands.niceness).result(PATIENCE) == before + 3
    assert "ION_TEST" not in os.environ


def test_modules_are_imported_before_the_first_task() -> None:
    backend = ProcessBackend(preload=("tests.backends.process.errands", "no_such_module"))
    pool = Pool(1, backend=backend)
    with pytest.raises(BrokenPool, match="preload='no_such_module' cannot be") as broken:
        pool.submit(pow, 2, 3).result(PATIENCE)
    assert isinstance(broken.value.__cause__, ModuleNotFoundError)
    assert pool.metrics().restarts == 0  # it is not tried again
    pool.close()


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"initializer": threading.Lock().acquire}, "the function of task 'initializer'"),
        ({"initializer": print, "initargs": (1, threading.Lock())}, "argument 2 of task"),
        ({"worker": functools.partial(Named, threading.Lock())}, "the start of a Named"),
    ],
)
def test_what_can_never_start_is_not_tried_again(settings: dict[str, Any], what: str) -> None:
    pool = Pool(1, backend="process", **settings)
    with pytest.raises(BrokenPool, match="cannot start in processes") as broken:
        pool.submit(pow, 2, 3).result(PATIENCE)
    assert what in str(broken.value)
    assert isinstance(broken.value.__cause__, TaskNotPicklable)
    assert pool.metrics().restarts == 0
    pool.close()


def test_spawned_children_do_as_well() -> None:
    with Pool(1, backend=ProcessBackend(start_method="spawn")) as pool:
        assert pool.submit(pow, 2, 3).result(PATIENCE) == 8
        died = pool.submit(errands.leave, 5).exception(PATIENCE).__cause__  # type: ignore[union-attr]
        assert isinstance(died, WorkerDied)
        assert died.exitcode == 5
        assert pool.submit(pow, 2, 3).result(PATIENCE) == 8


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"start_method": "fork"}, ValueError),
        ({"preload": "numpy"}, TypeError),
        ({"preload": (1,)}, TypeError),
        ({"max_tasks_per_child": 0}, ValueError),
        ({"max_memory_per_child": 1.5}, TypeError),
        ({"nice": -1}, ValueError),
        ({"env": {"A": 1}}, TypeError),
        ({"env": ["A"]}, TypeError),
        ({"start_timeout": 0}, ValueError),
        ({"grace": -1}, ValueError),
        ({"kill_after": None}, TypeError),
        ({"kill_after": -1}, ValueError),
        ({"preload": ("",)}, ValueError),
        ({"preload": (".json",)}, ValueError),
        ({"env": {"A=B": "1"}}, ValueError),
        ({"env": {"": "1"}}, ValueError),
        ({"env": {"A": "x\0"}}, ValueError),
        ({"env": {"A": "\ud800"}}, ValueError),  # a child would only find out at its start
        ({"heartbeat": 0}, ValueError),
        ({"heartbeat": "1"}, TypeError),
    ],
)
def test_settings_that_make_no_sense_are_refused(
    wrong: dict[str, object], error: type[Exception]
) -> None:
    with pytest.raises(error, match=next(iter(wrong))):
        ProcessBackend(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wrong", "error"), [("fork", ValueError), (3, TypeError), (ProcessBackend, TypeError)]
)
def test_what_is_no_backend_is_refused(wrong: object, error: type[Exception]) -> None:
    with pytest.raises(error, match="backend"):
        Pool(1, backend=wrong)  # type: ignore[arg-type]


def test_a_task_that_takes_the_standard_streams_away_keeps_its_result() -> None:
    with Pool(1, backend="process") as pool:
        pool.submit(exec, "import sys; del sys.stdout; sys.stderr = None").result(PATIENCE)
        assert pool.submit(pow, 2, 3).result(PATIENCE) == 8
