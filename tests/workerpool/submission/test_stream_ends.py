"""How streams end: contexts, drains, deadlocks, policies, retries, interruptions."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ion_actors import (
    Backoff,
    Cancelled,
    Context,
    DeadlineExceeded,
    DeadlockError,
    DrainTimeout,
    Pool,
    PoolClosed,
    QueueFull,
    Retry,
    StuckTask,
    TaskAbandoned,
    TaskDropped,
    TaskExpired,
    TaskPanicked,
)
from ion_actors.testing import RecordingMetrics, RecordingTracer, VirtualClock
from tests.interrupts import KINDS, every_point, interrupt
from tests.ray_cluster import ON_RAY, backend_of
from tests.workerpool.helpers import PATIENCE, all_is_told, busy, eventually
from tests.workerpool.submission.streams import COUNTS, ENDLESS, count, note, notes


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a generator writes what happens to it."""
    return tmp_path / "notes"


# -- contexts --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["generator", "asynchronous"])
def test_the_end_of_the_callers_context_ends_both_sides(path: Path, kind: str) -> None:
    with Pool(1) as pool:
        with Context() as context:
            stream = pool.stream(COUNTS[kind], ENDLESS, path, buffersize=1)
            assert next(stream) == 0
            context.cancel("enough")
            with pytest.raises(Cancelled, match="enough"):
                list(stream)
        eventually(lambda: notes(path)[-1:] == ["closed"])
        assert pool.metrics().cancelled == 1


def test_a_reader_whose_context_ends_may_go_on_later() -> None:
    opened = threading.Event()

    def waits() -> Iterator[int]:
        opened.wait(PATIENCE)
        yield from range(3)

    with Pool(1) as pool:
        stream = pool.stream(waits)
        with Context(timeout=0.01), pytest.raises(DeadlineExceeded):
            next(stream)

        async def main() -> None:
            async with Context(timeout=0.01):
                await anext(stream)

        with pytest.raises(DeadlineExceeded):
            asyncio.run(main())
        opened.set()
        assert [*stream] == [0, 1, 2]


def test_a_generator_that_never_waits_is_ended_at_its_next_item(clock: VirtualClock) -> None:
    made = threading.Semaphore(0)

    def never_waits() -> Iterator[int]:
        for number in range(ENDLESS):
            made.release()
            yield number

    with Pool(1, context=Context(clock=clock)) as pool:
        stream = pool.options(timeout=5).stream(never_waits, buffersize=ENDLESS)
        assert made.acquire(timeout=PATIENCE)
        clock.advance(5)
        with pytest.raises(DeadlineExceeded):
            stream.future.result(PATIENCE)
        stream.close()


async def goes_on(path: Path) -> Any:
    try:
        for number in range(ENDLESS):
            try:
                yield number
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                note(path, "cancelled")
    finally:
        await asyncio.sleep(0)
        note(path, "closed")


def test_a_generator_that_swallows_its_cancellation_is_closed_at_its_next_item(path: Path) -> None:
    with Pool(1) as pool:
        with pool.stream(goes_on, path) as stream:
            assert next(stream) == 0
            eventually(stream.future.running)
        eventually(stream.future.done)
    assert notes(path) in (["cancelled", "closed"], ["closed"])


async def never_waits(path: Path) -> Any:
    note(path, "began")
    try:
        for number in range(ENDLESS):
            yield number
    finally:
        await asyncio.sleep(0)
        note(path, "closed")


def test_a_cancellation_comes_before_the_finally_and_not_into_it(path: Path) -> None:
    with Pool(1) as pool:
        for turn in range(50):
            with pool.stream(never_waits, path, buffersize=2) as stream:
                for _ in range(turn % 4):
                    next(stream)
            eventually(stream.future.done)
    assert notes(path).count("began") == notes(path).count("closed") > 10


# -- the end of the pool -----------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["thread", "process", *ON_RAY])
def test_a_drain_waits_for_it_and_a_close_ends_it(
    path: Path, backend: str, request: pytest.FixtureRequest, threads: ThreadPoolExecutor
) -> None:
    if backend == "process":
        request.getfixturevalue("no_child_is_left")
    pool = Pool(1, backend=backend_of(backend))
    stream = pool.stream(count, 5, path, buffersize=1)
    assert next(stream) == 0
    drain = threads.submit(pool.drain)
    eventually(lambda: pool.is_draining)
    with pytest.raises(PoolClosed):
        pool.stream(count, 5)
    assert [*stream] == [1, 2, 3, 4]
    assert drain.result(PATIENCE).completed == 1

    pool = Pool(1, backend=backend_of(backend))
    stream = pool.stream(count, ENDLESS, buffersize=3)
    assert next(stream) == 0
    eventually(lambda: len(pool.dump().workers) == 1)
    report = pool.close()
    (unfinished,) = report.cancelled
    assert unfinished.items is not None
    assert 1 <= unfinished.items <= 4
    with pytest.raises(Cancelled):
        list(stream)


