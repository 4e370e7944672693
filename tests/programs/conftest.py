"""Programs in processes of their own: what happens at their end cannot be tested in this one."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

#: Seconds after which a program hangs. The pools' own default deadline, 30 s, must not help it.
PATIENCE = 90.0

ROOT = Path(__file__).parents[2]

_PRELUDE = """
import os, signal, sys, threading, time, traceback, warnings
import ion_actors

for name in {*ion_actors.__all__} - {"AsyncioBackend"}:  # which imports asyncio
    globals()[name] = getattr(ion_actors, name)

def say(*words):
    print(" ".join(map(str, words)) + "\\n", end="", flush=True)  # in one piece

def when_main_thread_is_in(name, call):
    \"\"\"Have call() made once the main thread rests in a function of that name.

    Rests: a signal that comes just before the thread begins to wait only wakes it at the next.
    \"\"\"
    def place():
        frame = sys._current_frames()[threading.main_thread().ident]
        stack = "".join(traceback.format_stack(frame))
        return stack if f", in {name}\\n" in stack else None

    def watch():
        before, rested = None, 0
        while rested < 50:
            here = place()
            rested = rested + 1 if here is not None and here == before else 0
            before = here
            time.sleep(0.001)
        call()
    threading.Thread(target=watch, daemon=True).start()
"""


# How a program forks: as Python does it, or as foreign code does, which runs no hooks (uWSGI).
FORKS = {
    "os.fork": """
fork = os.fork
""",
    "foreign": """
import ctypes
_foreign_fork = ctypes.PyDLL(None).fork

def others():
    # Of each other thread: its state, and how often it has run.
    found = {}
    for thread in os.listdir("/proc/self/task"):
        if int(thread) != threading.get_native_id():
            try:
                with open(f"/proc/self/task/{thread}/status") as status:
                    told = ("State", "voluntary", "nonvoluntary")
                    found[thread] = [line for line in status if line.startswith(told)]
            except OSError:
                pass  # it has ended
    return found

def fork():
    # Not while another thread wants the GIL: the interpreter itself would not survive that. One
    # that does wakes every 5 ms.
    before, rested = None, 0
    while rested < 50:
        now = others()
        runs = any("R (running)" in line for lines in now.values() for line in lines)
        rested = rested + 1 if now == before and not runs else 0
        before = now
        time.sleep(0.001)
    return _foreign_fork()
""",
}

# The child says what happens to it, within the patience of the parent: it may not hang.
_IN_CHILD = """
def in_child(call):
    sys.stdout.flush()
    child = fork()
    if child == 0:
        try:
            call()
        except BaseException as error:
            say("child:", type(error).__name__)
            os._exit(1)
        os._exit(0)
    say("exit", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def forking_program(source: str, how: str = "os.fork") -> str:
    """The source of a program that has ``fork()`` and ``in_child()``."""
    return FORKS[how] + _IN_CHILD + textwrap.dedent(source)


@pytest.fixture(params=[*FORKS])
def program(request: pytest.FixtureRequest) -> Callable[[str], str]:
    """Makes the sources of programs that fork, in either way."""
    if request.param == "foreign" and not sys.platform.startswith("linux"):
        pytest.skip("only Linux tells of a fork without hooks wherever it is looked for")
    return lambda source: forking_program(source, request.param)


class Program:
    """A running program."""

    def __init__(self, source: str, *options: str, measured: bool = True) -> None:
        # A child that is forked while other threads run may inherit coverage's own lock, held.
        measured = measured and "fork" not in source
        environ = {
            name: value
            for name, value in os.environ.items()
            if measured or not name.startswith("COVERAGE_PROCESS")
        }
        self.process = subprocess.Popen(
            [sys.executable, *options, "-c", _PRELUDE + textwrap.dedent(source)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**environ, "PYTHONPATH": str(ROOT), "PYTHONFAULTHANDLER": "1"},
        )

    def await_line(self, line: str) -> None:
        """Read on until it says so."""
        assert self.process.stdout is not None
        assert line in iter(lambda: self.process.stdout.readline().rstrip(), ""), self.end()  # type: ignore[union-attr]

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        self.process.send_signal(signal.SIGINT)

    def end(self) -> tuple[int, list[str], str]:
        """Wait for its end: the exit code, the lines that it said, what it complained of."""
        try:
            out, err = self.process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            for pid in [*_below(self.process.pid), self.process.pid]:
                os.kill(pid, signal.SIGABRT)  # faulthandler shows the stacks
            out, err = self.process.communicate(timeout=5)
            pytest.fail(f"the program hangs\n{out}\n{err}")
        return self.process.returncode, out.splitlines(), err


def _below(pid: int) -> list[int]:
    """The processes that this one has forked, and those that they have, the last first."""
    found: list[int] = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            if int((folder / "stat").read_text().rpartition(")")[2].split()[1]) == pid:
                found = [*_below(int(folder.name)), int(folder.name), *found]
    return found


@pytest.fixture
def start() -> Iterator[Callable[..., Program]]:
    """Starts programs, and ends them with the test."""
    started: list[Program] = []

    def start(source: str, *options: str, measured: bool = True) -> Program:
        started.append(Program(source, *options, measured=measured))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.wait()
        for pipe in (one.process.stdout, one.process.stderr):
            if pipe is not None:
                pipe.close()


@pytest.fixture
def run(start: Callable[..., Program]) -> Callable[..., tuple[int, list[str], str]]:
    """Runs a program to its end."""
    return lambda source, *options, **how: start(source, *options, **how).end()
