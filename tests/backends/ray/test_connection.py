"""How this process connects to Ray: with a stand-in for Ray, so this holds without it, too."""

from __future__ import annotations

import gc
import logging
import os
import socket
import sys
import threading
import weakref
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from ion_actors import Context
from ion_actors.backends.protocol import Hopeless
from ion_actors.backends.ray import connection, site
from ion_actors.backends.ray.connection import connect
from tests.workerpool.helpers import PATIENCE, eventually


class FakeRay(ModuleType):
    """As far as a connection needs it."""

    def __init__(self) -> None:
        super().__init__("ray")
        self.address = ""  # that it is connected to
        self.inits: list[dict[str, Any]] = []
        self.levels: list[int] = []
        self.seen: list[tuple[object, str | None]] = []
        self.failure: Exception | None = None
        self.hold: threading.Event | None = None
        self.constants = ModuleType("ray._private.ray_constants")
        self.constants.ENABLE_RAY_CLUSTER = True  # type: ignore[attr-defined]
        self.worker = ModuleType("ray._private.worker")
        self.printed: list[str] = []
        self.worker.print_to_stdstream = (  # type: ignore[attr-defined]
            lambda data, **_: self.printed.extend(data["lines"])
        )

    def is_initialized(self) -> bool:
        return bool(self.address)

    def init(self, address: str, **others: Any) -> None:
        self.inits.append({"address": address, **others})
        self.levels.append(logging.getLogger("ray").level)
        enabled = self.constants.ENABLE_RAY_CLUSTER
        self.seen.append((enabled, os.environ.get("RAY_worker_niceness")))  # noqa: SIM112
        if self.hold is not None:
            self.hold.wait(PATIENCE)
        self.address = "127.0.0.1:1" if address == "local" else address
        if self.failure is not None:
            raise self.failure

    def shutdown(self) -> None:
        self.address = ""

    def get_runtime_context(self) -> Any:
        found = ModuleType("context")
        found.gcs_address = self.address  # type: ignore[attr-defined]
        return found

    def say(self, words: str) -> None:
        self.worker.print_to_stdstream({"lines": [words]}, ignore_prefix=False)


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    found = FakeRay()
    monkeypatch.setitem(sys.modules, "ray", found)
    monkeypatch.setitem(sys.modules, "ray._private.ray_constants", found.constants)
    monkeypatch.setitem(sys.modules, "ray._private.worker", found.worker)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_ENABLE_AUTO_CONNECT", "1")
    monkeypatch.setattr(connection, "_failures", {})
    return found


