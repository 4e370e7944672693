"""Tasks that are sent before their turn, by a runner that does as the test says."""

from __future__ import annotations

import contextlib
import contextvars
import ctypes
import functools
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ion_actors import (
    Backoff,
    Cancelled,
    DeadlineExceeded,
    PanicRecovery,
    Pool,
    TaskAbandoned,
    TaskDropped,
    TaskPanicked,
    WorkerDied,
)
from ion_actors.backends.protocol import NotReady, Task, TasksAhead
from ion_actors.context import Context
from ion_actors.observe import Log
from tests.workerpool.helpers import PATIENCE, eventually

TIRELESS = PanicRecovery(max_restarts=None, backoff=Backoff(initial=0.0, retries=1000))


class Foresight:
    """The backend: its runners take so many tasks ahead whenever they are called."""

    must_start = True

    def __init__(self, window: int = 4) -> None:
        self.window = window
        self.begun: list[Task] = []
        self.taken: list[int] = []  # how many came each time
        self.runners: list[Runner] = []

    def make_runner(self, worker: str, context: Context, log: Log) -> Runner:
        self.runners.append(Runner(self, worker))
        return self.runners[-1]


class Dies(BaseException):
    """Raised by a task that takes its runner with it."""


class Runner:
    inline = False

    def __init__(self, backend: Foresight, worker: str) -> None:
        self.backend = backend
        self.worker = worker
        self.line: deque[Task] = deque()
        self.ahead: TasksAhead | None = None
        self.dead = False
        self.killed = threading.Event()

    def look_ahead(self, tasks: TasksAhead) -> None:
        self.ahead = tasks

    def start(self, initializer: Callable[..., object] | None, initargs: tuple[Any, ...]) -> None:
        pass

    def call(self, task: Task) -> Any:
        if self.line and self.line[0] is task:
            self.line.popleft()
        if self.dead:
            raise WorkerDied("nobody knows whether it had begun", worker=self.worker)
        if self.ahead is not None and (room := self.backend.window - len(self.line)) > 0:
            found = self.ahead.take(room, lambda one: one.fn is not _unfit)
            self.backend.taken.append(len(found))
            self.line.extend(found)
        if task.own_context is not None and task.own_context.cancelled:
            self.give_back()
            task.own_context.check()
        self.backend.begun.append(task)
        _now.runner = self
        try:
            return task.variables.copy().run(task.fn, *task.args)
        except Dies:
            self.dead = True
            raise WorkerDied("it died", worker=self.worker) from None
        except BaseException:
            self.give_back()
            raise
        finally:
            del task

    def give_back(self) -> None:
        assert self.ahead is not None
        given = list(self.line)
        self.line.clear()
        self.ahead.give_back(given)

    def kill(self) -> bool:
        self.killed.set()
        return True

    def stop(self, failure: BaseException | None = None) -> None:
        pass

    def finish(self, value: Any, context: Context, variables: contextvars.Context) -> Any:
        return value

    @contextlib.contextmanager
    def on_top(self) -> Iterator[None]:
        yield


_now = threading.local()


def _runner() -> Runner:
    found: Runner = _now.runner
    return found


# -- what tasks do -----------------------------------------------------------------------------


def _unfit(value: int) -> int:
    return value


def _long(begun: threading.Event, go: threading.Event) -> str:
    """Takes long: what is ahead is given back."""
    _runner().give_back()
    begun.set()
    assert go.wait(PATIENCE)
    return "went"


def _hold(begun: threading.Event, go: threading.Event) -> str:
    """Keeps what is ahead."""
    begun.set()
    assert go.wait(PATIENCE)
    return "went"


def _die_alone() -> None:
    """Dies, and nothing else had begun."""
    _runner().give_back()
    raise Dies


def _die_unseen() -> None:
    """Dies, and nobody knows what had begun."""
    raise Dies


def _leave() -> None:
    raise SystemExit(3)


class Held:
    """A pool whose first task holds it, so that what follows is queued."""

    def __init__(self, size: int = 1, window: int = 4, how: Any = _hold, **settings: Any) -> None:
        self.backend = Foresight(window)
        self.pool = Pool(size, 100, backend=self.backend, panic_recovery=TIRELESS, **settings)
        self.begun, self.go = threading.Event(), threading.Event()
        self.how = how

    def __enter__(self) -> Held:
        self.pool.__enter__()
        self.holds = [self.hold() for _ in range(self.pool.metrics().size)]
        return self

    def hold(self) -> Any:
        self.begun.clear()
        future = self.pool.submit(self.how, self.begun, self.go)
        assert self.begun.wait(PATIENCE)
        return future

    def __exit__(self, *error: Any) -> None:
        self.go.set()
        self.pool.__exit__(*error)
        numbers = self.pool.metrics()
        assert (numbers.queued, numbers.running) == (0, 0)


