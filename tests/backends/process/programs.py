"""Programs that the tests run: what a pool does at the borders of its process shows only there."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[3]

_HEAD = """
import atexit, logging, multiprocessing, os, signal, subprocess, sys, threading, time
from pathlib import Path
from ion_actors import *
"""


def run(
    folder: Path,
    main: str,
    *options: str,
    top: str = "",
    cwd: Path | None = None,
    measured: bool = True,
    patience: float = 100.0,
) -> str:
    """What a program prints that has this main function. It must end well, and complain of nothing.

    Args:
        folder: where its file goes.
        main: the lines of the function.
        options: of the interpreter.
        top: lines at the top of its module.
        cwd: the current directory; ``folder`` if it is None.
        measured: its coverage, which writes where the tests were started.
        patience: seconds that it may take.
    """
    body = textwrap.indent(textwrap.dedent(main), "    ")
    source = f"{_HEAD}{textwrap.dedent(top)}\ndef main():\n{body}\n"
    return run_source(
        folder,
        source + "\nif __name__ == '__main__':\n    main()\n",
        *options,
        cwd=cwd,
        measured=measured,
        patience=patience,
    )


def run_source(
    folder: Path,
    source: str,
    *options: str,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    measured: bool = True,
    patience: float = 100.0,
) -> str:
    """The same for a whole program, with these variables besides."""
    path = folder / "program.py"
    path.write_text(source)
    kept = {k: v for k, v in os.environ.items() if measured or not k.startswith("COVERAGE_PROCESS")}
    found = subprocess.run(
        [sys.executable, *options, path],
        cwd=cwd or folder,
        env={**kept, "PYTHONPATH": str(ROOT), **(env or {})},
        capture_output=True,
        text=True,
        timeout=patience,
        check=False,
        start_new_session=True,
    )
    assert (found.returncode, found.stderr) == (0, ""), found
    return found.stdout
