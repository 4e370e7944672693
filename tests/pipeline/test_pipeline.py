"""Pipelines on real pools: order, bounds, errors, contexts, time, and the end."""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from ion_actors import (
    BrokenPool,
    Cancelled,
    Context,
    DeadLetter,
    DeadlineExceeded,
    DropReason,
    Overflow,
    Pool,
    PoolClosed,
    TaskPanicked,
    current_context,
)
from ion_actors.pipeline import Pipeline
from ion_actors.testing import VirtualClock

PATIENCE = 30.0


def square(number: int) -> int:
    return number * number


def twice(number: int) -> Iterator[int]:
    yield number
    yield number


def is_even(number: int) -> bool:
    return number % 2 == 0


def die(number: int) -> int:
    if number == 3:
        os._exit(9)
    return number


async def add_one(number: int) -> int:
    return number + 1


async def twice_async(number: int) -> AsyncIterator[int]:
    yield number
    yield number


class Source:
    """Counts what is pulled, and knows when it was closed."""

    def __init__(self, count: int | None = None) -> None:
        self.pulled = 0
        self.closed = threading.Event()
        self._count = count

    def __iter__(self) -> Iterator[int]:
        try:
            for number in itertools.count() if self._count is None else range(self._count):
                self.pulled += 1
                yield number
        finally:
            self.closed.set()

    async def items(self) -> AsyncIterator[int]:
        try:
            for number in itertools.count() if self._count is None else range(self._count):
                self.pulled += 1
                yield number
        finally:
            self.closed.set()


async def listed(pipeline: Pipeline[Any]) -> list[Any]:
    return [one async for one in pipeline]


Run = Callable[[Pipeline[Any]], list[Any]]


@pytest.fixture(params=["for", "async for"])
def run(request: pytest.FixtureRequest) -> Run:
    """Both ways to iterate."""
    if request.param == "for":
        return list
    return lambda pipeline: asyncio.run(listed(pipeline))


# -- what goes in and what comes out -----------------------------------------------------------


@pytest.mark.parametrize("queue_size", [0, 1, 100])
def test_one_worker_is_enough_for_all_stages(run: Run, queue_size: int) -> None:
    with Pool(1, queue_size) as pool:
        pipeline = (
            Pipeline(range(20))
            .map(square, pool=pool)
            .filter(is_even, pool)
            .flat_map(twice, pool=pool)
            .map(add_one, pool=pool)
            .batch(3)
            .map(sum, pool=pool)
        )
        numbers = [one + 1 for n in range(0, 20, 2) for one in (n * n, n * n)]
        assert run(pipeline) == [sum(numbers[n : n + 3]) for n in range(0, 20, 3)]


@pytest.mark.parametrize("queue_size", [0, 1, 100])
def test_a_task_may_iterate_a_pipeline_of_its_own_pool(run: Run, queue_size: int) -> None:
    with Pool(1, queue_size) as pool:

        def nested() -> list[int]:
            return run(Pipeline(range(30)).map(square, pool=pool).map(add_one, pool=pool))

        assert pool.submit(nested).result(PATIENCE) == [n * n + 1 for n in range(30)]


def test_threads_and_processes_are_mixed() -> None:
    with Pool(2) as threads, Pool(2, backend="process") as processes:
        pipeline = (
            Pipeline(range(60))
            .map(square, pool=threads)
            .flat_map(twice, pool=processes)
            .filter(is_even, processes)
            .map(add_one, pool=threads)
        )
        assert list(pipeline) == [n * n + 1 for n in range(0, 60, 2) for _ in range(2)]
        busy = [stage.busy for stage in pipeline.metrics().stages]
        assert all(busy)


@pytest.mark.parametrize("many", [twice, twice_async, lambda n: [n, n], lambda n: (n, n)])
def test_flat_map_takes_whatever_can_be_iterated(many: Callable[[int], Any], run: Run) -> None:
    with Pool(2) as pool:
        assert run(Pipeline([1, 2]).flat_map(many, pool=pool)) == [1, 1, 2, 2]
        assert run(Pipeline([1, 2]).flat_map(lambda _: (), pool=pool)) == []