def _ahead(pool: Pool, *calls: Any) -> tuple[threading.Event, threading.Event, list[Any]]:
    """Have the first worker that is free hold, with these calls ahead of it."""
    begun, go = threading.Event(), threading.Event()
    futures = [pool.submit(_hold, begun, go)]
    futures += [pool.submit(*call) for call in calls]
    return begun, go, futures


# -- what is promised --------------------------------------------------------------------------


def test_each_runs_once_and_in_order() -> None:
    with Held() as held:
        futures = [held.pool.submit(pow, 2, n) for n in range(20)]
        held.go.set()
        assert [one.result(PATIENCE) for one in futures] == [2**n for n in range(20)]
        assert [one.args[1:] for one in held.backend.begun[1:]] == [()] * 20  # dropped by now
        assert len(set(map(id, held.backend.begun))) == 21
        assert max(held.backend.taken) == 4
        numbers = held.pool.metrics()
        assert (numbers.completed, numbers.running, numbers.submitted) == (21, 0, 21)


def test_no_more_than_a_workers_share() -> None:
    with Held(2, window=50) as held:
        futures = [held.pool.submit(pow, 2, n) for n in range(20)]
        held.go.set()
        assert [one.result(PATIENCE) for one in futures] == [2**n for n in range(20)]
        assert max(held.backend.taken) <= 10


def test_what_is_ahead_counts_as_running() -> None:
    with Held() as held:
        begun, go, futures = _ahead(held.pool, *[(pow, 2, n) for n in range(5)])
        held.go.set()
        assert begun.wait(PATIENCE)
        numbers = held.pool.metrics()
        assert (numbers.running, numbers.queued, numbers.submitted) == (5, 1, 7)
        assert futures[1].running()
        assert not futures[1].cancel()
        go.set()
        assert futures[2].result(PATIENCE) == 2
        with pytest.raises(Cancelled):
            futures[1].result(PATIENCE)
        assert len(held.backend.begun) == 6  # the cancelled one has not begun


def test_what_is_given_back_is_run_by_others_in_order() -> None:
    with Held(2, how=_long) as held:
        order: list[int] = []
        futures = [held.pool.submit(order.append, n) for n in range(8)]
        begun, go = threading.Event(), threading.Event()
        blocked = held.pool.submit(_long, begun, go)
        held.go.set()
        for one in futures:
            one.result(PATIENCE)
        assert begun.wait(PATIENCE)
        last = [held.pool.submit(order.append, n) for n in range(8, 12)]
        for one in last:
            one.result(PATIENCE)
        assert not blocked.done()
        assert order[8:] == [8, 9, 10, 11]
        go.set()


def test_a_long_task_gives_back_what_is_ahead_of_it() -> None:
    with Held(how=_long) as held:
        begun, go = threading.Event(), threading.Event()
        long = held.pool.submit(_long, begun, go)
        futures = [held.pool.submit(pow, 2, n) for n in range(4)]
        held.go.set()
        assert begun.wait(PATIENCE)
        assert held.backend.taken[-1] == 4
        numbers = held.pool.metrics()
        assert (numbers.running, numbers.queued) == (1, 4)
        assert futures[1].cancel()
        go.set()
        assert long.result(PATIENCE) == "went"
        assert [one.result(PATIENCE) for one in (futures[0], *futures[2:])] == [1, 4, 8]


def test_what_is_given_back_is_next() -> None:
    with Held(window=3) as held:
        begun, go, order = threading.Event(), threading.Event(), list[int]()
        futures = [held.pool.submit(_long, begun, go)]
        futures += [held.pool.submit(order.append, n) for n in range(8)]
        held.go.set()
        assert begun.wait(PATIENCE)
        assert held.pool.metrics().queued == 8
        go.set()
        for one in futures:
            one.result(PATIENCE)
        assert order == list(range(8))


@pytest.mark.parametrize("crash", [_die_alone, _leave])
def test_a_crash_costs_one_task(crash: Any) -> None:
    with Held() as held:
        guilty, others = held.pool.submit(crash), [held.pool.submit(pow, 2, n) for n in range(9)]
        held.go.set()
        with pytest.raises(TaskPanicked):
            guilty.result(PATIENCE)
        assert [one.result(PATIENCE) for one in others] == [2**n for n in range(9)]
        numbers = held.pool.metrics()
        assert (numbers.panicked, numbers.completed, numbers.restarts) == (1, 10, 1)


