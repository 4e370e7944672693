"""Run CPython's tests of executors, on ours: ``run_cpython.py [thread | process | ray] MODULE...``.

The interpreter that runs this must have CPython's ``test`` package. The tests are imported, never
copied. They find our executors and our future where CPython's are, also in the programs that they
start. It needs no pytest, so that any interpreter of this machine will do. With ``ray``, those of
process pools run on a Ray cluster; that takes minutes, and an interpreter that has Ray.
"""

from __future__ import annotations

import concurrent.futures
import importlib
import os
import re
import sys
import unittest
import warnings
from collections.abc import Callable
from concurrent.futures import _base
from pathlib import Path
from typing import Any

from test.support import threading_helper

HERE = Path(__file__).parent
PACKAGE = "test.test_concurrent_futures"

# Patterns of the names of their cases. Other start methods would be the same tests again.
KINDS = {
    "thread": "ThreadPool|FutureTests",
    "process": "ProcessPoolForkserver",
    "ray": "ProcessPoolForkserver",
}

_LATER = "looks for threads or processes right after a submission; ours start a moment later"
_EAGER = "counts the processes; ours start together, and not one by one"
_MANAGER = "waits for a thread of the executor's that we do not have"
_ONE_TASK = "wants an argument or a result that cannot be unpickled to break the executor; with us \
only that task fails, with the error"
_PRIVATE = "wants a private method or class of the executor"

# Set where those of processes run on Ray.
_ON_RAY = "ION_ACTORS_TESTS_ON_RAY"

# What is not asked of us, and why.
EXCLUDED = {
    "test_saturation": _LATER,
    "test_threads_terminate": _LATER,
    "test_processes_terminate": _EAGER,
    "test_idle_process_reuse_one": _EAGER,
    "test_idle_process_reuse_multiple": _EAGER,
    "test_max_tasks_per_child": "counts the processes when one was replaced; ours start the next "
    "while the last one ends",
    "test_submit_after_interpreter_shutdown": "wants the error's class to be called RuntimeError; "
    "ours is one",
    "test_traceback": "wants the remote traceback as the cause; with us it is a note, and the "
    "cause is the task's own",
    "test_python_finalization_error": "wants thread starts to fail, and ours has a pool by then",
    "test_force_shutdown_workers_not_started_yet": "replaces the class of processes by a mock",
    "test_process_fork_from_a_threadpool": "wants a bare fork",
    "test_hang_global_shutdown_lock": "wants bare forks",
    "test_exception_with_success": "sets the private state of a future; who waits for ours sees it "
    "at the end of the timeout",
    "test_exit_during_result_pickle_on_worker": "wants what a pickler has raised; with us that is "
    "the cause of a PicklingError",
    "test_exit_at_task_unpickle": _ONE_TASK,
    "test_error_at_task_unpickle": _ONE_TASK,
    "test_error_during_result_unpickle_in_result_handler": _ONE_TASK,
    "test_exit_during_result_unpickle_in_result_handler": _ONE_TASK,
    "test_broken_process_pool_traceback": "ends a process by the private table of them, "
    "right after a submission, when ours has no task yet",
    "test_gh105829_should_not_deadlock_if_wakeup_pipe_full": "replaces a private class",
    "ProcessPool.test_cancel_futures": "wants a task to have begun; our processes still start then",
    "ProcessPool.test_del_shutdown": _MANAGER,
    "ProcessPool.test_shutdown_no_wait": _MANAGER,
    "ProcessPool.test_shutdown_deadlock_pickle": _MANAGER,
    "test_shutdown_no_wait_max_tasks_gh119592": _MANAGER,
    "test_gc_during_max_tasks_worker_exit_gh152967": _MANAGER,
    "test_force_shutdown_during_max_tasks_worker_exit": _MANAGER,
    "test_failed_worker_replacement_breaks_pool": _MANAGER,
    "test_shutdown_gh_132969_case_1": _MANAGER,
    "test_shutdown_gh_132969_case_2": _MANAGER,
    "test_kill_workers": _PRIVATE,
    "test_terminate_workers": _PRIVATE,
    "test_traceback_when_child_process_terminates_abruptly": _PRIVATE,
}

# Nor this where they run on Ray, which has no processes of this one's.
NOT_ON_RAY = {
    "test_killed_child": _PRIVATE,
    "test_context_manager_shutdown": _PRIVATE,
    "test_del_shutdown": _PRIVATE,
    "test_max_tasks_per_child_defaults_to_spawn_context": _PRIVATE,
    "test_ressources_gced_in_workers": "reaches a server of multiprocessing, whose password only "
    "its children have",
    "test_map_timeout": "gives the executor five seconds to start; Ray may take longer",
    "FailingInitializer.test_initializer": "gives the initializer a queue of multiprocessing",
}

