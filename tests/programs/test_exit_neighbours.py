"""The end of the interpreter, and what tasks need of it: executors, loops, child processes, trees.

``threading`` makes the calls at exit in the reverse order of their registration, and so of imports.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Callable

import pytest

from tests import needs_threads_at_exit
from tests.programs.conftest import ROOT

Run = Callable[..., tuple[int, list[str], str]]

IGNORE = ("-W", "ignore::ResourceWarning")

# Imported before ours, and after it.
ORDERS = [
    "",
    "import asyncio",
    "import concurrent.futures.thread",
    "import concurrent.futures.process",
    "import concurrent.futures.process, concurrent.futures.thread, asyncio",
]

TASKS = {
    "to_thread": "await asyncio.to_thread(pow, 2, 3)",
    "getaddrinfo": "bool(await asyncio.get_running_loop().getaddrinfo('127.0.0.1', 80)) and 8",
    "executor": "await asyncio.get_running_loop().run_in_executor(None, pow, 2, 3)",
    "own executor": "in_own_executor()",
}

WAIT_FOR_EXIT = """
import asyncio

def exiting():
    while not threading._SHUTTING_DOWN:
        time.sleep(0.001)

def in_own_executor():
    from concurrent.futures import ThreadPoolExecutor
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(pow, 2, 3).result()

async def job():
    exiting()
    try:
        say({task})
    except BaseException as error:
        say(repr(error))
"""


def program(before: str, between: str, task: str, end: str, after: str = "") -> str:
    parts = (before, "from ion_actors import *", between, "import sys, threading, time",
             _SAY, WAIT_FOR_EXIT.format(task=task), after, end)  # fmt: skip
    return "\n".join(parts)


_SAY = """
def say(*words):
    print(" ".join(map(str, words)) + "\\n", end="", flush=True)
"""


def run_plainly(source: str) -> tuple[int, str, str]:
    """Without a prelude, which would decide what is imported first."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore::ResourceWarning", "-c", source],
        capture_output=True, text=True, timeout=60, check=False, cwd=ROOT,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


@needs_threads_at_exit
@pytest.mark.parametrize(("before", "between"), [*itertools.product(ORDERS[:3], ORDERS)])
def test_coroutines_use_the_default_executor_at_exit(before: str, between: str) -> None:
    end = "pool = Pool(1)\npool.submit(job)"
    code, out, errors = run_plainly(program(before, between, TASKS["to_thread"], end))
    assert (code, out) == (0, "8\n"), errors


@needs_threads_at_exit
@pytest.mark.parametrize("task", TASKS)
def test_whatever_needs_threads_has_them_at_exit(task: str) -> None:
    end = "pool = Pool(1)\npool.submit(job)"
    code, out, errors = run_plainly(program("", "", TASKS[task], end))
    assert (code, out) == (0, "8\n"), errors


@needs_threads_at_exit
def test_who_registers_before_the_last_pool_is_made_comes_after_it() -> None:
    end = """
pool = Pool(1)
import concurrent.futures.process
threading._register_atexit(say, "a neighbour's hook")
another = Pool(1)
another.submit(job)
"""
    code, out, errors = run_plainly(program("", "", TASKS["to_thread"], end))
    assert (code, out) == (0, "8\na neighbour's hook\n"), errors


@needs_threads_at_exit
def test_an_executor_of_processes_serves_tasks_at_exit(run: Run) -> None:
    code, lines, errors = run(
        """
        import concurrent.futures, multiprocessing
        executor = concurrent.futures.ProcessPoolExecutor(
            1, mp_context=multiprocessing.get_context("fork"))
        executor.submit(str).result()
        pool = Pool(1)
        def task():
            while not threading._SHUTTING_DOWN:
                time.sleep(0.001)
            say(executor.submit(pow, 2, 3).result())
        pool.submit(task)
        """,
        *IGNORE,
    )
    assert lines == ["8"], errors
    assert code == 0


