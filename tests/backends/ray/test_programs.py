"""Whole programs that use Ray: each starts a cluster of its own, or fails to find one."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.backends.process.programs import ROOT, run
from tests.ray_cluster import in_shared_memory
from tests.workerpool.helpers import eventually, is_alive

pytest.importorskip("ray", reason="Ray is not installed: it is the extra 'ray'")

SMALL = "RayBackend(init={'num_cpus': 1, 'object_store_memory': 100_000_000})"

# Seconds for a program: more than all waits in it may take, so that it says itself what was late.
_PATIENCE = 280.0

_TOP = """
class Found:
    def __init__(self, value):
        self.value = value

class Mistake(Exception):
    pass

def find(value):
    print("printed in the actor")
    return Found(value)

def fail():
    raise Mistake("of the main module")

def leave():
    os._exit(1)

def family():
    "This process, and those that it has started: others on this machine may do as they like."
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[folder] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found = {os.getpid()}
    while new := {int(one.name) for one, parent in parents.items() if parent in found} - found:
        found |= new
    return found

def listening():
    "The addresses that the cluster listens on: the kernel writes them in hex."
    ours = set()
    for pid in family():
        for one in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                ours.add(os.readlink(one).partition("socket:[")[2].rstrip("]"))
            except OSError:
                continue
    found = set()
    for name in ("tcp", "tcp6"):
        for line in Path("/proc/net", name).read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and words[9] in ours:
                found.add(words[1])
    return found

def session():
    import ray
    return Path(ray._private.worker._global_node.get_session_dir_path()).name

LOOPBACK = ("0100007F", "0000000000000000FFFF00000100007F", "0" * 24 + "01000000")
"""


def processes_of(session: str) -> list[int]:
    """Those of a cluster: its session's folder is in their command lines, or in their logs."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if session.encode() in words:
            found.append(int(folder.name))
    return found


def test_a_program_with_a_cluster_of_its_own(tmp_path: Path) -> None:
    """Its main module goes there by value; nobody else can connect; nothing is left.

    What it prints is printed here, and nothing else.
    """
    found = run(
        tmp_path,
        f"""
        assert "ray" not in sys.modules
        handler = signal.getsignal(signal.SIGTERM)
        with Pool(2, backend={SMALL}) as pool:
            found = pool.submit(find, 42).result(90)
            assert type(found) is Found, type(found)
            try:
                pool.submit(fail).result(30)
            except Mistake as error:
                assert error.args == ("of the main module",)
            try:
                pool.submit(leave).result(30)
            except TaskPanicked:
                pass
            assert pool.submit(pow, 2, 5).result(30) == 32
            logging.disable()
            there = listening()
            assert there
            for one in there:
                assert one.split(":")[0] in LOOPBACK, one
            assert signal.getsignal(signal.SIGTERM) is handler
            sys.stdout.flush()
            print(found.value, session())
        """,
        top=f"{_TOP}\nlogging.getLogger('ion_actors').setLevel(logging.CRITICAL)",
        patience=_PATIENCE,
    )
    printed, result = found.splitlines()
    assert printed == "printed in the actor"
    value, session = result.split()
    assert value == "42"
    eventually(lambda: processes_of(session) == [])


def test_code_that_the_nodes_do_not_have_is_sent(tmp_path: Path) -> None:
    """A module and a package, that are only on the path of the program."""
    (tmp_path / "only_here" / "shop").mkdir(parents=True)
    (tmp_path / "only_here" / "helper.py").write_text("def double(number): return 2 * number")
    (tmp_path / "only_here" / "shop" / "__init__.py").write_text("from shop.of import price")
    (tmp_path / "only_here" / "shop" / "of.py").write_text("def price(number): return number + 1")
    found = run(
        tmp_path,
        """
        sys.path.append(str(Path("only_here").absolute()))
        import helper, shop
        small = {"num_cpus": 1, "object_store_memory": 100_000_000}
        with Pool(1, backend=RayBackend(init=small, ship=[helper, "only_here/shop"])) as pool:
            print(pool.submit(helper.double, 21).result(90), pool.submit(shop.price, 1).result(90))
        """,
        patience=_PATIENCE,
    )
    assert found == "42 2\n"


def test_one_pool_after_the_other(tmp_path: Path) -> None:
    found = run(
        tmp_path,
        f"""
        for number in range(2):
            with Pool(1, backend={SMALL}) as pool:
                print(pool.submit(pow, 2, number).result(90))
        """,
        patience=_PATIENCE,
    )
    assert found.split() == ["1", "2"]


