"""The supervisor's own faults lose neither a task nor a pending future.

Faults are injected at every step that a supervisor takes: the n-th call that is made on its thread,
of any function that it consists of or relies on, raises instead (or afterwards).
"""

from __future__ import annotations

import functools
import itertools
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ion_actors import (
    Backoff,
    BrokenPool,
    Context,
    DrainTimeout,
    Future,
    PanicRecovery,
    Pool,
    PoolMetrics,
    TaskAbandoned,
    TaskPanicked,
)
from ion_actors.actors import ControlLane
from ion_actors.clock import Timer, system_clock
from ion_actors.testing import VirtualClock
from ion_actors.workerpool.mailbox.mailbox import Mailbox
from ion_actors.workerpool.mailbox.task_queue import TaskQueue
from ion_actors.workerpool.messages import Needed, Ready, Stopped
from ion_actors.workerpool.model.lifecycle import Life
from ion_actors.workerpool.model.recovery import RestartWindow
from ion_actors.workerpool.supervisor.roster import Roster
from ion_actors.workerpool.supervisor.supervisor import PoolSupervisor
from ion_actors.workerpool.supervisor.watchdog import Watchdog
from ion_actors.workerpool.worker.worker import PoolWorker
from tests import rounds
from tests.workerpool.helpers import PATIENCE, Gate, busy, eventually, run_in_thread

#: What a supervisor consists of, without what begins it.
OWN = [
    (kind, name)
    for kind in (Roster, Watchdog, PoolSupervisor)
    for name, member in vars(kind).items()
    if callable(member) and name not in ("__init__", "_give_up", "_end_without_report")
    if not isinstance(member, staticmethod) and not getattr(member, "__isabstractmethod__", False)
]
#: What it relies on: it may fail before it does anything.
OTHERS = [
    (Mailbox, "drop_queue"), (Mailbox, "fence"), (Mailbox, "count_restart"), (Mailbox, "refuse"),
    (TaskQueue, "discharge"), (TaskQueue, "unpark"), (Life, "drain"), (Life, "close"),
    (Life, "all_ended"),
    (RestartWindow, "allow"), (PoolWorker, "start_thread"), (PoolWorker, "retire"),
]  # fmt: skip


class Bug(Exception):
    """What is injected."""


class Saboteur:
    """Makes the calls of these numbers fail, of those that supervisors make."""

    def __init__(self, numbers: set[int], *, afterwards: bool = False) -> None:
        self.numbers = numbers
        self.afterwards = afterwards
        self.calls: list[str] = []
        self.done: list[str] = []

    def wrap(self, kind: type, name: str, may_be_done: bool) -> Callable[..., Any]:
        real = getattr(kind, name)

        @functools.wraps(real)
        def call(*args: Any, **kwargs: Any) -> Any:
            if not threading.current_thread().name.endswith("-supervisor"):
                return real(*args, **kwargs)
            number = len(self.calls)
            self.calls.append(f"{kind.__name__}.{name}")
            fails = number in self.numbers
            if fails and not (self.afterwards and may_be_done):
                self.done.append(self.calls[number])
                raise Bug(self.calls[number])
            result = real(*args, **kwargs)
            if fails:
                self.done.append(f"after {self.calls[number]}")
                raise Bug(self.calls[number])
            return result

        return call


@contextmanager
def sabotage(numbers: set[int], *, afterwards: bool = False) -> Iterator[Saboteur]:
    saboteur = Saboteur(numbers, afterwards=afterwards)
    with pytest.MonkeyPatch.context() as patch:
        for kind, name in OWN:
            patch.setattr(kind, name, saboteur.wrap(kind, name, may_be_done=True))
        for kind, name in OTHERS:
            patch.setattr(kind, name, saboteur.wrap(kind, name, may_be_done=False))
        yield saboteur


def adds_up(numbers: PoolMetrics) -> bool:
    return numbers.submitted == (
        numbers.queued + numbers.running + numbers.completed + numbers.failed
        + numbers.panicked + numbers.cancelled
    )  # fmt: skip


def quiet() -> logging.Logger:
    logger = logging.getLogger("unheard")
    logger.setLevel(logging.CRITICAL + 1)
    return logger


def dies() -> None:
    raise SystemExit


def initialize_thrice() -> Callable[[], None]:
    """An initializer that fails at first."""
    calls = itertools.count()

    def initializer() -> None:
        if next(calls) < 1:
            raise OSError("not yet")

    return initializer


