"""A task may wait for tasks of its own pool; a circle of waits is found when it closes."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pykka
import pytest

from ion_actors import (
    Cancelled,
    Context,
    DeadlineExceeded,
    DeadlockError,
    DrainTimeout,
    Future,
    Pool,
    TaskAbandoned,
    TaskPanicked,
    background,
    current_context,
)
from ion_actors.clock import Clock
from ion_actors.context.waiters import Signal
from ion_actors.testing import VirtualClock
from ion_actors.workerpool.worker import deadlock
from tests.workerpool.helpers import PATIENCE, Gate, busy, eventually, until_waiting

SMALL_POOLS = [(1, 1), (1, 0), (2, 1), (3, 0), (4, 100)]


# -- recursion -------------------------------------------------------------------------------


def fib(pool: Pool, number: int) -> int:
    if number < 2:
        return number
    one = pool.submit(fib, pool, number - 1)
    two = pool.submit(fib, pool, number - 2)
    return one.result() + two.result()


async def async_fib(pool: Pool, number: int) -> int:
    if number < 2:
        return number
    one = await pool.asubmit(async_fib, pool, number - 1)
    two = await pool.asubmit(async_fib, pool, number - 2)
    return await one + await two


def walk(pool: Pool, folder: Path) -> int:
    below = [pool.submit(walk, pool, one) for one in folder.iterdir() if one.is_dir()]
    return sum(one.is_file() for one in folder.iterdir()) + sum(one.result() for one in below)


def merge_sort(pool: Pool, items: list[int]) -> list[int]:
    if len(items) < 2:
        return items
    half = len(items) // 2
    left, right = pool.map(merge_sort, [pool] * 2, [items[:half], items[half:]])
    merged = []
    while left and right:
        merged.append((left if left[0] <= right[0] else right).pop(0))
    return merged + left + right


@pytest.mark.parametrize(("size", "queue_size"), SMALL_POOLS)
def test_tasks_that_divide_and_conquer_end_on_any_pool(
    size: int, queue_size: int, tmp_path: Path
) -> None:
    for depth in range(6):
        folder = tmp_path.joinpath(*"abcdef"[:depth])
        folder.mkdir(exist_ok=True)
        (folder / "file").touch()
        (folder / "empty").mkdir()
    with Pool(size, queue_size) as pool:
        assert pool.submit(fib, pool, 12).result(PATIENCE) == 144
        assert pool.submit(async_fib, pool, 8).result(PATIENCE) == 21
        assert pool.submit(walk, pool, tmp_path).result(PATIENCE) == 6
        shuffled = [(n * 37) % 101 for n in range(101)]
        assert pool.submit(merge_sort, pool, shuffled).result(PATIENCE) == list(range(101))
        numbers = pool.metrics()
        assert numbers.submitted == numbers.completed


def test_without_helping_the_same_is_refused_and_not_hung() -> None:
    with Pool(1, 1, helping=False) as pool:
        error = pool.submit(fib, pool, 5).exception(PATIENCE)
        assert isinstance(error, DeadlockError)
        assert error.tasks == ("fib",)
        assert "'fib'" in str(error)


def test_helping_is_on_or_off() -> None:
    no: Any = "no"
    with pytest.raises(TypeError, match="helping must be True or False, not 'no'"):
        Pool(1, helping=no)


# -- what runs where -------------------------------------------------------------------------


def test_only_what_is_waited_for_is_run_in_the_middle_of_a_task() -> None:
    order: list[str] = []

    def outer() -> None:
        pool.submit(order.append, "first in the queue")
        wanted = pool.submit(order.append, "wanted")
        wanted.result()
        order.append("outer")

    with Pool(1) as pool:
        pool.submit(outer).result(PATIENCE)
    assert order == ["wanted", "outer", "first in the queue"]


def test_a_full_pools_worker_runs_the_task_that_it_submits() -> None:
    def outer() -> tuple[int, int]:
        pool.submit(threading.get_ident)
        return threading.get_ident(), pool.submit(threading.get_ident).result(0)

    with Pool(1, 1) as pool:
        mine, other = pool.submit(outer).result(PATIENCE)
        assert mine == other


def test_a_task_that_is_running_elsewhere_is_waited_for(threads: ThreadPoolExecutor) -> None:
    gate = Gate()
    with Pool(2) as pool:
        other = pool.submit(gate)
        gate.await_entered()
        waiting = pool.submit(other.result)
        gate.open()
        waiting.result(PATIENCE)


WAITS: dict[str, Callable[[Future[int]], Any]] = {
    "result": lambda future: future.result(),
    "exception": lambda future: future.exception() or future.result(0),
    "get": lambda future: future.get(),
    "with a timeout": lambda future: future.result(PATIENCE),
    "map": lambda future: future.map(lambda value: value).get(),
    "join": lambda future: next(iter(future.join(future).get())),
    "map of a map": lambda future: future.map(str).map(int).result(),
    "get_all": lambda future: next(iter(pykka.get_all([future]))),
    "Context.wait": lambda future: current_context().wait(future) and future.result(0),
    "asyncio": lambda future: asyncio.run(awaited(future)),
    "Context.await_": lambda future: asyncio.run(context_awaited(future)),
}


async def awaited(future: Future[int]) -> int:
    return await future


async def context_awaited(future: Future[int]) -> int:
    await current_context().await_(future)
    return future.result(0)


@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS.keys())
def test_every_way_to_wait_helps(wait: Callable[[Future[int]], Any]) -> None:
    with Pool(1) as pool:
        assert pool.submit(lambda: wait(pool.submit(int, "7"))).result(PATIENCE) == 7


def test_the_results_of_an_unordered_map_are_waited_for_in_the_same_way() -> None:
    def outer(depth: int) -> int:
        if depth == 0:
            return 1
        return sum(pool.map_unordered(outer, [depth - 1] * 3))

    with Pool(1) as pool:
        assert pool.submit(outer, 4).result(PATIENCE) == 81
    with Pool(2, 1) as pool:
        assert pool.submit(outer, 4).result(PATIENCE) == 81


def test_an_unordered_map_in_a_task_runs_no_more_than_it_must() -> None:
    ran: list[int] = []

    def outer() -> tuple[Any, int]:
        results = pool.map_unordered(lambda number: ran.append(number) or number, range(5))
        return next(results), len(ran)

    with Pool(1) as pool:
        assert pool.submit(outer).result(PATIENCE) == (0, 1)


def test_a_coroutine_may_wait_for_a_task_that_has_an_event_loop_of_its_own() -> None:
    async def inner() -> int:
        await asyncio.sleep(0)
        return 7

    def plain() -> int:
        with pytest.raises(RuntimeError, match="no running event loop"):
            asyncio.get_running_loop()
        return asyncio.run(inner()) + pool.submit(inner).result()

    async def outer() -> int:
        loop, me = asyncio.get_running_loop(), asyncio.current_task()
        found = await pool.submit(plain)
        await asyncio.sleep(0)
        assert asyncio.get_running_loop() is loop
        assert asyncio.current_task() is me
        return found + await pool.submit(inner)

    with Pool(1) as pool:
        for _ in range(3):
            assert pool.submit(outer).result(PATIENCE) == 21


def test_no_task_is_run_before_the_initializer_has_ended() -> None:
    given: Future[Pool] = Future()
    ready = threading.local()

    def initializer() -> None:
        pool = given.result(PATIENCE)
        tasks.append(pool.submit(hasattr, ready, "yes"))
        with pytest.raises(DeadlockError):
            tasks[0].map(str).result()
        ready.yes = True

    tasks: list[Future[bool]] = []
    pool = Pool(1, initializer=initializer)
    with pool:
        given.set_result(pool)
        eventually(lambda: tasks)
        assert tasks[0].result(PATIENCE) is True


def test_a_coroutine_may_block_on_a_coroutine_and_go_on() -> None:
    async def inner() -> int:
        await asyncio.sleep(0)
        return id(asyncio.get_running_loop())

    async def outer() -> tuple[bool, bool]:
        loop = asyncio.get_running_loop()
        other = pool.submit(inner).result()
        await asyncio.sleep(0)
        return other == id(loop), asyncio.get_running_loop() is loop

    with Pool(1) as pool:
        assert pool.submit(outer).result(PATIENCE) == (False, True)


# -- each task is itself ---------------------------------------------------------------------


def test_the_inner_task_has_its_own_variables_and_context() -> None:
    variable = contextvars.ContextVar("variable", default="none")

    def inner() -> tuple[str, Context]:
        variable.set("inner")
        return variable.get(), current_context()

    def outer() -> None:
        variable.set("outer")
        before = current_context()
        value, context = pool.options(timeout=60).submit(inner).result()
        assert value == "inner"
        assert variable.get() == "outer"
        assert current_context() is before
        assert context is not before
        assert context.remaining() is not None

    with Pool(1) as pool:
        pool.submit(outer).result(PATIENCE)


def test_who_is_cancelled_takes_what_it_runs_along() -> None:
    started = threading.Event()

    def inner() -> None:
        started.set()
        current_context().sleep(PATIENCE)

    with Pool(1) as pool:
        outer = pool.submit(lambda: pool.submit(inner).result())
        assert started.wait(PATIENCE)
        outer.cancel()
        assert isinstance(outer.exception(PATIENCE), Cancelled)


def test_nothing_is_run_for_a_task_whose_context_has_ended() -> None:
    ran: list[int] = []

    def outer() -> None:
        inner = pool.options(context=Context(pool_context)).submit(ran.append, 1)
        current_context().cancel("enough")
        with pytest.raises(Cancelled):
            inner.result()
        assert not ran

    pool_context = Context()
    with Pool(1) as pool:
        pool.submit(outer).exception(PATIENCE)
    assert ran == [1]  # in its turn


def test_a_cancelled_task_may_submit_what_is_not_to_end_with_it() -> None:
    ran: list[int] = []

    def outer() -> None:
        current_context().cancel("enough")
        for number in range(3):
            pool.options(context=background()).submit(ran.append, number)

    with Pool(1, 1) as pool:
        pool.submit(outer).result(PATIENCE)
    assert sorted(ran) == [0, 1, 2]


def test_a_panic_in_the_middle_costs_the_worker_and_not_the_outer_task() -> None:
    def outer() -> str:
        error = pool.submit(exit, 3).exception()
        assert isinstance(error, TaskPanicked)
        assert isinstance(error.__cause__, SystemExit)
        return pool.submit(str, "went on").result()

    with Pool(1) as pool:
        assert pool.submit(outer).result(PATIENCE) == "went on"
        assert pool.submit(str, "and the next").result(PATIENCE) == "and the next"
        numbers = pool.metrics()
        assert (numbers.panicked, numbers.restarts, numbers.completed) == (1, 1, 3)


def test_a_failure_in_the_middle_is_only_the_inner_tasks() -> None:
    with Pool(1) as pool:
        outer = pool.submit(lambda: repr(pool.submit(int, "x").exception()))
        assert outer.result(PATIENCE).startswith("ValueError")


def test_the_numbers_add_up_in_the_middle_of_a_task() -> None:
    def outer() -> Any:
        return pool.submit(pool.metrics).result()

    with Pool(1) as pool:
        numbers = pool.submit(outer).result(PATIENCE)
        assert (numbers.size, numbers.submitted, numbers.running) == (1, 2, 2)


# -- the end ---------------------------------------------------------------------------------


def test_both_are_reported_and_abandoned_at_a_deadline(
    clock: VirtualClock, threads: ThreadPoolExecutor
) -> None:
    started, release = threading.Event(), threading.Event()
    inner: list[Future[bool]] = []

    def stuck() -> bool:
        started.set()
        return release.wait(PATIENCE)

    def outer() -> bool:
        inner.append(pool.options(name="inner").submit(stuck))
        return inner[0].result()

    pool = Pool(1, context=Context(clock=clock))
    outermost = pool.options(name="outer").submit(outer)
    assert started.wait(PATIENCE)
    draining = threads.submit(pool.drain, 10)
    clock.wait_for_timers(1)
    clock.advance(20)
    error = draining.exception(PATIENCE)
    assert isinstance(error, DrainTimeout)
    assert [(one.name, one.worker) for one in error.report.running] == [
        ("outer", f"{pool.name}-0"),
        ("inner", f"{pool.name}-0"),
    ]
    assert isinstance(outermost.exception(PATIENCE), TaskAbandoned)
    assert isinstance(inner[0].exception(PATIENCE), TaskAbandoned)
    release.set()


def test_a_time_limit_ends_the_inner_task_for_those_who_wait_elsewhere(
    clock: VirtualClock,
) -> None:
    started, release = threading.Event(), threading.Event()
    inner: list[Future[bool]] = []

    def stuck() -> bool:
        started.set()
        return release.wait(PATIENCE)

    def outer() -> bool:
        inner.append(pool.options(timeout=5).submit(stuck))
        return inner[0].result()

    with Pool(1, context=Context(clock=clock)) as pool:
        outermost = pool.submit(outer)
        assert started.wait(PATIENCE)
        clock.advance(6)
        assert isinstance(inner[0].exception(PATIENCE), DeadlineExceeded)
        release.set()
        assert isinstance(outermost.exception(PATIENCE), DeadlineExceeded)


def test_a_recursion_that_is_too_deep_ends_by_an_error() -> None:
    def deeper(level: int) -> int:
        below = pool.submit(deeper, level + 1)
        try:
            return below.result()
        finally:
            below.cancel()

    with Pool(1) as pool:
        error = pool.submit(deeper, 0).exception(PATIENCE)
        assert isinstance(error, RecursionError | DeadlockError)
        assert pool.submit(int, "1").result(PATIENCE) == 1
    numbers = pool.metrics()
    assert numbers.running == numbers.queued == 0


# -- memory ----------------------------------------------------------------------------------


class Kept(Exception):
    """Can be referred to weakly."""


async def await_one(futures: list[Future[Any]]) -> None:
    with contextlib.suppress(Kept):
        await futures.pop()


async def context_await_one(futures: list[Future[Any]]) -> None:
    await current_context().await_(futures[0])
    read(futures)


def read(futures: list[Future[Any]]) -> None:
    futures.pop().exception(0)


FORGETFUL_WAITS: dict[str, Callable[[list[Future[Any]]], Any]] = {
    "result": lambda futures: futures.pop().result(),
    "exception": lambda futures: futures.pop().exception(),
    "get": lambda futures: futures.pop().get(),
    "map": lambda futures: futures.pop().map(str).exception(),
    "Context.wait": lambda futures: current_context().wait(futures[0]) and read(futures),
    "await": lambda futures: asyncio.run(await_one(futures)),
    "Context.await_": lambda futures: asyncio.run(context_await_one(futures)),
}


@pytest.mark.usefixtures("without_gc")
@pytest.mark.parametrize("queue_size", [0, 1])
@pytest.mark.parametrize("wait", FORGETFUL_WAITS.values(), ids=FORGETFUL_WAITS.keys())
def test_an_error_of_a_task_in_the_middle_of_another_is_not_kept_alive(
    wait: Callable[[list[Future[Any]]], Any], queue_size: int
) -> None:
    errors: list[weakref.ref[Kept]] = []

    def inner() -> None:
        error = Kept()
        errors.append(weakref.ref(error))
        try:
            raise error
        finally:
            del error

    def outer() -> None:
        with contextlib.suppress(Kept):
            wait([pool.submit(inner)])

    with Pool(1, queue_size) as pool:
        pool.submit(outer).result(PATIENCE)
        eventually(lambda: errors[0]() is None)


@pytest.mark.usefixtures("without_gc")
@pytest.mark.parametrize("verb", ["map", "map_unordered"])
def test_an_error_in_a_map_in_a_task_is_not_kept_alive(verb: str) -> None:
    errors: list[weakref.ref[Kept]] = []

    def inner(_: int) -> None:
        error = Kept()
        errors.append(weakref.ref(error))
        try:
            raise error
        finally:
            del error

    def outer() -> None:
        with contextlib.suppress(Kept):
            list(getattr(pool, verb)(inner, range(3)))

    with Pool(1) as pool:
        pool.submit(outer).result(PATIENCE)
        eventually(lambda: errors[0]() is None)


# -- circles ---------------------------------------------------------------------------------


def promise() -> tuple[Callable[[Any], None], Callable[[], Any]]:
    """A value that is given later, for tasks that are to know each other's futures."""
    given: Future[Any] = Future()
    return given.set, lambda: given.result(PATIENCE)


