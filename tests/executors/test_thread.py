"""``ion_actors.executors.ThreadPoolExecutor`` in the place of its namesake."""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
import logging
import queue
import sys
import threading
from concurrent.futures.thread import BrokenThreadPool
from typing import Any

import pytest

from ion_actors import BrokenPool, PanicRecovery, Pool, QueueFull, TaskPanicked
from ion_actors.executors import Future, ThreadPoolExecutor, as_completed, wait

Original = concurrent.futures.ThreadPoolExecutor


def test_it_is_a_pool_and_an_executor_of_the_standard_library() -> None:
    with ThreadPoolExecutor(1) as executor:
        assert isinstance(executor, Original)
        assert isinstance(executor, Pool)
        assert isinstance(executor.submit(int), Future)


def test_the_constructor_takes_what_its_namesake_takes_in_the_same_order() -> None:
    theirs = inspect.signature(Original).parameters
    ours = inspect.signature(ThreadPoolExecutor).parameters
    for place, (name, one) in enumerate(theirs.items()):
        if one.kind is not one.VAR_KEYWORD:  # of Python 3.14, for subclasses
            assert list(ours)[place] == name
            assert (ours[name].kind, ours[name].default) == (one.kind, one.default)
    made = []
    with ThreadPoolExecutor(1, "prefix", made.append, ("begun",)) as executor:
        assert executor.submit(lambda: threading.current_thread().name).result() == "prefix_0"
    assert set(made) == {"begun"}
    with ThreadPoolExecutor() as executor, Original() as other:
        assert executor._max_workers == other._max_workers


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"max_workers": 0}, ValueError, "max_workers must be greater than 0"),
        ({"max_workers": -1}, ValueError, "max_workers must be greater than 0"),
        ({"initializer": 5}, TypeError, "initializer must be a callable"),
        ({"queue_sise": 5}, TypeError, "did you mean queue_size="),
    ],
)
def test_arguments_that_make_no_sense(arguments: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        ThreadPoolExecutor(**arguments)


def test_any_number_of_tasks_may_wait_unless_a_queue_size_is_given() -> None:
    gate = threading.Event()
    with ThreadPoolExecutor(1) as executor:
        futures = [executor.submit(gate.wait) for _ in range(20_000)]
        assert executor._work_queue.qsize() > 19_000
        assert "/" not in repr(executor)
        gate.set()
        assert not wait(futures).not_done
    gate.clear()
    with ThreadPoolExecutor(1, queue_size=1) as executor:
        executor.submit(gate.wait)
        executor.try_submit(gate.wait)
        with pytest.raises(QueueFull):
            executor.try_submit(gate.wait)
        gate.set()


def test_a_subclass_may_put_a_bounded_queue_in_the_place_of_the_other() -> None:
    class Bounded(ThreadPoolExecutor):
        def __init__(self, *args: Any, queue_size: int = 2, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self._work_queue = queue.Queue(queue_size)

    gate = threading.Event()
    with Bounded(max_workers=1) as executor:
        executor.submit(gate.wait)
        futures = [executor.try_submit(gate.wait) for _ in range(2)]
        with pytest.raises(QueueFull):
            executor.try_submit(gate.wait)
        assert (executor._work_queue.maxsize, executor.queue_size) == (2, 2)
        gate.set()
        assert len(list(as_completed(futures))) == 2


def test_a_subclass_may_replace_submit_and_exit() -> None:
    class Counting(ThreadPoolExecutor):
        submitted = 0

        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
            self.submitted += 1
            return super().submit(fn, *args, **kwargs)

        def __exit__(self, *_: object) -> None:
            """It is shut down elsewhere."""

    with Counting(2) as executor:
        assert list(executor.map(abs, [-1, -2])) == [1, 2]
        assert executor.submitted == 2
    assert executor.submit(int).result() == 0
    executor.shutdown()


def test_factories_that_know_only_max_workers() -> None:
    def factory(kind: type[concurrent.futures.Executor]) -> Any:
        return kind(max_workers=2)  # type: ignore[call-arg]

    with factory(ThreadPoolExecutor) as executor:
        assert executor._max_workers == 2


def test_the_block_waits_for_all_that_was_accepted_also_after_an_exception() -> None:
    gate, done = threading.Event(), []
    with pytest.raises(ZeroDivisionError), ThreadPoolExecutor(1) as executor:
        executor.submit(gate.wait)
        for number in range(20):
            executor.submit(done.append, number)
        gate.set()
        raise ZeroDivisionError
    assert done == list(range(20))


def test_the_block_that_ctrl_c_leaves_waits_only_for_what_has_begun(
    caplog: pytest.LogCaptureFixture,
) -> None:
    gate, begun, done = threading.Event(), threading.Event(), []

    def first() -> None:
        begun.set()
        gate.wait()
        done.append("first")

    class Session:
        """A client's own block around the executor."""

        def __init__(self, executor: ThreadPoolExecutor) -> None:
            self.executor = executor

        def __enter__(self) -> ThreadPoolExecutor:
            return self.executor

        def __exit__(self, *_: object) -> None:
            self.executor.shutdown()

    for block in (lambda one: one, Session):
        gate.clear(), begun.clear(), done.clear(), caplog.clear()
        executor = ThreadPoolExecutor(1)
        with pytest.raises(KeyboardInterrupt), block(executor):
            executor.submit(first)
            begun.wait()
            dropped = [executor.submit(done.append, number) for number in range(20)]
            dropped[0].add_done_callback(lambda _: gate.set())
            raise KeyboardInterrupt
        assert done == ["first"]
        assert all(one.cancelled() for one in dropped)
        [line] = [record.getMessage() for record in caplog.records]
        assert line.endswith("was called off: 20 tasks had not begun")


def test_an_except_clause_for_ctrl_c_may_finish_what_was_accepted() -> None:
    done: list[int] = []
    executor = ThreadPoolExecutor(1)
    try:
        for number in range(20):
            executor.submit(done.append, number)
        raise KeyboardInterrupt
    except KeyboardInterrupt:
        executor.shutdown(wait=True)
    assert done == list(range(20))


def test_shutdown() -> None:
    gate, begun = threading.Event(), threading.Event()
    executor = ThreadPoolExecutor(1)
    first = executor.submit(lambda: (begun.set(), gate.wait()))
    begun.wait()
    last = executor.submit(int)
    executor.shutdown(wait=False)
    assert executor._shutdown
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        executor.submit(int)
    gate.set()
    assert (first.result()[1], last.result()) == (True, 0)
    executor.shutdown()
    executor.shutdown()

    gate.clear(), begun.clear()
    executor = ThreadPoolExecutor(1)
    executor.submit(lambda: (begun.set(), gate.wait()))
    begun.wait()
    queued = [executor.submit(int) for _ in range(9)]
    executor.shutdown(wait=False, cancel_futures=True)
    assert all(one.cancelled() for one in queued)
    gate.set()
    executor.shutdown()


def test_a_future_raises_what_the_task_raised_and_the_worker_goes_on() -> None:
    with ThreadPoolExecutor(1) as executor:
        before = executor.submit(threading.get_ident).result()
        for kind in (SystemExit, KeyboardInterrupt, GeneratorExit, ValueError):
            assert type(executor.submit(_raise, kind).exception()) is kind
        assert executor.submit(threading.get_ident).result() == before
    with ThreadPoolExecutor(1, panic_recovery=PanicRecovery()) as executor:
        assert type(executor.submit(_raise, SystemExit).exception()) is TaskPanicked


def _raise(kind: type[BaseException]) -> None:
    raise kind


def test_a_failing_initializer_breaks_it_at_once(caplog: pytest.LogCaptureFixture) -> None:
    calls = []

    def initializer() -> None:
        calls.append(1)
        raise ValueError("bad start")

    executor = ThreadPoolExecutor(1, initializer=initializer)
    with pytest.raises(BrokenThreadPool) as caught:
        executor.submit(int).result()
    assert isinstance(caught.value, BrokenPool)
    with pytest.raises(BrokenThreadPool):
        executor.submit(int)
    assert executor._broken
    assert calls == [1]
    executor.shutdown()
    [record] = [one for one in caplog.records if one.levelno >= logging.WARNING]
    assert (record.name, record.levelname) == ("concurrent.futures", "CRITICAL")
    assert record.getMessage() == "Exception in initializer:"
    assert record.exc_info is not None


def test_map_submits_all_at_once_unless_a_buffersize_is_given() -> None:
    done: list[int] = []
    with ThreadPoolExecutor(2) as executor:
        executor.map(done.append, range(500))
    assert sorted(done) == list(range(500))
    with ThreadPoolExecutor(2) as executor:
        endless = iter(int, 1)
        results = executor.map(abs, endless, buffersize=3)
        assert [next(results) for _ in range(5)] == [0] * 5
        results.close()  # type: ignore[attr-defined]


def test_map_ignores_the_chunksize() -> None:
    barrier = threading.Barrier(2, timeout=30)
    with ThreadPoolExecutor(2) as executor:
        list(executor.map(lambda _: barrier.wait(), range(2), chunksize=100))


def test_it_serves_as_the_default_executor_of_an_event_loop() -> None:
    async def main() -> str:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(1, "loop"))
        return await asyncio.to_thread(lambda: threading.current_thread().name)

    assert asyncio.run(main()) == "loop_0"


def test_what_its_clients_look_at() -> None:
    with ThreadPoolExecutor(2, "looked-at") as executor:
        executor.submit(int).result()
        [thread] = executor._threads
        assert (thread.name, thread.is_alive()) == ("looked-at_0", True)
        assert executor._work_queue.empty()
        assert executor._thread_name_prefix == "looked-at"
        assert not executor._broken
        assert not executor._shutdown
    assert executor._shutdown
    assert not any(one.is_alive() for one in executor._threads)


def test_it_has_all_that_a_pool_has() -> None:
    with ThreadPoolExecutor(1, name="all") as executor:
        assert executor.options(timeout=30, key="k").submit(abs, -1).result() == 1
        assert list(executor.map_unordered(abs, [-1])) == [1]
        assert executor.metrics().completed == 2
        assert executor.dump().name == executor.name == "all"
        assert executor.drain().unfinished == ()


def test_nobody_is_warned_of_one_that_is_forgotten(recwarn: pytest.WarningsRecorder) -> None:
    executor = ThreadPoolExecutor(1)
    future = executor.submit(int)
    threads = executor._threads
    del executor
    assert future.result() == 0
    for one in threads:
        one.join()
    assert not recwarn.list


def test_the_import_of_threads_does_not_import_processes(run: Any) -> None:
    code, lines, errors = run(
        """
        from ion_actors.executors import ThreadPoolExecutor
        say("multiprocessing" in sys.modules)
        """
    )
    assert (code, lines, errors) == (0, ["False"], ""), sys.version


def test_a_number_of_workers_that_is_not_whole_is_named_as_it_was_given() -> None:
    with pytest.raises(TypeError, match=r"max_workers must be a whole number, not 1\.5"):
        ThreadPoolExecutor(max_workers=1.5)  # type: ignore[arg-type]
