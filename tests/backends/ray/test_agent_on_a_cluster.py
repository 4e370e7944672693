"""Tasks in child processes of Ray actors; what holds for all backends is in test_contract.py."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import multiprocessing.connection
import os
import random
import signal
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ion_actors import (
    Backoff,
    Cancelled,
    PanicRecovery,
    Pool,
    ProcessBackend,
    RayBackend,
    TaskNotPicklable,
    TaskOutOfMemory,
    TaskPanicked,
    Worker,
    WorkerDied,
    current_context,
)
from tests.backends.process import errands
from tests.backends.process.test_chaos import TIRELESS, Submitting, run_out
from tests.workerpool.helpers import PATIENCE, eventually, is_alive, why_broken

ray: Any = pytest.importorskip("ray", reason="Ray is not installed: it is the extra 'ray'")

pytestmark = pytest.mark.cluster

HASTY = RayBackend(isolate=True, num_cpus=0, grace=0.1, kill_after=0.3)


@contextlib.contextmanager
def pool_of(size: int = 1, backend: RayBackend = HASTY, **settings: Any) -> Iterator[Pool]:
    """A pool; afterwards its actors and their children are gone."""
    pids = set[int]()
    with Pool(size, backend=backend, **settings) as pool:
        yield pool
        if not pool.is_closed:
            for one in [pool.submit(_family) for _ in range(2 * size)]:
                pids.update(one.result(PATIENCE))
    eventually(lambda: not any(map(is_alive, pids)))


def _family() -> list[int]:
    """This process, the one that has forked it, and the actor."""
    return [os.getpid(), os.getppid(), _actor()]


def _actor() -> int:
    status = Path(f"/proc/{os.getppid()}/status").read_text()
    return int(status.partition("\nPPid:")[2].split()[0])


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    return tmp_path / "mark"


def await_mark(mark: Path) -> int:
    eventually(lambda: mark.exists() and mark.read_text())
    return int(mark.read_text())


def await_end(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        ended = os.pidfd_open(pid)
        assert multiprocessing.connection.wait([ended], PATIENCE)
        os.close(ended)


# -- crashes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("crash", "exitcode", "name", "words"),
    [
        ((errands.leave, 3), 3, None, ""),
        ((errands.kill_self, signal.SIGKILL), -9, "SIGKILL", ""),
        ((errands.segfault,), -11, "SIGSEGV", "in segfault"),
    ],
)
def test_a_crash_costs_one_task_and_no_actor(
    crash: tuple[Any, ...], exitcode: int, name: str | None, words: str
) -> None:
    with pool_of(name="p") as pool:
        child, _, actor = pool.submit(_family).result(PATIENCE)
        guilty, others = pool.submit(*crash), [pool.submit(pow, 2, n) for n in range(5)]
        with pytest.raises(TaskPanicked) as found:
            guilty.result(PATIENCE)
        died = found.value.__cause__
        assert isinstance(died, WorkerDied)
        assert (died.worker, died.pid) == ("p-0", child)
        assert (died.exitcode, died.signal) == (exitcode, name)
        assert words in died.last_words
        assert f"child process {child} on {died.node}" in str(died)
        assert len(died.actor_id or "") == 32
        assert not getattr(died, "__notes__", ())
        assert [one.result(PATIENCE) for one in others] == [1, 2, 4, 8, 16]
        assert pool.submit(_actor).result(PATIENCE) == actor
        assert pool.metrics().restarts == 1


def test_a_pool_that_ends_while_an_actor_waits_for_the_next_worker() -> None:
    pool = Pool(1, backend=HASTY, panic_recovery=None)
    family = pool.submit(_family).result(PATIENCE)
    pool.submit(errands.leave, 3).exception(PATIENCE)
    pool.close(timeout=5)
    for one in family:
        await_end(one)


def test_a_child_that_is_killed_between_two_tasks_costs_none() -> None:
    with pool_of() as pool:
        child, _, actor = pool.submit(_family).result(PATIENCE)
        os.kill(child, signal.SIGKILL)
        await_end(child)
        assert pool.submit(_actor).result(PATIENCE) == actor
        assert (pool.metrics().panicked, pool.metrics().restarts) == (0, 0)


@pytest.mark.parametrize("task", [errands.await_go, errands.spin_natively])
def test_an_actor_that_is_killed_takes_its_child_along(mark: Path, task: Any) -> None:
    with pool_of() as pool:
        family = pool.submit(_family).result(PATIENCE)
        args = (mark, mark) if task is errands.spin_natively else (mark, mark.with_suffix(".go"))
        future = pool.submit(task, *args[: task.__code__.co_argcount])
        await_mark(mark)
        os.kill(family[-1], signal.SIGKILL)
        assert isinstance(future.exception(PATIENCE), TaskPanicked)
        for one in family:
            await_end(one)
        assert pool.submit(pow, 2, 5).result(PATIENCE) == 32


# -- cancellation ------------------------------------------------------------------------------


@pytest.mark.parametrize("task", [errands.spin, errands.nap])
def test_sigterm_ends_a_task_in_its_main_thread(mark: Path, task: Any) -> None:
    with pool_of() as pool:
        future = pool.submit(task, mark)
        child = await_mark(mark)
        future.cancel()
        with pytest.raises(Cancelled):
            future.result(PATIENCE)
        assert mark.with_suffix(".finally").exists() == (task is errands.nap)
        assert pool.submit(errands.pid).result(PATIENCE) == child


@pytest.mark.parametrize("task", [errands.stubborn, errands.spin_natively])
def test_what_does_not_end_costs_the_child_only(mark: Path, task: Any) -> None:
    with pool_of() as pool:
        actor = pool.submit(_actor).result(PATIENCE)
        future = pool.submit(task, mark)
        child = await_mark(mark)
        future.cancel()
        with pytest.raises(Cancelled):
            future.result(PATIENCE)
        assert pool.submit(_actor).result(PATIENCE) == actor
        assert not is_alive(child)
        (worker,) = pool.dump().workers
        numbers = pool.metrics()
        assert (numbers.cancelled, numbers.panicked, numbers.restarts) == (1, 0, 0)
        assert worker.pid != child


def test_where_a_task_is(mark: Path) -> None:
    with pool_of() as pool:
        future = pool.submit(errands.await_go, mark, mark.with_suffix(".go"))
        child = await_mark(mark)
        (worker,) = pool.dump().workers
        assert worker.pid == child
        assert "in await_go" in worker.stack
        mark.with_suffix(".go").touch()
        assert future.result(PATIENCE) == "went"


# -- what a task has -----------------------------------------------------------------------------


def test_a_task_may_handle_signals() -> None:
    with pool_of() as pool:
        assert pool.submit(_handle_signals).result(PATIENCE)


def _handle_signals() -> bool:
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    return threading.current_thread() is threading.main_thread()


_variable = contextvars.ContextVar("_variable", default=0)


def test_object_references_come_with_variables_and_a_deadline() -> None:
    token = _variable.set(5)
    try:
        with pool_of() as pool:
            two = ray.put(2)
            assert pool.submit(_with_variable, two).result(PATIENCE) == (2, 5, False)
            timed = pool.options(timeout=PATIENCE)
            assert timed.submit(_await_variable, number=two).result(PATIENCE) == (2, 5, True)
            with pytest.raises(ZeroDivisionError):
                pool.submit(divmod, two, ray.put(0)).result(PATIENCE)
            with pytest.raises(TaskNotPicklable, match="result"):
                pool.submit(_give_lock, two).result(PATIENCE)
    finally:
        _variable.reset(token)


def _with_variable(number: int) -> tuple[int, int, bool]:
    return number, _variable.get(), current_context().deadline is not None


async def _await_variable(number: int) -> tuple[int, int, bool]:
    return _with_variable(number)


def _give_lock(_: int) -> Any:
    return threading.Lock()


def test_the_actor_rebuilds_nothing(tmp_path: Path) -> None:
    with pool_of(initializer=errands.echo, initargs=(Telltale(tmp_path),)) as pool:
        child = pool.submit(errands.pid).result(PATIENCE)
        assert type(pool.submit(errands.echo, Telltale(tmp_path)).result(PATIENCE)) is Telltale
        assert type(next(pool.stream(_give_telltale, tmp_path))) is Telltale
        assert {int(one.name) for one in tmp_path.iterdir()} == {child, os.getpid()}


class Telltale:
    """Tells in which processes it was rebuilt."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (self.folder,)