def wait_for(futures: Callable[[], dict[str, Future[Any]]], name: str) -> Any:
    return futures()[name].result()


def test_two_tasks_that_wait_for_each_other_are_told() -> None:
    give, futures = promise()
    with Pool(2, name="p") as pool:
        a = pool.options(name="a").submit(wait_for, futures, "b")
        b = pool.options(name="b").submit(wait_for, futures, "a")
        give({"a": a, "b": b})
        error = a.exception(PATIENCE)
        assert error is b.exception(PATIENCE)  # one is told, the other has it from that one
        assert isinstance(error, DeadlockError)
        assert sorted(error.tasks) == ["a", "b"]
        assert "'a' (on pool 'p') waits for task 'b'" in str(error)


def test_a_task_that_waits_for_itself_is_told() -> None:
    give, future = promise()
    with Pool(1) as pool:
        itself = pool.submit(lambda: future().result())
        give(itself)
        error = itself.exception(PATIENCE)
        assert isinstance(error, DeadlockError)
        assert len(error.tasks) == 1


def test_who_catches_the_error_can_go_on() -> None:
    give, futures = promise()

    def careful() -> str:
        try:
            return str(futures()["b"].result())
        except DeadlockError:
            return "went on"

    with Pool(2) as pool:
        a = pool.submit(careful)
        b = pool.submit(wait_for, futures, "a")  # whichever of them closes it
        give({"a": a, "b": b})
        results = (a.result(PATIENCE), b.exception(PATIENCE))
        assert results[0] == "went on"


