"""A pool against a model of it: random submissions, cancellations, endings, step by step."""

from __future__ import annotations

import threading
from collections import deque

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    precondition,
    rule,
)

from ion_actors import (
    Cancelled,
    Context,
    DeadlineExceeded,
    Pool,
    QueueFull,
    TaskDropped,
    TaskPanicked,
)
from ion_actors.futures import Future
from ion_actors.testing import VirtualClock
from tests import rounds
from tests.inside import resting
from tests.workerpool.helpers import PATIENCE, eventually

WORKERS, ROOM = 2, 3


class Step:
    """A task whose end the test decides."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.ending: deque[str] = deque()
        self._told = threading.Event()

    def __call__(self) -> str:
        self.begun.set()
        assert self._told.wait(PATIENCE), "the test forgot this task"
        ending = self.ending[0]
        if ending == "raise":
            raise ZeroDivisionError
        if ending == "panic":
            raise SystemExit
        return ending

    def end(self, ending: str) -> None:
        self.ending.append(ending)
        self._told.set()


class PoolModel(RuleBasedStateMachine):
    """The model: who runs, who waits in which order, since when, and what the counts must be."""

    tasks: Bundle[tuple[Step, Future[str]]] = Bundle("tasks")

    def __init__(self) -> None:
        super().__init__()
        self.clock = VirtualClock()
        self.pool = Pool(WORKERS, ROOM, context=Context(clock=self.clock), name="model")
        self.running: list[tuple[Step, Future[str]]] = []
        self.queued: deque[tuple[Step, Future[str]]] = deque()
        self.limits: dict[Future[str], float] = {}
        self.accepted: dict[Future[str], float] = {}  # when, of those that had to queue
        self.paused = False
        self.counts = dict.fromkeys(
            ("submitted", "completed", "failed", "panicked", "cancelled", "rejected"), 0
        )

    @rule(target=tasks, limit=st.sampled_from([None, None, 5.0, 20.0]))
    def submit(self, limit: float | None) -> tuple[Step, Future[str]]:
        step = Step()
        try:
            future = self.pool.options(timeout=limit).try_submit(step)
        except QueueFull:
            assert self.paused or len(self.running) == WORKERS
            assert len(self.queued) == ROOM
            self.counts["rejected"] += 1
            future = Future()
            future.set_result("refused")
            return step, future
        assert self.may_begin() or len(self.queued) < ROOM
        self.counts["submitted"] += 1
        if limit is not None:
            self.limits[future] = self.clock.monotonic() + limit
        if self.may_begin():
            self.begin((step, future))
        else:
            self.queued.append((step, future))
            self.accepted[future] = self.clock.monotonic()
        return step, future

    def may_begin(self) -> bool:
        return len(self.running) < WORKERS and not self.paused

    def begin(self, task: tuple[Step, Future[str]]) -> None:
        assert task[0].begun.wait(PATIENCE), "an idle worker did not take its task"
        self.running.append(task)

    def next_begins(self) -> None:
        while self.queued and self.may_begin():
            self.begin(self.queued.popleft())

    @rule()
    def pause(self) -> None:
        self.pool.pause()
        self.paused = True

    @rule()
    def resume(self) -> None:
        self.pool.resume()
        self.paused = False
        self.next_begins()

    @rule(age=st.sampled_from([0.0, 1.0, 8.0]))
    def purge(self, age: float) -> None:
        now = self.clock.monotonic()
        gone = [task for task in self.queued if now - self.accepted[task[1]] >= age]
        assert self.pool.purge(lambda task: task.age >= age) == len(gone)
        for task in gone:
            self.queued.remove(task)
            self.limits.pop(task[1], None)
            assert isinstance(self.error_of(task[1]), TaskDropped)
        self.counts["cancelled"] += len(gone)

    @precondition(lambda self: self.running)
    @rule(ending=st.sampled_from(["return", "raise", "panic"]), which=st.integers(0, WORKERS - 1))
    def end_one(self, ending: str, which: int) -> None:
        step, future = self.running.pop(which % len(self.running))
        overran = future.done()
        step.end(ending)
        if not overran:
            error = future.exception(PATIENCE)
            kinds = {"raise": ZeroDivisionError, "panic": TaskPanicked, "return": type(None)}
            assert isinstance(error, kinds[ending])
            words = {"raise": "failed", "panic": "panicked", "return": "completed"}
            self.counts[words[ending]] += 1
        self.limits.pop(future, None)
        if self.paused or not self.queued:
            self.await_idle()
        self.next_begins()

    def await_idle(self) -> None:
        """The worker is back at the mailbox: only then is there room for one more."""
        idle = WORKERS - len(self.running)
        eventually(lambda: resting(self.pool) == idle)

    @rule(task=consumes(tasks))
    def cancel(self, task: tuple[Step, Future[str]]) -> None:
        done_before = task[1].done()
        if task in self.queued:
            assert task[1].cancel()
            self.queued.remove(task)
            self.limits.pop(task[1], None)
            self.counts["cancelled"] += 1
            assert isinstance(self.error_of(task[1]), Cancelled)
        elif done_before:
            assert task[1].cancel() == task[1].cancelled()

    @rule(seconds=st.sampled_from([1.0, 7.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)
        now = self.clock.monotonic()
        for future in [one for one, limit in self.limits.items() if limit <= now]:
            del self.limits[future]
            assert isinstance(self.error_of(future), DeadlineExceeded)
            self.counts["cancelled"] += 1
        self.queued = deque(task for task in self.queued if not task[1].done())

    @staticmethod
    def error_of(future: Future[str]) -> BaseException | None:
        assert future.done()
        try:
            return future.exception(0)
        except Cancelled as cancelled:
            return cancelled

    @invariant()
    def the_numbers_are_the_models(self) -> None:
        now = self.pool.metrics()
        assert now.queued == len(self.queued)
        assert now.running == sum(not future.done() for _, future in self.running)
        assert now.paused == self.paused
        moment = self.clock.monotonic()
        ages = [moment - self.accepted[future] for _, future in self.queued]
        assert [one.age for one in self.pool.queued()] == ages
        for name, count in self.counts.items():
            assert getattr(now, name) == count, (name, now, self.counts)

    def teardown(self) -> None:
        for step, _ in [*self.running, *self.queued]:
            step.end("return")
        self.pool.drain()
        now = self.pool.metrics()
        assert now.queued == now.running == 0
        ended = now.completed + now.failed + now.panicked + now.cancelled
        assert ended == now.submitted == self.counts["submitted"]


TestPoolModel = PoolModel.TestCase
TestPoolModel.settings = settings(
    max_examples=rounds(30, thorough=200), stateful_step_count=30, deadline=None
)
