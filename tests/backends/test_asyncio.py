"""Pools whose workers are slots of one event loop."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import gc
import logging
import sys
import threading
import time
import types
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any

import pytest

from ion_actors import (
    AsyncioBackend,
    BrokenPool,
    Cancelled,
    Context,
    DeadlineExceeded,
    DeadlockError,
    PanicRecovery,
    Pool,
    QueueFull,
    Retry,
    StuckTask,
    TaskAbandoned,
    TaskDropped,
    TaskPanicked,
    Worker,
    current_context,
    report_progress,
)
from ion_actors.observe import HOOKS
from ion_actors.pipeline import Pipeline
from ion_actors.testing import RecordingTracer, VirtualClock
from tests.interrupts import KINDS, every_point, interrupt
from tests.workerpool.helpers import PATIENCE, eventually

variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=0)


def runs(main: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """A test that is a coroutine; each has a loop of its own."""

    async def in_time() -> None:
        async with asyncio.timeout(PATIENCE):
            await main()

    @functools.wraps(main)
    def test() -> None:
        asyncio.run(in_time())

    del test.__wrapped__  # type: ignore[attr-defined]  # pytest would take it for a coroutine
    return test


async def double(number: int) -> int:
    await asyncio.sleep(0)
    return 2 * number


class Held:
    """A coroutine function that waits until it is let go, and tells what became of it."""

    def __init__(self) -> None:
        self.begun = 0
        self.most = 0
        self.now = 0
        self.cancelled = 0
        self.go = asyncio.Event()

    async def __call__(self) -> str:
        self.begun += 1
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.now -= 1
        return "went"


async def until(condition: Callable[[], object]) -> None:
    """Let the others go on until it is so."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it never came true"
        await asyncio.sleep(0.001)


def threads_of(pool: Pool) -> list[str]:
    return [one.name for one in threading.enumerate() if one.name.startswith(pool.name)]


# -- where tasks run ---------------------------------------------------------------------------


@runs
async def test_tasks_run_on_the_loop_where_the_pool_was_made() -> None:
    async def where() -> tuple[object, int]:
        return asyncio.get_running_loop(), threading.get_ident()

    async with Pool(3, backend="asyncio", name="slots") as pool:
        here = asyncio.get_running_loop(), threading.get_ident()
        assert await asyncio.gather(*(pool.submit(where) for _ in range(9))) == [here] * 9
        assert threads_of(pool) == ["slots-supervisor"]


def test_a_pool_that_is_made_where_no_loop_runs_has_its_own_on_one_thread() -> None:
    async def where() -> str:
        return threading.current_thread().name

    with Pool(4, name="own", backend="asyncio") as pool:
        assert {pool.submit(where).result(PATIENCE) for _ in range(8)} == {"own-loop"}
        assert list(pool.map(double, range(50))) == [2 * number for number in range(50)]
    eventually(lambda: not [one for one in threading.enumerate() if one.name == "own-loop"])


@runs
async def test_a_loop_can_be_given_and_may_run_in_another_thread() -> None:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        async with Pool(2, backend=AsyncioBackend(loop=loop)) as pool:
            ran = await pool.submit(lambda: asyncio.sleep(0, threading.get_ident()))
            assert ran == thread.ident
            assert [one async for one in pool.amap(double, range(5))] == [0, 2, 4, 6, 8]
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def test_a_loop_can_be_made_by_a_factory_wherever_the_pool_is_made() -> None:
    made: list[asyncio.AbstractEventLoop] = []

    def factory() -> asyncio.AbstractEventLoop:
        made.append(asyncio.new_event_loop())
        return made[-1]

    async def main() -> None:
        async with Pool(2, backend=AsyncioBackend(loop_factory=factory, debug=True)) as pool:
            there = await pool.submit(lambda: asyncio.sleep(0, asyncio.get_running_loop()))
            assert [there] == made
            assert there.get_debug()

    asyncio.run(main())
    assert made[0].is_closed()


