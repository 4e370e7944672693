"""``map(..., progress=...)``: what is counted, who is told, where, and what errors in it do."""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest.mock import Mock

import pytest

from ion_actors import Cancelled, Context, Pool, PoolClosed
from ion_actors.delivery import kept_free
from ion_actors.testing import VirtualClock
from tests.workerpool.helpers import PATIENCE, eventually

Calls = list[tuple[int, int | None]]
Verb = Callable[..., Any]


def double(x: int) -> int:
    return 2 * x


def fails_at_three(x: int) -> int:
    if x == 3:
        raise ZeroDivisionError(x)
    return x


def by_map(pool: Pool, *args: Any, **kwargs: Any) -> Iterator[Any]:
    return pool.map(*args, **kwargs)


def by_map_unordered(pool: Pool, *args: Any, **kwargs: Any) -> Iterator[Any]:
    return pool.map_unordered(*args, **kwargs)


def by_amap(pool: Pool, *args: Any, **kwargs: Any) -> Iterator[Any]:
    """``amap``, driven by a loop of its own."""
    results = pool.amap(*args, **kwargs)
    with asyncio.Runner() as runner:
        try:
            while True:
                try:
                    yield runner.run(anext(results))  # type: ignore[arg-type]
                except StopAsyncIteration:
                    return
        finally:
            runner.run(results.aclose())  # type: ignore[attr-defined]


every_verb = pytest.mark.parametrize("verb", [by_map, by_map_unordered, by_amap])


@every_verb
@pytest.mark.parametrize("backend", ["thread", "process"])
def test_a_function_is_told_how_many_calls_have_ended(verb: Verb, backend: str) -> None:
    told: Calls = []
    with Pool(2, backend=backend) as pool:
        results = verb(pool, double, range(5), progress=lambda *call: told.append(call))
        assert sorted(results) == [0, 2, 4, 6, 8]
    assert told == [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]


@every_verb
def test_a_chunk_counts_as_many_calls_as_it_has(verb: Verb) -> None:
    told: Calls = []
    with Pool(1) as pool:
        list(verb(pool, double, range(10), chunksize=4, progress=lambda *call: told.append(call)))
    assert [done for done, _ in told] in ([4, 8, 10], [4, 6, 10], [2, 6, 10])
    assert {total for _, total in told} == {10}


@every_verb
def test_without_progress_nothing_is_told(verb: Verb, capfd: pytest.CaptureFixture[str]) -> None:
    with Pool(1) as pool:
        for off in (None, False):
            list(verb(pool, double, range(3), progress=off))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("iterables", "total"),
    [
        (([1, 2, 3],), 3),
        (([1, 2, 3], (1, 2)), 2),
        (([1, 2], itertools.repeat(7)), 2),
        (([1, 2, 3], itertools.repeat(7, 2)), 2),
        (([1, 2], itertools.count(), itertools.cycle([1, 2])), 2),
        ((iter([1, 2]),), None),
        (([1, 2], iter([1, 2])), None),
        (([],), 0),
        ((), None),
    ],
)
def test_the_total_is_known_if_the_lengths_are(iterables: Any, total: int | None) -> None:
    told: Calls = []
    with Pool(1) as pool:
        count = len(
            list(pool.map(lambda *args: args, *iterables, progress=lambda *a: told.append(a)))
        )
    assert told == [(done + 1, total) for done in range(count)]


def test_a_length_that_raises_is_none(until: Any) -> None:
    class Lazy:
        def __len__(self) -> int:
            raise TypeError("not yet")

        def __iter__(self) -> Iterator[int]:
            return iter([1])

    told: Calls = []
    with Pool(1) as pool:
        list(pool.map(double, Lazy(), progress=lambda *call: told.append(call)))
    assert told == [(1, None)]


def test_asynchronous_input_has_no_total() -> None:
    async def items() -> AsyncIterator[int]:
        yield 1
        yield 2

    told: Calls = []

    async def main() -> list[int]:
        async with Pool(1) as pool:
            amap = pool.amap(double, items(), progress=lambda *call: told.append(call))
            return [one async for one in amap]

    assert asyncio.run(main()) == [2, 4]
    assert told == [(1, None), (2, None)]


@pytest.mark.parametrize("verb", [by_map, by_amap])
def test_what_ends_is_told_while_the_first_result_is_waited_for(verb: Verb) -> None:
    others_told = threading.Event()

    def first_waits(x: int) -> int:
        if x == 0:
            assert others_told.wait(PATIENCE), "nobody was told of the others"
        return x

    def tell(done: int, total: int | None) -> None:
        if done == 4:
            others_told.set()

    with Pool(2) as pool:
        assert list(verb(pool, first_waits, range(5), progress=tell)) == [0, 1, 2, 3, 4]


