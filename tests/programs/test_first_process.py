"""``drain_on_signal`` in the first process of a container, which the kernel ends by no signal."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.programs.conftest import PATIENCE, ROOT

_UNSHARE = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")


def _can_unshare() -> bool:
    if shutil.which("unshare") is None:
        return False
    return subprocess.run((*_UNSHARE, "true"), capture_output=True, check=False).returncode == 0


pytestmark = pytest.mark.skipif(
    not _can_unshare(), reason="a process namespace cannot be made here (it takes root, and Linux)"
)

_PRELUDE = """
import atexit, os, signal, sys, threading, time
from ion_actors import *

def say(*words):
    print(" ".join(map(str, words)) + "\\n", end="", flush=True)  # in one piece

def rest():
    while True:  # a signal that comes just before a wait is only noticed at its end
        time.sleep(.01)

def say_ready_at_rest():
    def watch():
        before, rested = None, 0
        while rested < 50:
            frame = sys._current_frames()[threading.main_thread().ident]
            here = id(frame), frame.f_lasti
            rested = rested + 1 if here == before else 0
            before = here
            time.sleep(.001)
        say("ready")
    threading.Thread(target=watch, daemon=True).start()

assert os.getpid() == 1
atexit.register(say, "exit hooks")
pool = Pool(1)
"""


class First:
    """A program that is the first process of a namespace of its own."""

    def __init__(self, source: str) -> None:
        self._outer = subprocess.Popen(
            [*_UNSHARE, sys.executable, "-c", _PRELUDE + textwrap.dedent(source)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONFAULTHANDLER": "1"},
        )

    def await_line(self, line: str) -> None:
        assert self._outer.stdout is not None
        assert line in iter(lambda: self._outer.stdout.readline().rstrip(), "")  # type: ignore[union-attr]

    def send(self, signum: int) -> None:
        children = Path(f"/proc/{self._outer.pid}/task/{self._outer.pid}/children").read_text()
        os.kill(int(children), signum)

    def end(self) -> tuple[int, list[str], str]:
        try:
            out, err = self._outer.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()
            out, err = self._outer.communicate()
            pytest.fail(f"the program hangs\n{out}\n{err}")
        return self._outer.returncode, out.splitlines(), err

    def kill(self) -> None:
        self._outer.kill()
        self._outer.wait()
        for pipe in (self._outer.stdout, self._outer.stderr):
            if pipe is not None:
                pipe.close()


@pytest.fixture
def start() -> Iterator[Callable[[str], First]]:
    started: list[First] = []

    def start(source: str) -> First:
        started.append(First(source))
        return started[-1]

    yield start
    for one in started:
        one.kill()


Start = Callable[[str], First]

WAITS = [
    "time.sleep(1000)",
    "threading.Event().wait()",
    "Pool(1, drain_timeout=1).submit(threading.Event().wait, 1000).result()",
    "while True: signal.pause()",
    "asyncio.run(asyncio.sleep(1000))",
    "while True: time.sleep(.01)",
]


@pytest.mark.parametrize("wait", WAITS)
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_it_ends_after_the_drain_with_its_exit_hooks(start: Start, signum: int, wait: str) -> None:
    program = start(
        f"""
        import asyncio
        pool.drain_on_signal({int(signum)})
        gate = threading.Event()
        pool.submit(gate.wait)
        pool.submit(say, "accepted")
        def watch():
            while not pool.is_draining:
                time.sleep(.001)
            gate.set()
        threading.Thread(target=watch, daemon=True).start()
        say_ready_at_rest()
        {wait}
        """
    )
    program.await_line("ready")
    program.send(signum)
    code, lines, errors = program.end()
    assert lines == ["accepted", "exit hooks"], errors
    assert code == 128 + signum


def test_a_second_signal_does_not_wait(start: Start) -> None:
    program = start(
        """
        pool.drain_on_signal(timeout=1000)
        pool.submit(threading.Event().wait)
        say("ready")
        while not pool.is_draining:
            time.sleep(.001)
        say("draining")
        rest()
        """
    )
    program.await_line("ready")
    program.send(signal.SIGTERM)
    program.await_line("draining")
    program.send(signal.SIGTERM)
    assert program.end()[:2] == (128 + signal.SIGTERM, [])


def test_an_end_that_takes_long_is_cut_short_by_another_signal(start: Start) -> None:
    program = start(
        """
        pool.drain_on_signal()
        def slow():
            say("ending")
            rest()
        atexit.register(slow)
        say("ready")
        rest()
        """
    )
    program.await_line("ready")
    program.send(signal.SIGTERM)
    program.await_line("ending")
    program.send(signal.SIGTERM)
    assert program.end()[:2] == (128 + signal.SIGTERM, [])


def test_a_main_thread_in_foreign_code_is_not_waited_for_for_ever(start: Start) -> None:
    program = start(
        """
        import ctypes
        from ion_actors.workerpool import signals
        signals._NOTICE = 1.0
        pool.drain_on_signal()
        libc = ctypes.CDLL(None)
        lock = (ctypes.c_char * 64)()
        libc.pthread_mutex_lock(lock)
        main, where = threading.get_native_id(), hex(ctypes.addressof(lock))
        def until_main_waits():
            while where not in open(f"/proc/self/task/{main}/syscall").read():
                time.sleep(.001)
        pool.submit(until_main_waits)  # the drain passes the signal on when this has returned
        # Python hears of the signal before the next line, and of none after it.
        signal.raise_signal(signal.SIGTERM)
        libc.pthread_mutex_lock(lock)  # which no signal interrupts
        """
    )
    code, lines, errors = program.end()
    assert code == 128 + signal.SIGTERM
    assert lines == []
    assert "the main thread does not end, so the process does" in errors


def test_all_pools_are_drained_before_it_ends(start: Start) -> None:
    program = start(
        """
        others = [Pool(1, name=f"other-{number}") for number in range(2)]
        for one in (pool, *others):
            one.drain_on_signal()
            one.submit(say, "accepted")
        say("ready")
        rest()
        """
    )
    program.await_line("ready")
    program.send(signal.SIGTERM)
    code, lines, errors = program.end()
    assert lines[-1] == "exit hooks", errors
    assert code == 128 + signal.SIGTERM
    assert "was not closed" not in errors


@pytest.mark.parametrize(
    ("later", "code"),
    [
        ("signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))", 5),
        ("pool.drain_on_signal().remove()", 143),
    ],
)
def test_who_has_the_signal_besides_has_the_last_word(start: Start, later: str, code: int) -> None:
    program = start(
        f"""
        {later}
        pool.drain_on_signal()
        say("ready")
        rest()
        """
    )
    program.await_line("ready")
    program.send(signal.SIGTERM)
    assert program.end()[:2] == (code, ["exit hooks"])


def test_what_is_ignored_or_harmless_does_not_end_it(start: Start) -> None:
    program = start(
        """
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        pool.drain_on_signal()
        other = Pool(1)
        other.drain_on_signal(signal.SIGCHLD)
        say("ready")
        while not (pool.is_closed and other.is_closed):
            time.sleep(.001)
        for one in threading.enumerate():
            if one.name.startswith("ion_actors-SIG"):
                one.join()
        say("still here")
        """
    )
    program.await_line("ready")
    program.send(signal.SIGTERM)
    program.send(signal.SIGCHLD)
    code, lines, errors = program.end()
    assert (code, lines) == (0, ["still here", "exit hooks"]), errors
