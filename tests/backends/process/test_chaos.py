"""Random misfortunes in child processes, from several threads at once, and a close in the middle.

Whatever happens to its neighbours, each task ends once, and as it would have ended alone.
"""

from __future__ import annotations

import enum
import random
import signal
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from ion_actors import (
    Backoff,
    Cancelled,
    DeadlineExceeded,
    PanicRecovery,
    Pool,
    PoolClosed,
    TaskNotPicklable,
    TaskPanicked,
    WorkerDied,
)
from ion_actors.backends.process import ProcessBackend
from ion_actors.backends.process.parent.launch import running_children
from ion_actors.futures import Future
from tests.backends.process import errands
from tests.inside import kill
from tests.workerpool.helpers import PATIENCE

pytestmark = pytest.mark.usefixtures("no_child_is_left")

SUBMITTERS, TASKS = 4, 100

# Whatever is late is forced soon.
HASTY = ProcessBackend(grace=0.02, kill_after=0.02)
# One that is killed before it is ready counts as a start that failed.
TIRELESS = PanicRecovery(max_restarts=None, backoff=Backoff(initial=0.0, retries=1000))


class Lot(enum.Enum):
    """What a task does."""

    WELL = "returns its number"
    FAIL = "raises an exception"
    EXIT = "raises SystemExit"
    LEAVE = "ends its process"
    KILL = "kills its process"
    CRASH = "reads what is not there"
    SENDS = "has an argument that cannot be pickled"
    GIVES = "has a result that cannot be rebuilt"
    LATE = "never ends, and has a time limit"
    UNWANTED = "never ends, and is cancelled at once"
    RELUCTANT = "never ends, whatever is raised in it, and is cancelled at once"
    LINGERS = "is cancelled when it has begun, and ends at about the time when it is forced to"


DEATHS: dict[Lot, tuple[Any, str | None]] = {
    Lot.LEAVE: ((errands.leave, 3), None),
    Lot.KILL: ((errands.kill_self, signal.SIGKILL), "SIGKILL"),
    Lot.CRASH: ((errands.segfault,), "SIGSEGV"),
}
LOTS = [*Lot, *[Lot.LINGERS] * 4, *[Lot.WELL] * 30]
# So that most tasks are sent before their turn when something happens.
CALM = [*Lot, *[Lot.WELL] * 300]
UNWANTED = (Lot.UNWANTED, Lot.RELUCTANT, Lot.LINGERS)


class Submitting(threading.Thread):
    """Submits one task after the other, of random lots, and keeps all futures."""

    def __init__(
        self,
        pool: Pool,
        seed: int,
        folder: Path,
        half: threading.Barrier | None,
        count: int = TASKS,
        lots: list[Lot] = LOTS,
    ) -> None:
        super().__init__(name=f"test-submitter-{seed}")
        self.lots = lots
        self.count = count
        self.pool = pool
        self.random = random.Random(seed)
        self.mark = folder / f"mark-{seed}"
        self.half = half
        self.tasks: list[tuple[Lot, int, Future[Any]]] = []
        self.fault: BaseException | None = None

    def run(self) -> None:
        try:
            for number in range(self.count):
                if number == self.count // 2 and self.half is not None:
                    self.half.wait(PATIENCE)
                lot = self.random.choice(self.lots)
                self.tasks.append((lot, number, self.submit(lot, number)))
        except BaseException as error:
            if self.half is None or not isinstance(error, PoolClosed):
                self.fault = error

    def submit(self, lot: Lot, number: int) -> Future[Any]:
        submit = self.pool.submit
        match lot:
            case Lot.WELL:
                return submit(errands.echo, number)
            case Lot.FAIL:
                return submit(errands.fail, KeyError(number))
            case Lot.EXIT:
                return submit(errands.fail, SystemExit(number))
            case Lot.SENDS:
                return submit(errands.echo, threading.Lock())
            case Lot.GIVES:
                return submit(errands.make_unwelcome)
            case Lot.LATE:
                return self.pool.options(timeout=0.05).submit(errands.spin, self.mark)
            case Lot.UNWANTED | Lot.RELUCTANT:
                task = errands.spin if lot is Lot.UNWANTED else errands.stubborn
                future = submit(task, self.mark)
                future.cancel()
                return future
            case Lot.LINGERS:
                future = submit(errands.linger, self.random.uniform(0.015, 0.025))
                future.add_progress_callback(lambda _: future.cancel())
                if future.progress is not None:  # it was faster
                    future.cancel()
                return future
            case _:
                return submit(*DEATHS[lot][0])


