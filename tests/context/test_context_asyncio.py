"""``async with``: a context interrupts the block that runs under it, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from ion_actors import Cancelled, Context, DeadlineExceeded, background, current_context
from ion_actors.testing import VirtualClock
from tests.inside import callbacks_on


def run(main):
    return asyncio.run(asyncio.wait_for(main(), 20))


async def forever():
    await asyncio.get_running_loop().create_future()


def soon(call, *args):
    asyncio.get_running_loop().call_soon(call, *args)


def test_a_cancelled_context_interrupts_its_block():
    async def main():
        with pytest.raises(Cancelled, match="stop it"):
            async with Context() as context:
                soon(context.cancel, "stop it")
                await forever()
        assert asyncio.current_task().cancelling() == 0
        await asyncio.sleep(0)  # nothing is left that would cancel this

    run(main)


def test_a_deadline_interrupts_its_block():
    async def main():
        clock = VirtualClock()
        with pytest.raises(DeadlineExceeded):
            async with Context(timeout=10, clock=clock):
                soon(clock.advance, 10)
                await forever()
        assert clock.timers == 0

    run(main)


def test_another_thread_can_interrupt_a_block():
    async def main():
        context = Context()
        helper = asyncio.ensure_future(asyncio.to_thread(context.cancel))
        with pytest.raises(Cancelled):
            async with context:
                await forever()
        await helper

    run(main)


def test_a_block_under_a_context_that_has_ended_is_interrupted_at_its_first_wait():
    async def main():
        context, log = Context(), []
        context.cancel("over")
        with pytest.raises(Cancelled, match="over"):
            async with context:
                log.append("entered")
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                log.append("not reached")
        assert log == ["entered"]

    run(main)


def test_a_block_that_waits_for_nothing_ends_normally():
    async def main():
        context = Context()
        async with context:
            context.cancel()
        await asyncio.sleep(0)
        assert asyncio.current_task().cancelling() == 0

    run(main)


def test_a_block_makes_its_context_current_also_in_its_tasks():
    async def main():
        async def ask():
            return current_context()

        async with Context() as context:
            assert current_context() is context
            assert await asyncio.create_task(ask()) is context
        assert current_context() is background()

    run(main)


def test_an_exception_in_a_block_ends_the_context_and_passes_unchanged():
    async def main():
        context = Context()
        with pytest.raises(ZeroDivisionError):
            async with context:
                1 / 0  # noqa: B018
        assert context.reason == "its block was left by ZeroDivisionError"

    run(main)


def test_an_exception_raised_on_interruption_passes_unchanged():
    async def main():
        with pytest.raises(ZeroDivisionError):
            async with Context() as context:
                soon(context.cancel)
                try:
                    await forever()
                finally:
                    1 / 0  # noqa: B018
        assert asyncio.current_task().cancelling() == 0

    run(main)


def test_a_block_may_end_in_spite_of_the_interruption():
    async def main():
        async with Context() as context:
            soon(context.cancel)
            with contextlib.suppress(asyncio.CancelledError):
                await forever()
        assert asyncio.current_task().cancelling() == 0

    run(main)


def test_an_inner_end_is_the_inner_blocks_error():
    async def main():
        async with Context() as outer:
            with pytest.raises(Cancelled, match="inner"):
                async with Context() as inner:
                    soon(inner.cancel, "inner")
                    await forever()
            assert not outer.cancelled
            await asyncio.sleep(0)

    run(main)


def test_an_outer_end_is_the_outer_blocks_error():
    async def main():
        left = []
        with pytest.raises(Cancelled, match="outer"):
            async with Context() as outer:
                try:
                    async with Context():
                        soon(outer.cancel, "outer")
                        await forever()
                except asyncio.CancelledError:
                    left.append("inner, by the cancellation")
                    raise
        assert left == ["inner, by the cancellation"]
        assert asyncio.current_task().cancelling() == 0

    run(main)


def test_three_nested_blocks_that_end_together_raise_once():
    async def main():
        with pytest.raises(Cancelled, match="all"):
            async with Context() as context:  # noqa: SIM117
                async with Context():
                    async with Context():
                        soon(context.cancel, "all")
                        await forever()
        assert asyncio.current_task().cancelling() == 0
        await asyncio.sleep(0)

    run(main)


def test_a_cancellation_by_somebody_else_stays_one():
    async def main():
        async def body():
            async with context:
                await forever()

        context = Context()
        task = asyncio.create_task(body())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert context.reason == "its block was left by CancelledError"

    run(main)


def test_a_cancellation_by_somebody_else_wins_over_ones_own():
    async def main():
        async def body():
            async with context:
                await forever()

        context = Context()
        task = asyncio.create_task(body())
        await asyncio.sleep(0)
        context.cancel()
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        assert not isinstance(caught.value, Cancelled)

    run(main)


def test_asyncio_timeout_inside_a_block_works_as_ever():
    async def main():
        async with Context() as context:
            with pytest.raises(TimeoutError) as caught:
                async with asyncio.timeout(0):
                    await forever()
            assert not isinstance(caught.value, DeadlineExceeded)
            assert not context.cancelled

    run(main)


def test_a_block_inside_asyncio_timeout_works_as_ever():
    async def main():
        async with asyncio.timeout(60):
            with pytest.raises(Cancelled, match="inner"):
                async with Context() as context:
                    soon(context.cancel, "inner")
                    await forever()
        assert asyncio.current_task().cancelling() == 0

    run(main)


def test_asyncio_timeout_around_a_block_ends_it():
    async def main():
        context = Context()
        with pytest.raises(TimeoutError) as caught:
            async with asyncio.timeout(0), context:
                await forever()
        assert not isinstance(caught.value, DeadlineExceeded)
        assert context.cancelled
        assert asyncio.current_task().cancelling() == 0

    run(main)


def test_asyncio_timeout_and_the_context_at_the_same_time():
    async def main():
        context = Context()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0), context:
                soon(soon, context.cancel)
                await forever()
        assert asyncio.current_task().cancelling() == 0
        await asyncio.sleep(0)

    run(main)


def test_a_task_group_ends_with_the_context():
    async def main():
        ended = []

        async def child(number):
            try:
                await forever()
            finally:
                ended.append(number)

        with pytest.raises(Cancelled):
            async with Context() as context, asyncio.TaskGroup() as group:
                for number in range(3):
                    group.create_task(child(number))
                soon(context.cancel)
        assert sorted(ended) == [0, 1, 2]

    run(main)


def test_one_context_interrupts_every_block_that_runs_under_it():
    async def main():
        async def body():
            async with context:
                await forever()

        context = Context()
        tasks = [asyncio.create_task(body()) for _ in range(10)]
        await asyncio.sleep(0)
        context.cancel("all")
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(one) for one in results] == [Cancelled] * 10
        assert len({id(one) for one in results}) == 10

    run(main)


def test_a_left_block_leaves_nothing_on_its_context():
    async def main():
        context = Context(timeout=60, clock=VirtualClock())
        async with context:
            pass
        assert not callbacks_on(context)
        assert context.clock.timers == 0

    run(main)


def test_blocks_of_tasks_that_interleave_do_not_mix_up():
    async def main():
        async def body(number):
            async with Context() as context:
                for _ in range(number):
                    await asyncio.sleep(0)
                    assert current_context() is context
            assert current_context() is background()

        await asyncio.gather(*(body(number) for number in range(20)))

    run(main)
