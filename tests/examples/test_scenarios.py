"""What holds for every program: it is in the docs, under test, and says how to use it."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from tests.examples.programs import EXAMPLES, ROOT, Refused, Start

PAGE = (ROOT / "docs" / "how-to" / "scenarios.md").read_text()
PROGRAMS = [one for one in sorted(EXAMPLES.glob("*.py")) if '"__main__"' in one.read_text()]


def named(path: Path) -> str:
    return path.stem


@pytest.mark.parametrize("program", PROGRAMS, ids=named)
def test_it_is_in_the_docs_and_under_test(program: Path) -> None:
    assert f"$ python examples/{program.name}" in PAGE
    assert f"](../../examples/{program.name})" in PAGE
    assert (Path(__file__).parent / f"test_{program.name}").exists()


@pytest.mark.parametrize("program", PROGRAMS, ids=named)
def test_its_source_says_how_it_ends_and_it_says_how_to_use_it(
    program: Path, example: Start, refused: Refused
) -> None:
    source = program.read_text()
    assert re.search(r"^Exit code: 0.*130\s+after\s+Ctrl-C", source, re.MULTILINE | re.DOTALL)
    assert f"usage: {program.name}" in example(program.name, "--help").end()
    assert "--no-such-option" in refused(program.name, "--no-such-option")


@pytest.mark.parametrize(("arguments", "code"), [([], 2), (["--help"], 0)], ids=["run", "help"])
def test_without_its_extra_a_program_says_what_to_install(
    arguments: list[str],
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)
    require = importlib.import_module("extras").require
    monkeypatch.setattr("sys.argv", ["/somewhere/program.py", *arguments])
    require("sys", extra="demo", about="It is about this.")
    with pytest.raises(SystemExit) as end:
        require("sys", "no_such_package", extra="demo", about="It is about this.")
    assert end.value.code == code
    said = capsys.readouterr()
    assert "pip install '.[demo]'" in said.out + said.err
    assert ("It is about this." in said.out) == (code == 0)
    assert ("program.py needs no_such_package" in said.err) == (code == 2)