def test_an_unseen_crash_costs_what_was_ahead_and_one_worker() -> None:
    with Held() as held:
        futures = [held.pool.submit(_die_unseen), *[held.pool.submit(pow, 2, n) for n in range(9)]]
        held.go.set()
        errors = [one.exception(PATIENCE) for one in futures]
        assert [type(one) for one in errors] == [TaskPanicked] * 5 + [type(None)] * 5
        assert "nobody knows" in str(errors[1].__cause__)
        numbers = held.pool.metrics()
        assert (numbers.panicked, numbers.restarts, numbers.running) == (5, 1, 0)


def test_what_may_be_run_again_is() -> None:
    with Held() as held:
        again = held.pool.options(retry_on_worker_death=1)
        futures = [held.pool.submit(_die_unseen), *[again.submit(pow, 2, n) for n in range(6)]]
        held.go.set()
        assert [one.result(PATIENCE) for one in futures[1:]] == [2**n for n in range(6)]
        assert type(futures[0].exception(0)) is TaskPanicked
        assert held.pool.metrics().panicked == 1


def test_a_time_limit_ends_what_is_ahead() -> None:
    with Held() as held:
        begun, go, _ = _ahead(held.pool)
        late = held.pool.options(timeout=0.05).submit(pow, 2, 3)
        held.go.set()
        assert begun.wait(PATIENCE)
        assert held.pool.metrics().queued == 0
        with pytest.raises(DeadlineExceeded):
            late.result(PATIENCE)  # though its turn has not come
        go.set()
    assert len(held.backend.begun) == 2


def test_what_was_cancelled_ahead_does_not_wait_for_a_worker() -> None:
    with Held() as held:
        begun, go = threading.Event(), threading.Event()
        middle, give = threading.Event(), threading.Event()
        held.pool.submit(_give_back_then_hold, begun, give, middle, go)
        future = held.pool.submit(pow, 2, 5)
        held.go.set()
        assert begun.wait(PATIENCE)
        assert not future.cancel()
        assert not future.done()
        give.set()
        with pytest.raises(Cancelled):
            future.result(PATIENCE)
        go.set()


def _give_back_then_hold(
    begun: threading.Event, give: threading.Event, middle: threading.Event, go: threading.Event
) -> None:
    begun.set()
    assert give.wait(PATIENCE)
    _runner().give_back()
    middle.set()
    assert go.wait(PATIENCE)


# -- what does not go ahead --------------------------------------------------------------------


def test_what_does_not_fit_waits_and_so_does_what_comes_after() -> None:
    with Held() as held:
        futures = [held.pool.submit(fn, 1) for fn in (abs, _unfit, abs, abs)]
        held.go.set()
        assert [one.result(PATIENCE) for one in futures] == [1] * 4
        assert held.backend.taken[1] == 0 or held.backend.taken[2] == 0


@pytest.mark.parametrize("option", [{"ttl": 30.0}, {"key": "k"}, {"priority": 1}])
def test_some_tasks_wait_for_their_turn(option: dict[str, Any]) -> None:
    with Held() as held:
        futures = [held.pool.options(**option).submit(abs, 1) for _ in range(4)]
        held.go.set()
        assert [one.result(PATIENCE) for one in futures] == [1] * 4
        assert set(held.backend.taken) == {0}


@pytest.mark.parametrize(
    "settings",
    [{"task_wrapper": lambda call: call}, {"metrics": True}],
)
def test_some_pools_send_nothing_ahead(settings: dict[str, Any]) -> None:
    if "metrics" in settings:
        prometheus: Any = pytest.importorskip("prometheus_client")
        from ion_actors.observe.prometheus import PrometheusMetrics

        settings = {"metrics": PrometheusMetrics(registry=prometheus.CollectorRegistry())}
    backend = Foresight()
    with Pool(1, 100, backend=backend, **settings) as pool:
        assert list(pool.map(abs, range(20))) == list(range(20))
        assert backend.runners[0].ahead is None


def test_a_paused_pool_sends_nothing_ahead() -> None:
    with Held() as held:
        futures = [held.pool.submit(pow, 2, n) for n in range(4)]
        held.pool.pause()
        held.go.set()
        eventually(held.holds[0].done)
        assert held.pool.metrics().queued == 4
        held.pool.resume()
        assert [one.result(PATIENCE) for one in futures] == [1, 2, 4, 8]


# -- the end -----------------------------------------------------------------------------------