def test_the_errors_of_a_factory_are_those_of_the_pool() -> None:
    def factory() -> asyncio.AbstractEventLoop:
        raise LookupError("no loop today")

    with pytest.raises(LookupError, match="no loop today"):
        Pool(1, backend=AsyncioBackend(loop_factory=factory))


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"loop": 3}, TypeError, "loop must be an event loop or None, not 3"),
        ({"loop_factory": 3}, TypeError, "loop_factory must be callable, not 3"),
        ({"debug": 3}, TypeError, "debug must be True, False or None, not 3"),
    ],
)
def test_a_senseless_argument_is_named(
    arguments: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        AsyncioBackend(**arguments)


def test_what_does_not_go_together_is_refused() -> None:
    loop = asyncio.new_event_loop()
    with pytest.raises(ValueError, match="give loop or loop_factory, not both"):
        AsyncioBackend(loop=loop, loop_factory=asyncio.new_event_loop)
    loop.close()
    with pytest.raises(RuntimeError, match="the event loop of pool 'late' is closed"):
        Pool(1, name="late", backend=AsyncioBackend(loop=loop))
    with pytest.raises(ValueError, match="'caller_runs' is not for an event loop"):
        Pool(1, backend="asyncio", overflow="caller_runs")


@runs
async def test_by_default_there_are_a_hundred_workers() -> None:
    async with Pool(backend="asyncio") as pool:
        assert pool.size == 100


# -- how many at a time ------------------------------------------------------------------------


@runs
async def test_so_many_run_at_a_time_and_no_more() -> None:
    held = Held()
    async with Pool(5, 100, backend="asyncio") as pool:
        futures = [pool.submit(held) for _ in range(20)]
        await until(lambda: held.begun == 5)
        assert (pool.metrics().running, pool.metrics().queued) == (5, 15)
        held.go.set()
        assert await asyncio.gather(*futures) == ["went"] * 20
        assert held.most == 5


@runs
async def test_it_can_be_resized() -> None:
    held = Held()
    async with Pool(2, 100, backend="asyncio") as pool:
        futures = [pool.submit(held) for _ in range(10)]
        await until(lambda: held.begun == 2)
        pool.resize(6)
        await until(lambda: held.begun == 6)
        pool.resize(1)
        assert pool.metrics().running == 6
        held.go.set()
        await asyncio.gather(*futures)
        eventually(lambda: len(pool.dump().workers) == 1)
        assert await pool.submit(double, 2) == 4


@runs
async def test_ten_thousand_workers_have_no_threads_and_take_kilobytes() -> None:
    import tracemalloc

    tracemalloc.start()
    try:
        async with Pool(10_000, backend="asyncio", name="slots") as pool:
            size, _ = tracemalloc.get_traced_memory()
            assert size / 10_000 < 2048
            assert threads_of(pool) == ["slots-supervisor"]
            assert await pool.submit(double, 4) == 8
    finally:
        tracemalloc.stop()


@runs
async def test_who_waits_for_room_awaits_it() -> None:
    held = Held()
    async with Pool(1, 1, backend="asyncio") as pool:
        first, second = pool.submit(held), pool.submit(held)
        await until(lambda: held.begun == 1)
        with pytest.raises(QueueFull):
            pool.try_submit(held)
        third = asyncio.ensure_future(pool.asubmit(held))
        await asyncio.sleep(0)
        assert not third.done()
        held.go.set()
        assert await asyncio.gather(first, second, await third) == ["went"] * 3


# -- what would block the loop -----------------------------------------------------------------


@runs
async def test_a_submit_that_would_block_the_loop_names_asubmit() -> None:
    held = Held()
    async with Pool(1, 1, name="small", backend="asyncio") as pool:
        futures = [pool.submit(held), pool.submit(held)]
        with pytest.raises(DeadlockError, match=r"pool 'small' has no room.*await pool\.asubmit"):
            pool.submit(held)
        held.go.set()
        await asyncio.gather(*futures)
        assert pool.metrics().submitted == 2


@runs
async def test_a_result_that_would_block_the_loop_names_await() -> None:
    held = Held()
    async with Pool(2, backend="asyncio") as pool:
        future = pool.submit(held)
        for timeout in (None, 5.0):
            with pytest.raises(DeadlockError, match="write `await future`"):
                future.result(timeout)
        with pytest.raises(TimeoutError):
            future.result(0)

        async def inside() -> object:
            return pool.submit(held).map(str).result()

        with pytest.raises(DeadlockError, match="write `await future`"):
            await pool.submit(inside)
        held.go.set()
        assert await future == "went"
        assert future.result() == "went"


@runs
async def test_an_end_that_would_block_the_loop_names_adrain() -> None:
    held = Held()
    pool = Pool(1, name="busy", backend="asyncio")
    future = pool.submit(held)
    await until(lambda: held.begun)
    with pytest.raises(DeadlockError, match=r"pool 'busy' ends, but.*await pool\.adrain"):
        pool.drain()
    held.go.set()
    assert await future == "went"
    assert (await pool.adrain()).completed >= 1


@runs
async def test_a_pool_that_has_nothing_to_do_can_be_ended_without_its_loop() -> None:
    with Pool(3, backend="asyncio") as pool:
        assert await pool.submit(double, 1) == 2
    assert pool.is_closed


@runs
async def test_a_task_that_ends_its_own_pool_does_not_wait_for_itself() -> None:
    pool = Pool(2, backend="asyncio")

    async def ends() -> bool:
        return (await pool.adrain()).completed == 0

    assert await pool.submit(ends)
    await pool.adrain()


# -- results -----------------------------------------------------------------------------------


@runs
async def test_what_is_awaitable_is_awaited_and_anything_else_is_the_result() -> None:
    class Later:
        def __await__(self) -> Iterator[Any]:
            yield from asyncio.sleep(0).__await__()
            return "later"

    @types.coroutine
    def old() -> Iterator[Any]:
        yield
        return "old"

    future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    future.set_result("future")
    async with Pool(2, backend="asyncio") as pool:
        assert await pool.submit(Later) == "later"
        assert await pool.submit(old) == "old"
        assert await pool.submit(lambda: future) == "future"
        assert await pool.submit(functools.partial(double, 3)) == 6
        assert await pool.submit(lambda: double(4)) == 8
        assert await pool.submit(divmod, 7, 2) == (3, 1)
        assert await pool.submit(lambda: [1]) == [1]


@runs
async def test_each_task_is_an_asyncio_task_of_its_own() -> None:
    async def identity() -> int:
        return id(asyncio.current_task())

    async def sets(number: int) -> tuple[int, int]:
        before = variable.get()
        variable.set(number)
        await asyncio.sleep(0)
        return before, variable.get()

    async with Pool(1, backend="asyncio") as pool:
        kept = [asyncio.current_task()]
        assert await pool.submit(identity) != id(kept[0])
        token = variable.set(7)
        try:
            futures = [pool.submit(sets, number) for number in range(3)]
        finally:
            variable.reset(token)
        assert await asyncio.gather(*futures) == [(7, 0), (7, 1), (7, 2)]
        assert variable.get() == 0


@runs
async def test_what_asyncio_offers_works_inside() -> None:
    async def group() -> int:
        async with asyncio.TaskGroup() as tasks:
            made = [tasks.create_task(double(number)) for number in range(4)]
        return sum(one.result() for one in made)

    async def hurries() -> None:
        async with asyncio.timeout(0.001):
            await asyncio.sleep(PATIENCE)

    async with Pool(2, backend="asyncio") as pool:
        assert await pool.submit(group) == 12
        with pytest.raises(TimeoutError):
            await pool.submit(hurries)
        assert pool.metrics().failed == 1


@runs
async def test_a_failure_is_its_tasks_own_and_keeps_nothing_alive() -> None:
    class Big:
        pass

    gone: list[weakref.ref[Big]] = []

    async def fails() -> None:
        big = Big()
        gone.append(weakref.ref(big))
        raise LookupError("lost")

    async with Pool(1, backend="asyncio") as pool:
        with pytest.raises(LookupError, match="lost"):
            await pool.submit(fails)
        assert await pool.submit(double, 1) == 2
        gc.collect()
        assert gone[0]() is None


@runs
async def test_forty_thousand_tasks_leave_nothing_behind() -> None:
    async with Pool(50, 1000, backend="asyncio") as pool:
        async for _ in pool.amap(double, range(2_000)):
            pass
        gc.collect()
        before = len(gc.get_objects())
        async for _ in pool.amap(double, range(40_000)):
            pass
        gc.collect()
        assert len(gc.get_objects()) < before + 2_000
        assert pool.metrics().completed == 42_000


# -- contexts and time limits ------------------------------------------------------------------


@runs
async def test_the_context_of_a_task_is_found_in_it_and_in_its_threads_and_children() -> None:
    async def everywhere() -> set[int]:
        mine = current_context()
        with Context() as inner:
            assert current_context() is inner
        found = {id(mine), id(await asyncio.to_thread(current_context))}
        child = asyncio.create_task(asyncio.sleep(0, current_context()))
        report_progress(0.5, "half")
        return {*found, id(await child)}

    async with Pool(2, backend="asyncio") as pool:
        future = pool.submit(everywhere)
        assert len(await future) == 1
        assert future.progress is not None
        assert future.progress.message == "half"


@runs
async def test_a_time_limit_cancels_the_coroutine_and_its_finally_runs() -> None:
    held = Held()
    async with Pool(1, backend="asyncio") as pool:
        with pytest.raises(DeadlineExceeded):
            await pool.options(timeout=0.02).submit(held)
        await until(lambda: held.cancelled == 1)
        assert await pool.submit(double, 1) == 2
        assert pool.metrics().cancelled == 1


@runs
async def test_a_cancelled_future_cancels_its_coroutine_once() -> None:
    swept = []

    async def cleans_up() -> None:
        try:
            await asyncio.sleep(PATIENCE)
        finally:
            await asyncio.sleep(0.01)
            swept.append("swept")

    async with Pool(1, backend="asyncio") as pool:
        future = pool.submit(cleans_up)
        await until(lambda: pool.metrics().running)
        await asyncio.sleep(0)
        future.cancel()
        future.cancel()
        with pytest.raises(Cancelled):
            await future
        assert swept == ["swept"]


@runs
async def test_the_end_of_the_submitters_context_ends_the_task() -> None:
    held = Held()
    async with Pool(1, backend="asyncio") as pool:
        with Context() as context:
            future = pool.submit(held)
        await until(lambda: held.begun)
        context.cancel("nobody wants it")
        with pytest.raises(Cancelled, match="nobody wants it"):
            await future
        assert held.cancelled == 1


@runs
async def test_a_task_that_is_cancelled_before_its_first_step_ends_as_any_other() -> None:
    async with Pool(1, backend="asyncio") as pool:
        future = pool.submit(double, 1)
        await asyncio.sleep(0)  # now it is a task of the loop, and has not begun
        for one in asyncio.all_tasks() - {asyncio.current_task()}:
            one.cancel()
        with contextlib.suppress(Cancelled):
            await asyncio.wait_for(future, 5)
        assert await pool.submit(double, 2) == 4


@runs
async def test_who_does_not_listen_is_abandoned_with_what_it_awaits() -> None:
    begun, stop = asyncio.Event(), asyncio.Event()

    async def never_mind() -> None:
        begun.set()
        while not stop.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0.001)

    pool = Pool(1, backend="asyncio")
    future = pool.submit(never_mind)
    await begun.wait()
    report = await pool.aclose(0.05)
    assert [one.name for one in report.running] == [never_mind.__qualname__]
    assert "in never_mind" in report.running[0].stack
    with pytest.raises(TaskAbandoned):
        await future
    stop.set()
    await until(lambda: asyncio.all_tasks() == {asyncio.current_task()})


