"""Where the timers of a clock are late, an end is noticed by whoever asks: not under a lock."""

from __future__ import annotations

import threading
from collections.abc import Callable

from ion_actors import Context, Pool, current_context
from ion_actors.clock import Timer
from ion_actors.testing import VirtualClock
from tests.workerpool.helpers import PATIENCE


class LateClock(VirtualClock):
    """Its time moves, and its timers come later."""

    def __init__(self) -> None:
        super().__init__()
        self.late = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.late

    def call_at(self, when: float, call: Callable[[], object]) -> Timer:
        return super().call_at(when + 1000, call)


def test_the_end_of_a_pool_is_not_noticed_under_the_mailboxs_lock() -> None:
    clock = LateClock()
    pool = Pool(1, context=Context(timeout=60, clock=clock), drain_timeout=1)
    gate, begun = threading.Event(), threading.Event()
    answered: list[bool] = []

    def ask_elsewhere() -> None:
        asking = threading.Thread(target=pool.metrics)
        asking.start()
        asking.join(PATIENCE)
        answered.append(not asking.is_alive())

    def task() -> None:
        current_context().add_callback(ask_elsewhere)
        begun.set()
        gate.wait(PATIENCE)

    running = pool.submit(task)
    assert begun.wait(PATIENCE)
    queued = pool.submit(int)
    clock.late = 61
    queued.cancel()
    running.cancel()  # at the latest now
    gate.set()
    running.exception(PATIENCE)
    pool.close(PATIENCE)
    assert answered == [True]
