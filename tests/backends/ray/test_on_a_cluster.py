"""Pools on a real Ray cluster, on this machine; what holds for all backends is in test_contract.py.

The cluster of the tests has two *seats*, a resource that workers can ask for.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import logging
import multiprocessing.connection
import os
import pickle
import platform
import random
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ion_actors import (
    Backoff,
    BrokenPool,
    Cancelled,
    Context,
    DeadlineExceeded,
    DrainTimeout,
    PanicRecovery,
    Pool,
    RayBackend,
    TaskNotPicklable,
    TaskPanicked,
    Worker,
    WorkerDied,
)
from ion_actors.backends.ray import remote_actor, runner
from ion_actors.futures import Output
from tests.backends.process import errands
from tests.backends.process.programs import ROOT
from tests.ray_cluster import in_shared_memory
from tests.workerpool.helpers import PATIENCE, all_is_told, eventually, is_alive, why_broken

ray: Any = pytest.importorskip("ray", reason="Ray is not installed: it is the extra 'ray'")

pytestmark = pytest.mark.cluster

HASTY = RayBackend(num_cpus=0, grace=0.1, kill_after=0.3)
SEATED = RayBackend(num_cpus=0, resources={"seat": 1})


@contextlib.contextmanager
def pool_of(size: int = 1, backend: RayBackend = HASTY, **settings: Any) -> Iterator[Pool]:
    """A pool; afterwards its actors are gone."""
    pids = set[int]()
    with Pool(size, backend=backend, **settings) as pool:
        yield pool
        if not pool.is_closed:
            futures = [pool.submit(errands.pid) for _ in range(2 * size)]
            pids.update(one.result(PATIENCE) for one in futures)
    eventually(lambda: not any(map(is_alive, pids)))


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    return tmp_path / "mark"


def await_mark(mark: Path) -> int:
    eventually(lambda: mark.exists() and mark.read_text())
    return int(mark.read_text())


# -- crashes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "crash", [(errands.leave, 3), (errands.kill_self, signal.SIGKILL), (errands.segfault,)]
)
def test_a_crash_costs_one_task(crash: tuple[Any, ...]) -> None:
    with pool_of(name="p") as pool:
        before = pool.submit(errands.pid).result(PATIENCE)
        guilty, others = pool.submit(*crash), [pool.submit(pow, 2, n) for n in range(5)]
        with pytest.raises(TaskPanicked) as found:
            guilty.result(PATIENCE)
        died = found.value.__cause__
        assert isinstance(died, WorkerDied)
        assert (died.worker, died.pid) == ("p-0", before)
        assert f"process {before}" in str(died)
        assert "\n" not in died.args[0]
        assert [one.result(PATIENCE) for one in others] == [1, 2, 4, 8, 16]
        assert pool.metrics().restarts == 1


def test_an_idle_worker_that_is_killed_costs_no_task() -> None:
    with pool_of() as pool:
        pid = pool.submit(errands.pid).result(PATIENCE)
        ended = os.pidfd_open(pid)
        os.kill(pid, signal.SIGKILL)
        multiprocessing.connection.wait([ended], PATIENCE)
        os.close(ended)
        assert pool.submit(pow, 2, 5).result(PATIENCE) == 32
        assert pool.metrics().panicked == 0


def test_each_of_many_tasks_ends_once(tmp_path: Path) -> None:
    """With random misfortunes: each ends as it would have ended alone."""
    chance = random.Random(7)
    tireless = PanicRecovery(max_restarts=None, backoff=Backoff(initial=0.0, retries=1000))
    lots = ["well"] * 20 + ["fail", "leave", "late", "cancel"] * 2
    chance.shuffle(lots)
    with pool_of(2, panic_recovery=tireless) as pool:
        futures = []
        for number, lot in enumerate(lots):
            counted = tmp_path / str(number)
            options = pool.options(timeout=0.2) if lot == "late" else pool
            futures.append(options.submit(_live, lot, counted))
            if lot == "cancel":
                eventually(counted.exists)
                futures[-1].cancel()
        for lot, future in zip(lots, futures, strict=True):
            error = future.exception(PATIENCE)
            assert type(error) is _ENDS[lot], (lot, error)
        numbers = pool.metrics()
        assert (numbers.submitted, numbers.completed, numbers.failed) == (28, 20, 2)
        assert (numbers.panicked, numbers.cancelled, numbers.running) == (2, 4, 0)
    for number, lot in enumerate(lots):
        counted = tmp_path / str(number)
        assert lot == "late" or counted.read_text() == "x"  # it ran, and once


_ENDS: dict[str, Any] = {
    "well": type(None),
    "fail": KeyError,
    "leave": TaskPanicked,
    "late": DeadlineExceeded,
    "cancel": Cancelled,
}


def _live(lot: str, counted: Path) -> None:
    with counted.open("a") as file:
        file.write("x")
    if lot == "fail":
        raise KeyError
    if lot == "leave":
        os._exit(1)
    while lot in ("late", "cancel"):
        pass


# -- cancellation ------------------------------------------------------------------------------


def test_a_busy_loop_is_ended_and_the_worker_stays(mark: Path) -> None:
    with pool_of() as pool:
        task = pool.options(timeout=30).submit(errands.spin, mark)
        pid = await_mark(mark)
        task.cancel()
        with pytest.raises(Cancelled):
            task.result(PATIENCE)
        assert pool.submit(errands.pid).result(PATIENCE) == pid
        assert pool.metrics().restarts == 0


@pytest.mark.parametrize("task", [errands.stubborn, errands.nap, errands.spin_natively])
def test_what_does_not_end_is_killed_and_the_worker_stays(mark: Path, task: Any) -> None:
    with pool_of() as pool:
        future = pool.submit(task, mark)
        pid = await_mark(mark)
        future.cancel()
        with pytest.raises(Cancelled):
            future.result(PATIENCE)
        assert pool.submit(errands.pid).result(PATIENCE) != pid
        assert not is_alive(pid)
        numbers = pool.metrics()
        assert (numbers.cancelled, numbers.panicked, numbers.restarts) == (1, 0, 0)


def test_without_grace_nothing_is_forced(mark: Path) -> None:
    backend = RayBackend(num_cpus=0, grace=None)
    with pool_of(backend=backend) as pool:
        future = pool.submit(errands.await_go, mark, mark.with_suffix(".go"))
        pid = await_mark(mark)
        future.cancel()
        mark.with_suffix(".go").touch()
        assert future.result(PATIENCE) == "went"
        assert pool.submit(errands.pid).result(PATIENCE) == pid


@pytest.mark.parametrize("end", ["close", "drain"])
def test_the_end_of_a_pool_keeps_its_deadline(mark: Path, end: str) -> None:
    backend = RayBackend(num_cpus=0, grace=None)
    pool = Pool(1, backend=backend)
    future, queued = pool.submit(errands.stubborn, mark), pool.submit(pow, 2, 5)
    pid = await_mark(mark)
    began = time.monotonic()
    with contextlib.suppress(DrainTimeout):
        getattr(pool, end)(1.0)
    assert time.monotonic() - began < 5
    assert future.done()
    assert queued.done()
    eventually(lambda: not is_alive(pid))


def test_a_pool_that_closes_while_it_starts() -> None:
    pool = Pool(2, backend=HASTY)
    pool.close(PATIENCE)
    assert pool.is_closed


# -- what comes back ---------------------------------------------------------------------------


def test_logs_warnings_and_progress(
    mark: Path, caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    warnings.simplefilter("always")
    with pool_of() as pool:
        pool.submit(errands.log, "in the actor").result(PATIENCE)
        assert "in the actor" in caplog.text
        pool.submit(errands.warn, "be careful").result(PATIENCE)
        assert "be careful" in [str(one.message) for one in recwarn]
        future = pool.submit(errands.progress, mark)
        eventually(lambda: future.progress is not None)  # while it runs
        assert not future.done()
        future.cancel()
        future.exception(PATIENCE)


def test_an_error_has_its_traceback_there() -> None:
    with pool_of(name="p") as pool:
        error = pool.submit(errands.fail_for_a_reason).exception(PATIENCE)
        assert isinstance(error, RuntimeError)
        (note,) = error.__notes__
        assert "in the process p-0" in note
        assert "fail_for_a_reason" in note
        assert "ion_actors" not in note.replace(str(Path(errands.__file__)), "")


def test_object_references_arrive_as_what_they_refer_to() -> None:
    with pool_of() as pool:
        two, five = ray.put(2), ray.put(5)
        assert pool.submit(pow, two, five).result(PATIENCE) == 32
        assert pool.submit(pow, 2, exp=five).result(PATIENCE) == 32
        assert list(pool.map(pow, [two, 3], [five, 2])) == [32, 9]
        failed = ray.remote(num_cpus=0, max_retries=0)(errands.fail).remote(KeyError("lost"))
        with pytest.raises(KeyError):
            pool.submit(abs, failed).result(PATIENCE)
        assert pool.submit(pow, 2, 3).result(PATIENCE) == 8


@pytest.mark.parametrize("writable", [True, False])
def test_arrays(writable: bool) -> None:
    numpy: Any = pytest.importorskip("numpy")
    backend = RayBackend(num_cpus=0, writable=writable)
    with pool_of(backend=backend) as pool:
        given = numpy.arange(1_000_000)
        found = pool.submit(numpy.add, given, 1).result(PATIENCE)
        assert (found == given + 1).all()
        assert found.flags.writeable == writable
        assert pool.submit(_is_writable, given).result(PATIENCE) == writable


def _is_writable(array: Any) -> bool:
    return bool(array.flags.writeable)


def test_what_cannot_be_sent() -> None:
    with pool_of() as pool:
        ours, theirs = multiprocessing.Pipe()
        with ours, theirs, pytest.raises(TaskNotPicklable, match="this machine only"):
            pool.submit(errands.say_into, ours).result(PATIENCE)
        with pytest.raises(TaskNotPicklable, match="argument 1"):
            pool.submit(errands.echo, (one for one in ())).result(PATIENCE)
        with pytest.raises(TaskNotPicklable, match="the result"):
            pool.submit(errands.give_pipe).result(PATIENCE)
        assert pool.submit(pow, 2, 5).result(PATIENCE) == 32


def test_the_items_of_a_stream_come_from_there() -> None:
    with pool_of() as pool:
        pid = pool.submit(errands.pid).result(PATIENCE)
        assert list(pool.stream(_own_pid, 300, buffersize=7)) == [pid] * 300


def test_a_crash_comes_after_the_items_that_had_arrived(mark: Path) -> None:
    with pool_of() as pool:
        stream = pool.stream(_dies_after, 3, mark)
        assert [next(stream) for _ in range(3)] == [0, 1, 2]
        mark.touch()
        with pytest.raises(TaskPanicked) as found:
            next(stream)
        assert isinstance(found.value.__cause__, WorkerDied)
        assert list(pool.stream(_own_pid, 1))  # its successor


def test_items_that_cannot_be_sent_or_rebuilt() -> None:
    with pool_of() as pool:
        for fn in (_give_lock, _give_unwelcome):
            stream = pool.stream(fn)
            assert next(stream) == 1
            with pytest.raises(TaskNotPicklable, match="an item"):
                next(stream)
        assert pool.submit(pow, 2, 5).result(PATIENCE) == 32
        assert pool.metrics().restarts == 0


def test_large_items_of_a_stream() -> None:
    numpy: Any = pytest.importorskip("numpy")
    with pool_of() as pool:
        for number, found in enumerate(pool.stream(_arrays, 5, buffersize=2)):
            assert (found == number).all()
            assert found.flags.writeable
            assert type(found) is numpy.ndarray


def _own_pid(until: int) -> Iterator[int]:
    for _ in range(until):
        yield os.getpid()


def _dies_after(until: int, mark: Path) -> Iterator[int]:
    yield from range(until)
    while not mark.exists():
        time.sleep(0.01)
    os._exit(1)


def _give_lock() -> Iterator[Any]:
    yield 1
    yield threading.Lock()


def _give_unwelcome() -> Iterator[Any]:
    yield 1
    yield errands.make_unwelcome()
    yield 2


def _arrays(until: int) -> Iterator[Any]:
    import numpy as np

    for number in range(until):
        yield np.full(200_000, number)


# -- workers -----------------------------------------------------------------------------------


class Counter(Worker):
    def __init__(self, start: int) -> None:
        super().__init__()
        self.count = start

    def add(self, number: int) -> tuple[int, int]:
        self.count += number
        return self.count, os.getpid()

    def leave(self) -> None:
        os._exit(1)


def test_workers_with_state() -> None:
    with Pool(1, worker=functools.partial(Counter, 40), backend=HASTY) as pool:
        counter = pool.proxy()
        count, pid = counter.add(1).result(PATIENCE)
        assert count == 41
        assert pid != os.getpid()
        assert counter.add(1).result(PATIENCE) == (42, pid)
        with pytest.raises(TaskPanicked):
            counter.leave().result(PATIENCE)
        assert counter.add(1).result(PATIENCE)[0] == 41  # its successor begins anew


def test_a_fresh_actor_after_its_share_of_tasks() -> None:
    backend = RayBackend(num_cpus=0, max_tasks_per_child=2)
    with pool_of(backend=backend) as pool:
        pids = [pool.submit(errands.pid).result(PATIENCE) for _ in range(4)]
        assert pids[0] == pids[1] != pids[2] == pids[3]
        assert pool.metrics().restarts == 0


def test_an_initializer_that_fails() -> None:
    recovery = PanicRecovery(max_restarts=0, backoff=Backoff(retries=0))
    pool = Pool(
        1,
        backend=HASTY,
        initializer=errands.fail,
        initargs=(KeyError("no"),),
        panic_recovery=recovery,
    )
    assert isinstance(why_broken(pool).__cause__, KeyError)


def test_an_initializer_that_cannot_be_sent() -> None:
    pool = Pool(1, backend=HASTY, initializer=print, initargs=((one for one in ()),))
    assert "cannot start in Ray" in str(why_broken(pool))


def test_an_initializer_that_takes_too_long() -> None:
    backend = RayBackend(num_cpus=0, start_timeout=0.5)
    recovery = PanicRecovery(max_restarts=0, backoff=Backoff(retries=0))
    pool = Pool(1, backend=backend, initializer=time.sleep, initargs=(60,), panic_recovery=recovery)
    assert "was not ready within 0.5 seconds" in str(why_broken(pool))


def test_more_workers_than_the_cluster_holds(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(runner, "_NOTICE", 0.5)
    with pool_of(1, SEATED) as small:
        small.submit(errands.pid).result(PATIENCE)
        with Pool(3, backend=SEATED) as pool:  # has one seat for now
            assert [one.result(PATIENCE) for one in [pool.submit(pow, 2, n) for n in range(5)]] == [
                2**n for n in range(5)
            ]
            eventually(lambda: "for a place in the Ray cluster" in caplog.text)
            assert "it needs seat 1; there are seat 2" in caplog.text
            small.close(PATIENCE)  # there is room
            # Each waits for the other: it takes two workers.
            files = [tmp_path / "one", tmp_path / "other"]
            futures = [pool.submit(errands.await_go, *pair) for pair in (files, files[::-1])]
            assert [one.result(PATIENCE) for one in futures] == ["went", "went"]
        all_is_told()


def test_accelerators_of_each_worker(tmp_path: Path) -> None:
    backend = RayBackend(num_cpus=0, num_gpus=1)
    with Pool(2, backend=backend) as pool:
        files = [tmp_path / "one", tmp_path / "other"]
        futures = [pool.submit(_devices, *pair) for pair in (files, files[::-1])]
        assert {one.result(PATIENCE) for one in futures} == {"0", "1"}


def _devices(mark: Path, go: Path) -> str:
    """Those of a worker, as soon as another one has begun, too."""
    errands.await_go(mark, go)
    return os.environ["CUDA_VISIBLE_DEVICES"]


@pytest.mark.parametrize("slow", [False, True])
def test_where_there_is_room_only_a_long_wait_is_told(
    slow: bool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "_NOTICE", 0.001)
    if slow:
        monkeypatch.setattr(runner, "_SLOW", 0.002)
    with pool_of() as pool:
        assert pool.submit(pow, 2, 5).result(PATIENCE) == 32
        all_is_told()
        assert "for a place in the Ray cluster" not in caplog.text
        assert ("has not started in 0 s" in caplog.text) == slow


def test_another_cluster_needs_another_process() -> None:
    pool = Pool(1, backend=RayBackend(address="127.0.0.1:1"))
    with pytest.raises(BrokenPool):
        pool.submit(pow, 2, 5).result(PATIENCE)
    assert "has one connection for each process" in str(why_broken(pool))


def test_what_the_node_does_not_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "only_here.py").write_text("def double(number): return 2 * number")
    monkeypatch.syspath_prepend(tmp_path)
    double = importlib.import_module("only_here").double
    with pool_of() as pool:
        with pytest.raises(TaskNotPicklable, match=r"'only_here'\. .*RayBackend\(ship=\.\.\.\)"):
            pool.submit(double, 2).result(PATIENCE)
        assert pool.submit(pow, 2, 5).result(PATIENCE) == 32


def test_code_cannot_be_sent_to_a_cluster_that_is_connected(tmp_path: Path) -> None:
    pool = Pool(1, backend=RayBackend(num_cpus=0, ship=[tmp_path]))
    assert "it has connected before: give its own ray.init" in str(why_broken(pool))


def test_an_actor_that_cannot_be_made_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where ion_actors is not installed: nothing is tried again."""
    monkeypatch.setattr(remote_actor, "TaskActor", _Elsewhere)
    pool = Pool(1, backend=HASTY)
    words = str(why_broken(pool))
    assert "no actor can be made in the Ray cluster: ModuleNotFoundError: No module named" in words
    assert "The nodes need ion_actors" in words
    eventually(lambda: pool.is_closed)


