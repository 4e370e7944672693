"""What the tests of backends share: no child is left, one starts quickly, and a Ray cluster."""

from __future__ import annotations

import importlib.util
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ion_actors import Pool
from ion_actors.backends.process.parent import forkserver, interpreter
from ion_actors.backends.process.parent.launch import running_children
from tests.workerpool.helpers import PATIENCE, comes_true, eventually


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


@pytest.fixture(scope="session", autouse=True)
def ray_cluster(request: pytest.FixtureRequest) -> Iterator[None]:
    """One local Ray cluster for all tests that want one: to start it takes seconds.

    By itself, and not when a test asks for it: what it starts is not left behind by that test.
    """
    ids = [one.nodeid for one in request.session.items]
    wanted = any("[ray" in one or "on_a_cluster" in one for one in ids)
    if not wanted or importlib.util.find_spec("ray") is None:
        yield
        return
    from ion_actors.backends.ray.connection import connect

    # Ray sets a handler for SIGTERM if it can; and the kernel ends the cluster with this thread.
    assert threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)
    init = {"num_cpus": 2, "resources": {"seat": 2}, "object_store_memory": 200_000_000}
    connection = connect("local", init)
    signal.signal(signal.SIGTERM, before)
    yield
    connection.close()
    signal.signal(signal.SIGTERM, before)


def _start_forkserver() -> None:
    with Pool(1, backend="process") as pool:
        pool.submit(os.getpid).result(PATIENCE)


def _descriptors() -> int:
    """How many descriptors this process has open; -1 where nothing tells."""
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.exists() else -1
