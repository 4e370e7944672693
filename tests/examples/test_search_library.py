"""The full-text search, as a user runs it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.examples.programs import Refused, Start


def test_it_searches_a_folder_and_survives_a_lost_connection(
    example: Start, tmp_path: Path
) -> None:
    folder = tmp_path / "sources"
    folder.mkdir()
    (folder / "one.py").write_text("# here be dragons\n")
    (folder / "two.py").write_text("# here be lions\n")
    questions = ["dragons", "AND AND", "lions", "here", "elephants"]
    options = [word for question in questions for word in ("--for", question)]
    said = example("search_library.py", folder, "--workers", 1, *options).end()
    assert "2 files" in said
    assert re.search(r"^'dragons':\s+one\.py: # here be \[dragons\]", said, re.MULTILINE)
    assert "'AND AND': OperationalError: fts5: syntax error" in said
    assert "'lions': TaskPanicked: Cannot operate on a closed database." in said
    assert re.search(r"^'here':\s+(one|two)\.py: .*\n\s+(one|two)\.py: ", said, re.MULTILINE)
    assert "'elephants': nothing" in said
    assert "4 tasks done, 1 failed, 1 lost with their connection; 1 worker(s) replaced" in said
    assert "questions answered by those who are here now: [2]" in said


def test_without_arguments_it_searches_the_standard_library(example: Start) -> None:
    said = example("search_library.py").end()
    assert "threading.py: " in said
    # Of the two that find nothing, the worker with the broken connection may have got one.
    assert "'elephant': nothing" in said or "'backpressure OR watermark': nothing" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["/no/such/folder"], "no Python files in '/no/such/folder'"),
        (["--workers", "0"], "at least 1 worker"),
    ],
)
def test_a_wrong_argument_is_named(refused: Refused, arguments: list[str], message: str) -> None:
    assert message in refused("search_library.py", *arguments)
