"""How many tasks are sent ahead."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ion_actors.backends.window import CALLS, WORK, SendWindow

SECONDS = st.floats(0, 100)
TIMES = st.lists(SECONDS, max_size=100)


def after(times: list[float], most: int = 64, batch: int = 32) -> SendWindow:
    window = SendWindow(most, batch)
    for one in times:
        window = window.answered(one)
    return window


@given(TIMES, st.integers(1, 100), st.integers(1, 100), st.integers(0, 200), st.integers(0, 5))
def test_the_limits_hold(
    times: list[float], most: int, batch: int, under_way: int, calls: int
) -> None:
    window = after(times, most, batch)
    assert 1 <= window.size <= most
    room = window.room(under_way, calls)
    assert room <= batch
    assert room <= 0 or under_way + room <= window.size
    assert calls < CALLS or room == 0
    assert window.closed().room(1, 0) == 0


@given(TIMES)
def test_what_is_under_way_takes_no_longer_than_it_should(times: list[float]) -> None:
    window = after(times)
    assert window.size == 1 or window.size * window.pace <= WORK * 1.001


def test_it_begins_with_one_and_doubles_with_each_round() -> None:
    window, sizes = SendWindow(64, 32), list[int]()
    for _ in range(7):
        sizes.append(window.size)
        for _ in range(window.size):
            window = window.answered(1e-5)
    assert sizes == [1, 2, 4, 8, 16, 32, 64]


def test_tasks_of_a_millisecond() -> None:
    window = after([0.001] * 50)
    assert window.size == 10
    assert window.room(0, 0) == 5
    assert window.room(5, 1) == 5
    assert window.room(6, 1) == 0  # it waits until a call is full
    assert window.room(0, CALLS) == 0


def test_a_long_task_closes_it_and_is_forgotten() -> None:
    window = after([1e-5] * 100).answered(60.0)
    assert window.size == 1
    rounds = 0
    while window.size < 32:
        window = window.answered(1e-5)
        rounds += 1
    assert rounds < 60


def test_long_tasks_go_one_by_one() -> None:
    assert after([0.5] * 10).room(1, 1) == 0


def test_a_window_of_one_never_opens() -> None:
    assert after([0.0] * 10, most=1).size == 1