def _rebuilt(folder: Path) -> Telltale:
    (folder / str(os.getpid())).touch()
    return Telltale(folder)


def _give_telltale(folder: Path) -> Iterator[Telltale]:
    yield Telltale(folder)


def test_arrays_may_be_written_to() -> None:
    numpy: Any = pytest.importorskip("numpy")
    with pool_of() as pool:
        given = numpy.arange(1_000_000)
        found = pool.submit(_doubled, given).result(PATIENCE)
        assert (found == 2 * given).all()
        found += 1
        for number, item in enumerate(pool.stream(_arrays, 5, buffersize=2)):
            assert (item == number).all()
        reference = ray.put(given)
        assert pool.submit(numpy.sum, reference).result(PATIENCE) == given.sum()


def _doubled(array: Any) -> Any:
    array *= 2
    return array


def _arrays(count: int) -> Iterator[Any]:
    numpy: Any = pytest.importorskip("numpy")
    for number in range(count):
        yield numpy.full(100_000, number)


def test_what_cannot_be_sent() -> None:
    with pool_of() as pool:
        with pytest.raises(TaskNotPicklable, match="the result"):
            pool.submit(errands.give_pipe).result(PATIENCE)
        stream = pool.stream(_give_one_and_a_pipe)
        assert next(stream) == 1
        with pytest.raises(TaskNotPicklable, match="an item"):
            next(stream)
        assert pool.submit(pow, 2, 5).result(PATIENCE) == 32


