"""The fixtures that start programs: see ``programs.py``."""

from __future__ import annotations

import contextlib
import logging
import runpy
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.examples.programs import EXAMPLES, Program, Refused, Start


@pytest.fixture
def example(tmp_path: Path) -> Iterator[Start]:
    """Starts a program: ``example("thumbnails.py", "--workers", "2")``; see this module."""
    started: list[Program] = []

    def start(name: str, *arguments: object) -> Program:
        command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
        started.append(Program(command, tmp_path))
        return started[-1]

    yield start
    for one in started:
        one.dispose()


@pytest.fixture
def refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Refused]:
    """What a program says that does not begin, because its arguments are wrong.

    It runs in this process: to start an interpreter takes longer than all that it does.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.setenv("COLUMNS", "160")

    def refused(name: str, *arguments: object) -> str:
        path = str(EXAMPLES / name)
        monkeypatch.setattr("sys.argv", [path, *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(path, run_name="__main__")
        assert end.value.code == 2
        said = capsys.readouterr()
        return said.out + said.err

    before = signal.getsignal(signal.SIGTERM)
    with _logging_as_before():
        yield refused
    signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _logging_as_before() -> Iterator[None]:
    """A program may set levels and handlers: they are its own."""
    before = {one.name: (one.level, one.handlers[:]) for one in _loggers()}
    yield
    for one in _loggers():
        level, one.handlers[:] = before.get(one.name, (logging.NOTSET, []))
        one.setLevel(level)


def _loggers() -> list[logging.Logger]:
    found = logging.Logger.manager.loggerDict.values()
    return [one for one in found if isinstance(one, logging.Logger)]