# -- panics ------------------------------------------------------------------------------------


@runs
async def test_a_panic_costs_one_task_and_restarts_its_slot() -> None:
    class Odd(BaseException):
        pass

    held = Held()
    async with Pool(3, backend="asyncio") as pool:
        other = pool.submit(held)
        for error in (SystemExit(3), Odd(), GeneratorExit()):

            async def dies(error: BaseException = error) -> None:
                await asyncio.sleep(0)
                raise error

            with pytest.raises(TaskPanicked):
                await pool.submit(dies)
        held.go.set()
        assert await other == "went"
        assert (pool.metrics().panicked, pool.metrics().restarts) == (3, 3)
        assert await pool.submit(double, 1) == 2


@runs
async def test_too_many_panics_break_the_pool() -> None:
    async def dies() -> None:
        raise SystemExit

    policy = PanicRecovery(max_restarts=1)
    pool = Pool(1, backend="asyncio", panic_recovery=policy)
    futures = [pool.submit(dies) for _ in range(4)]
    for future in futures:
        with pytest.raises((TaskPanicked, BrokenPool)):
            await future
    with pytest.raises(BrokenPool):
        pool.submit(dies)
    await pool.aclose()


@runs
async def test_a_task_is_tried_again_without_a_slot() -> None:
    tries = []

    async def fails_twice() -> int:
        tries.append(1)
        if len(tries) < 3:
            raise ConnectionError
        return len(tries)

    async with Pool(1, backend="asyncio") as pool:
        options = pool.options(retry=Retry(attempts=5))
        future = options.submit(fails_twice)
        assert await pool.submit(double, 1) == 2
        assert await future == 3
        assert pool.metrics().retries == 2


