"""What who is refused is told: when it is worth another try."""

from __future__ import annotations

import pytest

from ion_actors import Context, Pool, QueueFull
from ion_actors.testing import VirtualClock
from tests.inside import resting
from tests.workerpool.helpers import PATIENCE, Gate, eventually, run_in_thread, until_waiting


def refusal(pool: Pool) -> QueueFull:
    with pytest.raises(QueueFull) as refused:
        pool.try_submit(pow, 2, 2)
    return refused.value


class Conveyor:
    """Keeps a pool full, and lets it end one task each so many seconds of its clock."""

    def __init__(self, pool: Pool, clock: VirtualClock, every: float) -> None:
        self.pool, self.clock, self.every = pool, clock, every
        self.gates: list[Gate] = []
        for _ in range(pool.size + pool.queue_size):
            self.add()

    def add(self) -> None:
        gate = Gate()
        self.pool.submit(gate)
        self.gates.append(gate)

    def step(self) -> None:
        self.clock.advance(self.every)
        first = self.gates.pop(0)
        first.await_entered()
        first.open()
        self.gates[self.pool.size - 1].entered.acquire(timeout=PATIENCE)
        self.gates[self.pool.size - 1].entered.release()  # it has begun: there is room
        self.add()

    def end(self) -> None:
        for gate in self.gates:
            gate.open()


@pytest.mark.parametrize("every", [0.001, 5.0])
def test_it_is_the_time_in_which_those_who_wait_have_begun(
    clock: VirtualClock, every: float
) -> None:
    with Pool(1, 3, context=Context(clock=clock)) as pool:
        conveyor = Conveyor(pool, clock, every)
        assert refusal(pool).retry_after is None, "nothing has ended yet"
        conveyor.step()
        assert refusal(pool).retry_after is None, "it may have begun long ago"
        for _ in range(5):
            conveyor.step()
        assert refusal(pool).retry_after == pytest.approx(4 * every)
        waiting = run_in_thread(pool.submit, pow, 2, 2)
        until_waiting(pool, 1)
        assert refusal(pool).retry_after == pytest.approx(5 * every), "who waits is before you"
        conveyor.end()
        waiting.result(PATIENCE)


def test_a_night_with_nothing_to_do_is_not_taken_for_slowness(clock: VirtualClock) -> None:
    with Pool(2, 2, context=Context(clock=clock)) as pool:
        for hours in (0, 8):
            clock.advance(hours * 3600)
            conveyor = Conveyor(pool, clock, 1.0)
            known = refusal(pool).retry_after
            assert known == (None if not hours else pytest.approx(3.0)), "as it was before"
            for _ in range(6):
                conveyor.step()
            assert refusal(pool).retry_after == pytest.approx(3.0)
            conveyor.end()
            eventually(lambda: resting(pool) == 2)


def test_nobody_knows_how_long_a_pause_will_last(clock: VirtualClock) -> None:
    with Pool(1, 3, context=Context(clock=clock)) as pool:
        conveyor = Conveyor(pool, clock, 1.0)
        refusal(pool)
        for steps in (1, 5):
            for _ in range(steps):
                conveyor.step()
            known = refusal(pool).retry_after
        pool.pause()
        assert refusal(pool).retry_after is None
        pool.resume()
        assert refusal(pool).retry_after == known is not None
        conveyor.end()


def test_without_a_queue_it_is_the_time_until_a_worker_is_free(clock: VirtualClock) -> None:
    with Pool(1, 0, context=Context(clock=clock)) as pool:
        gate = Gate()
        pool.submit(gate)
        assert refusal(pool).retry_after is None
        gate.open()
