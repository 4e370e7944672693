"""map, map_unordered and amap: order, laziness, cancellation, errors."""

from __future__ import annotations

import asyncio
import functools
import gc
import itertools
import tempfile
import threading
import weakref
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from ion_actors import Cancelled, Context, DeadlineExceeded, Pool, TaskPanicked
from ion_actors.testing import VirtualClock
from tests.coroutines import ByHand
from tests.workerpool.helpers import PATIENCE, Gate, busy, eventually


def double(x: int) -> int:
    return 2 * x


def counting(pulled: list[int]) -> Iterator[int]:
    for number in itertools.count():
        pulled.append(number)
        yield number


def fails_at(bad: int) -> object:
    def call(x: int) -> int:
        if x == bad:
            raise ZeroDivisionError(x)
        return x

    return call


@pytest.mark.parametrize("chunksize", [1, 3, 100])
def test_map_keeps_the_order(chunksize: int) -> None:
    with Pool(4, 5) as pool:
        assert list(pool.map(double, range(200), chunksize=chunksize)) == list(range(0, 400, 2))


@pytest.mark.parametrize("verb", ["map", "map_unordered"])
def test_what_was_submitted_is_taken_back_if_the_input_fails(verb: str) -> None:
    def items() -> Iterator[int]:
        yield from range(3)
        raise LookupError("no more")

    with Pool(1) as pool, busy(pool):
        with pytest.raises(LookupError, match="no more"):
            getattr(pool, verb)(double, items())
        assert (pool.metrics().queued, pool.metrics().cancelled) == (0, 3)


@pytest.mark.parametrize("chunksize", [1, 3])
def test_the_shortest_iterable_ends_it(chunksize: int) -> None:
    with Pool(2) as pool:
        assert list(pool.map(pow, [2, 3, 4], [2, 3], chunksize=chunksize)) == [4, 27]
        assert list(pool.map(double, [], chunksize=chunksize)) == []


@pytest.mark.parametrize("verb", ["map", "map_unordered"])
@pytest.mark.parametrize("chunksize", [1, 7])
def test_an_endless_input_is_pulled_as_the_results_are(verb: str, chunksize: int) -> None:
    pulled: list[int] = []
    with Pool(2) as pool:
        results = getattr(pool, verb)(double, counting(pulled), chunksize=chunksize, buffersize=10)
        taken = list(itertools.islice(results, 50))
        results.close()
        assert len(set(taken)) == 50
        assert len(pulled) <= 50 + 11 * chunksize


def test_map_begins_before_anybody_iterates() -> None:
    with Pool(2) as pool:
        seen: list[int] = []
        done = threading.Event()
        pool.map(lambda x: (seen.append(x), x == 9 and done.set()), range(10))
        assert done.wait(PATIENCE)


def test_leaving_a_map_cancels_the_rest() -> None:
    with Pool(1) as pool:
        with busy(pool) as gate:
            results = pool.map(double, range(20))
            gate.open()
            assert next(iter(results)) == 0
        with busy(pool):
            results = pool.map(double, range(20))
            queued = pool.metrics().queued
            results.close()  # type: ignore[attr-defined]  # never begun: what it has goes on
            assert pool.metrics().queued == queued
            begun = pool.map(lambda x: x, counting([]), buffersize=5)
            del begun