# -- state -------------------------------------------------------------------------------------


class Session(Worker):
    """Its hooks are coroutines."""

    opened = 0
    closed: list[str]

    def __init__(self, closed: list[str]) -> None:
        super().__init__()
        self.closed = closed

    async def on_start(self) -> None:  # type: ignore[override]
        await asyncio.sleep(0)
        type(self).opened += 1
        self.number = type(self).opened
        self.calls = 0

    async def get(self) -> tuple[int, int]:
        self.calls += 1
        await asyncio.sleep(0)
        return self.number, self.calls

    async def die(self) -> None:
        raise SystemExit

    async def on_stop(self) -> None:  # type: ignore[override]
        await asyncio.sleep(0)
        self.closed.append(f"stopped {self.number}")

    async def on_failure(self, *_: object) -> None:  # type: ignore[override]
        await asyncio.sleep(0)
        self.closed.append(f"failed {self.number}")

    async def on_receive(self, message: Any) -> Any:
        await asyncio.sleep(0)
        return self.number, message


@runs
async def test_workers_with_state_may_have_coroutines_everywhere() -> None:
    Session.opened = 0
    closed: list[str] = []
    worker = functools.partial(Session, closed)
    async with Pool(2, worker=worker, backend="asyncio") as pool:
        found = await asyncio.gather(*(pool.call(Session.get) for _ in range(6)))
        assert {number for number, _ in found} <= {1, 2}
        assert len(set(found)) == 6
        answers = await asyncio.gather(*pool.broadcast("hello"))
        assert sorted(answers) == [(1, "hello"), (2, "hello")]
        with pytest.raises(TaskPanicked):
            await pool.call(Session.die)
        await until(lambda: Session.opened == 3)
        assert await pool.ask("x") in ((1, "x"), (2, "x"), (3, "x"))
    assert sorted(closed) == ["failed 1", "stopped 2", "stopped 3"] or sorted(closed) == [
        "failed 2",
        "stopped 1",
        "stopped 3",
    ]