# For the programs that the tests start: they import concurrent.futures as they like.
_PATH = [str(HERE), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
PROLOGUE = f"import sys; sys.path[:0] = {_PATH}; import run_cpython; run_cpython.install()\n"


def install() -> None:
    """Replace CPython's classes by ours."""
    import ion_actors
    from ion_actors import executors

    for name in ("ThreadPoolExecutor", "ProcessPoolExecutor"):
        setattr(concurrent.futures, name, getattr(executors, name))
    if os.environ.get(_ON_RAY):
        concurrent.futures.ProcessPoolExecutor = _executor_on_ray()  # type: ignore[misc]
    concurrent.futures.Future = _base.Future = ion_actors.Future


def _executor_on_ray() -> type[Any]:
    from ion_actors import RayBackend
    from ion_actors.executors import ProcessPoolExecutor
    from ion_actors.executors.stand_in import StandIn, cpus

    class OnRay(ProcessPoolExecutor):
        def __init__(
            self,
            max_workers: int | None = None,
            mp_context: object = None,
            initializer: Callable[..., object] | None = None,
            initargs: tuple[Any, ...] = (),
            *,
            max_tasks_per_child: int | None = None,
        ) -> None:
            backend = RayBackend(
                num_cpus=0, max_tasks_per_child=max_tasks_per_child, start_timeout=None
            )
            size = cpus() if max_workers is None else max_workers
            StandIn.__init__(self, size, initializer, initargs, None, backend)

    OnRay.__name__ = ProcessPoolExecutor.__name__  # by which programs import it
    return OnRay


def load(name: str, wanted: str) -> list[type[unittest.TestCase]]:
    """The cases of one of CPython's test modules, less those of other kinds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of modules that will be removed some day
        module = importlib.import_module(f"{PACKAGE}.test_{name}")
    if hasattr(module, "assert_python_ok"):
        run = module.assert_python_ok
        module.assert_python_ok = lambda flag, code: run(flag, PROLOGUE + code)
    return [
        one
        for one in vars(module).values()
        if isinstance(one, type)
        and issubclass(one, unittest.TestCase)
        and one.__module__ == module.__name__
        and re.search(wanted, one.__name__)
        and one.__name__ != "FailingInitializerResourcesTest"  # looks for leaks of another process
    ]


def reason(case: type[unittest.TestCase], test: str) -> str | None:
    """Why a test is excluded; None if it is not."""
    excluded = {**EXCLUDED, **NOT_ON_RAY} if os.environ.get(_ON_RAY) else EXCLUDED
    for key, why in excluded.items():
        *kinds, name = key.split(".")
        if name == test and all(kind in case.__name__ for kind in kinds):
            return why
    return None


def suite_of(name: str, wanted: str) -> unittest.TestSuite:
    """The tests of one of CPython's modules, less those that are excluded."""
    suite = unittest.TestSuite()
    for case in load(name, wanted):
        for test in unittest.defaultTestLoader.getTestCaseNames(case):
            if why := reason(case, test):
                setattr(case, test, unittest.skip(why)(getattr(case, test)))
            suite.addTest(case(test))
    return suite


def main() -> int:
    """Run those of one kind of executor, or of both, and tell how many tests there were."""
    kinds = [word for word in sys.argv[1:] if word in KINDS]
    modules = [word for word in sys.argv[1:] if word not in KINDS]
    wanted = "|".join(KINDS[kind] for kind in kinds or ["thread", "process"])
    if "ray" in kinds:
        from ion_actors.backends.ray.connection import connect

        os.environ[_ON_RAY] = "1"  # for the programs that the tests start, too
        connect("local", {"num_cpus": 2, "object_store_memory": 200_000_000})
    sys.path[:] = [one for one in sys.path if Path(one) != HERE]
    install()
    # They wait until the number of threads is what it was, but the clock's thread stays a while.
    # For leaks, the fixture of our own tests looks.
    threading_helper.threading_cleanup = lambda *_: None
    suite = unittest.TestSuite(suite_of(name, wanted) for name in modules)
    runner = unittest.TextTestRunner(verbosity=2)
    result = runner.run(suite)
    if "ray" in kinds and not result.wasSuccessful():
        # Some of these tests limit what Ray may take to start; see .ci/run.
        print("WHAT FAILED IS RUN ONCE MORE, ALONE", flush=True)
        failed = [case for case, _ in (*result.failures, *result.errors)]
        again = [type(case)(case.id().rpartition(".")[2]) for case in failed]
        return not runner.run(unittest.TestSuite(again)).wasSuccessful()
    print(f"ran {result.testsRun - len(result.skipped)} of CPython {sys.version.split()[0]}")
    sys.stdout.flush()
    return not result.wasSuccessful()


if __name__ == "__main__":
    sys.exit(main())