def test_without_stages_it_is_its_source(run: Run) -> None:
    assert run(Pipeline(range(100))) == list(range(100))
    assert run(Pipeline([])) == []


def test_a_filter_without_a_pool_is_called_by_the_one_who_iterates(run: Run) -> None:
    seen = set()

    def keep(number: int) -> bool:
        seen.add(threading.get_ident())
        return is_even(number)

    with Pool(2) as pool:
        pipeline = Pipeline(range(10)).filter(keep).map(square, pool=pool).filter(keep)
        assert run(pipeline) == [0, 4, 16, 36, 64]
    assert seen == {threading.get_ident()}


def test_an_asynchronous_source() -> None:
    async def main() -> list[int]:
        source = Source(10)
        with Pool(2) as pool:
            pipeline = Pipeline(source.items()).map(square, pool=pool)
            with pytest.raises(TypeError, match="async for"):
                list(pipeline)
            found = [one async for one in pipeline]
        assert source.closed.is_set()
        return found

    assert asyncio.run(main()) == [n * n for n in range(10)]


def test_results_do_not_wait_for_the_next_item_of_an_asynchronous_source() -> None:
    async def main() -> None:
        handed_over: asyncio.Queue[int] = asyncio.Queue()

        async def source() -> AsyncIterator[int]:
            while True:
                yield await handed_over.get()

        async with Pool(2) as pool, Pipeline(source()).map(square, pool=pool) as pipeline:
            results = aiter(pipeline)
            for number in range(5):
                handed_over.put_nowait(number)
                assert await asyncio.wait_for(anext(results), PATIENCE) == number * number

    asyncio.run(main())


def test_stages_without_a_source_go_into_another_pipeline() -> None:
    with Pool(2) as pool:
        stages = Pipeline().map(square, pool=pool).batch(2)
        assert list(Pipeline(range(3)).through(stages)) == [[0, 1], [4]]
        assert list(Pipeline(range(3)).through(lambda p: p.map(square, pool=pool))) == [0, 1, 4]
        with pytest.raises(TypeError, match="without a source"):
            list(stages)
        with pytest.raises(TypeError, match="without a source"):
            Pipeline([]).through(Pipeline([]))
        wrong: Any = len
        with pytest.raises(TypeError):
            Pipeline([]).through(wrong)


def test_each_iteration_is_a_run_of_its_own() -> None:
    with Pool(2) as pool:
        pipeline = Pipeline(range(3)).map(square, pool=pool)
        longer = pipeline.map(square, pool=pool)
        assert list(pipeline) == list(pipeline) == [0, 1, 4]
        assert list(longer) == [0, 1, 16]
        assert pipeline.metrics().given == 3


def test_without_order_who_is_ready_comes_first(gate: threading.Event) -> None:
    def work(number: int) -> int:
        if number == 0:
            assert gate.wait(PATIENCE)
        return number

    with Pool(2) as pool:
        results = iter(Pipeline(range(4)).map(work, pool=pool, ordered=False))
        assert [next(results) for _ in range(3)] == [1, 2, 3]
        gate.set()
        assert list(results) == [0]


def test_the_order_is_kept_and_the_window_goes_on(gate: threading.Event) -> None:
    ended = threading.Semaphore(0)

    def work(number: int) -> int:
        if number == 0:
            assert gate.wait(PATIENCE)
        ended.release()
        return number

    source = Source()
    with Pool(2) as pool, ThreadPoolExecutor(1) as other:
        results = iter(Pipeline(source).map(work, pool=pool, window=5))
        first = other.submit(next, results)
        for _ in range(4):
            assert ended.acquire(timeout=PATIENCE)
        assert source.pulled == 5
        gate.set()
        assert first.result(PATIENCE) == 0
        assert list(itertools.islice(results, 4)) == [1, 2, 3, 4]
        results.close()


# -- bounds ------------------------------------------------------------------------------------


def test_items_in_flight_are_bounded_from_end_to_end(run: Run) -> None:
    source = Source(300)
    flying = []

    with Pool(2) as one, Pool(3) as two:
        pipeline = (
            Pipeline(source).map(square, pool=one, window=3).map(square, pool=two, ordered=False)
            .map(square, pool=one, window=1)
        )  # fmt: skip
        given = itertools.count(1)

        def look(_: object) -> bool:
            flying.append(source.pulled - next(given))
            return True

        assert len(run(pipeline.filter(look))) == 300
    assert max(flying) <= 3 + 6 + 1 + 2