def test_a_circle_across_two_pools_is_found() -> None:
    give, futures = promise()
    with Pool(1) as one, Pool(1) as two:
        a = one.submit(wait_for, futures, "b")
        b = two.submit(wait_for, futures, "a")
        give({"a": a, "b": b})
        assert isinstance(a.exception(PATIENCE), DeadlockError)
        assert isinstance(b.exception(PATIENCE), DeadlockError)


def test_a_circle_through_another_pools_queue_is_found() -> None:
    def there() -> Any:
        return two.submit(back).result()

    def back() -> int:
        return one.submit(int, "1").result()  # behind there(), on the only worker

    with Pool(1) as one, Pool(1) as two:
        assert isinstance(one.submit(there).exception(PATIENCE), DeadlockError)


def test_a_circle_through_two_full_pools_is_found(threads: ThreadPoolExecutor) -> None:
    both = threading.Barrier(2)

    def fill(other: Pool) -> None:
        both.wait(PATIENCE)
        for _ in range(3):
            other.submit(int)

    with Pool(1, 1) as one, Pool(1, 1) as two:
        ends = [one.submit(fill, two), two.submit(fill, one)]
        errors = [end.exception(PATIENCE) for end in ends]
    assert sum(isinstance(error, DeadlockError) for error in errors) == 1


