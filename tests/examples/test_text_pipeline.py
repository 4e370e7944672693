"""The program that brings a folder of text into SQLite."""

from __future__ import annotations

from pathlib import Path

from tests.examples.programs import Refused, Start


def test_all_files_come_into_the_database(example: Start, tmp_path: Path) -> None:
    for number in range(50):
        (tmp_path / f"{number}.txt").write_text("one two two three three three")
    said = example(
        "text_pipeline.py", "--folder", tmp_path, "--pattern", "*.txt", "--parsers", 2
    ).end()
    assert "with 1 in parse: 50 files" in said
    assert "with 2 in parse: 50 files" in said
    assert "most used: three 150, three three 100, two 100" in said


def test_an_empty_corpus(refused: Refused, tmp_path: Path) -> None:
    said = refused("text_pipeline.py", "--folder", tmp_path)
    assert f"no file in {tmp_path} is called *.py" in said