def test_a_drain_runs_what_is_ahead() -> None:
    held = Held()
    with held:
        begun, go, futures = _ahead(held.pool, *[(pow, 2, n) for n in range(6)])
        held.go.set()
        assert begun.wait(PATIENCE)
        drain = threading.Thread(target=held.pool.drain, args=(PATIENCE,))
        drain.start()
        eventually(lambda: held.pool.snapshot().state == "draining")
        go.set()
        drain.join(PATIENCE)
        assert [one.result(0) for one in futures[1:]] == [2**n for n in range(6)]


def test_what_is_ahead_at_the_end_is_given_up() -> None:
    held = Held()
    with held:
        begun, go, futures = _ahead(held.pool, *[(pow, 2, n) for n in range(6)])
        held.go.set()
        assert begun.wait(PATIENCE)
        with contextlib.suppress(Exception):
            held.pool.close(0.2)
        assert all(one.done() for one in futures)
        kinds = [type(_error(one)) for one in futures]
        assert kinds == [TaskAbandoned] * 5 + [TaskDropped] * 2
        go.set()


def _error(future: Any) -> BaseException | None:
    try:
        future.result(0)
    except BaseException as error:
        return error
    return None


def test_what_is_given_back_after_the_end_ends_with_the_pool() -> None:
    with Held() as held:
        begun, go, futures = _ahead(held.pool)
        middle, give = threading.Event(), threading.Event()
        held.pool.submit(_give_back_then_hold, begun, give, middle, go)
        rest = [held.pool.submit(pow, 2, n) for n in range(3)]
        held.go.set()
        assert begun.wait(PATIENCE)
        closing = threading.Thread(target=functools.partial(_close, held.pool))
        closing.start()
        eventually(lambda: held.pool.metrics().queued == 0)
        give.set()
        go.set()
        closing.join(PATIENCE)
        assert all(one.done() for one in (*futures, *rest))


def _close(pool: Pool) -> None:
    with contextlib.suppress(Exception):
        pool.close(PATIENCE)


def test_a_worker_with_tasks_ahead_that_retires_runs_them() -> None:
    with Held(2) as held:
        futures = [held.pool.submit(pow, 2, n) for n in range(12)]
        resize = threading.Thread(target=held.pool.resize, args=(1,))
        resize.start()
        held.go.set()
        resize.join(PATIENCE)
        assert [one.result(PATIENCE) for one in futures] == [2**n for n in range(12)]


def test_nothing_is_lost_when_a_worker_is_interrupted() -> None:
    with Held() as held:
        begun, go, futures = _ahead(held.pool, *[(pow, 2, n) for n in range(6)])
        held.go.set()
        assert begun.wait(PATIENCE)
        (thread,) = {one for one in threading.enumerate() if one.name.endswith("-0")}
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(thread.ident or 0), ctypes.py_object(ZeroDivisionError)
        )
        go.set()
        for one in futures:
            one.exception(PATIENCE)
        assert held.pool.metrics().running == 0


@given(
    lots=st.lists(st.sampled_from(["well", "fail", "die", "lost", "leave"]), max_size=25),
    window=st.integers(1, 8),
    size=st.integers(1, 3),
)
def test_the_books_balance(lots: list[str], window: int, size: int) -> None:
    calls: dict[str, Any] = {
        "well": (abs, 1), "fail": (int, "x"), "die": (_die_alone,), "lost": (_die_unseen,),
        "leave": (_leave,),
    }  # fmt: skip
    backend = Foresight(window)
    with Pool(size, 100, backend=backend, panic_recovery=TIRELESS) as pool:
        futures = [pool.submit(*calls[lot]) for lot in lots]
        for lot, one in zip(lots, futures, strict=True):
            error = one.exception(PATIENCE)
            if lot in ("die", "lost", "leave"):
                assert type(error) is TaskPanicked
            elif "lost" not in lots:
                assert type(error) is {"well": type(None), "fail": ValueError}[lot]
        numbers = pool.metrics()
        assert numbers.submitted == len(lots)
        assert (numbers.queued, numbers.running) == (0, 0)
        assert len(set(map(id, backend.begun))) == len(backend.begun)  # at most once


def test_a_runner_that_is_not_ready_has_taken_nothing() -> None:
    class Unready(Foresight):
        def make_runner(self, worker: str, context: Context, log: Log) -> Runner:
            found = super().make_runner(worker, context, log)
            if len(self.runners) == 1:
                found.call = _not_ready  # type: ignore[method-assign]
            return found

    backend = Unready()
    with Pool(1, 100, backend=backend, panic_recovery=TIRELESS) as pool:
        assert list(pool.map(abs, range(9))) == list(range(9))


def _not_ready(task: Task) -> Any:
    raise NotReady