def _give_one_and_a_pipe() -> Iterator[Any]:
    yield 1
    yield errands.give_pipe()


def test_what_a_task_says(caplog: pytest.LogCaptureFixture) -> None:
    with pool_of() as pool, warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        future = pool.submit(_say)
        assert future.result(PATIENCE) == "said"
        assert "logged there" in caplog.text
        assert [str(one.message) for one in warned] == ["warned there"]
        assert future.progress.fraction == 0.5


def _say() -> str:
    import logging

    from ion_actors import report_progress

    logging.getLogger("theirs").warning("logged there")
    warnings.warn("warned there", stacklevel=1)
    report_progress(0.5)
    return "said"


# -- the settings of the child -------------------------------------------------------------------


def test_the_settings_of_the_child_hold_there() -> None:
    child = ProcessBackend(
        env={"COLOUR": "blue"}, nice=3, capture_output=True, start_method="spawn", native_threads=3
    )
    with Pool(1, backend=RayBackend(num_cpus=0, isolate=True, child=child)) as pool:
        future = pool.submit(_surroundings)
        assert future.result(PATIENCE) == ("blue", True, "3")
        assert future.output.stdout == "kept\n"


def _surroundings() -> tuple[str, bool, str]:
    print("kept")
    return os.environ["COLOUR"], os.nice(0) >= 3, os.environ["NUMBA_NUM_THREADS"]


def test_a_child_that_holds_too_much() -> None:
    child = ProcessBackend(max_memory_per_child=200_000_000)
    with pool_of(backend=RayBackend(num_cpus=0, isolate=True, child=child)) as pool:
        with pytest.raises(TaskOutOfMemory):
            pool.submit(_eat, 400_000_000).result(PATIENCE)
        assert pool.submit(pow, 2, 5).result(PATIENCE) == 32


