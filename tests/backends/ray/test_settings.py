"""The arguments of the Ray backend. All of this holds without Ray."""

from __future__ import annotations

import dataclasses
import email
import importlib.util
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from ion_actors import Pool, ProcessBackend, RayBackend

_find_spec = importlib.util.find_spec


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if Ray were installed: to make a backend only looks for it."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"address": 6379}, TypeError, "address"),
        ({"address": "head"}, ValueError, "address"),
        ({"address": ":6379"}, ValueError, "address"),
        ({"address": "head:0"}, ValueError, "address"),
        ({"address": "head:99999"}, ValueError, "address"),
        ({"address": "ray://head:10001"}, ValueError, "Ray's client"),
        ({"init": []}, TypeError, "init"),
        ({"init": {1: 2}}, TypeError, "init"),
        ({"init": {"address": "auto"}}, ValueError, "RayBackend.address"),
        ({"ship": "folder"}, TypeError, "ship must be a list"),
        ({"ship": importlib.util}, TypeError, "ship must be a list"),
        ({"ship": None}, TypeError, "ship must be a list"),
        ({"ship": [1]}, TypeError, "ship must be a list of modules and paths, not of 1"),
        ({"ship": [sys]}, ValueError, "ship must be modules, and paths"),
        ({"ship": ["nowhere"]}, ValueError, "'nowhere' is none"),
        ({"ship": ["pyproject.toml"]}, ValueError, "'pyproject.toml' is none"),
        ({"num_cpus": -1}, ValueError, "num_cpus"),
        ({"num_cpus": True}, TypeError, "num_cpus"),
        ({"num_gpus": "1"}, TypeError, "num_gpus"),
        ({"resources": "disk"}, TypeError, "resources"),
        ({"resources": {1: 1}}, TypeError, "resources"),
        ({"resources": {"CPU": 1}}, ValueError, "num_cpus"),
        ({"resources": {"GPU": 1}}, ValueError, "num_gpus"),
        ({"resources": {"disk": -1}}, ValueError, "disk"),
        ({"max_tasks_per_child": 0}, ValueError, "max_tasks_per_child"),
        ({"window": 0}, ValueError, "window must be at least 1"),
        ({"window": 2.0}, TypeError, "window"),
        ({"window": True}, TypeError, "window"),
        ({"window": 10_001}, ValueError, "window must be at most 10000"),
        ({"batch": 0}, ValueError, "batch must be at least 1"),
        ({"batch": None}, TypeError, "batch"),
        ({"batch": 70_000}, ValueError, "batch must be at most 10000"),
        ({"writable": 1}, TypeError, "writable"),
        ({"connect_timeout": None}, ValueError, "connect_timeout"),
        ({"start_timeout": 0}, ValueError, "start_timeout"),
        ({"grace": -1}, ValueError, "grace"),
        ({"kill_after": -1}, ValueError, "kill_after"),
        ({"isolate": 1}, TypeError, "isolate"),
        ({"isolate": True, "child": "process"}, TypeError, "child must be a ProcessBackend"),
        ({"child": ProcessBackend()}, ValueError, "isolate=True"),
        (
            {"isolate": True, "grace": 2, "child": ProcessBackend(grace=3)},
            ValueError,
            "grace is 2.0 for RayBackend, and 3.0 for its child",
        ),
    ],
)
def test_arguments_that_make_no_sense(
    settings: dict[str, Any], error: type[Exception], words: str, installed: None
) -> None:
    with pytest.raises(error, match=words):
        RayBackend(**settings)


@pytest.mark.parametrize("address", [None, "auto", "local", "head:6379", "[::1]:6379"])
def test_addresses(address: str | None, installed: None) -> None:
    assert RayBackend(address=address).address == address


def test_what_is_shipped_is_known_by_its_path(
    installed: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "helper.py").touch()
    monkeypatch.chdir(tmp_path)
    found = RayBackend(ship=[textwrap, email, "shop", Path("helper.py")]).ship
    assert found == (
        str(Path(textwrap.__file__)),
        str(Path(email.__file__).parent),
        str(tmp_path / "shop"),
        str(tmp_path / "helper.py"),
    )


def test_what_may_be_secret_is_not_shown(installed: None) -> None:
    backend = RayBackend(init={"runtime_env": {"env_vars": {"KEY": "secret"}}})
    assert "secret" not in repr(backend)
    assert hash(backend) == hash(RayBackend())


def test_settings_do_not_change(installed: None) -> None:
    given: dict[str, float] = {"disk": 1}
    backend = RayBackend(resources=given)
    given["disk"] = 2
    assert backend.resources == {"disk": 1}


def test_what_both_have_holds_wherever_it_is_set(installed: None) -> None:
    backend = RayBackend(
        isolate=True, grace=2, child=ProcessBackend(kill_after=3, max_tasks_per_child=4, nice=5)
    )
    child = backend.child_there
    assert child is not None
    assert (child.grace, child.kill_after, child.max_tasks_per_child) == (2, 3, 4)
    assert (child.nice, child.native_threads) == (5, 1)
    other = dataclasses.replace(backend, grace=4).child_there
    assert other == dataclasses.replace(child, grace=4)


def test_threads_of_a_child_are_the_cpus_of_its_worker(installed: None) -> None:
    for cpus, threads in ((0, 1), (0.5, 1), (4, 4)):
        child = RayBackend(isolate=True, num_cpus=cpus).child_there
        assert child is not None
        assert child.native_threads == threads
    assert RayBackend().child_there is None


def test_without_ray_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"^the Ray backend needs Ray: .* extra 'ray'$"):
        Pool(1, backend="ray")


def test_the_library_does_not_import_ray() -> None:
    lines = "import sys, ion_actors; ion_actors.RayBackend; print('ray' in sys.modules)"
    found = subprocess.run(
        [sys.executable, "-c", lines], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "False"