def test_the_source_is_pulled_as_the_slowest_stage_goes(gate: threading.Event) -> None:
    source = Source()
    entered = threading.Semaphore(0)

    def slow(number: int) -> int:
        entered.release()
        assert gate.wait(PATIENCE)
        return number

    with Pool(2) as pool, Pool(1) as other, ThreadPoolExecutor(1) as helper:
        pipeline = Pipeline(source).map(square, pool=pool).map(slow, pool=other)
        with pipeline:
            results = iter(pipeline)
            first = helper.submit(next, results)
            assert entered.acquire(timeout=PATIENCE)
            assert source.pulled <= 4 + 2 + 2
            gate.set()
            assert first.result(PATIENCE) == 0


def test_stages_do_not_have_threads() -> None:
    with Pool(1) as pool:
        pool.submit(square, 1).result()
        pipeline: Pipeline[Any] = Pipeline(range(50))
        for _ in range(20):
            pipeline = pipeline.map(abs, pool=pool)
        before = threading.active_count()
        results = iter(pipeline)
        next(results)
        assert threading.active_count() <= before
        assert list(results) == list(range(1, 50))


# -- errors ------------------------------------------------------------------------------------


def fail_at_five(number: int) -> int:
    if number == 5:
        raise KeyError("five")
    return number


