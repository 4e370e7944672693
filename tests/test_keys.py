"""Keys that users give are compared under no lock."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from typing import Any

import pytest

from ion_actors.keys import Key, Keys

PATIENCE = 30.0


class Custom:
    """A key whose hash and comparison are told what to do."""

    def __init__(self, value: object, compare: Callable[[], object] = lambda: None) -> None:
        self.value = value
        self.compare = compare

    def __hash__(self) -> int:
        return 7

    def __eq__(self, other: object) -> Any:
        self.compare()
        return isinstance(other, Custom) and self.value == other.value


def test_equal_keys_are_one_and_others_are_not():
    keys = Keys()
    one = keys.key("a")
    assert keys.key("aa"[:1]) is one
    assert keys.key("b") is not one
    assert keys.key(1) is keys.key(True)
    nan = float("nan")
    held = keys.key(nan)
    assert keys.key(nan) is held
    a, b = keys.key(Custom(1)), keys.key(Custom(2))
    assert a is not b
    assert keys.key(Custom(1)) is a
    assert keys.key(Custom(2)) is b


def test_keys_are_forgotten_when_nobody_has_them():
    keys = Keys()
    held = [keys.key(Custom(number)) for number in range(4)]
    assert len(keys) == 4
    del held[1:3]
    gc.collect()
    assert len(keys) == 2
    assert keys.key(Custom(0)) is held[0]
    assert keys.key(Custom(3)) is held[1]
    held.clear()
    gc.collect()
    assert (len(keys), keys._buckets) == (0, {})


def test_a_comparison_that_blocks_holds_up_nobody_else():
    keys, gate, begun = Keys(), threading.Event(), threading.Event()

    def block() -> None:
        begun.set()
        assert gate.wait(PATIENCE)

    held = keys.key(Custom(1))
    held.value.compare = block  # type: ignore[attr-defined]
    found: list[Key] = []
    thread = threading.Thread(target=lambda: found.append(keys.key(Custom(1))))
    thread.start()
    assert begun.wait(PATIENCE)
    other = keys.key("other")
    assert keys.key("other") is other
    gate.set()
    thread.join(PATIENCE)
    assert found == [held]


def test_who_was_overtaken_during_a_comparison_finds_the_other():
    keys = Keys()
    overtaken: list[Key] = []

    def overtake() -> None:
        first.value.compare = lambda: None  # type: ignore[attr-defined]
        overtaken.append(keys.key(Custom(2)))

    first = keys.key(Custom(1))
    first.value.compare = overtake  # type: ignore[attr-defined]
    assert keys.key(Custom(2)) is overtaken[0]
    assert len(keys) == 2


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_what_a_comparison_raises_comes_out_and_does_no_harm(error):
    keys = Keys()

    def fail() -> None:
        raise error("no")

    held = keys.key(Custom(1))
    held.value.compare = fail  # type: ignore[attr-defined]
    with pytest.raises(error):
        keys.key(Custom(1))
    held.value.compare = lambda: None  # type: ignore[attr-defined]
    assert keys.key(Custom(1)) is held


def test_many_threads_agree():
    keys, barrier = Keys(), threading.Barrier(8, timeout=PATIENCE)
    found: list[Key] = []

    def ask() -> None:
        barrier.wait()
        found.extend([keys.key(Custom(number % 5)) for number in range(200)])

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(PATIENCE)
    assert len(found) == 1600
    assert len(set(found)) == len(keys) == 5
