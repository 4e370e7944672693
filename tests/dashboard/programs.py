"""Programs in processes of their own that publish themselves."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.workerpool.helpers import eventually

ROOT = Path(__file__).parents[2]
PATIENCE = 60.0

#: A pool with a task that is stuck, and one that waits; ends when its input does.
STUCK = """
import sys, threading, ion_actors
gate = threading.Event()

def fetch_invoice(secret):
    gate.wait()

with ion_actors.Pool(1, name="mail", stuck_after=0.01) as pool:
    pool.options(name="send invoice 17").submit(fetch_invoice, "the-secret-argument")
    pool.options(name="send invoice 18", key="customer-7").submit(print)
    until(lambda: pool.snapshot().stuck)
    print("ready", flush=True)
    sys.stdin.read()
    gate.set()
"""

_PRELUDE = """
import time

def until(condition):
    while not condition():
        time.sleep(0.001)
"""


class Running:
    """A program that runs."""

    def __init__(self, source: str, environ: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _PRELUDE + textwrap.dedent(source)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environ},
        )
        self.pid = self.process.pid

    def await_line(self, line: str = "ready") -> None:
        """Wait until it says so."""
        assert self.process.stdout is not None
        said = self.process.stdout.readline().strip()
        assert said == line, f"it said {said!r}\n{self.end()}"

    def end(self) -> tuple[int, str, str]:
        """Let it end: the exit code, what else it said, what it complained of."""
        out, err = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, out, err


@contextmanager
def running(source: str = STUCK, **environ: str) -> Iterator[Running]:
    """A program that has said that it is ready; it is killed at the end of the block."""
    one = Running(source, environ)
    try:
        one.await_line()
        yield one
    finally:
        one.process.kill()
        one.process.communicate()


def command(*args: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run ``python -m ion_actors`` with these arguments."""
    return subprocess.run(
        [sys.executable, "-m", "ion_actors", *args],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100", **environ},
    )


def gone(condition: Callable[[], Any]) -> None:
    """Wait until it is not so."""
    eventually(lambda: not condition())
