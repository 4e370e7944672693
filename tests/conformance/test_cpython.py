"""CPython's own tests of futures and of thread pools, run on ours."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.conformance.cpython import MODULES, newest, run


@pytest.mark.slow
def test_cpythons_own_tests_hold_for_our_thread_pool() -> None:
    """All modules at a time, each in a process: they sleep, for half a minute in all."""
    interpreter = newest()
    if interpreter is None:
        pytest.skip("no Python of this machine comes with CPython's tests of 3.12 or later")
    with ThreadPoolExecutor(len(MODULES)) as threads:
        started = [
            threads.submit(run, interpreter, "thread", modules=[one], capture_output=True)
            for one in MODULES
        ]
    total = 0
    for done in (one.result() for one in started):
        assert done.returncode == 0, done.stderr
        counted = re.search(r"ran (\d+) of CPython", done.stdout)
        assert counted is not None
        total += int(counted[1])
    assert total > 50
