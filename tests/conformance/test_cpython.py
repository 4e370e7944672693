"""CPython's own tests of futures and executors, run on ours.

They come with the interpreter (its ``test`` package, which some distributions leave out) and are
imported, never copied. They see our ``Future`` as ``concurrent.futures.Future`` and our ``Pool`` as
``concurrent.futures.ThreadPoolExecutor``, also in the programs that they start.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import sys
import threading
import unittest
import warnings
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PACKAGE = "test.test_concurrent_futures"

# What is not asked of us, and why.
PRIVATE = "looks into the private parts of ThreadPoolExecutor"
EXCLUDED = {
    "test_saturation": PRIVATE,
    "test_idle_thread_reuse": PRIVATE,
    "test_threads_terminate": PRIVATE,
    "test_context_manager_shutdown": PRIVATE,
    "test_del_shutdown": PRIVATE,
    "test_shutdown_no_wait": PRIVATE,
    "test_thread_names_assigned": PRIVATE,
    "test_thread_names_default": PRIVATE,
    "test_submit_after_interpreter_shutdown": "wants the error's class to be called RuntimeError; "
    "ours is one: see below",
    "test_default_workers": "ours is one worker for each CPU, theirs are more",
}


def package_or_skip():
    try:
        found = importlib.util.find_spec(PACKAGE)
    except ModuleNotFoundError:  # there is no package named test at all
        found = None
    if found is None:
        pytest.skip("this Python comes without its test package", allow_module_level=True)
    if found.submodule_search_locations is None:
        pytest.skip("before 3.12, CPython's tests are one module", allow_module_level=True)


package_or_skip()
sys.path.insert(0, str(HERE))
import executor  # noqa: E402  # a plain module, so that programs without pytest can import it
from test.support import threading_helper  # noqa: E402
from test.support.script_helper import assert_python_ok  # noqa: E402

sys.path.remove(str(HERE))

# For the programs that the tests start: they import concurrent.futures as they like.
PROLOGUE = (
    f"import sys; sys.path[:0] = {[str(HERE), str(ROOT)]!r}; "
    "import executor; executor.install(); del sys.path[:2]\n"
)


def load(name):
    """One of CPython's test modules, with our classes in the place of CPython's."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of modules that will be removed some day
        module = importlib.import_module(f"{PACKAGE}.{name}")
    if hasattr(module, "assert_python_ok"):
        run = module.assert_python_ok
        module.assert_python_ok = lambda flag, code: run(flag, PROLOGUE + code)
    return module


def cases():
    for name in ("future", "thread_pool", "shutdown", "init", "wait", "as_completed"):
        module = load(f"test_{name}")
        for one in vars(module).values():
            is_case = isinstance(one, type) and issubclass(one, unittest.TestCase)
            if is_case and one.__module__ == module.__name__ and "ProcessPool" not in one.__name__:
                yield one


def without_excluded(case):
    skipped = {
        name: unittest.skip(EXCLUDED[name])(getattr(case, name))
        for name in dir(case)
        if name in EXCLUDED
    }
    return type(case.__name__, (case,), {"__module__": __name__, **skipped})


with pytest.MonkeyPatch.context() as patch:
    executor.install(patch.setattr)
    CASES = [
        without_excluded(case)
        for case in cases()
        if case.__name__ != "FailingInitializerResourcesTest"
    ]

# They become part of this module, so that pytest finds them.
globals().update({case.__name__: case for case in CASES})


@pytest.fixture(autouse=True)
def surroundings(monkeypatch):
    """What CPython's tests expect around them."""
    # Some ask concurrent.futures for its classes while they run.
    executor.install(monkeypatch.setattr)
    # Logs go to the current stderr if nobody handles them, which pytest does.
    logger = logging.getLogger("ion_actors")
    logger.addHandler(logging.lastResort)
    # They wait until the number of threads is what it was. A thread of pytest-timeout comes and
    # goes; for leaks, the fixture of all our tests looks.
    monkeypatch.setattr(threading_helper, "threading_cleanup", lambda *_: None)
    yield
    logger.removeHandler(logging.lastResort)


def test_the_judges_have_come():
    assert {
        "FutureTests",
        "ThreadPoolAsCompletedTest",
        "ThreadPoolExecutorTest",
        "ThreadPoolFailingInitializerTest",
        "ThreadPoolInitializerTest",
        "ThreadPoolShutdownTest",
        "ThreadPoolWaitTests",
    } <= {case.__name__ for case in CASES}


def test_submit_after_the_interpreter_has_shut_down_is_a_runtime_error():
    program = """if 1:
        import atexit, concurrent.futures

        @atexit.register
        def run_last():
            try:
                executor.submit(id, None)
            except RuntimeError as error:
                print("cannot schedule new futures" in str(error))

        executor = concurrent.futures.ThreadPoolExecutor(5)
        """
    code, out, err = assert_python_ok("-c", PROLOGUE + program)
    assert (code, out.strip(), err) == (0, b"True", b"")


def test_they_judge_our_classes():
    for case in CASES:
        if hasattr(case, "executor_type"):
            assert case.executor_type is executor.ThreadPoolExecutor
    assert threading.current_thread() is threading.main_thread()