class _Elsewhere:
    def __init__(self) -> None:
        raise ModuleNotFoundError("No module named 'ion_actors'")

    def run(self) -> None: ...

    hello = run


def test_a_context_that_has_ended_meanwhile(mark: Path) -> None:
    context = Context()
    with pool_of() as pool:
        task = pool.options(context=context).submit(errands.heed, mark)
        await_mark(mark)
        context.cancel("enough")
        with pytest.raises(Cancelled, match="enough"):
            task.result(PATIENCE)


def test_logs_of_the_pool_are_one_each(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with pool_of() as pool:
        for number in range(20):
            pool.submit(errands.log, f"<{number}>").result(PATIENCE)
            assert caplog.text.count(f"<{number}>") == 1


def test_where_a_task_is(mark: Path) -> None:
    with pool_of() as pool:
        future = pool.submit(errands.await_go, mark, mark.with_suffix(".go"))
        pid = await_mark(mark)
        (worker,) = pool.dump().workers
        assert worker.pid == pid
        assert "in await_go" in worker.stack
        assert "ray" not in worker.stack.replace(str(Path(errands.__file__)), "")
        mark.with_suffix(".go").touch()
        future.result(PATIENCE)


def test_what_a_task_prints_is_kept() -> None:
    backend = RayBackend(num_cpus=0, capture_output=True)
    with Pool(1, backend=backend) as pool:
        loud, silent = pool.submit(_print, "some words"), pool.submit(pow, 2, 5)
        assert loud.result(PATIENCE) == "some words"
        assert loud.output == Output("some words, from elsewhere\n", "and an error\n")
        assert silent.result(PATIENCE) == 32
        assert silent.output == Output("", "")
        futures = [pool.submit(print, number) for number in range(20)]
        for number, future in enumerate(futures):
            future.result(PATIENCE)
            assert future.output == Output(f"{number}\n", "")


def _print(words: str) -> str:
    print(words, end="", flush=True)
    os.write(1, b", from elsewhere\n")
    print("and an error", file=sys.stderr)
    return words


def test_where_a_worker_is_that_has_no_place() -> None:
    backend = RayBackend(num_cpus=0, resources={"seat": 9})
    with Pool(1, backend=backend) as pool:
        future = pool.submit(pow, 2, 5)
        eventually(lambda: "waits for a place in the cluster" in str(pool.dump()))
        future.cancel()
        pool.close(PATIENCE)


_KILLED = """
import os, sys, time
import numpy
from ion_actors import Pool, RayBackend

if __name__ == "__main__":
    seated = RayBackend(address=sys.argv[1], num_cpus=0, resources={"seat": 1})
    pool = Pool(2, 1000, backend=seated)
    kept = [pool.submit(numpy.ones, 1_000_000).result(90) for _ in range(3)]
    for one in [pool.submit(pow, 2, 5) for _ in range(300)]:  # from now on some are sent ahead
        one.result(90)
    tasks = [pool.submit(time.sleep, 600), pool.submit(time.sleep, 600)]
    while not all(one.running() for one in tasks):
        time.sleep(0.01)
    print(*(one.pid for one in pool.dump().workers), flush=True)
    pool.drain()
"""


def test_a_program_that_is_killed_leaves_nothing_in_the_cluster(tmp_path: Path) -> None:
    program = tmp_path / "killed.py"
    program.write_text(_KILLED)
    eventually(_all_is_free)
    files = in_shared_memory()
    with subprocess.Popen(
        [sys.executable, program, ray.get_runtime_context().gcs_address],
        env={**os.environ, "PYTHONPATH": str(ROOT), "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as driver:
        assert driver.stdout is not None
        pids = [*map(int, driver.stdout.readline().split())]
        assert len(pids) == 2
        assert all(map(is_alive, pids))
        assert not _all_is_free()
        driver.kill()
    eventually(lambda: not any(map(is_alive, pids)))
    eventually(_all_is_free)  # of actors, of placements, and of the object store
    eventually(lambda: in_shared_memory() <= files)
    assert _living_actors() == 0


def _all_is_free() -> bool:
    found: bool = ray.available_resources() == ray.cluster_resources()
    return found


def _living_actors() -> int:
    state = importlib.import_module("ray._private.state")
    return sum(one["State"] != "DEAD" for one in state.actors().values())


def test_how_an_actor_has_ended() -> None:
    with pool_of() as pool:
        deaths: list[tuple[Any, int, str | None, str]] = [
            ((errands.leave, 3), 3, None, ""),
            ((errands.kill_self, signal.SIGKILL), -9, "SIGKILL", ""),
            ((errands.segfault,), -11, "SIGSEGV", "in segfault"),
        ]
        for crash, exitcode, name, words in deaths:
            died = pool.submit(*crash).exception(PATIENCE).__cause__
            assert isinstance(died, WorkerDied)
            assert (died.node, len(died.actor_id or "")) == (platform.node(), 32)
            assert words in died.last_words if words else died.last_words == ""
            assert "task_actor" not in died.last_words
            if tuple(map(int, platform.release().split(".")[:2])) >= (6, 15):
                assert (died.exitcode, died.signal) == (exitcode, name)
            copy = pickle.loads(pickle.dumps(died))
            assert (copy.node, copy.actor_id) == (died.node, died.actor_id)