@every_verb
def test_it_is_called_in_the_thread_that_iterates(verb: Verb) -> None:
    threads = set()
    with Pool(2) as pool:
        note = lambda *_: threads.add(threading.current_thread())  # noqa: E731
        list(verb(pool, double, range(20), progress=note))
    assert threads == {threading.current_thread()}


def test_on_a_loop_it_is_called_on_the_loop() -> None:
    async def main() -> set[Any]:
        async with Pool(1) as pool:
            found = set()
            note = lambda *_: found.add(asyncio.current_task())  # noqa: E731
            async for _ in pool.amap(double, range(3), progress=note):
                pass
            return found - {asyncio.current_task()}

    assert asyncio.run(main()) == set()


@every_verb
def test_no_lock_is_held_when_it_is_called(verb: Verb) -> None:
    with Pool(1) as pool:

        def use_the_pool(done: int, total: int | None) -> None:
            assert pool.metrics().submitted >= done
            assert pool.submit(double, done).result(PATIENCE) == 2 * done

        assert sorted(verb(pool, double, range(4), progress=use_the_pool)) == [0, 2, 4, 6]


# -- errors, and an early end -----------------------------------------------------------------


@every_verb
def test_if_it_raises_that_is_logged_once_and_the_map_goes_on(
    verb: Verb, caplog: pytest.LogCaptureFixture
) -> None:
    told = []

    def bad(done: int, total: int | None) -> None:
        told.append(done)
        raise LookupError("a broken bar")

    with Pool(2) as pool:
        assert sorted(verb(pool, double, range(5), progress=bad)) == [0, 2, 4, 6, 8]
    [record] = [one for one in caplog.records if "progress" in one.getMessage()]
    assert (record.name, record.levelno, told) == ("ion_actors", logging.ERROR, [1])
    assert "a broken bar" in str(record.exc_info)


@every_verb
def test_an_interruption_ends_the_map(verb: Verb) -> None:
    def interrupted(done: int, total: int | None) -> None:
        raise KeyboardInterrupt

    with Pool(1) as pool:
        with pytest.raises(KeyboardInterrupt):
            list(verb(pool, double, range(100), progress=interrupted))
        eventually(lambda: pool.metrics().queued == 0)


def test_a_coroutine_function_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    async def bar(done: int, total: int | None) -> None: ...

    with Pool(1) as pool:
        assert list(pool.map(double, [1], progress=bar)) == [2]
    assert "plain function" in caplog.text


class Bar:
    """What looks like a bar of tqdm."""

    total: int | None = None

    def __init__(self) -> None:
        self.n = 0
        self.log: list[str] = []

    def update(self, n: int) -> None:
        self.n += n

    def refresh(self) -> None:
        self.log.append("refreshed")

    def close(self) -> None:
        self.log.append("closed")


@every_verb
def test_a_bar_is_advanced_gets_the_total_and_is_left_open(verb: Verb) -> None:
    bar = Bar()
    with Pool(2) as pool:
        list(verb(pool, double, range(20), chunksize=3, progress=bar))
        assert (bar.n, bar.total, bar.log) == (20, 20, ["refreshed"])
        list(verb(pool, double, range(4), progress=bar))
    assert (bar.n, bar.total) == (24, 20)


made: list[Bar] = []


class Made(Bar):
    def __init__(self, total: int | None, colour: str = "none") -> None:
        super().__init__()
        self.total = total
        self.colour = colour
        made.append(self)


@every_verb
@pytest.mark.parametrize("kind", [Made, functools.partial(Made, colour="green")])
def test_a_class_of_bars_is_made_and_closed(verb: Verb, kind: Any) -> None:
    made.clear()
    with Pool(2) as pool:
        results = verb(pool, double, range(4), progress=kind)
        list(results)
    [bar] = made
    assert (bar.n, bar.total, bar.log) == (4, 4, ["closed"])


def close(results: Any) -> None:
    next(results)
    results.close()


def fail(results: Any) -> None:
    with pytest.raises(ZeroDivisionError):
        list(results)


def forget(results: Any) -> None:
    next(results)
    del results


@every_verb
@pytest.mark.parametrize("end", [close, fail, forget])
def test_a_bar_of_the_map_is_closed_however_it_ends(verb: Verb, end: Callable[..., None]) -> None:
    made.clear()
    with Pool(1) as pool:
        end(verb(pool, fails_at_three, range(100), buffersize=2, progress=Made))
        [bar] = made
        eventually(lambda: bar.log == ["closed"])
    assert 1 <= bar.n <= 6