def a_life(pool: Pool) -> tuple[list[Future[Any]], list[Future[Any]]]:
    """Tasks, panics, another size, and the end. Returns the futures: of tasks, of panics."""
    fine: list[Future[Any]] = []
    panics: list[Future[Any]] = []
    for number in range(6):
        fine.append(pool.submit(pow, 2, number))
        if number % 3 == 0:
            panics.append(pool.submit(dies))
    fine.append(pool.options(retry_on_worker_death=5).submit(pow, 3, 3))
    pool.resize(3)
    fine += [pool.submit(pow, 2, number) for number in range(6)]
    pool.resize(1)
    report = pool.drain(PATIENCE)
    assert report.unfinished == ()
    assert report.elapsed < PATIENCE / 2, "it ended by its deadline only"
    return fine, panics


POLICY = PanicRecovery(backoff=Backoff(initial=0.0, retries=5))


def live_through(numbers: set[int], *, afterwards: bool, initializer: bool) -> Saboteur:
    timers = system_clock.timers
    with sabotage(numbers, afterwards=afterwards) as saboteur:
        pool = Pool(
            2, 100, logger=quiet(), panic_recovery=POLICY,
            initializer=initialize_thrice() if initializer else None,
        )  # fmt: skip
        try:
            fine, panics = a_life(pool)
        except BaseException as error:
            error.add_note(f"injected: {saboteur.done} at {numbers}, {pool.dump()}")
            error.add_note(f"{saboteur.calls}")
            raise
        for future in fine:
            assert future.exception(PATIENCE) is None, saboteur.done
        for future in panics:
            assert isinstance(future.exception(PATIENCE), TaskPanicked), saboteur.done
        assert pool.is_closed
        metrics = pool.metrics()
        assert adds_up(metrics)
        assert (metrics.completed, metrics.panicked) == (len(fine), len(panics)), saboteur.done
        eventually(lambda: not [one for one in threading.enumerate() if pool.name in one.name])
        eventually(lambda: system_clock.timers <= timers)
    return saboteur


@pytest.mark.parametrize("initializer", [False, True], ids=["plain", "initializer"])
@pytest.mark.parametrize("afterwards", [False, True], ids=["instead", "afterwards"])
def test_one_fault_at_any_step_loses_nothing(afterwards: bool, initializer: bool) -> None:
    steps = live_through(set(), afterwards=False, initializer=initializer).calls
    assert len(steps) > 30
    for number in range(len(steps)):
        live_through({number}, afterwards=afterwards, initializer=initializer)


@settings(max_examples=rounds(25, thorough=150))
@given(st.sets(st.integers(0, 60), max_size=3), st.booleans(), st.booleans())
def test_some_faults_anywhere_lose_nothing(
    numbers: set[int], afterwards: bool, initializer: bool
) -> None:
    live_through(numbers, afterwards=afterwards, initializer=initializer)


@settings(max_examples=rounds(25, thorough=150))
@given(st.sets(st.integers(0, 80), min_size=4, max_size=40), st.booleans())
def test_any_number_of_faults_leaves_no_future_pending(numbers: set[int], afterwards: bool) -> None:
    """Too many break the pool; and whoever waits is told so."""
    with sabotage(numbers, afterwards=afterwards) as saboteur:
        pool = Pool(2, 100, logger=quiet(), panic_recovery=POLICY)
        futures: list[Future[Any]] = []
        with suppress(BrokenPool):
            for number in range(8):
                futures += [pool.submit(pow, 2, number), pool.submit(dies)]
        with suppress(BrokenPool, DrainTimeout):
            pool.drain(1.0)  # a step that was not taken may be taken no sooner
        assert pool.is_closed
        for future in futures:
            try:
                future.exception(PATIENCE)
            except Exception as error:
                error.add_note(f"injected: {saboteur.done}")
                raise
        eventually(lambda: adds_up(pool.metrics()))


@settings(max_examples=rounds(20, thorough=100))
@given(st.integers(0, 40), st.booleans())
def test_a_fault_while_it_is_closed_ends_every_future(number: int, afterwards: bool) -> None:
    with sabotage({number}, afterwards=afterwards) as saboteur:
        pool = Pool(2, 100, logger=quiet())
        with busy(pool) as gate:
            queued = [pool.submit(pow, 2, 2) for _ in range(5)]
            closing = run_in_thread(pool.close, PATIENCE)
            for future in queued:
                eventually(future.done)
                assert future.cancelled(), saboteur.done
            gate.open()
        report = closing.result(PATIENCE)
        assert len(report.cancelled) == 5, saboteur.done  # type: ignore[attr-defined]