@runs
async def test_an_initializer_may_be_a_coroutine_and_its_failure_is_tried_again() -> None:
    tries: list[int] = []

    async def prepare(text: str) -> None:
        await asyncio.sleep(0)
        tries.append(len(tries))
        if len(tries) == 1:
            raise OSError(text)

    async with Pool(1, initializer=prepare, initargs=("no",), backend="asyncio") as pool:
        assert await pool.submit(double, 1) == 2
    assert len(tries) == 2


# -- tasks that wait for tasks of their own pool -----------------------------------------------


@runs
async def test_tasks_may_await_tasks_of_their_own_pool_to_any_depth() -> None:
    async with Pool(1, 100, backend="asyncio") as pool:

        async def deep(level: int) -> int:
            return 0 if level == 0 else 1 + await pool.submit(deep, level - 1)

        assert await pool.submit(deep, 30) == 30
        assert pool.metrics().completed == 31
        await until(lambda: len(pool.dump().workers) == 1)


@runs
async def test_a_task_that_finds_no_room_in_its_own_pool_runs_what_it_submits() -> None:
    async with Pool(1, 0, backend="asyncio") as pool:

        async def outer() -> int:
            return await (await pool.asubmit(double, 4))

        assert await pool.submit(outer) == 8


# -- stuck tasks, hooks, metrics ---------------------------------------------------------------


