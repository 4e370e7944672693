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
from tests.workerpool.helpers import eventually

pytest.importorskip("ray", reason="Ray is not installed: it is the extra 'ray'")

SMALL = "RayBackend(init={'num_cpus': 1, 'object_store_memory': 100_000_000})"

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

def listening():
    "The addresses that sockets listen on: the kernel writes them in hex."
    found = set()
    for name in ("tcp", "tcp6"):
        for line in Path("/proc/net", name).read_text().splitlines()[1:]:
            _, local, _, state, *_ = line.split()
            if state == "0A":
                found.add(local)
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
    """Its main module goes there by value; nobody else can connect; nothing is printed, or left."""
    found = run(
        tmp_path,
        f"""
        before = listening()
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
            for one in listening() - before:
                assert one.split(":")[0] in LOOPBACK, one
            assert signal.getsignal(signal.SIGTERM) is handler
            print(found.value, session())
        """,
        top=f"{_TOP}\nlogging.getLogger('ion_actors').setLevel(logging.CRITICAL)",
    )
    value, session = found.split()
    assert value == "42"
    eventually(lambda: processes_of(session) == [])


def test_one_pool_after_the_other(tmp_path: Path) -> None:
    found = run(
        tmp_path,
        f"""
        for number in range(2):
            with Pool(1, backend={SMALL}) as pool:
                print(pool.submit(pow, 2, number).result(90))
        """,
    )
    assert found.split() == ["1", "2"]


def test_a_program_that_is_killed_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "program.py"
    path.write_text(f"""
import os, time
from pathlib import Path
from ion_actors import Pool, RayBackend
{_TOP}
if __name__ == "__main__":
    pool = Pool(1, backend={SMALL})
    pool.submit(pow, 2, 5).result(90)
    print(session(), flush=True)
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
        session = program.stdout.readline().strip()
        assert processes_of(session)
        program.send_signal(signal.SIGKILL)
    eventually(lambda: processes_of(session) == [])


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