@pytest.fixture
def head() -> Iterator[str]:
    """Takes connections, whatever it is."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def test_a_local_cluster_is_for_this_machine_only(ray: FakeRay) -> None:
    found = connect(None, {})
    assert (found.own, found.local, found.address) == (True, True, "127.0.0.1:1")
    (init,) = ray.inits
    assert (init["address"], init["_node_ip_address"]) == ("local", "127.0.0.1")
    assert ray.seen == [(False, "0")]
    assert ray.levels == [logging.ERROR]
    found.close()
    assert not ray.is_initialized()


def test_nothing_stays_changed(ray: FakeRay) -> None:
    logging.getLogger("ray").setLevel(logging.INFO)
    connect(None, {})
    assert ray.constants.ENABLE_RAY_CLUSTER is True
    assert "RAY_worker_niceness" not in os.environ
    assert logging.getLogger("ray").level == logging.INFO


def test_arguments_of_init(ray: FakeRay) -> None:
    connect("local", {"num_cpus": 3, "log_to_driver": True})
    assert (ray.inits[0]["num_cpus"], ray.inits[0]["log_to_driver"]) == (3, True)


def test_code_is_sent_with_the_connection(ray: FakeRay) -> None:
    given = {"runtime_env": {"env_vars": {"A": "b"}, "py_modules": ["/one"]}, "num_cpus": 1}
    found = connect(None, given, ["/two", "/three.py"])
    assert ray.inits[0]["runtime_env"] == {
        "env_vars": {"A": "b"},
        "py_modules": ["/one", "/two", "/three.py"],
    }
    assert given["runtime_env"] == {"env_vars": {"A": "b"}, "py_modules": ["/one"]}
    found.close()
    connect(None, {}, ["/two"])
    assert ray.inits[1]["runtime_env"] == {"py_modules": ["/two"]}


def test_code_is_not_sent_later(ray: FakeRay) -> None:
    ray.address = "there:1"
    with pytest.raises(Hopeless, match=r"connected before.*runtime_env=dict.py_modules=\['/two'\]"):
        connect(None, {}, ["/two"])
    assert ray.inits == []


def test_pools_of_one_connection_send_what_the_first_has(ray: FakeRay) -> None:
    context = Context()
    found = site.enter(None, {}, context, ["/one", "/two"])
    assert site.enter(None, {}, context, ["/two"]) is found
    assert site.enter(None, {}, context) is found
    with pytest.raises(Hopeless, match=r"give that pool's backend ship=\['/three'\], too"):
        site.enter(None, {}, context, ["/one", "/three"])
    found.connected.result(PATIENCE)
    assert ray.inits[0]["runtime_env"] == {"py_modules": ["/one", "/two"]}
    context.cancel()
    for _ in range(3):
        found.leave(context)
    found.thread.join(PATIENCE)


def test_a_connection_that_there_is_stays(ray: FakeRay) -> None:
    ray.address = "there:1"
    found = connect(None, {})
    assert (found.own, found.local, found.address) == (False, False, "there:1")
    assert connect("there:1", {}).address == "there:1"
    with pytest.raises(Hopeless, match="connected to the Ray cluster at there:1"):
        connect("elsewhere:1", {})
    found.close()
    assert (ray.address, ray.inits) == ("there:1", [])


def test_a_running_cluster_is_joined(
    ray: FakeRay, head: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = connect(head, {})
    assert (found.own, found.local, found.address) == (True, False, head)
    found.close()
    monkeypatch.setenv("RAY_ADDRESS", head)
    assert connect(None, {}).address == head
    assert ray.seen == [(True, None)] * 2


def test_where_no_cluster_runs(ray: FakeRay) -> None:
    ray.failure = ConnectionError("Could not find any running Ray instance. Please specify ...")
    with pytest.raises(Hopeless, match=r"Could not find .*Start one on this machine with 'ray st"):
        connect("auto", {})


def test_an_address_that_nobody_answers(ray: FakeRay) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(Hopeless, match=f"no Ray cluster can be reached at 127.0.0.1:{port}"):
        connect(f"127.0.0.1:{port}", {})
    assert ray.inits == []


def test_a_failure_is_remembered(ray: FakeRay, head: str) -> None:
    ray.failure = RuntimeError("Version mismatch:\n    Ray: 2.60.0\n")
    with pytest.raises(Hopeless, match=r"Version mismatch: Ray: 2.60.0\. Install the versions"):
        connect(head, {})
    ray.failure = None
    with pytest.raises(Hopeless, match=r"Version mismatch.*again"):
        connect(head, {})
    assert len(ray.inits) == 1
    assert not ray.is_initialized()


def test_a_head_that_lets_nobody_in(ray: FakeRay, head: str) -> None:
    ray.failure = ConnectionError("Failed to connect")
    with pytest.raises(Hopeless, match=r"Failed to connect.*RAY_AUTH_TOKEN_PATH"):
        connect(head, {})


def test_a_local_cluster_that_cannot_start(ray: FakeRay) -> None:
    ray.failure = OSError("no room")
    with pytest.raises(Hopeless, match=r"no local Ray cluster can be started: .*no room"):
        connect(None, {})
    assert ray.constants.ENABLE_RAY_CLUSTER is True


def test_only_deaths_are_not_printed(ray: FakeRay) -> None:
    found = connect(None, {})
    ray.say("A worker died or was killed while executing a task")
    ray.say("Raylet is terminated. Termination is unexpected. Possible reasons include: ...")
    ray.say("The node with node id: 12 and address: there has been marked dead because ...")
    ray.say("something else")
    found.close()
    ray.say("A worker died or was killed later")
    assert ray.printed == ["something else", "A worker died or was killed later"]


# -- the site ----------------------------------------------------------------------------------


def test_pools_share_a_connection_until_the_last_has_ended(ray: FakeRay) -> None:
    first, second = Context(), Context()
    one = site.enter(None, {}, first)
    assert site.enter(None, {}, first) is one
    assert site.enter(None, {}, second) is one
    one.connected.result(PATIENCE)
    one.leave(first)
    one.leave(first)
    first.cancel()
    one.leave(second)
    assert site.enter(None, {}, second) is one  # a worker was replaced: its pool has not ended
    one.leave(second)
    second.cancel()
    one.thread.join(PATIENCE)
    assert not ray.is_initialized()
    assert len(ray.inits) == 1
    third = Context()
    other = site.enter(None, {}, third)
    other.connected.result(PATIENCE)
    third.cancel()
    assert ray.is_initialized()  # its worker has not left
    other.leave(third)
    other.thread.join(PATIENCE)
    assert len(ray.inits) == 2


def test_nothing_keeps_what_has_ended(ray: FakeRay) -> None:
    context = Context()
    found = site.enter(None, {}, context)
    found.connected.result(PATIENCE)
    context.cancel()
    found.leave(context)
    found.thread.join(PATIENCE)
    ended = weakref.ref(found)
    del found, context
    gc.collect()
    assert ended() is None


def test_there_is_one_address(ray: FakeRay, head: str) -> None:
    context = Context()
    found = site.enter(head, {}, context)
    assert site.enter(None, {}, context) is found
    with pytest.raises(Hopeless, match="another process"):
        site.enter("elsewhere:1", {}, context)
    context.cancel()
    found.leave(context)
    found.leave(context)
    found.thread.join(PATIENCE)


def test_a_connection_that_takes_too_long_is_given_up(ray: FakeRay, head: str) -> None:
    ray.hold = threading.Event()
    context = Context()
    found = site.enter(head, {}, context)
    eventually(lambda: ray.inits)
    found.give_up(3)
    with pytest.raises(Hopeless, match=r"within 3 seconds .connect_timeout.*TOKEN_PATH"):
        found.connected.result(0)
    ray.hold.set()
    context.cancel()
    found.leave(context)
    found.thread.join(PATIENCE)
    assert not ray.is_initialized()


def test_a_call_that_fails_does_not_end_the_thread(ray: FakeRay) -> None:
    context = Context()
    found = site.enter(None, {}, context)
    called = threading.Event()
    found.post(lambda: 1 // 0)
    found.post(called.set)
    assert called.wait(PATIENCE)
    context.cancel()
    found.leave(context)
    found.thread.join(PATIENCE)
