"""The renditions: each turns one photograph into one small square picture.

Effects run on a canvas a few times larger than the thumbnail, so that brush strokes and pencil
lines are still fine after the reduction. That also makes it honest work: a painted thumbnail takes
some tenths of a second.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import IO

from PIL import Image, ImageChops, ImageFilter, ImageOps

__all__ = ["STYLES", "picture", "render"]

Style = Callable[[Image.Image, int], Image.Image]
Checkpoint = Callable[[], object]

SCALE = 4  # the canvas is this many times the size of the thumbnail
PAPER = (233, 229, 220)
FRAME = (33, 36, 42)
TABLE = (120, 132, 140)
LANCZOS = Image.Resampling.LANCZOS


def render(photo: Path, target: Path, *, style: str, size: int, checkpoint: Checkpoint) -> Path:
    """Write ``photo`` in ``style`` to ``target``, a JPEG of ``size`` by ``size`` pixels.

    ``checkpoint`` is called between the steps; what it raises ends the work there.
    """
    _save(picture(photo, style=style, size=size, checkpoint=checkpoint), target)
    return target


def picture(
    photo: Path | IO[bytes], *, style: str, size: int, checkpoint: Checkpoint
) -> Image.Image:
    """``photo`` in ``style``, ``size`` by ``size`` pixels; ``checkpoint`` as above."""
    side = size * SCALE
    image = _load(photo, side)
    checkpoint()
    styled = STYLES[style](image, side)
    checkpoint()
    return styled.resize((size, size), LANCZOS)


def _load(photo: Path | IO[bytes], side: int) -> Image.Image:
    """The photograph upright and in RGB; what is transparent shows paper."""
    with Image.open(photo) as opened:
        opened.draft("RGB", (side, side))  # lets the JPEG decoder skip detail nobody will see
        upright = ImageOps.exif_transpose(opened)
        if not upright.has_transparency_data:
            return upright.convert("RGB")
        layer = upright.convert("RGBA")
    paper = Image.new("RGB", layer.size, PAPER)
    paper.paste(layer, mask=layer)
    return paper


def _save(picture: Image.Image, target: Path) -> None:
    # Written aside and moved into place: an interrupted run leaves no half-written thumbnail.
    aside = target.with_suffix(".part")
    picture.save(aside, format="JPEG", quality=90, optimize=True)
    aside.replace(target)


def _whole(image: Image.Image, side: int) -> Image.Image:
    return ImageOps.pad(image, (side, side), LANCZOS, color=FRAME)


def _square(image: Image.Image, side: int) -> Image.Image:
    return ImageOps.fit(image, (side, side), LANCZOS)


def _gray(image: Image.Image, side: int) -> Image.Image:
    return ImageOps.autocontrast(_square(image, side).convert("L"), cutoff=1)


def _mono(image: Image.Image, side: int) -> Image.Image:
    return _gray(image, side).convert("RGB")


def _sepia(image: Image.Image, side: int) -> Image.Image:
    gray = _gray(image, side)
    return ImageOps.colorize(gray, black=(38, 24, 12), mid=(156, 118, 78), white=(252, 240, 214))


def _duotone(image: Image.Image, side: int) -> Image.Image:
    gray = _gray(image, side)
    return ImageOps.colorize(gray, black=(24, 22, 72), mid=(206, 62, 98), white=(255, 226, 138))


def _sketch(image: Image.Image, side: int) -> Image.Image:
    """Pencil: what is darker than its surroundings, on white paper."""
    gray = _square(image, side).convert("L").filter(ImageFilter.MedianFilter(3))
    surroundings = gray.filter(ImageFilter.GaussianBlur(side / 80))
    return ImageChops.subtract(gray, surroundings, scale=0.3, offset=245).convert("RGB")


def _painted(image: Image.Image, side: int) -> Image.Image:
    """Oil: each point takes the commonest tone around it, which runs areas together."""
    return _square(image, side).filter(ImageFilter.ModeFilter(11)).filter(ImageFilter.SMOOTH)


def _polaroid(image: Image.Image, side: int) -> Image.Image:
    """A white card, slightly askew on a table, with its shadow."""
    card = Image.new("RGBA", (round(side * 0.74), round(side * 0.86)), (252, 251, 247))
    border = round(side * 0.045)
    card.paste(_square(image, round(side * 0.65)), (border, border))
    card = card.rotate(5, Image.Resampling.BICUBIC, expand=True)
    left, top = (side - card.width) // 2, (side - card.height) // 2
    shadow = Image.new("L", (side, side))
    shadow.paste(160, (left + side // 60, top + side // 40), card.getchannel("A"))
    table = Image.new("RGB", (side, side), TABLE)
    table.paste((20, 24, 28), mask=shadow.filter(ImageFilter.GaussianBlur(side / 50)))
    table.paste(card, (left, top), card)
    return table


STYLES: dict[str, Style] = {
    "whole": _whole,
    "square": _square,
    "mono": _mono,
    "sepia": _sepia,
    "duotone": _duotone,
    "sketch": _sketch,
    "painted": _painted,
    "polaroid": _polaroid,
}
