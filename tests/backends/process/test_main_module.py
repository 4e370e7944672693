"""Where a program may come from, and when its children are started: they find its functions."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from ion_actors.backends.process import main_module

ROOT = Path(__file__).parents[3]

# What each of them defines in its main module, and has done by a child.
SQUARES = """
from ion_actors import Pool

def square(number):
    return number * number

if __name__ == "__main__":
    with Pool(1, backend="process") as pool:
        print(pool.submit(square, 7).result())
"""

# Nobody closes the pool, so the interpreter waits for it when the main module has ended.
LATE = """
from ion_actors import Pool, ProcessBackend

def square(number):
    return number * number

if __name__ == "__main__":
    pool = Pool(1, backend=ProcessBackend(max_tasks_per_child=1), drain_timeout=60)
    for number in range(4):
        pool.submit(square, number).add_done_callback(lambda done: print(done.result()))
"""


def run(
    folder: Path, *arguments: str | Path, stdin: str | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "ignore::ResourceWarning", *arguments],
        cwd=folder, input=stdin, capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def write(file: Path, source: str) -> Path:
    file.parent.mkdir(exist_ok=True)
    file.write_text(source)
    return file


def test_a_file(tmp_path: Path) -> None:
    found = run(tmp_path, write(tmp_path / "squares.py", SQUARES))
    assert (found.stdout, found.stderr) == ("49\n", "")


def test_a_module_of_a_package(tmp_path: Path) -> None:
    write(tmp_path / "pack" / "squares.py", SQUARES)
    found = run(tmp_path, "-m", "pack.squares")
    assert (found.stdout, found.stderr) == ("49\n", "")


@pytest.mark.parametrize("how", ["-m pack", "folder", "standard input", "-c", "descriptor", "pipe"])
def test_what_no_child_can_import_goes_there_by_value(tmp_path: Path, how: str) -> None:
    pytest.importorskip("cloudpickle")
    write(tmp_path / "pack" / "__main__.py", SQUARES)
    found = {
        "-m pack": lambda: run(tmp_path, "-m", "pack"),
        "folder": lambda: run(tmp_path, "pack"),
        "standard input": lambda: run(tmp_path, "-", stdin=SQUARES),
        "-c": lambda: run(tmp_path, "-c", SQUARES),
        "descriptor": lambda: _run_in_bash(tmp_path, 'python /dev/stdin < "$0"'),
        "pipe": lambda: _run_in_bash(tmp_path, 'python <(cat "$0")'),
    }[how]()
    assert (found.stdout, found.stderr) == ("49\n", "")


def _run_in_bash(folder: Path, command: str) -> subprocess.CompletedProcess[str]:
    """Run a command in which ``python`` is the interpreter, and "$0" the program."""
    bash = shutil.which("bash")
    if bash is None or not Path("/dev/fd").exists():
        pytest.skip("there is no bash, or no /dev/fd")
    interpreter = f'python() {{ "{sys.executable}" -W ignore::ResourceWarning "$@"; }}'
    return subprocess.run(
        [bash, "-c", f"{interpreter}; {command}", write(folder / "squares.py", SQUARES)],
        cwd=folder, capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


@pytest.mark.parametrize("how", ["-m pack", "standard input", "-c"])
def test_without_cloudpickle_the_error_says_what_to_do(tmp_path: Path, how: str) -> None:
    write(tmp_path / "cloudpickle.py", "raise ImportError")
    write(tmp_path / "pack" / "__main__.py", SQUARES)
    found = {
        "-m pack": lambda: run(tmp_path, "-m", "pack"),
        "standard input": lambda: run(tmp_path, "-", stdin=SQUARES),
        "-c": lambda: run(tmp_path, "-c", SQUARES),
    }[how]()
    assert found.returncode == 1
    errors = [line for line in found.stderr.splitlines() if "TaskNotPicklable" in line]
    assert "the call of task 'square' cannot be rebuilt" in errors[0]
    assert "into a module of its own, or install cloudpickle" in errors[0]
    assert "task ''" not in found.stderr


def test_what_is_only_defined_under_the_guard_is_not_found(tmp_path: Path) -> None:
    source = SQUARES.replace("def square", "def other").replace(
        "with Pool", "square = other\n    square.__qualname__ = 'square'\n    with Pool"
    )
    found = run(tmp_path, write(tmp_path / "squares.py", source))
    assert found.returncode == 1
    assert "finds there what that defines outside of its `if __name__" in found.stderr


def test_children_that_are_started_after_the_main_module_has_ended(tmp_path: Path) -> None:
    found = run(tmp_path, write(tmp_path / "late.py", LATE))
    assert (found.stdout, found.stderr) == ("0\n1\n4\n9\n", "")


OTHER = """
import runpy
from ion_actors import Pool

def square(number):
    return number * number

if __name__ == "__main__":
    with Pool(1, backend="process") as pool:
        print(pool.submit(square, 8).result())
    runpy.run_path("squares.py", run_name="__main__")
"""


def test_a_program_that_runs_another_one(tmp_path: Path) -> None:
    write(tmp_path / "squares.py", SQUARES)
    found = run(tmp_path, write(tmp_path / "other.py", OTHER))
    assert (found.stdout, found.stderr) == ("64\n49\n", "")


def test_the_file_of_main_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    main = ModuleType("__main__")
    main.__file__ = __file__
    monkeypatch.setitem(sys.modules, "__main__", main)
    main_module.remember_main()
    del main.__file__  # it has come to its end
    assert main_module.preparation("name")["init_main_from_path"] == __file__
    assert main_module.main_can_be_imported()