def test_the_first_error_ends_all_and_names_stage_and_item(run: Run) -> None:
    source = Source()
    with Pool(2) as pool:
        pipeline = Pipeline(source).map(square, pool=pool).map(
            lambda n: fail_at_five(n // 5), pool=pool, name="fifth"
        )  # fmt: skip
        with pytest.raises(KeyError, match="five") as caught:
            run(pipeline)
        assert caught.value.__notes__ == ["in stage 'fifth' of the pipeline, at the item 25"]
        assert source.closed.is_set()
        pulled = source.pulled
        numbers = pipeline.metrics()
        assert numbers.stages[1].failed == 1
        assert numbers.in_flight == 0
        pool.submit(square, 1).result(PATIENCE)
        assert source.pulled == pulled


def test_the_first_error_cancels_what_is_under_way() -> None:
    cancelled, running = threading.Event(), threading.Event()

    def work(number: int) -> None:
        if number == 1:
            assert running.wait(PATIENCE)
            raise KeyError(number)
        running.set()
        try:
            current_context().sleep(PATIENCE)
        except Cancelled:
            cancelled.set()
            raise

    with Pool(2) as pool:
        with pytest.raises(KeyError):
            list(Pipeline(range(9)).map(work, pool=pool, ordered=False))
        assert cancelled.wait(PATIENCE)


def test_errors_after_the_first_one_are_not_reported(
    run: Run, caplog: pytest.LogCaptureFixture, gate: threading.Event
) -> None:
    both = threading.Barrier(3)

    def work(number: int) -> None:
        both.wait(PATIENCE)
        if number == 2:
            assert gate.wait(PATIENCE)  # and does not look at its context
        raise KeyError(number)

    with Pool(3) as pool:
        with pytest.raises(KeyError):
            run(Pipeline(range(3)).map(work, pool=pool))
        gate.set()
    assert pool.metrics().failed == 3
    assert "never read" not in caplog.text


@pytest.mark.parametrize("first", [0, 1])
def test_time_limits_of_tasks_hold_also_after_a_wait_for_room(
    run: Run, first: int, clock: VirtualClock, gate: threading.Event
) -> None:
    lined_up = threading.Event()

    def source() -> Iterator[int]:
        yield from range(first, 2)
        lined_up.set()

    def work(number: int) -> int:
        if number == 0:
            assert lined_up.wait(PATIENCE)
        else:
            clock.advance(10)
            gate.wait(PATIENCE / 3)  # and does not look at its context
        return number

    with Pool(1, 0, context=Context(clock=clock)) as pool:
        limited = pool.options(timeout=5)
        pipeline = Pipeline(source()).map(work, pool=limited, window=3, on_error="skip")
        assert run(pipeline) == list(range(first, 1))
        gate.set()


def test_a_skipped_item_is_counted_and_a_dead_letter(run: Run) -> None:
    letters: list[DeadLetter] = []
    with Pool(2) as pool:
        pool.dead_letters.subscribe(letters.append)
        pipeline = Pipeline(range(10)).map(
            fail_at_five, pool=pool.options(name="job"), on_error="skip"
        )
        assert run(pipeline) == [0, 1, 2, 3, 4, 6, 7, 8, 9]
        stage = pipeline.metrics().stages[0]
        assert (stage.items_in, stage.items_out, stage.failed, stage.skipped) == (10, 9, 1, 1)
        assert pool.dead_letters.join(PATIENCE)
        [letter] = letters
        assert (letter.task, letter.fn, letter.args) == ("job", fail_at_five, (5,))
        assert letter.reason is DropReason.SKIPPED
        assert isinstance(letter.put_back().exception(PATIENCE), KeyError)


def test_a_function_decides(run: Run) -> None:
    def work(number: int) -> int:
        raise (KeyError if is_even(number) else ValueError)(number)

    seen: list[tuple[type, Any]] = []

    def decide(error: Exception, item: int) -> Any:
        seen.append((type(error), item))
        return "skip" if item < 3 else "stop"

    with Pool(1) as pool:
        with pytest.raises(ValueError, match="3"):
            run(Pipeline(range(9)).map(work, pool=pool, on_error=decide))
        assert seen == [(KeyError, 0), (ValueError, 1), (KeyError, 2), (ValueError, 3)]
        with pytest.raises(TypeError, match='must return "stop" or "skip"'):
            run(Pipeline(range(9)).map(work, pool=pool, on_error=lambda *_: None))  # type: ignore[arg-type]


def test_a_filter_that_fails(run: Run) -> None:
    assert run(Pipeline(range(7)).filter(fail_at_five, on_error="skip")) == [1, 2, 3, 4, 6]
    with pytest.raises(KeyError) as caught:
        run(Pipeline(range(7)).filter(fail_at_five))
    assert caught.value.__notes__ == ["in stage 'fail_at_five' of the pipeline, at the item 5"]
    with pytest.raises(TypeError, match="must be given a pool"):
        run(Pipeline(range(7)).filter(add_one))


def test_a_source_that_fails(run: Run) -> None:
    def source() -> Iterator[int]:
        yield 1
        raise KeyError("no more")

    with Pool(1) as pool:
        with pytest.raises(KeyError, match="no more") as caught:
            run(Pipeline(source()).map(square, pool=pool))
        assert caught.value.__notes__ == ["in the source of the pipeline"]


def test_an_error_is_not_hidden_by_that_of_closing_the_source(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    def source() -> Iterator[int]:
        try:
            yield from itertools.count()
        finally:
            raise ValueError("cannot close")

    with Pool(1) as pool, pytest.raises(KeyError, match="five"):
        run(Pipeline(source()).map(fail_at_five, pool=pool))
    assert "failed when it was closed" in caplog.text


class Nasty:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


class Long:
    def __repr__(self) -> str:
        return "long\n" * 1000


@pytest.mark.parametrize("item", [Nasty(), Long(), "x" * 10_000, list(range(10_000))])
def test_the_note_is_one_short_line_whatever_the_item_is(item: Any) -> None:
    with Pool(1) as pool, pytest.raises(TypeError) as caught:
        list(Pipeline([item]).map(lambda _: int(Ellipsis), pool=pool))  # type: ignore[call-overload]
    [note] = caught.value.__notes__
    assert len(note) < 250
    assert note.isprintable()


def test_a_worker_that_dies_costs_one_item() -> None:
    with Pool(1, backend="process") as pool:
        pipeline = Pipeline(range(6)).map(die, pool=pool, on_error="skip")
        assert list(pipeline) == [0, 1, 2, 4, 5]
        with pytest.raises(TaskPanicked) as caught:
            list(Pipeline(range(6)).map(die, pool=pool))
        assert "at the item 3" in caught.value.__notes__[-1]


def test_a_pool_that_closes_ends_the_run_also_with_skip(run: Run) -> None:
    with Pool(1) as pool:

        def work(number: int) -> int:
            if number == 5:
                threading.Thread(target=pool.close).start()
                current_context().sleep(PATIENCE)
            return number

        pipeline = Pipeline(itertools.count()).map(work, pool=pool, on_error="skip")
        with pytest.raises((PoolClosed, BrokenPool)) as caught:
            run(pipeline)
        assert "in stage" in caught.value.__notes__[0]


def test_a_generator_function_is_for_flat_map() -> None:
    with Pool(1) as pool, pytest.raises(TypeError, match="use flat_map"):
        list(Pipeline([1]).map(twice, pool=pool))


# -- full pools --------------------------------------------------------------------------------


@pytest.mark.parametrize("overflow", list(Overflow))
def test_a_pool_that_others_have_filled_is_waited_for(
    run: Run, overflow: Overflow, gate: threading.Event
) -> None:
    entered = threading.Event()

    def occupy() -> None:
        entered.set()
        assert gate.wait(PATIENCE)

    with Pool(1, 1, overflow=overflow) as full, Pool(2) as pool:
        full.submit(occupy)
        assert entered.wait(PATIENCE)
        queued = full.submit(square, 1)

        def open_later(number: int) -> int:
            if number == 2:
                gate.set()
            return number

        pipeline = (
            Pipeline(range(9)).map(open_later, pool=pool).map(square, pool=full, window=1)
        )  # fmt: skip
        assert run(pipeline) == [n * n for n in range(9)]
        assert full.metrics().dropped == {}
        assert queued.result(PATIENCE) == 1


def test_outputs_come_while_another_stage_waits_for_room(gate: threading.Event) -> None:
    entered = threading.Event()
    calls: list[int] = []

    def work(number: int) -> int:
        calls.append(number)
        return number

    def occupy() -> None:
        entered.set()
        assert gate.wait(PATIENCE)

    with Pool(1, 0) as full, Pool(2) as pool:

        def source() -> Iterator[int]:
            yield 1
            full.submit(occupy)
            assert entered.wait(PATIENCE)
            yield from itertools.count(2)

        pipeline = Pipeline(source()).map(work, pool=full, window=1).map(str, pool=pool)
        results = iter(pipeline)
        assert next(results) == "1"  # item 2 is waiting for room
        with ThreadPoolExecutor(1) as other:
            second = other.submit(next, results, "closed")
            pipeline.close()
            assert second.result(PATIENCE) == "closed"
        gate.set()
        full.submit(square, 1).result(PATIENCE)
    assert calls == [1]


def test_what_was_done_before_an_error_comes_out_first(run: Run) -> None:
    seen = []

    def look(number: int) -> bool:
        seen.append(number)
        return True

    with Pool(1) as pool:
        pipeline = Pipeline(range(9)).map(fail_at_five, pool=pool, window=9)
        with pytest.raises(KeyError):
            run(pipeline.filter(look))
    assert seen == [0, 1, 2, 3, 4]


def test_a_wait_for_room_ends_with_the_context(run: Run, gate: threading.Event) -> None:
    entered = threading.Event()

    def occupy() -> None:
        entered.set()
        assert gate.wait(PATIENCE)

    with Pool(1, 0) as full:
        full.submit(occupy)
        assert entered.wait(PATIENCE)
        source = Source()
        with pytest.raises(DeadlineExceeded), Context(timeout=0.05):
            run(Pipeline(source).map(square, pool=full))
        assert source.closed.is_set()
        gate.set()


# -- contexts, time and the end ----------------------------------------------------------------


def test_it_ends_with_the_current_context(run: Run) -> None:
    source = Source()
    with Pool(2) as pool:
        context = Context()

        def work(number: int) -> int:
            if number == 7:
                context.cancel("enough")
            return number

        for on_error in ("stop", "skip"):
            with pytest.raises(Cancelled), Context(context):
                run(Pipeline(source).map(work, pool=pool, on_error=on_error))
            assert source.closed.is_set()


def test_a_context_that_has_ended_pulls_nothing(run: Run) -> None:
    source = Source()
    with Context() as context:
        context.cancel()
        with pytest.raises(Cancelled):
            run(Pipeline(source))
    assert source.pulled == 0


def test_a_batch_goes_on_when_its_time_has_come(clock: VirtualClock) -> None:
    async def main() -> None:
        handed_over: asyncio.Queue[int] = asyncio.Queue()

        async def source() -> AsyncIterator[int]:
            while True:
                yield await handed_over.get()

        with Pool(1, context=Context(clock=clock)) as pool:
            pipeline = Pipeline(source()).batch(3, within=5).map(sum, pool=pool)
            async with pipeline:
                results = aiter(pipeline)
                for _ in range(2):
                    handed_over.put_nowait(20)
                    first = asyncio.ensure_future(anext(results))
                    await asyncio.to_thread(clock.wait_for_timers, 1)
                    clock.advance(4.9)
                    await asyncio.sleep(0)
                    assert not first.done()
                    clock.advance(0.2)
                    assert await first == 20
                for number in (1, 2, 3):
                    handed_over.put_nowait(number)
                assert await anext(results) == 6

    asyncio.run(main())


def test_a_batch_goes_on_in_time_in_threads(clock: VirtualClock, gate: threading.Event) -> None:
    def work(number: int) -> int:
        if number == 1:
            assert gate.wait(PATIENCE)
        return number

    with Pool(2, context=Context(clock=clock)) as pool, ThreadPoolExecutor(1) as other:
        results = iter(Pipeline(range(2)).map(work, pool=pool).batch(2, within=5))
        first = other.submit(next, results)
        clock.wait_for_timers(1)
        clock.advance(5)
        assert first.result(PATIENCE) == [0]
        gate.set()
        assert list(results) == [[1]]


def test_leaving_it_closes_the_source_and_cancels(without_gc: None) -> None:
    source = Source()
    with Pool(2) as pool:
        for number in Pipeline(source).map(square, pool=pool):
            if number == 16:
                break
        assert source.closed.is_set()
        pulled = source.pulled
        pool.submit(square, 1).result(PATIENCE)
        assert source.pulled == pulled
        assert pool.metrics().queued == 0


def test_the_block_closes_it(run: Run) -> None:
    source = Source()
    with Pool(2) as pool:
        with Pipeline(source).map(square, pool=pool) as pipeline:
            results = iter(pipeline)
            next(results)
        assert source.closed.is_set()
        assert list(results) == []
        pipeline.close()
        with pytest.raises(ValueError, match="closed"):
            run(pipeline)
        assert "closed" in repr(pipeline)


def test_another_thread_closes_it(gate: threading.Event) -> None:
    source = Source()
    entered = threading.Event()

    def work(_: int) -> None:
        entered.set()
        current_context().sleep(PATIENCE)

    with Pool(2) as pool, ThreadPoolExecutor(1) as other:
        pipeline = Pipeline(source).map(work, pool=pool)
        results = other.submit(list, pipeline)
        assert entered.wait(PATIENCE)
        pipeline.close()
        assert results.result(PATIENCE) == []
        assert source.closed.is_set()
        pulled = source.pulled
        pool.submit(square, 1).result(PATIENCE)
        assert source.pulled == pulled


def test_the_asynchronous_block_closes_it() -> None:
    async def main() -> None:
        source = Source()
        async with Pool(2) as pool:
            async with Pipeline(source.items()).map(square, pool=pool) as pipeline:
                async for number in pipeline:
                    if number == 4:
                        break
            assert source.closed.is_set()

    asyncio.run(main())


def test_cancelling_a_coroutine_ends_its_run() -> None:
    async def main() -> None:
        source = Source()
        waits = threading.Event()

        def work(_: int) -> None:
            waits.set()
            current_context().sleep(PATIENCE)

        async with Pool(2) as pool:
            task = asyncio.ensure_future(listed(Pipeline(source.items()).map(work, pool=pool)))
            await asyncio.to_thread(waits.wait, PATIENCE)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert source.closed.is_set()

    asyncio.run(main())


def test_a_coroutine_lets_others_run() -> None:
    async def main() -> None:
        pipeline = Pipeline(itertools.count()).filter(lambda _: False)
        task = asyncio.ensure_future(listed(pipeline))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())


class Item:
    pass


def test_an_item_that_was_given_out_is_kept_by_nobody(without_gc: None) -> None:
    with Pool(1) as pool:
        pipeline = Pipeline(Item() for _ in range(10)).map(lambda item: item, pool=pool)
        results = iter(pipeline)
        kept = [weakref.ref(next(results)) for _ in range(10)]
        assert list(results) == []
        pool.submit(bool).result(PATIENCE)  # the worker is done with the last one
        assert [one() for one in kept] == [None] * 10


# -- numbers -----------------------------------------------------------------------------------


def test_the_numbers_show_the_bottleneck(clock: VirtualClock) -> None:
    def slow(number: int) -> int:
        clock.advance(3)
        return number

    with Context(clock=clock) as context, Pool(1, context=context) as pool:
        pipeline = Pipeline(range(6)).filter(is_even).map(square, pool=pool).map(
            slow, pool=pool, name="slow"
        )  # fmt: skip
        assert pipeline.metrics().bottleneck is None
        numbers = pipeline.run()
        assert numbers == pipeline.metrics()
        assert (numbers.pulled, numbers.given, numbers.in_flight) == (6, 3, 0)
        assert [(one.items_in, one.items_out) for one in numbers.stages] == [(6, 3), (3, 3), (3, 3)]
        assert numbers.stages[2].busy == 9.0
        assert numbers.seconds == 9.0
        assert numbers.bottleneck is numbers.stages[2]
        assert "slow" in str(numbers).splitlines()[3]


def test_the_progress_is_shown() -> None:
    seen: list[tuple[int, int | None]] = []
    with Pool(2) as pool:
        pipeline = Pipeline(range(3)).map(square, pool=pool)
        pipeline.run(progress=lambda done, total: seen.append((done, total)))
        asyncio.run(pipeline.batch(2).arun(progress=lambda done, total: seen.append((done, total))))
    assert seen == [(1, 3), (2, 3), (3, 3), (1, None), (2, None)]


# -- arguments ---------------------------------------------------------------------------------


def test_wrong_arguments_are_refused_at_once() -> None:
    wrong: Any
    with Pool(1) as pool:
        pipeline = Pipeline(range(3))
        for wrong in (1, None):
            with pytest.raises(TypeError, match="source must be iterable"):
                Pipeline(wrong)
            with pytest.raises(TypeError, match="fn must be callable"):
                pipeline.map(wrong, pool=pool)
            with pytest.raises(TypeError, match="pool must be"):
                pipeline.map(square, pool=wrong)
        with ThreadPoolExecutor() as executor, pytest.raises(TypeError, match="pool must be"):
            wrong = executor
            pipeline.filter(is_even, wrong)
        for wrong in (0, -1):
            with pytest.raises(ValueError, match="window"):
                pipeline.map(square, pool=pool, window=wrong)
            with pytest.raises(ValueError, match="n must"):
                pipeline.batch(wrong)
            with pytest.raises(ValueError, match="within"):
                pipeline.batch(1, wrong)
        wrong = "ignore"
        with pytest.raises(ValueError, match="on_error"):
            pipeline.map(square, pool=pool, on_error=wrong)
        wrong = 1
        with pytest.raises(TypeError, match="ordered"):
            pipeline.map(square, pool=pool, ordered=wrong)
        with pytest.raises(TypeError, match="name"):
            pipeline.map(square, pool=pool, name=wrong)


def test_old_sequences_are_sources() -> None:
    class Old:
        def __getitem__(self, place: int) -> int:
            if place > 3:
                raise IndexError
            return place

    old: Any = Old()
    assert list(Pipeline(old)) == [0, 1, 2, 3]


def test_a_method_of_workers_with_state_is_a_stage() -> None:
    from ion_actors import Worker

    class Adder(Worker):
        def add(self, number: int) -> int:
            return number + 1

    with Pool(2, worker=Adder) as pool:
        numbers: Iterable[int] = range(5)
        assert list(Pipeline(numbers).map(pool.method(Adder.add), pool=pool)) == [1, 2, 3, 4, 5]
