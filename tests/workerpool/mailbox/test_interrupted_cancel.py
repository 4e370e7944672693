"""A cancellation that is interrupted, while a worker comes for the task."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from ion_actors import Cancelled, Future, Pool
from ion_actors.workerpool.mailbox.mailbox import Mailbox
from tests.interrupts import KINDS, every_point, interrupt
from tests.workerpool.helpers import PATIENCE, Gate


class Held:
    """Metrics that hold the worker up when it has taken its second task, and not called it."""

    def __init__(self) -> None:
        self.taken, self.go_on = threading.Event(), threading.Event()
        self._begun = 0

    def inc(self, name: str, **_: str) -> None:
        if name == "ion_workerpool_tasks_started_total":
            self._begun += 1
            if self._begun == 2:
                self.taken.set()
                assert self.go_on.wait(PATIENCE)

    def add(self, name: str, value: float, **_: str) -> None: ...
    def gauge(self, name: str, value: float, **_: str) -> None: ...
    def histogram(self, name: str, value: float, **_: str) -> None: ...


def _outcome(future: Future[int]) -> int | None:
    try:
        return future.result(PATIENCE)
    except Cancelled:
        return None


@pytest.mark.parametrize("kind", KINDS)
def test_a_task_that_a_worker_has_taken_meanwhile_runs(
    kind: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    end_after_all: Any = Mailbox.end_after_all
    outcomes: set[int | None] = set()

    def make(point: int) -> str:
        held, gate = Held(), Gate()

        def meanwhile(*args: Any) -> None:
            gate.open()
            assert held.taken.wait(PATIENCE)  # by the cancelled one, or by the next
            end_after_all(*args)

        monkeypatch.setattr(Mailbox, "end_after_all", meanwhile)
        with Pool(1, metrics=held) as pool:
            pool.submit(gate)
            assert gate.entered.acquire(timeout=PATIENCE)
            cancelled, following = pool.submit(int), pool.submit(int)
            where, _ = interrupt(point, cancelled.cancel, kind)
            gate.open()
            held.go_on.set()
            outcomes.add(_outcome(cancelled))
            assert following.result(PATIENCE) == 0, where
        numbers = pool.metrics()
        assert numbers.submitted == numbers.completed + numbers.cancelled == 3, where
        return where

    assert len(every_point(make)) > 10
    assert outcomes == {0, None}
