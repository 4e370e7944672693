"""The tracker, in orders of events that a pool seldom makes."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from ion_actors import Future
from ion_actors.workerpool.progress.tracker import Tracker
from tests.workerpool.helpers import PATIENCE


class Shown:
    """A display that keeps what it was told."""

    def __init__(self) -> None:
        self.shown: list[list[int]] = []

    def begin(self) -> None: ...

    def show(self, ended: Sequence[int]) -> None:
        self.shown.append(list(ended))

    def end(self) -> None: ...


def test_a_result_is_counted_before_it_is_given_out(
    threads: ThreadPoolExecutor, gate: threading.Event
) -> None:
    display, task = Shown(), Future[int]()
    tracker = Tracker(display)
    called = threading.Event()
    task.add_done_callback(lambda _: (called.set(), gate.wait(PATIENCE)))
    tracker.expect(task, 3)
    setting = threads.submit(task.set, 7)
    assert called.wait(PATIENCE)  # it is done, and the tracker's callback comes later
    tracker.take(task)
    assert display.shown == [[3]]
    gate.set()
    setting.result(PATIENCE)
    tracker.show()
    assert display.shown == [[3]], "it was counted twice"


def test_what_ended_before_the_wait_is_shown_without_a_wait() -> None:
    display, first, other = Shown(), Future[int](), Future[int]()
    tracker = Tracker(display)
    for task in first, other:
        tracker.expect(task, 1)
    waited = []

    def in_time(bell: Future[object]) -> bool:
        """Something ends between the look at the news and the wait, and then the first task."""
        waited.append(bell.done())
        if len(waited) == 1:
            other.set(1)
            assert bell.done(), "nobody rang"
        else:
            first.set(1)
        return True

    tracker.wait(first, in_time)
    assert (waited, display.shown) == ([False, False], [[1], [1]])


def test_a_cancelled_task_is_not_counted() -> None:
    display, task = Shown(), Future[int]()
    tracker = Tracker(display)
    tracker.expect(task, 1)
    task.cancel()
    tracker.take(task)
    assert display.shown == []


def test_what_a_worker_is_counting_is_not_left_out() -> None:
    """The worker has taken note of a task, and its count is not there yet."""
    display, task = Shown(), Future[int]()
    tracker = Tracker(display)
    tracker.expect(task, 3)
    entered, go_on = threading.Event(), threading.Event()

    class Slow(Future[int]):
        def cancelled(self) -> bool:
            entered.set()
            assert go_on.wait(PATIENCE)
            return False

    slow = Slow()
    tracker.expect(slow, 4)
    with ThreadPoolExecutor(2) as executor:
        counting = executor.submit(tracker.ended, slow)
        assert entered.wait(PATIENCE)
        taking = executor.submit(tracker.take, slow)
        go_on.set()
        counting.result(PATIENCE)
        taking.result(PATIENCE)
    assert [sum(ended) for ended in display.shown] == [4]