@every_verb
def test_a_bar_of_the_map_is_closed_when_its_time_is_up(
    verb: Verb, clock: VirtualClock, threads: ThreadPoolExecutor
) -> None:
    made.clear()
    gate = threading.Event()
    with Pool(1, context=Context(clock=clock)) as pool:
        results = verb(pool, lambda _: gate.wait(PATIENCE), [1], timeout=5, progress=Made)
        waiting = threads.submit(list, results)
        clock.wait_for_timers(1)
        clock.advance(5)
        with pytest.raises(TimeoutError, match="within 5 seconds"):
            waiting.result(PATIENCE)
        gate.set()
    assert [one.log for one in made] == [["closed"]]


@every_verb
def test_a_bar_of_the_map_is_closed_when_the_context_or_the_pool_ends(verb: Verb) -> None:
    made.clear()
    gate = threading.Event()
    try:
        with Pool(1) as pool:
            with Context() as context:
                results = verb(pool, lambda _: gate.wait(PATIENCE), [1], progress=Made)
                timer = threading.Timer(0.01, context.cancel)
                timer.start()
                with pytest.raises(Cancelled):
                    next(results)
                timer.join()
            gate.set()
        long = verb(pool := Pool(1), double, itertools.count(), progress=Made)
        next(long)
        pool.close()
        with pytest.raises((Cancelled, PoolClosed)):
            list(long)
    finally:
        gate.set()
    assert [one.log for one in made] == [["closed"], ["closed"]]


def test_a_map_that_nobody_iterates_makes_no_bar() -> None:
    made.clear()
    with Pool(1) as pool:
        pool.map(double, range(3), progress=Made)
    assert made == []


def test_a_thread_that_must_not_block_has_another_one_close_the_bar() -> None:
    closed_by: list[threading.Thread] = []

    class Noting(Made):
        def close(self) -> None:
            closed_by.append(threading.current_thread())

    with Pool(1) as pool:
        results: Any = pool.map(double, range(100), progress=Noting)
        next(results)
        with kept_free():
            results.close()
        eventually(lambda: closed_by)
    assert closed_by[0] is not threading.current_thread()


def test_a_bar_that_fails_is_closed(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(Made):
        def update(self, n: int) -> None:
            raise OSError("no room on the device")

    made.clear()
    with Pool(1) as pool:
        assert len(list(pool.map(double, range(10), progress=Failing))) == 10
    assert [one.log for one in made] == [["closed"]]
    assert "no room on the device" in caplog.text


def test_a_bar_that_cannot_be_made_is_no_reason_to_stop(caplog: pytest.LogCaptureFixture) -> None:
    class Unmade(Made):
        def __init__(self, **_: Any) -> None:
            raise OSError("no display")

    with Pool(1) as pool:
        assert len(list(pool.map(double, range(10), progress=Unmade))) == 10
    assert [str(one.exc_info[1]) for one in caplog.records if one.exc_info] == ["no display"]


def test_inside_a_task_of_the_same_pool() -> None:
    told: Calls = []
    with Pool(1) as pool:

        def outer() -> list[int]:
            return list(pool.map(double, range(4), progress=lambda *call: told.append(call)))

        assert pool.submit(outer).result(PATIENCE) == [0, 2, 4, 6]
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


# -- arguments --------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [1, "bar", object(), (), (1, 2), (Bar(), 3), int, [print]])
def test_what_is_no_progress_is_refused_at_once(wrong: Any) -> None:
    with Pool(1) as pool:
        for verb in (pool.map, pool.map_unordered, pool.amap):
            with pytest.raises(TypeError, match="progress must be"):
                verb(double, [1], progress=wrong)
        assert pool.metrics().submitted == 0


def test_a_mock_is_the_function_that_it_stands_for() -> None:
    told = Mock()
    with Pool(1) as pool:
        list(pool.map(double, [1, 2], progress=told))
    assert [call.args for call in told.call_args_list] == [(1, 2), (2, 2)]


def test_a_new_map_begins_to_count_anew() -> None:
    told: Calls = []
    with Pool(1) as pool:
        for _ in range(2):
            list(pool.map(double, [1], progress=lambda *call: told.append(call)))
    assert told == [(1, 1), (1, 1)]


def test_options_name_it_too(capsys: pytest.CaptureFixture[str]) -> None:
    with Pool(1) as pool:
        list(pool.options(name="two\nlines").map(double, [1, 2], progress=True))
    assert capsys.readouterr().err.startswith("two\\nlines: 2 of 2 (100%) in ")


def test_many_threads_end_calls_and_each_is_told_once() -> None:
    told: Calls = []
    with Pool(8) as pool:
        results = pool.map(double, range(3000), progress=lambda *call: told.append(call))
        assert len(list(results)) == 3000
    assert told == [(done + 1, 3000) for done in range(3000)]