def _eat(size: int) -> None:
    held = bytearray(size)
    held[::4096] = b"x" * len(held[::4096])
    current_context().sleep(PATIENCE)


def test_a_fresh_child_after_its_share_of_tasks() -> None:
    with pool_of(backend=RayBackend(num_cpus=0, isolate=True, max_tasks_per_child=2)) as pool:
        families = [pool.submit(_family).result(PATIENCE) for _ in range(6)]
        assert [families.count(one) for one in families] == [2] * 6
        assert len({actor for *_, actor in families}) == 1


def test_workers_with_state_and_their_crash() -> None:
    class Counter(Worker):
        def __init__(self) -> None:
            super().__init__()
            self.count = 0

        def add(self) -> int:
            self.count += 1
            return self.count

        def leave(self) -> None:
            os._exit(1)

    with Pool(1, backend=HASTY, worker=Counter) as pool:
        counter = pool.proxy()
        assert [counter.add().result(PATIENCE) for _ in range(3)] == [1, 2, 3]
        assert isinstance(counter.leave().exception(PATIENCE), TaskPanicked)
        assert counter.add().result(PATIENCE) == 1


def test_initializers() -> None:
    with pool_of(backend=HASTY, initializer=_begin, initargs=("hello",)) as pool:
        assert pool.submit(_greeting).result(PATIENCE) == "hello"
        pool.submit(errands.leave, 1).exception(PATIENCE)
        assert pool.submit(_greeting).result(PATIENCE) == "hello"
    once = PanicRecovery(max_restarts=0, backoff=Backoff(retries=0))
    with Pool(
        1, backend=HASTY, initializer=_refuse, initargs=(ValueError("no"),), panic_recovery=once
    ) as pool:
        error = why_broken(pool).__cause__
        assert isinstance(error, ValueError)
        (note,) = error.__notes__
        assert "in _refuse" in note


def _refuse(error: BaseException) -> None:
    raise error


def _begin(greeting: str) -> None:
    os.environ["GREETING"] = greeting


def _greeting() -> str:
    return os.environ["GREETING"]


# -- chaos ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("close_in_the_middle", [False, True])
def test_each_task_ends_once_and_as_it_would_have_alone(
    close_in_the_middle: bool, tmp_path: Path
) -> None:
    half = threading.Barrier(3) if close_in_the_middle else None
    backend = RayBackend(isolate=True, num_cpus=0, grace=0.02, kill_after=0.3)
    pool = Pool(2, 16, backend=backend, panic_recovery=TIRELESS, name="chaos")
    submitters = [Submitting(pool, seed, tmp_path, half, 24) for seed in (11, 12)]
    run_out(pool, submitters, half, signals=False)


def test_children_and_actors_that_are_killed_from_outside(tmp_path: Path) -> None:
    """Whoever is killed costs no task that may run twice, and none of the others runs twice."""
    chance = random.Random(7)
    with Pool(2, 64, backend=HASTY, panic_recovery=TIRELESS) as pool:
        families = list[list[int]]()
        patient = pool.options(retry_on_worker_death=1000)
        live = functools.partial(_live, tmp_path)
        for number, (found, family) in enumerate(patient.map(live, range(300))):
            assert found == number
            if family not in families:
                families.append(family)
            if number % 60 == 30:
                place = 2 if number % 120 == 30 else 0  # the actor, or the child
                living = [one[place] for one in families if is_alive(one[place])]
                if living:
                    os.kill(chance.choice(living), signal.SIGKILL)
        assert pool.metrics().completed == 300
        begun = [len((tmp_path / str(number)).read_text()) for number in range(300)]
        assert sum(begun) <= 300 + 5  # one for each that was killed
    for family in families:
        for one in family:
            await_end(one)


def _live(folder: Path, number: int) -> tuple[int, list[int]]:
    with (folder / str(number)).open("a") as file:
        file.write("x")
    return number, _family()
