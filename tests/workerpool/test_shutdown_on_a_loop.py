"""The coroutines that end a pool, or a supervisor, wait for no thread on the event loop."""

import asyncio
import contextlib
import functools
import threading
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

import pytest

from ion_actors import Pool
from ion_actors.delivery import CallQueue
from ion_actors.supervision import Supervisor, child
from tests.workerpool.helpers import threads_of

T = TypeVar("T")


@contextlib.contextmanager
def forbidden(owner: Any, name: str) -> Iterator[None]:
    """To call this method in this thread is an error."""
    here, original = threading.current_thread(), getattr(owner, name)

    def checked(*args: Any, **kwargs: Any) -> Any:
        assert threading.current_thread() is not here, f"{name} blocks the event loop"
        return original(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, checked)
        yield


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run it in an event loop that nothing may block."""
    with forbidden(threading.Thread, "join"), forbidden(CallQueue, "flush"):
        return asyncio.run(main)


@pytest.mark.parametrize("verb", ["adrain", "aclose", "ashutdown"])
def test_a_pool(verb: str) -> None:
    async def main() -> Pool:
        pool = Pool(4)
        for future in [pool.submit(pow, 2, 3) for _ in range(8)]:
            await future
        await getattr(pool, verb)()
        return pool

    assert threads_of(run(main())) == []


def test_a_pools_block() -> None:
    async def main() -> Pool:
        async with Pool(2) as pool:
            assert await (await pool.asubmit(pow, 2, 3)) == 8
        return pool

    assert threads_of(run(main())) == []


def test_a_supervisors_block() -> None:
    async def main() -> None:
        async with Supervisor([child(functools.partial(Pool, 2), id="pool")]):
            await asyncio.sleep(0)

    run(main())
