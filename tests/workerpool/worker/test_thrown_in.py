"""What is thrown into the library's threads from outside ends at most that thread.

At each point of a thread at which CPython lets an exception in (a function begins or returns, a
call of a C function is over), something throws one: a profiler that raises does, and so does
``PyThreadState_SetAsyncExc``. No other actor may be stopped by it, no future may stay pending, no
callback be forgotten, and the numbers add up.
"""

from __future__ import annotations

import concurrent.futures
import itertools
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pykka
import pytest

from ion_actors import Future, PanicRecovery, Pool, PoolMetrics
from ion_actors.supervision import Supervisor, child
from tests.interrupts import is_between_lock_and_block
from tests.workerpool.helpers import PATIENCE, eventually

# While an exception is pending for one thread, CPython 3.11 spins in every other traced thread:
# those never get to what would raise it.
not_while_traced = pytest.mark.skipif(
    sys.gettrace() is not None and sys.version_info < (3, 12),
    reason="CPython 3.11 hangs in traced threads while an exception is pending for another one",
)

MANY = PanicRecovery(max_restarts=10**6)

_names = itertools.count()


class SoftLimit(Exception):
    """An interruption that is an Exception."""


class Bystander(pykka.ThreadingActor):
    """It has nothing to do with it."""

    def on_receive(self, message: Any) -> threading.Thread:
        return threading.current_thread()


class Thrower:
    """A profiler that raises at the n-th point of the threads of that name."""

    def __init__(self, thread: str, point: int, error: type[BaseException]) -> None:
        self.thread = thread
        self.left = point
        self.error = error
        self.where = ""

    def __call__(self, frame: FrameType, event: str, arg: object) -> None:
        if self.where or event not in ("call", "c_return", "return"):
            return
        if is_between_lock_and_block(event, arg):
            return
        current = threading._active.get(threading.get_ident())  # type: ignore[attr-defined]
        if current is None or current.name != self.thread:
            return  # (current_thread() would make up one for a thread that is about to end)
        if frame.f_code.co_filename == __file__:
            return  # a task's or a callback's own business
        self.left -= 1
        if self.left < 0:
            self.where = f"{event} in {frame.f_code.co_qualname}:{frame.f_lineno}"
            raise self.error


