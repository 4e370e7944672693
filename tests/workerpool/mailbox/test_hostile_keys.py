"""The hash and the comparison of a task's key are the user's code: they run under no lock."""

from __future__ import annotations

import gc
import threading
from typing import Any

import pytest

from ion_actors import Pool
from tests.inside import core_of
from tests.workerpool.helpers import eventually

PATIENCE = 30.0


class Blocking:
    """A key that is equal to its likes, sooner or later."""

    begun, gate = threading.Event(), threading.Event()

    def __hash__(self) -> int:
        return 7

    def __eq__(self, other: object) -> Any:
        self.begun.set()
        self.gate.wait(PATIENCE)
        return True


class Reentrant:
    """A key that uses the pool itself whenever it is asked anything."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.answers: list[int] = []

    def __hash__(self) -> int:
        self.answers.append(self.pool.submit(pow, 2, 3).result(PATIENCE))
        return 7

    def __eq__(self, other: object) -> Any:
        self.answers.append(self.pool.submit(pow, 2, 4).result(PATIENCE))
        return True


class Failing:
    def __hash__(self) -> int:
        return 7

    def __eq__(self, other: object) -> Any:
        raise ValueError("not comparable")


def test_a_comparison_that_blocks_holds_up_nobody_else():
    Blocking.begun.clear()
    Blocking.gate.clear()
    hold = threading.Event()
    with Pool(2) as pool:
        first = pool.options(key=Blocking()).submit(hold.wait, PATIENCE)
        found: list[int] = []
        thread = threading.Thread(
            target=lambda: found.append(pool.options(key=Blocking()).submit(int).result(PATIENCE))
        )
        thread.start()
        assert Blocking.begun.wait(PATIENCE)
        assert pool.submit(pow, 2, 2).result(PATIENCE) == 4
        assert pool.options(priority=1).submit(pow, 2, 5).result(PATIENCE) == 32
        assert pool.metrics().running == 1
        Blocking.gate.set()
        hold.set()
        assert first.result(PATIENCE)
        thread.join(PATIENCE)
    assert found == [0]


def test_a_key_may_use_its_own_pool():
    order: list[int] = []
    with Pool(2) as pool:
        keys = [Reentrant(pool) for _ in range(3)]
        futures = [
            pool.options(key=key).submit(order.append, number) for number, key in enumerate(keys)
        ]
        for one in futures:
            one.result(PATIENCE)
        assert order == [0, 1, 2]
        assert {8} <= {answer for key in keys for answer in key.answers}


def test_what_a_comparison_raises_comes_out_where_the_key_is_given():
    hold = threading.Event()
    with Pool(1) as pool:
        first = pool.options(key=Failing()).submit(hold.wait, PATIENCE)
        with pytest.raises(ValueError, match="not comparable"):
            pool.options(key=Failing()).submit(int)
        hold.set()
        assert first.result(PATIENCE)
        assert pool.submit(int).result(PATIENCE) == 0
    metrics = pool.metrics()
    assert (metrics.submitted, metrics.completed) == (2, 2)


def test_keys_that_nobody_uses_any_more_are_forgotten():
    with Pool(2) as pool:
        for number in range(100):
            pool.options(key=("a", number)).submit(int).result(PATIENCE)
    # Without the GIL, references that another thread has released are settled later.
    eventually(lambda: gc.collect() >= 0 and len(core_of(pool).keys) == 0)


def test_threads_that_compare_at_a_time_come_to_an_end() -> None:
    """What one of them could not add is freed: that must not make the others compare again."""
    compared: list[int] = []

    class Slow:
        def __init__(self, number: int) -> None:
            self.number = number

        def __hash__(self) -> int:
            return 7

        def __eq__(self, other: object) -> bool:
            compared.append(pool.submit(abs, 1).result(PATIENCE))
            return isinstance(other, Slow) and other.number == self.number

    with Pool(2) as pool:
        for _ in range(10):
            together = threading.Barrier(6)

            def submit(number: int, together: threading.Barrier = together) -> None:
                together.wait(PATIENCE)
                pool.options(key=Slow(number % 3)).submit(abs, number).result(PATIENCE)

            threads = [threading.Thread(target=submit, args=(number,)) for number in range(6)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(PATIENCE)
                assert not thread.is_alive()
    assert len(compared) < 2000