@pytest.mark.parametrize("isolate", [False, True])
def test_a_program_that_is_killed_leaves_nothing(tmp_path: Path, isolate: bool) -> None:
    before = in_shared_memory()
    backend = SMALL.replace("(", f"(isolate={isolate}, ", 1)
    path = tmp_path / "program.py"
    path.write_text(f"""
import os, time
from pathlib import Path
from ion_actors import Pool, RayBackend
{_TOP}
if __name__ == "__main__":
    pool = Pool(1, backend={backend})
    print(pool.submit(os.getpid).result(90), session(), flush=True)
    pool.submit(time.sleep, 600).result()
""")
    with subprocess.Popen(
        [sys.executable, path],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    ) as program:
        assert program.stdout is not None
        pid, session = program.stdout.readline().split()
        assert processes_of(session)
        program.send_signal(signal.SIGKILL)
    eventually(lambda: not is_alive(int(pid)))
    eventually(lambda: processes_of(session) == [])
    eventually(lambda: in_shared_memory() <= before)


def test_an_address_that_nobody_answers(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    found = run(
        tmp_path,
        f"""
        logging.disable()
        pool = Pool(1, backend=RayBackend(address="127.0.0.1:{port}"))
        try:
            pool.submit(pow, 2, 5).result(60)
        except (BrokenPool, PoolClosed) as error:
            print(error)
        """,
    )
    assert f"no Ray cluster can be reached at 127.0.0.1:{port}" in found


def test_what_answers_and_is_no_cluster(tmp_path: Path) -> None:
    began = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        found = run(
            tmp_path,
            f"""
            logging.disable()
            pool = Pool(1, backend=RayBackend(address="127.0.0.1:{port}", connect_timeout=3))
            try:
                pool.submit(pow, 2, 5).result(60)
            except (BrokenPool, PoolClosed) as error:
                print(error)
                sys.stdout.flush()
            """,
        )
    assert "within 3 seconds (connect_timeout)" in found
    assert time.monotonic() - began < 60


def test_the_end_of_a_pool_keeps_its_deadline_when_ray_does_not_answer(tmp_path: Path) -> None:
    found = run(
        tmp_path,
        f"""
        logging.disable()
        pool = Pool(1, backend={SMALL})
        pid = pool.submit(os.getpid).result(90)
        future = pool.submit(time.sleep, 600)
        while not future.running():
            time.sleep(0.01)
        (plane,) = control_planes()
        os.kill(plane, signal.SIGSTOP)
        began = time.monotonic()
        try:
            pool.drain(1)
        except DrainTimeout:
            print(type(future.exception(0)).__name__, time.monotonic() - began < 3)
        until = time.monotonic() + 30
        while Path(f"/proc/{{pid}}").exists() and time.monotonic() < until:
            time.sleep(0.01)
        print(Path(f"/proc/{{pid}}").exists())
        os.kill(plane, signal.SIGCONT)
        """,
        top=_CONTROL_PLANES,
    )
    assert found.split() == ["TaskAbandoned", "True", "False"]


_CONTROL_PLANES = """
def control_planes():
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == os.getpid() and b"gcs_server" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return found
"""


def test_a_node_that_dies_costs_the_tasks_that_ran_there(tmp_path: Path) -> None:
    found = run(
        tmp_path,
        """
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # on the loopback interface
        from ray.cluster_utils import Cluster

        logging.getLogger("ray").setLevel(logging.ERROR)
        node = {"num_cpus": 2, "object_store_memory": 100_000_000, "node_ip_address": "127.0.0.1"}
        cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
        other = cluster.add_node(**node)
        logging.disable()
        pool = Pool(4, backend=RayBackend(address=cluster.address))
        futures = [pool.submit(work, number) for number in range(2000)]
        assert [one.result(90) for one in futures[:200]] == [*range(200)]
        cluster.remove_node(other, allow_graceful=False)
        errors = [one.exception(90) for one in futures]
        lost = [one for one in errors if one is not None]
        assert {type(one) for one in lost} <= {TaskPanicked}, lost
        twice = [one for one in Path("ran").iterdir() if one.read_text() != "x"]
        numbers = pool.metrics()
        assert numbers.completed + numbers.panicked == 2000, numbers
        sys.stdout.flush()
        print("FOUND", len(lost) <= 2, twice, flush=True)
        pool.close(30)
        """,
        top="""
        def work(number):
            with Path("ran", str(number)).open("a") as file:
                file.write("x")
            time.sleep(0.01)
            return number

        Path("ran").mkdir(exist_ok=True)
        """,
        patience=_PATIENCE,
    )
    assert "FOUND True []" in found