@pytest.fixture(autouse=True)
def unheard(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What comes out of a thread between our code and CPython's is shown nowhere.

    Nor is anything logged: the locks of logging's handlers are taken in Python code, and stay taken
    if a thread is interrupted there.
    """
    monkeypatch.setattr(logging.getLogger("ion_actors"), "disabled", True)
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    monkeypatch.setattr("sys.unraisablehook", lambda _: None)
    yield
    threading.setprofile(None)


@pytest.fixture
def bystander() -> Iterator[pykka.ActorRef[Bystander]]:
    ref = Bystander.start()
    yield ref
    assert ref.is_alive()
    ref.stop()


def quiet() -> logging.Logger:
    logger = logging.getLogger("unheard")
    logger.setLevel(logging.CRITICAL + 1)
    return logger


def adds_up(numbers: PoolMetrics) -> bool:
    return numbers.submitted == (
        numbers.queued + numbers.running + numbers.completed + numbers.failed
        + numbers.panicked + numbers.cancelled
    )  # fmt: skip


def dies() -> None:
    raise SystemExit


def live(thread: str, point: int, error: type[BaseException], key: str | None) -> str:
    """A pool's life with an interruption. Returns where it was; nowhere, if it had not so many."""
    name = f"thrown-{next(_names)}"
    thrower = Thrower(f"{name}-{thread}", point, error)
    threading.setprofile(thrower)
    called: list[Any] = []
    try:
        pool = Pool(1, name=name, logger=quiet())
    finally:
        threading.setprofile(None)
    threading.setprofile(thrower)
    try:
        tasks = pool if key is None else pool.options(key=key)
        futures: list[Future[Any]] = []
        for number in range(5):
            futures.append(tasks.submit(pow, 2, number) if number != 2 else tasks.submit(dies))
            futures[-1].add_done_callback(called.append)
        for future in futures:
            future.exception(PATIENCE)
        numbers = pool.metrics()
        assert adds_up(numbers), (numbers, thrower.where)
        assert numbers.submitted == 5, thrower.where
    except BaseException as found:
        found.add_note(thrower.where)
        raise
    finally:
        threading.setprofile(None)
    assert pool.drain(PATIENCE).elapsed < PATIENCE / 2, thrower.where
    numbers = pool.metrics()
    assert adds_up(numbers), (numbers, thrower.where)
    assert (numbers.running, numbers.queued) == (0, 0), thrower.where
    eventually(lambda: sorted(map(id, called)) == sorted(map(id, futures)), thrower.where)
    return thrower.where


def every(step: int, thread: str, error: type[BaseException], key: str | None = None) -> list[str]:
    found = []
    for point in itertools.count(0, step):
        where = live(thread, point, error, key)
        if not where:
            return found
        found.append(where)
    raise AssertionError


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.usefixtures("bystander")
@pytest.mark.parametrize("error", [SystemExit, SoftLimit])
def test_thrown_into_a_worker_at_any_point(error: type[BaseException]) -> None:
    found = every(1 if error is SystemExit else 3, "0", error)
    assert len(found) > 60
    if error is SystemExit:  # at each point
        assert any("in Thread.run" in where for where in found), "before and after the loop, too"
    assert any("in IsolatedActor" in where for where in found)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.usefixtures("bystander")
def test_thrown_into_a_worker_whose_tasks_have_a_key() -> None:
    assert len(every(2, "0", SystemExit, key="k")) > 60


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("bystander")
@pytest.mark.parametrize("first", range(3))
def test_thrown_into_a_supervisor(first: int) -> None:
    found = [live("supervisor", point, SystemExit, None) for point in range(first, 450, 9)]
    assert sum(map(bool, found)) > 30


def test_a_thread_that_ends_without_a_word_is_noticed(
    bystander: pykka.ActorRef[Bystander], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is thrown in so often that nothing of the worker's own comes through."""
    from ion_actors.workerpool.worker.worker import PoolWorker

    begun = threading.Event()

    def takes_everything_down() -> None:
        begun.set()
        monkeypatch.setattr(PoolWorker, "_ion_live", fails)
        monkeypatch.setattr(PoolWorker, "_failed", fails)
        raise SystemExit

    def fails(*_: object) -> None:
        raise SystemExit

    with Pool(1, logger=quiet()) as pool:
        lost = pool.submit(takes_everything_down)
        told = threading.Event()
        lost.add_done_callback(lambda _: told.set())
        assert begun.wait(PATIENCE)
        error = lost.exception(PATIENCE)
        monkeypatch.undo()
        assert isinstance(error, BaseException)
        assert told.wait(PATIENCE)
        assert pool.submit(pow, 2, 2).result(PATIENCE) == 4
        assert adds_up(pool.metrics())
        assert pool.metrics().panicked == 1


Throw = Callable[[int, type[BaseException]], int]


@not_while_traced
@pytest.mark.usefixtures("bystander")
def test_real_exceptions_are_thrown_into_all_threads_of_a_pool(throw: Throw) -> None:
    pool = Pool(3, name="chaos", logger=quiet())
    futures: list[Future[Any]] = []
    errors = itertools.cycle([SystemExit, SoftLimit, KeyboardInterrupt])
    for number in range(400):
        try:
            futures.append(pool.submit(pow, 2, number % 7))
        except Exception:
            break  # too many faults of its supervisor break it, which is what is said then
        if number % 5 == 0:
            workers = [one for one in threading.enumerate() if one.ident and "chaos-" in one.name]
            victim = workers[number % len(workers)]
            if victim.name != "chaos-supervisor" or number % 100 == 0:
                throw(victim.ident or 0, next(errors))
    for future in futures:
        future.exception(PATIENCE)
    pool.close(PATIENCE)
    eventually(lambda: adds_up(pool.metrics()))
    assert pool.is_closed


@not_while_traced
@pytest.mark.usefixtures("bystander")
def test_thrown_into_a_tree_and_its_actors(throw: Throw) -> None:
    """Of a supervised actor it is the end, and it is replaced."""
    with Supervisor(
        [child(Bystander, id="one"), child(Bystander, id="two")], max_restarts=None, logger=quiet()
    ) as tree:
        first, second = tree["one"], tree["two"]
        throw(first.ask("where are you?", timeout=PATIENCE).ident or 0, SystemExit)
        first.tell("wakes it up")
        eventually(lambda: not first.is_alive())
        eventually(lambda: any(info.restarts for info in tree.which_children()))
        assert second.is_alive()
        asked = second.ask("still there", block=False)
        assert asked.get(timeout=PATIENCE) is not None


@pytest.mark.parametrize("key", [None, "key"])
def test_thrown_into_a_worker_that_helps_itself(key: str | None) -> None:
    name = f"thrown-{next(_names)}"
    with Pool(1, name=name, logger=quiet(), panic_recovery=MANY) as pool:

        def outer(point: int) -> tuple[Future[int], str]:
            inner = pool.options(key=key).submit(int)
            thrower = Thrower(threading.current_thread().name, point, SoftLimit)
            sys.setprofile(thrower)
            try:
                inner.exception(PATIENCE)
            except SoftLimit:
                return inner, thrower.where
            finally:
                sys.setprofile(None)
            return inner, thrower.where

        for point in itertools.count():
            inner, where = pool.submit(outer, point).result(PATIENCE)
            if not where:
                break
            assert not concurrent.futures.wait([inner], PATIENCE).not_done, where
            inner.exception()
            eventually(lambda: adds_up(pool.metrics()))
            after = pool.options(key=key).submit(pow, 2, 3)
            assert not concurrent.futures.wait([after], PATIENCE).not_done, where
            assert after.result() == 8, where
        assert point > 50
    assert pool.metrics().running == pool.metrics().queued == 0