def test_an_error_comes_in_its_place_and_cancels_the_rest() -> None:
    pulled: list[int] = []
    with Pool(1) as pool:
        results = pool.map(fails_at(3), counting(pulled), buffersize=4)  # type: ignore[arg-type]
        assert [next(results) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(ZeroDivisionError):
            next(results)
        with pytest.raises(StopIteration):
            next(results)
    assert pool.metrics().queued == 0


def test_an_error_in_a_chunk_does_not_swallow_what_came_before_it() -> None:
    with Pool(1) as pool:
        results = pool.map(fails_at(4), range(9), chunksize=3)  # type: ignore[arg-type]
        assert [next(results) for _ in range(4)] == [0, 1, 2, 3]
        with pytest.raises(ZeroDivisionError):
            next(results)
        assert pool.metrics().failed == 1


def test_a_panic_in_a_map_is_a_panic() -> None:
    def exits(x: int) -> int:
        raise SystemExit(x)

    with Pool(1) as pool, pytest.raises(TaskPanicked, match="exits"):
        list(pool.map(exits, [1], chunksize=2))


def test_an_input_that_raises_cancels_what_is_under_way() -> None:
    def broken() -> Iterator[int]:
        yield from range(3)
        raise LookupError

    with Pool(1) as pool:
        with busy(pool), pytest.raises(LookupError):
            pool.map(double, broken())
        assert pool.metrics().cancelled == 3


@pytest.mark.parametrize("verb", ["map", "map_unordered"])
def test_the_time_for_a_map_can_be_up(verb: str) -> None:
    with Pool(1) as pool, busy(pool):
        results = getattr(pool, verb)(double, range(3), timeout=0.01)
        with pytest.raises(TimeoutError, match=r"of the map had come within 0\.01 seconds"):
            next(results)
        assert pool.metrics().queued == 0  # the rest is cancelled


@pytest.mark.parametrize("verb", ["map", "map_unordered"])
def test_the_end_of_the_context_is_not_taken_for_the_end_of_the_time(verb: str) -> None:
    with Pool(1) as pool, busy(pool), Context(timeout=0.01), pytest.raises(DeadlineExceeded):
        next(getattr(pool, verb)(double, range(3), timeout=60))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"chunksize": 0}, "chunksize must be at least 1, not 0"),
        ({"buffersize": 0}, "buffersize must be None or > 0, not 0"),
        ({"buffersize": 2.5}, "buffersize must be an integer or None, not 2.5"),
        ({"timeout": -1}, "timeout must be"),
    ],
)
def test_a_senseless_argument_of_map_is_named(arguments: dict[str, object], words: str) -> None:
    with Pool(1) as pool, pytest.raises((TypeError, ValueError), match=words):
        pool.map(double, [1], **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("chunksize", [1, 5])
def test_map_unordered_gives_what_is_done_first(chunksize: int) -> None:
    gate = Gate()

    def call(x: int) -> int:
        if x == 0:
            gate()
        return x

    with Pool(2) as pool:
        results = pool.map_unordered(call, range(20), chunksize=chunksize)
        first = [next(results) for _ in range(20 - chunksize)]
        assert sorted(first) == list(range(chunksize, 20))
        gate.open()
        assert sorted(results) == list(range(chunksize))


def is_gone(reference: weakref.ref[object]) -> bool:
    if reference() is None:
        return True
    gc.collect()  # without the GIL, reference counts are settled late
    return False


def test_map_does_not_hold_on_to_what_it_gave() -> None:
    class Thing:
        pass

    with Pool(1) as pool:
        for chunksize in (1, 4):
            for thing in pool.map(lambda _: Thing(), range(12), chunksize=chunksize):
                seen = weakref.ref(thing)
                del thing
                eventually(functools.partial(is_gone, seen))


def test_cancelled_futures_of_a_map_are_not_lost() -> None:
    pool = Pool(1)
    with busy(pool):
        results = pool.map(double, range(3))
        pool.shutdown(wait=False, cancel_futures=True)
    with pytest.raises(Cancelled):
        next(results)
    pool.drain()


@pytest.mark.parametrize("chunksize", [1, 3])
def test_amap_keeps_the_order_and_takes_both_kinds_of_input(chunksize: int) -> None:
    async def numbers() -> AsyncIterator[int]:
        for number in range(10):
            yield number
            await asyncio.sleep(0)

    async def main(pool: Pool) -> list[int]:
        found = [x async for x in pool.amap(pow, numbers(), [2] * 8, chunksize=chunksize)]
        found += [x async for x in pool.amap(double, itertools.islice([1, 2], 2))]
        return found

    with Pool(2, 3) as pool:
        assert asyncio.run(main(pool)) == [0, 1, 4, 9, 16, 25, 36, 49, 2, 4]


def test_amap_is_lazy_cancels_the_rest_and_raises_in_place() -> None:
    pulled: list[int] = []

    async def main(pool: Pool) -> list[int]:
        found = []
        with pytest.raises(ZeroDivisionError):
            async for x in pool.amap(fails_at(5), counting(pulled), buffersize=3):  # type: ignore[arg-type]
                found.append(x)  # noqa: PERF401  # what came before the error is wanted
        with pytest.raises(TimeoutError, match=r"of the map had come within 0\.01 seconds"):
            async for _ in pool.amap(lambda _: gate(), [1], timeout=0.01):
                raise AssertionError("nothing comes through the gate")
        return found

    gate = Gate()
    with Pool(1) as pool:
        assert asyncio.run(main(pool)) == [0, 1, 2, 3, 4]
        assert len(pulled) <= 9
        gate.open()


# -- coroutines ------------------------------------------------------------------------------


async def double_later(x: int) -> int:
    await asyncio.sleep(0)
    return 2 * x


def double_now_or_later(x: int) -> Any:
    if x % 3 == 0:
        return 2 * x
    return ByHand(double_later(x)) if x % 3 == 1 else double_later(x)


def fails_later_at(bad: int, *, hidden: bool = False, error: Any = ZeroDivisionError) -> Any:
    async def call(x: int) -> int:
        await asyncio.sleep(0)
        if x == bad:
            raise error(x)
        return x

    return (lambda x: x if x % 2 else call(x)) if hidden else call


async def collected(results: AsyncIterator[Any], into: list[Any]) -> None:
    into.extend([one async for one in results])


def take(pool: Pool, verb: str, *args: Any, **options: Any) -> list[Any]:
    """All results of a map; in the order of the input, as soon as there are any."""
    results = getattr(pool, verb)(*args, **options)
    into: list[Any] = []
    if verb == "amap":
        asyncio.run(collected(results, into))
    else:
        into.extend(results)
    return sorted(into)


VERBS = ["map", "map_unordered", "amap"]


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("chunksize", [1, 2, 100])
@pytest.mark.parametrize("call", [double_later, double_now_or_later])
def test_the_coroutines_of_a_chunk_are_run(verb: str, chunksize: int, call: Any) -> None:
    with Pool(2) as pool:
        assert take(pool, verb, call, range(10), chunksize=chunksize) == list(range(0, 20, 2))


@pytest.mark.parametrize("hidden", [False, True])
def test_an_error_of_a_coroutine_does_not_swallow_what_came_before_it(hidden: bool) -> None:
    with Pool(1) as pool:
        results = pool.map(fails_later_at(4, hidden=hidden), range(9), chunksize=3)
        assert [next(results) for _ in range(4)] == [0, 1, 2, 3]
        with pytest.raises(ZeroDivisionError):
            next(results)
        assert pool.metrics().failed == 1


def test_a_chunk_of_coroutines_is_one_task_in_its_wrapper() -> None:
    seen: list[Any] = []

    def wrapper(task: Any) -> Any:
        def wrapped() -> Any:
            seen.append("in")
            try:
                return task()
            finally:
                seen.append("out")

        return wrapped

    with Pool(1, task_wrapper=wrapper) as pool:
        assert list(pool.map(double_later, range(4), chunksize=2)) == [0, 2, 4, 6]
    assert seen == ["in", "out"] * 2


def test_a_chunk_of_coroutines_ends_with_its_limit() -> None:
    async def hangs_at_two(x: int) -> int:
        if x == 2:
            await asyncio.Event().wait()
        return x

    with Pool(1) as pool:
        results = pool.options(timeout=0.2).map(hangs_at_two, range(6), chunksize=3)
        with pytest.raises(DeadlineExceeded):
            list(results)


def test_a_chunk_is_run_as_a_whole_when_it_is_tried_again() -> None:
    with tempfile.TemporaryDirectory() as folder:
        marker = Path(folder) / "tried"

        def call(x: int) -> int:
            if x == 4 and not marker.exists():
                marker.touch()
                raise SystemExit
            return x

        with Pool(1) as pool:
            again = pool.options(retry_on_worker_death=1)
            assert list(again.map(call, range(6), chunksize=3)) == [0, 1, 2, 3, 4, 5]


class Frozen(Exception):
    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(name)


class Slotted(Exception):
    __slots__ = ()


class Reduced(Exception):
    def __reduce__(self) -> Any:
        return Reduced, self.args


class Answering(Exception):
    def __getattribute__(self, name: str) -> Any:
        if name == "__dict__":
            raise RuntimeError
        return super().__getattribute__(name)


class NotToBePacked(Exception):
    def __init__(self) -> None:
        super().__init__("the message")
        self.lock = threading.Lock()


@pytest.mark.parametrize("later", [False, True])
@pytest.mark.parametrize("make", [Frozen, Slotted, Reduced, Answering, NotToBePacked])
def test_what_came_before_an_odd_exception_stays(make: Any, later: bool) -> None:
    def call(x: int) -> int:
        if x == 2:
            raise make() if make is NotToBePacked else make("the message")
        return x

    async def call_later(x: int) -> int:
        return call(x)

    with Pool(1) as pool:
        results = pool.map(call_later if later else call, range(3), chunksize=3)
        assert [next(results), next(results)] == [0, 1]
        with pytest.raises(Exception, match="the message"):
            next(results)


def test_what_cannot_be_sent_back_does_not_hide_the_error() -> None:
    def call(x: int) -> Any:
        if x == 1:
            raise ZeroDivisionError("the message")
        return threading.Lock()

    with Pool(1) as pool, pytest.raises(ZeroDivisionError, match="the message"):
        list(pool.map(call, range(3), chunksize=3))


@pytest.mark.parametrize("chunksize", [1, 2])
def test_the_calls_of_a_chunk_get_their_context(chunksize: int) -> None:
    async def later(context: Context, x: int) -> tuple[bool, int]:
        return isinstance(context, Context), x

    def now(context: Context, x: int) -> tuple[bool, int]:
        return isinstance(context, Context), x

    with Pool(1) as pool:
        given = pool.options(pass_context=True)
        for call in (later, now):
            assert list(given.map(call, range(3), chunksize=chunksize)) == [
                (True, 0), (True, 1), (True, 2),
            ]  # fmt: skip


# -- contexts and time -----------------------------------------------------------------------


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("chunksize", [1, 2])
def test_a_map_ends_with_the_current_context(verb: str, chunksize: int) -> None:
    with Pool(1) as pool, busy(pool):
        with pytest.raises(DeadlineExceeded), Context(timeout=0.05):
            take(pool, verb, double, range(4), chunksize=chunksize)
        with pytest.raises(Cancelled, match="enough"), Context() as context:
            threading.Timer(0.05, context.cancel, ["enough"]).start()
            take(pool, verb, double, range(4), chunksize=chunksize)


@pytest.mark.parametrize("verb", VERBS)
def test_the_limit_of_a_map_goes_by_the_clock_of_its_pool(verb: str, clock: VirtualClock) -> None:
    with Pool(1, context=Context(clock=clock)) as pool, busy(pool):
        results = getattr(pool, verb)(double, [1], timeout=3600.0)
        mover = threading.Thread(target=move_on, args=(clock, 3600.0))
        mover.start()
        with pytest.raises(TimeoutError, match="within 3600 seconds") as late:
            asyncio.run(collected(results, [])) if verb == "amap" else next(results)
        assert type(late.value) is TimeoutError
        mover.join()


def move_on(clock: VirtualClock, duration: float) -> None:
    clock.wait_for_timers(1)
    clock.advance(duration)


@pytest.mark.parametrize("verb", VERBS)
def test_real_time_does_not_end_a_map_of_a_virtual_clock(verb: str, clock: VirtualClock) -> None:
    with Pool(1, context=Context(clock=clock)) as pool:
        with busy(pool) as gate:
            results = getattr(pool, verb)(double, [1], timeout=0.01)
            threading.Timer(0.1, gate.open).start()
            into: list[int] = []
            if verb == "amap":
                asyncio.run(collected(results, into))
            else:
                into = list(results)
        assert into == [2]


@pytest.mark.parametrize("verb", ["map", "map_unordered"])
def test_a_limit_that_is_over_gives_what_is_done(verb: str, clock: VirtualClock) -> None:
    with Pool(1, context=Context(clock=clock)) as pool:
        results = getattr(pool, verb)(double, [1, 2], timeout=1.0)
        eventually(lambda: pool.metrics().completed == 2)
        clock.advance(2.0)
        assert list(results) == [2, 4]