def test_a_drain_reports_how_far_it_was() -> None:
    pool = Pool(1, name="p")
    stubborn = threading.Event()

    def refuses_to_end() -> Iterator[int]:
        yield from range(3)
        stubborn.wait(PATIENCE)

    stream = pool.stream(refuses_to_end)
    assert [next(stream) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(DrainTimeout) as caught:
        pool.drain(timeout=0.05)
    (unfinished,) = caught.value.report.running
    assert unfinished.items == 3
    assert "refuses_to_end (p-0, after 3 items)" in str(caught.value.report)
    with pytest.raises(TaskAbandoned, match="3 items"):
        next(stream)
    stubborn.set()


def test_one_that_was_dropped_from_the_queue_says_why() -> None:
    with Pool(1, queue_size=1, overflow="drop_oldest") as pool, busy(pool):
        stream = pool.stream(count, 3)
        pool.submit(int)
        with pytest.raises(TaskDropped):
            next(stream)
        assert [*stream] == []


def test_one_that_expires_in_the_queue_says_so(clock: VirtualClock) -> None:
    with Pool(1, context=Context(clock=clock)) as pool, busy(pool):
        stream = pool.options(ttl=2).stream(count, 3)
        clock.advance(3)
        with pytest.raises(TaskExpired):
            next(stream)


# -- full pools --------------------------------------------------------------------------------


def test_what_happens_at_a_full_queue_is_as_with_submit(threads: ThreadPoolExecutor) -> None:
    with Pool(1, queue_size=0, overflow="reject") as pool, busy(pool), pytest.raises(QueueFull):
        pool.stream(count, 3)
    with Pool(1, queue_size=0, overflow="drop_newest") as pool, busy(pool):
        stream = pool.stream(count, 3)
        with pytest.raises(TaskDropped):
            next(stream)
    for policy in ("block", "caller_runs"):
        with Pool(1, queue_size=0, overflow=policy) as pool:
            with busy(pool) as gate:
                found = threads.submit(lambda pool=pool: list(pool.stream(count, 3)))
                eventually(lambda pool=pool: pool.dump().waiting == 1)
                gate.open()
                assert found.result(PATIENCE) == [0, 1, 2]
            assert pool.metrics().completed == 2


def test_a_wait_for_room_that_ends_leaves_no_task() -> None:
    with Pool(1, queue_size=0) as pool, busy(pool):
        with Context(timeout=0.01), pytest.raises(DeadlineExceeded):
            pool.stream(count, 3)

        async def main() -> None:
            stream = pool.stream(count, 3)
            async with Context(timeout=0.01):
                await anext(stream)

        with pytest.raises(DeadlineExceeded):
            asyncio.run(main())
        assert pool.metrics().submitted == 1


# -- inside of workers -------------------------------------------------------------------------


def reads(pool: Pool) -> list[int]:
    return list(pool.stream(count, 20, buffersize=2))


async def reads_async(pool: Pool) -> list[int]:
    return [item async for item in pool.stream(count, 20, buffersize=2)]


def waits_for_its_end(pool: Pool) -> object:
    stream = pool.stream(count, 20, buffersize=2)
    return stream.future.result()


@pytest.mark.parametrize("fn", [reads, reads_async, waits_for_its_end])
@pytest.mark.parametrize("queue_size", [0, 10])
def test_a_task_that_reads_a_stream_that_nobody_can_run_is_told(fn: Any, queue_size: int) -> None:
    if fn is reads_async and queue_size == 0:
        return  # no wait of a coroutine for room is refused, here as with asubmit
    with Pool(1, queue_size=queue_size) as pool:
        with pytest.raises(DeadlockError, match=r"count|room"):
            pool.submit(fn, pool).result(PATIENCE)
        assert pool.submit(int).result(PATIENCE) == 0


@pytest.mark.parametrize("fn", [reads, reads_async])
def test_two_tasks_that_read_streams_of_their_pool_of_two(fn: Any) -> None:
    meet = threading.Barrier(2)

    def meets(pool: Pool) -> Any:
        meet.wait(PATIENCE)
        return fn(pool)

    with Pool(2) as pool:
        found = [pool.submit(meets, pool) for _ in range(2)]
        errors = [one.exception(PATIENCE) for one in found]
        assert any(isinstance(error, DeadlockError) for error in errors)
        assert [one.result() for one, error in zip(found, errors, strict=True) if not error] in (
            [],
            [list(range(20))],
        )


@pytest.mark.parametrize("fn", [reads, reads_async])
def test_a_task_may_read_a_stream_that_another_worker_runs(fn: Any) -> None:
    with Pool(2) as pool, Pool(1) as other:
        assert pool.submit(fn, pool).result(PATIENCE) == list(range(20))
        assert pool.submit(fn, other).result(PATIENCE) == list(range(20))


# -- retries, observers, stuck tasks -----------------------------------------------------------


@pytest.mark.parametrize("backend", ["thread", "process", *ON_RAY])
def test_it_is_tried_again_only_before_its_first_item(
    path: Path, backend: str, request: pytest.FixtureRequest
) -> None:
    if backend == "process":
        request.getfixturevalue("no_child_is_left")
    with Pool(1, backend=backend_of(backend)) as pool:
        again = pool.options(retry=Retry(attempts=3, backoff=Backoff(0.0)), retry_on_worker_death=2)
        assert [*again.stream(fails_twice, path, 0)] == [0, 1, 2]
        assert notes(path) == ["try"] * 3
        stream = again.stream(fails_twice, path.with_name("other"), 2)
        assert [next(stream), next(stream)] == [0, 1]
        with pytest.raises(LookupError):
            next(stream)
        assert notes(path.with_name("other")) == ["try"]
        stream = again.stream(dies_after, path.with_name("third"), 2)
        assert [next(stream), next(stream)] == [0, 1]
        with pytest.raises(TaskPanicked):
            next(stream)
        assert notes(path.with_name("third")) == ["try"]


def fails_twice(path: Path, after: int) -> Iterator[int]:
    note(path, "try")
    yield from range(after)
    if len(notes(path)) < 3:
        raise LookupError
    yield from range(3)


def dies_after(path: Path, after: int) -> Iterator[int]:
    note(path, "try")
    yield from range(after)
    raise SystemExit


def test_it_is_one_task_for_metrics_and_traces() -> None:
    metrics, tracer = RecordingMetrics(), RecordingTracer()
    with Pool(1, metrics=metrics, tracer=tracer) as pool:
        assert len([*pool.options(name="rows").stream(count, 50)]) == 50
    all_is_told()
    assert pool.metrics().submitted == pool.metrics().completed == 1
    assert tracer.count() == 1


def test_one_that_waits_for_its_reader_is_not_stuck(clock: VirtualClock) -> None:
    stuck: list[StuckTask] = []
    with Pool(1, context=Context(clock=clock), stuck_after=1, on_stuck=stuck.append) as pool:
        made = threading.Semaphore(0)
        opened = threading.Event()

        def makes() -> Iterator[int]:
            for number in range(4):
                made.release()
                yield number
            opened.wait(PATIENCE)

        stream = pool.stream(makes, buffersize=4)
        for _ in range(4):
            assert made.acquire(timeout=PATIENCE)
        eventually(stream.future.running)
        clock.advance(0.6)
        clock.advance(0.6)
        clock.advance(0.6)
        all_is_told()
        assert stuck == []
        assert next(stream) == 0
        eventually(lambda: clock.advance(0.6) or all_is_told() or stuck)
        assert [one.task for one in stuck] == [stream.future.task_name()]  # type: ignore[attr-defined]
        opened.set()
        assert [*stream] == [1, 2, 3]


# -- interruptions -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_an_interruption_of_the_reader_leaves_no_stuck_worker(kind: type[BaseException]) -> None:
    logging.getLogger("ion_actors").setLevel(logging.CRITICAL)
    with Pool(1) as pool:

        def use() -> object:
            with pool.stream(count, 3, buffersize=1) as stream:
                return [next(stream), next(stream)]

        def at(point: int) -> str:
            where = interrupt(point, use, kind)[0]  # who keeps the error keeps the stream
            eventually(pool.submit(int).done, where)  # the worker is free
            return where

        assert len(every_point(at)) > 20
        found = pool.metrics()
        assert found.submitted == found.completed + found.cancelled + found.failed
    logging.getLogger("ion_actors").setLevel(logging.NOTSET)


@pytest.mark.parametrize("kind", KINDS)
def test_a_reader_may_go_on_after_an_interruption(kind: type[BaseException]) -> None:
    with Pool(1) as pool:

        def at(point: int) -> str:
            stream = pool.stream(count, 6, buffersize=1)
            first = next(stream)
            where = interrupt(point, lambda: next(stream), kind)[0]
            rest = list(stream)  # an item that was on its way may be lost
            assert first == 0
            assert rest in ([1, 2, 3, 4, 5], [2, 3, 4, 5]), where
            return where

        assert len(every_point(at)) > 3


def test_a_reader_may_go_on_after_an_interruption_of_a_child(no_child_is_left: None) -> None:
    with Pool(1, backend="process") as pool:

        def at(point: int) -> str:
            stream = pool.stream(count, 6, buffersize=1)
            first = next(stream)
            where = interrupt(point, lambda: next(stream))[0]
            rest = list(stream)
            assert first == 0
            assert rest in ([1, 2, 3, 4, 5], [2, 3, 4, 5]), where
            return where

        assert len(every_point(at)) > 3


def test_a_stream_of_a_dead_letter_says_that_its_reader_has_gone() -> None:
    with Pool(1, queue_size=1, overflow="drop_oldest") as pool:
        letters: list[Any] = []
        subscription = pool.dead_letters.subscribe(letters.append)
        with busy(pool):
            stream = pool.stream(count, 3)
            pool.submit(int)
        eventually(lambda: letters)
        with pytest.raises(TypeError, match=r"call stream\(count, ...\) again"):
            letters[0].put_back().result(PATIENCE)
        subscription.remove()
        stream.close()


def test_it_can_be_read_after_its_pool_was_closed() -> None:
    with Pool(1) as pool:
        stream = pool.stream(count, 3)
        eventually(stream.future.done)
    assert [*stream] == [0, 1, 2]
