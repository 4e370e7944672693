"""The thumbnails program."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import pytest
from PIL import Image

from tests.examples.programs import Refused, Start

STYLES = 8


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three pictures of one's own."""
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.effect_mandelbrot((900, 600), (-2.2, -1.2, 1.0, 1.2), 60).save(folder / "mandelbrot.png")
    Image.radial_gradient("L").resize((640, 800)).save(folder / "gradient.jpg")
    Image.effect_noise((300, 300), 80).save(folder / "noise.webp")
    return folder


def test_every_photograph_is_made_in_every_style_and_the_planted_trouble_is_told(
    example: Start, photos: Path, tmp_path: Path
) -> None:
    said = example("thumbnails.py", "--images", photos, "--size", 48).end(traceback=True)
    made = sorted((tmp_path / "build" / "thumbnails").glob("*/*.jpg"))
    assert len([one for one in made if one.parent.name != "planted"]) == 3 * STYLES
    assert "failed     truncated/whole (OSError: " in said
    assert "panicked   rogue-codec took down" in said
    assert "restarted" in said
    assert "26 submitted = 0 queued + 0 running + 24 completed + 1 failed + 1 panicked" in said
    with Image.open(tmp_path / "build" / "thumbnails" / "contact-sheet.png") as sheet:
        assert sheet.width > 8 * 48


@pytest.mark.skipif(
    importlib.util.find_spec("skimage") is None, reason="the photographs are in scikit-image"
)
def test_it_comes_with_photographs(example: Start) -> None:
    assert "72 completed" in example("thumbnails.py", "--size", 32).end(traceback=True)


def test_ctrl_c_leaves_what_was_made(example: Start, photos: Path) -> None:
    for number in range(8):
        shutil.copy(photos / "mandelbrot.png", photos / f"copy{number}.png")
    program = example("thumbnails.py", "--images", photos)
    program.expect("failed .*truncated")
    program.interrupt()
    assert "Interrupted after" in program.end(code=130, traceback=True)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--images", "nowhere"), "no such folder: nowhere"),
        (("--size", "7"), "7 is not in 32..512"),
        (("--workers", "some"), "invalid number value: 'some'"),
    ],
)
def test_wrong_arguments_are_named(
    refused: Refused, arguments: tuple[str, ...], complaint: str
) -> None:
    assert complaint in refused("thumbnails.py", *arguments)