@runs
async def test_what_blocks_the_loop_is_the_stuck_task_and_is_shown_where_it_does() -> None:
    stuck: list[StuckTask] = []
    blocked = threading.Event()

    def notice(task: StuckTask) -> None:
        stuck.append(task)
        blocked.set()

    def blocks() -> None:
        assert blocked.wait(PATIENCE)

    async with Pool(3, backend="asyncio", stuck_after=0.05, on_stuck=notice) as pool:
        waits = pool.submit(asyncio.sleep, 0.01)
        await pool.submit(blocks)
        await waits
    assert [one.task for one in stuck] == [blocks.__qualname__]
    assert "blocked.wait(PATIENCE)" in stuck[0].stack


@runs
async def test_a_dump_shows_what_each_task_awaits() -> None:
    held = Held()
    async with Pool(2, backend="asyncio") as pool:
        future = pool.submit(held)
        await until(lambda: held.begun)
        await asyncio.sleep(0)
        text = str(pool.dump())
        assert "await self.go.wait()" in text
        assert "base_events" not in text
        held.go.set()
        await future


@runs
async def test_the_hooks_are_told_and_callbacks_do_not_run_in_the_tasks_variables() -> None:
    tracer = RecordingTracer()
    seen: list[tuple[int, Context]] = []

    async def sets() -> None:
        variable.set(5)

    async with Pool(1, backend="asyncio", tracer=tracer, name="traced") as pool:
        future = pool.submit(sets)
        future.add_done_callback(lambda _: seen.append((variable.get(), current_context())))
        await future
        with pytest.raises(ZeroDivisionError):
            await pool.submit(divmod, 1, 0)
    HOOKS.flush()
    assert len(tracer.spans()) == 2
    assert seen[0][0] == 0


@runs
async def test_a_wrapper_gets_a_call_that_gives_the_coroutine() -> None:
    def wrapper(call: Callable[[], Any]) -> Callable[[], Any]:
        async def run() -> Any:
            return [await call()]

        return run

    async with Pool(1, backend="asyncio", task_wrapper=wrapper) as pool:
        assert await pool.submit(double, 2) == [4]


# -- streams ----------------------------------------------------------------------


@runs
async def test_generators_of_both_kinds_stream_from_the_loop() -> None:
    closed: list[str] = []

    def count(to: int) -> Iterator[int]:
        try:
            yield from range(to)
        finally:
            closed.append("count")

    async def acount(to: int) -> AsyncIterator[int]:
        try:
            for number in range(to):
                await asyncio.sleep(0)
                yield number
        finally:
            closed.append("acount")

    async with Pool(2, backend="asyncio") as pool:
        for generator in (count, acount):
            assert [one async for one in pool.stream(generator, 50)] == list(range(50))
            async with pool.stream(generator, 1_000_000, buffersize=2) as endless:
                assert await anext(endless) == 0
            await until(lambda name=generator.__name__: closed.count(name) == 2)  # type: ignore[misc]
        with pytest.raises(TypeError, match=r"stream\("):
            await pool.submit(count, 3)
        assert await pool.submit(double, 1) == 2


@runs
async def test_a_stream_that_would_block_its_loop_names_async_for() -> None:
    async def one() -> AsyncIterator[int]:
        yield 1

    async with Pool(1, backend="asyncio") as pool:
        stream = pool.stream(one)
        with pytest.raises(DeadlockError, match="write `async for`"):
            next(stream)


