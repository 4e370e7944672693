"""The items on their way between threads and event loops."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from ion_actors import Cancelled, Context
from ion_actors.backends.stream.conduit import Conduit
from ion_actors.backends.stream.transit import NOTHING
from ion_actors.backends.stream.waiting_room import WaitingRoom
from ion_actors.context import background
from tests.workerpool.helpers import PATIENCE


def produce(conduit: Conduit, count: int) -> int:
    made = 0
    while made < count and conduit.wait_for_room(background()):
        conduit.put(made)
        made += 1
    conduit.end()
    return made


async def produce_async(conduit: Conduit, count: int) -> int:
    made = 0
    while made < count and await conduit.await_room(background()):
        conduit.put(made)
        made += 1
    conduit.end()
    return made


def read(conduit: Conduit) -> list[int]:
    found: list[int] = []
    while not conduit.over:
        if (item := conduit.take()) is NOTHING:
            conduit.wait_for_item(background())
        else:
            found.append(item)
    return found


async def read_async(conduit: Conduit) -> list[int]:
    found: list[int] = []
    while not conduit.over:
        if (item := conduit.take()) is NOTHING:
            await conduit.await_item(background())
        else:
            found.append(item)
    return found


WRITERS = [produce, lambda *args: asyncio.run(produce_async(*args))]
READERS = [read, lambda conduit: asyncio.run(read_async(conduit))]


@pytest.mark.parametrize("size", [1, 7])
@pytest.mark.parametrize("writer", WRITERS, ids=["thread", "loop"])
@pytest.mark.parametrize("reader", READERS, ids=["thread", "loop"])
def test_either_side_may_be_a_thread_or_a_coroutine(
    threads: ThreadPoolExecutor, size, writer, reader
) -> None:
    conduit = Conduit(size)
    made = threads.submit(writer, conduit, 300)
    assert reader(conduit) == list(range(300))
    assert made.result(PATIENCE) == 300


def test_several_readers_share_the_items(threads: ThreadPoolExecutor) -> None:
    conduit = Conduit(3)
    readers = [threads.submit(read, conduit) for _ in range(4)]
    produce(conduit, 500)
    found = [reader.result(PATIENCE) for reader in readers]
    assert sorted(item for one in found for item in one) == list(range(500))
    assert all(one == sorted(one) for one in found)


@pytest.mark.parametrize("end", ["end", "leave", "context"])
def test_whoever_waits_is_told_of_the_end(threads: ThreadPoolExecutor, end: str) -> None:
    empty, full = Conduit(1), Conduit(1)
    full.put(0)
    context = Context()
    waits = [
        threads.submit(empty.wait_for_item, context),
        threads.submit(full.wait_for_room, context),
        threads.submit(lambda: asyncio.run(empty.await_item(context))),
    ]
    if end == "context":
        context.cancel()
        waits[0].result(PATIENCE)
        with pytest.raises(Cancelled):
            waits[1].result(PATIENCE)
        assert not empty.over
    else:
        for conduit in (empty, full):
            getattr(conduit, end)()
        assert [one.result(PATIENCE) for one in waits[:2]] == [None, False]
        assert empty.over
        assert full.over == (end == "leave")
    waits[2].result(PATIENCE)


def test_a_stream_may_be_found_to_be_garbage_in_the_middle_of_a_wait() -> None:
    # A finalizer takes the lock that its thread holds.
    lock = threading.RLock()
    room, asked = WaitingRoom(lock), list[bool]()

    def may_go() -> bool:
        room.wake()
        asked.append(True)
        return len(asked) > 0

    room.wait(may_go, background())
    assert asked == [True]


def test_what_is_dropped_is_dropped_without_the_lock(threads: ThreadPoolExecutor) -> None:
    conduit = Conduit(1)
    asked: list[bool] = []

    class Item:
        def __del__(self) -> None:
            asked.append(threads.submit(lambda: conduit.over).result(PATIENCE))

    conduit.put(Item())
    conduit.leave()
    assert asked == [True]


def test_an_interrupted_grant_is_told_again() -> None:
    conduit, told = Conduit(1), list[int]()

    def grant(granted: int) -> None:
        told.append(granted)
        if len(told) == 1:
            raise KeyboardInterrupt

    conduit.begin_elsewhere(grant)
    conduit.put("item")
    with pytest.raises(KeyboardInterrupt):
        conduit.take()
    assert conduit.take() is NOTHING  # the item went with the interruption, as it does with next()
    assert told == [2, 2]
    conduit.take()
    assert told == [2, 2]


def test_who_has_room_and_a_living_context_does_not_wait() -> None:
    conduit, context = Conduit(1), Context()
    assert conduit.wait_for_room(context)
    context.cancel("enough")
    with pytest.raises(Cancelled, match="enough"):
        conduit.wait_for_room(context)
