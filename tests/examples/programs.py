"""The programs in ``examples/``, started as a person starts them.

::

    from tests.examples.programs import Start


    def test_it_counts(example: Start) -> None:
        program = example("counter.py", "--to", "3")
        program.expect(r"at 2")  # waits until it says so
        program.interrupt()  # Ctrl-C
        assert "stopped" in program.end(code=130)  # waits for its end; all that it has said

Each runs in a process of its own, with the test's ``tmp_path`` as its folder. One that is still
running when the test ends is killed. There are no sleeps here: a test waits for what a program
says, for what it writes, or for its end.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

__all__ = ["EXAMPLES", "PATIENCE", "ROOT", "Program", "Refused", "Start"]

#: Seconds after which a program hangs: for each wait, not for the whole of it.
PATIENCE = 100.0

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"


class Program:
    """A running program. What it prints is read all the time, both of its streams as one."""

    def __init__(self, command: list[str], folder: Path) -> None:
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
        )
        self._said = ""
        self._ended = False  # it will say nothing more
        self._expected = 0  # how much of it `expect` has used up
        self._news = threading.Condition()  # guards the three above
        self._reader = threading.Thread(target=self._read, name="reader of a program")
        self._reader.start()

    @property
    def output(self) -> str:
        """What it has said so far."""
        with self._news:
            return self._said

    def expect(self, pattern: str, patience: float = PATIENCE) -> re.Match[str]:
        """Wait until it says something that matches, after what was expected last.

        A match may still grow while the line is being printed: end the pattern with ``$`` (of a
        line) or ``\\n`` if that matters.
        """
        regex = re.compile(pattern, re.MULTILINE)
        with self._news:
            self._news.wait_for(lambda: self._find(regex) or self._ended, patience)
            if (found := self._find(regex)) is not None:
                self._expected = found.end()
                return found
            if self._ended:
                pytest.fail(f"the program ended and never said {pattern!r}, only\n{self._said}")
        return self._give_up(f"the program does not say {pattern!r}")

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        self.process.send_signal(signal.SIGINT)

    def terminate(self) -> None:
        """Send SIGTERM, as a service manager does."""
        self.process.send_signal(signal.SIGTERM)

    def end(self, code: int = 0, patience: float = PATIENCE, *, traceback: bool = False) -> str:
        """Wait for its end, which must have this exit code; returns all that it said.

        A traceback is only forgiven to a program that is to show one, in its log for example.
        """
        try:
            self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self._give_up("the program does not end")
        self._reader.join()
        assert self.process.returncode == code, self._said
        assert traceback or "Traceback (most recent call last)" not in self._said, self._said
        return self._said

    def dispose(self) -> None:
        """Leave nothing of it behind."""
        self.process.kill()
        self.process.wait()
        self._reader.join()

    def _find(self, regex: re.Pattern[str]) -> re.Match[str] | None:
        return regex.search(self._said, self._expected)

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as stdout:
            for line in stdout:
                with self._news:
                    self._said += line
                    self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()

    def _give_up(self, why: str) -> NoReturn:
        self.process.send_signal(signal.SIGABRT)  # faulthandler shows the stacks
        self.process.wait()
        self._reader.join()
        pytest.fail(f"{why}; it said\n{self._said}")


#: What the fixture ``example`` is: called with the name of a program and its arguments.
Start = Callable[..., Program]
#: What the fixture ``refused`` is: called in the same way, it returns what the program says.
Refused = Callable[..., str]


def _environment() -> dict[str, str]:
    """The person's, with a wide terminal that shows every line at once."""
    # What is not installed is found by its path; and nobody measures what programs cover.
    environ = {k: v for k, v in os.environ.items() if not k.startswith("COVERAGE_")}
    return environ | {
        "COLUMNS": "160",
        "PYTHONFAULTHANDLER": "1",
        "PYTHONIOENCODING": "utf-8",
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
        "PYTHONWARNINGS": "always::ResourceWarning",
    }