@runs
async def test_a_task_may_read_a_stream_of_its_own_pool() -> None:
    async def numbers() -> AsyncIterator[int]:
        for number in range(5):
            yield number

    async with Pool(1, backend="asyncio") as pool:

        async def reads() -> int:
            return sum([one async for one in pool.stream(numbers)])

        assert await pool.submit(reads) == 10


# -- the end of the loop -----------------------------------------------------------------------


def test_a_loop_that_ends_first_ends_the_pool_and_nothing_stays_pending(
    caplog: pytest.LogCaptureFixture,
) -> None:
    kept: list[Any] = []

    async def main() -> None:
        pool = Pool(2, backend="asyncio", name="left")
        kept.append(pool)
        kept.extend(pool.submit(asyncio.sleep, PATIENCE) for _ in range(5))
        await asyncio.sleep(0)

    asyncio.run(main())
    pool, *futures = kept
    eventually(lambda: pool.is_closed)
    for future in futures:
        with pytest.raises((Cancelled, TaskDropped)):
            future.result(PATIENCE)
    assert "the event loop of pool 'left' ends before it" in caplog.text
    assert pool.metrics().cancelled == 5


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_loop_that_is_only_closed_is_noticed(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, logger="asyncio")  # it tells of tasks that are pending
    kept: list[Any] = []

    async def begin(begun: asyncio.Event) -> None:
        begun.set()
        await asyncio.sleep(PATIENCE)

    async def main() -> None:
        begun = asyncio.Event()
        pool = Pool(1, backend="asyncio", name="dead")
        kept.extend([pool, pool.submit(begin, begun), pool.submit(asyncio.sleep, 1)])
        await begun.wait()

    loop = asyncio.new_event_loop()
    loop.run_until_complete(main())
    loop.close()
    pool, running, queued = kept
    with pytest.raises(TaskAbandoned):
        running.result(PATIENCE)
    with pytest.raises(TaskDropped):
        queued.result(PATIENCE)
    eventually(lambda: kept[0].is_closed)
    kept.clear()
    del pool, running, queued
    gc.collect()


