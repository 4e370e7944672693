"""What there is in the process is known as long as somebody refers to it."""

from __future__ import annotations

import gc
import threading
from typing import Any

from ion_actors.observe.living import Living


class Thing:
    """Something; its hash and its comparison are the user's code."""

    def __hash__(self) -> int:
        raise AssertionError("it was asked for its hash")

    def __eq__(self, other: object) -> bool:
        raise AssertionError("it was compared")


def test_what_nobody_refers_to_is_forgotten_the_rest_is_in_order() -> None:
    living: Living[Thing] = Living()
    things = [Thing() for _ in range(4)]
    for one in things:
        living.add(one)
    assert all(found is one for found, one in zip(living.all(), things, strict=True))
    del things[1], one
    gc.collect()
    assert all(found is one for found, one in zip(living.all(), things, strict=True))
    living.clear()
    assert living.all() == []


def test_a_follower_is_told_of_those_that_are_there_and_those_that_come() -> None:
    living: Living[Thing] = Living()
    told: list[int] = []

    def follower(one: Thing) -> None:
        told.append(id(one))

    first, second, third = Thing(), Thing(), Thing()
    living.add(first)
    living.follow(follower)
    living.follow(follower)  # once more: it is the same
    living.add(second)
    living.unfollow(follower)
    living.unfollow(follower)
    living.add(third)
    assert told == [id(first), id(first), id(second)]


def test_threads_may_add_and_look_at_the_same_time(threads: Any) -> None:
    living: Living[Thing] = Living()
    together = threading.Barrier(8)

    def add(_: int) -> list[Thing]:
        together.wait(30)
        kept = []
        for _ in range(200):
            kept.append(Thing())
            living.add(kept[-1])
            living.add(Thing())  # forgotten at once
            assert all(type(one) is Thing for one in living.all())
        return kept

    kept = [one for found in threads.map(add, range(8)) for one in found]
    gc.collect()
    assert {id(one) for one in living.all()} == {id(one) for one in kept}
