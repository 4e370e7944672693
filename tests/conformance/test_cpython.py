"""CPython's own tests of futures and of thread pools, run on ours."""

from __future__ import annotations

import re

import pytest

from tests.conformance.cpython import newest, run


def test_cpythons_own_tests_hold_for_our_thread_pool() -> None:
    interpreter = newest()
    if interpreter is None:
        pytest.skip("no Python of this machine comes with CPython's tests of 3.12 or later")
    done = run(interpreter, "thread", capture_output=True)
    assert done.returncode == 0, done.stderr
    counted = re.search(r"ran (\d+) of CPython", done.stdout)
    assert counted is not None
    assert int(counted[1]) > 50
