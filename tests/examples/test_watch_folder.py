"""The program that watches a folder."""

from __future__ import annotations

import importlib.util
import io
import re
import threading
from pathlib import Path

import pytest
from PIL import Image

from tests.examples.programs import EXAMPLES, Refused, Start

STYLES = 8


def picture(side: int = 400, kind: str = "PNG") -> bytes:
    target = io.BytesIO()
    Image.effect_mandelbrot((side, side), (-2.2, -1.2, 1.0, 1.2), 60).save(target, kind)
    return target.getvalue()


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    """The folder that is watched unless told otherwise."""
    folder = tmp_path / "build" / "inbox"
    folder.mkdir(parents=True)
    return folder


def names(folder: Path) -> list[str]:
    return sorted(one.name for one in folder.iterdir() if one.is_file())


def test_what_is_dropped_in_is_made_and_moved(example: Start, inbox: Path, tmp_path: Path) -> None:
    (inbox / "before.png").write_bytes(picture())
    program = example("watch_folder.py", "--size", 32)
    program.expect("made +before.png in 8 styles")
    (inbox / "later.jpg").write_bytes(picture(kind="JPEG"))
    (inbox / "notes.txt").write_text("no picture")
    program.expect("made +later.jpg")
    (inbox / "later.jpg").write_bytes(picture(kind="JPEG"))
    program.expect("made +later.jpg")  # the same name again does not overwrite the first
    (inbox / "broken.png").write_bytes(picture()[:-300])
    program.expect("failed +broken.png")
    program.terminate()
    said = program.end()
    assert "pictures    1 failed, 3 made" in said
    assert names(inbox) == ["notes.txt"]
    assert names(inbox / "done") == ["before.png", "later-2.jpg", "later.jpg"]
    assert names(inbox / "failed") == ["broken.png"]
    assert len([*(tmp_path / "build" / "watched").glob("*/before.png.jpg")]) == STYLES


def test_what_is_still_being_written_is_not_taken(example: Start, inbox: Path) -> None:
    program = example("watch_folder.py", "--size", 32)
    over = threading.Event()

    def write() -> None:
        with (inbox / "a slow one.png").open("wb") as file:
            file.write(picture())
            while not over.wait(0.01):
                file.write(b"and so on")
                file.flush()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        (inbox / ".hidden.png").write_bytes(b"half of")
        for number in range(3):  # many looks pass
            (inbox / f"{number}.png").write_bytes(picture(50))
            program.expect(f"made +{number}.png")
        # A writer that this machine keeps waiting seems to be done. That is noticed before the end.
        assert not re.search("made +a slow one", program.output)
    finally:
        over.set()
        writer.join()
    program.expect("made +a slow one.png")
    program.terminate()
    assert "pictures    4 made" in program.end()


def test_an_inbox_knows_when_a_picture_is_complete(
    inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)
    from photolab.inbox import Inbox

    looks = Inbox(inbox)
    path = inbox / "one.PNG"
    path.write_bytes(b"1")
    assert looks.look() == []
    [arrival] = looks.look()
    path.write_bytes(b"12")
    assert looks.look() == []
    assert not arrival.file_under("done")  # it was made of something else
    [arrival] = looks.look()
    assert arrival.file_under("done")
    assert looks.look() == []
    assert not arrival.file_under("done")


def test_sigterm_finishes_what_was_taken(example: Start, inbox: Path) -> None:
    content = picture()
    for number in range(80):
        (inbox / f"{number:02}.png").write_bytes(content)
    program = example("watch_folder.py", "--workers", 1, "--queue", 3, "--size", 48)
    program.expect("made +00.png")
    program.terminate()
    said = program.end()
    made = len(names(inbox / "done"))
    assert 1 <= made < 80  # the folder is the queue: the rest was never taken
    assert f"{made} submitted = 0 queued + 0 running + {made} completed" in said
    assert f"pictures    {made} made" in said
    assert f"waiting     {80 - made} in" in said
    assert len(names(inbox)) == 80 - made


def test_a_drain_that_takes_too_long_is_reported(example: Start, inbox: Path) -> None:
    for number in range(5):
        (inbox / f"{number}.png").write_bytes(picture())
    program = example(
        "watch_folder.py", "--workers", 1, "--size", 512, "--patience", 1, "--out", inbox.parent
    )
    target = inbox.parent / "whole" / "0.png.jpg"
    program.expect("Watching")
    while not target.exists():  # the first is under way
        assert program.process.poll() is None
    program.terminate()
    said = program.end(code=1)
    assert re.search(r"unfinished 0\.png, 1\.png, 2\.png", said)
    assert "waiting     5 in" in said


def test_ctrl_c_leaves_the_rest_for_the_next_time(example: Start, inbox: Path) -> None:
    for number in range(12):
        (inbox / f"{number:02}.png").write_bytes(picture())
    program = example("watch_folder.py", "--workers", 1, "--size", 96)
    program.expect("made +00.png")
    program.interrupt()
    said = program.end(code=130)
    assert "left     " in said
    made = len(names(inbox / "done"))
    assert len(names(inbox)) == 12 - made
    again = example("watch_folder.py", "--size", 32)
    again.expect("made +11.png")
    again.terminate()
    assert f"pictures    {12 - made} made" in again.end()


@pytest.mark.skipif(
    importlib.util.find_spec("skimage") is None, reason="the photographs are in scikit-image"
)
def test_it_feeds_itself(example: Start, inbox: Path) -> None:
    said = example("watch_folder.py", "--feed", "--size", 32).end()
    assert "pictures    9 made" in said
    assert len(names(inbox / "done")) == 9


def test_wrong_arguments_are_named(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "file" in refused("watch_folder.py", tmp_path / "file")
    assert "31 is not in 32..512" in refused("watch_folder.py", "--size", 31)


def test_a_folder_that_does_not_exist_is_refused_and_not_made(
    refused: Refused, tmp_path: Path
) -> None:
    said = refused("watch_folder.py", tmp_path / "nosuch")
    assert "nosuch is no folder" in said
    assert not (tmp_path / "nosuch").exists()