def check(lot: Lot, number: int, future: Future[Any], *, closed: bool, signals: bool = True) -> str:
    """See that the task ended as it should have. Returns how that is counted.

    Args:
        lot: what it did.
        number: which one it is.
        future: its own.
        closed: whether the pool was closed meanwhile.
        signals: whether the backend knows by which signal a process has died.
    """
    if future.cancelled():
        assert closed or lot in UNWANTED, lot
        return "cancelled"
    error = future.exception(PATIENCE)
    if isinstance(error, Cancelled) and closed:
        return "cancelled"
    match lot:
        case Lot.WELL:
            assert error is None, error
            assert future.result() == number
            return "completed"
        case Lot.FAIL:
            assert isinstance(error, KeyError)
            assert error.args == (number,)
            return "failed"
        case Lot.SENDS | Lot.GIVES:
            assert isinstance(error, TaskNotPicklable)
            return "failed"
        case Lot.LATE:
            assert isinstance(error, DeadlineExceeded), error
            return "cancelled"
        case Lot.LINGERS if error is None:
            return "completed"
        case Lot.UNWANTED | Lot.RELUCTANT | Lot.LINGERS:
            assert isinstance(error, Cancelled), error
            return "cancelled"
    assert isinstance(error, TaskPanicked), error
    cause = error.__cause__
    if lot is Lot.EXIT:
        assert isinstance(cause, SystemExit)
        assert cause.code == number
    else:
        assert isinstance(cause, WorkerDied)
        assert not signals or cause.signal == DEATHS[lot][1]
    return "panicked"


@pytest.mark.parametrize("close_in_the_middle", [False, True])
@pytest.mark.parametrize(("lots", "count"), [(LOTS, TASKS), (CALM, 8 * TASKS)], ids=["", "calm"])
def test_each_task_ends_once_and_as_it_would_have_alone(
    close_in_the_middle: bool, lots: list[Lot], count: int, tmp_path: Path
) -> None:
    half = threading.Barrier(SUBMITTERS + 1) if close_in_the_middle else None
    pool = Pool(3, 64, backend=HASTY, panic_recovery=TIRELESS, name="chaos")
    submitters = [Submitting(pool, seed, tmp_path, half, count, lots) for seed in range(SUBMITTERS)]
    run_out(pool, submitters, half)


def run_out(
    pool: Pool, submitters: list[Submitting], half: threading.Barrier | None, **known: bool
) -> None:
    """Have them submit, and see how all tasks end; with a barrier, close in the middle."""
    for one in submitters:
        one.start()
    if half is not None:
        half.wait(PATIENCE)
        pool.close(PATIENCE)
    for one in submitters:
        one.join()
        assert one.fault is None, one.fault
    pool.drain(PATIENCE)
    tasks = [task for one in submitters for task in one.tasks]
    assert all(future.done() for _, _, future in tasks)
    seen = Counter(check(*task, closed=half is not None, **known) for task in tasks)
    numbers = pool.metrics()
    assert (numbers.submitted, numbers.queued, numbers.running) == (len(tasks), 0, 0)
    for name in ("completed", "failed", "panicked", "cancelled"):
        assert getattr(numbers, name) == seen[name], (name, numbers, seen)


def test_whoever_is_killed_from_outside_costs_no_task_that_may_run_twice() -> None:
    chance = random.Random(7)
    with Pool(3, 16, backend=HASTY, panic_recovery=TIRELESS) as pool:
        patient = pool.options(retry_on_worker_death=1000)
        for number, found in enumerate(patient.map(errands.echo, range(2000))):
            assert found == number
            if number % 50 == 0 and (children := running_children()):
                kill(chance.choice(children))  # at a task, between two, or while it starts
        numbers = pool.metrics()
        assert (numbers.completed, numbers.panicked) == (2000, 0)


def test_a_kill_from_outside_costs_the_task_that_has_begun_and_no_other(tmp_path: Path) -> None:
    chance, kills, record = random.Random(11), 0, tmp_path / "record"
    with Pool(3, 500, backend=HASTY, panic_recovery=TIRELESS) as pool:
        futures = []
        for number in range(3000):
            futures.append(pool.submit(errands.record, record, number))
            if number % 100 == 99 and (children := running_children()):
                kill(chance.choice(children))
                kills += 1
        errors = [one.exception(PATIENCE) for one in futures]
    lost = [number for number, error in enumerate(errors) if error is not None]
    assert len(lost) <= kills
    assert all(isinstance(one, TaskPanicked) for one in errors if one is not None)
    done = [int(line) for line in record.read_text().split()]
    assert len(done) == len(set(done))
    assert set(range(3000)) - set(lost) <= set(done)
