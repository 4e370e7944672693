"""``ion_actors.executors.ProcessPoolExecutor`` in the place of its namesake."""

from __future__ import annotations

import concurrent.futures
import errno
import inspect
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import pytest

from ion_actors import PanicRecovery, Pool, ProcessBackend, WorkerDied
from ion_actors.executors import ProcessPoolExecutor
from tests.workerpool.helpers import eventually

pytestmark = pytest.mark.skipif(os.name == "nt", reason="there are no child processes there")

Original = concurrent.futures.ProcessPoolExecutor


def test_it_is_a_pool_and_an_executor_of_the_standard_library() -> None:
    with ProcessPoolExecutor(1) as executor:
        assert isinstance(executor, Original)
        assert isinstance(executor, Pool)
        assert list(executor.map(abs, [-1, -2, -3], chunksize=2)) == [1, 2, 3]


def test_the_constructor_takes_what_its_namesake_takes_in_the_same_order() -> None:
    theirs = inspect.signature(Original).parameters
    ours = inspect.signature(ProcessPoolExecutor).parameters
    for place, (name, one) in enumerate(theirs.items()):
        assert list(ours)[place] == name
        assert (ours[name].kind, ours[name].default) == (one.kind, one.default)


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"max_workers": 0}, ValueError, "max_workers must be greater than 0"),
        ({"initializer": 5}, TypeError, "initializer must be a callable"),
        ({"max_tasks_per_child": 0}, ValueError, "max_tasks_per_child must be >= 1"),
        ({"max_tasks_per_child": 1.5}, TypeError, "max_tasks_per_child must be an integer"),
        (
            {"max_tasks_per_child": 1, "mp_context": multiprocessing.get_context("fork")},
            ValueError,
            "incompatible with the 'fork'",
        ),
        ({"backend": ProcessBackend(), "max_tasks_per_child": 1}, TypeError, "backend="),
    ],
)
def test_arguments_that_make_no_sense(arguments: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        ProcessPoolExecutor(**arguments)


def test_the_start_method_is_that_of_the_context() -> None:
    for method in ("spawn", "forkserver"):
        context = multiprocessing.get_context(method)
        with ProcessPoolExecutor(1, context) as executor:
            assert executor._mp_context.get_start_method() == method
            assert executor.submit(abs, -1).result() == 1
    with pytest.warns(RuntimeWarning, match="forkserver") as caught:
        executor = ProcessPoolExecutor(1, multiprocessing.get_context("fork"))
    assert caught[0].filename == __file__
    with executor:
        assert executor.submit(os.getppid).result() != os.getpid()
    with ProcessPoolExecutor(1, max_tasks_per_child=1) as executor:
        assert executor._mp_context.get_start_method() == "spawn"
        assert len({executor.submit(os.getpid).result() for _ in range(2)}) == 2


def _greet(lock: Any, word: str) -> None:
    global _greeting  # noqa: PLW0603
    with lock:
        _greeting = word


def _greeted() -> str:
    return _greeting


def test_a_lock_of_multiprocessing_may_be_among_the_initargs() -> None:
    lock = multiprocessing.get_context("forkserver").Lock()
    with ProcessPoolExecutor(1, initializer=_greet, initargs=(lock, "hello")) as executor:
        assert executor.submit(_greeted).result() == "hello"


def _fail() -> None:
    raise ValueError("bad start")


def test_a_failing_initializer_breaks_it(caplog: pytest.LogCaptureFixture) -> None:
    executor = ProcessPoolExecutor(1, initializer=_fail)
    with pytest.raises(BrokenProcessPool):
        executor.submit(int).result()
    with pytest.raises(BrokenProcessPool):
        executor.submit(int)
    executor.shutdown()
    assert [one.getMessage() for one in caplog.records] == ["Exception in initializer:"]


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_the_first_process_that_dies_breaks_it(caplog: pytest.LogCaptureFixture) -> None:
    with ProcessPoolExecutor(2) as executor:
        running, queued = executor.submit(time.sleep, 300), None
        died = executor.submit(_die)
        queued = executor.submit(time.sleep, 300)
        for one in (died, running, queued):
            assert isinstance(one.exception(), BrokenProcessPool)
        assert isinstance(died.exception().__cause__, WorkerDied)  # type: ignore[union-attr]
        with pytest.raises(BrokenProcessPool, match="SIGKILL"):
            executor.submit(int)
        assert executor._broken
    assert not caplog.records


def test_with_another_policy_it_goes_on() -> None:
    with ProcessPoolExecutor(1, panic_recovery=PanicRecovery()) as executor:
        assert isinstance(executor.submit(_die).exception(), BrokenProcessPool)
        assert executor.submit(abs, -1).result() == 1


def test_a_task_that_exits_raises_that() -> None:
    with ProcessPoolExecutor(1) as executor:
        assert isinstance(executor.submit(exit, 3).exception(), SystemExit)
        assert executor.submit(abs, -1).result() == 1


@pytest.mark.parametrize("verb", ["terminate_workers", "kill_workers"])
def test_the_workers_of_newer_pythons_are_ended_at_once(verb: str, tmp_path: Path) -> None:
    with ProcessPoolExecutor(1) as executor:
        running = executor.submit(_sleep_after, tmp_path / "begun")
        eventually((tmp_path / "begun").exists)
        queued = executor.submit(int)
        [process] = executor._processes.values()
        assert process.is_alive()
        assert process.exitcode is None
        getattr(executor, verb)()
        assert isinstance(running.exception(), BrokenProcessPool)
        assert queued.cancelled()
        with pytest.raises(RuntimeError):
            executor.submit(int)
        process.join()
        assert not process.is_alive()


def _sleep_after(path: Path) -> None:
    path.touch()
    time.sleep(300)


def test_clients_that_terminate_its_processes() -> None:
    with ProcessPoolExecutor(2) as executor:
        futures = [executor.submit(time.sleep, 300) for _ in range(5)]
        processes = executor._processes
        assert set(processes) == {one.pid for one in processes.values()}
        for process in processes.values():
            process.terminate()
        assert all(isinstance(one.exception(), BrokenProcessPool) for one in futures)
        for process in processes.values():
            process.join(60)
            assert not process.is_alive()


FALLBACK = """
if __name__ == "__main__":
    from ion_actors.executors import ProcessPoolExecutor, ThreadPoolExecutor

    {prepare}
    try:
        executor = ProcessPoolExecutor(2)
    except OSError as error:
        print(type(error).__name__, error.errno, flush=True)
        executor = ThreadPoolExecutor(2)
    with executor:
        print(executor.submit(abs, -1).result())
"""


def _program(prepare: str, *before: str) -> list[str]:
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    command = [*before, sys.executable, "-c", FALLBACK.format(prepare=prepare)]
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    assert done.stderr == ""
    return done.stdout.splitlines()


# It counts threads, too, so that there is nothing to fall back to.
NO_PROCESSES = """
    import multiprocessing.synchronize, os, resource
    from ion_actors.executors import process, thread
    from ion_actors.backends.process.parent import launch, runner
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    if os.getuid() == 0:  # who has no such limit
        os.setgid(65534)
        os.setuid(65534)
    ThreadPoolExecutor = lambda size: os._exit(0)
"""


def test_where_no_process_is_permitted_the_constructor_says_so() -> None:
    assert _program(NO_PROCESSES) == [f"BlockingIOError {errno.EAGAIN}"]


def test_where_there_are_no_semaphores_the_constructor_says_so() -> None:
    without = [
        "unshare",
        "--mount",
        "sh",
        "-c",
        'mount -t tmpfs -o ro none /dev/shm && exec "$@"',
        "sh",
    ]
    try:
        subprocess.run([*without, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("/dev/shm cannot be taken away here")
    assert _program("", *without) == [f"OSError {errno.EROFS}", "1"]
