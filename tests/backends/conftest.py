"""What the tests of backends share: no child is left, one starts quickly; and a Ray cluster."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ion_actors import Pool
from ion_actors.backends.process.parent import forkserver, interpreter
from ion_actors.backends.process.parent.launch import running_children
from tests.ray_cluster import ray_cluster
from tests.waiting import PATIENCE, comes_true, eventually

__all__ = ["forkserver_runs", "no_child_is_left", "quick_start", "ray_cluster"]


@pytest.fixture(scope="session", autouse=True)
def quick_start() -> None:
    """Each child imports the main module, which is pytest; let the forkserver have done so."""
    forkserver.ALWAYS += ["pytest", "_pytest.config"]


@pytest.fixture(scope="session")
def forkserver_runs(quick_start: None) -> None:
    """The forkserver of all tests: to start one takes ten times as long as to fork a child."""
    interpreter.resource_tracker_fd()
    _start_forkserver()


@pytest.fixture
def no_child_is_left(forkserver_runs: None, nothing_is_left_behind: None) -> Iterator[None]:
    """No child and no descriptor outlives its test; only the forkserver does."""
    before = _descriptors()
    yield
    assert running_children() == []
    if comes_true(lambda: _descriptors() <= before, patience=0.1):
        if _descriptors() < before:  # the test has closed it
            _start_forkserver()
        return
    # Either the test has started another server, or it leaves something open.
    forkserver.close_all()
    try:
        eventually(lambda: _descriptors() < before)
    finally:
        _start_forkserver()


def _start_forkserver() -> None:
    with Pool(1, backend="process") as pool:
        pool.submit(os.getpid).result(PATIENCE)


def _descriptors() -> int:
    """How many descriptors this process has open; -1 where nothing tells."""
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.exists() else -1