def test_another_pool_with_a_worker_to_spare_is_no_circle() -> None:
    def back() -> int:
        return one.submit(int, "1").result()

    with Pool(2) as one, Pool(1) as two:
        assert one.submit(lambda: two.submit(back).result()).result(PATIENCE) == 1


def test_who_is_cancelled_and_waits_for_room_all_the_same_is_told_of_a_circle() -> None:
    def outer() -> None:
        current_context().cancel("enough")
        for _ in range(2):
            pool.options(context=background()).submit(int)

    with Pool(1, 1, helping=False) as pool:
        assert isinstance(pool.submit(outer).exception(PATIENCE), DeadlockError)


@pytest.mark.parametrize("queue_size", [0, 1])
def test_who_was_let_in_and_has_not_woken_yet_is_no_part_of_a_circle(
    queue_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asleep, woken = threading.Event(), threading.Event()
    gate = Gate()
    wait = Signal.wait

    def slow_wait(signal: Signal, clock: Clock, deadline: float | None) -> bool:
        found = wait(signal, clock, deadline)
        if threading.current_thread().name == f"{outside.name}-0":
            asleep.set()
            woken.wait(PATIENCE)
        return found

    def submitter() -> str:
        full.submit(str)
        return "went on"

    def waits_for_the_submitter() -> str:
        asleep.wait(PATIENCE)
        return submitting.result()

    with Pool(1, queue_size) as full, Pool(1) as outside:
        full.submit(gate)
        gate.await_entered()
        if queue_size:
            waiting = full.submit(waits_for_the_submitter)
            monkeypatch.setattr(Signal, "wait", slow_wait)
            submitting = outside.submit(submitter)
            until_waiting(full, 1)
        else:
            monkeypatch.setattr(Signal, "wait", slow_wait)
            submitting = outside.submit(lambda: full.submit(waits_for_the_submitter))
            until_waiting(full, 1)
        gate.open()
        assert asleep.wait(PATIENCE)
        eventually(lambda: len(deadlock.waits) == 2)
        woken.set()
        if queue_size:
            assert waiting.result(PATIENCE) == "went on"
        else:
            task = submitting.result(PATIENCE)
            assert task.result(PATIENCE) is task


def test_a_wait_with_a_timeout_has_its_own_end() -> None:
    give, future = promise()

    def outer() -> int:
        return future().result(0.01)

    with Pool(1) as pool:
        itself = pool.submit(outer)
        give(itself)
        error = itself.exception(PATIENCE)
        assert isinstance(error, TimeoutError)
        assert not isinstance(error, DeadlockError)


def test_what_others_settle_is_no_circle() -> None:
    by_hand: Future[int] = Future()
    with Pool(1) as pool:
        waiting = pool.submit(by_hand.result)
        eventually(lambda: by_hand._waiters)
        by_hand.set_result(1)
        assert waiting.result(PATIENCE) == 1


def test_nothing_is_remembered_of_waits_that_are_over() -> None:
    gate = Gate()
    with Pool(2) as pool:
        other = pool.submit(gate)
        gate.await_entered()
        waiting = pool.submit(other.result)
        eventually(lambda: deadlock.waits)
        gate.open()
        waiting.result(PATIENCE)
    assert not deadlock.waits


# -- any graph -------------------------------------------------------------------------------

GRAPHS = st.integers(1, 8).flatmap(
    lambda count: st.lists(
        st.lists(st.integers(0, count - 1), max_size=3, unique=True),
        min_size=count,
        max_size=count,
    )
)


def reaches_a_circle(graph: list[list[int]], start: int) -> bool:
    def visit(node: int, above: frozenset[int]) -> bool:
        return node in above or any(visit(one, above | {node}) for one in graph[node])

    return visit(start, frozenset())


@hypothesis.given(graph=GRAPHS, size=st.integers(1, 4))
def test_tasks_that_wait_for_each_other_in_any_way_all_end(
    graph: list[list[int]], size: int
) -> None:
    give, futures = promise()

    def node(number: int) -> int:
        every = futures()
        return 1 + sum(every[one].result() for one in graph[number])

    with Pool(size) as pool:
        tasks = [pool.submit(node, number) for number in range(len(graph))]
        give(tasks)
        for number, task in enumerate(tasks):
            error = task.exception(PATIENCE)
            if reaches_a_circle(graph, number):
                assert isinstance(error, DeadlockError)
            else:
                assert error is None


@hypothesis.given(
    graph=GRAPHS, size=st.integers(1, 3), queue_size=st.integers(0, 2), wait=st.booleans()
)
def test_tasks_that_submit_tasks_all_end(
    graph: list[list[int]], size: int, queue_size: int, wait: bool
) -> None:
    """Each submits the later ones of the graph as new tasks; a tree, since numbers only rise."""
    calls: list[int] = []

    def node(number: int) -> int:
        calls.append(number)
        below = [pool.submit(node, one) for one in graph[number] if one > number]
        return 1 + (sum(one.result() for one in below) if wait else 0)

    def nodes(number: int) -> int:
        return 1 + sum(nodes(one) for one in graph[number] if one > number)

    with Pool(size, queue_size) as pool:
        counted = pool.submit(node, 0).result(PATIENCE)
        assert counted == (nodes(0) if wait else 1)
        eventually(lambda: len(calls) == nodes(0))


@pytest.mark.slow
@pytest.mark.parametrize(("size", "queue_size"), [(2, 0), (4, 1), (8, 4)])
def test_many_recursions_at_once(size: int, queue_size: int, threads: ThreadPoolExecutor) -> None:
    def submitter(pool: Pool) -> list[int]:
        return [pool.submit(fib, pool, 8).result(PATIENCE) for _ in range(10)]

    with Pool(size, queue_size) as pool:
        every = [threads.submit(submitter, pool) for _ in range(8)]
        assert [one.result(PATIENCE) for one in every] == [[21] * 10] * 8
        numbers = pool.metrics()
        assert numbers.submitted == numbers.completed


def test_the_stack_of_a_busy_worker_is_not_used_by_strangers() -> None:
    """Helping is for the pool's own tasks: other threads wait as they always did."""
    ran_in: list[str] = []
    with Pool(1) as pool, busy(pool):
        future = pool.submit(lambda: ran_in.append(threading.current_thread().name))
        with pytest.raises(TimeoutError):
            future.result(0.01)
    assert ran_in == [f"{pool.name}-0"]


def test_a_circle_that_another_size_closes_is_found() -> None:
    """The worker that could have come for the task is let go."""
    both_run, submitted, gate = threading.Event(), threading.Event(), threading.Event()
    with Pool(2, 10, helping=False) as pool:

        def outer() -> object:
            assert both_run.wait(PATIENCE)
            inner = pool.submit(int)
            submitted.set()
            return inner.result()

        waits = pool.submit(outer)
        other = pool.submit(lambda: (both_run.set(), gate.wait(PATIENCE)))
        assert submitted.wait(PATIENCE)
        pool.resize(1)
        gate.set()
        assert other.result(PATIENCE)
        with pytest.raises(DeadlockError, match="'int'"):
            waits.result(PATIENCE)
