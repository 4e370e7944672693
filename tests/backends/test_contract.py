"""What holds wherever tasks run: one suite, for each of the backends.

Tasks are functions of modules, and tell of themselves by files, since they may be elsewhere.

The tests in ``tests/workerpool`` run on other backends as well, where they can:
``tests/workerpool/conftest.py`` names those that do not, with the reason. The faults of a backend
are in ``test_scripted_faults.py``, what only child processes can do is in
``tests/backends/process``.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ion_actors import (
    BrokenPool,
    Cancelled,
    Context,
    DeadlineExceeded,
    PanicRecovery,
    Pool,
    PoolClosed,
    QueueFull,
    TaskPanicked,
)
from ion_actors.backends.process import ProcessBackend
from ion_actors.testing import RecordingMetrics
from tests.backends.process import errands
from tests.backends.scripted import Scripted
from tests.ray_cluster import RAY_IS_HERE, backend_of, param_of
from tests.workerpool.helpers import PATIENCE, eventually

BACKENDS: dict[str, Callable[[], Any]] = {
    "thread": lambda: "thread",
    "process": lambda: ProcessBackend(grace=0.5),
    "asyncio": lambda: "asyncio",
    "scripted": Scripted,
}
if RAY_IS_HERE:
    BACKENDS["ray"] = lambda: backend_of("ray")
    BACKENDS["ray-agent"] = lambda: backend_of("ray-agent")


@pytest.fixture(params=[*map(param_of, BACKENDS)])
def make(request: pytest.FixtureRequest) -> Callable[..., Pool]:
    """Makes pools."""
    if not request.param.startswith("ray"):  # Ray has connections that come and go
        request.getfixturevalue("no_child_is_left")

    def make(size: int = 1, *args: Any, **settings: Any) -> Pool:
        return Pool(size, *args, backend=BACKENDS[request.param](), **settings)

    return make


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    return tmp_path / "mark"


def await_mark(mark: Path) -> None:
    eventually(lambda: mark.exists() and mark.read_text())


def test_results_and_exceptions(make: Callable[..., Pool]) -> None:
    with make(2) as pool:
        assert pool.submit(pow, 2, exp=5).result(PATIENCE) == 32
        with pytest.raises(KeyError, match="lost"):
            pool.submit(errands.fail, KeyError("lost")).result(PATIENCE)
        assert pool.submit(errands.echo, None).result(PATIENCE) is None
        numbers = pool.metrics()
        assert (numbers.completed, numbers.failed) == (2, 1)


def test_an_error_keeps_its_cause_and_says_where_it_was(make: Callable[..., Pool]) -> None:
    with make() as pool:
        error = pool.submit(errands.fail_for_a_reason).exception(PATIENCE)
        assert isinstance(error, RuntimeError)
        assert isinstance(error.__cause__, KeyError)


def test_a_panic_takes_one_worker_down(make: Callable[..., Pool]) -> None:
    with make(name="p") as pool:
        futures = [pool.submit(pow, 2, n) for n in range(3)]
        panicked = pool.submit(errands.fail, SystemExit(3))
        futures += [pool.submit(pow, 2, n) for n in range(3, 6)]
        with pytest.raises(TaskPanicked, match="fail") as found:
            panicked.result(PATIENCE)
        assert isinstance(found.value.__cause__, SystemExit)
        assert found.value.worker == "p-0"
        assert [one.result(PATIENCE) for one in futures] == [1, 2, 4, 8, 16, 32]
        assert pool.metrics().restarts == 1


def test_a_policy_says_what_else_is_a_panic(make: Callable[..., Pool]) -> None:
    recovery = PanicRecovery(is_panic=KeyError, max_restarts=0)
    pool = make(panic_recovery=recovery)
    with pytest.raises(TaskPanicked):
        pool.submit(errands.fail, KeyError()).result(PATIENCE)
    eventually(lambda: pool.is_closed)
    with pytest.raises(BrokenPool):
        pool.submit(pow, 2, 3)


def test_coroutines(make: Callable[..., Pool]) -> None:
    with make() as pool:
        assert pool.submit(errands.double, 21).result(PATIENCE) == 42


def test_a_coroutine_ends_with_its_context(make: Callable[..., Pool], mark: Path) -> None:
    with make() as pool:
        task = pool.submit(errands.heed_in_coroutine, mark)
        await_mark(mark)
        task.cancel()
        with pytest.raises(Cancelled):
            task.result(PATIENCE)
        assert mark.with_suffix(".finally").exists()


def test_a_queued_task_is_cancelled_at_once(make: Callable[..., Pool], mark: Path) -> None:
    with make() as pool:
        first = pool.submit(errands.heed_and_answer, mark)
        await_mark(mark)
        queued = pool.submit(pow, 2, 3)
        assert queued.cancel()
        assert queued.cancelled()
        assert not first.cancel()
        assert first.result(PATIENCE) == "the future of task 'heed_and_answer' was cancelled"


def test_a_wait_under_the_context_ends_with_it(make: Callable[..., Pool], mark: Path) -> None:
    context = Context()
    with make() as pool:
        task = pool.options(context=context).submit(errands.heed, mark)
        await_mark(mark)
        context.cancel("enough")
        with pytest.raises(Cancelled, match="enough"):
            task.result(PATIENCE)
        assert pool.metrics().cancelled == 1


def test_a_time_limit(make: Callable[..., Pool], mark: Path) -> None:
    with make() as pool:
        task = pool.options(timeout=0.3).submit(errands.heed, mark)
        with pytest.raises(DeadlineExceeded):
            task.result(PATIENCE)
        assert pool.submit(pow, 2, 3).result(PATIENCE) == 8


def test_the_context_can_be_passed(make: Callable[..., Pool]) -> None:
    with make() as pool:
        found = pool.options(pass_context=True, timeout=90).submit(errands.remaining_of)
        assert 60 < found.result(PATIENCE) <= 90


def test_context_variables(make: Callable[..., Pool]) -> None:
    with make() as pool:
        token = errands.number.set(7)
        try:
            assert pool.submit(errands.set_number, 8).result(PATIENCE) == 8
            assert pool.submit(errands.get_number).result(PATIENCE) == 7
        finally:
            errands.number.reset(token)
        assert pool.submit(errands.get_number).result(PATIENCE) == 0


def test_the_queue_is_bounded(make: Callable[..., Pool], mark: Path) -> None:
    with make(1, 2) as pool:
        first = pool.submit(errands.heed_and_answer, mark)
        await_mark(mark)
        queued = [pool.submit(pow, 2, n) for n in range(2)]
        with pytest.raises(QueueFull):
            pool.try_submit(pow, 2, 3)
        first.cancel()
        assert [one.result(PATIENCE) for one in queued] == [1, 2]


@pytest.mark.parametrize("chunksize", [1, 4])
def test_maps(make: Callable[..., Pool], chunksize: int) -> None:
    with make(2) as pool:
        assert list(pool.map(pow, range(9), [2] * 9, chunksize=chunksize)) == [
            n * n for n in range(9)
        ]
        assert sorted(pool.map_unordered(abs, range(9), chunksize=chunksize)) == [*range(9)]


def test_the_results_before_an_error_of_a_map(make: Callable[..., Pool]) -> None:
    found: list[int] = []
    with make() as pool, pytest.raises(ZeroDivisionError):
        found.extend(pool.map(divmod, (4, 6, 8, 1), (2, 3, 0, 1), chunksize=4))
    assert found == [(2, 0), (2, 0)]


def test_from_a_coroutine(make: Callable[..., Pool]) -> None:
    async def main() -> list[int]:
        async with make(2) as pool:
            futures = [await pool.asubmit(pow, 2, n) for n in range(4)]
            return [await one for one in futures]

    assert asyncio.run(main()) == [1, 2, 4, 8]


def test_the_standard_waits(make: Callable[..., Pool]) -> None:
    with make(2) as pool:
        futures = [pool.submit(pow, 2, n) for n in range(5)]
        done, not_done = concurrent.futures.wait(futures, PATIENCE)
        assert (len(done), len(not_done)) == (5, 0)


def test_each_worker_is_initialised(make: Callable[..., Pool], tmp_path: Path) -> None:
    with make(2, initializer=errands.note, initargs=(tmp_path,)) as pool:
        assert pool.submit(pow, 2, 3).result(PATIENCE) == 8
        eventually(lambda: len(list(tmp_path.iterdir())) == 2)
        pool.submit(errands.fail, SystemExit(1)).exception(PATIENCE)
        eventually(lambda: len(list(tmp_path.iterdir())) == 3)


def test_a_wrapper_sees_each_call(make: Callable[..., Pool]) -> None:
    seen: list[int] = []

    def wrapper(call: Callable[[], Any]) -> Callable[[], Any]:
        def wrapped() -> Any:
            seen.append(os.getpid())
            return ("wrapped", call())

        return wrapped

    with make(task_wrapper=wrapper) as pool:
        assert pool.submit(pow, 2, 3).result(PATIENCE) == ("wrapped", 8)
    assert seen == [os.getpid()]


def test_a_pool_can_grow_and_shrink(make: Callable[..., Pool]) -> None:
    with make(1) as pool:
        pool.resize(3)
        assert [one.result(PATIENCE) for one in [pool.submit(pow, 2, n) for n in range(9)]] == [
            2**n for n in range(9)
        ]
        pool.resize(1)
        assert pool.submit(pow, 2, 3).result(PATIENCE) == 8
        eventually(lambda: len(pool.dump().workers) == 1)


def test_a_drain_finishes_what_was_accepted(make: Callable[..., Pool]) -> None:
    pool = make(2)
    futures = [pool.submit(pow, 2, n) for n in range(20)]
    pool.drain(PATIENCE)
    assert [one.result(0) for one in futures] == [2**n for n in range(20)]
    with pytest.raises(PoolClosed):
        pool.submit(pow, 2, 3)


def test_a_close_drops_what_has_not_begun(make: Callable[..., Pool], mark: Path) -> None:
    pool = make()
    running = pool.submit(errands.heed, mark)
    await_mark(mark)
    queued = [pool.submit(pow, 2, n) for n in range(5)]
    report = pool.close(PATIENCE)
    assert isinstance(running.exception(0), Cancelled)
    assert all(one.cancelled() for one in queued)
    assert len(report.cancelled) == 6
    numbers = pool.metrics()
    assert (numbers.cancelled, numbers.running, numbers.queued) == (6, 0, 0)


def test_the_hooks_are_told(make: Callable[..., Pool]) -> None:
    metrics = RecordingMetrics()
    with make(metrics=metrics, name="p") as pool:
        pool.submit(pow, 2, 3).result(PATIENCE)
        pool.submit(errands.fail, KeyError()).exception(PATIENCE)
        pool.submit(errands.fail, SystemExit()).exception(PATIENCE)
    for status in ("success", "error", "panic"):
        assert metrics.count("ion_workerpool_tasks_completed_total", status=status) == 1
