"""Awaiting: from any loop, without blocking it."""

from __future__ import annotations

import asyncio
import threading

import pytest

from ion_actors import Cancelled, Future


def run(main):
    return asyncio.run(asyncio.wait_for(main(), 20))


def test_await_gives_the_value_at_once_or_when_it_comes():
    async def main():
        ready, later = Future(), Future()
        ready.set(1)
        assert await ready == 1
        helper = asyncio.ensure_future(asyncio.to_thread(later.set, 2))
        assert await later == 2
        await helper

    run(main)


def test_await_raises_the_tasks_own_error():
    async def main():
        error = ValueError()
        future = Future()
        asyncio.get_running_loop().call_soon(future.set_exception, error)
        with pytest.raises(ValueError) as caught:  # noqa: PT011
            await future
        assert caught.value is error

    run(main)


def test_await_does_not_block_the_loop():
    async def main():
        future, ticks = Future(), 0
        waiting = asyncio.ensure_future(_await(future))
        for _ in range(100):
            await asyncio.sleep(0)
            ticks += 1
        assert not waiting.done()
        future.set(ticks)
        assert await waiting == 100

    run(main)


async def _await(future):
    return await future


def test_a_thousand_are_awaited_at_once_and_the_loop_stays_free():
    async def main():
        futures = [Future() for _ in range(1000)]
        all_of_them = asyncio.gather(*(_await(one) for one in futures))
        await asyncio.sleep(0)
        threads = threading.active_count()

        def settle():
            for number, future in enumerate(futures):
                future.set(number)

        await asyncio.to_thread(settle)
        assert await all_of_them == list(range(1000))
        assert threading.active_count() <= threads + 1

    run(main)


def test_cancelling_an_awaiter_cancels_a_pending_future():
    async def main():
        future = Future()
        waiting = asyncio.ensure_future(_await(future))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert future.cancelled()

    run(main)


def test_cancelling_an_awaiter_leaves_a_running_future_alone():
    async def main():
        future = Future()
        future.set_running_or_notify_cancel()
        waiting = asyncio.ensure_future(_await(future))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        future.set(1)
        assert future.result() == 1

    run(main)


def test_a_time_limit_around_an_await_cancels_the_future():
    async def main():
        future = Future()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await future
        assert future.cancelled()

    run(main)


def test_a_shielded_future_survives_its_awaiter():
    async def main():
        future = Future()
        inner = asyncio.ensure_future(_await(future))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(inner), 0)
        assert not future.cancelled()
        future.set(1)
        assert await inner == 1

    run(main)


def test_awaiting_a_cancelled_future_raises_cancelled_and_not_asyncios():
    async def main():
        future = Future()
        waiting = asyncio.ensure_future(_await(future))
        await asyncio.sleep(0)
        future.cancel()
        with pytest.raises(Cancelled):
            await waiting

    run(main)


def test_two_loops_await_the_same_future(threads):
    future = Future()
    started = threading.Barrier(3)

    async def main():
        asyncio.get_running_loop().call_soon(lambda: None)
        started.wait(30)
        return await future

    running = [threads.submit(run, main) for _ in range(2)]
    started.wait(30)
    future.set("x")
    assert [one.result(30) for one in running] == ["x", "x"]


def test_a_future_that_settles_after_its_loop_is_closed_harms_nobody(caplog):
    future = Future()
    future.set_running_or_notify_cancel()

    async def main():
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(_await(future), 0.001)

    asyncio.run(main())
    future.set(1)
    assert caplog.text == ""


def test_asyncio_wraps_it_as_it_wraps_its_own():
    async def main():
        future = Future()
        wrapped = asyncio.wrap_future(future)
        asyncio.get_running_loop().call_soon(future.set, 3)
        assert await wrapped == 3
        other = Future()
        asyncio.wrap_future(other).cancel()
        await asyncio.sleep(0)
        assert other.cancelled()

    run(main)


def test_a_value_can_be_awaited_without_a_loop_if_it_is_there():
    future = Future()
    future.set(1)
    awaiting = future.__await__()
    with pytest.raises(StopIteration) as caught:
        next(awaiting)
    assert caught.value.value == 1