@pytest.mark.parametrize("number", range(25))
def test_a_fault_at_the_deadline_still_abandons(number: int, clock: VirtualClock) -> None:
    with sabotage({number}) as saboteur:
        pool = Pool(1, context=Context(clock=clock), logger=quiet())
        gate = Gate()
        stuck, queued = pool.submit(gate), pool.submit(pow, 2, 2)
        gate.await_entered()
        draining = run_in_thread(pool.drain, 10)
        clock.wait_for_timers(1)
        clock.advance(9.95)
        eventually(queued.done)
        eventually(lambda: clock.timers)
        clock.advance(0.1)
        error = draining.exception(PATIENCE)
        assert isinstance(error, DrainTimeout), (error, saboteur.done)
        assert isinstance(stuck.exception(PATIENCE), TaskAbandoned)
        assert len(error.report.running) == 1
        assert len(error.report.cancelled) == 1
        gate.open()


# -- its clock, and what is thrown into its thread -----------------------------------------------


class FaultyClock(VirtualClock):
    """Fails once, when it is asked by a supervisor for the n-th time."""

    def __init__(self, fails_at: int) -> None:
        super().__init__()
        self.fails_at = fails_at
        self.asked = 0

    def _ask(self) -> None:
        if threading.current_thread().name.endswith("-supervisor"):
            self.asked += 1
            if self.asked == self.fails_at:
                raise Bug("the clock")

    def monotonic(self) -> float:
        self._ask()
        return super().monotonic()

    def call_at(self, when: float, call: Callable[[], object]) -> Timer:
        self._ask()
        return super().call_at(when, call)


@pytest.mark.parametrize("fails_at", range(1, 12))
def test_a_fault_of_its_clock(fails_at: int) -> None:
    clock = FaultyClock(fails_at)
    pool = Pool(2, context=Context(clock=clock), logger=quiet(), stuck_after=5)
    panicking, fine = pool.submit(dies), pool.submit(pow, 2, 3)
    assert isinstance(panicking.exception(PATIENCE), TaskPanicked)
    assert fine.result(PATIENCE) == 8
    pool.drain(60)
    assert clock.timers == 0


class Thrown(BaseException):
    """Thrown into a thread."""


@pytest.mark.parametrize("lost", [None, Needed, Ready, Stopped], ids=str)
def test_what_is_thrown_into_it_while_it_waits_for_mail(
    lost: type | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Even if it had the message in its hands, which is lost with it."""
    real, thrown = ControlLane.get, []

    def get(self: ControlLane) -> Any:
        envelope = real(self)
        if not thrown and lost in (None, type(envelope.message)):
            thrown.append(envelope)
            if lost is None:
                self.put(envelope)
            raise Thrown
        return envelope

    monkeypatch.setattr(ControlLane, "get", get)
    pool = Pool(1, name="p", initializer=(lambda: None) if lost is Ready else None)
    panicking, fine = pool.submit(dies), pool.submit(pow, 2, 3)
    assert isinstance(panicking.exception(PATIENCE), TaskPanicked)
    assert fine.result(PATIENCE) == 8
    pool.drain(PATIENCE)
    assert thrown
    assert "goes on" in caplog.text


def test_a_worker_without_a_thread_whose_dismissal_failed_is_not_waited_for(
    clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, failed = TaskQueue.discharge, []

    def discharge(self: TaskQueue, *args: Any) -> None:
        if not failed:
            failed.append(args)
            raise Bug
        real(self, *args)

    monkeypatch.setattr(TaskQueue, "discharge", discharge)
    pool = Pool(2, context=Context(clock=clock), logger=quiet())
    draining = run_in_thread(pool.drain, 60)
    try:
        assert draining.result(PATIENCE), "its deadline never comes"
    finally:
        clock.advance(60)
    assert failed


def test_the_fourth_fault_in_a_minute_breaks_the_pool(
    clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, faults = Watchdog.look, []

    def look(self: Watchdog, message: Any) -> None:
        if not faults or faults[-1] != clock.monotonic():  # once each time
            faults.append(clock.monotonic())
            raise Bug
        real(self, message)

    monkeypatch.setattr(Watchdog, "look", look)
    pool = Pool(1, context=Context(clock=clock), logger=quiet(), stuck_after=50)

    def fault(after: float) -> None:
        before = len(faults)
        clock.wait_for_timers(1)
        clock.advance(after)
        eventually(lambda: len(faults) > before)

    for _ in range(6):  # three in a minute are forgiven, again and again
        fault(25)
        assert pool.submit(pow, 2, 2).result(PATIENCE) == 4
    assert not pool.is_draining
    pool.close()


def test_a_request_that_cannot_be_done_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    def resize(self: Roster, size: int) -> None:
        raise Bug("always")

    monkeypatch.setattr(Roster, "resize", resize)
    pool = Pool(1, logger=quiet())
    with pytest.raises(Bug, match="always"):
        pool.resize(3)
    eventually(lambda: pool.is_closed)  # it is answered before the pool breaks
    with pytest.raises(BrokenPool, match="its supervisor failed"):
        pool.submit(pow, 2, 2)
    pool.close()
