"""CPython's own tests of process pools, run on ours; for threads, see ``test_cpython``.

Our pool stands in for ``concurrent.futures.ProcessPoolExecutor``, with the forkserver.
"""

from __future__ import annotations

import concurrent.futures
import importlib
import importlib.util
import logging
import unittest
import warnings
from concurrent.futures import _base

import pytest

import ion_actors

PACKAGE = "test.test_concurrent_futures"

# What is not asked of us, and why.
PRIVATE = "looks into the private parts of ProcessPoolExecutor"
EXCLUDED = {
    "test_idle_process_reuse_multiple": PRIVATE,
    "test_idle_process_reuse_one": PRIVATE,
    "test_killed_child": PRIVATE,
    "test_max_tasks_per_child": PRIVATE,
    "test_max_tasks_per_child_defaults_to_spawn_context": PRIVATE,
    "test_saturation": PRIVATE,
    "test_force_shutdown_workers": PRIVATE,
    "test_force_shutdown_workers_invalid_op": PRIVATE,
    "test_force_shutdown_workers_stops_pool": PRIVATE,
    "test_kill_workers": PRIVATE,
    "test_terminate_workers": PRIVATE,
    "test_process_fork_from_a_threadpool": "wants a bare fork",
    "test_python_finalization_error": "wants thread starts to fail, and ours has a pool by then",
    "test_traceback": "wants the remote traceback as the cause; with us it is a note, and the "
    "cause is the task's own",
    "test_initializer": "wants the failure in the child's log; with us it is in the parent's",
}
# Not those of shutdown and deadlocks: there, the first crash has to break the pool.
_KINDS = ("process_pool", "wait", "as_completed", "init")


def _package_is_there() -> bool:
    try:
        found = importlib.util.find_spec(PACKAGE)
    except ModuleNotFoundError:  # there is no package named test at all
        return False
    return found is not None and found.submodule_search_locations is not None


if not _package_is_there():
    pytest.skip("this Python has no such tests, or all in one module", allow_module_level=True)


class ProcessPoolExecutor(ion_actors.Pool):
    """``Pool`` with the arguments of its namesake."""

    def __init__(
        self,
        max_workers=None,
        mp_context=None,
        initializer=None,
        initargs=(),
        *,
        max_tasks_per_child=None,
    ):
        method = "forkserver" if mp_context is None else mp_context.get_start_method()
        if max_tasks_per_child is not None and method == "fork":
            raise ValueError("max_tasks_per_child is not compatible with fork")
        try:
            super().__init__(
                max_workers,
                backend=ion_actors.ProcessBackend(
                    start_method=method, max_tasks_per_child=max_tasks_per_child
                ),
                initializer=initializer,
                initargs=initargs,
                logger=logging.getLogger("concurrent.futures"),
            )
        except ValueError as error:
            said = str(error).replace(
                "size must be at least 1", "max_workers must be greater than 0"
            )
            raise ValueError(said) from error


REPLACED = [
    (concurrent.futures, "ProcessPoolExecutor", ProcessPoolExecutor),
    (concurrent.futures, "Future", ion_actors.Future),
    (_base, "Future", ion_actors.Future),
]


def cases():
    for name in _KINDS:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = importlib.import_module(f"{PACKAGE}.test_{name}")
        for one in vars(module).values():
            is_case = isinstance(one, type) and issubclass(one, unittest.TestCase)
            if is_case and one.__module__ == module.__name__ and "Forkserver" in one.__name__:
                yield one


def without_excluded(case):
    ours = {
        name: unittest.skip(EXCLUDED[name])(getattr(case, name))
        for name in dir(case)
        if name in EXCLUDED and name != "test_initializer"
    }
    if "FailingInitializer" in case.__name__:
        ours["test_initializer"] = unittest.skip(EXCLUDED["test_initializer"])(
            case.test_initializer
        )
    ours["executor_type"] = ProcessPoolExecutor
    return type(f"Ours{case.__name__}", (case,), {"__module__": __name__, **ours})


CASES = [without_excluded(case) for case in cases()]
globals().update({case.__name__: case for case in CASES})


@pytest.fixture(autouse=True)
def surroundings(monkeypatch):
    """Some ask concurrent.futures for its classes while they run."""
    for place in REPLACED:
        monkeypatch.setattr(*place)


def test_the_judges_have_come():
    names = " ".join(case.__name__ for case in CASES)
    for kind in ("ProcessPoolExecutorTest", "WaitTest", "AsCompletedTest", "InitializerTest"):
        assert kind in names
    assert all(case.executor_type is ProcessPoolExecutor for case in CASES)
