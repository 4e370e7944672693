"""Signals that are sent to all processes of a program, and what a task's programs make of them."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from ion_actors import Pool, ProcessBackend
from tests.backends.process import errands
from tests.backends.process.programs import run
from tests.workerpool.helpers import PATIENCE, eventually

METHODS = pytest.mark.parametrize("method", ["forkserver", "spawn"])
TO_ALL = pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1"])

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="the tests read /proc"),
    pytest.mark.usefixtures("no_child_is_left"),
]

GROUP = """
def work(mark, go):
    mark.touch()
    while not go.exists():
        time.sleep(0.01)
    return "done"
"""


@METHODS
@TO_ALL
def test_what_is_sent_to_the_group_loses_no_task(tmp_path: Path, method: str, name: str) -> None:
    main = f"""
        folder, go = Path({str(tmp_path)!r}), Path({str(tmp_path / "go")!r})
        heard = []
        signal.signal(signal.{name}, lambda *_: heard.append(1))
        with Pool(2, backend=ProcessBackend(start_method={method!r})) as pool:
            futures = [pool.submit(work, folder / f"mark-{{n}}", go) for n in range(2)]
            while len(list(folder.glob("mark-*"))) < 2:
                time.sleep(0.01)
            os.killpg(0, signal.{name})
            go.touch()
            print(*[future.result() for future in futures], pool.metrics().restarts, heard)
            logging.disable()
            pool.submit(os._exit, 1).exception()  # the forkserver has survived, too
            print(pool.submit(pow, 2, 3).result())
        from multiprocessing.resource_tracker import _resource_tracker
        print(_resource_tracker._check_alive())
    """
    assert run(tmp_path, main, top=GROUP) == "done done 0 [1]\n8\nTrue\n"


@METHODS
def test_a_program_that_a_task_starts_has_the_usual_dispositions(method: str) -> None:
    with Pool(1, backend=ProcessBackend(start_method=method)) as pool:
        found = pool.submit(errands.dispositions_of_a_program).result(PATIENCE)
    here = errands.dispositions_of_a_program()["SigIgn"]  # by who has started the tests, perhaps
    assert found == {"SigBlk": set(), "SigIgn": here}


@METHODS
def test_a_program_that_a_task_starts_can_be_interrupted(method: str) -> None:
    with Pool(1, backend=ProcessBackend(start_method=method)) as pool:
        assert pool.submit(errands.interrupt_a_program).result(PATIENCE) == -signal.SIGINT


@METHODS
def test_a_fork_of_a_task_has_the_usual_dispositions(method: str) -> None:
    with Pool(1, backend=ProcessBackend(start_method=method)) as pool:
        found = pool.submit(errands.handlers_of_a_fork).result(PATIENCE)
    assert found == ["default_int_handler", "SIG_DFL", "SIG_DFL", "SIG_DFL"]


@METHODS
def test_what_the_parent_ignores_is_ignored_by_the_programs_of_a_task(
    tmp_path: Path, method: str
) -> None:
    main = f"""
        from tests.backends.process import errands
        for ignore in (True, False):
            for name in ("SIGHUP", "SIGALRM"):
                signal.signal(getattr(signal, name), signal.SIG_IGN if ignore else signal.SIG_DFL)
            with Pool(1, backend=ProcessBackend(start_method={method!r})) as pool:
                found = pool.submit(errands.dispositions_of_a_program).result()["SigIgn"]
                print(signal.SIGHUP in found, signal.SIGALRM in found)
    """
    assert run(tmp_path, main) == "True True\nFalse False\n"


@METHODS
def test_a_parent_that_blocks_the_signal_of_an_end_is_told_of_it(
    tmp_path: Path, method: str
) -> None:
    main = f"""
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
        logging.disable()
        with Pool(1, backend=ProcessBackend(start_method={method!r})) as pool:
            print(pool.submit(os._exit, 7).exception().__cause__.exitcode)
    """
    assert run(tmp_path, main) == "7\n"  # and the forkserver ends, or its streams would not


@METHODS
def test_a_program_that_sigpipe_ends_outlives_its_children(tmp_path: Path, method: str) -> None:
    main = f"""
        from tests.workerpool.helpers import is_alive
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        logging.disable()
        with Pool(1, backend=ProcessBackend(start_method={method!r})) as pool:
            for _ in range(2):
                server, child = pool.submit(os.getppid).result(), pool.submit(os.getpid).result()
                if server != os.getpid():
                    os.kill(server, signal.SIGKILL)
                os.kill(child, signal.SIGKILL)
                while is_alive(child) or (server != os.getpid() and is_alive(server)):
                    time.sleep(0.001)
                print(pool.submit(pow, 2, 3).result())  # to one that is not there any more
    """
    assert run(tmp_path, main) == "8\n8\n"


def test_the_forkserver_of_multiprocessing_is_as_it_would_be_without_a_pool(
    tmp_path: Path,
) -> None:
    main = """
        from multiprocessing import forkserver
        with Pool(1, backend="process") as pool:
            pool.submit(pow, 2, 3).result()
        print(forkserver._forkserver._forkserver_pid, forkserver._forkserver._preload_modules)
        context = multiprocessing.get_context("forkserver")
        ours, theirs = context.Pipe()
        process = context.Process(target=sleep, args=(theirs,))
        process.start()
        print(ours.recv())
        os.kill(process.pid, signal.SIGINT)
        print(ours.recv())
        process.join()
    """
    top = """
        def sleep(pipe):
            try:
                pipe.send("up")
                time.sleep(100)
            except KeyboardInterrupt:
                pipe.send("interrupted")
    """
    assert run(tmp_path, main, top=top) == "None ['__main__']\nup\ninterrupted\n"


def test_a_signal_does_not_interrupt_what_a_task_waits_for(tmp_path: Path) -> None:
    with Pool(1, backend="process") as pool:
        future = pool.submit(errands.read_a_pipe_in_c, tmp_path / "mark")
        mark = tmp_path / "mark"
        eventually(lambda: mark.exists() and mark.read_text())
        os.kill(int(mark.read_text()), signal.SIGHUP)
        assert future.result(PATIENCE) == 1  # and not -1, with EINTR


@METHODS
def test_a_storm_of_signals_does_not_overflow_the_stack_of_their_handlers(method: str) -> None:
    with Pool(1, backend=ProcessBackend(start_method=method)) as pool:
        assert pool.submit(errands.hear_all_at_once, 20).result(PATIENCE) == "alive"


def test_a_pipe_that_nobody_reads_is_an_error_and_no_signal(tmp_path: Path) -> None:
    main = """
        from ion_actors.backends.process.signals import without_sigpipe
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        reading, writing = os.pipe()
        os.close(reading)
        try:
            with without_sigpipe():
                os.write(writing, b"x")
        except BrokenPipeError:
            print("an error", signal.pthread_sigmask(signal.SIG_BLOCK, ()))
    """
    assert run(tmp_path, main) == "an error set()\n"
