"""What holds for every program: it is in the docs, under test, and says how to use it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.examples.programs import EXAMPLES, ROOT, Start

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
    program: Path, example: Start
) -> None:
    source = program.read_text()
    assert re.search(r"^Exit code: 0.*130\s+after\s+Ctrl-C", source, re.MULTILINE | re.DOTALL)
    assert f"usage: {program.name}" in example(program.name, "--help").end()
    assert "--no-such-option" in example(program.name, "--no-such-option").end(code=2)
