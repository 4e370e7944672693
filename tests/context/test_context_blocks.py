"""The halves of ``with Context(...)``: in other copies of the variables, or interrupted.

A web framework runs the halves of a synchronous dependency in two threads, each with a copy of the
variables; a generator is closed by whoever drops it; Ctrl-C comes at any point.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from ion_actors import Context, Pool, background, current_context
from ion_actors.context.current import Entry
from ion_actors.context.tree import Node
from ion_actors.testing import VirtualClock
from tests.inside import callbacks_on
from tests.interrupts import KINDS, every_point, interrupt

PATIENCE = 30.0
kinds = pytest.mark.parametrize("kind", KINDS)


def rows(context: Context) -> Iterator[int]:
    with context:
        yield 1
        yield 2


async def arows(context: Context) -> AsyncIterator[int]:
    async with context:
        yield 1
        yield 2


def in_copy(call: Callable[[], Any]) -> Any:
    return contextvars.copy_context().run(call)


def in_thread(call: Callable[[], Any]) -> Any:
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(call).result(PATIENCE)


elsewhere = pytest.mark.parametrize("elsewhere", [in_copy, in_thread])


# -- generators ----------------------------------------------------------------------------


def test_a_generator_that_is_closed_under_another_block_ends_its_own_context_only() -> None:
    mine = Context()
    generator = rows(mine)
    next(generator)
    with Context() as other:
        generator.close()
        assert mine.cancelled
        assert current_context() is other
        other.check()
    assert current_context() is background()


@elsewhere
def test_a_generator_that_is_closed_elsewhere(elsewhere: Callable[..., Any]) -> None:
    mine = Context()
    generator = rows(mine)
    next(generator)
    with Context() as other:
        elsewhere(generator.close)
        assert mine.cancelled
        assert current_context() is other
        other.check()
    assert current_context() is background()


@elsewhere
def test_a_generator_that_is_exhausted_elsewhere(elsewhere: Callable[..., Any]) -> None:
    mine = Context()
    generator = rows(mine)
    next(generator)
    assert elsewhere(lambda: list(generator)) == [2]
    assert not mine.cancelled
    assert current_context() is background()


@elsewhere
def test_a_generator_that_was_begun_elsewhere(elsewhere: Callable[..., Any]) -> None:
    mine = Context()
    generator = rows(mine)
    elsewhere(lambda: next(generator))
    assert current_context() is background()
    with Context() as other:
        generator.close()
        assert mine.cancelled
        assert current_context() is other
        other.check()
    assert current_context() is background()


def test_a_generator_that_is_dropped() -> None:
    def run() -> Context:
        mine = Context()
        generator = rows(mine)
        next(generator)
        return mine

    with Context() as other:
        assert run().cancelled
        assert current_context() is other
        other.check()


def test_what_waits_under_a_block_hears_of_its_own_parents_after_a_generator_was_closed() -> None:
    with Context() as outer:
        generator = rows(Context())
        next(generator)
        with Context() as other:
            told: list[str] = []
            other.add_callback(lambda: told.append("ended"))
            generator.close()
            assert told == []
            outer.cancel()
            assert told == ["ended"]


def test_a_deadline_of_a_closed_generator_is_no_longer_anybodys(clock: VirtualClock) -> None:
    generator = rows(Context(timeout=1, clock=clock))
    next(generator)
    with Context(timeout=5) as other:
        other.add_callback(len)
        generator.close()
        assert (other.deadline, clock.timers) == (5, 1)
        clock.advance(4)
        other.check()
        clock.advance(1)
        assert other.cancelled


def test_several_generators_closed_in_any_order() -> None:
    contexts = [Context(background()) for _ in range(4)]
    generators = [rows(one) for one in contexts]
    for one in generators:
        next(one)
    for place in (1, 3, 0, 2):
        generators[place].close()
        assert contexts[place].cancelled
        left = [one for one in contexts if not one.cancelled]
        assert current_context() is (left[-1] if left else background())


def test_async_generators_that_are_closed_by_another_task() -> None:
    async def main() -> None:
        mine = Context()
        generator = arows(mine)
        await anext(generator)
        async with Context() as other:
            await asyncio.create_task(generator.aclose())  # type: ignore[attr-defined]
            assert mine.cancelled
            assert current_context() is other
            other.check()
        assert current_context() is background()
        await asyncio.sleep(0)  # nobody interrupts this task for the sake of the closed one

    asyncio.run(main())


def test_a_pool_goes_on_after_a_generator_was_closed() -> None:
    generator = rows(Context(timeout=9))
    next(generator)
    with Pool(1) as pool, Context(timeout=9):
        generator.close()
        assert pool.submit(pow, 2, 2).result(PATIENCE) == 4


# -- halves that are called by somebody else -------------------------------------------------


@elsewhere
def test_halves_in_two_places_leave_nothing_current(elsewhere: Callable[..., Any]) -> None:
    @contextlib.contextmanager
    def dependency() -> Iterator[None]:
        with Context(timeout=9):
            yield

    one = dependency()
    with Context() as around:
        elsewhere(one.__enter__)
        assert current_context() is around
        elsewhere(lambda: one.__exit__(None, None, None))
        assert current_context() is around
        around.check()
    assert current_context() is background()


@elsewhere
def test_an_exit_that_raises_elsewhere_ends_the_context(elsewhere: Callable[..., Any]) -> None:
    mine = Context()
    elsewhere(mine.__enter__)
    with Context() as around:
        elsewhere(lambda: mine.__exit__(ValueError, ValueError(), None))
        assert mine.cancelled
        assert current_context() is around
        around.check()


def test_an_exit_without_an_entry_changes_nothing() -> None:
    stranger = Context()
    with Context() as around:
        stranger.__exit__(None, None, None)
        assert current_context() is around
    assert current_context() is background()


def test_an_exit_stack_that_is_closed_elsewhere() -> None:
    with Context() as around:
        stack = contextlib.ExitStack()
        mine = stack.enter_context(Context())
        assert current_context() is mine
        in_thread(stack.close)
        assert current_context() is around


def test_one_context_entered_by_many_threads_in_halves() -> None:
    """Each finds its own block, by the frame that it is in."""
    shared = Context()
    barrier = threading.Barrier(8)

    def work(_: int) -> bool:
        generator = rows(shared)
        next(generator)
        barrier.wait(PATIENCE)
        list(generator)
        barrier.wait(PATIENCE)
        return current_context() is background()

    with ThreadPoolExecutor(8) as executor:
        assert all(executor.map(work, range(8)))
    assert shared.blocks == []


def test_a_shared_context_is_left_where_its_generator_is_ended_and_nowhere_else() -> None:
    shared = Context()
    generator = rows(shared)
    inside, go_on = threading.Event(), threading.Event()

    def other() -> bool:
        with shared:
            inside.set()
            go_on.wait(PATIENCE)
            return current_context() is shared

    next(generator)
    with ThreadPoolExecutor(2) as executor:
        still = executor.submit(other)
        assert inside.wait(PATIENCE)
        executor.submit(lambda: list(generator)).result(PATIENCE)
        assert current_context() is background()
        go_on.set()
        assert still.result(PATIENCE)


def test_one_context_several_times_in_one_function() -> None:
    one = Context()
    with one, one:
        with one:
            assert current_context() is one
        assert current_context() is one
    assert current_context() is background()
    assert one.blocks == []


def test_tasks_that_were_started_inside_stay_inside_after_the_block_was_left() -> None:
    async def main() -> None:
        with Context() as mine:
            begun, left = asyncio.Event(), asyncio.Event()

            async def child() -> Context:
                begun.set()
                await left.wait()
                with Context():
                    pass
                return current_context()

            task = asyncio.create_task(child())
            await begun.wait()
        assert current_context() is background()
        left.set()
        assert await task is mine

    asyncio.run(main())


def test_a_block_keeps_nothing_alive(without_gc: None) -> None:
    mine = Context()
    gone = weakref.ref(mine)
    with mine:
        pass
    list(rows(mine))
    generator = rows(mine)
    next(generator)
    in_thread(generator.close)
    current_context()
    del mine, generator
    assert gone() is None


# -- interrupted -----------------------------------------------------------------------------

#: What is interrupted before its first step has not begun, and nothing can be done about it there.
ENTRIES = ("call in Context.__exit__:", "call in Context.__aexit__:")


@kinds
@pytest.mark.parametrize("raises", [False, True])
def test_a_block_that_is_interrupted_leaves_nothing_current(
    kind: type[BaseException], raises: bool
) -> None:
    def make(point: int) -> str:
        mine = Context()

        def block() -> None:
            with Context() as outer, contextlib.suppress(ZeroDivisionError), mine:
                outer.check()
                if raises:
                    raise ZeroDivisionError

        def run() -> str:
            where, outcome = interrupt(point, block, kind)
            if not where.startswith(ENTRIES):
                assert current_context() is background(), where
                assert mine.blocks in (None, []), where
                assert not raises or outcome is not None or mine.cancelled, where
            return where

        return str(in_copy(run))

    assert len(every_point(make)) > 15


@kinds
def test_a_block_of_a_coroutine_that_is_interrupted(kind: type[BaseException]) -> None:
    def make(point: int) -> str:
        mine = Context()

        async def block() -> None:
            async with mine:
                pass

        def run() -> str:
            loop = asyncio.new_event_loop()
            coroutine = block()
            task = loop.create_task(coroutine)

            def step() -> None:
                loop.run_until_complete(task)

            where, _ = interrupt(point, step, kind)
            if task.done():
                task.exception()
            loop.close()
            if not where.startswith(ENTRIES):
                assert mine.blocks in (None, []), where
                assert not callbacks_on(mine), where
            return where

        return str(in_copy(run))

    assert len(every_point(make)) > 15


@kinds
def test_an_end_that_is_interrupted_is_told_to_everybody(kind: type[BaseException]) -> None:
    def make(point: int) -> str:
        told: list[int] = []
        with Context(background()) as mine:
            children = [Context() for _ in range(3)]
        for one in (mine, *children):
            one.add_callback(lambda: told.append(1))
        where, _ = interrupt(point, mine.cancel, kind)
        mine.cancel()  # if it had not begun
        lost = where.startswith("call in test_") or "<lambda>" in where
        assert len(told) == 4 - lost, where
        assert all(one.cancelled for one in children), where
        return where

    assert len(every_point(make)) > 20


# -- chains of successors ------------------------------------------------------------------


def objects_of(kind: type) -> int:
    gc.collect()
    # Not isinstance(): other tests keep objects whose __class__ raises.
    return sum(issubclass(type(one), kind) for one in gc.get_objects())


def test_tasks_that_start_their_successors_inside_a_block_do_not_pile_up_blocks() -> None:
    async def main() -> None:
        done = asyncio.Event()

        async def step(left: int) -> None:
            with background():
                if left:
                    following.append(asyncio.create_task(step(left - 1)))
                else:
                    done.set()
            await asyncio.sleep(0)
            del following[0]

        following = [asyncio.create_task(step(2000))]
        await done.wait()
        assert objects_of(Entry) < 50

    asyncio.run(main())


def test_tasks_that_submit_their_successors_inside_a_block_do_not_pile_up_contexts() -> None:
    found: list[int] = []
    done = threading.Event()

    def step(left: int) -> None:
        with Context(timeout=60):
            if left:
                pool.submit(step, left - 1)
            else:
                found.append(objects_of(Node))
                done.set()

    before = objects_of(Node)
    with Pool(1) as pool:
        pool.submit(step, 2000)
        assert done.wait(PATIENCE)
    assert found[0] - before < 50


def test_a_block_that_was_left_still_ends_what_was_begun_inside_it() -> None:
    with Context() as mine:
        asked, told = Context(), Context()
    ends: list[str] = []
    told.add_callback(lambda: ends.append("told"))
    mine.cancel("late")
    assert ends == ["told"]
    assert (asked.cancelled, asked.reason) == (True, "late")


def test_what_was_begun_in_a_block_that_nobody_has_any_more_goes_by_what_is_around_it(
    clock: VirtualClock,
) -> None:
    outer = Context(timeout=9, clock=clock)
    with outer:
        with Context(timeout=5):
            asked, told = Context(), Context()
            told.add_callback(len)
        assert not asked.cancelled
        clock.advance(4)
        asked.check()
        clock.advance(1)
        assert asked.cancelled  # its deadline stays
        assert told.cancelled
        with Context():
            asked, told = Context(), Context()
            told.add_callback(len)
    assert outer.cancel()
    assert asked.cancelled
    assert told.cancelled
    assert clock.timers == 0


def test_a_block_that_had_ended_before_it_was_a_parent() -> None:
    with Context() as mine:
        mine.cancel("early")
        child = Context()
    del mine
    assert child.reason == "early"