@runs
async def test_a_pool_that_is_closed_leaves_no_task_and_no_generator_on_the_loop() -> None:
    async with Pool(3, backend="asyncio") as pool:
        await asyncio.gather(*(pool.submit(double, 1) for _ in range(9)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}
    loop: Any = asyncio.get_running_loop()
    assert not list(loop._asyncgens)


@runs
async def test_its_context_ends_it() -> None:
    held = Held()
    context = Context()
    pool = Pool(1, backend="asyncio", context=context)
    future = pool.submit(held)
    await until(lambda: held.begun)
    context.cancel("over")
    with pytest.raises(Cancelled):
        await future
    await pool.aclose()
    assert held.cancelled == 1


@runs
async def test_time_limits_go_by_the_clock_of_the_pool() -> None:
    clock = VirtualClock()
    held = Held()
    async with Pool(1, backend="asyncio", context=Context(clock=clock)) as pool:
        future = pool.options(timeout=60).submit(held)
        await until(lambda: held.begun)
        clock.advance(61)
        with pytest.raises(DeadlineExceeded):
            await future
        held.go.set()


# -- many kinds of loops -----------------------------------------------------------------------


def test_it_works_in_debug_mode() -> None:
    async def main() -> None:
        async with Pool(4, 10, backend="asyncio") as pool:
            assert [one async for one in pool.amap(double, range(20))] == list(range(0, 40, 2))

    asyncio.run(main(), debug=True)


def test_the_loop_may_be_uvloops() -> None:
    uvloop = pytest.importorskip("uvloop")
    kept: list[Pool] = []

    async def main() -> None:
        assert isinstance(asyncio.get_running_loop(), uvloop.Loop)
        async with Pool(5, 10, backend="asyncio") as pool:
            assert [one async for one in pool.amap(double, range(50))] == list(range(0, 100, 2))
            with pytest.raises(DeadlineExceeded):
                await pool.options(timeout=0.01).submit(asyncio.sleep, PATIENCE)
        kept.append(Pool(1, backend="asyncio"))
        kept[0].submit(asyncio.sleep, PATIENCE)
        await asyncio.sleep(0)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
    eventually(lambda: kept[0].is_closed)  # its loop has ended
    with Pool(2, backend=AsyncioBackend(loop_factory=uvloop.new_event_loop)) as pool:
        assert pool.submit(double, 2).result(PATIENCE) == 4


@runs
async def test_pipelines_mix_loops_and_threads() -> None:
    async with Pool(3, backend="asyncio") as here:
        with Pool(2) as threads:
            line = Pipeline(range(30)).map(double, pool=here).map(str, pool=threads)
            assert [one async for one in line] == [str(2 * number) for number in range(30)]

    async with Pool(1, backend="asyncio") as one_worker:

        async def inside() -> list[int]:
            line = Pipeline(range(5)).map(double, pool=one_worker).map(double, pool=one_worker)
            return [one async for one in line]

        assert await one_worker.submit(inside) == [0, 4, 8, 12, 16]


def test_a_loop_with_a_task_factory_keeps_it() -> None:
    made: list[asyncio.Task[Any]] = []

    def factory(
        loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any
    ) -> asyncio.Task[Any]:
        made.append(asyncio.Task(coroutine, loop=loop, **options))
        return made[-1]

    async def main() -> None:
        asyncio.get_running_loop().set_task_factory(factory)
        async with Pool(2, backend="asyncio") as pool:
            future = pool.submit(double, 1)
            await asyncio.sleep(0)
            assert made
            made[-1].cancel()  # before its first step
            with contextlib.suppress(Cancelled):
                await future
            assert await pool.submit(double, 3) == 6

    asyncio.run(main())


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks are new in Python 3.12")
def test_eager_tasks_do_not_pile_up() -> None:
    async def nothing() -> None:
        pass

    async def main() -> None:
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined,unused-ignore]
        async with Pool(2, 20_000, backend="asyncio") as pool:
            futures = [pool.submit(nothing) for _ in range(10_000)]
            await asyncio.gather(*futures)

    asyncio.run(main())


def test_many_threads_submit_to_one_loop() -> None:
    with Pool(8, 50, backend="asyncio") as pool:

        def submits(first: int) -> int:
            return sum(pool.submit(double, first + step).result(PATIENCE) for step in range(100))

        results: list[int] = []
        threads = [
            threading.Thread(target=lambda first=first: results.append(submits(first)))
            for first in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(results) == sum(2 * (first + step) for first in range(8) for step in range(100))
        assert pool.metrics().completed == 800


def test_what_a_callback_of_the_loop_raises_does_not_end_a_loop_of_the_pools_own(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def hard() -> None:
        raise SystemExit(1)

    async def leaves_one() -> None:
        asyncio.get_running_loop().call_soon(hard)

    with Pool(2, backend="asyncio", name="tough") as pool:
        pool.submit(leaves_one).result(PATIENCE)
        assert pool.submit(double, 2).result(PATIENCE) == 4
    assert "the event loop of pool 'tough' was interrupted" in caplog.text


@runs
async def test_an_asynchronous_iterable_feeds_a_map() -> None:
    async def numbers() -> AsyncIterator[int]:
        for number in range(5):
            await asyncio.sleep(0)
            yield number

    async with Pool(2, backend="asyncio") as pool:
        assert [one async for one in pool.amap(double, numbers())] == [0, 2, 4, 6, 8]


@pytest.mark.parametrize("kind", KINDS)
def test_a_loop_is_in_reach_after_a_submission_was_interrupted(kind: type[BaseException]) -> None:
    with Pool(1, backend="asyncio") as pool:

        def make(point: int) -> str:
            assert pool.submit(int).result(PATIENCE) == 0
            where, _ = interrupt(point, lambda: pool.submit(int), kind)
            assert pool.submit(int).result(PATIENCE) == 0, where
            return where

        assert len(every_point(make)) > 10
