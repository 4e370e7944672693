"""The program that counts words in threads and in processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.examples.programs import Refused, Start


def test_both_count_the_same_although_one_process_crashes(example: Start) -> None:
    said = example("word_counts.py", "--files", 200, "--workers", 2).end()
    assert "200 files" in said
    assert "1 process crashed, and no word was lost" in said
    assert "self " in said


def test_a_corpus_of_ones_own(example: Start, tmp_path: Path) -> None:
    for number in range(50):
        (tmp_path / f"{number}.txt").write_text("one two two three three three")
    said = example(
        "word_counts.py", "--folder", tmp_path, "--pattern", "*.txt", "--no-crash", "--workers", 2
    ).end()
    assert "most used:  three 150, two 100, one 50" in said
    assert "crashed" not in said


@pytest.mark.parametrize("pattern", ["*.py", "[", "/*", ""])
def test_an_empty_corpus(refused: Refused, tmp_path: Path, pattern: str) -> None:
    (tmp_path / "folder.py").mkdir()
    said = refused("word_counts.py", "--folder", tmp_path, "--pattern", pattern)
    assert f"no file in {tmp_path} is called {pattern}" in said
