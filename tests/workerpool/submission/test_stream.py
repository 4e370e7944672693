"""Streams: what a generator yields in a worker, in a thread or in a child process."""

from __future__ import annotations

import asyncio
import copy
import functools
import gc
import pickle
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ion_actors import Context, DeadlineExceeded, Pool, TaskPanicked, Worker, current_context
from ion_actors.adaptive import AdaptiveLimit
from ion_actors.circuit import CircuitBreaker, CircuitState
from ion_actors.executors import ThreadPoolExecutor as DropIn
from ion_actors.semaphore import WeightedSemaphore
from tests.ray_cluster import ON_RAY, backend_of
from tests.workerpool.helpers import PATIENCE, eventually
from tests.workerpool.submission.streams import (
    COUNTS,
    ENDLESS,
    await_note,
    count,
    count_async,
    fails,
    fails_async,
    note,
    notes,
    panics,
)


@pytest.fixture(params=["thread", "process", "asyncio", *ON_RAY])
def pool(request: pytest.FixtureRequest) -> Iterator[Pool]:
    """A pool of two workers."""
    if request.param == "process":
        request.getfixturevalue("no_child_is_left")
    with Pool(2, name="p", backend=backend_of(request.param)) as pool:
        yield pool


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a generator writes what happens to it."""
    return tmp_path / "notes"


every_kind = pytest.mark.parametrize("kind", COUNTS)


# -- items ---------------------------------------------------------------------------------------


@every_kind
def test_the_items_come_in_order_and_the_end_stays(pool: Pool, kind: str) -> None:
    stream = pool.stream(COUNTS[kind], 100)
    assert list(stream) == list(range(100))
    assert list(stream) == []
    with pytest.raises(StopIteration):
        next(stream)
    assert stream.future.result(PATIENCE) == ("all" if kind in ("generator", "object") else None)


@every_kind
def test_it_is_read_on_an_event_loop(pool: Pool, kind: str) -> None:
    async def main() -> None:
        stream = pool.stream(COUNTS[kind], 100)
        assert [item async for item in stream] == list(range(100))
        assert [item async for item in stream] == []
        with pytest.raises(StopAsyncIteration):
            await anext(stream)

    asyncio.run(main())


def test_to_iterate_again_goes_on(pool: Pool) -> None:
    stream = pool.stream(count, until=4, buffersize=1)
    for item in stream:
        assert item == 0
        break
    assert next(stream) == 1
    assert [*stream] == [2, 3]


def test_its_repr_tells_how_far_it_is(pool: Pool) -> None:
    stream = pool.options(name="rows").stream(count, 3)
    assert repr(stream) == "<Stream 'rows' open, 0 items delivered>"
    next(stream)
    assert repr(stream) == "<Stream 'rows' open, 1 item delivered>"
    assert stream.delivered == 1
    assert [*stream] == [1, 2]
    assert repr(stream) == "<Stream 'rows' ended, 3 items delivered>"
    stream.close()
    assert repr(stream) == "<Stream 'rows' closed, 3 items delivered>"


def test_a_dump_says_that_it_waits_for_its_reader(pool: Pool) -> None:
    with pool.stream(count, ENDLESS, buffersize=3):
        eventually(lambda: "(waits for its reader, after 3 items)" in str(pool.dump()))


@pytest.mark.parametrize("kind", ["generator", "asynchronous"])
@pytest.mark.parametrize("size", [1, 5])
def test_no_more_items_are_made_than_there_is_room_for(
    pool: Pool, path: Path, kind: str, size: int
) -> None:
    stream = pool.stream(COUNTS[kind], ENDLESS, path, buffersize=size)
    for read in range(12):
        await_note(path, *[f"made {number}" for number in range(read + size)])
        assert next(stream) == read
    stream.close()


def test_it_stays_in_its_process() -> None:
    with Pool(1) as pool, pool.stream(count, 3) as stream:
        for call in (pickle.dumps, copy.copy):
            with pytest.raises(TypeError, match="cannot pickle or copy a Stream"):
                call(stream)


def test_any_thread_may_read(pool: Pool, threads: ThreadPoolExecutor) -> None:
    stream = pool.stream(count, 1000, buffersize=3)
    found = [threads.submit(list, stream) for _ in range(4)]
    assert sorted(item for one in found for item in one.result(PATIENCE)) == list(range(1000))


@pytest.mark.parametrize(
    "fn", [lambda: iter([1, 2]), functools.partial(map, abs, [1, -2]), lambda: (n for n in (1, 2))]
)
def test_any_iterator_will_do(pool: Pool, fn: Callable[[], Iterator[int]]) -> None:
    assert [*pool.stream(fn)] == [1, 2]


class ImageWorker(Worker):
    def frames(self, until: int) -> Iterator[tuple[str, int]]:
        for number in range(until):
            yield type(self).__name__, number

    async def slow_frames(self, until: int) -> Any:
        for number in range(until):
            yield number


@pytest.mark.parametrize("backend", ["thread", "process", *ON_RAY])
def test_a_method_of_the_worker_class_may_be_a_generator(
    backend: str, request: pytest.FixtureRequest
) -> None:
    if backend == "process":
        request.getfixturevalue("no_child_is_left")
    with Pool(1, worker=ImageWorker, backend=backend_of(backend)) as pool:
        expected = [("ImageWorker", 0), ("ImageWorker", 1)]
        assert [*pool.stream(ImageWorker.frames, 2)] == expected
        assert [*pool.stream(pool.method(ImageWorker.frames), 2)] == expected
        assert [*pool.stream(ImageWorker.slow_frames, 3)] == [0, 1, 2]
        assert [*pool.stream(count, 2)] == [0, 1]
        with pytest.raises(TypeError, match=r"stream\(ImageWorker.frames, ...\)"):
            pool.call(ImageWorker.frames, 2).result(PATIENCE)


def reads_its_context(context: Context, until: int) -> Iterator[bool]:
    for _ in range(until):
        yield current_context() is context


def test_options_hold_for_its_task(pool: Pool) -> None:
    given = pool.options(name="n", pass_context=True, priority=3, key="k", ttl=60, timeout=60)
    assert [*given.stream(reads_its_context, 3)] == [True] * 3
    assert given.stream(count, 3).future.task_name() == "n"  # type: ignore[attr-defined]


# -- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize("fn", [fails, fails_async])
def test_an_error_comes_once_after_the_items_before_it(pool: Pool, fn: Any) -> None:
    stream = pool.stream(fn, 3)
    assert [next(stream) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(LookupError, match="the file ends here") as caught:
        next(stream)
    assert "streams.py" in "".join(traceback.format_exception(caught.value))
    assert [*stream] == []
    assert stream.future.exception() is caught.value


def test_a_panic_comes_after_the_items_before_it(pool: Pool) -> None:
    stream = pool.stream(panics, 3)
    assert [next(stream) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(TaskPanicked):
        next(stream)
    assert [*pool.stream(count, 2)] == [0, 1]
    assert pool.metrics().panicked == 1


def gives(value: Any) -> Any:
    return value


class AlsoAList(list[int]):
    pass


@pytest.mark.parametrize("value", [None, 3, [1, 2], "text", AlsoAList()])
def test_a_function_that_returned_no_generator_is_named_with_its_type(
    pool: Pool, value: object
) -> None:
    wanted = rf"gives returned an object of type {type(value).__name__}"
    with pytest.raises(TypeError, match=wanted):
        next(pool.stream(gives, value))


def test_senseless_arguments_are_refused_at_once(pool: Pool) -> None:
    for size, error in ((0, ValueError), (-1, ValueError), ("4", TypeError), (True, TypeError)):
        with pytest.raises(error, match="buffersize"):
            pool.stream(count, 3, buffersize=size)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"stream\(f, x\) and not stream\(f\(x\)\)"):
        pool.stream(count(3))  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        next(pool.stream(count))
    with pytest.raises(TypeError) as caught:
        next(pool.stream(count, 3, timeout=5))
    assert "pool.options(timeout=...).stream(...)" in "".join(caught.value.__notes__)
    assert pool.metrics().submitted == 2


@pytest.mark.parametrize("fn", [count, count_async])
@pytest.mark.parametrize("verb", ["submit", "try_submit", "asubmit", "map", "chunks", "amap"])
def test_the_other_verbs_refuse_a_generator_and_name_stream(pool: Pool, fn: Any, verb: str) -> None:
    async def awaited() -> object:
        return await (await pool.asubmit(fn, 2))

    async def mapped() -> object:
        return [one async for one in pool.amap(fn, [2])]

    calls: dict[str, Callable[[], object]] = {
        "submit": lambda: pool.submit(fn, 2).result(PATIENCE),
        "try_submit": lambda: pool.try_submit(fn, 2).result(PATIENCE),
        "asubmit": lambda: asyncio.run(awaited()),
        "map": lambda: list(pool.map(fn, [2])),
        "chunks": lambda: list(pool.map(fn, [2, 2], chunksize=2)),
        "amap": lambda: asyncio.run(mapped()),
    }
    with pytest.raises(TypeError, match=rf"{fn.__name__} returned an? .*generator.*stream\("):
        calls[verb]()


def test_a_drop_in_executor_returns_generators_as_its_namesake_does() -> None:
    with DropIn(1) as executor:
        assert [*executor.submit(count, 2).result(PATIENCE)] == [0, 1]
        assert [[*one] for one in executor.map(count, [1, 2], chunksize=2)] == [[0], [0, 1]]


class StopsEarly:
    def __call__(self) -> Iterator[int]:
        raise StopIteration(7)


def test_a_stop_iteration_of_a_call_does_not_pass_for_the_end(pool: Pool) -> None:
    with pytest.raises(RuntimeError, match="raised StopIteration"):
        next(pool.stream(StopsEarly()))


# -- leaving it ------------------------------------------------------------------------------------


def leave_by_close(stream: Any) -> None:
    stream.close()
    stream.close()


def leave_a_block(stream: Any) -> None:
    with stream as same:
        assert same is stream


def leave_an_async_block(stream: Any) -> None:
    async def main() -> None:
        async with stream:
            pass
        await stream.aclose()

    asyncio.run(main())


def drop(stream: Any) -> None:
    """The caller drops it."""


@pytest.mark.parametrize("kind", ["generator", "asynchronous"])
@pytest.mark.parametrize("leave", [leave_by_close, leave_a_block, leave_an_async_block, drop])
def test_whoever_leaves_it_closes_a_generator_that_waits_for_room(
    pool: Pool, path: Path, kind: str, leave: Callable[[Any], None], without_gc: None
) -> None:
    stream = pool.stream(COUNTS[kind], ENDLESS, path, buffersize=1)
    assert next(stream) == 0
    await_note(path, "made 0", "made 1")
    future = stream.future
    leave(stream)
    if leave is not drop:
        assert [*stream] == []
        assert "closed" in repr(stream)
    del stream
    await_note(path, "made 0", "made 1", "closed")
    eventually(future.done)
    assert pool.metrics().cancelled == 1


def test_a_loop_that_is_left_closes_it(pool: Pool, path: Path, without_gc: None) -> None:
    for _ in pool.stream(count, ENDLESS, path, buffersize=1):
        break
    eventually(lambda: notes(path)[-1:] == ["closed"])


def test_a_stream_that_was_never_begun_leaves_the_queue(path: Path) -> None:
    opened = threading.Event()
    with Pool(1) as pool:
        task = pool.submit(opened.wait, PATIENCE)
        stream = pool.stream(count, ENDLESS, path)
        stream.close()
        assert stream.future.cancelled()
        opened.set()
        assert task.result(PATIENCE)
    assert notes(path) == []


def fails_at_its_end(path: Path) -> Iterator[int]:
    try:
        yield 1
        yield 2
    finally:
        note(path, "closed")
        raise LookupError("in the finally")


def test_an_error_at_its_end_that_nobody_reads_is_logged(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Pool(1) as pool:
        with pool.stream(fails_at_its_end, path, buffersize=1) as stream:
            next(stream)
        await_note(path, "closed")
    del stream
    gc.collect()
    assert "in the finally" in caplog.text


def test_a_generator_by_two_names_is_not_closed_twice(pool: Pool, path: Path) -> None:
    stream = pool.stream(count, 2, path)
    assert [*stream] == [0, 1]
    stream.close()
    assert notes(path) == ["made 0", "made 1", "closed"]
    assert pool.metrics().completed == 1


# -- on an event loop ------------------------------------------------------------------------------


def test_a_step_that_is_cancelled_does_not_end_it(tmp_path: Path) -> None:
    opened = threading.Event()

    def waits() -> Iterator[int]:
        opened.wait(PATIENCE)
        yield from range(3)

    async def main() -> None:
        with Pool(1) as pool:
            stream = pool.stream(waits)
            step = asyncio.ensure_future(anext(stream))
            await asyncio.sleep(0)
            step.cancel()
            with pytest.raises(asyncio.CancelledError):
                await step
            opened.set()
            assert [item async for item in stream] == [0, 1, 2]

    asyncio.run(main())


def test_a_full_queue_does_not_block_the_loop(path: Path) -> None:
    opened = threading.Event()

    async def main() -> None:
        async with Pool(1, queue_size=0) as pool:
            task = await pool.asubmit(opened.wait, PATIENCE)
            stream, left = pool.stream(count, 3), pool.stream(count, 3, path)
            step = asyncio.ensure_future(anext(stream))
            await asyncio.sleep(0)
            assert not step.done()
            opened.set()
            assert await step == 0
            assert [item async for item in stream] == [1, 2]
            left.close()
            assert left.future.cancelled()
            assert [item async for item in left] == []
            assert await task
            assert pool.metrics().submitted == 2

    asyncio.run(main())
    assert notes(path) == []


def test_a_fast_generator_does_not_starve_the_loop() -> None:
    async def main() -> None:
        turns = 0

        async def others() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        with Pool(1) as pool:
            beside = asyncio.ensure_future(others())
            stream = pool.stream(count, 1000, buffersize=2000)
            await stream.future
            turns = 0
            assert [item async for item in stream] == list(range(1000))
            assert turns > 10
            beside.cancel()

    asyncio.run(main())


def test_a_loop_that_is_blocked_by_for_is_warned_in_debug_mode() -> None:
    async def main() -> None:
        with Pool(1) as pool, warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(RuntimeWarning, match="the event loop is blocked"):
                list(pool.stream(count, 10_000, buffersize=1))

    asyncio.run(main(), debug=True)


# -- limits ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["generator", "asynchronous"])
def test_a_wrapped_generator_holds_its_permit_until_the_stream_ends(kind: str) -> None:
    semaphore = WeightedSemaphore(1)
    fn = semaphore.wrap(COUNTS[kind])
    with Pool(1) as pool:
        stream = pool.stream(fn, 3, buffersize=1)
        assert next(stream) == 0
        assert semaphore.available == 0
        assert [*stream] == [1, 2]
        eventually(stream.future.done)
        assert semaphore.available == 1
        with pool.stream(fn, ENDLESS, buffersize=1) as stream:
            next(stream)
            assert semaphore.available == 0
        eventually(lambda: semaphore.available == 1)


@pytest.mark.parametrize("kind", ["generator", "asynchronous"])
def test_an_adaptive_limit_and_a_breaker_follow_a_stream_to_its_end(kind: str) -> None:
    limit, breaker = AdaptiveLimit(), CircuitBreaker("b", failure_threshold=1)
    with Pool(1) as pool:
        stream = pool.stream(limit.wrap(COUNTS[kind]), 3, buffersize=1)
        assert next(stream) == 0
        assert limit.in_flight == 1
        assert [*stream] == [1, 2]
        eventually(lambda: limit.in_flight == 0)
        broken = fails if kind == "generator" else fails_async
        stream = pool.stream(breaker.wrap(broken), 2, buffersize=1)
        assert [next(stream), next(stream)] == [0, 1]
        with pytest.raises(LookupError):
            next(stream)
        assert breaker.state is CircuitState.OPEN


def test_a_task_wrapper_covers_the_whole_stream() -> None:
    semaphore = WeightedSemaphore(1)
    with Pool(1, task_wrapper=semaphore.wrap) as pool:
        for fn in (count, count_async):
            stream = pool.stream(fn, 3, buffersize=1)
            assert next(stream) == 0
            assert semaphore.available == 0
            assert [*stream] == [1, 2]
            eventually(lambda: semaphore.available == 1)


def test_its_time_limit_ends_both_sides(pool: Pool, path: Path) -> None:
    pool.submit(int).result(PATIENCE)  # a child that has to be started takes its time
    stream = pool.options(timeout=1.0).stream(count, ENDLESS, path, buffersize=2)
    found = []
    with pytest.raises(DeadlineExceeded):
        for item in stream:
            found.append(item)
            if item == 1:
                eventually(stream.future.done)
    eventually(lambda: notes(path)[-1:] == ["closed"])
    assert found == list(range(len(found)))
    assert len(found) >= 4
