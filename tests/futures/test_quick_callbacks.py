"""Which callbacks a worker may call while it has more to do: those that cannot block."""

from __future__ import annotations

import asyncio
import functools
from typing import Any

import pytest

from ion_actors import Future
from ion_actors.futures.callbacks import are_quick


class Watched(Future[int]):
    """A future that knows whether its callbacks were quick."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[bool] = []

    def add_done_callback(self, fn: Any) -> None:
        self.found.append(are_quick([fn]))
        super().add_done_callback(fn)


def of_user(_: object) -> None:
    """Might block."""


def in_disguise(_: object) -> None:
    """Might block, whatever its module is called."""


in_disguise.__module__ = "asyncio.futures"


@pytest.mark.parametrize(
    "callback",
    [of_user, in_disguise, functools.partial(of_user), print],
    ids=["function", "with asyncio's name", "partial", "built in"],
)
def test_what_users_add_may_block(callback: Any) -> None:
    assert not are_quick([callback])


def test_those_of_awaits_do_not() -> None:
    future = Watched()

    async def main() -> list[int]:
        async def settle() -> None:
            future.set_result(7)

        async def by_itself() -> int:
            return await future

        wrapped = asyncio.wrap_future(future)
        return list(await asyncio.gather(by_itself(), wrapped, settle()))[:2]

    assert asyncio.run(main()) == [7, 7]
    assert future.found == [True, True]
