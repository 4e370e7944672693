"""The fixture that starts programs: see ``programs.py``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.examples.programs import EXAMPLES, Program, Start


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
