"""A real Redis for the tests of shared limits."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Redis that only these tests use, and that keeps nothing."""
    program = shutil.which("redis-server")
    if program is None:
        missing = "there is no redis-server on the PATH (Debian: apt-get install redis-server)"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    with contextlib.ExitStack() as stack:
        yield start_redis(program, tmp_path_factory.mktemp("redis"), stack)


def start_redis(program: str, directory: Path, stack: contextlib.ExitStack) -> str:
    for _ in range(5):  # somebody else may be quicker to listen on the free port
        port = free_port()
        options = {"port": port, "bind": "127.0.0.1", "dir": directory, "daemonize": "no",
                   "save": "", "appendonly": "no"}  # fmt: skip
        command = [program]
        for name, value in options.items():
            command += [f"--{name}", str(value)]
        server = stack.enter_context(
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        )
        stack.callback(server.kill)
        assert server.stdout is not None
        output = []
        for line in server.stdout:  # ends when the server does
            if "Ready to accept connections" in line:
                return f"redis://127.0.0.1:{port}/0"
            output.append(line)
    pytest.fail(f"no Redis would start: {''.join(output)}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
