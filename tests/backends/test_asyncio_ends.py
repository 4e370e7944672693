"""Pools on an event loop: what must not end their loop, and what must not keep a program."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import textwrap
from collections.abc import Callable
from typing import Any

import pytest

from ion_actors import DeadlockError, Future, Pool, TaskPanicked
from tests.workerpool.helpers import PATIENCE


async def give(value: int) -> int:
    return value


async def leave_at_once() -> None:
    raise GeneratorExit


async def leave_later() -> None:
    await asyncio.sleep(0)
    raise GeneratorExit


@pytest.mark.parametrize("leave", [leave_at_once, leave_later])
@pytest.mark.parametrize("eager", [False, True])
def test_a_generator_exit_of_a_task_is_a_panic_as_any_other(
    leave: Callable[[], Any], eager: bool
) -> None:
    async def main() -> None:
        if eager:  # since Python 3.12 without a factory, too
            asyncio.get_running_loop().set_task_factory(start_first_step)
        async with asyncio.timeout(PATIENCE), Pool(1, 10, backend="asyncio") as pool:
            first, second = pool.submit(leave), pool.submit(give, 1)
            with pytest.raises(TaskPanicked):
                await first
            assert await second == 1

    asyncio.run(main())


def start_first_step(loop: Any, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
    """A factory as ``asyncio.eager_task_factory``, where there is that one."""
    if sys.version_info >= (3, 12):
        return asyncio.eager_task_factory(loop, coroutine, **options)
    return asyncio.Task(coroutine, loop=loop, **options)


@pytest.mark.parametrize("error", [SystemExit, GeneratorExit, asyncio.CancelledError])
@pytest.mark.parametrize("key", [None, "key"])
def test_a_callback_never_ends_the_loop_and_costs_no_slot(
    error: type[BaseException], key: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_: object) -> None:
        raise error("from a callback")

    async def main() -> None:
        async with asyncio.timeout(PATIENCE), Pool(1, 10, backend="asyncio") as pool:
            submit = pool.submit if key is None else pool.options(key=key).submit
            futures: list[Any] = [submit(give, 1), submit(int, "no number")]
            for future in futures:
                future.add_done_callback(refuse)
            assert await submit(give, 2) == 2
            assert await futures[0] == 1
            with pytest.raises(ValueError, match="no number"):
                await futures[1]

    with caplog.at_level(logging.ERROR):
        asyncio.run(main())
    assert "from a callback" in caplog.text


def test_a_task_factory_that_raises_fails_the_task_and_costs_no_slot() -> None:
    def refuse(*_: object, **options: object) -> asyncio.Task[Any]:
        raise ValueError("no more tasks")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(PATIENCE), Pool(1, 10, backend="asyncio") as pool:
            loop.set_task_factory(refuse)
            futures = [pool.submit(give, number) for number in range(3)]
            for future in futures:
                with pytest.raises(ValueError, match="no more tasks"):
                    await future
            loop.set_task_factory(None)
            assert await pool.submit(give, 3) == 3

    asyncio.run(main())


def test_a_ctrl_c_in_a_callback_reaches_the_program() -> None:
    kept: list[Any] = []

    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    async def main() -> None:
        pool = Pool(1, 10, backend="asyncio")
        kept.append(pool)
        pool.submit(give, 1).add_done_callback(interrupt)
        kept.append(pool.submit(give, 2))
        await asyncio.sleep(PATIENCE)

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(main())
    pool, following = kept
    pool.close(PATIENCE)
    assert following.done()


@pytest.mark.parametrize("key", [None, "key"])
def test_a_callback_that_would_block_the_loop_for_the_end_of_its_pool_is_refused(
    key: str | None,
) -> None:
    refused: list[BaseException] = []

    async def main() -> None:
        pool = Pool(1, 10, backend="asyncio")

        def end(_: object) -> None:
            try:
                pool.close(PATIENCE)
            except DeadlockError as error:
                refused.append(error)

        future = (pool if key is None else pool.options(key=key)).submit(give, 1)
        future.add_done_callback(end)
        assert await future == 1
        await pool.adrain()

    asyncio.run(main())
    assert "await pool.a" in str(refused[0])


@pytest.mark.parametrize("end", ["drain", "close", "block"])
def test_an_end_in_the_thread_of_a_loop_that_stands_still_is_refused(end: str) -> None:
    loop = asyncio.new_event_loop()

    async def main() -> tuple[Pool, Future[Any]]:
        made = Pool(1, 10, name="still", backend="asyncio")
        return made, made.submit(asyncio.sleep, 0.05)

    try:
        pool, future = loop.run_until_complete(main())
        with pytest.raises(DeadlockError, match=r"'still' ends.*loop run `await pool\.adrain"):
            if end == "block":
                with pool:
                    """Nothing is done here: it is about the end."""
            else:
                getattr(pool, end)()
        loop.run_until_complete(pool.adrain() if end != "close" else pool.aclose())
        assert future.done()
        pool.drain()  # it has ended: there is nothing to wait for
    finally:
        loop.close()


def test_a_loop_that_stands_still_does_not_keep_the_interpreter_from_its_exit() -> None:
    program = """
        import asyncio
        from ion_actors import DeadlockError, Pool

        async def main():
            pool = Pool(1, 10, backend="asyncio")
            futures = [pool.submit(asyncio.sleep, 1000) for _ in range(3)]
            await asyncio.sleep(0)
            return futures

        async def until_interrupted():
            kept.extend(await main())
            raise KeyboardInterrupt

        kept = []
        loop = asyncio.new_event_loop()
        try:
            loop.run_until_complete(until_interrupted())
        except KeyboardInterrupt:
            print("left")
    """
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert (ended.returncode, ended.stdout) == (0, "left\n"), ended.stderr
    assert "ends before it" in ended.stderr