@needs_threads_at_exit
def test_child_processes_begin_and_run_their_tasks_at_exit(run: Run) -> None:
    code, lines, errors = run(
        """
        import os
        pool = Pool(2, backend="process")
        for number in range(4):
            pool.submit(os.write, 1, f"{number}\\n".encode())
        """,
        *IGNORE,
    )
    assert sorted(lines) == ["0", "1", "2", "3"], errors
    assert code == 0


@needs_threads_at_exit
def test_a_tree_is_drained_before_the_pools_whatever_was_imported_first() -> None:
    end = """
from ion_actors.supervision import Supervisor, child
first = Pool(1)
tree = Supervisor([child(Pool, args=(1,))], name="app").start()
last = Pool(1)
tree["Pool"].submit(job)
"""
    code, out, errors = run_plainly(program("", "", TASKS["to_thread"], end))
    assert (code, out) == (0, "8\n"), errors
    assert "restart" not in errors


def test_whoever_maps_at_exit_is_told_that_there_will_be_no_more(run: Run) -> None:
    code, lines, errors = run(
        """
        import asyncio, itertools
        pool = Pool(1)
        begun = threading.Event()
        async def main():
            try:
                async for one in pool.amap(str, itertools.count()):
                    begun.set()
            except PoolClosed as error:
                say(type(error).__name__)
        thread = threading.Thread(target=asyncio.run, args=(main(),))
        thread.start()
        begun.wait()
        """,
        *IGNORE,
    )
    assert lines == ["PoolClosed"], errors
    assert code == 0


# -- a tree's exit has a limit ---

TREE = """
import pykka
from ion_actors.supervision import Supervisor, child, core, exit_hooks
class Stuck(pykka.ThreadingActor):
    def on_stop(self):
        threading.Event().wait()
class Said(pykka.ThreadingActor):
    def on_stop(self):
        say("stopped")
"""


def test_a_child_that_may_take_any_time_has_a_limit_at_exit(run: Run) -> None:
    code, lines, errors = run(
        TREE
        + """
core.EXIT_PATIENCE = 0.1
from ion_actors.supervision import watched_actor
watched_actor.EXIT_PATIENCE = 0.1
inner = lambda: Supervisor([child(Stuck, shutdown=None)], name="inner")
tree = Supervisor([Said, child(inner, id="inner"), child(Stuck, shutdown=None)]).start()
""",
        *IGNORE,
    )
    assert lines == ["stopped"], errors
    assert errors.count("child Stuck did not stop in time and is abandoned") == 2
    assert code == 0


def test_an_end_that_was_asked_for_before_has_a_limit_at_exit_too(run: Run) -> None:
    code, lines, errors = run(
        TREE
        + """
from ion_actors.supervision import watched_actor
watched_actor.EXIT_PATIENCE = 0.1
tree = Supervisor([Said, child(Stuck, shutdown=None)]).start()
threading.Thread(target=tree.drain, daemon=True).start()
while tree.state.value != "stopping":
    time.sleep(0.001)
""",
        *IGNORE,
    )
    assert lines == ["stopped"], errors
    assert code == 0


def test_a_pool_in_a_tree_has_its_own_limit_at_exit(run: Run) -> None:
    code, lines, errors = run(
        TREE
        + """
tree = Supervisor([Said, child(Pool, args=(1,), kwargs={"drain_timeout": 0.1}, shutdown=None)])
tree.start()
tree["Pool"].submit(threading.Event().wait)
""",
        *IGNORE,
    )
    assert lines == ["stopped"], errors
    assert code == 0


def test_a_supervisor_that_does_not_answer_is_not_waited_for_for_ever(run: Run) -> None:
    code, lines, errors = run(
        TREE
        + """
from ion_actors.supervision.actor import TreeActor
tree = Supervisor([child(Said, shutdown=0.1)]).start()
exit_hooks._MARGIN = 0.1
tree._core.inbox.control.put = lambda envelope: True  # its mail is lost
""",
        *IGNORE,
    )
    assert lines == [], errors
    assert code == 0
