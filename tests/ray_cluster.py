"""The Ray cluster of the tests: whether there is one, its fixture, and pools on it."""

from __future__ import annotations

import importlib.util
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ion_actors import RayBackend
from ion_actors.backends.ray.connection import connect, engine

__all__ = [
    "ON_RAY",
    "RAY_IS_HERE",
    "backend_of",
    "in_shared_memory",
    "param_of",
    "ray_cluster",
]

RAY_IS_HERE = importlib.util.find_spec("ray") is not None


def param_of(place: str) -> Any:
    """The parameter of a test for the backend of this name."""
    return pytest.param(place, marks=pytest.mark.cluster if place.startswith("ray") else ())


#: Parameters for the tests that run on Ray, too.
ON_RAY = [param_of("ray")] if RAY_IS_HERE else []


def backend_of(place: str) -> Any:
    """What makes a pool of that backend; on Ray, it is hasty.

    ``"ray-agent"``: on Ray, and the tasks in child processes there.
    """
    if not place.startswith("ray"):
        return place
    return RayBackend(num_cpus=0, grace=0.5, isolate=place == "ray-agent")


def in_shared_memory() -> set[str]:
    """The names of files there that are ours or Ray's."""
    prefixes = ("ion_actors", "plasma", "ray")
    return {one.name for one in Path("/dev/shm").glob("*") if one.name.startswith(prefixes)}


@pytest.fixture(scope="session", autouse=True)
def ray_cluster(request: pytest.FixtureRequest) -> Iterator[None]:
    """One local Ray cluster for all tests that want one: to start it takes seconds.

    By itself, and not when a test asks for it: what it starts is not left behind by that test.
    """
    wanted = any(one.get_closest_marker("cluster") for one in request.session.items)
    if not wanted or not RAY_IS_HERE or engine().is_initialized():
        yield
        return
    # Ray sets a handler for SIGTERM if it can; and the kernel ends the cluster with this thread.
    assert threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)
    init = {
        "num_cpus": 2,
        "num_gpus": 2,  # Ray believes it
        "resources": {"seat": 2},
        "object_store_memory": 200_000_000,
    }
    connection = connect("local", init)
    signal.signal(signal.SIGTERM, before)
    yield
    connection.close()
    signal.signal(signal.SIGTERM, before)
